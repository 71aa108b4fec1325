"""Retrieval: where the true stimulus ranks among candidates, by cosine similarity.

Ties count half: ``rank = 1 + n_greater + n_equal_others / 2``. A model that gives every candidate
the same score is therefore exactly at chance, neither at 1 nor at 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import DataError

# Scores held at once: 16 MiB of float32, whatever the number of queries.
_BLOCK_SCORES = 2**22


@dataclass(frozen=True)
class Retrieval:
    """Result of :func:`retrieve`, one row per query.

    Attributes
    ----------
    greater : (n,) int32
        Candidates that score above the true one.
    ties : (n,) int32
        Candidates that score as the true one does, itself included (1 or more).
    score : (n,) float32
        Cosine similarity of the prediction and its true candidate.
    top_ids : (n, k) object
        Best candidates, best first; equal scores in the order of the candidates.
    top_scores : (n, k) float32
    n_candidates : int
        Candidates after de-duplication by id.
    """

    greater: np.ndarray
    ties: np.ndarray
    score: np.ndarray
    top_ids: np.ndarray
    top_scores: np.ndarray
    n_candidates: int

    @property
    def rank(self) -> np.ndarray:
        """(n,) mid-ranks from 1 (best) to ``n_candidates``."""
        return mid_rank(self.greater, self.ties)

    def top_k(self, k: int) -> np.ndarray:
        """(n,) probability that the true candidate is among the best ``k``."""
        return top_k_probability(self.greater, self.ties, k)

    @property
    def normalized_rank(self) -> np.ndarray:
        """(n,) ``(rank - 1) / (n_candidates - 1)``: 0 best, 0.5 chance, 1 worst."""
        return normalized_rank(self.greater, self.ties, self.n_candidates)


def mid_rank(greater: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """``1 + greater + (ties - 1) / 2``: mean rank over all orders of the tied candidates."""
    return 1 + np.asarray(greater, float) + (np.asarray(ties, float) - 1) / 2


def top_k_probability(greater: np.ndarray, ties: np.ndarray, k: int) -> np.ndarray:
    """``clip((k - greater) / ties, 0, 1)``: chance to be among the best k when ties are shuffled.

    Parameters
    ----------
    greater, ties : int arrays of equal shape
        As in :class:`Retrieval`; ``ties`` counts the true candidate too.
    k : int
    """
    return np.clip((k - np.asarray(greater, float)) / np.asarray(ties, float), 0.0, 1.0)


def normalized_rank(
    greater: np.ndarray, ties: np.ndarray, n_candidates: int | np.ndarray
) -> np.ndarray:
    """``(rank - 1) / (n_candidates - 1)``; NaN where there is one candidate only."""
    others = np.asarray(n_candidates, float) - 1
    return (mid_rank(greater, ties) - 1) / np.where(others > 0, others, np.nan)


class CandidateSet:
    """Candidates, de-duplicated by id and normalised to unit length.

    Candidates whose embeddings are equal share one row of ``unit``, so their scores are equal to
    the last bit; a matrix product alone does not guarantee that.

    Parameters
    ----------
    candidates : (m, f) array
    ids : (m,) sequence of str
        Content ids. A repeated id is one candidate.

    Raises
    ------
    DataError
        NaN or infinity in a candidate; lengths that differ; an id with two unequal embeddings.
    """

    def __init__(self, candidates: np.ndarray, ids: Sequence[str]) -> None:
        candidates = _matrix(candidates, "candidates")
        if len(candidates) != len(ids):
            raise DataError(
                "candidates and their ids differ in number",
                expected=f"{len(candidates)} ids",
                found=f"{len(ids)}",
            )
        _check_finite(candidates, "candidates")
        self.ids, kept = _unique_ids(candidates, ids)
        self.position = {name: i for i, name in enumerate(self.ids)}
        unit = _unit_rows(candidates[kept])
        rows = np.ascontiguousarray(unit).view(np.dtype((np.void, unit.itemsize * unit.shape[1])))
        _, first, self.row = np.unique(rows.ravel(), return_index=True, return_inverse=True)
        self.unit = unit[first]

    def __len__(self) -> int:
        return len(self.ids)

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """(n, m) float32 cosine similarities; 0 where either vector is zero."""
        if predictions.shape[1] != self.unit.shape[1]:
            raise DataError(
                "predictions and candidates have different numbers of features",
                expected=f"{self.unit.shape[1]} (candidates)",
                found=f"{predictions.shape[1]} (predictions)",
            )
        scores = _unit_rows(predictions) @ self.unit.T
        return scores[:, self.row]

    def index(self, ids: Sequence[str]) -> np.ndarray:
        """(n,) positions of ``ids`` among the candidates; DataError for one that is missing."""
        missing = sorted({str(i) for i in ids} - set(self.position))
        if missing:
            raise DataError(
                "true stimuli are not among the candidates",
                expected="every true stimulus is a candidate",
                found=f"{len(missing)} missing: {_shown(missing)}",
                remedy='evaluate with candidates = "all", or embed these stimuli too',
            )
        return np.array([self.position[str(i)] for i in ids], dtype=np.int64)


def retrieve(
    predictions: np.ndarray,
    candidates: np.ndarray,
    true: Sequence[str],
    candidate_ids: Sequence[str],
    *,
    k: int = 5,
    block: int | None = None,
) -> Retrieval:
    """Rank candidates for every prediction by cosine similarity.

    ``score[q, c] = <p_q, e_c> / (|p_q| |e_c|)``, ``rank = 1 + #greater + #equal others / 2``.

    Parameters
    ----------
    predictions : (n, f) array
        One predicted embedding per query. A zero vector ties all candidates.
    candidates : (m, f) array
        Embeddings of the candidates.
    true : (n,) sequence of str
        Id of the true candidate of each query.
    candidate_ids : (m,) sequence of str
        Content ids; a repeated id counts as one candidate.
    k : int
        Length of the lists of best candidates (at most the number of candidates).
    block : int, optional
        Queries scored at once; default: as many as fit in 16 MiB of scores.

    Returns
    -------
    Retrieval

    Raises
    ------
    DataError
        NaN or infinity (rows are named), unequal numbers of features or rows, a true id that is
        no candidate, one id with two embeddings.

    Notes
    -----
    All candidates are scored (no approximate search); memory is bounded by ``block``.
    """
    predictions = _matrix(predictions, "predictions")
    if len(predictions) != len(true):
        raise DataError(
            "predictions and true stimuli differ in number",
            expected=f"{len(predictions)} true ids",
            found=f"{len(true)}",
        )
    found = CandidateSet(candidates, candidate_ids)
    index = found.index(true)
    k = min(k, len(found))
    n = len(predictions)
    greater, ties = np.zeros(n, np.int32), np.ones(n, np.int32)
    score = np.zeros(n, np.float32)
    top_ids, top_scores = np.empty((n, k), object), np.zeros((n, k), np.float32)
    for rows in blocks(n, len(found), block):
        _check_finite(predictions[rows], "predictions", rows.start)
        scores = found.scores(predictions[rows])
        above, equal = placements(scores, index[rows, None])
        greater[rows], ties[rows] = above[:, 0], equal[:, 0]
        score[rows] = np.take_along_axis(scores, index[rows, None], axis=1)[:, 0]
        best, top_scores[rows] = best_candidates(scores, k)
        top_ids[rows] = found.ids[best]
    return Retrieval(greater, ties, score, top_ids, top_scores, len(found))


def blocks(n: int, m: int, block: int | None = None) -> Iterator[slice]:
    """Slices of ``n`` queries whose scores against ``m`` candidates fit in memory."""
    size = max(1, _BLOCK_SCORES // max(m, 1)) if block is None else max(1, block)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def placements(scores: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many candidates score above, and equal to, chosen candidates of each query.

    Parameters
    ----------
    scores : (n, m) array
    columns : (n, c) int array
        Candidates to be placed, per query.

    Returns
    -------
    greater, ties : (n, c) int32
        ``ties`` includes the candidate itself.
    """
    chosen = np.take_along_axis(scores, columns, axis=1)
    greater = np.empty(columns.shape, np.int32)
    ties = np.empty(columns.shape, np.int32)
    if columns.shape[1] <= 4:
        for j in range(columns.shape[1]):
            greater[:, j] = (scores > chosen[:, j, None]).sum(axis=1)
            ties[:, j] = (scores == chosen[:, j, None]).sum(axis=1)
        return greater, ties
    ordered = np.sort(scores, axis=1)
    for i, row in enumerate(ordered):
        right = np.searchsorted(row, chosen[i], side="right")
        greater[i] = len(row) - right
        ties[i] = right - np.searchsorted(row, chosen[i], side="left")
    return greater, ties


def best_candidates(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best columns of every row, and their scores; equal scores by column number.

    Parameters
    ----------
    scores : (n, m) array
    k : int, at most m
    """
    left = scores.copy()
    rows = np.arange(len(left))
    best = np.empty((len(left), k), np.int64)
    for j in range(k):
        best[:, j] = left.argmax(axis=1)
        left[rows, best[:, j]] = -np.inf
    return best, np.take_along_axis(scores, best, axis=1)


def _matrix(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(
            f"{what} must be a matrix", expected=f"({what}, features)", found=str(values.shape)
        )
    return values


def _check_finite(values: np.ndarray, what: str, offset: int = 0) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1)) + offset
    if len(bad):
        raise DataError(
            f"NaN or infinity in {what}",
            expected="finite numbers",
            found=f"{len(bad)} such rows: {_shown([str(i) for i in bad])}",
            remedy="look at the training log of this decoder, or at the embedding",
        )


def _unique_ids(candidates: np.ndarray, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    first: dict[str, int] = {}
    for i, name in enumerate(map(str, ids)):
        kept = first.setdefault(name, i)
        if kept != i and not np.array_equal(candidates[kept], candidates[i]):
            raise DataError(
                "one candidate id has two embeddings",
                expected=f"rows {kept} and {i} are equal: both are {name}",
                found="different numbers",
            )
    return np.array(list(first), dtype=object), np.array(list(first.values()), dtype=np.int64)


def _unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows of unit length in float32; zero rows stay zero.

    Computed in float64 and rounded, so that a vector and its multiples become equal.
    """
    values = np.asarray(values, np.float64)
    peak = np.abs(values).max(axis=1, initial=0.0, keepdims=True)
    scaled = values / np.where(peak > 0, peak, 1.0)
    norm = np.sqrt((scaled**2).sum(axis=1, keepdims=True))
    # Adding 0.0 turns -0.0 into 0.0: equal vectors must have equal bytes.
    return (scaled / np.where(norm > 0, norm, 1.0)).astype(np.float32) + np.float32(0.0)


def _shown(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
