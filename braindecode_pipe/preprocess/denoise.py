"""Components of noise: what sensors without a reliable response have in common (GLMdenoise)."""

from __future__ import annotations

import numpy as np

from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.trials import Trials, orthonormal, residual

# Brightness below which a sensor lies outside of the brain: this share of the 99th percentile.
_BRIGHT = 0.1
# Share of the best improvement that a number of components must reach.
_ENOUGH = 1 / 1.05


def noise_pool(good: np.ndarray, means: np.ndarray, score: np.ndarray, limit: float) -> np.ndarray:
    """Sensors (n_sensors,) bool whose time series is taken for noise.

    Good, with a score below ``limit``, and with a mean of at least a tenth of the 99th percentile
    (Prince et al. 2022, "brain threshold"); in a series that was demeaned all count as bright.

    Parameters
    ----------
    good : (n_sensors,) bool
    means : (n_sensors,)
    score : (n_sensors,); NaN is no noise
    """
    pool = good & (np.nan_to_num(score, nan=np.inf) < limit)
    top = float(np.percentile(means[good], 99)) if good.any() else 0.0
    bright = means >= _BRIGHT * top
    return pool & bright if (good & bright).sum() > good.sum() / 2 else pool


def noise_components(
    series: Scratch, pool: np.ndarray, trials: Trials, n_components: int
) -> np.ndarray:
    """Principal components of the time series of the noise pool (Kay et al. 2013, Prince 2022).

    Each series is projected off the nuisance terms and scaled to unit length; then
    ``R = U S V'`` over (time, sensor), and the components are the columns of ``U``. Where fits may
    see only some volumes, ``U`` comes from those, and the other volumes get the component by its
    spatial map: ``y' V / S``. Sensors are read block by block into the Gram matrix of the volumes.

    Parameters
    ----------
    series : Scratch (n_times, n_sensors)
    pool : (n_sensors,) bool
    trials : Trials
    n_components : most that are wanted

    Returns
    -------
    (n_times, n), n no more than wanted and than the pool has
    """
    kept = np.flatnonzero(trials.fit_times)
    q = orthonormal(trials.nuisance[kept])
    n_times = series.shape[0]
    products = np.zeros((n_times, len(kept)))
    for columns in series.column_blocks():
        here = np.flatnonzero(pool[columns])
        if not len(here):
            continue
        values = series.read(columns=columns)[:, here].astype(float)
        values = np.where(trials.time_good[:, None], values, 0.0)
        values[trials.time_good] -= values[kept].mean(axis=0)
        clean = residual(values[kept], q)
        length = np.linalg.norm(clean, axis=0)
        # A series that the nuisance terms explain leaves rounding errors.
        varies = length > 1e-6 * np.linalg.norm(values[kept], axis=0)
        scale = 1 / length[varies]
        products += (values[:, varies] * scale) @ (clean[:, varies] * scale).T
    gram = residual(products[kept], q)
    power, vectors = np.linalg.eigh((gram + gram.T) / 2)
    order = np.argsort(power)[::-1][:n_components]
    order = order[power[order] > 1e-10 * max(power.max(initial=0.0), 0.0)]
    found = products @ (vectors[:, order] / power[order])
    # The sign of an eigenvector is arbitrary.
    sign = np.sign(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])])
    return found * np.where(sign == 0, 1, sign)


def choose_number(scores: np.ndarray) -> int:
    """Number of components from cross-validated scores ``(n + 1, n_sensors)`` of 0 to n.

    Over the sensors with a score above 0 for any number, the median score is a curve; the smallest
    number is taken whose improvement over none is the best one or less by 5 % (Kay et al. 2013,
    Prince et al. 2022). 0 where no sensor counts, or nothing improves.
    """
    counted = (np.nan_to_num(scores, nan=-np.inf) > 0).any(axis=0)
    if not counted.any():
        return 0
    curve = np.median(scores[:, counted], axis=1)
    curve -= curve[0]
    if curve.max() <= 0:
        return 0
    return int(np.argmax(curve >= _ENOUGH * curve.max()))
