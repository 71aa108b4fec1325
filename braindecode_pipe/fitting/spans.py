"""Where the window of an event lies in its recording, in samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.recipe import WindowSection


def nearest_sample(seconds: np.ndarray | float, sfreq: float) -> np.ndarray:
    """Number of the sample nearest to a time [s] after the first one; halves go up."""
    return np.floor(np.asarray(seconds, float) * sfreq + 0.5).astype(np.int64)


def sample_at(signal: Any, seconds: np.ndarray | float) -> np.ndarray:
    """Number of the sample of a recording nearest to a time [s] of its events; halves go up.

    Dummy scans and cropped beginnings are in ``first_time``; scrubbed and bad samples keep their
    place, with ``time_good`` False. Numbers may lie outside ``0 .. n_times - 1``.

    Raises
    ------
    DataError
        When samples were cut out of the middle, so that times are no regular grid.
    """
    n = signal.n_times
    if n > 1 and signal.times is not None:
        length = float(signal.times[-1] - signal.times[0])
        if abs(length * signal.sfreq - (n - 1)) > 0.5:
            raise DataError(
                "samples are missing from the time axis",
                file=getattr(signal, "path", None),
                expected=f"{n} samples at {signal.sfreq:g} Hz in {(n - 1) / signal.sfreq:g} s",
                found=f"{length:g} s",
                remedy="mark bad samples in time_good; do not cut them out",
            )
    return nearest_sample(np.asarray(seconds, float) - signal.first_time, signal.sfreq)


def time_of(signal: Any, sample: np.ndarray | int) -> np.ndarray:
    """Time [s] of samples of a recording, on the clock of its events: inverse of `sample_at`."""
    return signal.first_time + np.asarray(sample, float) / signal.sfreq


def sampling_rate(signal: Any) -> float:
    """Sampling rate [Hz] of a signal; 0 for responses without time."""
    return 0.0 if signal.times is None else float(signal.sfreq)


@dataclass(frozen=True)
class Span:
    """A window in samples of its recording or epoch.

    Attributes
    ----------
    start, length : samples of the window
    baseline : (first, last) sample of the baseline counted from ``start``, or None
    row : position of the event in a response store, else 0
    """

    start: int
    length: int
    baseline: tuple[int, int] | None = None
    row: int = 0

    @property
    def first(self) -> int:
        """First sample to read."""
        return self.start + min(0, self.baseline[0] if self.baseline else 0)

    @property
    def last(self) -> int:
        """End of the samples to read (exclusive)."""
        return self.start + max(self.length, self.baseline[1] if self.baseline else 0)


def signal_span(
    signal: Any, window: WindowSection, onset: float, duration: float, delay: float
) -> Span | str:
    """Span of an event in a continuous recording, or the reason why it has none.

    Parameters
    ----------
    signal : Signal of kind "signal"
    window : WindowSection
    onset, duration : [s], of the event
    delay : [s], added to the onset
    """
    length_s = (duration if window.tmax is None else window.tmax) - window.tmin
    if not np.isfinite(onset) or not np.isfinite(length_s):
        return "onset or duration unknown"
    begin = int(sample_at(signal, onset + delay + window.tmin))
    span = _span(begin, length_s, signal.sfreq, window, 0)
    if span.first < 0 or span.last > signal.n_times:
        return "window leaves the recording"
    if not np.all(signal.time_good[span.first : span.last]):
        return "window meets bad samples"
    return span


def response_span(signal: Any, window: WindowSection, row: int | None, delay: float) -> Span | str:
    """Span of an event inside its stored response, or the reason why it has none.

    Parameters
    ----------
    signal : Signal of kind "response"
    window : WindowSection
        ``tmax=None`` means the end of the response.
    row : position of the event in the store, None where it is not there
    delay : [s]
    """
    if row is None:
        return "event has no response stored"
    if not signal.event_good[row]:
        return "event was rejected"
    if signal.times is None:
        return Span(0, 1, None, row)
    start = int(nearest_sample(window.tmin + delay - signal.times[0], signal.sfreq))
    if window.tmax is None:
        length_s = (len(signal.times) - start) / signal.sfreq
    else:
        length_s = window.tmax - window.tmin
    span = _span(start, length_s, signal.sfreq, window, row)
    if span.first < 0 or span.last > len(signal.times):
        return "window leaves the recording"
    return span


def _span(start: int, length_s: float, sfreq: float, window: WindowSection, row: int) -> Span:
    length = max(1, int(nearest_sample(length_s, sfreq)))
    if window.baseline is None:
        return Span(start, length, None, row)
    low, high = window.baseline
    first = 0 if low is None else int(nearest_sample(low - window.tmin, sfreq))
    last = length if high is None else int(nearest_sample(high - window.tmin, sfreq))
    return Span(start, length, (first, max(last, first + 1)), row)
