"""Haemodynamic responses: Nilearn's canonical shapes, a library of 20, regressors of trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Nilearn's defaults: samples per volume, start of the fine grid [s], length of a kernel [s].
OVERSAMPLING, MIN_ONSET, KERNEL_S = 50, -24.0, 32.0
# Time to peak [s] and standard deviation over time to peak of the library's shapes.
PEAKS = (3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0)
WIDTHS = (0.38, 0.55)
_UNDERSHOOT_DELAY, _UNDERSHOOT_RATIO, _UNDERSHOOT_SD = 10.0, 1 / 6, 4.0


@dataclass(frozen=True)
class Kernel:
    """A response to an impulse, sampled ``OVERSAMPLING`` times per volume.

    Attributes
    ----------
    name : of the shape
    values : (n,), the first one at the impulse
    """

    name: str
    values: np.ndarray


def canonical(name: str, frame_times: np.ndarray) -> Kernel:
    """Nilearn's ``spm_hrf`` or ``glover_hrf``, which sum to 1.

    Parameters
    ----------
    name : "spm" or "glover"
    frame_times : (n_times,) [s]
    """
    from nilearn.glm.first_level import glover_hrf, spm_hrf

    shape = spm_hrf if name == "spm" else glover_hrf
    return Kernel(name, shape(_repetition_time(frame_times), OVERSAMPLING, KERNEL_S))


def library(frame_times: np.ndarray) -> list[Kernel]:
    """Twenty response shapes: ten times to peak, 3.5 to 8 s, each narrow and wide.

    ``h(t) = g(t; p, w p) / max g - 1/6 g(t; p + 10 s, 4 s) / max g``, where ``g(t; m, s)`` is the
    gamma density with mode ``m`` and standard deviation ``s``: the double gamma of Friston et al.
    1998 (NeuroImage 7:30), whose own shape is ``p = 5 s, w = 0.49``. Peaks span what Handwerker et
    al. 2004 (NeuroImage 21:1639) measured over people and regions. The library that Prince et al.
    2022 (eLife 11:e77599) publish was derived from the responses of NSD (Allen et al. 2022) and is
    another one: there 20 shapes lie on one curve in the plane of the principal components.

    Ordered by time to peak, narrow before wide: neighbours in the list are alike, and so are
    shapes two places apart.
    """
    dt = _repetition_time(frame_times) / OVERSAMPLING
    times = dt * np.arange(int(np.rint(KERNEL_S / dt)))
    kernels = []
    for peak in PEAKS:
        dip = _gamma(times, peak + _UNDERSHOOT_DELAY, _UNDERSHOOT_SD)
        for width in WIDTHS:
            values = _gamma(times, peak, width * peak) - _UNDERSHOOT_RATIO * dip
            kernels.append(Kernel(f"peak {peak:g} s, width {width:g}", values))
    return kernels


def with_peak(kernel: Kernel, duration: float, frame_times: np.ndarray) -> Kernel:
    """``kernel`` scaled so that the response to an event of ``duration`` [s] peaks at 1."""
    dt = _repetition_time(frame_times) / OVERSAMPLING
    samples = max(1, int(np.rint(duration / dt)))
    course = np.cumsum(np.pad(kernel.values, (0, samples)))
    course[samples:] -= course[:-samples].copy()
    return Kernel(kernel.name, kernel.values / course.max())


def regressors(
    onset: np.ndarray, duration: np.ndarray, kernel: Kernel, frame_times: np.ndarray
) -> np.ndarray:
    """One regressor per event: its boxcar convolved with ``kernel``, at the times of the volumes.

    Equal to ``nilearn.glm.first_level.compute_regressor`` for each event by itself, with its
    defaults (``oversampling`` 50, ``min_onset`` -24 s, an event without duration lasts one fine
    sample) and its grid. The convolution of a boxcar is a difference of two values of the
    kernel's cumulative sum, so that only the samples that are wanted are computed.

    Parameters
    ----------
    onset, duration : (n_events,) [s]
    kernel : Kernel
    frame_times : (n_times,) [s], evenly spaced, the first one 0 or later

    Returns
    -------
    (n_times, n_events)
    """
    grid = _fine_grid(frame_times)
    last = len(grid) - 1
    begin = np.minimum(np.searchsorted(grid, onset), last)
    end = np.minimum(np.searchsorted(grid, np.asarray(onset) + duration), last)
    end = np.where((end == begin) & (end < last), end + 1, end)
    cumulative = np.concatenate([[0.0], np.cumsum(kernel.values)])

    def convolved(sample: np.ndarray) -> np.ndarray:
        lag = sample[:, None] + 1 - np.stack([begin, end])[:, None]
        up, down = cumulative[np.clip(lag, 0, len(kernel.values))]
        return up - down

    place = (frame_times - grid[0]) / (grid[-1] - grid[0]) * last
    below = np.clip(np.floor(place).astype(int), 0, last - 1)
    share = (place - below)[:, None]
    return (1 - share) * convolved(below) + share * convolved(below + 1)


def response_energy(
    onset: np.ndarray, duration: np.ndarray, kernel: Kernel, frame_times: np.ndarray
) -> np.ndarray:
    """Sum of squares (n_events,) of the regressors, had the recording gone on to their ends."""
    t_r = _repetition_time(frame_times)
    end = max(float(np.max(np.asarray(onset) + duration)), float(frame_times[-1])) + KERNEL_S
    more = np.arange(1, int(np.ceil((end - frame_times[-1]) / t_r)) + 1) * t_r
    longer = np.concatenate([frame_times, frame_times[-1] + more])
    return (regressors(onset, duration, kernel, longer) ** 2).sum(axis=0)


def _repetition_time(frame_times: np.ndarray) -> float:
    return float(np.min(np.diff(frame_times)))


def _fine_grid(frame_times: np.ndarray) -> np.ndarray:
    """Times of the fine samples, as Nilearn lays them."""
    n, first, last = len(frame_times), frame_times.min(), frame_times.max()
    stop = last * (1 + 1.0 / (n - 1))
    n_fine = (n - 1) / (last - first) * (stop - first - MIN_ONSET) * OVERSAMPLING + 1
    return np.linspace(first + MIN_ONSET, stop, int(np.rint(n_fine)))


def _gamma(times: np.ndarray, mode: float, sd: float) -> np.ndarray:
    """Gamma density with ``mode`` and standard deviation ``sd``, peak 1."""
    ratio = (sd / mode) ** 2
    shape = 1 + (1 + np.sqrt(1 + 4 * ratio)) / (2 * ratio)
    scale = mode / (shape - 1)
    with np.errstate(divide="ignore"):
        log = (shape - 1) * (np.log(times / mode)) - (times - mode) / scale
    return np.exp(log)
