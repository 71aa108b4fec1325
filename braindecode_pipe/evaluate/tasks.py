"""What is asked in one fold: candidates, how often training showed them, how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, SplitError
from braindecode_pipe.evaluate.candidates import CandidateSet
from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.evaluate.protocols import Protocol
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan

_CONFUSION_LEVELS = 50

Scorer = Callable[[slice], np.ndarray]


@dataclass(frozen=True)
class Naming:
    """Labels, categories and rows of the confusion matrix of one target's stimuli.

    Attributes
    ----------
    label : stimulus -> text
    category : stimulus -> number; None where categories say nothing that stimuli do not
    level : stimulus -> row of the confusion matrix; None where there is none
    levels : names of the rows
    level_kind : ``stimulus``, or ``category`` where there are many stimuli
    """

    label: dict[str, str]
    category: dict[str, int] | None
    level: dict[str, int] | None
    levels: list[str]
    level_kind: str


@dataclass(frozen=True)
class FoldTask:
    """What is asked in one fold.

    Attributes
    ----------
    fold : int
    ids : (m,) candidates; a class goes by its first tested stimulus
    candidate : stimulus -> its candidate
    members : stimuli whose mean is the candidate, for every candidate
    shown : (m,) int, how often training showed each candidate
    level : (m,) int codes of the candidates in the confusion matrix, or None where there is none
    n_levels : rows of the confusion matrix
    category : (m,) int codes, or None where there are no categories
    left_out : tested stimuli without a candidate, which are not asked for
    """

    fold: int
    ids: np.ndarray
    candidate: Mapping[str, str]
    members: Sequence[Sequence[str]]
    shown: np.ndarray
    level: np.ndarray | None = None
    n_levels: int = 0
    category: np.ndarray | None = None
    left_out: Sequence[str] = ()


def naming(plan: StudyPlan, target: str) -> Naming:
    """How the stimuli of a target are called."""
    own = plan.stimuli[plan.stimuli["target"] == target]
    label = dict(zip(own["stimulus"], own["label"].astype(str)))
    names = sorted(set(own["category"].astype(str)))
    category = None
    if "" not in names and 1 < len(names) < own["stimulus"].nunique():
        category = {s: names.index(str(c)) for s, c in zip(own["stimulus"], own["category"])}
    if len(label) <= _CONFUSION_LEVELS:
        unique = len(set(label.values())) == len(label)
        levels = list(label.values() if unique else label)
        return Naming(label, category, {s: i for i, s in enumerate(label)}, levels, "stimulus")
    if category is None or len(names) > _CONFUSION_LEVELS:
        return Naming(label, category, None, [], "")
    return Naming(label, category, category, names, "category")


def make_task(
    plan: StudyPlan, fold: int, target: str, protocol: Protocol, names: Naming
) -> FoldTask:
    """The candidates of one fold, in the order of the plan's stimulus table.

    Raises
    ------
    SplitError
        Fewer than two candidates.
    DataError
        Prototypes of a class whose stimuli are all tested.
    """
    shown = plan.events[f"stimulus_{target}"].astype(str).to_numpy()
    asked = pd.Series(shown[plan.rows(fold, "test")]).value_counts()
    own = plan.stimuli[plan.stimuli["target"] == target]
    every = list(dict.fromkeys(own["stimulus"].astype(str)))
    tested = [s for s in every if s in asked.index]
    if protocol.candidates == "prototypes":
        candidate, members = _prototypes(own, tested, names, str(plan.folds["fold"].iloc[fold]))
    else:
        chosen = every if protocol.candidates == "all" else tested
        if protocol.candidates == "frequent":
            # Sorting is stable: of equally frequent stimuli the first in the table.
            order = sorted(tested, key=lambda s: -int(asked[s]))[: protocol.n_frequent]
            chosen = [s for s in tested if s in set(order)]
        candidate, members = {s: s for s in chosen}, {s: [s] for s in chosen}
    if len(members) < 2:
        raise SplitError(
            f"fold {plan.folds['fold'].iloc[fold]} has nothing to choose from",
            expected=f"at least two candidates of target {target!r}",
            found=str(len(members)),
            remedy='[evaluate] candidates = "all", or a [split] whose test parts hold more stimuli',
        )
    fitted = np.isin(plan.role[fold], [ROLES["train"], ROLES["validation"]])
    counts = pd.Series(shown[fitted]).value_counts()
    ids = list(members)
    code = lambda table: None if table is None else np.array([table[s] for s in ids])  # noqa: E731
    return FoldTask(
        fold,
        np.array(ids, dtype=object),
        candidate,
        list(members.values()),
        np.array([sum(int(counts.get(s, 0)) for s in group) for group in members.values()]),
        code(names.level),
        len(names.levels),
        code(names.category) if protocol.candidates != "prototypes" else None,
        [s for s in tested if s not in candidate],
    )


def _prototypes(
    own: pd.DataFrame, tested: Sequence[str], names: Naming, fold: str
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Classes are categories, or labels where there are none."""
    of = names.label if names.category is None else names.category
    first: dict[object, str] = {}
    candidate = {s: first.setdefault(of[s], s) for s in tested}
    others: dict[str, list[str]] = {s: [] for s in first.values()}
    for stimulus in dict.fromkeys(own["stimulus"].astype(str)):
        if stimulus not in candidate and of[stimulus] in first:
            others[first[of[stimulus]]].append(stimulus)
    empty = [names.label[s] for s, group in others.items() if not group]
    if empty:
        raise DataError(
            f"fold {fold} has classes without a prototype",
            expected="for every tested class another stimulus that the fold does not test",
            found=f"{len(empty)} of {len(others)} without, e.g. {', '.join(empty[:5])}",
            remedy="give stimuli a category that several share, split by stimulus, or take "
            'candidates = "test"',
        )
    return candidate, others


def tested_were_shown(task: FoldTask, plan: StudyPlan, target: str) -> bool:
    """Whether training has shown any stimulus that the fold tests."""
    stimuli = plan.events[f"stimulus_{target}"].to_numpy()
    fitted = np.isin(plan.role[task.fold], [ROLES["train"], ROLES["validation"]])
    return bool(set(stimuli[plan.rows(task.fold, "test")]) & set(stimuli[fitted]) - {""})


def candidate_vectors(
    prediction: FoldPrediction, task: FoldTask, embedding: np.ndarray, position: Mapping[str, int]
) -> np.ndarray:
    """(m, f) candidates, normalised as in training; a class is the mean of its members.

    Parameters
    ----------
    embedding : (n_stimuli, n_features)
    position : stimulus id -> row of ``embedding``
    """
    needed = list(dict.fromkeys(s for group in task.members for s in group))
    missing = sorted(set(needed) - set(position))
    if missing:
        raise DataError(
            f"candidates have no embedding in {prediction.embedding!r}",
            expected="every candidate stimulus is embedded",
            found=f"{len(missing)} missing, e.g. {', '.join(missing[:5])}",
            remedy="run the stage embed again",
        )
    vectors = embedding[[position[s] for s in needed]].astype(float)
    if prediction.normalizer is not None:
        vectors = prediction.normalizer(vectors)
    if all(len(group) == 1 for group in task.members):
        return vectors
    row = {s: i for i, s in enumerate(needed)}
    return np.stack([vectors[[row[s] for s in group]].mean(axis=0) for group in task.members])


def cosine_scorer(predictions: np.ndarray, vectors: np.ndarray, ids: Sequence[str]) -> Scorer:
    """Scores of a decoder: cosine similarity to the candidates.

    Parameters
    ----------
    predictions : (n, f)
    vectors, ids : (m, f) candidates and (m,) their ids
    """
    found = CandidateSet(vectors, ids)
    return lambda rows: found.scores(predictions[rows])


def prior_scorer(shown: np.ndarray) -> Scorer:
    """Scores that know nothing but how often training showed each candidate."""
    return lambda rows: np.broadcast_to(
        shown.astype(np.float32), (rows.stop - rows.start, len(shown))
    )
