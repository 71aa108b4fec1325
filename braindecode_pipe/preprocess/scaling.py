"""Scalers of M/EEG rows: robust or standard, over the recording or over the past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.splits import content_hash

# The causal scaler is set anew this often [s].
_STEP_S = 1.0
_QUARTERS = (0.25, 0.5, 0.75)
# Values of a long row that are sorted first, and how many of them away from a quantile its bounds
# are set: about four standard errors.
_SAMPLE, _MARGIN = 1024, 64
# Windows of the causal scaler that are sorted at a time.
_AT_ONCE = 64
WORDS = {
    "robust": "(x - median) / interquartile range",
    "standard": "(x - mean) / standard deviation",
}


@dataclass(frozen=True)
class Scaling:
    """``scaled = (x - offset) / gain``, zero where ``gain`` is 0.

    Attributes
    ----------
    offset, gain : (n_rows, n_steps) float64 [unit of the rows]; one step unless causal
    starts : (n_steps,) int, first sample of each step
    n_samples : how many samples of a row the scaler saw
    seen : (start, stop) [samples] of what it saw
    """

    offset: np.ndarray
    gain: np.ndarray
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1, int))
    n_samples: int = 0
    seen: tuple[tuple[int, int], ...] = ()

    def apply(self, values: np.ndarray, start: int) -> np.ndarray:
        """Scale ``values`` (n_rows, n) float32, the samples from ``start`` on, in place."""
        stop = start + values.shape[1]
        edges = [*self.starts.tolist(), np.iinfo(int).max]
        for step, (first, last) in enumerate(zip(edges, edges[1:])):
            low, high = max(first, start), min(last, stop)
            if low < high:
                gain = self.gain[:, step]
                factor = np.divide(1, gain, out=np.zeros_like(gain), where=gain > 0)
                part = values[:, low - start : high - start]
                part -= self.offset[:, step, None].astype(np.float32)
                part *= factor[:, None].astype(np.float32)
        return values

    @property
    def typical(self) -> tuple[np.ndarray, np.ndarray]:
        """Offset and gain (n_rows,): the median over the steps."""
        return np.median(self.offset, axis=1), np.median(self.gain, axis=1)


def fit_scaling(rows: Scratch, good: np.ndarray, kind: str) -> Scaling:
    """Fit on the good samples of every row; on all of them when none is good.

    Parameters
    ----------
    rows : (n_rows, n_times)
    good : (n_times,) bool
    kind : "robust", the median and the interquartile range, or "standard", mean and s.d.

    Returns
    -------
    Scaling, whose gain is 0 for a row without spread
    """
    good = good if good.any() else np.ones_like(good)
    whole = bool(good.all())
    fits = []
    for part in rows.row_blocks():
        values = rows.read(part)
        fits.append(_center_and_spread(values if whole else values[:, good], kind))
    offset, gain = (np.concatenate([fit[i] for fit in fits]) for i in (0, 1))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good, [0]]).astype(np.int8))).tolist()
    return Scaling(
        offset[:, None], gain[:, None], n_samples=int(good.sum()),
        seen=tuple(zip(edges[::2], edges[1::2])),
    )  # fmt: skip


def fit_causal(
    rows: Scratch, good: np.ndarray, kind: str, window: int, step: int
) -> tuple[Scaling, np.ndarray]:
    """Scale every second by the good samples of the ``window`` samples before it.

    Nothing at or after a step's first sample changes its offset and gain. The first window, which
    has no past, is scaled by its own good samples. A step with fewer than two good samples in its
    past keeps the values of the step before.

    Parameters
    ----------
    rows : (n_rows, n_times)
    good : (n_times,) bool
    kind : "robust" or "standard"
    window, step : int [samples]

    Returns
    -------
    Scaling, and (n_times,) bool, False in the first window
    """
    n_times = rows.shape[1]
    window = min(window, n_times)
    starts = np.concatenate([[0], np.arange(window, n_times, step)])
    offset, gain = (np.empty((len(rows), len(starts))) for _ in range(2))
    for part in rows.row_blocks():
        values = rows.read(part)
        for i, row in enumerate(values, start=part.start):
            _causal_row(row, good, kind, window, starts, offset[i], gain[i])
    settled = np.arange(n_times) >= window
    return Scaling(offset, gain, starts, n_times, ((0, n_times),)), settled


def _causal_row(
    row: np.ndarray, good: np.ndarray, kind: str, window: int, starts: np.ndarray,
    offset: np.ndarray, gain: np.ndarray,
) -> None:  # fmt: skip
    ends = np.maximum(starts, window)
    count = np.concatenate([[0], np.cumsum(good)])
    n_good = count[ends] - count[ends - window]
    past = np.lib.stride_tricks.sliding_window_view(row, window)
    for first in range(0, len(starts), _AT_ONCE):
        some = np.arange(first, min(first + _AT_ONCE, len(starts)))
        complete = some[n_good[some] == window]
        if len(complete):
            values = past[ends[complete] - window]
            offset[complete], gain[complete] = _center_and_spread(values, kind)
        for i in some[n_good[some] < window]:
            kept = good[ends[i] - window : ends[i]]
            values = row[ends[i] - window : ends[i]]
            if n_good[i] >= 2:
                values = values[kept]
            elif i > 0:
                offset[i], gain[i] = offset[i - 1], gain[i - 1]
                continue
            offset[i : i + 1], gain[i : i + 1] = _center_and_spread(values[None], kind)


def _center_and_spread(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Of every row of (n_rows, n_times), as float64."""
    if kind == "standard":
        mean = values.mean(axis=1, dtype=float)
        power = ((values - mean[:, None]) ** 2).mean(axis=1)
        power[values.max(axis=1) == values.min(axis=1)] = 0
        return mean, np.sqrt(power)
    low, median, high = quantiles(values, _QUARTERS)
    return median, high - low


def quantiles(values: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """``numpy.quantile(values, shares, axis=1)``, several times faster.

    Of a long row only the values near each quantile are sorted: those between two bounds that a
    sample of the row suggests, and that are then proved to hold it by counting.

    Parameters
    ----------
    values : (n_rows, n_times), finite, not empty
    shares : n_shares numbers in [0, 1]

    Returns
    -------
    (n_shares, n_rows) float64
    """
    last = values.shape[1] - 1
    place = np.asarray(shares) * last
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, last)
    result = np.empty((len(place), len(values)))
    for i, row in enumerate(values):
        ends = [_order_statistics(row, a, b) for a, b in zip(below, above)]
        low, high = np.array(ends, float).T
        result[:, i] = low + (high - low) * (place - below)
    return result


def _order_statistics(row: np.ndarray, first: int, second: int) -> tuple[float, float]:
    """The values at the places ``first`` and ``second >= first`` of the sorted row."""
    few = np.sort(row[:: len(row) // _SAMPLE]) if len(row) > 4 * _SAMPLE else row[:0]
    if len(few):
        center = round(first / len(row) * len(few))
        low = few[max(0, center - _MARGIN)] if center > _MARGIN else -np.inf
        high = few[center + _MARGIN] if center + _MARGIN < len(few) else np.inf
        n_below = int(np.count_nonzero(row < low))
        near = row[(row >= low) & (row <= high)]
        if n_below <= first and second < n_below + len(near) and 2 * len(near) < len(row):
            row, first, second = near, first - n_below, second - n_below
    ordered = np.partition(row, [first, second])
    return ordered[first], ordered[second]


def describe(scaling: Scaling, kind: str, scope: str, sfreq: float, **more: Any) -> dict[str, Any]:
    """What a store keeps of its scaler: scope, how many samples it saw, and a hash of which."""
    seen = [[start / sfreq, stop / sfreq] for start, stop in scaling.seen]
    return {
        "kind": kind, "scope": scope, "n_samples": scaling.n_samples,
        "extents_hash": content_hash(seen), **more,
    }  # fmt: skip
