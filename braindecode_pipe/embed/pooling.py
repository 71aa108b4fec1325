"""From the tokens or frames of a network to one vector, or to steps of the recording's time."""

from __future__ import annotations

import numpy as np


def to_steps(
    frame_times: np.ndarray, frames: np.ndarray, step_times: np.ndarray, sfreq: float
) -> np.ndarray:
    """Frames of a network on another time axis.

    Where steps are closer than frames, linear interpolation between the two frames around a step;
    where they are wider apart, the mean of the frames in ``[t - 1/(2 sfreq), t + 1/(2 sfreq))``,
    so that nothing folds (of an interval without a frame: interpolation). Before the first and
    after the last frame, that frame is held.

    Parameters
    ----------
    frame_times : (n_frames,) increasing [s]
    frames : (n_frames, n_features)
    step_times : (n_steps,) increasing [s]
    sfreq : rate of the steps [Hz]

    Returns
    -------
    (n_steps, n_features), the type of ``frames``
    """
    n = len(frame_times)
    if n == 1:
        return np.repeat(frames, len(step_times), axis=0)
    right = np.clip(np.searchsorted(frame_times, step_times, side="right"), 1, n - 1)
    left = right - 1
    span = frame_times[right] - frame_times[left]
    share = np.clip((step_times - frame_times[left]) / span, 0, 1)[:, None].astype(frames.dtype)
    steps = (1 - share) * frames[left] + share * frames[right]
    if sfreq * float(np.median(np.diff(frame_times))) >= 1:
        return steps
    # Sums of slices: differences of running sums would lose digits over a long file.
    first = np.searchsorted(frame_times, step_times - 0.5 / sfreq, side="left")
    last = np.searchsorted(frame_times, step_times + 0.5 / sfreq, side="left")
    for step in np.flatnonzero(last > first):
        steps[step] = frames[first[step] : last[step]].mean(0)
    return steps


def mean_between(
    frame_times: np.ndarray, frames: np.ndarray, start: float, stop: float
) -> np.ndarray:
    """Mean of the frames with ``start <= time < stop``; where there is none, the nearest frame."""
    inside = (frame_times >= start) & (frame_times < stop)
    if inside.any():
        return frames[inside].mean(0)
    return frames[np.abs(frame_times - (start + stop) / 2).argmin()]
