"""Single-trial responses to fMRI events: one beta per event and sensor.

A beta is linear in the time series, so that each estimator is a matrix of weights (event, time),
made once from the design, times the series, block of sensors by block. ``lsa`` and ``lss`` are
here; the longer chain is in ``glmsingle``.

The unit of a beta is that of its regressor. With the canonical shapes it is Nilearn's, whose
kernels sum to 1, so that a beta is what Nilearn calls the effect size. With the library, and in the
longer chain, the response to an event of the recording's median duration peaks at 1, so that a
beta in percent is the change of the signal at its peak.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess import glmsingle, hrf
from braindecode_pipe.preprocess.candidates import Run
from braindecode_pipe.preprocess.ceiling import ceiling_of
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.shapes import best_shapes
from braindecode_pipe.preprocess.trials import (
    TOLERANCE,
    Trials,
    decomposed,
    orthonormal,
    refuse_too_many,
    residual,
    trials_of,
)
from braindecode_pipe.recipe import BoldSection, GlmSection

QC = dict[str, tuple[tuple[str, ...], np.ndarray]]


@dataclass(frozen=True)
class Responses:
    """Betas of one recording; a context manager that lets go of ``values``.

    Attributes
    ----------
    values : Scratch (n_events, n_sensors) float32, open; rows that are not good hold NaN, sensors
        that are not good hold zeros
    events : (n_events,) ids, the events of the recording that present a stimulus
    event_good : (n_events,) bool, False where the good volumes do not determine a response
    sensor_good : (n_sensors,) bool
    qc : name -> (dims, values), for the group ``qc`` of the store: ``r2``, ``noise_ceiling``
        (sensor); ``hrf_index`` (sensor) with a library; ``ridge_fraction``, ``r2_repeats``
        (sensor), ``n_noise_components`` with glmsingle
    """

    values: Scratch
    events: list[str]
    event_good: np.ndarray
    sensor_good: np.ndarray
    qc: QC = field(default_factory=dict)

    def __enter__(self) -> Responses:
        return self

    def __exit__(self, *exception: object) -> None:
        self.values.__exit__(*exception)


@dataclass(frozen=True)
class Estimator:
    """What turns the good volumes of a series into betas.

    Attributes
    ----------
    weights : (n_events, n_times), orthogonal to the nuisance terms; NaN rows where the design does
        not determine a beta
    basis : (n_times, rank) orthonormal, of the trials' regressors without the nuisance terms
    """

    weights: np.ndarray
    basis: np.ndarray


def run(
    series: Scratch,
    good: np.ndarray,
    section: BoldSection,
    events: pd.DataFrame,
    confounds: np.ndarray | None,
    time_good: np.ndarray | None,
    t_r: float,
    first_time: float,
    out: Path,
    steps: list[str],
    *,
    fit_extents: tuple[tuple[float, float], ...] | None = None,
) -> Responses:
    """Single-trial responses of one recording, by ``section.responses``.

    Parameters
    ----------
    series : Scratch (n_times, n_sensors), raw units: masked, perhaps smoothed, without dummy
        scans, not standardised
    good : (n_sensors,) bool; the others become zeros
    section : BoldSection; ``responses`` is "lsa", "lss" or "glmsingle", ``glm`` says the rest
    events : the recording's rows of ``StudyPlan.events``
    confounds : (n_times, n_confounds), regressed out in the model itself
    time_good : (n_times,) bool; the other volumes are left out of every fit
    t_r, first_time : [s]
    out : path of the store to be written; the betas wait in a scratch file beside it
    steps : list of str, what was done is appended
    fit_extents : (start, stop) [s] pairs, optional
        What fits may see (``splits.fit_extents``); None: all of the recording. It bounds what is
        *learned* (response shapes, noise components, fractions, noise ceiling). The beta of a
        trial is estimated from all good volumes, for the responses of neighbours overlap.

    Returns
    -------
    Responses, to be used in a ``with`` statement

    Raises
    ------
    EventError : no event presents a stimulus; more trials than the volumes can tell apart
    RecipeError : a target that the events lack
    DataError : confounds that do not fit; percent of a mean that is about zero
    """
    frame_times = first_time + t_r * np.arange(series.shape[0])
    trials = trials_of(events, section.glm, confounds, time_good, frame_times, steps, fit_extents)
    means, gain, good = _levels(series, good, trials, section.glm)
    recording = Run(series, trials, means, gain)
    values = Scratch(out, (len(trials), series.shape[1]), np.float32)
    with ExitStack() as stack:
        stack.enter_context(values)
        if section.responses == "glmsingle":
            event_good, qc = glmsingle.estimate(recording, good, section.glm, values, steps)
        else:
            event_good, qc = _least_squares(recording, good, section, values, steps)
        if not event_good.all():
            steps.append(f"{int((~event_good).sum())} of {len(trials)} trials have no beta: the "
                         "good volumes do not determine it")  # fmt: skip
        rows = np.flatnonzero(event_good & trials.fit_rows & (trials.stimulus != ""))
        ceiling = ceiling_of(values, rows, trials.stimulus[rows])
        qc["noise_ceiling"] = (("sensor",), np.where(good, ceiling, np.nan).astype(np.float32))
        unit = "percent of the mean of its sensor" if section.glm.percent else "units of the series"
        steps.append(f"one beta per trial, in {unit}")
        stack.pop_all()  # the caller closes it
        return Responses(values, list(trials.event), event_good, good, qc)


def lsa(design: np.ndarray, nuisance: np.ndarray) -> Estimator:
    """Least squares, all trials at once (Rissman et al. 2004, NeuroImage 23:752).

    ``beta = pinv(M X) M y`` with ``M = I - Q Q'``, ``Q`` an orthonormal basis of the nuisance
    terms: the coefficients of ``X`` in the regression on ``[X, nuisance]`` (Frisch, Waugh, Lovell).
    The beta of trial ``j`` is determined when ``(pinv(M X) M X)_jj = 1``; elsewhere (two trials
    with one onset) its weights are NaN.

    Parameters
    ----------
    design : (n_times, n_events)
    nuisance : (n_times, k)
    """
    projected = residual(design, orthonormal(nuisance))
    u, s, vt = decomposed(projected, np.linalg.norm(design, axis=0).max(initial=0.0))
    weights = (vt.T / s) @ u.T
    determined = np.abs((vt**2).sum(axis=0) - 1) < TOLERANCE
    weights[~determined] = np.nan
    return Estimator(weights, u)


def lss(design: np.ndarray, nuisance: np.ndarray, condition: np.ndarray) -> Estimator:
    """Least squares, one model per trial (Mumford et al. 2012, NeuroImage 59:2636).

    The model of trial ``j`` has its regressor ``x_j``, one per condition that sums all *other*
    trials of the condition, and the nuisance terms. This is the recipe of Nilearn's example
    "Beta-Series Modeling", where the trial's own condition keeps its remaining trials and the
    others stay whole; with one condition for all it is the trial against all others.

    With ``D_c`` the sum over all trials of condition ``c``, and everything projected off the
    nuisance terms, ``[x_j, D_c - x_j, ...]`` spans what ``[x_j, D]`` spans, and ``beta_j`` is the
    sum of the coefficients of ``x_j`` and of ``D_c(j)`` there::

        w_j = D+_c + (1 - (D+ x_j)_c) r_j' / (r_j' x_j),    r_j = x_j - D D+ x_j

    so that all models together cost one Gram matrix of ``X`` instead of a fit each. Where a
    condition has one trial, ``r_j = 0`` and ``w_j = D+_c``.

    Parameters
    ----------
    design : (n_times, n_events)
    nuisance : (n_times, k)
    condition : (n_events,)
    """
    projected = residual(design, orthonormal(nuisance))
    size = np.linalg.norm(design, axis=0).max(initial=0.0)
    _, code = np.unique(condition, return_inverse=True)
    sums = projected @ (code[:, None] == np.arange(code.max() + 1))
    u, s, vt = decomposed(sums, size)
    inverse = (vt.T / s) @ u.T
    others = inverse @ projected
    own = others[code, np.arange(len(code))]
    rest = projected - sums @ others
    length = (rest * projected).sum(axis=0)
    apart = length > (TOLERANCE * size) ** 2
    weights = inverse[code]
    weights[apart] += (1 - own[apart])[:, None] * rest[:, apart].T / length[apart, None]
    # weights @ regressors must be 1 for the trial itself and 0 for the sum of its fellows.
    itself = (weights * projected.T).sum(axis=1)
    fellows = (weights * sums.T[code]).sum(axis=1) - itself
    determined = (np.abs(itself - 1) < 1e-5) & (np.abs(fellows) < 1e-5)
    weights[~determined] = np.nan
    return Estimator(weights, decomposed(projected, size)[0])


def _levels(
    series: Scratch, good: np.ndarray, trials: Trials, section: GlmSection
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (n_sensors,) over the volumes that fits may see; gain; which sensors are good.

    Where those are fewer than three, it is over all good volumes. A sensor that does not vary over
    them is not good, nor, where betas are in percent, one whose mean is not above its standard
    deviation.
    """
    kept = np.flatnonzero(trials.fit_times)
    if len(kept) < 3:
        kept = np.flatnonzero(trials.time_good)
    if len(kept) < 3:
        raise DataError(
            "too few good volumes for a model", expected="3 or more", found=str(len(kept))
        )
    means, spread = np.empty(series.shape[1]), np.empty(series.shape[1])
    for columns in series.column_blocks():
        values = series.read(columns=columns)[kept].astype(float)
        means[columns], spread[columns] = values.mean(axis=0), values.std(axis=0)
    usable = good & (spread > 0) & np.isfinite(spread)
    if section.percent:
        level = usable & (means > spread)
        if 2 * level.sum() < usable.sum():
            raise DataError(
                "betas in percent of the mean need a series in raw units",
                expected="sensors whose mean is above their standard deviation",
                found=f"{int(level.sum())} of {int(usable.sum())} sensors",
                remedy="preprocess.bold.glm.percent = false",
            )
        usable = level
    gain = np.ones(len(means))
    if section.percent:
        gain[usable] = 100 / means[usable]
    return means, gain, usable


def _least_squares(
    recording: Run, good: np.ndarray, section: BoldSection, values: Scratch, steps: list[str]
) -> tuple[np.ndarray, QC]:
    """LSA or LSS to ``values``; which trials are determined, and quality numbers."""
    trials = recording.trials
    name = section.glm.hrf or "glover"
    kept = np.flatnonzero(trials.time_good)
    if name == "library":
        kernels = trials.kernels(name)
        index, _ = best_shapes([recording.series], good, [trials], [kernels])
        steps.append(f"response shape: per sensor the best of {len(kernels)}")
    else:
        kernels, index = [hrf.canonical(name, trials.frame_times)], np.zeros(len(good), int)
        steps.append(f"response shape: {name}")
    how = "all trials at once" if section.responses == "lsa" else "one model per trial"
    steps.append(f"least squares, {how}")
    made = {
        number: _estimator(trials.regressors(kernels[number])[kept], trials, kept, section)
        for number in np.unique(index[good])
    }
    event_good = trials.covered(trials.time_good)
    for estimator in made.values():
        event_good &= np.isfinite(estimator.weights).all(axis=1)
    for estimator in made.values():
        estimator.weights[~event_good] = np.nan
    q, r2 = orthonormal(trials.nuisance[kept]), np.full(len(good), np.nan, np.float32)
    for columns in recording.series.column_blocks():
        here = np.flatnonzero(good[columns])
        betas = np.zeros((len(trials), columns.stop - columns.start), np.float32)
        betas[~event_good] = np.nan
        block = recording.read(columns, here, kept, float)
        shapes = index[columns][here]
        for number in np.unique(shapes):
            chosen = here[shapes == number]
            y = block[:, shapes == number]
            total = (y**2).sum(axis=0) - ((q.T @ y) ** 2).sum(axis=0)
            betas[:, chosen] = made[number].weights @ y
            explained = ((made[number].basis.T @ y) ** 2).sum(axis=0)
            r2[columns.start + chosen] = explained / total
        values.write(0, columns.start, betas)
    qc: QC = {"r2": (("sensor",), r2)}
    if name == "library":
        qc["hrf_index"] = (("sensor",), np.where(good, index, -1).astype(np.int64))
    return event_good, qc


def _estimator(
    design: np.ndarray, trials: Trials, kept: np.ndarray, section: BoldSection
) -> Estimator:
    nuisance = trials.nuisance[kept]
    if section.responses == "lsa":
        refuse_too_many(len(trials), len(kept) - orthonormal(nuisance).shape[1])
        return lsa(design, nuisance)
    together = section.glm.lss_others == "together"
    return lss(design, nuisance, np.full(len(trials), "") if together else trials.condition)
