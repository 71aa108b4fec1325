"""Noise ceiling of single-trial responses, from repeated stimuli."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.preprocess.scratch import Scratch


@dataclass(frozen=True)
class Variances:
    """Variance of responses, taken apart.

    Attributes
    ----------
    signal : (n_sensors,) over stimuli, of the responses that a stimulus evokes; 0 or more
    noise : (n_sensors,) over the repeats of a stimulus
    """

    signal: np.ndarray
    noise: np.ndarray


def variances(betas: np.ndarray, stimulus: np.ndarray) -> Variances:
    """Signal and noise variance from repeats (Allen et al. 2022, Nat. Neurosci. 25:116, Methods).

    ``N = sum_s sum_i (x_si - mean_s)^2 / sum_s (n_s - 1)``: the variance over the repeats of a
    stimulus, averaged. ``S = max(0, (SS - (n - 1) N) / (n - sum_s n_s^2 / n))`` with ``SS`` the sum
    of squares of all ``n`` trials around their mean: the variance of the trials less ``N``. Allen
    et al. z-score the trials and write ``S = max(0, 1 - N)``; here the numbers of trials that the
    expectation of ``SS`` depends on are those of the analysis of variance, so that few stimuli or
    unequal repeats leave no bias.

    Parameters
    ----------
    betas : (n_trials, n_sensors)
    stimulus : (n_trials,) ids; a stimulus that is there once counts in ``SS`` only

    Returns
    -------
    Variances, NaN where no stimulus repeats, or only one stimulus is there
    """
    betas = np.asarray(betas, float)
    _, code, count = np.unique(stimulus, return_inverse=True, return_counts=True)
    n, free = len(betas), int((count - 1).sum())
    if free < 1 or len(count) < 2:
        empty = np.full(betas.shape[1], np.nan)
        return Variances(empty, empty.copy())
    centred = betas - betas.mean(axis=0)
    sums = np.zeros((len(count), betas.shape[1]))
    np.add.at(sums, code, centred)
    noise = ((centred - (sums / count[:, None])[code]) ** 2).sum(axis=0) / free
    effective = n - (count.astype(float) ** 2).sum() / n
    signal = ((centred**2).sum(axis=0) - (n - 1) * noise) / effective
    return Variances(np.maximum(signal, 0.0), noise)


def noise_ceiling(found: Variances, n_averaged: int | np.ndarray = 1) -> np.ndarray:
    """Most variance that a perfect model can explain, in percent: ``100 S / (S + N / n)``.

    Parameters
    ----------
    found : Variances
    n_averaged : trials that are averaged before a model is compared with them; several numbers
        stand for stimuli with unequal repeats, whose ``1 / n`` is averaged (NSD's manual)

    Returns
    -------
    (n_sensors,) [%], NaN where the variances are, or both are 0
    """
    share = float(np.mean(1.0 / np.atleast_1d(np.asarray(n_averaged, float))))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * found.signal / (found.signal + share * found.noise)


def ceiling_of(
    values: Scratch, rows: np.ndarray, stimulus: np.ndarray, n_averaged: int | np.ndarray = 1
) -> np.ndarray:
    """Noise ceiling (n_sensors,) [%] of the trials ``rows`` of a scratch file, block by block.

    Parameters
    ----------
    values : Scratch (n_events, n_sensors)
    rows : positions of the trials that count
    stimulus : (n_rows,) their stimuli
    n_averaged : see :func:`noise_ceiling`; 1, as the responses are stored, trial by trial
    """
    ceiling = np.full(values.shape[1], np.nan)
    for columns in values.column_blocks():
        found = variances(values.read(columns=columns)[rows], stimulus)
        ceiling[columns] = noise_ceiling(found, n_averaged)
    return ceiling
