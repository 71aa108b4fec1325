"""Leave-two-categories-out decoding from an embedding of category names.

Two categories ``a`` and ``b`` are left out of training; their responses are predicted as
``p = W E``, a mixture of the embeddings ``E`` of the other categories, whose weights ``W`` do not
depend on ``E`` (ridge is linear in what it predicts). A pair is right when

``cos(p_a, e_a) + cos(p_b, e_b) > cos(p_a, e_b) + cos(p_b, e_a)``

with ``p_a`` the mean over the test events of ``a`` (Mitchell et al. 2008; Palatucci et al. 2009).
Since ``W`` is free of ``E``, exchanging which category has which embedding gives, for every one of
the ``n!`` maps, exactly what training anew on it would give: a refit null without refits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import DataError, SchemaError
from braindecode_pipe.evaluate.pairs import (
    PairWeights,
    category_maps,
    event_outcomes,
    pair_outcomes,
)
from braindecode_pipe.evaluate.records import hash_test_items, metrics_json, plain
from braindecode_pipe.evaluate.statistics import interval
from braindecode_pipe.evaluate.verdict import SIGNIFICANCE, format_p, lead_in
from braindecode_pipe.recipe import EvaluateSection, ZeroShotSection
from braindecode_pipe.schema import SCHEMA_VERSION, join_data_origin, table_to_dataset
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_store, write_store


def run_zero_shot(
    section: EvaluateSection,
    zero_shot: ZeroShotSection,
    store: Path,
    embeddings: Mapping[str, Path],
    out: Path,
    *,
    plan: StudyPlan | None = None,
    leaks: Sequence[str] = (),
) -> None:
    """Score all prompt sets and write the zero-shot evaluation store.

    Parameters
    ----------
    section : EvaluateSection
    zero_shot : ZeroShotSection
        The first of its ``embeddings`` decides the verdict; all are printed.
    store : what ``train.run_zero_shot`` wrote
    embeddings : prompt set -> embedding store
    out : path of the store to write
    plan : StudyPlan, optional
        Without it the store has no ``test_hash``, and no line goes to the ledger.
    leaks : names of leaks that were found and allowed

    Notes
    -----
    The store holds ``metrics.json`` (``pair_accuracy`` and ``event_pair_accuracy`` per prompt set),
    the table ``pairs`` (prompt_set, category_a, category_b, accuracy, event_accuracy, n) and
    ``null(prompt_set, permutation)`` of ``pair_accuracy``. The interval is a bootstrap over test
    events; the p-value counts maps at least as good as the true one.

    Raises
    ------
    DataError
        An embedding without one of the categories.
    SchemaError
        ``store`` is not what training writes.
    """
    dataset = open_store(store)
    weights = _read_weights(dataset, store)
    names = [str(c) for c in dataset["category"].values]
    vectors, origins = {}, [str(dataset.attrs["data_origin"])]
    for name in zero_shot.embeddings:
        vectors[name], origin = _vectors(embeddings[name], names, name)
        origins.append(origin)
    origin = join_data_origin(*origins)
    n_subjects = len(set(map(str, dataset["subject"].values))) if "subject" in dataset else 1
    records, pairs, nulls = _score_prompts(section, zero_shot, weights, names, vectors, origin)
    records = [{**record, "leaks": list(leaks)} for record in records]
    attrs = {
        "kind": "table",
        "stage": "evaluate",
        "data_origin": origin,
        "target": zero_shot.target,
        "categories": names,
        "verdict": _verdict(records, n_subjects),
        "scored": [
            {
                "decoder": f"ridge, prompts {record['prompt_set']}",
                "metric": "pair_accuracy",
                "value": record["value"],
                "n": record["n_queries"],
                "n_candidates": 2,
                **({"leaks": list(leaks)} if leaks else {}),
            }
            for record in records
            if record["metric"] == "pair_accuracy"
        ],
    }
    if plan is not None:
        used = set(map(str, dataset["event"].values))
        attrs["test_hash"] = hash_test_items(plan, zero_shot.target, used)
    groups = {
        "pairs": table_to_dataset(pairs, "pair"),
        "null": xr.Dataset(
            {"null": (("prompt_set", "permutation"), np.stack(list(nulls.values())))},
            coords={"prompt_set": ("prompt_set", np.array(list(nulls), dtype=object))},
            attrs={"schema_version": SCHEMA_VERSION, "kind": "table"},
        ),
    }
    write_store(out, groups, attrs=plain(attrs), files={"metrics.json": metrics_json(records)})


def _score_prompts(
    section: EvaluateSection,
    zero_shot: ZeroShotSection,
    weights: PairWeights,
    names: Sequence[str],
    vectors: Mapping[str, np.ndarray],
    origin: str,
) -> tuple[list[dict[str, Any]], pd.DataFrame, dict[str, np.ndarray]]:
    """Records, the table of pairs and the null of every prompt set."""
    maps, exact = category_maps(len(names), section.seed)
    rng = np.random.default_rng([section.seed, 3])
    n_events = int(weights.event.max()) + 1
    counts = rng.multinomial(n_events, np.full(n_events, 1 / n_events), size=section.bootstrap)
    resampled, means = weights.side_means(counts.astype(float)), weights.side_means()[0]
    records, tables, nulls = [], [], {}
    for name, embedding in vectors.items():
        gram = embedding @ embedding.T
        by_map = pair_outcomes(means, weights.pairs, gram, maps)
        events = event_outcomes(weights, gram, maps)
        draws = [pair_outcomes(m, weights.pairs, gram, maps[:1]).mean() for m in resampled]
        nulls[name] = by_map.mean(axis=1)
        common = _common(section, name, zero_shot.target, weights, len(maps), exact, origin)
        ci = interval(np.array(draws), section.ci)
        together = np.unique(np.stack([weights.unit, weights.true]), axis=1, return_counts=True)[1]
        mean = {"aggregate": "repetitions", "n_averaged": together.max(),
                "n_averaged_min": together.min()}  # fmt: skip
        single = {"aggregate": "none", "n_averaged": 1, "n_averaged_min": 1}
        none, n = (np.nan, np.nan), len(weights.pairs)
        records += [
            _record("pair_accuracy", nulls[name], ci, n, common | mean),
            _record(
                "event_pair_accuracy", events.mean(axis=1), none, len(events.T), common | single
            ),
        ]
        tables.append(_pair_table(name, names, weights, by_map[0], events[0]))
    return records, pd.concat(tables, ignore_index=True), nulls


def _read_weights(dataset: xr.Dataset, store: Path) -> PairWeights:
    needed = ("weights", "pair", "event", "true", "a", "b", "category")
    missing = [name for name in needed if name not in dataset]
    if missing:
        raise SchemaError(
            "this store holds no zero-shot weights",
            file=store,
            expected=", ".join(needed),
            found=f"without {', '.join(missing)}",
            remedy="run the stage train again",
        )
    weights = np.asarray(dataset["weights"].values, float)
    if not np.isfinite(weights).all():
        raise DataError("NaN or infinity in zero-shot weights", file=store,
                        expected="finite numbers",
                        found=f"{np.count_nonzero(~np.isfinite(weights))} others")  # fmt: skip
    true, a, b = (np.asarray(dataset[k].values, np.int64) for k in ("true", "a", "b"))
    pair = [str(p) for p in dataset["pair"].values]
    if "subject" in dataset:
        pair = [f"{p}|{s}" for p, s in zip(pair, dataset["subject"].values)]
    _, first, unit = np.unique(pair, return_index=True, return_inverse=True)
    _, event = np.unique([str(e) for e in dataset["event"].values], return_inverse=True)
    return PairWeights(
        weights, unit, event, true, np.where(true == a, b, a), np.stack([a[first], b[first]], 1)
    )


def _vectors(path: Path, names: Sequence[str], prompt_set: str) -> tuple[np.ndarray, str]:
    dataset = open_store(path)
    labels = [str(label) for label in dataset.attrs.get("labels", [])]
    missing = [name for name in names if name not in labels]
    if missing:
        raise DataError(
            f"the prompt set {prompt_set!r} lacks categories",
            file=path,
            expected=", ".join(names),
            found=f"without {', '.join(missing)}",
            remedy="its target must be the one of [train.zero_shot]",
        )
    vectors = np.asarray(dataset["embedding"].values, float).reshape(len(labels), -1)
    return vectors[[labels.index(name) for name in names]], str(dataset.attrs["data_origin"])


def _common(
    section: EvaluateSection,
    name: str,
    target: str,
    weights: PairWeights,
    n_maps: int,
    exact: bool,
    origin: str,
) -> dict[str, Any]:
    how = f"all {n_maps} maps" if exact else f"{n_maps - 1} random maps"
    return {
        "ci_level": section.ci,
        "chance": 0.5,
        "n_candidates": 2,
        "n_candidates_min": 2,
        "n_folds": len({tuple(p) for p in weights.pairs.tolist()}),
        "decoder": "ridge",
        "control": "",
        "embedding": name,
        "prompt_set": name,
        "target": target,
        "split": "category pairs",
        "subject": "all",
        "data_origin": origin,
        "null": f"{how} from category to embedding, equal to refitting on each",
        "bootstrap_unit": "event",
        "protocol": "",
        "candidates": "pairs of categories",
        "direction": "query",
        **dict.fromkeys(("draws", "draws_mean", "draws_low", "draws_high")),
    }


def _record(
    metric: str,
    by_map: np.ndarray,
    ci: tuple[float, float],
    n: int,
    common: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "metric": metric,
        "value": float(by_map[0]),
        "ci_low": ci[0],
        "ci_high": ci[1],
        # The true map comes first and counts once among all, as in a permutation p-value.
        "p_value": float(np.mean(by_map >= by_map[0] - 1e-12)),
        "n_queries": n,
        **common,
    }


def _pair_table(
    prompt_set: str, names: Sequence[str], weights: PairWeights, right: np.ndarray,
    events: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    rows = []
    for a, b in dict.fromkeys(map(tuple, weights.pairs.tolist())):
        units = np.flatnonzero((weights.pairs == (a, b)).all(axis=1))
        own = np.isin(weights.unit, units)
        rows.append(
            {
                "prompt_set": prompt_set,
                "category_a": names[a],
                "category_b": names[b],
                "accuracy": float(right[units].mean()),
                "event_accuracy": float(events[own].mean()),
                "n": int(own.sum()),
            }
        )
    return pd.DataFrame(rows)


def _verdict(records: Sequence[Mapping[str, Any]], n_subjects: int) -> dict[str, Any]:
    pairs = [record for record in records if record["metric"] == "pair_accuracy"]
    first = pairs[0]
    evidence = first["p_value"] <= SIGNIFICANCE
    parts = []
    for record in pairs:
        ci = ""
        if np.isfinite(record["ci_low"]):
            ci = (f"{100 * record['ci_level']:g} % CI {100 * record['ci_low']:.0f}-"
                  f"{100 * record['ci_high']:.0f} %, ")  # fmt: skip
        parts.append(
            f"{100 * record['value']:.0f} % of {record['n_queries']} pairs with the prompts "
            f"{record['prompt_set']} ({ci}p = {format_p(record['p_value'])})"
        )
    people = "1 person" if n_subjects == 1 else f"{n_subjects} people"
    start = (
        "Two categories that training never showed are told apart in "
        if evidence
        else "No evidence that two categories that training never showed can be told apart: "
    )
    null = first["null"].partition(",")[0]
    text = f"{start}{'; '.join(parts)}. Chance is 50 %; p is over {null}; {people}."
    return {
        "text": lead_in(first["data_origin"], first["leaks"]) + text,
        "evidence": "evidence" if evidence else "no evidence",
        "decoder": "ridge",
        "metric": "pair_accuracy",
        "prompt_set": first["prompt_set"],
        "value": first["value"],
        "ci": [first["ci_low"], first["ci_high"]],
        "chance": 0.5,
        "p": first["p_value"],
        "n_queries": first["n_queries"],
        "n_candidates": 2,
        "n_subjects": n_subjects,
        "data_origin": first["data_origin"],
    }
