"""Multivariate noise normalisation: the noise covariance of trials, and its inverse square root.

Guggenmos, Sterzer & Cichy 2018, NeuroImage 173:434: the covariance over sensors of what differs
between repetitions of a condition, shrunk by Ledoit & Wolf (2004), as ``Sigma^(-1/2)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import DataError

MAX_SENSORS = 2000
_MIN_RESIDUALS = 10
# float32 leaves this of a direction that an average reference or an interpolation has removed.
_NULL = 1e-6

Reader = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class NoiseCovariance:
    """What :func:`noise_covariance` found.

    Attributes
    ----------
    covariance : (n_sensors, n_sensors), shrunk
    shrinkage : in [0, 1]
    rank : of the covariance before it was shrunk; directions beyond it hold nothing at all
    method : "residuals" or "epochs"
    """

    covariance: np.ndarray
    shrinkage: float
    rank: int
    method: str


def noise_covariance(
    read: Reader, conditions: Sequence[np.ndarray], n_sensors: int, step: int = 64
) -> NoiseCovariance:
    """Noise covariance over sensors of windows.

    ``S = sum r r^T / (T n)`` over trials and times, ``r`` the deviation of a trial from the mean
    of its condition at that time, ``n`` the trials without the conditions. Where nothing repeats
    (fewer than 10 such trials) ``r`` is the deviation from the trial's own mean over time, and
    ``n`` the trials: the authors' "epoch" method. ``S`` is then shrunk, see :func:`shrink`.

    The authors shrink the covariance of every condition and time, and average; here the average is
    shrunk, with the intensity that ``n`` trials give: samples of a trial are not independent.

    Parameters
    ----------
    read : rows -> (n, n_sensors, n_times) float64
    conditions : rows of every condition
    n_sensors : int
    step : rows that are read at a time

    Raises
    ------
    DataError
        Too many sensors, or nothing that could tell noise.
    """
    if n_sensors > MAX_SENSORS:
        raise DataError(
            "too many sensors to whiten",
            expected=f"at most {MAX_SENSORS}",
            found=str(n_sensors),
            remedy='use parcels, or [train.windows] whiten = "none"',
        )
    n_trials = sum(len(rows) for rows in conditions)
    n_residual = n_trials - len(conditions)
    repeats = n_residual >= _MIN_RESIDUALS
    first, second = np.zeros((2, n_sensors, n_sensors))
    n_times = 0
    for rows in conditions:
        if repeats and len(rows) == 1:
            continue
        centre: np.ndarray | float = 0.0
        if repeats:
            centre = sum(block.sum(0) for block in _blocks(read, rows, step)) / len(rows)
        for block in _blocks(read, rows, step):
            residual = block - (centre if repeats else block.mean(2, keepdims=True))
            n_times = residual.shape[2]
            flat = residual.swapaxes(0, 1).reshape(n_sensors, -1)
            first += flat @ flat.T
            flat *= flat
            second += flat @ flat.T
    if not repeats and (n_times < 2 or n_trials < _MIN_RESIDUALS):
        raise DataError(
            "the noise of the sensors cannot be estimated",
            expected=f"{_MIN_RESIDUALS} training windows that repeat a condition, or windows with "
            "time",
            found=f"{n_trials} windows of {len(conditions)} conditions, {n_times} samples each",
            remedy='[train.windows] whiten = "none"',
        )
    n = n_residual if repeats else n_trials
    covariance, shrinkage, rank = shrink(first / (n * n_times), second / (n * n_times), n, n_times)
    return NoiseCovariance(covariance, shrinkage, rank, "residuals" if repeats else "epochs")


def _blocks(read: Reader, rows: np.ndarray, step: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), step):
        yield read(rows[start : start + step])


def shrink(
    covariance: np.ndarray, fourth: np.ndarray, n: int, n_times: int = 1
) -> tuple[np.ndarray, float, int]:
    """Ledoit & Wolf (2004) of a covariance whose sensors were standardised.

    ``(1 - a) R + a I`` with ``R`` the correlation matrix, ``p`` its size,
    ``a = min(1, (mean_k |x_k|^4 - |R|^2) / (n |R - I|^2))``; then the variances are put back.

    Parameters
    ----------
    covariance : (p, p), mean of ``x x^T``
    fourth : (p, p), mean of ``(x^2) (x^2)^T``
    n : independent samples
    n_times : how many times more samples the means are made of

    Returns
    -------
    covariance : (p, p); sensors without variance stay without
    shrinkage : a
    rank : of ``R``, over eigenvalues above 1e-6 of the largest where there are twice as many
        samples as sensors, else full
    """
    variance = np.diag(covariance).copy()
    alive = variance > 0
    inverse = np.where(alive, 1 / np.sqrt(np.where(alive, variance, 1)), 0)
    correlation = covariance * np.outer(inverse, inverse)
    p = int(alive.sum())
    if not p:
        return covariance, 1.0, 0
    moment = float((fourth * np.outer(inverse, inverse) ** 2).sum())
    squared = float((correlation**2).sum())
    away = squared - p
    spread = max(0.0, moment - squared) / n
    shrinkage = 1.0 if away <= 0 else min(1.0, spread / away)
    rank = p
    if n * n_times >= 2 * p:
        values = np.linalg.eigvalsh(correlation[np.ix_(alive, alive)])
        rank = int((values > _NULL * values[-1]).sum())
    shrunk = (1 - shrinkage) * correlation + shrinkage * np.diag(alive * 1.0)
    scale = np.sqrt(variance)
    return shrunk * np.outer(scale, scale), shrinkage, rank


def whitening_matrix(noise: NoiseCovariance, kinds: np.ndarray) -> np.ndarray:
    """``Sigma^(-1/2)``, symmetric within a kind of sensor.

    Kinds are first brought to one size (the root mean variance of each), so that volts and tesla
    weigh the same. Directions beyond the rank become 0.

    Parameters
    ----------
    noise : NoiseCovariance
    kinds : (n_sensors,) text
    """
    covariance = noise.covariance
    variance = np.diag(covariance)
    size = np.ones(len(covariance))
    for kind in set(kinds):
        mean = variance[kinds == kind].mean()
        size[kinds == kind] = np.sqrt(mean) if mean > 0 else 1.0
    values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
    kept = slice(len(values) - noise.rank, None)
    values, vectors = values[kept], vectors[:, kept]
    if noise.rank and values[0] <= 0:
        raise DataError(
            "the noise covariance cannot be inverted",
            expected="positive eigenvalues",
            found=f"{values[0]:g}",
            remedy='[train.windows] whiten = "none"',
        )
    return (vectors / np.sqrt(values)) @ vectors.T / size
