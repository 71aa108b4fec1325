"""From predictions to scored queries: candidates, ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, SplitError
from braindecode_pipe.evaluate.metrics import Queries
from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.evaluate.retrieval import (
    CandidateSet,
    best_candidates,
    blocks,
    placements,
)
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan

TOP = 5
SELECTED = "selected"
PRIOR = "prior"

Scorer = Callable[[slice], np.ndarray]


@dataclass(frozen=True)
class FoldTask:
    """What is asked in one fold.

    Attributes
    ----------
    fold : int
    ids : (m,) candidate stimuli
    rows : event id -> position in ``plan.events``
    shown : (m,) int, how often training showed each candidate
    level : (m,) int codes of the candidates in the confusion matrix, or None where there is none
    n_levels : rows of the confusion matrix
    category : (m,) int codes, or None where there are no categories
    """

    fold: int
    ids: np.ndarray
    shown: np.ndarray
    level: np.ndarray | None
    n_levels: int
    category: np.ndarray | None


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
    decision: np.ndarray | None
    same_category: np.ndarray | None
    category_chance: np.ndarray | None
    confusion: np.ndarray | None


def choose_decoders(
    predictions: Mapping[tuple[str, int], FoldPrediction], decoders: Sequence[str]
) -> dict[int, str]:
    """Per fold the decoder with the best ``inner_score``; the first of equal ones.

    Empty where a fold lacks a decoder or a score: then nothing is selected.
    """
    chosen: dict[int, str] = {}
    for fold in sorted({fold for _, fold in predictions}):
        scores = []
        for decoder in decoders:
            found = predictions.get((decoder, fold))
            if found is None or found.inner_score is None or not np.isfinite(found.inner_score):
                return {}
            scores.append(found.inner_score)
        chosen[fold] = decoders[int(np.argmax(scores))]
    return chosen


def make_task(
    plan: StudyPlan,
    fold: int,
    target: str,
    candidates: str,
    level: Mapping[str, int] | None,
    category: Mapping[str, int] | None,
) -> FoldTask:
    """The candidates of one fold, in the order of the plan's stimulus table.

    Raises
    ------
    SplitError
        Fewer than two candidates.
    """
    shown = plan.events[f"stimulus_{target}"].to_numpy()
    tested = set(shown[plan.rows(fold, "test")])
    own = plan.stimuli[plan.stimuli["target"] == target]
    ids = [s for s in dict.fromkeys(own["stimulus"]) if candidates == "all" or s in tested]
    if len(ids) < 2:
        raise SplitError(
            f"fold {plan.folds['fold'].iloc[fold]} has nothing to choose from",
            expected=f"at least two stimuli of target {target!r} among the candidates",
            found=str(len(ids)),
            remedy='[evaluate] candidates = "all", or a [split] whose test parts hold more stimuli',
        )
    fitted = np.isin(plan.role[fold], [ROLES["train"], ROLES["validation"]])
    counts = pd.Series(shown[fitted]).value_counts()
    return FoldTask(
        fold,
        np.array(ids, dtype=object),
        np.array([int(counts.get(s, 0)) for s in ids]),
        None if level is None else np.array([level[s] for s in ids]),
        0 if level is None else max(level.values()) + 1,
        None if category is None else np.array([category[s] for s in ids]),
    )


def cosine_scorer(
    prediction: FoldPrediction, task: FoldTask, embedding: np.ndarray, position: Mapping[str, int]
) -> Scorer:
    """Scores of a decoder: cosine similarity to the candidates, normalised as in training.

    Parameters
    ----------
    embedding : (n_stimuli, n_features)
    position : stimulus id -> row of ``embedding``
    """
    missing = sorted(set(task.ids) - set(position))
    if missing:
        raise DataError(
            f"candidates have no embedding in {prediction.embedding!r}",
            expected="every candidate stimulus is embedded",
            found=f"{len(missing)} missing, e.g. {', '.join(missing[:5])}",
            remedy="run the stage embed again",
        )
    vectors = embedding[[position[s] for s in task.ids]].astype(float)
    if prediction.normalizer is not None:
        vectors = prediction.normalizer(vectors)
    bad = np.flatnonzero(~np.isfinite(prediction.values).all(axis=1))
    if len(bad):
        raise DataError(
            f"NaN or infinity in the predictions of {prediction.decoder}",
            expected="finite numbers",
            found=f"{len(bad)} of {len(prediction.values)} queries, e.g. "
            + ", ".join(map(str, prediction.events[bad[:5]])),
            remedy="look at the training log of this decoder, or at the recordings",
        )
    found = CandidateSet(vectors, task.ids)
    return lambda rows: found.scores(prediction.values[rows])


def prior_scorer(task: FoldTask) -> Scorer:
    """Scores that know nothing but how often training showed each candidate."""
    return lambda rows: np.broadcast_to(
        task.shown.astype(np.float32), (rows.stop - rows.start, len(task.shown))
    )


def score_fold(
    scorer: Scorer,
    task: FoldTask,
    table: pd.DataFrame,
    stimuli: np.ndarray,
    groups: Sequence[str],
) -> ScoredFold:
    """Rank the candidates for every query, for the true stimulus and all that it may swap with.

    Parameters
    ----------
    scorer : slice of queries -> (n, m) scores
    task : FoldTask
    table : one row per query: event, subject, recording
    stimuli : (n,) true stimulus ids
    groups : (n,) name of the group within which true stimuli may be exchanged
    """
    n, m = len(stimuli), len(task.ids)
    position = {s: i for i, s in enumerate(task.ids)}
    unknown = sorted(set(stimuli) - set(position))
    if unknown:
        raise DataError(
            "predicted events show stimuli that are not tested in their fold",
            expected="stimuli of the fold's test events",
            found=", ".join(unknown[:5]),
        )
    columns, label = _columns(stimuli, groups, position)
    width = max((len(c) for c in columns.values()), default=1)
    padded = {g: np.pad(c, (0, width - len(c))) for g, c in columns.items()}
    truth = np.array([position[s] for s in stimuli], dtype=np.int64)
    greater, ties = np.zeros((n, width), np.int32), np.ones((n, width), np.int32)
    same = None if task.category is None else np.zeros((n, width), np.float32)
    decision = np.zeros(n) if m == 2 else None
    confusion = None if task.level is None else np.zeros((task.n_levels, task.n_levels))
    k = min(TOP, m)
    best, best_scores = np.zeros((n, k), np.int64), np.zeros((n, k), np.float32)
    true_score = np.zeros(n, np.float32)
    for rows in blocks(n, m):
        scores = np.asarray(scorer(rows))
        where = np.stack([padded[g] for g in groups[rows]])
        greater[rows], ties[rows] = placements(scores, where)
        best[rows], best_scores[rows] = best_candidates(scores, k)
        true_score[rows] = scores[np.arange(len(scores)), truth[rows]]
        winners = scores == scores.max(axis=1, keepdims=True)
        winners = winners / winners.sum(axis=1, keepdims=True)
        if same is not None:
            share = _by_code(winners, task.category)
            same[rows] = np.take_along_axis(share, task.category[where], axis=1)
        if decision is not None:
            decision[rows] = scores[:, 1].astype(float) - scores[:, 0]
        if confusion is not None:
            np.add.at(
                confusion, task.level[truth[rows]], _by_code(winners, task.level, task.n_levels)
            )
    items = table.assign(
        stimulus=stimuli,
        rank=1 + greater[np.arange(n), label] + (ties[np.arange(n), label] - 1) / 2,
        n_candidates=m,
        score_true=true_score.astype(float),
    )
    for j in range(TOP):
        items[f"top{j + 1}"] = task.ids[best[:, j]] if j < k else ""
        items[f"score{j + 1}"] = best_scores[:, j].astype(float) if j < k else np.nan
    chance = None
    if task.category is not None:
        chance = (task.category[truth][:, None] == task.category[None]).mean(axis=1)
    return ScoredFold(
        items, list(groups), {g: task.ids[c] for g, c in columns.items()}, label, greater, ties, m,
        decision, same, chance, confusion,
    )  # fmt: skip


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
    binary = len(classes) == 2
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
