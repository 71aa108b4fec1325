"""Pictures through a network of ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.embed.interface import Item, batches, fitting_batch
from braindecode_pipe.embed.pictures import read_image
from braindecode_pipe.errors import ModelError

if TYPE_CHECKING:
    from braindecode_pipe.embed.pretrained import PretrainedModel


def encode(model: PretrainedModel, items: Sequence[Item]) -> np.ndarray:
    """(n_items, n_features), or (n_items, n_patches, n_features) with pooling "patches"."""
    rows = [_batch(model, batch) for batch in batches(items, model.batch_size or _fitting(model))]
    if len({row.shape[1:] for row in rows}) > 1:
        raise _ragged(model)
    return np.concatenate(rows)


def _fitting(model: PretrainedModel) -> int:
    config = getattr(model.config, "vision_config", model.config)
    side, patch = getattr(config, "image_size", 224), getattr(config, "patch_size", 16)
    side, patch = (n if isinstance(n, int) else max(n or [1]) for n in (side, patch))
    width, depth = getattr(config, "hidden_size", 2048), getattr(config, "num_hidden_layers", 12)
    width, depth = (n if isinstance(n, int) else 2048 for n in (width, depth))
    n_tokens = (max(side, 224) // max(1, patch)) ** 2 + 1
    return fitting_batch(4 * n_tokens * width * (depth + 12))


def _batch(model: PretrainedModel, batch: Sequence[Item]) -> np.ndarray:
    import torch

    tensors = [
        model.processor(images=read_image(item), return_tensors="pt")["pixel_values"]
        for item in batch
    ]
    # Processors that keep the aspect ratio give tensors that cannot be stacked.
    if len({tensor.shape for tensor in tensors}) == 1:
        tensors = [torch.cat(tensors)]
    pooled = [_vectors(model, tensor) for tensor in tensors]
    if len({tuple(part.shape[1:]) for part in pooled}) > 1:
        raise _ragged(model)
    return torch.cat(pooled).numpy()


def _vectors(model: PretrainedModel, pixels: Any) -> Any:
    if model.is_own_head:
        features = model.network.get_image_features(pixel_values=pixels.to(model.network.dtype))
        # transformers 4 returns the tensor, transformers 5 an output that holds it.
        return getattr(features, "pooler_output", features).float()
    states = model.states({"pixel_values": pixels})
    return model.average({k: _pool(model, state, pixels) for k, state in states.items()})


def _pool(model: PretrainedModel, state: Any, pixels: Any) -> Any:
    pooling = model.pooling or ("cls" if _has_class_token(model) else "mean")
    if state.ndim == 4:
        if pooling == "mean":
            return state.mean((2, 3))
        if pooling in ("patches", "patch_mean"):
            flat = state.flatten(2).transpose(1, 2)
            return flat if pooling == "patches" else flat.mean(1)
        raise ModelError(
            f"{model.name} has no class token", expected="pooling = 'mean'", found="'cls'"
        )
    if pooling == "cls":
        if not _has_class_token(model):
            raise ModelError(
                f"{model.name} has no class token", expected="pooling = 'mean' | 'patches'",
                found="'cls'",
            )  # fmt: skip
        return state[:, 0]
    if pooling == "mean":
        return state.mean(1)
    patches = state[:, _n_prefix(model, state, pixels) :]
    return patches if pooling == "patches" else patches.mean(1)


def _n_prefix(model: PretrainedModel, state: Any, pixels: Any) -> int:
    """Class and register tokens stand before the patches, in every model that has them."""
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "patch_size", None)
    if not isinstance(size, int):
        raise ModelError(
            f"{model.name} has no patches of one size", expected="pooling = 'mean'",
            found=f"patch_size = {size!r}",
        )  # fmt: skip
    n_patches = (pixels.shape[-2] // size) * (pixels.shape[-1] // size)
    if not n_patches <= state.shape[1] <= n_patches + 32:
        raise ModelError(
            f"{model.name}: its tokens are not its patches", expected=f"{n_patches} patches after "
            "at most 32 other tokens", found=f"{state.shape[1]} tokens",
        )  # fmt: skip
    return state.shape[1] - n_patches


def _has_class_token(model: PretrainedModel) -> bool:
    names = [name for name, _ in model.network.named_parameters()]
    return any(name.endswith(("cls_token", "class_embedding")) for name in names)


def _ragged(model: PretrainedModel) -> ModelError:
    return ModelError(
        f"{model.name} gives pictures of different shape different numbers of patches",
        expected="one number of patches",
        found="several",
        remedy='pooling = "patch_mean" or "cls"; or pictures of one shape',
    )
