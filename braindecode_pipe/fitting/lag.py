"""When does the brain respond? A check of onsets that looks at no label.

Every curve says, for each lag, how much of a recording follows the events of training by that lag:
correlation with stimulation for BOLD, global field power of the average for M/EEG, correlation with
the sound's envelope for speech. It is compared with curves of designs that never took place, so
that a recording without response raises no alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from braindecode_pipe.fitting.envelopes import Envelope
from braindecode_pipe.fitting.lag_data import (
    drifts,
    good_sensors,
    read_fast,
    read_thinned,
    standardised,
)
from braindecode_pipe.fitting.spans import nearest_sample
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan

# Seconds after onset at which responses peak; share of the peak that must be there (a block of
# stimulation of 20 s blurs a shift, an evoked response has several peaks).
EXPECTED = {"bold": (4.0, 7.0), "evoked": (0.05, 0.6), "speech": (0.05, 0.4)}
_ENOUGH = {"bold": 0.85, "evoked": 0.7, "speech": 0.7}
_SEARCHED = {"bold": (-10.0, 20.0), "evoked": (-1.0, 1.5), "speech": (-0.5, 1.0)}
N_NULL = 99
_CLEAR = 5.0  # standard deviations of the null's maxima
MIN_EVENTS = 8
MAX_EVENTS = 600
LONG_SOUND_S = 2.0
_MAX_SENSORS = {"bold": 1500, "evoked": 64, "speech": 64}


@dataclass(frozen=True)
class ResponseLag:
    """What a lag check found.

    Attributes
    ----------
    kind : "bold", "evoked" or "speech"
    lags : (n_lags,) [s] after onset
    curve : (n_lags,) correlation, or global field power in standard deviations
    band : (n_lags,) the 95th percentile of null designs
    null : (n_null,) the largest value of each null design
    expected : (low, high) [s]
    lag : [s] of the largest value, None where no response is clear
    n_events : how many events it is made of
    shifted : the response is clear and not where it should be
    message : all this in a sentence
    """

    kind: str
    lags: np.ndarray
    curve: np.ndarray
    band: np.ndarray
    null: np.ndarray
    expected: tuple[float, float]
    lag: float | None
    n_events: int
    shifted: bool
    message: str


def recording_lag(
    signal: Any, plan: StudyPlan, recording: str, envelope: Envelope | None = None
) -> ResponseLag | None:
    """Lag of the response in one preprocessed recording.

    Only events that some fold trains on count, and only their onsets and durations: with
    cross-validation over runs these are all of them, and no test is fitted to.

    Parameters
    ----------
    signal : Signal
    plan : StudyPlan
    recording : its name
    envelope : stimulus id -> (values, rate [Hz]) of a sound, or None for other stimuli; with it
        sounds of 2 s and more are compared with the recording by their envelope

    Returns
    -------
    ResponseLag, or None where there is nothing to see: fewer than 8 events, or responses without
    time (single-trial betas)
    """
    own = (plan.events["recording"].astype(str) == recording).to_numpy()
    trained = own & (plan.role == ROLES["train"]).any(axis=0)
    table = plan.recordings.loc[plan.recordings["recording"] == recording, "datatype"]
    slow = str(table.iloc[0]) in ("bold", "parcels")
    events = plan.events[trained].sort_values("onset", kind="stable")
    if signal.kind == "response":
        rows = np.flatnonzero(np.isin(signal.events.astype(str), events["event"].astype(str)))
        rows = rows[signal.event_good[rows]]
        if slow or signal.times is None or len(rows) < MIN_EVENTS:
            return None
        return epochs_lag(signal, rows)
    onset = events["onset"].to_numpy(float) - signal.first_time
    duration = np.nan_to_num(events["duration"].to_numpy(float))
    if len(onset) < MIN_EVENTS:
        return None
    if slow:
        other = plan.events[own & ~trained & (plan.role > 0).any(axis=0)]
        hidden = other["onset"].to_numpy(float) - signal.first_time
        return bold_lag(signal, onset, duration, hidden)
    if envelope is not None:
        found = [envelope(stimulus) for stimulus in _stimuli(events)]
        sounds = [(o, s) for o, d, s in zip(onset, duration, found) if s and d >= LONG_SOUND_S]
        if sounds:
            return speech_lag(signal, np.array([o for o, _ in sounds]), [s for _, s in sounds])
    return evoked_lag(signal, onset)


def _stimuli(events: Any) -> list[str]:
    """The first stimulus of any target that each event shows."""
    columns = [c for c in events if c.startswith("stimulus_")]
    return [next((str(v) for v in row if v), "") for row in events[columns].to_numpy(object)]


def bold_lag(
    signal: Any, onset: np.ndarray, duration: np.ndarray, hidden: np.ndarray | None = None
) -> ResponseLag | None:
    """Lag at which stimulation explains BOLD best.

    A regressor is the share of each volume's time during which a stimulus was on, ``lag`` seconds
    before. It is correlated with up to 1500 sensors, constant, trend and cosines slower than 128 s
    taken out of both; the curve is the mean of the largest 5 % of these correlations: responses
    are assumed positive in the sensors that respond most.

    Parameters
    ----------
    signal : Signal, continuous
    onset, duration : (n_events,) [s] after the first sample
    hidden : (n,) [s], onsets of events that may not be looked at: 20 s after them are left out
    """
    lags = np.arange(_SEARCHED["bold"][0], _SEARCHED["bold"][1] + 1e-9, min(1.0, 1 / signal.sfreq))
    kept = np.array(signal.time_good, bool)
    times = np.arange(signal.n_times) / signal.sfreq
    for start in [] if hidden is None else hidden:
        kept &= (times < start) | (times > start + 20.0)
    if kept.sum() < 40:
        return None
    basis = drifts(times, kept)
    data = standardised(read_thinned(signal, _MAX_SENSORS["bold"])[0], kept, basis)
    if not len(data):
        return None

    def curve(starts: np.ndarray) -> np.ndarray:
        shown = _shown(starts, duration[: len(starts)], lags, times, 1 / signal.sfreq)
        shown = standardised(shown, kept, basis, drop=False)
        r = np.sort(data @ shown.T, axis=0)
        return r[-max(1, round(0.05 * len(r))) :].mean(0)

    return _judge("bold", lags, curve(onset), _null(curve, onset, times[-1], "bold"), len(onset))


def _shown(
    onset: np.ndarray, duration: np.ndarray, lags: np.ndarray, times: np.ndarray, step: float
) -> np.ndarray:
    """Share of the ``step`` seconds from every time on with a stimulus on: ``(n_lags, n_times)``.

    Of time with a stimulus on, up to any moment, the rate changes by one at every begin and end.
    """
    moments = np.concatenate([onset, onset + np.maximum(duration, 0.1)])
    order = np.argsort(moments, kind="stable")
    rate = np.cumsum(np.repeat([1.0, -1.0], len(onset))[order])
    knots = moments[order]
    total = np.concatenate([[0.0], np.cumsum(rate[:-1] * np.diff(knots))])
    edges = np.append(times, times[-1] + step)
    on = np.interp(edges[None, :] - lags[:, None], knots, total)
    return np.minimum(np.diff(on, axis=1) / step, 1.0)


def evoked_lag(signal: Any, onset: np.ndarray) -> ResponseLag | None:
    """Lag at which the average response over events is largest.

    Global field power: the root mean square over up to 64 sensors (each divided by its standard
    deviation, without what is slower than 2 s, clipped at 5) of the average over up to 600 events.

    Parameters
    ----------
    signal : Signal, continuous
    onset : (n_events,) [s] after the first sample
    """
    middle = max(0, (len(onset) - MAX_EVENTS) // 2)
    onset = np.sort(onset)[middle : middle + MAX_EVENTS]
    low, high = _SEARCHED["evoked"]
    start = max(0.0, onset[0] + low - 5.0)
    data, sfreq = read_fast(signal, _MAX_SENSORS["evoked"], start, onset[-1] + high + 5.0)
    if not data.size:
        return None
    first, n_lags = round(low * sfreq), round((high - low) * sfreq) + 1
    lags = (first + np.arange(n_lags)) / sfreq

    def curve(starts: np.ndarray) -> np.ndarray:
        at = nearest_sample(starts - start, sfreq) + first
        at = at[(at >= 0) & (at + n_lags <= data.shape[1])]
        total = np.zeros((len(data), n_lags))
        for a in at:
            total += data[:, a : a + n_lags]
        return np.sqrt((total**2).mean(0)) / max(1, len(at))

    null = _null(curve, onset - start, data.shape[1] / sfreq, "evoked", start)
    return _judge("evoked", lags, curve(onset), null, len(onset))


def epochs_lag(signal: Any, rows: np.ndarray) -> ResponseLag | None:
    """Lag of the largest global field power of epochs that are cut out already.

    The null gives every epoch a sign at random: what is not locked to onset averages out just so.

    Parameters
    ----------
    signal : Signal of kind "response", with times
    rows : (n,) positions of the epochs
    """
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_EVENTS)).astype(int)]
    keep = good_sensors(signal, _MAX_SENSORS["evoked"])
    if not len(keep):
        return None
    data = np.stack([np.asarray(signal.read_events([r])[0][keep], float) for r in rows])
    data -= data.mean(2, keepdims=True)
    spread = data.std(axis=(0, 2), keepdims=True)
    data = np.clip(data[:, spread.ravel() > 0] / spread[:, spread.ravel() > 0], -5, 5)
    rng = np.random.default_rng(0)
    signs = np.concatenate([np.ones((1, len(rows))), rng.choice([-1.0, 1.0], (N_NULL, len(rows)))])
    mean = np.tensordot(signs, data, axes=1) / len(rows)
    curves = np.sqrt((mean**2).mean(1))
    return _judge("evoked", np.asarray(signal.times), curves[0], curves[1:], len(rows))


def speech_lag(
    signal: Any, onset: np.ndarray, sounds: list[tuple[np.ndarray, float]]
) -> ResponseLag | None:
    """Lag at which the recording follows the envelope of sounds best.

    The root mean square over up to 64 sensors of the correlation with the envelopes, each without
    its mean. The null turns every envelope round by a random part of its length.

    Parameters
    ----------
    signal : Signal, continuous
    onset : (n_sounds,) [s] after the first sample
    sounds : envelope and its rate [Hz] of each
    """
    low, high = _SEARCHED["speech"]
    data, sfreq = read_fast(signal, _MAX_SENSORS["speech"], 0.0, signal.n_times / signal.sfreq)
    if not data.size:
        return None
    first, n_lags = round(low * sfreq), round((high - low) * sfreq) + 1
    lags = (first + np.arange(n_lags)) / sfreq
    pieces = []
    for start, (values, rate) in zip(onset, sounds):
        grid = np.arange(0, len(values) / rate - 0.5 / sfreq, 1 / sfreq)
        wave = np.interp(grid, np.arange(len(values)) / rate, values)
        at = int(nearest_sample(start, sfreq)) + first
        if len(wave) > 2 * n_lags and at >= 0 and at + n_lags + len(wave) <= data.shape[1]:
            pieces.append((at, (wave - wave.mean()) / max(wave.std(), np.finfo(float).tiny)))
    if not pieces:
        return None

    def curve(turns: np.ndarray) -> np.ndarray:
        total = np.zeros((len(data), n_lags))
        for (at, wave), turn in zip(pieces, turns):
            wave = np.roll(wave, round(turn * len(wave)))
            part = data[:, at : at + n_lags + len(wave) - 1]
            size = 1 << int(np.ceil(np.log2(part.shape[1] + len(wave))))
            product = np.fft.rfft(part, size) * np.conj(np.fft.rfft(wave, size))
            total += np.fft.irfft(product, size)[:, :n_lags]
        return np.sqrt((total**2).mean(0)) / sum(len(wave) for _, wave in pieces)

    rng = np.random.default_rng(0)
    turns = rng.uniform(0.1, 0.9, (N_NULL, len(pieces)))
    null = np.stack([curve(turn) for turn in turns])
    return _judge("speech", lags, curve(np.zeros(len(pieces))), null, len(pieces))


def _null(
    curve: Callable[[np.ndarray], np.ndarray], onset: np.ndarray, length: float, kind: str,
    shift: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Curves of designs that never took place ``(n_null, n_lags)``.

    Their intervals are those of the events in another order, all longer or all shorter by 13 to
    42 %, so that even events at equal intervals meet the response at all lags alike.
    """
    rng = np.random.default_rng(0)
    return np.stack([curve(times + shift) for times in _designs(onset, length, rng)])


def _designs(onset: np.ndarray, length: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    interval = np.diff(np.sort(onset))
    for _ in range(N_NULL):
        factor = np.exp(rng.choice([-1, 1]) * rng.uniform(0.12, 0.35))
        times = np.concatenate([[0.0], np.cumsum(rng.permutation(interval))]) * factor
        room = length - times[-1]
        # Longer than the recording: what is over goes to its beginning.
        yield np.sort((times + rng.uniform(0, abs(room))) % length)


def _judge(
    kind: str, lags: np.ndarray, curve: np.ndarray, null: np.ndarray, n_events: int
) -> ResponseLag:
    """Whether there is a response, and whether it is where it should be."""
    low, high = EXPECTED[kind]
    maxima, floor = null.max(1), float(null.mean())
    peak = float(curve.max())
    clear = peak > maxima.max() and peak - maxima.mean() > _CLEAR * maxima.std()
    lag = float(lags[int(np.argmax(curve))]) if clear else None
    inside = (lags >= low - 1e-9) & (lags <= high + 1e-9)
    best = float(curve[inside].max()) if inside.any() else floor
    there = best - floor >= _ENOUGH[kind] * (peak - floor)
    expected = f"{low:g}-{high:g} s"
    if lag is None:
        message = "no clear response"
    elif not there:
        message = f"response peaks {_seconds(lag)}, expected {expected}: onsets may be shifted"
    elif low <= lag <= high:
        message = f"response peaks {_seconds(lag)}, as expected ({expected})"
    else:
        message = f"response peaks {_seconds(lag)}, and is there at {expected} as expected"
    return ResponseLag(
        kind, lags, curve, np.quantile(null, 0.95, axis=0), maxima, (low, high), lag, n_events,
        clear and not there, message,
    )  # fmt: skip


def _seconds(lag: float) -> str:
    return f"{abs(lag):.3g} s {'before' if lag < 0 else 'after'} onset"
