"""Stage ``evaluate``: predictions against candidates, as numbers with chance, interval and p."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.metrics import metrics_for, score
from braindecode_pipe.evaluate.predictions import FoldPrediction, read_prediction
from braindecode_pipe.evaluate.queries import (
    PRIOR,
    SELECTED,
    FoldTask,
    ScoredFold,
    choose_decoders,
    cosine_scorer,
    join_folds,
    make_task,
    prior_scorer,
    score_fold,
)
from braindecode_pipe.evaluate.records import hash_test_items, metrics_json, plain
from braindecode_pipe.evaluate.retrieval import Retrieval, retrieve
from braindecode_pipe.evaluate.verdict import headline_record, verdict
from braindecode_pipe.evaluate.zero_shot import run_zero_shot
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.schema import (
    SCHEMA_VERSION,
    join_data_origin,
    table_to_dataset,
)
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_store, write_store

__all__ = ["Retrieval", "hash_test_items", "metrics_json", "retrieve", "run", "run_zero_shot"]

_CONFUSION_LEVELS = 50


def run(
    section: EvaluateSection,
    name: str,
    plan: StudyPlan,
    predictions: Sequence[Path],
    embedding: Path,
    out: Path,
    *,
    split: str = "",
) -> None:
    """Score all decoders of one embedding table and write the evaluation store.

    Parameters
    ----------
    section : EvaluateSection
    name : name of the table in ``[embed]``
    plan : StudyPlan
    predictions : prediction stores of all decoders and folds, decoders in the recipe's order
    embedding : the embedding store
    out : path of the store to write
    split : ``[split] by``, for the records; default: "stimulus" where training has shown none of
        the tested stimuli, else "run"

    Notes
    -----
    The store holds ``metrics.json`` (format: :mod:`braindecode_pipe.evaluate.metrics`), the table
    ``items`` (one row per query and decoder), ``null(decoder, metric, permutation)``,
    ``confusion(decoder, true, predicted)`` where there are at most 50 stimuli (else of their
    categories, if any), and the attributes ``verdict``, ``test_hash``, ``scored`` (the headline of
    every decoder, for the ledger) and ``selected`` (fold -> decoder).

    Beside the decoders stand ``selected``, where every fold has inner scores, and ``prior``, which
    knows only how often training showed each candidate.

    Raises
    ------
    DataError
        No predictions, NaN in predictions, or parts that do not belong together.
    SplitError
        A fold with fewer than two candidates.
    """
    found = _read_all(name, predictions, plan)
    decoders = list(dict.fromkeys(decoder for decoder, _ in found))
    target = next(iter(found.values())).target
    labels = _labels(plan, target)
    level, level_names, level_kind = _levels(plan, target)
    category = _categories(plan, target)
    tasks = {
        fold: make_task(plan, fold, target, section.candidates, level, category)
        for fold in sorted({fold for _, fold in found})
    }
    together = not any(_tested_were_shown(task, plan, target) for task in tasks.values())
    closed = all((task.shown > 0).all() for task in tasks.values())
    scored, chosen = _score_all(found, decoders, tasks, plan, embedding, together)
    origin = join_data_origin(*(p.data_origin for p in found.values()))
    records, nulls = _measure(
        section, plan, scored, list(labels), closed, together,
        {"split": split or ("stimulus" if together else "run"), "data_origin": origin,
         "embedding": name, "target": target},
    )  # fmt: skip
    reported = {decoder: folds for decoder, folds in scored.items() if decoder != PRIOR}
    items = pd.concat(
        [fold.items.assign(decoder=d) for d, folds in reported.items() for fold in folds],
        ignore_index=True,
    )
    headline = SELECTED if chosen else decoders[0]
    n_subjects = items.loc[items["decoder"] == headline, "subject"].nunique()
    attrs = {
        "kind": "table",
        "stage": "evaluate",
        "data_origin": origin,
        "embedding": name,
        "target": target,
        "verdict": verdict(records, headline, list(labels.values()), n_subjects),
        "test_hash": hash_test_items(plan, target),
        "scored": [_ledger_entry(headline_record(records, decoder)) for decoder in reported],
        "selected": {str(plan.folds["fold"].iloc[f]): d for f, d in chosen.items()},
        "candidates": section.candidates,
        "n_folds": len(tasks),
    }
    groups = {"items": table_to_dataset(items, "item")}
    if section.permutations:
        groups["null"] = _null_dataset(nulls, section.permutations)
    if level is not None:
        counts = {d: np.sum([f.confusion for f in folds], axis=0) for d, folds in reported.items()}
        groups["confusion"] = _confusion_dataset(counts, level_names, level_kind)
    write_store(out, groups, attrs=plain(attrs), files={"metrics.json": metrics_json(records)})


def _measure(
    section: EvaluateSection,
    plan: StudyPlan,
    scored: Mapping[str, list[ScoredFold]],
    stimuli: Sequence[str],
    closed: bool,
    together: bool,
    describe: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], dict[str, dict[str, np.ndarray]]]:
    """Records of all decoders, and decoder -> metric -> null."""
    classes = {stimulus: i for i, stimulus in enumerate(stimuli)}
    subjects = sorted(set(plan.events["subject"]))
    records: list[dict[str, Any]] = []
    nulls = {}
    for decoder, folds in scored.items():
        queries = join_folds(folds, classes, subjects)
        own, nulls[decoder] = score(
            queries,
            metrics_for(queries, section.top_k, closed),
            section,
            together=together,
            subjects=subjects,
            describe={"decoder": decoder, **describe},
        )
        records += own
    return records, nulls


def _read_all(
    name: str, paths: Sequence[Path], plan: StudyPlan
) -> dict[tuple[str, int], FoldPrediction]:
    found: dict[tuple[str, int], FoldPrediction] = {}
    for path in paths:
        part = read_prediction(path, plan)
        key = (part.decoder, part.fold)
        if part.embedding != name or key in found:
            raise DataError(
                "predictions do not belong together",
                file=path,
                expected=f"one store of table {name!r} per decoder and fold",
                found=f"table {part.embedding!r}, decoder {part.decoder}, fold {part.fold}"
                + (" a second time" if key in found else ""),
            )
        found[key] = part
    if not found:
        raise DataError(
            f"there are no predictions of table {name!r}",
            expected="at least one prediction store",
            found="none",
            remedy="look at the failures of the stage train",
        )
    if len({part.target for part in found.values()}) > 1:
        raise DataError(
            "predictions aim at different targets",
            expected="one target per table",
            found=", ".join(sorted({part.target for part in found.values()})),
        )
    return found


def _score_all(
    found: Mapping[tuple[str, int], FoldPrediction],
    decoders: Sequence[str],
    tasks: Mapping[int, FoldTask],
    plan: StudyPlan,
    embedding: Path,
    together: bool,
) -> tuple[dict[str, list[ScoredFold]], dict[int, str]]:
    """Scored folds of every decoder, of ``selected`` and of ``prior``; and what was selected."""
    dataset = open_store(embedding)
    vectors = np.asarray(dataset["embedding"].values)
    vectors = vectors.reshape(len(vectors), -1)
    position = {str(s): i for i, s in enumerate(dataset["stimulus"].values)}
    events = plan.events.set_index("event")
    done = {}
    for (decoder, fold), part in found.items():
        done[decoder, fold] = _score_one(
            part, cosine_scorer(part, tasks[fold], vectors, position), tasks[fold], plan, events,
            together,
        )  # fmt: skip
    scored = {d: [done[d, f] for f in tasks if (d, f) in done] for d in decoders}
    chosen = choose_decoders(found, decoders) if len(decoders) > 1 else {}
    if chosen:
        scored[SELECTED] = [done[chosen[f], f] for f in tasks]
    scored[PRIOR] = [
        _score_one(
            next(found[d, f] for d in decoders if (d, f) in found),
            prior_scorer(tasks[f]), tasks[f], plan, events, together,
        )
        for f in tasks
    ]  # fmt: skip
    return scored, chosen


def _score_one(part, scorer, task, plan, events, together) -> ScoredFold:
    unknown = sorted(set(part.events) - set(events.index))
    if unknown:
        raise DataError(
            f"predictions of {part.decoder} hold events that the plan does not have",
            expected="test events of the plan",
            found=", ".join(unknown[:5]),
            remedy="run the stage train again",
        )
    own = events.loc[part.events]
    table = pd.DataFrame(
        {
            "event": part.events,
            "fold": str(plan.folds["fold"].iloc[part.fold]),
            "subject": own["subject"].to_numpy(object),
            "recording": own["recording"].to_numpy(object),
        }
    )
    groups = list(table["subject"] if together else table["subject"] + "|" + table["recording"])
    return score_fold(scorer, task, table, part.stimuli, groups)


def _ledger_entry(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "decoder": record["decoder"],
        "metric": record["metric"],
        "value": record["value"],
        "n": record["n_queries"],
        "n_candidates": record["n_candidates"],
    }


def _labels(plan: StudyPlan, target: str) -> dict[str, str]:
    own = plan.stimuli[plan.stimuli["target"] == target]
    return dict(zip(own["stimulus"], own["label"].astype(str)))


def _categories(plan: StudyPlan, target: str) -> dict[str, int] | None:
    """Stimulus -> category number; None where categories say nothing that stimuli do not."""
    own = plan.stimuli[plan.stimuli["target"] == target]
    names = sorted(set(own["category"].astype(str)))
    if "" in names or not 1 < len(names) < own["stimulus"].nunique():
        return None
    return {s: names.index(str(c)) for s, c in zip(own["stimulus"], own["category"])}


def _levels(plan: StudyPlan, target: str) -> tuple[dict[str, int] | None, list[str], str]:
    """Rows of the confusion matrix: stimuli, or categories where there are many stimuli."""
    labels = _labels(plan, target)
    if len(labels) <= _CONFUSION_LEVELS:
        unique = len(set(labels.values())) == len(labels)
        names = list(labels.values() if unique else labels)
        return {s: i for i, s in enumerate(labels)}, names, "stimulus"
    category = _categories(plan, target)
    own = plan.stimuli[plan.stimuli["target"] == target]
    names = sorted(set(own["category"].astype(str)))
    if category is None or len(names) > _CONFUSION_LEVELS:
        return None, [], ""
    return category, names, "category"


def _tested_were_shown(task: FoldTask, plan: StudyPlan, target: str) -> bool:
    tested = set(plan.events[f"stimulus_{target}"].to_numpy()[plan.rows(task.fold, "test")])
    return any(n and s in tested for s, n in zip(task.ids, task.shown))


def _null_dataset(nulls: Mapping[str, Mapping[str, np.ndarray]], n: int) -> xr.Dataset:
    metrics = list(dict.fromkeys(m for null in nulls.values() for m in null))
    values = np.full((len(nulls), len(metrics), n), np.nan, np.float32)
    for i, null in enumerate(nulls.values()):
        for j, metric in enumerate(metrics):
            if len(null[metric]):
                values[i, j] = null[metric]
    return xr.Dataset(
        {"null": (("decoder", "metric", "permutation"), values)},
        coords={
            "decoder": ("decoder", np.array(list(nulls), dtype=object)),
            "metric": ("metric", np.array(metrics, dtype=object)),
        },
        attrs={"schema_version": SCHEMA_VERSION, "kind": "table"},
    )


def _confusion_dataset(
    confusion: Mapping[str, np.ndarray], names: Sequence[str], kind: str
) -> xr.Dataset:
    coord = np.array(list(names), dtype=object)
    return xr.Dataset(
        {"confusion": (("decoder", "true", "predicted"), np.stack(list(confusion.values())))},
        coords={
            "decoder": ("decoder", np.array(list(confusion), dtype=object)),
            "true": ("true", coord),
            "predicted": ("predicted", coord),
        },
        attrs={"schema_version": SCHEMA_VERSION, "kind": "table", "level": kind},
    )
