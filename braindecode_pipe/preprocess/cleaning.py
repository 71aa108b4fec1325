"""Time series of voxels or parcels: measured, then cleaned by Nilearn, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.preprocess import quality
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.recipe import BoldSection

_CARPET_SENSORS = 400


@dataclass(frozen=True)
class Measured:
    """Quality of a series before cleaning.

    Attributes
    ----------
    mean, tsnr : (n_sensors,)
    global_signal : (n_times,) mean over the good sensors, or over all when none is good
    chosen : positions of at most 400 good sensors
    carpet : (n_chosen, n_times) z-scores
    """

    mean: np.ndarray
    tsnr: np.ndarray
    global_signal: np.ndarray
    chosen: np.ndarray
    carpet: np.ndarray


def process(
    series: Scratch,
    good: np.ndarray,
    section: BoldSection,
    confounds: np.ndarray | None,
    t_r: float,
    steps: list[str],
) -> Measured:
    """Measure and clean a series in place, as many sensors at a time as fit into memory.

    Parameters
    ----------
    series : (n_times, n_sensors)
    good : (n_sensors,) bool; the others become zeros where anything is to be cleaned
    section : BoldSection
    confounds : (n_times, n_confounds), optional
    t_r : float [s]
    steps : list of str, what was done is appended
    """
    n_times, n_sensors = series.shape
    chosen = np.flatnonzero(good)
    if len(chosen) > _CARPET_SENSORS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _CARPET_SENSORS).round().astype(int)]
    measured = Measured(
        np.empty(n_sensors), np.empty(n_sensors), np.zeros(n_times), chosen,
        np.empty((len(chosen), n_times), np.float32),
    )  # fmt: skip
    drift = _with_drift(confounds, section, n_times, t_r)
    used = good if good.any() else np.ones_like(good)
    for columns in series.column_blocks():
        values = series.read(columns=columns).astype(float)
        measured.mean[columns] = values.mean(axis=0)
        measured.tsnr[columns] = quality.tsnr(values.T)
        measured.global_signal[:] += values[:, used[columns]].sum(axis=1) / used.sum()
        here = (chosen >= columns.start) & (chosen < columns.stop)
        shown = values[:, chosen[here] - columns.start]
        measured.carpet[here] = ((shown - shown.mean(axis=0)) / shown.std(axis=0)).T
        if section.detrend or section.standardize or drift is not None:
            series.write(0, columns.start, _clean(values, good[columns], section, drift))
    if section.detrend:
        steps.append("linear trend removed")
    if section.high_pass:
        steps.append(f"high-pass {section.high_pass:g} Hz (cosine drift terms)")
    if confounds is not None:
        steps.append(f"regressed out: {', '.join(section.confounds)}")
    if section.standardize:
        steps.append("z-scored per sensor over the recording")
    return measured


def _clean(
    values: np.ndarray, good: np.ndarray, section: BoldSection, drift: np.ndarray | None
) -> np.ndarray:
    """Nilearn's ``signal.clean`` of the good sensors, zeros elsewhere; (n_times, n_sensors)."""
    from nilearn.signal import clean

    cleaned = np.zeros_like(values)
    if good.any():
        cleaned[:, good] = clean(
            values[:, good],
            detrend=section.detrend,
            standardize="zscore_sample" if section.standardize else None,
            confounds=drift,
            filter=False,
        )
    return cleaned


def _with_drift(
    confounds: np.ndarray | None, section: BoldSection, n_times: int, t_r: float
) -> np.ndarray | None:
    """Confounds and the cosine drift terms below ``high_pass``, to be regressed out together.

    ``clean(filter="cosine")`` leaves its drift terms out as soon as one confound resembles one of
    them, as head motion often does; here they are always there.
    """
    if not section.high_pass:
        return confounds
    from nilearn.glm.first_level.design_matrix import create_cosine_drift

    drift = create_cosine_drift(section.high_pass, np.arange(n_times) * t_r)[:, :-1]
    return drift if confounds is None else np.hstack([confounds, drift])
