"""Stage ``evaluate``: predictions against candidates, as numbers with chance, interval and p."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.aggregation import Asked, ask, check_unit
from braindecode_pipe.evaluate.contrasts import (
    compare_decoders,
    comparison_records,
    time_clusters,
)
from braindecode_pipe.evaluate.metrics import metrics_for
from braindecode_pipe.evaluate.predictions import (
    FoldPrediction,
    choose_decoders,
    read_prediction,
)
from braindecode_pipe.evaluate.probe import probe_records
from braindecode_pipe.evaluate.protocols import Protocol, protocol_of
from braindecode_pipe.evaluate.queries import (
    ScoredFold,
    draw_pools,
    join_folds,
    score_backward,
    score_fold,
)
from braindecode_pipe.evaluate.records import (
    confusion_dataset,
    hash_test_items,
    ledger_entry,
    metrics_json,
    null_dataset,
    plain,
)
from braindecode_pipe.evaluate.reliability import ceilings
from braindecode_pipe.evaluate.retrieval import Retrieval, retrieve
from braindecode_pipe.evaluate.scoring import averaging_curve, score
from braindecode_pipe.evaluate.tasks import (
    FoldTask,
    Naming,
    candidate_vectors,
    cosine_scorer,
    make_task,
    naming,
    prior_scorer,
    tested_were_shown,
)
from braindecode_pipe.evaluate.variants import add_curve_p, describe, labels_of, over_seeds
from braindecode_pipe.evaluate.verdict import headline_record, verdict
from braindecode_pipe.evaluate.zero_shot import run_zero_shot
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.schema import join_data_origin, table_to_dataset
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_store, write_store

__all__ = ["Retrieval", "hash_test_items", "metrics_json", "retrieve", "run", "run_zero_shot"]

SELECTED = "selected"
PRIOR = "prior"
NOISE = "noise"


@dataclass(frozen=True)
class _Scored:
    """Folds of one decoder in both directions, and by how many trials are averaged.

    ``parts`` are the predictions, ``control`` says what stands in place of a decoder that saw the
    brain: "", prior or noise.
    """

    folds: list[ScoredFold]
    backward: list[ScoredFold]
    averaged: dict[int, list[ScoredFold]]
    parts: list[FoldPrediction]
    control: str = ""


@dataclass(frozen=True)
class _Study:
    """What all decoders of one table are scored on."""

    section: EvaluateSection
    protocol: Protocol
    plan: StudyPlan
    names: Naming
    tasks: dict[int, FoldTask]
    together: bool
    describe: dict[str, Any]


def run(
    section: EvaluateSection,
    name: str,
    plan: StudyPlan,
    predictions: Sequence[Path],
    embedding: Path,
    out: Path,
    *,
    split: str = "",
    leaks: Sequence[str] = (),
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
    leaks : names of leaks that were found and allowed: they stand in every record, in the verdict
        and in the ledger

    Notes
    -----
    The store holds ``metrics.json`` (format: :mod:`braindecode_pipe.evaluate.metrics`), the table
    ``items`` (one row per query and decoder), ``null(decoder, metric, permutation)``,
    ``confusion(decoder, true, predicted)`` where there are at most 50 stimuli (else of their
    categories, if any), the table ``averaging`` (scores by the number of trials averaged, from
    single trials on) where queries are averages, ``comparisons`` (pairs of decoders on the same
    queries), ``clusters`` (windows of a decoder above chance along time), ``ceiling`` (correlation
    of averaged predictions with their targets beside its noise ceiling, where stimuli repeat), and
    the attributes ``verdict``, ``test_hash``,
    ``scored`` (the headline of every decoder, for the ledger) and ``selected`` (fold -> decoder).

    Beside the decoders stand ``selected``, where every fold has inner scores, ``prior``, which
    knows only how often training showed each candidate, and further seeds of networks, summed up
    as well. Pieces of the window have records only. Neither are selected from.
    ``[evaluate] controls`` adds every decoder on noise, where its predictions of noise are stored,
    and a probe of its predictions for run, session and time of run.

    Raises
    ------
    DataError
        No predictions, NaN in predictions, parts that do not belong together, or fewer candidates
        than the protocol samples.
    SplitError
        A fold with fewer than two candidates.
    InputError
        A bootstrap over units that were averaged away.
    """
    protocol = protocol_of(section)
    check_unit(section, protocol)
    found = _read_all(name, predictions, plan)
    decoders = labels_of(found.values(), "decoder") or labels_of(found.values(), "seed")
    target = next(iter(found.values())).target
    names = naming(plan, target)
    tasks = {
        fold: make_task(plan, fold, target, protocol, names)
        for fold in sorted({fold for _, fold in found})
    }
    _check_sampling(protocol, tasks)
    together = not any(tested_were_shown(task, plan, target) for task in tasks.values())
    origin = join_data_origin(*(p.data_origin for p in found.values()))
    shared = {
        "split": split or ("stimulus" if together else "run"),
        "data_origin": origin,
        "embedding": name,
        "target": target,
        "leaks": list(leaks),
    }
    study = _Study(section, protocol, plan, names, tasks, together, shared)
    scored, chosen = _score_all(study, found, decoders, embedding)
    fields = {part.decoder: describe(part) for part in found.values()}
    records, nulls = _measure(study, scored, fields)
    told = [d for d, part in scored.items() if not part.control]
    entries = [ledger_entry(headline_record(records, d)) for d in told]
    records += over_seeds(records, found.values())
    # Of pieces the records are kept, which make a curve; not every query of every one.
    pieces = labels_of(found.values(), "piece")
    clusters = time_clusters(found.values(), _items(scored, pieces), section)
    for piece in pieces:
        del scored[piece], nulls[piece]
    reported = {decoder: part.folds for decoder, part in scored.items() if not part.control}
    items = _items(scored, reported)
    compared = compare_decoders(items, decoders, section)
    records += comparison_records(compared, items, section, protocol, shared)
    headline = SELECTED if chosen else decoders[0]
    people = plan.events.set_index("event")["subject"]
    n_subjects = len({s for part in found.values() for s in people.loc[part.events]})
    attrs = {
        "kind": "table",
        "stage": "evaluate",
        "data_origin": origin,
        "embedding": name,
        "target": target,
        "verdict": verdict(records, headline, list(names.label.values()), n_subjects, leaks),
        "test_hash": hash_test_items(plan, target),
        "scored": entries,
        "selected": {str(plan.folds["fold"].iloc[f]): d for f, d in chosen.items()},
        "candidates": protocol.candidates,
        "protocol": protocol.attrs(),
        "n_folds": len(tasks),
        "leaks": list(leaks),
    }
    groups = {"items": table_to_dataset(items, "item")}
    if section.permutations:
        groups["null"] = null_dataset(nulls, section.permutations)
    if names.level is not None:
        counts = {d: np.sum([f.confusion for f in folds], axis=0) for d, folds in reported.items()}
        groups["confusion"] = confusion_dataset(counts, names.levels, names.level_kind)
    if protocol.aggregate != "none":
        averaged = {d: part.averaged for d, part in scored.items()}
        groups["averaging"] = table_to_dataset(averaging_curve(averaged, protocol), "row")
    tables = {
        "comparisons": compared,
        "clusters": clusters,
        "ceiling": ceilings(
            {d: p.parts for d, p in scored.items() if not p.control}, embedding, plan, section.seed
        ),
    }
    groups |= {name: table_to_dataset(t, "row") for name, t in tables.items() if len(t)}
    write_store(out, groups, attrs=plain(attrs), files={"metrics.json": metrics_json(records)})


def _items(scored: Mapping[str, _Scored], decoders: Iterable[str]) -> pd.DataFrame:
    """One row per query and decoder."""
    tables = [fold.items.assign(decoder=d) for d in decoders for fold in scored[d].folds]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _check_sampling(protocol: Protocol, tasks: Mapping[int, FoldTask]) -> None:
    fewest = min(len(task.ids) for task in tasks.values())
    if protocol.n_way and min(protocol.n_way) > fewest:
        raise DataError(
            f"too few candidates to sample from, for {protocol.name or 'n_way'}",
            expected=f"at least {min(protocol.n_way)} candidates in every fold",
            found=str(fewest),
            remedy="choose another protocol or a smaller n_way; a number among fewer candidates "
            "could not be put beside the paper's",
        )


def _measure(
    study: _Study, scored: Mapping[str, _Scored], fields: Mapping[str, dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, np.ndarray]]]:
    """Records of all decoders with the ``fields`` of each, and decoder -> metric -> null."""
    classes = {stimulus: i for i, stimulus in enumerate(study.names.label)}
    averaged = study.protocol.aggregate != "none"
    closed = all((task.shown > 0).all() for task in study.tasks.values())
    records: list[dict[str, Any]] = []
    nulls: dict[str, dict[str, np.ndarray]] = {}
    better: dict[str, bool] = {}
    for decoder, part in scored.items():
        nulls[decoder] = {}
        for direction, folds in (("query", part.folds), ("candidate", part.backward)):
            if not folds:
                continue
            forward = direction == "query"
            subjects = sorted({s for fold in folds for s in fold.items["subject"]})
            queries = join_folds(folds, classes, subjects)
            metrics = metrics_for(
                queries, study.protocol.top_k, closed and forward, study.protocol.n_way,
                "" if forward else "backward_",
            )  # fmt: skip
            own, null = score(
                queries,
                metrics,
                study.section,
                together=study.together or averaged or not forward,
                subjects=subjects,
                describe={"decoder": decoder, "control": part.control}
                | study.describe
                | fields.get(decoder, {}),
                protocol=study.protocol,
                direction=direction,
            )
            records += own
            nulls[decoder] |= null
            better |= {metric.name: metric.larger_is_better for metric in metrics}
        if "probe" in study.section.controls and _controlled(part):
            name = {"decoder": f"probe of {decoder}", "control": "probe"}
            records += probe_records(study.section, part.parts, study.plan, study.describe | name)
    add_curve_p([r for r in records if "window_centre" in r], nulls, better)
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
    if all(part.role == "piece" for part in found.values()):
        raise DataError(
            f"there are no predictions of table {name!r}",
            expected="at least one prediction store of a decoder that reads the whole window",
            found=f"{len(found)} of pieces of it" if found else "none",
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
    study: _Study,
    found: Mapping[tuple[str, int], FoldPrediction],
    decoders: Sequence[str],
    embedding: Path,
) -> tuple[dict[str, _Scored], dict[int, str]]:
    """Scored folds of every decoder, of ``selected`` and of ``prior``; and what was selected."""
    dataset = open_store(embedding)
    vectors = np.asarray(dataset["embedding"].values)
    vectors = vectors.reshape(len(vectors), -1)
    position = {str(s): i for i, s in enumerate(dataset["stimulus"].values)}
    vectors_of = lambda part: candidate_vectors(  # noqa: E731
        part, study.tasks[part.fold], vectors, position
    )
    done = {key: _score_one(study, part, vectors_of(part)) for key, part in found.items()}
    labels = dict.fromkeys([*decoders, *(label for label, _ in found)])
    scored = {d: _gather([done[d, f] for f in study.tasks if (d, f) in done]) for d in labels}
    chosen = choose_decoders(found, decoders) if len(decoders) > 1 else {}
    if chosen:
        scored[SELECTED] = _gather([done[chosen[f], f] for f in study.tasks])
    scored[PRIOR] = _gather(
        [
            _score_one(study, next(found[d, f] for d in labels if (d, f) in found), None)
            for f in study.tasks
        ],
        PRIOR,
    )
    for decoder in list(scored) if NOISE in study.section.controls else ():
        parts = scored[decoder].parts
        if _controlled(scored[decoder]) and all(part.noise is not None for part in parts):
            fed = [replace(part, values=part.noise) for part in parts]
            scored[f"{decoder} on noise"] = _gather(
                [_score_one(study, part, vectors_of(part)) for part in fed], NOISE
            )
    return scored, chosen


def _controlled(scored: _Scored) -> bool:
    """Whether controls belong beside it: a decoder, of its first seed and on the whole window."""
    return not scored.control and all(part.role == "decoder" for part in scored.parts)


def _gather(parts: Sequence[_Scored], control: str = "") -> _Scored:
    sizes = sorted({n for part in parts for n in part.averaged})
    return _Scored(
        [fold for part in parts for fold in part.folds],
        [fold for part in parts for fold in part.backward],
        {n: [f for part in parts for f in part.averaged.get(n, [])] for n in sizes},
        [p for part in parts for p in part.parts],
        control,
    )


def _score_one(study: _Study, part: FoldPrediction, vectors: np.ndarray | None) -> _Scored:
    """One decoder in one fold; without ``vectors`` the prior."""
    task, protocol, seed = study.tasks[part.fold], study.protocol, study.section.seed
    asked = ask(part, task, study.plan, protocol, study.together)
    forward = lambda own, pools=(): score_fold(  # noqa: E731
        prior_scorer(task.shown) if vectors is None
        else cosine_scorer(own.values, vectors, task.ids),
        task, own, pools,
    )  # fmt: skip
    folds = [forward(asked, draw_pools(len(task.ids), protocol, seed, task.fold))]
    backward = []
    if protocol.direction == "both":
        backward = score_backward(asked, task, vectors, protocol, seed)
    averaged = {}
    if protocol.aggregate != "none":
        for most in _sizes(asked):
            single = replace(protocol, aggregate="none") if most == 1 else protocol
            own = ask(part, task, study.plan, single, study.together, most)
            averaged[most] = [forward(own)]
    return _Scored(folds, backward, averaged, [part])


def _sizes(asked: Asked) -> list[int]:
    """Trials per query of the averaging curve: 1, 2, 4, ... and all."""
    most = int(asked.table["n_averaged"].max())
    return sorted({2**i for i in range(most.bit_length()) if 2**i < most} | {1, most})
