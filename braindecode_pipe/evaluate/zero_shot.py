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
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import DataError, SchemaError
from braindecode_pipe.evaluate.records import hash_test_items, metrics_json, plain
from braindecode_pipe.evaluate.statistics import interval
from braindecode_pipe.evaluate.verdict import SIGNIFICANCE, format_p, lead_in
from braindecode_pipe.recipe import EvaluateSection, ZeroShotSection
from braindecode_pipe.schema import SCHEMA_VERSION, join_data_origin, table_to_dataset
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_store, write_store

MAX_MAPS = 5040
_BLOCK_MAPS = 256


@dataclass(frozen=True)
class PairWeights:
    """Weights of training categories in the prediction of every left-out test event.

    Attributes
    ----------
    weights : (n_rows, n_categories)
        Zero for the two categories that were left out.
    unit : (n_rows,) int
        Rows of one pair (and person) share a number.
    event : (n_rows,) int codes of test events
    true, other : (n_rows,) int
        Category of the event, and the other one of its pair.
    pairs : (n_units, 2) int
        The two categories of each unit.
    """

    weights: np.ndarray
    unit: np.ndarray
    event: np.ndarray
    true: np.ndarray
    other: np.ndarray
    pairs: np.ndarray

    def side_means(self, counts: np.ndarray | None = None) -> np.ndarray:
        """(b, n_units, 2, n_categories) mean weights of both categories of every unit.

        Parameters
        ----------
        counts : (b, n_events), how often each test event counts; default: once
        """
        if counts is None:
            counts = np.ones((1, int(self.event.max()) + 1))
        means = np.zeros((len(counts), len(self.pairs), 2, self.weights.shape[1]))
        for unit, pair in enumerate(self.pairs):
            for side, category in enumerate(pair):
                rows = np.flatnonzero((self.unit == unit) & (self.true == category))
                drawn = counts[:, self.event[rows]]
                total = drawn.sum(axis=1, keepdims=True)
                means[:, unit, side] = drawn @ self.weights[rows] / np.where(total > 0, total, 1)
        return means


def category_maps(n: int, seed: int) -> tuple[np.ndarray, bool]:
    """Maps from category to embedding, the true one first.

    Returns
    -------
    maps : (n_maps, n) int
        All ``n!`` for n <= 7, else the true one and 5040 random ones.
    exact : bool
        Whether all maps are there.
    """
    if factorial(n) <= MAX_MAPS:
        return np.array(list(permutations(range(n)))), True
    rng = np.random.default_rng([seed, 2])
    drawn = rng.permuted(np.tile(np.arange(n), (MAX_MAPS, 1)), axis=1)
    return np.concatenate([np.arange(n)[None], drawn]), False


def pair_outcomes(
    means: np.ndarray, pairs: np.ndarray, gram: np.ndarray, maps: np.ndarray
) -> np.ndarray:
    """Whether each pair is right (1), wrong (0) or tied (0.5), under every map.

    Parameters
    ----------
    means : (n_units, 2, n_categories) of :meth:`PairWeights.side_means`
    pairs : (n_units, 2) int
    gram : (n_categories, n_categories) inner products of the embeddings
    maps : (n_maps, n_categories) int

    Returns
    -------
    (n_maps, n_units)
    """
    found = np.empty((len(maps), len(pairs)))
    for start in range(0, len(maps), _BLOCK_MAPS):
        part = maps[start : start + _BLOCK_MAPS]
        own = _cosines(means[:, 0], gram, part, pairs[:, 0])
        own += _cosines(means[:, 1], gram, part, pairs[:, 1])
        own -= _cosines(means[:, 0], gram, part, pairs[:, 1])
        own -= _cosines(means[:, 1], gram, part, pairs[:, 0])
        found[start : start + _BLOCK_MAPS] = _right(own)
    return found


def event_outcomes(weights: PairWeights, gram: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """As :func:`pair_outcomes`, for every single test event: (n_maps, n_rows)."""
    found = np.empty((len(maps), len(weights.weights)))
    for start in range(0, len(maps), _BLOCK_MAPS):
        part = maps[start : start + _BLOCK_MAPS]
        margin = _cosines(weights.weights, gram, part, weights.true)
        margin -= _cosines(weights.weights, gram, part, weights.other)
        found[start : start + _BLOCK_MAPS] = _right(margin)
    return found


def run_zero_shot(
    section: EvaluateSection,
    zero_shot: ZeroShotSection,
    store: Path,
    embeddings: Mapping[str, Path],
    out: Path,
    *,
    plan: StudyPlan | None = None,
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
    maps, exact = category_maps(len(names), section.seed)
    records, tables, nulls, origins = [], [], {}, [str(dataset.attrs["data_origin"])]
    rng = np.random.default_rng([section.seed, 3])
    n_events = int(weights.event.max()) + 1
    counts = rng.multinomial(n_events, np.full(n_events, 1 / n_events), size=section.bootstrap)
    resampled = weights.side_means(counts.astype(float))
    means = weights.side_means()[0]
    n_subjects = len(set(map(str, dataset["subject"].values))) if "subject" in dataset else 1
    for name in zero_shot.embeddings:
        vectors, origin = _vectors(embeddings[name], names, name)
        origins.append(origin)
        gram = vectors @ vectors.T
        by_map = pair_outcomes(means, weights.pairs, gram, maps)
        events = event_outcomes(weights, gram, maps)
        draws = [pair_outcomes(m, weights.pairs, gram, maps[:1]).mean() for m in resampled]
        nulls[name] = by_map.mean(axis=1)
        common = _common(section, name, zero_shot.target, weights, maps, exact, origin)
        records += [
            _record("pair_accuracy", nulls[name], interval(np.array(draws), section.ci),
                    exact, len(weights.pairs), common),
            _record("event_pair_accuracy", events.mean(axis=1), (np.nan, np.nan), exact,
                    len(weights.weights), common),
        ]  # fmt: skip
        tables.append(_pair_table(name, names, weights, by_map[0], events[0]))
    origin = join_data_origin(*origins)
    records = [{**record, "data_origin": origin} for record in records]
    says = _verdict(records, len(maps), exact, n_subjects)
    attrs = {
        "kind": "table",
        "stage": "evaluate",
        "data_origin": origin,
        "target": zero_shot.target,
        "categories": names,
        "verdict": says,
        "scored": [
            {
                "decoder": f"ridge, prompts {record['prompt_set']}",
                "metric": "pair_accuracy",
                "value": record["value"],
                "n": record["n_queries"],
                "n_candidates": 2,
            }
            for record in records
            if record["metric"] == "pair_accuracy"
        ],
    }
    if plan is not None:
        used = set(map(str, dataset["event"].values))
        attrs["test_hash"] = hash_test_items(plan, zero_shot.target, used)
    groups = {
        "pairs": table_to_dataset(pd.concat(tables, ignore_index=True), "pair"),
        "null": xr.Dataset(
            {"null": (("prompt_set", "permutation"), np.stack(list(nulls.values())))},
            coords={"prompt_set": ("prompt_set", np.array(list(nulls), dtype=object))},
            attrs={"schema_version": SCHEMA_VERSION, "kind": "table"},
        ),
    }
    write_store(out, groups, attrs=plain(attrs), files={"metrics.json": metrics_json(records)})


def _cosines(
    weights: np.ndarray, gram: np.ndarray, maps: np.ndarray, category: np.ndarray
) -> np.ndarray:
    """(n_maps, n_rows) cosines of ``weights[r] E`` with the embedding of ``category[r]``.

    Only inner products are needed: ``<w E, e_c> = (w G)_c`` and ``|w E|^2 = w G w'``.
    """
    mapped = gram[maps[:, :, None], maps[:, None, :]]
    inner = weights @ mapped
    square = np.clip((inner * weights).sum(axis=2), 0.0, None)
    own = np.take_along_axis(inner, category[None, :, None], axis=2)[:, :, 0]
    length = np.sqrt(square * mapped[:, category, category])
    # Rounding leaves a tiny square where the mixture vanishes: relative to its parts.
    parts = np.abs(weights) @ np.sqrt(np.diagonal(mapped, axis1=1, axis2=2)).T
    real = np.sqrt(square) > 1e-7 * parts.T
    return np.where(real & (length > 0), own / np.where(length > 0, length, 1.0), 0.0)


def _right(margin: np.ndarray) -> np.ndarray:
    """1 where positive, 0.5 where zero up to rounding (of cosines), 0 where negative."""
    return np.where(np.abs(margin) <= 1e-12, 0.5, margin > 0)


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
    maps: np.ndarray,
    exact: bool,
    origin: str,
) -> dict[str, Any]:
    how = f"all {len(maps)} maps" if exact else f"{len(maps) - 1} random maps"
    return {
        "ci_level": section.ci,
        "chance": 0.5,
        "n_candidates": 2,
        "n_candidates_min": 2,
        "n_folds": len({tuple(p) for p in weights.pairs.tolist()}),
        "decoder": "ridge",
        "embedding": name,
        "prompt_set": name,
        "target": target,
        "split": "category pairs",
        "subject": "all",
        "data_origin": origin,
        "null": f"{how} from category to embedding, equal to refitting on each",
        "bootstrap_unit": "event",
    }


def _record(
    metric: str,
    by_map: np.ndarray,
    ci: tuple[float, float],
    exact: bool,
    n: int,
    common: Mapping[str, Any],
) -> dict[str, Any]:
    # The true map comes first and counts once among all, as it does in a permutation p-value.
    p = float(np.mean(by_map >= by_map[0] - 1e-12))
    return {
        "metric": metric, "value": float(by_map[0]), "ci_low": ci[0], "ci_high": ci[1],
        "p_value": p, "n_queries": n, **common,
    }  # fmt: skip


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


def _verdict(
    records: Sequence[Mapping[str, Any]], n_maps: int, exact: bool, n_subjects: int
) -> dict[str, Any]:
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
    maps = f"{'all ' if exact else ''}{n_maps} maps from category to embedding"
    start = (
        "Two categories that training never showed are told apart in "
        if evidence
        else "No evidence that two categories that training never showed can be told apart: "
    )
    text = f"{start}{'; '.join(parts)}. Chance is 50 %, the null is {maps}, {people}."
    return {
        "text": lead_in(first["data_origin"]) + text,
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
