"""What of a recording a look at its response lag takes: few sensors, few samples, no drifts."""

from __future__ import annotations

from typing import Any

import numpy as np

from braindecode_pipe.fitting.spans import nearest_sample

_MAX_SFREQ = 125.0
_BLOCK = 32 << 20


def good_sensors(signal: Any, most: int) -> np.ndarray:
    """Positions of good sensors, evenly chosen."""
    good = np.flatnonzero(signal.sensors["sensor_good"].to_numpy(bool))
    return good[np.unique(np.linspace(0, len(good) - 1, min(most, len(good))).astype(int))]


def read_thinned(
    signal: Any, most: int, start: int = 0, stop: int | None = None, factor: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Good sensors ``(n, n_times // factor)`` averaged over ``factor`` samples, and good times."""
    keep = good_sensors(signal, most)
    stop = signal.n_times if stop is None else stop
    step = max(1, _BLOCK // (4 * signal.n_sensors) // factor) * factor
    parts = []
    for at in range(start, stop - (stop - start) % factor, step):
        end = min(at + step, stop - (stop - start) % factor)
        block = np.asarray(signal.read(at, end)[keep], np.float64)
        parts.append(block.reshape(len(keep), -1, factor).mean(2))
    n = (stop - start) // factor
    good = signal.time_good[start : start + n * factor].reshape(n, factor).all(1)
    data = np.concatenate(parts, axis=1) if parts else np.zeros((len(keep), 0))
    return np.nan_to_num(data), good


def read_fast(signal: Any, most: int, start: float, stop: float) -> tuple[np.ndarray, float]:
    """Standardised sensors at 125 Hz at most, from ``start`` to ``stop`` [s], and the rate [Hz]."""
    factor = max(1, int(signal.sfreq / _MAX_SFREQ))
    first = int(nearest_sample(start, signal.sfreq))
    last = min(signal.n_times, int(nearest_sample(stop, signal.sfreq)))
    data, good = read_thinned(signal, most, first, last, factor)
    sfreq = signal.sfreq / factor
    n = round(2 * sfreq)
    if good.sum() < 2 * n or not len(data):
        return np.zeros((0, 0)), sfreq
    data -= np.median(data[:, good], axis=1)[:, None]
    data[:, ~good] = 0
    total = np.cumsum(np.pad(data, ((0, 0), (n // 2 + 1, n - n // 2 - 1)), mode="edge"), axis=1)
    slow = (total[:, n:] - total[:, :-n]) / n
    data[:, : slow.shape[1]] -= slow[:, : data.shape[1]]
    data[:, ~good] = 0
    spread = np.sqrt((data[:, good] ** 2).mean(1))
    alive = spread > 0
    return np.clip(data[alive] / spread[alive, None], -5, 5), sfreq


def drifts(times: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Orthonormal constant, trend and cosines slower than 128 s ``(n_times, k)`` over ``kept``."""
    n = len(times)
    length = times[-1] + (times[1] - times[0])
    order = int(2 * length / 128.0)
    ramp = np.linspace(-1, 1, n)
    waves = [np.cos(np.pi * k * (np.arange(n) + 0.5) / n) for k in range(1, order + 1)]
    return np.linalg.qr(np.stack([np.ones(n), ramp, *waves], axis=1) * kept[:, None])[0]


def standardised(
    data: np.ndarray, kept: np.ndarray, basis: np.ndarray, drop: bool = True
) -> np.ndarray:
    """Rows without what ``basis`` explains, of length 1; flat ones are dropped, or 0."""
    data = np.where(kept, data, 0.0)
    data = np.where(kept, data - np.nanmean(np.where(kept, data, np.nan), axis=1)[:, None], 0.0)
    size = np.linalg.norm(data, axis=1)
    data = np.where(kept, data - (data @ basis) @ basis.T, 0.0)
    left = np.linalg.norm(data, axis=1)
    alive = left > 1e-6 * np.maximum(size, np.finfo(float).tiny)
    if drop:
        return data[alive] / left[alive, None]
    return np.where(alive[:, None], data / np.where(alive, left, 1.0)[:, None], 0.0)
