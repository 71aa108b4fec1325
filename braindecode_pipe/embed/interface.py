"""What every embedding model is, and how stimuli are handed to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from braindecode_pipe.errors import ModelError, StimulusError


@dataclass(frozen=True)
class Item:
    """One stimulus.

    Attributes
    ----------
    name : str
        How error messages call it, for example ``stimulus 'a1f3' (row 4)``.
    value : str, path, PIL image, array or :class:`~braindecode_pipe.embed.speech.Clip`
    """

    name: str
    value: Any


class EmbeddingModel(ABC):
    """Stimuli to vectors. Making one is cheap; weights are read by the first :meth:`encode`.

    Attributes
    ----------
    reads : "text" | "image" | "audio"
        What the items must be.
    packages : tuple of str
        Distributions that the values come from.
    """

    reads: str
    packages: ClassVar[tuple[str, ...]] = ("numpy",)

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What decides the result: name, settings, SHA-256 of the weights. Computes nothing."""

    @abstractmethod
    def encode(self, items: Sequence[Item]) -> np.ndarray:
        """(n_items, n_features) or (n_items, n_steps, n_features) float32."""


def text_of(item: Item) -> str:
    """The text of an item; :class:`StimulusError` when it is empty or no text."""
    if not isinstance(item.value, str):
        raise StimulusError(
            f"{item.name} is no text", expected="a string", found=type(item.value).__name__
        )
    if not item.value.strip():
        raise StimulusError(
            f"{item.name} has an empty text",
            expected="a word or a sentence",
            found=repr(item.value),
            remedy="give it a label, or a text in [embed.<table>.texts]",
        )
    return item.value


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Consecutive pieces of at most ``size`` items."""
    if size < 1:
        raise ModelError("batch size", expected="at least 1", found=str(size))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def check_pooling(pooling: str, allowed: tuple[str, ...], model: str) -> None:
    """Raise :class:`ModelError` when ``model`` has no such pooling."""
    if pooling not in allowed:
        raise ModelError(
            f"{model} has no pooling {pooling!r}",
            expected=" | ".join(map(repr, allowed)),
            found=repr(pooling),
        )


def check_no_layer(layer: object, model: str) -> None:
    """Raise :class:`ModelError` when a layer is asked of a model that has none."""
    if layer is not None:
        raise ModelError(f"{model} has no layers", expected="no layer", found=f"layer = {layer!r}")
