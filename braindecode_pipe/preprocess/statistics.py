"""What is measured of every channel while a recording streams by, once, in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from braindecode_pipe.store.layout import crc32c

# Windows are shortened down to this share of the wanted length when the allowed stretches are
# shorter, and never below so many samples.
_SHORTEST, _LEAST_SAMPLES = 8, 8


@dataclass(frozen=True)
class ChannelStatistics:
    """Of every channel, over the allowed samples that fill whole windows.

    Attributes
    ----------
    amplitude : (n_channels,) float64
        Median over windows of the standard deviation inside a window.
    constant_share : (n_channels,) share of the windows without any change
    clipped_share : (n_channels,)
        Share of the samples that stay at the largest, or smallest, value three times or more in a
        row (within one block).
    copy_of : (n_channels,) int, first channel with the same samples, or -1
    constant : (n_channels,) bool, one value throughout
    not_finite : row -> (start, stop) [samples] of NaN or infinity, anywhere in the recording
    n_samples : how many samples a channel was judged by
    """

    amplitude: np.ndarray
    constant_share: np.ndarray
    clipped_share: np.ndarray
    copy_of: np.ndarray
    constant: np.ndarray
    not_finite: dict[int, list[tuple[int, int]]]
    n_samples: int


@dataclass
class _Limit:
    """The most extreme value of a channel so far, and the samples that stay there."""

    value: float = -np.inf
    held: int = 0

    def see(self, row: np.ndarray, largest: float) -> None:
        if largest < self.value:
            return
        if largest > self.value:
            self.value, self.held = largest, 0
        self.held += plateau(row, largest)


@dataclass
class _Channel:
    crc: int = 0
    top: _Limit = field(default_factory=_Limit)
    bottom: _Limit = field(default_factory=_Limit)


class Statistics:
    """Accumulates :class:`ChannelStatistics`; feed it with :meth:`observe`, in order.

    Parameters
    ----------
    n_channels : int
    window : int [samples], usually one second
    allowed : (start, stop) [samples], ascending and disjoint
        What may be judged; windows begin at the start of each. Samples that are not finite are
        looked for everywhere.
    """

    def __init__(self, n_channels: int, window: int, allowed: Sequence[tuple[int, int]]) -> None:
        self._n, self._allowed = n_channels, list(allowed)
        self.window = fitting_window(window, allowed)
        self._channels = [_Channel() for _ in range(n_channels)]
        self._deviation: list[np.ndarray] = []
        self._rest = np.empty((n_channels, 0))
        self._rest_stop = -1
        self._lowest, self._highest = np.full(n_channels, np.inf), np.full(n_channels, -np.inf)
        self._not_finite: dict[int, list[tuple[int, int]]] = {}
        self._n_samples = 0

    def observe(self, start: int, values: np.ndarray) -> None:
        """Take in ``values`` (n_channels, n), the samples from ``start`` on.

        Rows with samples that are not finite are put to zero in place: nothing of them may get
        into a transform.
        """
        stop = start + values.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):
            self._find_not_finite(start, values)
        for low, high in self._allowed:
            if low < stop and high > start:
                self._take(max(low, start), values[:, max(low, start) - start : high - start])

    def finish(self) -> ChannelStatistics:
        """The statistics of what was observed."""
        if not self._deviation and self._rest.shape[1] > 1:
            self._windows(self._rest[:, None, :])
        n_windows = sum(part.shape[1] for part in self._deviation)
        deviation = np.concatenate(self._deviation, axis=1) if n_windows else np.zeros((self._n, 1))
        judged = max(1, self._n_samples)
        held = [max(c.top.held, c.bottom.held) for c in self._channels]
        return ChannelStatistics(
            np.median(deviation, axis=1).astype(float),
            (deviation == 0).mean(axis=1),
            np.array(held, float) / judged,
            self._copies(deviation),
            self._lowest >= self._highest,
            self._not_finite,
            self._n_samples,
        )

    def _find_not_finite(self, start: int, values: np.ndarray) -> None:
        for row in np.flatnonzero(~np.isfinite(values.sum(axis=1))):
            wrong = ~np.isfinite(values[row])
            edges = np.flatnonzero(np.diff(np.concatenate([[0], wrong, [0]]).astype(np.int8)))
            spans = self._not_finite.setdefault(int(row), [])
            for low, high in zip((start + edges[::2]).tolist(), (start + edges[1::2]).tolist()):
                if spans and spans[-1][1] == low:
                    spans[-1] = (spans[-1][0], high)
                else:
                    spans.append((low, high))
            values[row] = 0

    def _take(self, start: int, values: np.ndarray) -> None:
        """Cut a stretch into windows, the first one with what was left of the block before."""
        if self._rest_stop != start:
            self._rest = np.empty((self._n, 0), values.dtype)
        n_rest, window = self._rest.shape[1], self.window
        if n_rest:
            first = values[:, : window - n_rest]
            self._rest = np.concatenate([self._rest, first], axis=1)
            values, start = values[:, first.shape[1] :], start + first.shape[1]
            self._rest_stop = start
            if self._rest.shape[1] < window:
                return
            self._windows(self._rest[:, None, :])
        n_windows = values.shape[1] // window
        if n_windows:
            whole = values[:, : n_windows * window]
            self._windows(whole.reshape(self._n, n_windows, window))
        self._rest = values[:, n_windows * window :].copy()
        self._rest_stop = start + values.shape[1]

    def _windows(self, pieces: np.ndarray) -> None:
        """Measure (n_channels, n_windows, window)."""
        deviation = np.empty(pieces.shape[:2], pieces.dtype)
        for i, (channel, piece) in enumerate(zip(self._channels, pieces)):
            highest, lowest = piece.max(axis=1), piece.min(axis=1)
            centered = piece - piece.mean(axis=1, keepdims=True)
            power = np.einsum("ij,ij->i", centered, centered) / piece.shape[1]
            # The mean of equal numbers can differ from them by a rounding error.
            deviation[i] = np.where(highest > lowest, np.sqrt(power), 0)
            row, top, bottom = piece.reshape(-1), highest.max(), lowest.min()
            channel.top.see(row, top)
            if -bottom >= channel.bottom.value:
                channel.bottom.see(-row, -bottom)
            channel.crc = crc32c(row.view(np.uint8), start=channel.crc)
            self._lowest[i] = min(self._lowest[i], bottom)
            self._highest[i] = max(self._highest[i], top)
        self._deviation.append(deviation)
        self._n_samples += pieces.shape[1] * pieces.shape[2]

    def _copies(self, deviation: np.ndarray) -> np.ndarray:
        """First channel with the same checksum, limits and windows, or -1."""
        seen: dict[tuple[int, float, float, bytes], int] = {}
        copy_of = np.full(self._n, -1)
        for i, channel in enumerate(self._channels):
            limits = (float(self._lowest[i]), float(self._highest[i]))
            first = seen.setdefault((channel.crc, *limits, deviation[i].tobytes()), i)
            if first != i:
                copy_of[i] = first
        return copy_of


def fitting_window(window: int, allowed: Sequence[tuple[int, int]]) -> int:
    """``window``, or less of it where most of the allowed stretches are shorter."""
    n_total = sum(stop - start for start, stop in allowed)
    window = max(2, min(window, max((stop - start for start, stop in allowed), default=2)))
    shortest = max(_LEAST_SAMPLES, window // _SHORTEST)
    while window // 2 >= shortest:
        covered = sum((stop - start) // window * window for start, stop in allowed)
        if 2 * covered >= n_total:
            break
        window //= 2
    return window


def plateau(row: np.ndarray, limit: float) -> int:
    """How many samples equal ``limit`` three times or more in a row."""
    at = row == limit
    if np.count_nonzero(at) < 3:
        return 0
    padded = np.concatenate([[False, False], at, [False, False]])
    triple = padded[:-2] & padded[1:-1] & padded[2:]
    return int(np.count_nonzero(triple[:-2] | triple[1:-1] | triple[2:]))
