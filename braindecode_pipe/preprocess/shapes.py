"""Which response shape of a library fits which sensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from braindecode_pipe.preprocess.hrf import Kernel
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.trials import Trials, decomposed, orthonormal, residual


def stimulus_columns(trials: Trials) -> np.ndarray:
    """(n_events, n_columns): which trials share a regressor when stimuli are told apart.

    Repeats of a stimulus share one, as far as a fit may know them; every other trial has its own.
    """
    known = trials.fit_rows & (trials.stimulus != "")
    own = np.arange(len(trials)).astype(str)
    names = np.where(known, "s" + trials.stimulus.astype(str), "t" + own.astype(object))
    _, code = np.unique(names.astype(str), return_inverse=True)
    return (code[:, None] == np.arange(code.max() + 1)).astype(float)


def best_shapes(
    series: Sequence[Scratch],
    good: np.ndarray,
    trials: Sequence[Trials],
    kernels: Sequence[Sequence[Kernel]],
) -> tuple[np.ndarray, np.ndarray]:
    """Best response shape of every sensor, over one or more recordings.

    ``R2_h = sum_r ||F_rh' y_r||^2 / sum_r ||M_r y_r||^2``, where ``F_rh`` is an orthonormal basis
    of the regressors of recording ``r`` with shape ``h``, one per stimulus (a trial that no other
    repeats: one per trial), off the nuisance terms, and ``M_r`` takes the nuisance terms away. The
    shape with the largest in-sample ``R2`` is taken (Prince et al. 2022, "FITHRF", who give every
    trial its own regressor: fewer regressors tell the shapes apart better). All shapes have equally
    many regressors. Only volumes that fits may see are used.

    Parameters
    ----------
    series : n_recordings times Scratch (n_times, n_sensors)
    good : (n_sensors,) bool
    trials : n_recordings times Trials
    kernels : n_recordings times n_shapes kernels

    Returns
    -------
    index (n_sensors,) of the best shape, 0 where a sensor is not good; R2 (n_sensors,), NaN there
    """
    bases = [_bases(one, shapes) for one, shapes in zip(trials, kernels)]
    index, r2 = np.zeros(len(good), int), np.full(len(good), np.nan)
    n_shapes = len(kernels[0])
    for columns in series[0].column_blocks():
        here = np.flatnonzero(good[columns])
        explained, total = np.zeros((n_shapes, len(here))), np.zeros(len(here))
        for one, of_shape, recording in zip(trials, bases, series):
            kept = np.flatnonzero(one.fit_times)
            block = recording.read(columns=columns)[kept][:, here]
            q, shapes = of_shape
            y = residual(block - block.mean(axis=0, dtype=float), q).astype(np.float32)
            total += np.einsum("tv,tv->v", y, y, dtype=float)
            for number, basis in enumerate(shapes):
                z = basis.T @ y
                explained[number] += np.einsum("pv,pv->v", z, z, dtype=float)
        place = columns.start + here
        index[place] = explained.argmax(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            r2[place] = explained.max(axis=0) / total
    return index, r2


def _bases(trials: Trials, kernels: Sequence[Kernel]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Bases of the nuisance terms and of the regressors of every shape, on the fit's volumes."""
    kept = np.flatnonzero(trials.fit_times)
    q = orthonormal(trials.nuisance[kept])
    together = stimulus_columns(trials)
    bases = []
    for kernel in kernels:
        design = trials.regressors(kernel) @ together
        size = float(np.linalg.norm(design, axis=0).max(initial=0.0))
        bases.append(decomposed(residual(design[kept], q), size)[0].astype(np.float32))
    return q, bases
