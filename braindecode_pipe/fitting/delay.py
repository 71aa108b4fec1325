"""The response delay, from when something was shown and not from what was shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.sensors import common_sensors
from braindecode_pipe.fitting.spans import nearest_sample, sample_at

LAGS_MAX = 61
BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class DelayEstimate:
    """What :func:`estimate_delay` found.

    Attributes
    ----------
    lags : (n_lags,) [s]
    correlation : (n_lags,)
    delay : float [s], the lag of the largest correlation (the smallest one among equals)
    """

    lags: np.ndarray
    correlation: np.ndarray
    delay: float


def estimate_delay(
    signals: Mapping[str, Any],
    events: pd.DataFrame,
    delay_max: float,
    hidden: pd.DataFrame | None = None,
    share: float = 0.05,
) -> DelayEstimate:
    """Delay of the response to any stimulus, without looking at labels.

    For each lag ``d`` a regressor is 1 while an event lasts, shifted by ``d``, and 0 at rest. Its
    correlation with every sensor is computed within each recording, mean and linear trend taken
    out of both, and averaged over recordings weighted by their samples. The score of a lag is the
    mean of the largest ``share`` of these correlations over sensors (at least one sensor), then
    the mean over people: responses are assumed positive in the sensors that respond most, as in
    BOLD. Only onsets and durations of ``events`` are used. Lags are multiples of the sampling
    interval, made coarser where there would be more than 61.

    Parameters
    ----------
    signals : recording -> Signal
    events : DataFrame
        All events, of whatever stimulus, that the fit may see: recording, subject, onset [s],
        duration [s].
    delay_max : float
        Largest lag [s].
    hidden : DataFrame, optional
        Events in the same recordings that the fit may not see. Samples from their onset until
        ``delay_max`` after their end are left out.
    share : float
        Share of sensors that counts.

    Raises
    ------
    DataError
        When stimulation never changes in any recording, so that there is no rest to compare with,
        or when the recordings are responses to events that are cut out already.
    """
    recordings = [str(r) for r in dict.fromkeys(events["recording"]) if str(r) in signals]
    if not recordings or any(signals[r].kind != "signal" for r in recordings):
        raise DataError(
            "the response delay cannot be estimated",
            expected="continuous recordings of the training events",
            found="none" if not recordings else "responses that are already cut out",
            remedy="give [train.windows] delay in seconds",
        )
    sfreq = signals[recordings[0]].sfreq
    n_samples = int(np.floor(delay_max * sfreq * (1 + 1e-9)))
    lags = np.arange(0, n_samples + 1, max(1, -(-n_samples // (LAGS_MAX - 1)))) / sfreq
    subject_of = dict(zip(events["recording"].astype(str), events["subject"].astype(str)))
    scores = []
    for subject in dict.fromkeys(subject_of[r] for r in recordings):
        own = [r for r in recordings if subject_of[r] == subject]
        _, index = common_sensors({r: signals[r].sensors for r in own})
        total, weight = 0.0, 0
        for name in own:
            shown, kept = _regressors(signals[name], name, events, hidden, lags, delay_max)
            if shown is not None:
                total = total + kept.sum() * _correlations(signals[name], index[name], shown, kept)
                weight += int(kept.sum())
        if weight:
            r = np.sort(total / weight, axis=0)
            scores.append(r[-max(1, round(share * len(r))) :].mean(0))
    if not scores:
        raise DataError(
            "the response delay cannot be estimated",
            expected="rest between events in at least one training recording",
            found="stimulation without a pause",
            remedy="give [train.windows] delay in seconds",
        )
    correlation = np.mean(scores, axis=0)
    return DelayEstimate(lags, correlation, float(lags[int(np.argmax(correlation))]))


def _regressors(
    signal: Any,
    name: str,
    events: pd.DataFrame,
    hidden: pd.DataFrame | None,
    lags: np.ndarray,
    delay_max: float,
) -> tuple[np.ndarray | None, np.ndarray]:
    """Unit regressors ``(n_lags, n_times)`` without mean and trend, and the samples they use.

    None instead of regressors when stimulation does not vary at every lag.
    """
    kept = np.array(signal.time_good, bool)
    if hidden is not None:
        part = hidden[hidden["recording"].astype(str) == name]
        for start, stop in _spans(part, signal, 0.0, delay_max):
            kept[start:stop] = False
    shown = np.zeros((len(lags), signal.n_times))
    part = events[events["recording"].astype(str) == name]
    for row, lag in enumerate(lags):
        for start, stop in _spans(part, signal, lag, 0.0):
            shown[row, start:stop] = 1
    if kept.sum() < 3:
        return None, kept
    trend = _trend(kept)
    shown = np.where(kept, shown, 0)
    shown = np.where(kept, shown - (shown @ trend) @ trend.T, 0)
    length = np.linalg.norm(shown, axis=1, keepdims=True)
    if np.any(length < 1e-6):  # of a regressor of zeros and ones: no physical unit
        return None, kept
    return shown / length, kept


def _spans(events: pd.DataFrame, signal: Any, lag: float, tail: float) -> list[tuple[int, int]]:
    onset = events["onset"].to_numpy(float)
    duration = np.nan_to_num(events["duration"].to_numpy(float))
    known = np.isfinite(onset)
    start = sample_at(signal, onset[known] + lag)
    length = np.maximum(nearest_sample(duration[known] + tail, signal.sfreq), 1)
    stop = np.clip(start + length, 0, signal.n_times)
    return list(zip(np.clip(start, 0, signal.n_times).tolist(), stop.tolist()))


def _trend(kept: np.ndarray) -> np.ndarray:
    """Orthonormal constant and linear trend ``(n_times, 2)`` over the kept samples, 0 elsewhere."""
    ramp = np.linspace(-1, 1, len(kept))
    return np.linalg.qr(np.stack([kept * 1.0, kept * ramp], axis=1))[0]


def _correlations(
    signal: Any, index: np.ndarray | None, shown: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """Correlation of every sensor with every regressor ``(n_sensors, n_lags)``, block by block."""
    trend = _trend(kept)
    step = max(1, BLOCK_BYTES // (8 * signal.n_sensors))
    product, drift, square = 0.0, 0.0, 0.0
    offset = None
    for start in range(0, signal.n_times, step):
        stop = min(start + step, signal.n_times)
        block = np.asarray(signal.read(start, stop), np.float64)
        block = block if index is None else block[index]
        use = kept[start:stop] & np.isfinite(block)
        if offset is None and use.any():
            # Taking the level out first keeps the sums of squares from cancelling.
            offset = np.where(use, block, 0).sum(1) / np.maximum(use.sum(1), 1)
        block = np.where(use, block - (0.0 if offset is None else offset[:, None]), 0)
        product = product + block @ shown[:, start:stop].T
        drift = drift + block @ trend[start:stop]
        square = square + (block**2).sum(1)
    rest = square - (drift**2).sum(1)
    flat = rest <= 1e-9 * square
    return np.where(flat[:, None], 0, product / np.sqrt(np.where(flat, 1, rest))[:, None])
