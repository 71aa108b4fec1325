"""Noise ceilings: how well anything could predict responses that are measured with noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import DataError


@dataclass(frozen=True)
class Ceiling:
    """Bounds of the correlation with measured responses, per sensor.

    Attributes
    ----------
    reliability : (v,) correlation of the mean response with that of a repeated experiment; for
        people, of a person with the mean of the others
    low, high : (v,) bounds of the correlation that a perfect model reaches; equal where there is
        one estimate
    """

    reliability: np.ndarray
    low: np.ndarray
    high: np.ndarray


def split_half(responses: np.ndarray, n_splits: int = 100, seed: int = 0) -> Ceiling:
    """Reliability from random halves of the repetitions, by the formula of Spearman and Brown.

    ``r`` correlates the means of two halves over stimuli; ``R = 2 r / (1 + r)`` is that of the
    mean over all repetitions, for which ``sqrt(R)`` bounds the correlation of any prediction. ``r``
    is averaged over splits before the formula, which is not linear. A negative ``r`` gives a
    ceiling of 0. An odd repetition stays out, anew in each split, and then ``R`` is that of an even
    number.

    Parameters
    ----------
    responses : (repetitions, stimuli, v)
    n_splits, seed : random halves

    Returns
    -------
    Ceiling
        NaN for a sensor that is constant in a half.

    Raises
    ------
    DataError
        NaN, fewer than two repetitions or three stimuli.
    """
    responses = _checked(responses, "repetitions")
    rng = np.random.default_rng([seed, 9])
    half = len(responses) // 2
    total = np.zeros(responses.shape[2])
    for _ in range(n_splits):
        order = rng.permutation(len(responses))
        first, second = order[:half], order[half : 2 * half]
        total += correlation(responses[first].mean(axis=0), responses[second].mean(axis=0))
    r = np.maximum(total / n_splits, 0)
    reliability = spearman_brown(r, 2)
    ceiling = np.sqrt(reliability)
    return Ceiling(reliability, ceiling, ceiling)


def spearman_brown(r: np.ndarray | float, factor: float) -> np.ndarray | float:
    """``k r / (1 + (k - 1) r)``: reliability of ``factor`` times as many repetitions."""
    return factor * r / (1 + (factor - 1) * r)


def cross_subject(responses: np.ndarray) -> Ceiling:
    """How well the mean of a group predicts a person, with and without that person in it.

    ``low`` is the mean correlation of a person with the mean of the others, ``high`` with the mean
    of everybody, which holds their own noise: a model of what people share lies between (Nili et
    al. 2014, with correlations over stimuli of each sensor in place of dissimilarities). People
    are standardised over stimuli before they are averaged.

    Parameters
    ----------
    responses : (people, stimuli, v) in a space that people share

    Raises
    ------
    DataError
        NaN, fewer than two people or three stimuli.
    """
    responses = _standard(_checked(responses, "people"))
    total, n = responses.sum(axis=0), len(responses)
    low = np.mean([correlation(own, (total - own) / (n - 1)) for own in responses], axis=0)
    high = np.mean([correlation(own, total / n) for own in responses], axis=0)
    return Ceiling(low, low, high)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(v,) Pearson correlation over stimuli (rows); NaN where either is constant."""
    return (_standard(a) * _standard(b)).mean(axis=-2)


def _standard(values: np.ndarray) -> np.ndarray:
    scale = np.abs(values).max(axis=-2, keepdims=True)
    values = values / np.where(scale > 0, scale, 1.0)
    centred = values - values.mean(axis=-2, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-2, keepdims=True))
    constant = (values == values[..., :1, :]).all(axis=-2, keepdims=True)
    return np.where(constant, np.nan, centred / np.where(constant, 1.0, spread))


def _checked(responses: np.ndarray, what: str) -> np.ndarray:
    responses = np.asarray(responses, float)
    few = responses.ndim != 3 or responses.shape[0] < 2 or responses.shape[1] < 3
    if few or not np.isfinite(responses).all():
        raise DataError(
            "a noise ceiling cannot be estimated",
            expected=f"({what}, stimuli, sensors), at least 2 {what} and 3 stimuli, finite",
            found=f"{responses.shape}, {np.count_nonzero(~np.isfinite(responses))} not finite",
        )
    return responses
