"""Candidates of a retrieval: checked, free of duplicates, of unit length.

**The score** is the cosine of two vectors that were scaled to unit length and rounded to float32,
computed in float64 and rounded to float32. So it does not depend on blocks, threads or the kernels
of a BLAS, and two candidates tie where float32 cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from braindecode_pipe.errors import DataError

# Rows that are converted to float64 at once.
_BLOCK_ROWS = 4096


class CandidateSet:
    """Candidates, de-duplicated by id and scaled to unit length.

    Candidates whose embeddings have equal bytes share one row of ``unit``.

    Parameters
    ----------
    candidates : (m, f) array
    ids : (m,) sequence of str
        Content ids. A repeated id is one candidate.

    Attributes
    ----------
    ids : (c,) object, in the order of their first appearance
    position : id -> position in ``ids``
    unit : (u, f) float32, the different embeddings
    row : (c,) int, row of ``unit`` of every candidate
    n_copies : (u,) int, candidates of every row of ``unit``

    Raises
    ------
    DataError
        NaN or infinity in a candidate; lengths that differ; an id with two unequal embeddings.
    """

    def __init__(self, candidates: np.ndarray, ids: Sequence[str]) -> None:
        candidates = matrix(candidates, "candidates")
        if len(candidates) != len(ids):
            raise DataError(
                "candidates and their ids differ in number",
                expected=f"{len(candidates)} ids",
                found=f"{len(ids)}",
            )
        check_finite(candidates, "candidates")
        self.ids, kept = _unique_ids(candidates, ids)
        self.position = {name: i for i, name in enumerate(self.ids)}
        unit = np.empty((len(kept), candidates.shape[1]), np.float32)
        for start in range(0, len(kept), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            unit[rows] = unit_rows(candidates[kept[rows]])
        first: dict[bytes, int] = {}
        hashes = [blake2b(row, digest_size=16).digest() for row in unit]
        self.row = np.array([first.setdefault(h, len(first)) for h in hashes], np.int64)
        self.n_copies = np.bincount(self.row, minlength=len(first))
        if len(first) < len(unit):
            unit = unit[np.unique(self.row, return_index=True)[1]]
        self.unit = unit

    def __len__(self) -> int:
        return len(self.ids)

    def check_features(self, predictions: np.ndarray) -> None:
        """Raise :class:`DataError` where predictions have another number of features."""
        if predictions.shape[1] != self.unit.shape[1]:
            raise DataError(
                "predictions and candidates have different numbers of features",
                expected=f"{self.unit.shape[1]} (candidates)",
                found=f"{predictions.shape[1]} (predictions)",
            )

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """(n, m) float32 cosine similarities; 0 where either vector is zero."""
        self.check_features(predictions)
        queries = unit_rows(predictions).astype(np.float64)
        scores = np.empty((len(queries), len(self.unit)), np.float32)
        for start in range(0, len(self.unit), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            scores[:, rows] = queries @ self.unit[rows].T.astype(np.float64)
        return scores[:, self.row] if len(self.unit) < len(self) else scores

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


def matrix(values: np.ndarray, what: str) -> np.ndarray:
    """``values`` as an array with two axes and at least one feature; DataError otherwise."""
    values = np.asarray(values)
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(
            f"{what} must be a matrix", expected=f"({what}, features)", found=str(values.shape)
        )
    return values


def check_finite(values: np.ndarray, what: str, offset: int = 0) -> None:
    """Raise :class:`DataError` with the rows (from ``offset``) that hold NaN or infinity."""
    bad = []
    for start in range(0, len(values), _BLOCK_ROWS):
        finite = np.isfinite(values[start : start + _BLOCK_ROWS]).all(axis=1)
        bad += [str(i + start + offset) for i in np.flatnonzero(~finite)]
    if bad:
        raise DataError(
            f"NaN or infinity in {what}",
            expected="finite numbers",
            found=f"{len(bad)} such rows: {_shown(bad)}",
            remedy="look at the training log of this decoder, or at the embedding",
        )


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows of unit length in float32; zero rows stay zero.

    Computed in float64 and rounded, so that a vector and its multiples become equal.
    """
    values = np.asarray(values, np.float64)
    peak = np.abs(values).max(axis=1, initial=0.0, keepdims=True)
    scaled = values / np.where(peak > 0, peak, 1.0)
    norm = np.sqrt((scaled**2).sum(axis=1, keepdims=True))
    # Adding 0.0 turns -0.0 into 0.0: equal vectors must have equal bytes.
    return (scaled / np.where(norm > 0, norm, 1.0)).astype(np.float32) + np.float32(0.0)


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


def _shown(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
