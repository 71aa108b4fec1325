"""Single-trial betas with a response shape per sensor, noise components and fractional ridge.

The chain of Prince et al. 2022 (eLife 11:e77599), from the paper:

1. *Response shape.* Of a library, the best one per sensor (``shapes.best_shapes``).
2. *Noise components.* Sensors whose betas no repeat predicts are the noise pool; the principal
   components of their series join the nuisance terms of each recording (``denoise``). Their number
   is one for all sensors, chosen by how well betas predict the repeats of their stimulus.
3. *Fractional ridge.* Per sensor the fraction of the unpenalised length (``fracridge``) whose betas
   predict the unpenalised betas of the repeats best. Shrinkage is then undone on average: scale
   and offset that fit the betas to the unpenalised ones by least squares.

What differs from the authors' code: the library (``hrf.library``); shapes are
chosen again once the noise components are nuisance terms; the noise pool is that of Kay et al. 2013
(Front. Neurosci. 7:247), a cross-validated R2 below 0, where the code thresholds the R2 of an
on-off model; the drift terms are Nilearn's cosines; betas are centred per sensor, and not
z-scored per session, before repeats are compared; without repeats the shape is Glover's, see
``fit``; predictions leave out the recording of a trial,
or, where a stimulus is in one recording only, the trial. The penalty of a sensor is stored, and
not only its fraction: the singular values of a block-diagonal design are those of its blocks, so
that recordings can be worked on one by one with the result of the joint fit.

``fit`` learns from a list of recordings, ``apply`` uses what was learned on any one. The stage
gives ``fit`` the recording itself (``estimate``), as it sees no other: repeats in other runs teach
nothing, which ``check`` says where it matters. To learn across the runs of a session, a stage that
gets all of them would call ``fit`` with the runs that no fold tests, store the ``Parameters``, and
``apply`` them to each run: nothing here looks at a run that ``fit`` did not get. Where every run is
tested in some fold, as with ``split.by = "run"``, there would be none to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.preprocess import denoise
from braindecode_pipe.preprocess.candidates import (
    Design,
    Problem,
    Run,
    block_length,
    design_of,
    determined,
)
from braindecode_pipe.preprocess.scratch import Scratch, slices
from braindecode_pipe.preprocess.shapes import best_shapes
from braindecode_pipe.preprocess.trials import orthonormal, refuse_too_many, residual
from braindecode_pipe.recipe import GlmSection

# Fewest trials with a repeat that are enough to choose anything by cross-validation.
LEAST_PREDICTED = 8


@dataclass(frozen=True)
class Parameters:
    """What the chain learned; arrays are (n_sensors,).

    Attributes
    ----------
    shape : "library", or the name of the one response shape
    hrf_index : of the library; 0 with one shape
    pool : bool, the noise pool
    n_components : for all sensors
    fraction, alpha : of ridge; 1 and 0: none
    scale, offset : undo the shrinkage
    r2_repeats : how well betas predict the unpenalised betas of repeats, NaN without repeats
    """

    shape: str
    hrf_index: np.ndarray
    pool: np.ndarray
    n_components: int
    fraction: np.ndarray
    alpha: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    r2_repeats: np.ndarray


def estimate(
    run: Run, good: np.ndarray, section: GlmSection, values: Scratch, steps: list[str]
) -> tuple[np.ndarray, dict[str, tuple[tuple[str, ...], np.ndarray]]]:
    """The chain on one recording, learned from itself as far as it may be looked at.

    Parameters
    ----------
    run : Run
    good : (n_sensors,) bool
    section : GlmSection
    values : Scratch (n_events, n_sensors), gets the betas
    steps : list of str, what was done is appended

    Returns
    -------
    event_good (n_events,) bool; name -> (dims, values) for the group ``qc``

    Raises
    ------
    EventError : more trials than the volumes can tell apart
    """
    found = fit([run], good, section, steps)
    event_good, r2 = apply(run, found, good, section, values)

    def of_good(array: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        return ("sensor",), np.where(good, array, np.nan).astype(np.float32)

    qc = {
        "r2": of_good(r2),
        "r2_repeats": of_good(found.r2_repeats),
        "ridge_fraction": of_good(found.fraction),
        "n_noise_components": ((), np.asarray(found.n_components, np.int64)),
    }
    if found.shape == "library":
        qc["hrf_index"] = (("sensor",), np.where(good, found.hrf_index, -1).astype(np.int64))
    return event_good, qc


def fit(runs: Sequence[Run], good: np.ndarray, section: GlmSection, steps: list[str]) -> Parameters:
    """Learn the parameters of the chain from one or more recordings of the same sensors.

    Only volumes in ``fit_times`` and labels of trials in ``fit_rows`` are looked at; other trials
    are nuisance terms, each by itself. Without repeats of a stimulus there is nothing to
    cross-validate: then the noise pool is the half of the sensors that the response explains least,
    of which ``section.fallback_components`` are taken, and there is no ridge; ``steps`` says so.

    The authors' code chooses the shape without repeats too, by in-sample R2. Here it is Glover's
    then, unless the recipe names one: in simulated runs of 40 and 90 trials, with shapes that peak
    between 3.7 and 7.8 s, its betas were nearer to the planted ones up to a mean response of 1 % of
    the signal (correlation 0.47 against 0.38, and 0.44 against 0.37); the library won at 2 % (0.67
    against 0.66, and 0.66 against 0.63).

    Parameters
    ----------
    runs : recordings
    good : (n_sensors,) bool
    section : GlmSection
    steps : list of str, what was done is appended

    Raises
    ------
    EventError : more trials than the volumes can tell apart
    """
    n_sensors = len(good)
    name = section.hrf or "library"
    kernels = [run.trials.kernels(name) for run in runs]
    problem = Problem(runs, good, kernels)
    repeats = problem.repeats()
    blind = len(repeats.rows) < LEAST_PREDICTED
    if blind and section.hrf is None:
        name = "glover"
        kernels = [run.trials.kernels(name) for run in runs]
    index, r2 = best_shapes([run.series for run in runs], good, [run.trials for run in runs],
                            kernels)  # fmt: skip
    steps.append(f"response shape: per sensor the best of {len(kernels[0])}"
                 if name == "library" else f"response shape: {name}")  # fmt: skip
    mean = np.mean([run.means for run in runs], axis=0)
    none = np.zeros(n_sensors)
    if blind:
        known = r2[good & np.isfinite(r2)]
        limit = float(np.median(known)) if len(known) else 0.0
        pool = denoise.noise_pool(good, mean, r2, limit)
        n = min(section.fallback_components, problem.most_components(pool))
        steps.append(
            f"no cross-validation: {len(repeats.rows)} trials have a repeat in what may be "
            f"learned from, {LEAST_PREDICTED} are needed; {n} noise components, fixed, no ridge"
        )
        return Parameters(name, index, pool, n, none + 1, none, none + 1, none, none + np.nan)
    pool = denoise.noise_pool(good, mean, problem.predictability(index, repeats), 0.0)
    components = [
        denoise.noise_components(run.series, pool, run.trials,
                                 min(section.noise_components, problem.most_components(pool)))
        for run in runs
    ]  # fmt: skip
    scores = problem.component_scores(index, repeats, components)
    n = denoise.choose_number(scores)
    steps.append(f"{n} of {len(scores) - 1} noise components from {int(pool.sum())} sensors, "
                 "chosen by the repeats")  # fmt: skip
    components = [part[:, :n] for part in components]
    if n and name == "library":
        index, _ = best_shapes([run.series for run in runs], good, [run.trials for run in runs],
                               kernels, components)  # fmt: skip
    fractions = np.sort(np.asarray(section.fractions, float))[::-1]
    fraction, alpha, scale, offset, r2_repeats = problem.ridge(
        index, repeats, components, fractions
    )
    middle = np.median(fraction[good]) if good.any() else 1.0
    steps.append(f"fractional ridge: median fraction {middle:g}, chosen by the repeats")
    return Parameters(name, index, pool, n, fraction, alpha, scale, offset, r2_repeats)


def apply(
    run: Run, found: Parameters, good: np.ndarray, section: GlmSection, values: Scratch
) -> tuple[np.ndarray, np.ndarray]:
    """Betas of a recording with what was learned, from all of its good volumes.

    Its own noise components come from its own series and the pool; no label is used.

    Parameters
    ----------
    run : Run
    found : Parameters
    good : (n_sensors,) bool
    section : GlmSection
    values : Scratch (n_events, n_sensors), gets the betas; NaN where a trial is not determined

    Returns
    -------
    event_good (n_events,) bool; in-sample R2 (n_sensors,) of one regressor per trial over what the
    nuisance terms and components leave
    """
    trials = run.trials
    kept = np.flatnonzero(trials.time_good)
    kernels = trials.kernels(found.shape)
    event_good = determined(trials, trials.time_good, kernels[0])
    components = denoise.noise_components(run.series, found.pool, trials, found.n_components)
    nuisance = np.hstack([trials.nuisance, components])[kept]
    refuse_too_many(len(trials), len(kept) - orthonormal(nuisance).shape[1])
    designs: dict[int, Design] = {}
    r2, q = np.full(len(good), np.nan), orthonormal(nuisance)
    for columns in slices(len(good), block_length(run.series.shape[0] + 4 * len(trials))):
        betas = np.zeros((len(trials), columns.stop - columns.start), np.float32)
        betas[~event_good] = np.nan
        here = np.flatnonzero(good[columns])
        if len(here):
            y = run.read(columns, here, kept)
        for shape in np.unique(found.hrf_index[columns][here]):
            if shape not in designs:
                designs[shape] = design_of(trials, kernels[shape], kept, event_good, nuisance)
            chosen = found.hrf_index[columns][here] == shape
            place = here[chosen]
            sensors, part = columns.start + place, y[:, chosen]
            rotated = designs[shape].u.T @ part
            shrunk = designs[shape].betas(rotated, found.alpha[sensors].astype(np.float32))
            betas[np.ix_(event_good, place)] = found.scale[sensors] * shrunk + found.offset[sensors]
            total = (residual(part, q) ** 2).sum(axis=0)
            r2[sensors] = (rotated**2).sum(axis=0) / np.where(total > 0, total, np.nan)
        values.write(0, columns.start, betas)
    return event_good, r2
