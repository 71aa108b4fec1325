"""Ranks among very many candidates, exact and in bounded memory.

A float32 product of tiles (candidates x queries) decides almost every comparison; its rounding
error is bounded, and the few scores nearer to the true one than that bound are computed again in
float64. The ranks are therefore those of ``CandidateSet.scores``, whatever the tile or the BLAS.

A tile is compared and counted while caches still hold it, and each thread works on queries of its
own with a BLAS of one thread, so that no core waits while another one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread

import numpy as np
from threadpoolctl import ThreadpoolController

from braindecode_pipe.evaluate.candidates import CandidateSet, check_finite, unit_rows

# 2000 candidates x 1000 queries: 8 MB of scores, and a product that is large enough to be fast.
_TILE_CANDIDATES, _TILE_QUERIES = 2000, 1000
# Scores kept beyond the asked number of best ones, so that rounding cannot push one out.
_SPARE = 8
# Above this share of undecided scores a tile is computed in float64 as a whole.
_MANY = 1 / 64
# Sums of up to 255 truth values fit in a byte.
_BYTE_ROWS = 255
_BLOCK_PAIRS = 4096


@dataclass(frozen=True)
class Placed:
    """Rows of the result for the queries of one block: see ``Retrieval``."""

    greater: np.ndarray
    ties: np.ndarray
    score: np.ndarray
    best: np.ndarray
    best_scores: np.ndarray


def place(
    found: CandidateSet,
    predictions: np.ndarray,
    truth: np.ndarray,
    k: int,
    block: int | None = None,
) -> list[Placed]:
    """Place the true candidate of every query; blocks of queries, in their order.

    Parameters
    ----------
    found : CandidateSet
    predictions : (n, f) array
    truth : (n,) int, position of the true candidate
    k : number of best candidates to list
    block : queries at once; default 1000

    Raises
    ------
    DataError
        NaN or infinity in ``predictions``, with the rows.

    Notes
    -----
    Memory beyond the arguments: ``threads x block x (20 bytes x 2000 + 12 bytes x features)``.
    """
    found.check_features(predictions)
    size = _TILE_QUERIES if block is None else max(1, block)
    parts = [slice(start, start + size) for start in range(0, len(predictions), size)]
    blas = ThreadpoolController().select(user_api="blas")
    n_threads = max((library["num_threads"] for library in blas.info()), default=1)

    def work(rows: slice) -> Placed:
        check_finite(predictions[rows], "predictions", rows.start)
        return _Block(found, unit_rows(predictions[rows]), truth[rows], k).placed()

    if min(n_threads, len(parts)) <= 1:
        return [work(rows) for rows in parts]
    with blas.limit(limits=1):
        return _in_threads(work, parts, min(n_threads, len(parts)))


def rounding_bound(n_features: int) -> float:
    """Error that a float32 product of unit vectors stays below: ``(4 sqrt(f) + 2) 2^-24``.

    Partial sums of unit vectors are at most 1, so each of the ``f`` additions rounds by at most
    ``u = 2^-24``; independent roundings add up to ``lambda sqrt(f) u`` with probability
    ``1 - 2 exp(-lambda^2 / 2)`` and smaller sums to much less (Higham & Mary 2019, Theorem 2.4).
    Two more ``u`` are the rounding of both scores that are compared.
    """
    return (4 * np.sqrt(n_features) + 2) * 2.0**-24


def _in_threads(
    work: Callable[[slice], Placed], parts: Sequence[slice], n_threads: int
) -> list[Placed]:
    """``work`` on all parts; the error of the earliest part that failed is raised."""
    found: dict[int, Placed] = {}
    errors: dict[int, BaseException] = {}
    stop = Event()

    def loop(first: int) -> None:
        for i in range(first, len(parts), n_threads):
            if stop.is_set():
                return
            try:
                found[i] = work(parts[i])
            except BaseException as error:
                errors[i] = error
                return

    threads = [Thread(target=loop, args=(first,)) for first in range(n_threads)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        stop.set()
    if errors:
        raise errors[min(errors)]
    return [found[i] for i in range(len(parts))]


class _Block:
    """Counts of one block of queries, tile after tile."""

    def __init__(self, found: CandidateSet, queries: np.ndarray, truth: np.ndarray, k: int) -> None:
        self.found, self.queries = found, queries
        self.row = found.row[truth]
        self.own = self._scores(self.row, np.arange(len(queries)))
        bound = np.float32(rounding_bound(queries.shape[1]))
        self.low, self.high = self.own - bound, self.own + bound
        self.greater = np.zeros(len(queries), np.int64)
        self.ties = found.n_copies[self.row].astype(np.int64)
        self.best = _Best(len(queries), k + _SPARE if k else 0)
        self.k = k

    def placed(self) -> Placed:
        size = min(_TILE_CANDIDATES, len(self.found.unit))
        buffer = np.empty((size, len(self.queries)), np.float32)
        above, near = (np.empty(buffer.shape, bool) for _ in range(2))
        for start in range(0, len(self.found.unit), size):
            rows = slice(start, min(start + size, len(self.found.unit)))
            n = rows.stop - start
            self._tile(rows, buffer[:n], above[:n], near[:n])
        return Placed(self.greater, self.ties, self.own, *self._lists())

    def _tile(
        self, rows: slice, scores: np.ndarray, above: np.ndarray, near: np.ndarray
    ) -> None:  # fmt: skip
        np.matmul(self.found.unit[rows], self.queries.T, out=scores)
        np.greater(scores, self.high, out=above)
        np.greater_equal(scores, self.low, out=near)
        np.not_equal(above, near, out=near)
        if np.count_nonzero(near) > _MANY * near.size:
            self._exact_tile(rows, scores, above, near)
        else:
            pairs, query = np.divmod(np.flatnonzero(near), scores.shape[1])
            self._decide(pairs + rows.start, query)
        self.greater += _column_sums(above, self.found.n_copies[rows])
        if self.best.size:
            self.best.update(scores, rows.start)

    def _exact_tile(
        self, rows: slice, scores: np.ndarray, above: np.ndarray, near: np.ndarray
    ) -> None:
        """The whole tile in float64: where embeddings have collapsed, most scores are near."""
        unit = self.found.unit[rows].astype(float)
        for start in range(0, scores.shape[1], 256):
            own = slice(start, start + 256)
            scores[:, own] = unit @ self.queries[own].T.astype(float)
        inside = (self.row >= rows.start) & (self.row < rows.stop)
        scores[self.row[inside] - rows.start, np.flatnonzero(inside)] = self.own[inside]
        np.greater(scores, self.own, out=above)
        np.equal(scores, self.own, out=near)
        copies = self.found.n_copies[rows]
        self.ties += _column_sums(near, copies)
        self.ties[inside] -= copies[self.row[inside] - rows.start]

    def _decide(self, row: np.ndarray, query: np.ndarray) -> None:
        """Compare in float64 what float32 leaves open; the true candidate itself is counted."""
        other = row != self.row[query]
        row, query = row[other], query[other]
        scores, own, copies = self._scores(row, query), self.own[query], self.found.n_copies[row]
        n = len(self.queries)
        self.greater += np.bincount(query, copies * (scores > own), n).astype(np.int64)
        self.ties += np.bincount(query, copies * (scores == own), n).astype(np.int64)

    def _scores(self, row: np.ndarray, query: np.ndarray) -> np.ndarray:
        """(p,) float32 scores of pairs, as ``CandidateSet.scores`` defines them."""
        found = np.empty(len(row), np.float32)
        for start in range(0, len(row), _BLOCK_PAIRS):
            part = slice(start, start + _BLOCK_PAIRS)
            a = self.found.unit[row[part]].astype(float)
            found[part] = np.einsum("pf,pf->p", a, self.queries[query[part]].astype(float))
        return found

    def _lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions and scores of the best ``k`` candidates; equal scores by position."""
        n, k = len(self.queries), self.k
        best, scores = np.zeros((n, k), np.int64), np.zeros((n, k), np.float32)
        if not k:
            return best, scores
        row = self.best.row
        exact = self._scores(row.ravel(), np.repeat(np.arange(n), row.shape[1])).reshape(row.shape)
        if len(self.found.unit) == len(self.found):
            order = np.lexsort((row, -exact))[:, :k]
            return np.take_along_axis(row, order, 1), np.take_along_axis(exact, order, 1)
        members = _members(self.found.row, k)
        for q in range(n):
            pairs = [(-s, c) for s, r in zip(exact[q], row[q]) for c in members[r]]
            for j, (score, candidate) in enumerate(sorted(pairs)[:k]):
                best[q, j], scores[q, j] = candidate, -score
        return best, scores


class _Best:
    """The best ``size`` rows of every query so far."""

    def __init__(self, n: int, size: int) -> None:
        self.size = size
        self.score = np.empty((n, 0), np.float32)
        self.row = np.empty((n, 0), np.int64)

    def update(self, scores: np.ndarray, offset: int) -> None:
        """Take in a tile (candidates, queries) whose first row is ``offset``."""
        n, held = self.score.shape
        if held < self.size:
            # Not yet full: the worst of a tile's own best ones is what can get in.
            worst = len(scores) - min(self.size, len(scores))
            least = np.partition(scores, worst, axis=0)[worst]
            place = np.flatnonzero(scores >= least)
        else:
            place = np.flatnonzero(scores > self.score[:, -1])
        if len(place):
            row, query = np.divmod(place, n)
            self._merge(query, scores.ravel()[place], row + offset)

    def _merge(self, query: np.ndarray, score: np.ndarray, row: np.ndarray) -> None:
        """Sort the new entries into the lists of their queries; earlier rows win ties."""
        touched, local = np.unique(query, return_inverse=True)
        held = self.score.shape[1]
        all_query = np.concatenate([np.repeat(np.arange(len(touched)), held), local])
        all_score = np.concatenate([self.score[touched].ravel(), score])
        all_row = np.concatenate([self.row[touched].ravel(), row])
        order = np.lexsort((all_row, -all_score, all_query))
        first = np.searchsorted(all_query[order], np.arange(len(touched)))
        size = min(self.size, int(np.diff(np.append(first, len(order))).min()))
        take = order[first[:, None] + np.arange(size)]
        if size != held:
            self.score = np.empty((len(self.score), size), np.float32)
            self.row = np.empty(self.score.shape, np.int64)
        self.score[touched], self.row[touched] = all_score[take], all_row[take]


def _column_sums(mask: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,) int64 ``weights @ mask`` of truth values (rows, n), with bytes as counters."""
    total = np.zeros(mask.shape[1], np.int64)
    bits = mask.view(np.uint8)
    for start in range(0, len(bits), _BYTE_ROWS):
        total += np.add.reduce(bits[start : start + _BYTE_ROWS], axis=0, dtype=np.uint8)
    repeated = np.flatnonzero(weights > 1)
    if len(repeated):
        total += (weights[repeated] - 1) @ mask[repeated].astype(np.int64)
    return total


def _members(row: np.ndarray, k: int) -> list[np.ndarray]:
    """The first ``k`` candidates of every row of ``unit``."""
    order = np.argsort(row, kind="stable")
    return [part[:k] for part in np.split(order, np.cumsum(np.bincount(row))[:-1])]


def join(parts: Sequence[Placed], name: str, width: int | None = None) -> np.ndarray:
    """One field of all blocks, one after the other."""
    if parts:
        return np.concatenate([getattr(part, name) for part in parts])
    return np.zeros((0,) if width is None else (0, width))
