"""Records of ``metrics.json``: values with chance, interval, null and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import InputError
from braindecode_pipe.evaluate.metrics import Metric, Queries, metrics_for
from braindecode_pipe.evaluate.protocols import Protocol, protocol_of
from braindecode_pipe.evaluate.queries import ScoredFold, join_folds
from braindecode_pipe.evaluate.ranking import k_way_draws
from braindecode_pipe.evaluate.retrieval import top_k_probability
from braindecode_pipe.evaluate.statistics import exchange, interval, permutation_p, resample
from braindecode_pipe.recipe import EvaluateSection


def score(
    queries: Queries,
    metrics: Sequence[Metric],
    section: EvaluateSection,
    *,
    together: bool,
    subjects: Sequence[str],
    describe: Mapping[str, Any],
    protocol: Protocol | None = None,
    direction: str = "query",
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Records of all metrics, over everybody and per person, with intervals and p-values.

    Parameters
    ----------
    queries : Queries
    metrics : of :func:`metrics_for`
    section : EvaluateSection
    together : exchange stimuli (True) or labels of single queries (False) under the null
    subjects : names of the codes in ``queries.subject``
    describe : fields that all records share (decoder, embedding, ...)
    protocol : Protocol; default: the section's keys
    direction : ``query`` or ``candidate``

    Returns
    -------
    records : list of dict
    null : metric name -> (permutations,) values over everybody
    """
    protocol = protocol_of(section) if protocol is None else protocol
    scopes = {"all": np.arange(len(queries))}
    if len(np.unique(queries.subject)) > 1:
        for code in np.unique(queries.subject):
            scopes[str(subjects[code])] = np.flatnonzero(queries.subject == code)
    parts = {name: queries.take(rows) for name, rows in scopes.items()}
    nulls = _null(queries, parts, scopes, metrics, section, together)
    records = []
    for number, (name, part) in enumerate(parts.items()):
        rng = np.random.default_rng([section.seed, 1, number])
        draws = _bootstrap(part, metrics, section, rng)
        observed = part.outcome(part.label[None])
        for metric in metrics:
            value = float(metric.of(part, observed, _ones(part))[0])
            if not np.isfinite(value):
                continue
            low, high = interval(draws[metric.name], section.ci)
            null = nulls[name][metric.name]
            records.append(
                {
                    "metric": metric.name,
                    "value": value,
                    "ci_low": low,
                    "ci_high": high,
                    "ci_level": section.ci,
                    "chance": metric.by_chance(part),
                    "p_value": permutation_p(value, null, metric.larger_is_better),
                    "n_queries": len(part),
                    "n_candidates": metric.n_way or int(part.n_candidates.max()),
                    "n_candidates_min": metric.n_way or int(part.n_candidates.min()),
                    "n_folds": len(np.unique(part.fold)),
                    "subject": name,
                    "null": _null_name(section, together, len(null)),
                    "bootstrap_unit": section.bootstrap_unit,
                    **_what_was_asked(part, metric, protocol, direction),
                    **_over_draws(part, metric, protocol, section),
                    **describe,
                }
            )
    return records, nulls["all"]


def _what_was_asked(
    queries: Queries, metric: Metric, protocol: Protocol, direction: str
) -> dict[str, Any]:
    averaged = np.ones(1, int) if queries.n_averaged is None else queries.n_averaged
    return {
        "protocol": protocol.name,
        "candidates": f"sampled from {protocol.candidates}" if metric.n_way
        else protocol.candidates,
        "aggregate": protocol.aggregate,
        "n_averaged": int(averaged.max()),
        "n_averaged_min": int(averaged.min()),
        "direction": direction,
    }  # fmt: skip


def _over_draws(
    queries: Queries, metric: Metric, protocol: Protocol, section: EvaluateSection
) -> dict[str, Any]:
    """Scores of single draws of distractors, as papers report them."""
    if not metric.n_way:
        return dict.fromkeys(("draws", "draws_mean", "draws_low", "draws_high"))
    if protocol.pool == "shared":
        number = protocol.n_way.index(metric.n_way)
        ties = queries.pool_ties[:, number]
        hits = top_k_probability(queries.pool_greater[:, number], np.maximum(ties, 1), metric.top)
        asked = (ties > 0).sum(axis=0)
        scores = (hits * (ties > 0)).sum(axis=0)[asked > 0] / asked[asked > 0]
    else:
        rows = np.arange(len(queries))
        greater, ties = (a[rows, queries.label] for a in (queries.greater, queries.ties))
        rng = np.random.default_rng([section.seed, 5, metric.n_way, metric.top])
        scores = k_way_draws(
            greater, ties, queries.n_candidates, metric.n_way, metric.top, protocol.draws, rng
        )
    low, high = interval(scores, section.ci)
    return {
        "draws": len(scores),
        "draws_mean": float(scores.mean()) if len(scores) else np.nan,
        "draws_low": low,
        "draws_high": high,
    }


def averaging_curve(
    averaged: Mapping[str, Mapping[int, Sequence[ScoredFold]]], protocol: Protocol
) -> pd.DataFrame:
    """Scores by the number of trials that are averaged, from single trials on.

    Parameters
    ----------
    averaged : decoder -> number of trials -> folds

    Returns
    -------
    DataFrame
        decoder, n_averaged, aggregate, metric (top-k, mrr, pair_accuracy), value, chance,
        n_queries, n_candidates: one row per decoder, number and metric
    """
    rows = []
    for decoder, by_number in averaged.items():
        for number, folds in by_number.items():
            items = pd.concat([fold.items for fold in folds])
            classes = {s: i for i, s in enumerate(dict.fromkeys(items["stimulus"]))}
            classes |= {s: len(classes) for f in folds for c in f.columns.values() for s in c
                        if s not in classes}  # fmt: skip
            queries = join_folds(folds, classes, sorted(set(items["subject"])))
            once, draw = np.ones((1, len(queries))), queries.outcome(queries.label[None])
            rows += [
                {
                    "decoder": decoder,
                    "n_averaged": number,
                    "aggregate": "none" if number == 1 else protocol.aggregate,
                    "metric": metric.name,
                    "value": float(metric.of(queries, draw, once)[0]),
                    "chance": metric.by_chance(queries),
                    "n_queries": len(queries),
                    "n_candidates": int(queries.n_candidates.max()),
                }
                for metric in metrics_for(queries, protocol.top_k, False)
                if metric.name.startswith("top") or metric.name in ("mrr", "pair_accuracy")
            ]
    return pd.DataFrame(rows)


def check_comparable(records: Sequence[Mapping[str, Any]]) -> None:
    """Raise :class:`InputError` when records of other metrics, candidates or queries are compared.

    The same embeddings score a top-10 of .63 among 50 candidates and of .10 among 1000.
    """
    for key, what in (("metric", "metrics"), ("n_candidates", "numbers of candidates"),
                      ("n_candidates_min", "numbers of candidates"),
                      ("candidates", "candidates"), ("aggregate", "averaging"),
                      ("direction", "directions")):  # fmt: skip
        found = sorted({record.get(key) for record in records}, key=str)
        if len(found) > 1:
            raise InputError(
                f"results with different {what} cannot be compared",
                expected=f"one value of {key}",
                found=", ".join(map(str, found)),
                remedy="compare runs with the same [evaluate] protocol and [split]",
            )


def _null(
    queries: Queries,
    parts: Mapping[str, Queries],
    scopes: Mapping[str, np.ndarray],
    metrics: Sequence[Metric],
    section: EvaluateSection,
    together: bool,
) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, list[np.ndarray]]] = {
        name: {metric.name: [] for metric in metrics} for name in parts
    }
    if _exchangeable(queries):
        rng = np.random.default_rng([section.seed, 0])
        for label in exchange(
            queries.label,
            queries.group,
            section.permutations,
            rng,
            together,
            section.exchange == "shift",
        ):
            for name, part in parts.items():
                if not _exchangeable(part):
                    continue
                drawn = part.outcome(label[:, scopes[name]])
                for metric in metrics:
                    found[name][metric.name].append(metric.of(part, drawn, _ones(part)))
    return {
        name: {m: np.concatenate(v) if v else np.empty(0) for m, v in values.items()}
        for name, values in found.items()
    }


def _ones(queries: Queries) -> np.ndarray:
    return np.ones((1, len(queries)))


def _exchangeable(queries: Queries) -> bool:
    """Whether any group holds two different stimuli."""
    return any(
        len(np.unique(queries.label[queries.group == g])) > 1 for g in np.unique(queries.group)
    )


def _null_name(section: EvaluateSection, together: bool, n: int) -> str:
    if not section.permutations:
        return "none"
    if not n:
        return "none: no two stimuli can be exchanged"
    if section.exchange == "shift" and not together:
        return f"evaluation-only circular shift of stimuli within run, N={n}"
    what = "stimuli within fold" if together else "stimuli within run"
    return f"evaluation-only permutation of {what}, N={n}"


def _bootstrap(
    queries: Queries,
    metrics: Sequence[Metric],
    section: EvaluateSection,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    observed = queries.outcome(queries.label[None])
    units = {
        "event": None,
        "stimulus": observed.classes[0],
        "run": queries.run,
        "subject": queries.subject,
    }[section.bootstrap_unit]
    draws: dict[str, list[np.ndarray]] = {metric.name: [] for metric in metrics}
    if len(queries) > 1 and (units is None or len(np.unique(units)) > 1):
        for weights in resample(len(queries), section.bootstrap, rng, units):
            for metric in metrics:
                draws[metric.name].append(metric.of(queries, observed, weights))
    return {name: np.concatenate(d) if d else np.empty(0) for name, d in draws.items()}
