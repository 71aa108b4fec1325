"""Which response shape of a library fits which sensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from braindecode_pipe.preprocess.hrf import Kernel, canonical
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.trials import Trials, decomposed, orthonormal, residual

# How much better than the usual shape another one must fit, in standard deviations of what noise
# makes of it.
_MARGIN = 3.0


def best_shapes(
    series: Sequence[Scratch],
    good: np.ndarray,
    trials: Sequence[Trials],
    kernels: Sequence[Sequence[Kernel]],
    components: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Best response shape of every sensor, over one or more recordings.

    ``R2_h = sum_r ||F_rh' y_r||^2 / sum_r ||M_r y_r||^2``, where ``F_rh`` is an orthonormal basis
    of the regressors of recording ``r`` with shape ``h``, one per trial, off the nuisance terms,
    and ``M_r`` takes the nuisance terms away. The shape with the largest in-sample ``R2`` is taken
    (Prince et al. 2022, "FITHRF"). All shapes have equally many regressors.

    Unlike there, a sensor keeps the usual shape ``u``, the one nearest to Glover's, unless another
    is clearly better: ``E_h - E_u > 3 s_h``, with ``E = sum_r ||F_r' y_r||^2`` and
    ``s_h = v sqrt(2 sum_r ||F_rh F_rh' - F_ru F_ru'||_F^2)`` the standard deviation of the
    difference where there is nothing but white noise of variance ``v`` (estimated by the residuals
    of ``h``). In one short run of weak responses the best of twenty is mostly a choice among noise,
    and made simulated betas less reliable than those of the usual shape.

    No label is looked at. Regressors shared by the repeats of a stimulus would tell the shapes
    apart better, but choose the shape that makes repeats agree: on simulated white noise the
    split-half reliability of the betas rose to 0.05 by that alone. Only volumes that fits may see
    are used.

    Parameters
    ----------
    series : n_recordings times Scratch (n_times, n_sensors)
    good : (n_sensors,) bool
    trials : n_recordings times Trials
    kernels : n_recordings times n_shapes kernels
    components : n_recordings times (n_times, n), further nuisance terms, optional

    Returns
    -------
    index (n_sensors,) of the best shape; R2 (n_sensors,). Where nothing can be learned, in a
    sensor that is not good or when no volume may be seen, the usual shape, and NaN.
    """
    nuisance = [one.nuisance for one in trials]
    if components is not None:
        nuisance = [np.hstack(parts) for parts in zip(nuisance, components)]
    bases = [_bases(*parts) for parts in zip(trials, kernels, nuisance)]
    usual = _nearest_to_canonical(kernels[0], trials[0].frame_times)
    index = np.full(len(good), usual)
    free = sum(
        int(one.fit_times.sum()) - q.shape[1] - shapes[usual].shape[1]
        for one, (q, shapes) in zip(trials, bases)
    )
    apart = np.sqrt(2 * sum(_squared_distances(shapes, usual) for _, shapes in bases))
    r2 = np.full(len(good), np.nan)
    n_shapes = len(kernels[0])
    for columns in series[0].column_blocks():
        here = np.flatnonzero(good[columns])
        explained, total = np.zeros((n_shapes, len(here))), np.zeros(len(here))
        for one, of_shape, recording in zip(trials, bases, series):
            kept = np.flatnonzero(one.fit_times)
            block = recording.read(columns=columns)[kept][:, here]
            q, shapes = of_shape
            if not len(kept):
                continue
            y = residual((block - block.mean(axis=0, dtype=float)).astype(np.float32), q)
            total += np.einsum("tv,tv->v", y, y, dtype=float)
            for number, basis in enumerate(shapes):
                z = basis.T @ y
                explained[number] += np.einsum("pv,pv->v", z, z, dtype=float)
        told = total > 0
        place = columns.start + here[told]
        explained, total = explained[:, told], total[told]
        most = explained.max(axis=0)
        best = explained.argmax(axis=0)
        spread = apart[best] * (total - most) / max(free, 1)
        best = np.where(most - explained[usual] > _MARGIN * spread, best, usual)
        index[place] = best
        r2[place] = explained[best, np.arange(len(best))] / total
    return index, r2


def _bases(
    trials: Trials, kernels: Sequence[Kernel], nuisance: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Bases of the nuisance terms and of the regressors of every shape, on the fit's volumes."""
    kept = np.flatnonzero(trials.fit_times)
    q = orthonormal(nuisance[kept])
    bases = []
    for kernel in kernels:
        design = trials.regressors(kernel)
        size = float(np.linalg.norm(design, axis=0).max(initial=0.0))
        bases.append(decomposed(residual(design[kept], q), size)[0].astype(np.float32))
    return q.astype(np.float32), bases


def _nearest_to_canonical(kernels: Sequence[Kernel], frame_times: np.ndarray) -> int:
    glover = canonical("glover", frame_times).values
    likeness = [kernel.values @ glover / np.linalg.norm(kernel.values) for kernel in kernels]
    return int(np.argmax(likeness))


def _squared_distances(bases: list[np.ndarray], usual: int) -> np.ndarray:
    """``||F_h F_h' - F_u F_u'||_F^2 = p_h + p_u - 2 ||F_h' F_u||_F^2``, (n_shapes,)."""
    common = np.array([np.sum((basis.T @ bases[usual]).astype(float) ** 2) for basis in bases])
    sizes = np.array([basis.shape[1] for basis in bases])
    return np.maximum(0.0, sizes + sizes[usual] - 2 * common)
