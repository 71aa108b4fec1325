"""When is a score above chance: cluster permutation over time, and false discovery rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import DataError

_BLOCK = 2**21


@dataclass(frozen=True)
class Cluster:
    """Neighbouring times ``start ... stop - 1`` whose t exceeds the threshold on one side."""

    start: int
    stop: int
    mass: float
    p_value: float


def cluster_test(
    values: np.ndarray,
    chance: float = 0.0,
    *,
    alpha: float = 0.05,
    tail: int = 1,
    n_permutations: int = 2000,
    seed: int = 0,
) -> tuple[np.ndarray, list[Cluster]]:
    """Clusters of times at which units (people, stimuli) score above chance.

    One-sample t at every time; times beyond the critical t at ``alpha`` form clusters of
    neighbours, whose statistic is the sum of their t. Its null is the largest one over all
    clusters when the signs of whole units' ``values - chance`` are flipped at random (Maris &
    Oostenveld 2007, section 3): all signs where there are not more than ``n_permutations``, else
    ``p = (1 + #) / (1 + N)``. The p-value is about the cluster, not about its borders.

    Parameters
    ----------
    values : (n_units, n_times)
    chance : float
    alpha : of the threshold that forms clusters
    tail : 1 (above chance), -1 (below) or 0 (either; two-sided)
    n_permutations, seed : of the null

    Returns
    -------
    t : (n_times,)
    clusters : in the order of time

    Raises
    ------
    DataError
        NaN, or fewer than two units.
    """
    from scipy.stats import t as student

    values = np.asarray(values, float)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise DataError(
            "clusters over time need several units",
            expected="(units, times), at least two units, finite",
            found=f"{values.shape}, {np.count_nonzero(~np.isfinite(values))} not finite",
        )
    centred = values - chance
    n = len(centred)
    threshold = student.ppf(1 - alpha / (2 if tail == 0 else 1), n - 1)
    exact = 2**n <= n_permutations
    if exact:
        signs = 1.0 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        rng = np.random.default_rng([seed, 8])
        signs = rng.choice([-1.0, 1.0], (n_permutations, n))
    square = (centred**2).sum(axis=0)
    observed = _t(np.ones((1, n)), centred, square)[0]
    null = []
    size = max(1, _BLOCK // centred.shape[1])
    for start in range(0, len(signs), size):
        t = _t(signs[start : start + size], centred, square)
        null += [max((abs(m) for *_, m in _runs(row, threshold, tail)), default=0.0) for row in t]
    null = np.array(null)
    clusters = []
    for start, stop, mass in _runs(observed, threshold, tail):
        as_large = np.count_nonzero(null >= abs(mass) * (1 - 1e-9))
        p = as_large / len(null) if exact else (1 + as_large) / (1 + len(null))
        clusters.append(Cluster(start, stop, float(mass), float(p)))
    return observed, clusters


def false_discovery(p: np.ndarray) -> np.ndarray:
    """q-values: the smallest false discovery rate at which each test is rejected.

    ``q_(i) = min_{j >= i} p_(j) m / j`` (Benjamini & Hochberg 1995), valid for independent and
    positively dependent tests. NaN is no test: it stays NaN and does not count among the ``m``.

    Parameters
    ----------
    p : array of any shape, within [0, 1]

    Raises
    ------
    DataError
        A p-value outside of [0, 1].
    """
    p = np.asarray(p, float)
    known = np.isfinite(p)
    values = p[known]
    if ((values < 0) | (values > 1)).any() or np.isinf(p).any():
        raise DataError("these are no p-values", expected="numbers from 0 to 1", found=str(p[:5]))
    order = np.argsort(values)
    m = len(values)
    scaled = values[order] * m / np.arange(1, m + 1)
    found = np.empty(m)
    found[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    result = np.full(p.shape, np.nan)
    result[known] = found
    return result


def _t(signs: np.ndarray, values: np.ndarray, square: np.ndarray) -> np.ndarray:
    """(b, n_times) one-sample t; flipping signs leaves the sum of squares. Constant: 0 or inf."""
    n = len(values)
    mean = signs @ values / n
    variance = np.maximum(square - n * mean**2, 0) / (n - 1)
    # What rounding leaves of a variance that is zero must not look like a huge t.
    flat = variance <= 1e-14 * np.maximum(square, np.finfo(float).tiny)
    error = np.sqrt(np.where(flat, 1.0, variance) / n)
    return np.where(flat, np.where(mean == 0, 0.0, np.copysign(np.inf, mean)), mean / error)


def _runs(t: np.ndarray, threshold: float, tail: int) -> list[tuple[int, int, float]]:
    found = []
    for side in (1, -1):
        if tail in (0, side):
            edges = np.flatnonzero(np.diff(np.r_[0, (side * t > threshold).astype(np.int8), 0]))
            found += [(int(a), int(b), t[a:b].sum()) for a, b in zip(edges[::2], edges[1::2])]
    return sorted(found)
