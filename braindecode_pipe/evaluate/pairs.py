"""Pairs of left-out categories under every map from category to embedding, by Gram matrices."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np

MAX_MAPS = 5040
_BLOCK_MAPS = 256


@dataclass(frozen=True)
class PairWeights:
    """Weights of training categories in the prediction of every left-out test event.

    Attributes
    ----------
    weights : (n_rows, n_categories)
        Zero for the two categories that were left out.
    unit : (n_rows,) int
        Rows of one pair (and person) share a number.
    event : (n_rows,) int codes of test events
    true, other : (n_rows,) int
        Category of the event, and the other one of its pair.
    pairs : (n_units, 2) int
        The two categories of each unit.
    """

    weights: np.ndarray
    unit: np.ndarray
    event: np.ndarray
    true: np.ndarray
    other: np.ndarray
    pairs: np.ndarray

    def side_means(self, counts: np.ndarray | None = None) -> np.ndarray:
        """(b, n_units, 2, n_categories) mean weights of both categories of every unit.

        Parameters
        ----------
        counts : (b, n_events), how often each test event counts; default: once
        """
        if counts is None:
            counts = np.ones((1, int(self.event.max()) + 1))
        means = np.zeros((len(counts), len(self.pairs), 2, self.weights.shape[1]))
        for unit, pair in enumerate(self.pairs):
            for side, category in enumerate(pair):
                rows = np.flatnonzero((self.unit == unit) & (self.true == category))
                drawn = counts[:, self.event[rows]]
                total = drawn.sum(axis=1, keepdims=True)
                means[:, unit, side] = drawn @ self.weights[rows] / np.where(total > 0, total, 1)
        return means


def category_maps(n: int, seed: int) -> tuple[np.ndarray, bool]:
    """Maps from category to embedding, the true one first.

    Returns
    -------
    maps : (n_maps, n) int
        All ``n!`` for n <= 7, else the true one and 5040 random ones.
    exact : bool
        Whether all maps are there.
    """
    if factorial(n) <= MAX_MAPS:
        return np.array(list(permutations(range(n)))), True
    rng = np.random.default_rng([seed, 2])
    drawn = rng.permuted(np.tile(np.arange(n), (MAX_MAPS, 1)), axis=1)
    return np.concatenate([np.arange(n)[None], drawn]), False


def pair_outcomes(
    means: np.ndarray, pairs: np.ndarray, gram: np.ndarray, maps: np.ndarray
) -> np.ndarray:
    """Whether each pair is right (1), wrong (0) or tied (0.5), under every map.

    Parameters
    ----------
    means : (n_units, 2, n_categories) of :meth:`PairWeights.side_means`
    pairs : (n_units, 2) int
    gram : (n_categories, n_categories) inner products of the embeddings
    maps : (n_maps, n_categories) int

    Returns
    -------
    (n_maps, n_units)
    """
    found = np.empty((len(maps), len(pairs)))
    for start in range(0, len(maps), _BLOCK_MAPS):
        part = maps[start : start + _BLOCK_MAPS]
        own = _cosines(means[:, 0], gram, part, pairs[:, 0])
        own += _cosines(means[:, 1], gram, part, pairs[:, 1])
        own -= _cosines(means[:, 0], gram, part, pairs[:, 1])
        own -= _cosines(means[:, 1], gram, part, pairs[:, 0])
        found[start : start + _BLOCK_MAPS] = _right(own)
    return found


def event_outcomes(weights: PairWeights, gram: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """As :func:`pair_outcomes`, for every single test event: (n_maps, n_rows)."""
    found = np.empty((len(maps), len(weights.weights)))
    for start in range(0, len(maps), _BLOCK_MAPS):
        part = maps[start : start + _BLOCK_MAPS]
        margin = _cosines(weights.weights, gram, part, weights.true)
        margin -= _cosines(weights.weights, gram, part, weights.other)
        found[start : start + _BLOCK_MAPS] = _right(margin)
    return found


def _cosines(
    weights: np.ndarray, gram: np.ndarray, maps: np.ndarray, category: np.ndarray
) -> np.ndarray:
    """(n_maps, n_rows) cosines of ``weights[r] E`` with the embedding of ``category[r]``.

    Only inner products are needed: ``<w E, e_c> = (w G)_c`` and ``|w E|^2 = w G w'``.
    """
    mapped = gram[maps[:, :, None], maps[:, None, :]]
    inner = weights @ mapped
    square = np.clip((inner * weights).sum(axis=2), 0.0, None)
    own = np.take_along_axis(inner, category[None, :, None], axis=2)[:, :, 0]
    length = np.sqrt(square * mapped[:, category, category])
    # Rounding leaves a tiny square where the mixture vanishes: relative to its parts.
    parts = np.abs(weights) @ np.sqrt(np.diagonal(mapped, axis1=1, axis2=2)).T
    real = np.sqrt(square) > 1e-7 * parts.T
    return np.where(real & (length > 0), own / np.where(length > 0, length, 1.0), 0.0)


def _right(margin: np.ndarray) -> np.ndarray:
    """1 where positive, 0.5 where zero up to rounding (of cosines), 0 where negative."""
    return np.where(np.abs(margin) <= 1e-12, 0.5, margin > 0)
