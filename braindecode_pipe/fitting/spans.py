"""Times of events to samples of a recording, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError


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
