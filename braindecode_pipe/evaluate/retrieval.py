"""Retrieval: where the true stimulus ranks among candidates, by cosine similarity.

Ties count half: ``rank = 1 + n_greater + n_equal_others / 2``. A model that gives every candidate
the same score is therefore exactly at chance, neither at 1 nor at 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.candidates import CandidateSet, matrix
from braindecode_pipe.evaluate.counting import join, place

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
        Queries scored at once by each thread; default 1000. It changes no number.

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
    All candidates are scored (no approximate search), and ranks are exact:
    :mod:`braindecode_pipe.evaluate.counting`. Memory is bounded by ``block``.
    """
    predictions = matrix(predictions, "predictions")
    if len(predictions) != len(true):
        raise DataError(
            "predictions and true stimuli differ in number",
            expected=f"{len(predictions)} true ids",
            found=f"{len(true)}",
        )
    found = CandidateSet(candidates, candidate_ids)
    k = min(k, len(found))
    parts = place(found, predictions, found.index(true), k, block)
    return Retrieval(
        join(parts, "greater").astype(np.int32),
        join(parts, "ties").astype(np.int32),
        join(parts, "score").astype(np.float32),
        found.ids[join(parts, "best", k).astype(np.int64)],
        join(parts, "best_scores", k).astype(np.float32),
        len(found),
    )


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
