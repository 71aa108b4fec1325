"""The linear model of one fMRI recording: trials, nuisance terms, volumes that count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, EventError, RecipeError
from braindecode_pipe.preprocess import hrf
from braindecode_pipe.preprocess.hrf import Kernel
from braindecode_pipe.recipe import GlmSection

# A trial of whose response the good volumes hold less than this share (of its energy) has no beta.
_LEAST_SHARE = 0.25
_PREFIX = "stimulus_"
# What of a regressor must be left beside the others for it to count, as a share of its length.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Trials:
    """What the model of one recording is made of.

    Attributes
    ----------
    event : (n_events,) ids of the events that present a stimulus
    onset, duration : (n_events,) [s]
    condition : (n_events,) trial_type
    stimulus : (n_events,) id of the stimulus whose repeats count, "" where it presents none
    frame_times : (n_times,) [s]
    time_good : (n_times,) bool
    nuisance : (n_times, k) constant, drift, confounds, events without stimulus
    fit_times : (n_times,) bool, good volumes that fits may see
    fit_rows : (n_events,) bool, events whose stimulus fits may know
    """

    event: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    condition: np.ndarray
    stimulus: np.ndarray
    frame_times: np.ndarray
    time_good: np.ndarray
    nuisance: np.ndarray
    fit_times: np.ndarray
    fit_rows: np.ndarray

    def __len__(self) -> int:
        return len(self.event)

    def regressors(self, kernel: Kernel) -> np.ndarray:
        """(n_times, n_events)"""
        return hrf.regressors(self.onset, self.duration, kernel, self.frame_times)

    def kernels(self, name: str) -> list[Kernel]:
        """The library, or one canonical shape, each with a peak of 1 for the median duration."""
        shapes = (
            hrf.library(self.frame_times)
            if name == "library"
            else [hrf.canonical(name, self.frame_times)]
        )
        duration = float(np.median(self.duration))
        return [hrf.with_peak(shape, duration, self.frame_times) for shape in shapes]

    def covered(self, times: np.ndarray) -> np.ndarray:
        """(n_events,) bool: the volumes ``times`` hold a quarter of the response or more.

        The share is of the sum of squares that the regressor (``glover``) would have, had the
        recording gone on and were all of its volumes good.
        """
        kernel = hrf.canonical("glover", self.frame_times)
        held = (self.regressors(kernel)[times] ** 2).sum(axis=0)
        whole = hrf.response_energy(self.onset, self.duration, kernel, self.frame_times)
        early = self.onset < self.frame_times[0] + hrf.MIN_ONSET
        return (held >= _LEAST_SHARE * whole) & ~early


def trials_of(
    events: pd.DataFrame,
    section: GlmSection,
    confounds: np.ndarray | None,
    time_good: np.ndarray | None,
    frame_times: np.ndarray,
    steps: list[str],
    fit_extents: tuple[tuple[float, float], ...] | None = None,
) -> Trials:
    """The model of one recording.

    Parameters
    ----------
    events : the recording's rows of ``StudyPlan.events``
    section : GlmSection
    confounds : (n_times, n_confounds), optional
    time_good : (n_times,) bool, optional
    frame_times : (n_times,) [s]
    steps : list of str, what the model holds is appended
    fit_extents : (start, stop) [s] pairs that fits may see; None: all

    Raises
    ------
    EventError : no event presents a stimulus
    RecipeError : a target that the events lack
    DataError : confounds of another length, or not finite
    """
    n_times = len(frame_times)
    good = np.ones(n_times, bool) if time_good is None else np.asarray(time_good, bool)
    confounds = np.empty((n_times, 0)) if confounds is None else np.asarray(confounds, float)
    if len(confounds) != n_times or not np.isfinite(confounds[good]).all():
        raise DataError(
            "confounds cannot be part of the model", expected=f"{n_times} rows of numbers",
            found=f"{len(confounds)} rows, {int((~np.isfinite(confounds)).sum())} values that are "
            "no numbers",
        )  # fmt: skip
    shown, stimulus = _stimuli(events, section)
    table = events[shown]
    if not len(table):
        raise EventError(
            "no event of the recording presents a stimulus, so there is nothing to estimate",
            expected="one event or more with a stimulus of [plan.stimuli]",
            found=f"{len(events)} events",
            remedy='preprocess.bold.responses = "series", or exclude the recording',
        )
    onset = table["onset"].to_numpy(float)
    fit_times, fit_rows = good, np.ones(len(table), bool)
    if fit_extents is not None:
        fit_times = good & _within(frame_times, fit_extents)
        fit_rows = _within(onset, fit_extents)
    return Trials(
        event=table["event"].astype(str).to_numpy(object),
        onset=onset,
        duration=table["duration"].to_numpy(float),
        condition=_trial_type(table),
        stimulus=stimulus[shown],
        frame_times=frame_times,
        time_good=good,
        nuisance=_nuisance(
            events[~shown], section, np.where(good[:, None], confounds, 0.0), frame_times, steps
        ),
        fit_times=fit_times,
        fit_rows=fit_rows,
    )  # fmt: skip


def residual(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """``values`` (n_times, n) without their projection on an orthonormal ``basis``."""
    return values - basis @ (basis.T @ values)


def orthonormal(values: np.ndarray) -> np.ndarray:
    """Orthonormal basis (n_times, rank) of the columns, whatever their units.

    A column counts when more than ``TOLERANCE`` of its length lies outside of those that count.
    """
    from scipy.linalg import qr

    length = np.linalg.norm(values, axis=0)
    scaled = values[:, length > 0] / length[length > 0]
    if not scaled.shape[1]:
        return np.empty((len(values), 0))
    q, r, _ = qr(scaled, mode="economic", pivoting=True)
    return q[:, : int((np.abs(np.diag(r)) > TOLERANCE).sum())]


def decomposed(projected: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular value decomposition ``u (n_times, rank), s, vt``, without what counts as zero.

    Parameters
    ----------
    projected : (n_times, n), regressors off the nuisance terms
    size : length of the longest regressor before that, which ``TOLERANCE`` refers to
    """
    u, s, vt = np.linalg.svd(projected, full_matrices=False)
    kept = s > TOLERANCE * max(size, float(s.max(initial=0.0)))
    return u[:, kept], s[kept], vt[kept]


def refuse_too_many(n_trials: int, n_free: int) -> None:
    """Raise where one regressor per trial is more than the volumes can tell apart.

    Raises
    ------
    EventError : more trials than good volumes less nuisance terms
    """
    if n_trials >= n_free:
        raise EventError(
            "more trials than the volumes can tell apart",
            expected=f"fewer than {n_free} trials: one good volume or more per trial, beyond the "
            "drift terms and confounds",
            found=f"{n_trials} trials",
            remedy='preprocess.bold.responses = "lss" or "series", or fewer confounds',
        )


def _stimuli(events: pd.DataFrame, section: GlmSection) -> tuple[np.ndarray, np.ndarray]:
    """Which events present any stimulus, and the ids (all events) of the one that repeats."""
    columns = [str(name) for name in events.columns if str(name).startswith(_PREFIX)]
    if not columns:
        return np.ones(len(events), bool), np.full(len(events), "", object)
    wanted = _PREFIX + section.target if section.target else columns[0]
    if wanted not in columns:
        raise RecipeError(
            "preprocess.bold.glm.target is no target of [plan.stimuli]",
            expected=" | ".join(name[len(_PREFIX) :] for name in columns),
            found=section.target,
        )
    ids = events[columns].fillna("").astype(str)
    return (ids != "").any(axis=1).to_numpy(), ids[wanted].to_numpy(object)


def _trial_type(events: pd.DataFrame) -> np.ndarray:
    if "trial_type" not in events:
        return np.full(len(events), "trial", object)
    return events["trial_type"].astype(str).to_numpy(object)


def _nuisance(
    others: pd.DataFrame,
    section: GlmSection,
    confounds: np.ndarray,
    frame_times: np.ndarray,
    steps: list[str],
) -> np.ndarray:
    """Constant, cosine drift terms, confounds and events without stimulus, (n_times, k)."""
    from nilearn.glm.first_level.design_matrix import create_cosine_drift

    parts = [np.ones((len(frame_times), 1)), confounds]
    if section.high_pass is not None:
        parts[0] = create_cosine_drift(section.high_pass, frame_times)
        steps.append(f"in the model: cosine drift terms below {section.high_pass:g} Hz")
    if confounds.shape[1]:
        steps.append(f"in the model: {confounds.shape[1]} confounds")
    kinds = _trial_type(others)
    kernel = hrf.canonical(
        section.hrf if section.hrf in ("spm", "glover") else "glover", frame_times
    )
    for kind in section.nuisance_events:
        rows = others[kinds == kind]
        if not len(rows):
            steps.append(f"in the model: no event of trial type {kind!r} without stimulus")
            continue
        courses = hrf.regressors(
            rows["onset"].to_numpy(float), rows["duration"].to_numpy(float), kernel, frame_times
        )
        parts.append(courses.sum(axis=1, keepdims=True))
        steps.append(f"in the model: one regressor for {len(rows)} events {kind!r}")
    return np.hstack(parts)


def _within(times: np.ndarray, extents: tuple[tuple[float, float], ...]) -> np.ndarray:
    inside = np.zeros(len(times), bool)
    for start, stop in extents:
        inside |= (times >= start) & (times < stop)
    return inside
