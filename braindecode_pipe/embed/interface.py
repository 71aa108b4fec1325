"""What every embedding model is, and how stimuli are handed to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from braindecode_pipe.errors import ModelError, StimulusError

# What the intermediate values of one batch may take.
BATCH_BYTES = 512 << 20


@dataclass(frozen=True)
class Item:
    """One stimulus.

    Attributes
    ----------
    name : str
        How error messages call it, for example ``stimulus 'a1f3' (row 4)``.
    value : str, :class:`Text`, path, PIL image, list of PIL images, array, or
        :class:`~braindecode_pipe.embed.audio.Clip`
    """

    name: str
    value: Any


@dataclass(frozen=True)
class Text:
    """A text, and what was read before it; only ``text`` is pooled."""

    text: str
    context: str = ""


class EmbeddingModel(ABC):
    """Stimuli to vectors. Making one is cheap; weights are read by the first :meth:`encode`.

    Attributes
    ----------
    reads : "text" | "image" | "audio" | "video" | "onsets"
        What the items must be.
    packages : tuple of str
        Distributions that the values come from.
    cached : bool
        Whether vectors are worth keeping: written as they come, and shared by all studies.
    """

    reads: str
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    cached: ClassVar[bool] = False

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What decides the result: name, settings, SHA-256 of the weights. Computes nothing."""

    @abstractmethod
    def encode(self, items: Sequence[Item]) -> np.ndarray:
        """(n_items, n_features) or (n_items, n_steps, n_features) float32."""

    def step_times(self, n_steps: int) -> np.ndarray:
        """Times [s] of steps relative to the stimulus onset; NaN for tokens that have none."""
        return np.full(n_steps, np.nan)

    def probes(self) -> list[Item]:
        """The built-in stimuli of the reference check; none where there is nothing to check."""
        from braindecode_pipe.embed.probes import probes

        return probes(self.reads)

    def order(self, items: Sequence[Item]) -> list[int]:
        """The order in which items are cheapest to encode."""
        return list(range(len(items)))


@dataclass(frozen=True)
class TimeAxis:
    """Steps of an embedding on the recording's time axis: ``tmin + k / sfreq``, below ``tmax``.

    Attributes
    ----------
    sfreq : float [Hz]
    tmin, tmax : float [s], relative to the onset of the stimulus
    """

    sfreq: float
    tmin: float
    tmax: float

    def __post_init__(self) -> None:
        if not self.sfreq > 0 or not self.tmax > self.tmin or self.n_steps < 1:
            raise ModelError(
                "the time axis of an embedding",
                expected="sfreq > 0 Hz and at least one step from tmin to tmax",
                found=f"sfreq = {self.sfreq}, tmin = {self.tmin}, tmax = {self.tmax}",
            )

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return round((self.tmax - self.tmin) * self.sfreq)

    @property
    def times(self) -> np.ndarray:
        """(n_steps,) [s]."""
        return self.tmin + np.arange(self.n_steps) / self.sfreq


def text_of(item: Item) -> str:
    """The text of an item; :class:`StimulusError` when it is empty or no text."""
    value = item.value.text if isinstance(item.value, Text) else item.value
    if not isinstance(value, str):
        raise StimulusError(
            f"{item.name} is no text", expected="a string", found=type(value).__name__
        )
    if not value.strip():
        raise StimulusError(
            f"{item.name} has an empty text",
            expected="a word or a sentence",
            found=repr(value),
            remedy="give it a label, or a text in [embed.<table>.texts]",
        )
    return value


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive pieces of at most ``size`` items."""
    if size < 1:
        raise ModelError("batch size", expected="at least 1", found=str(size))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def fitting_batch(item_bytes: int, most: int = 32) -> int:
    """How many items of so many bytes of intermediate values fit into one batch."""
    return int(min(most, max(1, BATCH_BYTES // max(1, item_bytes))))


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
