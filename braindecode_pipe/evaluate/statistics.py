"""Bootstrap intervals, permutation p-values and the averages that both are applied to.

Every metric is a *reduction* of per-query values, with one signature for the observed value, its
bootstrap and its null distribution::

    reduction(values, classes, weights, strata) -> (b,)

``values``, ``classes`` and ``weights`` are ``(b, n)`` or ``(1, n)`` (``b`` replicates of ``n``
queries), ``strata`` is ``(n,)``. ``classes`` holds the number of the true stimulus of each query,
``weights`` how often a query was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Reduction = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# Numbers held at once per array of replicates: 4 MiB of float64, which caches still hold.
_BLOCK_DRAWS = 2**19


def weighted_mean(
    values: np.ndarray, classes: np.ndarray, weights: np.ndarray, strata: np.ndarray
) -> np.ndarray:
    """``sum(w v) / sum(w)``: every query counts the same (micro average)."""
    total = np.broadcast_to(weights, np.broadcast_shapes(weights.shape, values.shape)).sum(axis=1)
    return (weights * values).sum(axis=1) / total


def weighted_median(
    values: np.ndarray, classes: np.ndarray, weights: np.ndarray, strata: np.ndarray
) -> np.ndarray:
    """Median of the values, each repeated ``weights`` times; two middle values are averaged."""
    shape = np.broadcast_shapes(values.shape, weights.shape)
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.broadcast_to(np.take_along_axis(values, order, axis=1), shape)
    if order.shape[0] == 1:
        sorted_weights = np.broadcast_to(weights[:, order[0]], shape)
    else:
        sorted_weights = np.take_along_axis(np.broadcast_to(weights, shape), order, axis=1)
    passed = np.cumsum(sorted_weights, axis=1)
    half = passed[:, -1:] / 2
    rows = np.arange(shape[0])
    lower = ordered[rows, (passed >= half).argmax(axis=1)]
    upper = ordered[rows, (passed > half).argmax(axis=1)]
    return (lower + upper) / 2


def macro_mean(
    values: np.ndarray, classes: np.ndarray, weights: np.ndarray, strata: np.ndarray
) -> np.ndarray:
    """Mean over classes of the mean within a class: every true stimulus counts the same.

    A class that a replicate never drew is left out of that replicate's mean.
    """
    shape = np.broadcast_shapes(values.shape, classes.shape, weights.shape)
    n_classes = int(classes.max()) + 1
    cell = np.arange(shape[0])[:, None] * n_classes + classes
    cell = np.broadcast_to(cell, shape).ravel()
    weights = np.broadcast_to(weights, shape)
    size = shape[0] * n_classes
    total = np.bincount(cell, (weights * values).ravel(), size).reshape(shape[0], n_classes)
    count = np.bincount(cell, weights.ravel(), size).reshape(shape[0], n_classes)
    drawn = count > 0
    return (total / np.where(drawn, count, 1)).sum(axis=1) / drawn.sum(axis=1)


def stratified_auc(
    values: np.ndarray, classes: np.ndarray, weights: np.ndarray, strata: np.ndarray
) -> np.ndarray:
    """Area under the ROC curve, pairs being formed within a stratum (fold and person) only.

    ``AUC = sum_s U_s / sum_s n1_s n0_s`` with Mann-Whitney's ``U_s = #(v1 > v0) + #(v1 = v0) / 2``:
    the mean of the strata's AUCs, weighted by their numbers of pairs. Scores of different folds
    come from different decoders and are never compared.

    Parameters
    ----------
    values : (1, n) decision values, larger for class 1
    classes : (b, n) or (1, n) of 0 and 1

    Returns
    -------
    (b,) ; NaN for a replicate without a pair
    """
    shape = np.broadcast_shapes(classes.shape, weights.shape)
    positive = np.broadcast_to(weights * (classes == 1), shape).astype(float)
    negative = np.broadcast_to(weights * (classes == 0), shape).astype(float)
    wins, pairs = np.zeros(shape[0]), np.zeros(shape[0])
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        _, tie, = np.unique(values[0, rows], return_inverse=True)  # fmt: skip
        order = np.argsort(tie, kind="stable")
        first = np.flatnonzero(np.diff(tie[order], prepend=-1))
        pos = np.add.reduceat(positive[:, rows[order]], first, axis=1)
        neg = np.add.reduceat(negative[:, rows[order]], first, axis=1)
        below = np.cumsum(neg, axis=1) - neg
        wins += (pos * (below + neg / 2)).sum(axis=1)
        pairs += pos.sum(axis=1) * neg.sum(axis=1)
    return np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1), np.nan)


def resample(
    n: int, n_replicates: int, rng: np.random.Generator, units: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """How often each of ``n`` queries is drawn, in blocks of bootstrap replicates.

    Without ``units``, ``n`` queries are drawn with replacement. With units (the run, person or
    stimulus of each query), units are drawn with replacement and then, within each drawn unit,
    as many queries as it has (the hierarchical bootstrap of Saravanan et al. 2020).

    Parameters
    ----------
    n : int
    n_replicates : int
    rng : numpy Generator
    units : (n,) int codes, optional

    Yields
    ------
    (b, n) float64 counts
    """
    members = None
    if units is not None:
        members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    for size in _block_sizes(n, n_replicates):
        if members is None:
            yield rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float)
            continue
        drawn = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=size)
        counts = np.zeros((size, n))
        for unit, rows in enumerate(members):
            share = np.full(len(rows), 1 / len(rows))
            counts[:, rows] = rng.multinomial(drawn[:, unit] * len(rows), share)
        yield counts


def interval(draws: np.ndarray, level: float) -> tuple[float, float]:
    """Percentile interval of bootstrap ``draws``; replicates without a value (NaN) are left out."""
    kept = draws[np.isfinite(draws)]
    if not len(kept):
        return np.nan, np.nan
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def exchange(
    label: np.ndarray,
    group: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
    together: bool,
    shift: bool = False,
) -> Iterator[np.ndarray]:
    """True stimuli exchanged among the queries of each group; predictions stay what they are.

    With ``together``, the *stimuli* of a group are exchanged: queries that showed the same stimulus
    get the same other one (for splits by stimulus, where repetitions are not independent).
    Otherwise the labels of a group's queries are shuffled (within a run), or with ``shift`` moved
    on by a random number of queries, the last ones coming first: that keeps their order, and with
    it what slow drifts and blocks of equal stimuli could feign (few queries have few shifts).

    Parameters
    ----------
    label : (n,) int, numbered 0.. within each group
    group : (n,) int
    n_permutations : int
    rng : numpy Generator
    together : bool
    shift : bool, without ``together``; queries of a group in the order of time

    Yields
    ------
    (b, n) int labels
    """
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    for size in _block_sizes(len(label), n_permutations):
        drawn = np.empty((size, len(label)), np.int64)
        for rows in members:
            own = label[rows]
            if together:
                orders = np.tile(np.arange(own.max() + 1), (size, 1))
                drawn[:, rows] = rng.permuted(orders, axis=1)[:, own]
            elif shift:
                start = rng.integers(0, len(own), (size, 1))
                drawn[:, rows] = own[(np.arange(len(own)) - start) % len(own)]
            else:
                drawn[:, rows] = rng.permuted(np.tile(own, (size, 1)), axis=1)
        yield drawn


def permutation_p(observed: float, null: np.ndarray, larger_is_better: bool = True) -> float:
    """``(1 + #(null at least as good as observed)) / (1 + N)``; NaN when nothing was observed.

    Values that differ by rounding only (1e-12 of their size) count as equal.
    """
    if not np.isfinite(observed) or not len(null):
        return np.nan
    sign = 1.0 if larger_is_better else -1.0
    slack = 1e-12 * max(abs(observed), float(np.nanmax(np.abs(null), initial=0.0)))
    as_good = np.count_nonzero(~(sign * null < sign * observed - slack))
    return (1 + as_good) / (1 + len(null))


def _block_sizes(n: int, total: int) -> Iterator[int]:
    size = max(1, _BLOCK_DRAWS // max(n, 1))
    for start in range(0, total, size):
        yield min(size, total - start)
