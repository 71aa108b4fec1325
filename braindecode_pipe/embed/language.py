"""Words, sentences and words in context through a network of ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.embed.bert import masked_mean
from braindecode_pipe.embed.interface import Item, Text, batches, fitting_batch, text_of
from braindecode_pipe.errors import ModelError, StimulusError

if TYPE_CHECKING:
    from braindecode_pipe.embed.pretrained import PretrainedModel


def order(items: Sequence[Item]) -> list[int]:
    """Short texts first, so that a batch holds little padding."""
    whole = [_whole(item) for item in items]
    return sorted(range(len(items)), key=lambda i: (len(whole[i]), whole[i]))


def encode(model: PretrainedModel, items: Sequence[Item]) -> np.ndarray:
    """(n_items, n_features).

    A plain text is pooled over all its tokens, those that the tokenizer adds among them. Of a
    :class:`~braindecode_pipe.embed.interface.Text` only the tokens that overlap its ``text`` are
    pooled; where text and context are too long for the model, the beginning of the context is cut.
    """
    size = model.batch_size or _fitting(model)
    return np.concatenate([_batch(model, batch) for batch in batches(items, size)])


def _fitting(model: PretrainedModel) -> int:
    config = getattr(model.config, "text_config", model.config)
    width, depth = getattr(config, "hidden_size", 1024), getattr(config, "num_hidden_layers", 24)
    longest = min(_longest(model) or 512, 512)
    return fitting_batch(4 * longest * width * (depth + 12))


def _longest(model: PretrainedModel) -> int | None:
    config = getattr(model.config, "text_config", model.config)
    positions = getattr(config, "max_position_embeddings", None)
    # RoBERTa counts positions from padding_idx + 1, and says so in the tokenizer alone.
    limits = [n for n in (model.processor.model_max_length, positions) if n and n < 10**6]
    return min(limits) if limits else None


def _whole(item: Item) -> str:
    text = text_of(item)
    context = item.value.context if isinstance(item.value, Text) else ""
    return f"{context} {text}" if context else text


def _batch(model: PretrainedModel, batch: Sequence[Item]) -> np.ndarray:
    tokenizer = model.processor
    partial = any(isinstance(item.value, Text) for item in batch)
    if partial and not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer of {model.name} does not say where its tokens lie in the text",
            expected="a tokenizer of the library tokenizers (tokenizer.json)",
            found=type(tokenizer).__name__,
            remedy="save the model with AutoTokenizer.from_pretrained(...).save_pretrained",
        )
    tokenizer.truncation_side = "left" if partial else "right"
    longest = _longest(model)
    encoded = tokenizer(
        [_whole(item) for item in batch],
        # SigLIP was trained on texts padded to full length, and reads the padding.
        padding="max_length" if model.config.model_type.startswith("siglip") else True,
        truncation=longest is not None,
        max_length=longest,
        return_offsets_mapping=partial,
        return_attention_mask=True,
        return_tensors="pt",
    )
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {k: v for k, v in encoded.items() if k in names}
    if model.is_joint or model.config.model_type == "distilbert":
        inputs.pop("token_type_ids", None)
    keep = inputs["attention_mask"].bool()
    if partial and not model.is_joint:
        keep = _own_tokens(model, batch, keep, encoded["offset_mapping"])
    return _vectors(model, inputs, keep).float().numpy()


def _own_tokens(model: PretrainedModel, batch: Sequence[Item], keep: Any, offsets: Any) -> Any:
    """(n, n_tokens) bool: the tokens to pool of each item."""
    keep = keep.clone()
    for row, item in enumerate(batch):
        if not isinstance(item.value, Text):
            continue
        begin = len(_whole(item)) - len(item.value.text)
        # Tokens that the tokenizer adds lie at (0, 0).
        keep[row] &= (offsets[row, :, 1] > begin) & (offsets[row, :, 1] > offsets[row, :, 0])
        if not keep[row].any():
            raise StimulusError(
                f"{item.name}: {model.name} has no token for this text", expected="at least one",
                found=repr(item.value.text),
            )  # fmt: skip
    return keep


def _vectors(model: PretrainedModel, inputs: dict[str, Any], keep: Any) -> Any:
    import torch

    if model.is_own_head:
        features = model.network.get_text_features(**inputs)
        return getattr(features, "pooler_output", features)
    pooling = model.pooling or model.sentences.get("pooling") or (
        "last" if model.is_causal else "mean")  # fmt: skip
    pooled = {k: _pool(state, keep, pooling) for k, state in model.states(inputs).items()}
    vectors = model.average(pooled)
    if model.sentences.get("normalize"):
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    return vectors


def _pool(state: Any, keep: Any, pooling: str) -> Any:
    import torch

    if pooling == "cls":
        return state[:, 0]
    if pooling == "last":
        numbers = torch.arange(keep.shape[1]).expand_as(keep)
        last = torch.where(keep, numbers, -1).amax(1)
        return state[torch.arange(len(state)), last]
    return masked_mean(state, keep)
