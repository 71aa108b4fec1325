"""Decoders beside each other on the same queries, and along time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from braindecode_pipe.evaluate.clusters import cluster_test, false_discovery
from braindecode_pipe.evaluate.comparison import compare_items
from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.evaluate.protocols import Protocol
from braindecode_pipe.recipe import EvaluateSection

_UNIT = {"event": "event", "stimulus": "stimulus", "run": "recording", "subject": "subject"}
METRIC = "pair_accuracy"
COMPARED = ("a", "b", "metric", "difference", "ci_low", "ci_high", "p_value", "q_value", "n_items",
            "n_units", "unit")  # fmt: skip


def compare_decoders(
    items: pd.DataFrame, decoders: Sequence[str], section: EvaluateSection
) -> pd.DataFrame:
    """Every pair of decoders on the queries that both answered; false discovery rate over pairs.

    Parameters
    ----------
    items : table ``items`` of an evaluation store
    decoders : names, in the order of the recipe; pairs with other queries are left out
    section : replicates, level, seed, and the unit that is drawn and flipped

    Returns
    -------
    DataFrame
        a, b, metric, difference (mean of ``a - b``), ci_low, ci_high, p_value (two-sided sign
        flips), q_value (Benjamini and Hochberg over all pairs), n_items, n_units, unit
    """
    parts = {d: items[items["decoder"] == d] for d in decoders}
    asked = {d: set(zip(part["event"], part["stimulus"])) for d, part in parts.items()}
    rows = []
    for a, b in combinations(decoders, 2):
        if asked[a] != asked[b]:
            continue
        found = compare_items(
            parts[a], parts[b], _UNIT[section.bootstrap_unit], METRIC,
            n_bootstrap=section.bootstrap, n_permutations=section.permutations,
            level=section.ci, seed=section.seed,
        )  # fmt: skip
        rows.append({"a": a, "b": b, "metric": METRIC, **vars(found)})
    table = pd.DataFrame(rows, columns=[c for c in COMPARED if c != "q_value"])
    table["q_value"] = false_discovery(table["p_value"].to_numpy(float))
    return table[list(COMPARED)]


def windows_of(found: Iterable[FoldPrediction]) -> dict[str, list[tuple[float, float, str]]]:
    """Decoder -> (begin, end [s], label) of the pieces of its window, where there are several."""
    pieces: dict[str, set[tuple[float, float, str]]] = {}
    for part in found:
        if part.role == "piece" and part.window is not None and part.window[1] is not None:
            begin, end = part.window
            pieces.setdefault(part.base, set()).add((float(begin), float(end), part.decoder))
    return {base: sorted(windows) for base, windows in pieces.items() if len(windows) > 1}


def time_clusters(
    found: Iterable[FoldPrediction], items: pd.DataFrame, section: EvaluateSection
) -> pd.DataFrame:
    """When a decoder of short windows is above chance: clusters of neighbouring windows.

    ``pair_accuracy`` per unit and window, against .5. Units are people where there are at least
    six, so that flipping signs can reach p = .05 with room to spare; else stimuli.

    Parameters
    ----------
    found : predictions; those of pieces count
    items : queries of the pieces, one row each, by ``decoder``

    Returns
    -------
    DataFrame
        decoder, start, stop [s], mass (sum of t), p_value, n_units, unit: one row per cluster,
        those without significance among them
    """
    rows = []
    for base, windows in windows_of(found).items():
        unit = "subject" if items["subject"].nunique() >= 6 else "stimulus"
        curves = []
        for _, _, name in windows:
            own = items[items["decoder"] == name]
            value = 1 - (own["rank"] - 1) / (own["n_candidates"] - 1)
            curves.append(value.groupby(own[unit].astype(str)).mean())
        values = pd.concat(curves, axis=1, join="inner").to_numpy(float)
        if len(values) < 2:
            continue
        _, clusters = cluster_test(
            values, 0.5, n_permutations=max(section.permutations, 1), seed=section.seed
        )
        rows += [
            {"decoder": base, "start": windows[c.start][0], "stop": windows[c.stop - 1][1],
             "mass": c.mass, "p_value": c.p_value, "n_units": len(values), "unit": unit}
            for c in clusters
        ]  # fmt: skip
    columns = ["decoder", "start", "stop", "mass", "p_value", "n_units", "unit"]
    return pd.DataFrame(rows, columns=columns)


def comparison_records(
    table: pd.DataFrame,
    items: pd.DataFrame,
    section: EvaluateSection,
    protocol: Protocol,
    describe: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The comparisons as records of ``metrics.json``, with the metric ``paired_difference``."""
    records = []
    for row in table.to_dict("records"):
        own = items[items["decoder"] == row["a"]]
        records.append(
            {
                "metric": "paired_difference",
                "value": row["difference"],
                "ci_low": row["ci_low"],
                "ci_high": row["ci_high"],
                "ci_level": section.ci,
                "chance": 0.0,
                "p_value": row["p_value"],
                "q_value": row["q_value"],
                "n_queries": row["n_items"],
                "n_candidates": int(own["n_candidates"].max()),
                "n_candidates_min": int(own["n_candidates"].min()),
                "n_folds": own["fold"].nunique(),
                "subject": "all",
                "null": f"signs of whole {row['unit']}s flipped, {row['n_units']} of them",
                "bootstrap_unit": section.bootstrap_unit,
                "protocol": protocol.name,
                "candidates": protocol.candidates,
                "aggregate": protocol.aggregate,
                "n_averaged": int(own["n_averaged"].max()),
                "n_averaged_min": int(own["n_averaged"].min()),
                "direction": "query",
                **dict.fromkeys(("draws", "draws_mean", "draws_low", "draws_high")),
                **describe,
                "decoder": f"{row['a']} - {row['b']}",
                "control": "",
            }
        )
    return records
