"""Activation patterns of linear decoders."""

from __future__ import annotations

import numpy as np


def haufe_patterns(X: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How the signal goes with the output of a decoder (Haufe et al. 2014, eq. 6).

    ``a_k = cov(x, s_k) / sd(s_k)`` with ``s_k`` the k-th output over the training windows: the
    change of each sensor, in its unit, per standard deviation of the output. This is the
    one-component form ``A = Sigma_x w Sigma_s^-1`` up to that scaling; weights themselves cannot
    be read as activity. An output that does not vary has pattern 0.

    Parameters
    ----------
    X : (n, n_sensors, n_times)
    scores : (n, n_components)

    Returns
    -------
    (n_components, n_sensors, n_times)
    """
    X = np.asarray(X, np.float64)
    centred = X - X.mean(0)
    s = scores - scores.mean(0)
    sd = s.std(0)
    varies = sd > 1e-9 * np.abs(scores).max(0)
    s = np.where(varies, s / np.where(varies, sd, 1), 0)
    return np.einsum("nk,nst->kst", s, centred, optimize=True) / len(X)


def at_peak(patterns: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pattern at the time where its root mean square over sensors is largest.

    Parameters
    ----------
    patterns : (n_components, n_sensors, n_times)
    times : (n_times,) [s]

    Returns
    -------
    pattern : (n_components, n_sensors), signed
    time : (n_components,) [s]
    """
    peak = (patterns**2).mean(1).argmax(-1)
    return np.take_along_axis(patterns, peak[:, None, None], 2)[..., 0], np.asarray(times)[peak]
