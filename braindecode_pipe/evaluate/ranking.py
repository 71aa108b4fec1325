"""Scores of single queries from the place of what is right, averaged over all orders of ties.

``greater`` counts candidates that score above the true one and ``ties`` those that score as it
does, itself included. The true candidate is then at each of the places ``greater ... greater +
ties - 1`` (from 0) equally often, so any function of the place has the mean over these places.
"""

from __future__ import annotations

import numpy as np

from braindecode_pipe.errors import DataError


def over_ties(by_place: np.ndarray, greater: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """``sum(by_place[greater : greater + ties]) / ties``.

    Parameters
    ----------
    by_place : (m,) value of a query whose true candidate is at place 0, 1, ...
    greater, ties : int arrays of equal shape
    """
    total = np.concatenate([[0.0], np.cumsum(by_place)])
    return (total[greater + ties] - total[greater]) / ties


def by_number(function, greater: np.ndarray, ties: np.ndarray, n_candidates: np.ndarray):
    """:func:`over_ties` with ``by_place = function(m)``, m being that of each query.

    Parameters
    ----------
    function : number of candidates m -> (m,) values by place
    greater, ties : (..., n) int
    n_candidates : (n,) int
    """
    found = np.empty(np.broadcast_shapes(greater.shape, ties.shape))
    for m in np.unique(n_candidates):
        own = n_candidates == m
        found[..., own] = over_ties(function(int(m)), greater[..., own], ties[..., own])
    return found


def reciprocal(m: int) -> np.ndarray:
    """(m,) ``1 / rank``; its mean is the chance value of the mean reciprocal rank."""
    return 1.0 / np.arange(1, m + 1)


def k_way(m: int, k: int, top: int) -> np.ndarray:
    """(m,) probability to be among the best ``top`` of ``k`` candidates, by place among all ``m``.

    The true candidate and ``k - 1`` others drawn without replacement; a candidate at place ``a``
    has ``G ~ Hypergeometric(m - 1, a, k - 1)`` of them above it, and the value is
    ``P(G <= top - 1)``. This is the limit of ever more draws.
    """
    from scipy.stats import hypergeom

    return hypergeom.cdf(top - 1, m - 1, np.arange(m), k - 1)


def k_way_draws(
    greater: np.ndarray,
    ties: np.ndarray,
    n_candidates: np.ndarray,
    k: int,
    top: int,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(draws,) share of queries among the best ``top`` when each draws its own distractors.

    Parameters
    ----------
    greater, ties, n_candidates : (n,) int
    """
    shape = (draws, len(greater))
    place = greater + rng.integers(0, np.broadcast_to(ties, shape))
    above = rng.hypergeometric(place, np.broadcast_to(n_candidates - 1, shape) - place, k - 1)
    return (above < top).mean(axis=1)


def pool_draws(
    scores: np.ndarray, true: np.ndarray, pools: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the true candidates within sampled pools that all queries share.

    Parameters
    ----------
    scores : (n, m)
    true : (n,) int, position of the true candidate
    pools : (d, k) int, positions of the candidates of each draw

    Returns
    -------
    greater, ties : (n, d) int32
        ``ties`` is 0 for a query whose true candidate is not in the pool: it is not asked.
    """
    greater = np.zeros((len(scores), len(pools)), np.int32)
    ties = np.zeros_like(greater)
    own = scores[np.arange(len(scores)), true]
    for d, pool in enumerate(pools):
        asked = np.flatnonzero(np.isin(true, pool))
        part = scores[np.ix_(asked, pool)]
        greater[asked, d] = (part > own[asked, None]).sum(axis=1)
        ties[asked, d] = (part == own[asked, None]).sum(axis=1)
    return greater, ties


def average_precision(scores: np.ndarray, code: np.ndarray, n_codes: int) -> np.ndarray:
    """Average precision of every group of right candidates: (n, n_codes).

    ``AP = mean over right candidates of (right ones at or above it) / rank``, for several right
    candidates per query; mAP is its mean over queries. With ties it is the mean over all orders: a
    block of ``t`` tied candidates, ``r`` of them right, after ``g`` candidates with ``R`` right
    ones adds ``sum_i (r / t) (R + 1 + (i - 1)(r - 1) / (t - 1)) / (g + i)`` over ``i = 1 ... t``
    (McSherry & Najork 2008, section 3).

    Parameters
    ----------
    scores : (n, m)
    code : (m,) int, group of every candidate
    n_codes : number of groups; NaN for one without a candidate
    """
    n, m = scores.shape
    found = np.full((n, n_codes), np.nan)
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    # Places of the candidates, code after code: every row has the same number of each code.
    place = np.argsort(code[order], axis=1, kind="stable")
    present, first, count = np.unique(np.sort(code), return_index=True, return_counts=True)
    number = np.arange(m) - np.repeat(first, count) + 1
    found[:, present] = np.add.reduceat(number / (place + 1), first, axis=1) / count
    member = (code[:, None] == present).astype(float)
    for i in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1)):
        found[i, present] = _precision_with_ties(ordered[i], member[order[i]])
    return found


def chance_precision(n_right: np.ndarray, m: int) -> np.ndarray:
    """Expected average precision of a random order of ``m`` candidates, ``n_right`` being right."""
    n_right = np.asarray(n_right, float)[..., None]
    i = np.arange(1, m + 1)
    return ((1 + (n_right - 1) * (i - 1) / max(m - 1, 1)) / i).sum(axis=-1) / m


def top_k_of_several(scores: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """(n,) probability that one of several right candidates is among the best ``k``.

    The best right one has ``g`` candidates above it and is tied with ``t``, ``r`` of them right:
    ``1 - C(t - r, k - g) / C(t, k - g)``.

    Parameters
    ----------
    scores : (n, m)
    right : (n, m) bool, at least one per row

    Raises
    ------
    DataError
        NaN in scores, or a query without a right candidate.
    """
    from scipy.special import comb

    right = np.asarray(right, bool)
    if not np.isfinite(scores).all() or not right.any(axis=1).all():
        raise DataError(
            "queries cannot be scored",
            expected="finite scores, and a right candidate for every query",
            found=f"{np.count_nonzero(~np.isfinite(scores))} scores that are not finite, "
            f"{np.count_nonzero(~right.any(axis=1))} queries without a right candidate",
        )
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    greater, ties = (scores > best).sum(axis=1), (scores == best).sum(axis=1)
    among = ((scores == best) & right).sum(axis=1)
    free = np.clip(k - greater, 0, ties)
    return 1 - comb(ties - among, free) / comb(ties, free)


def _precision_with_ties(ordered: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(c,) average precision of one query with scores (m,), best first, and ``right`` (m, c).

    ``sum_i 1 / (g + i) = a`` and ``sum_i (i - 1) / (g + i) = t - (g + 1) a`` over a block.
    """
    first = np.flatnonzero(np.diff(ordered, prepend=np.inf))
    t = np.diff(np.append(first, len(ordered)))
    inside = np.add.reduceat(right, first, axis=0)
    before = np.cumsum(inside, axis=0) - inside
    harmonic = np.concatenate([[0.0], np.cumsum(reciprocal(len(ordered)))])
    a = harmonic[first + t] - harmonic[first]
    b = (t - (first + 1) * a) / np.maximum(t - 1, 1)
    gain = (before + 1) * a[:, None] + (inside - 1) * b[:, None]
    return (inside / t[:, None] * gain).sum(axis=0) / right.sum(axis=0)
