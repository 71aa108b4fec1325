"""From predictions to scored queries: ranks for what is true and for all that it may swap with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.aggregation import Asked
from braindecode_pipe.evaluate.metrics import Queries
from braindecode_pipe.evaluate.protocols import Protocol
from braindecode_pipe.evaluate.ranking import average_precision, chance_precision, pool_draws
from braindecode_pipe.evaluate.retrieval import best_candidates, blocks, placements
from braindecode_pipe.evaluate.tasks import FoldTask, Scorer, cosine_scorer, prior_scorer

TOP = 5


@dataclass(frozen=True)
class ScoredFold:
    """Ranks of the queries of one decoder and fold; columns as in :class:`Queries`."""

    items: pd.DataFrame
    group: list[str]
    columns: dict[str, np.ndarray]
    label: np.ndarray
    greater: np.ndarray
    ties: np.ndarray
    n_candidates: int
    decision: np.ndarray | None = None
    same_category: np.ndarray | None = None
    category_chance: np.ndarray | None = None
    precision: np.ndarray | None = None
    precision_chance: np.ndarray | None = None
    pool_greater: np.ndarray | None = None
    pool_ties: np.ndarray | None = None
    confusion: np.ndarray | None = None


def draw_pools(n_candidates: int, protocol: Protocol, seed: int, fold: int) -> list[np.ndarray]:
    """For every ``n_way`` the candidates of every draw, (draws, k), where queries share them.

    Pools of more candidates than there are stay empty.
    """
    if protocol.pool != "shared":
        return []
    rng = np.random.default_rng([seed, 4, fold])
    return [
        np.array([rng.permutation(n_candidates)[:k] for _ in range(protocol.draws)])
        if k <= n_candidates
        else np.zeros((protocol.draws, 0), np.int64)
        for k in protocol.n_way
    ]


def score_fold(
    scorer: Scorer, task: FoldTask, asked: Asked, pools: Sequence[np.ndarray] = ()
) -> ScoredFold:
    """Rank the candidates for every query, for the true one and all that it may swap with.

    Parameters
    ----------
    scorer : slice of queries -> (n, m) scores
    task : FoldTask
    asked : Asked
    pools : of :func:`draw_pools`
    """
    n, m = len(asked.candidate), len(task.ids)
    position = {s: i for i, s in enumerate(task.ids)}
    columns, label = _columns(asked.candidate, asked.groups, position)
    width = max((len(c) for c in columns.values()), default=1)
    padded = {g: np.pad(c, (0, width - len(c))) for g, c in columns.items()}
    truth = np.array([position[s] for s in asked.candidate], dtype=np.int64)
    greater, ties = np.zeros((n, width), np.int32), np.ones((n, width), np.int32)
    codes = task.category
    same, precision = (None if codes is None else np.zeros((n, width), np.float32) for _ in "sp")
    decision = np.zeros(n) if m == 2 else None
    confusion = None if task.level is None else np.zeros((task.n_levels, task.n_levels))
    drawn = [tuple(np.zeros((n, len(p)), np.int32) for _ in "gt") for p in pools]
    k = min(TOP, m)
    best, best_scores = np.zeros((n, k), np.int64), np.zeros((n, k), np.float32)
    true_score = np.zeros(n, np.float32)
    for rows in blocks(n, m):
        scores = np.asarray(scorer(rows))
        where = np.stack([padded[g] for g in asked.groups[rows]])
        greater[rows], ties[rows] = placements(scores, where)
        best[rows], best_scores[rows] = best_candidates(scores, k)
        true_score[rows] = scores[np.arange(len(scores)), truth[rows]]
        winners = scores == scores.max(axis=1, keepdims=True)
        winners = winners / winners.sum(axis=1, keepdims=True)
        if codes is not None:
            share = _by_code(winners, codes)
            same[rows] = np.take_along_axis(share, codes[where], axis=1)
            found = average_precision(scores, codes, int(codes.max()) + 1)
            precision[rows] = np.take_along_axis(found, codes[where], axis=1)
        if decision is not None:
            decision[rows] = scores[:, 1].astype(float) - scores[:, 0]
        if confusion is not None:
            np.add.at(
                confusion, task.level[truth[rows]], _by_code(winners, task.level, task.n_levels)
            )
        for (above, equal), pool in zip(drawn, pools):
            above[rows], equal[rows] = pool_draws(scores, truth[rows], pool)
    items = asked.table.assign(
        stimulus=asked.candidate,
        rank=1 + greater[np.arange(n), label] + (ties[np.arange(n), label] - 1) / 2,
        n_candidates=m,
        score_true=true_score.astype(float),
    )
    for j in range(TOP):
        items[f"top{j + 1}"] = task.ids[best[:, j]] if j < k else ""
        items[f"score{j + 1}"] = best_scores[:, j].astype(float) if j < k else np.nan
    alike = None if codes is None else np.bincount(codes)[codes[truth]]
    return ScoredFold(
        items, asked.groups, {g: task.ids[c] for g, c in columns.items()}, label, greater, ties, m,
        decision, same, None if alike is None else alike / m,
        precision, None if alike is None else chance_precision(alike, m),
        np.stack([above for above, _ in drawn], axis=1) if drawn else None,
        np.stack([equal for _, equal in drawn], axis=1) if drawn else None,
        confusion,
    )  # fmt: skip


def score_backward(
    asked: Asked, task: FoldTask, vectors: np.ndarray | None, protocol: Protocol, seed: int
) -> list[ScoredFold]:
    """The other direction, per person: every stimulus looks for the response that it evoked.

    Parameters
    ----------
    asked : Asked
        One query per stimulus and person.
    vectors : (m, f) candidates of ``task``; None for the prior, which scores all alike

    Raises
    ------
    DataError
        A stimulus with several queries: which of them is right would be arbitrary.
    """
    subjects = asked.table["subject"].to_numpy()
    position = {s: i for i, s in enumerate(task.ids)}
    scored = []
    for subject in dict.fromkeys(subjects):
        rows = np.flatnonzero(subjects == subject)
        rows = rows[np.argsort([position[s] for s in asked.candidate[rows]], kind="stable")]
        ids = asked.candidate[rows]
        if len(set(ids)) < len(ids):
            raise DataError(
                "stimuli cannot look for their response: some have several",
                expected="one query per stimulus and person",
                found=f"{len(ids)} queries of {len(set(ids))} candidates, person {subject}",
                remedy='[evaluate] aggregate = "repetitions", or direction = "query"',
            )
        own = Asked(
            asked.values[rows], asked.table.iloc[rows].reset_index(drop=True), ids,
            [asked.groups[i] for i in rows],
        )  # fmt: skip
        if vectors is None:
            scorer = prior_scorer(np.zeros(len(ids)))
        else:
            scorer = cosine_scorer(vectors[[position[s] for s in ids]], own.values, ids)
        reverse = FoldTask(task.fold, ids, {s: s for s in ids}, [[s] for s in ids], task.shown[:0])
        if len(ids) > 1:
            pools = draw_pools(len(ids), protocol, seed, task.fold)
            scored.append(score_fold(scorer, reverse, own, pools))
    return scored


def join_folds(
    folds: Iterable[ScoredFold], classes: Mapping[str, int], subjects: Sequence[str]
) -> Queries:
    """All queries of one decoder, fold after fold.

    Parameters
    ----------
    classes : stimulus id -> study-wide number
    subjects : names of people; their positions become the codes
    """
    folds = list(folds)
    names = [(number, g) for number, fold in enumerate(folds) for g in fold.columns]
    code = {name: i for i, name in enumerate(names)}
    width = max(fold.greater.shape[1] for fold in folds)
    column_class = np.zeros((len(names), width), np.int64)
    for number, fold in enumerate(folds):
        for g, ids in fold.columns.items():
            column_class[code[number, g], : len(ids)] = [classes[s] for s in ids]
    items = pd.concat([fold.items for fold in folds], ignore_index=True)
    runs = {r: i for i, r in enumerate(sorted(set(items["recording"])))}
    people = {s: i for i, s in enumerate(subjects)}
    stack = lambda name: np.concatenate(  # noqa: E731
        [_widen(getattr(fold, name), width) for fold in folds]
    )
    optional = lambda name, join: (  # noqa: E731
        None if any(getattr(fold, name) is None for fold in folds) else join(name)
    )
    flat = lambda name: np.concatenate([getattr(fold, name) for fold in folds])  # noqa: E731
    binary = len(classes) == 2 and all(fold.n_candidates == 2 for fold in folds)
    return Queries(
        label=flat("label"),
        group=np.concatenate(
            [[code[number, g] for g in fold.group] for number, fold in enumerate(folds)]
        ).astype(np.int64),
        column_class=column_class,
        greater=stack("greater"),
        ties=stack("ties"),
        n_candidates=np.concatenate([np.full(len(f.items), f.n_candidates) for f in folds]),
        fold=np.concatenate([np.full(len(f.items), i) for i, f in enumerate(folds)]),
        subject=items["subject"].map(people).to_numpy(np.int64),
        run=items["recording"].map(runs).to_numpy(np.int64),
        decision=optional("decision", flat) if binary else None,
        same_category=optional("same_category", stack),
        category_chance=optional("category_chance", flat),
        precision=optional("precision", stack),
        precision_chance=optional("precision_chance", flat),
        pool_greater=optional("pool_greater", flat),
        pool_ties=optional("pool_ties", flat),
        n_averaged=items["n_averaged"].to_numpy(np.int64),
    )


def _columns(
    stimuli: np.ndarray, groups: Sequence[str], position: Mapping[str, int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    columns, label = {}, np.zeros(len(stimuli), np.int64)
    names = np.asarray(groups, dtype=object)
    for g in dict.fromkeys(groups):
        rows = np.flatnonzero(names == g)
        where, label[rows] = np.unique([position[s] for s in stimuli[rows]], return_inverse=True)
        columns[g] = where
    return columns, label


def _by_code(share: np.ndarray, code: np.ndarray, n_codes: int | None = None) -> np.ndarray:
    """(n, n_codes) sums of ``share`` (n, m) over the candidates with each code (m,)."""
    n_codes = int(code.max()) + 1 if n_codes is None else n_codes
    member = np.zeros((len(code), n_codes))
    member[np.arange(len(code)), code] = 1
    return share @ member


def _widen(values: np.ndarray, width: int) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])))
