"""Fractional ridge regression: ridge by the length of its solution."""

from __future__ import annotations

import numpy as np

# Steps of the penalties that are tried, per factor of ten.
_PER_DECADE = 10


def penalties(singular_values: np.ndarray) -> np.ndarray:
    """Penalties (n,) to look up lengths at: 0, then evenly spaced in logarithm.

    From 1e-3 of the smallest squared singular value, where a solution has lost 0.1 % at most, to
    1e3 of the largest, where 0.1 % of it is left.
    """
    squares = np.asarray(singular_values, float) ** 2
    low, high = np.log10(squares.min() * 1e-3), np.log10(squares.max() * 1e3)
    steps = int(np.ceil((high - low) * _PER_DECADE)) + 1
    return np.concatenate([[0.0], np.logspace(low, high, steps)])


def shrunk(rotated: np.ndarray, singular_values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Coefficients ``s z / (s^2 + alpha)`` in the basis of the right singular vectors.

    Parameters
    ----------
    rotated : (rank, n_sensors), ``z = U' y``
    singular_values : (rank,)
    alpha : (n_sensors,)
    """
    s = singular_values[:, None]
    return s * rotated / (s**2 + alpha)


def squared_lengths(
    rotated: np.ndarray, singular_values: np.ndarray, alphas: np.ndarray
) -> np.ndarray:
    """Squared lengths of the solutions, ``sum_i (s_i z_i / (s_i^2 + alpha))^2``.

    The lengths of several recordings, whose joint design is block-diagonal, add up.

    Parameters
    ----------
    rotated : (rank, n_sensors)
    singular_values : (rank,)
    alphas : (n_alphas,)

    Returns
    -------
    (n_alphas, n_sensors)
    """
    s = np.asarray(singular_values, float)
    weights = (s / (s**2 + alphas[:, None])) ** 2
    # In double precision: squares of small units would leave the range of single.
    return weights @ rotated.astype(float) ** 2


def alphas_of(lengths: np.ndarray, alphas: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Penalties whose solutions have given fractions of the unpenalised length.

    ``||b(alpha)|| = gamma ||b(0)||`` (Rokem & Kay 2020, GigaScience 9:giaa133, equation 9); the
    length falls with the penalty, and ``log alpha`` is interpolated between those of the grid, as
    the authors do.

    Parameters
    ----------
    lengths : (n_alphas, n_sensors), squared, of :func:`squared_lengths`
    alphas : (n_alphas,), increasing from 0, of :func:`penalties`
    fractions : (n_fractions,), above 0, up to 1

    Returns
    -------
    (n_fractions, n_sensors); 0 for a fraction of 1 and where a solution has no length
    """
    whole = np.where(lengths[0] > 0, lengths[0], 1)
    ratio = np.sqrt(np.clip(lengths / whole, 0, 1)).astype(float)
    found = np.zeros((len(fractions), lengths.shape[1]))
    with np.errstate(divide="ignore"):
        logs = np.log10(alphas)
    sensors = np.arange(lengths.shape[1])
    for number, fraction in enumerate(fractions):
        if fraction >= 1:
            continue
        below = np.clip((ratio >= fraction).sum(axis=0) - 1, 0, len(alphas) - 2)
        upper, lower = ratio[below, sensors], ratio[below + 1, sensors]
        share = np.clip((upper - fraction) / np.where(upper > lower, upper - lower, 1), 0, 1)
        between = 10 ** (logs[below + 1] * share + np.where(below, logs[below], 0) * (1 - share))
        found[number] = np.where(below, between, alphas[1] * share)
    found[:, lengths[0] <= 0] = 0
    return found
