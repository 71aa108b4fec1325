"""What several fits of one decoder say together: its seeds, and the pieces of its window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.evaluate.statistics import permutation_p

SEEDS = "seeds"
# What a record says of one fit alone.
_OF_ONE = ("ci_low", "ci_high", "p_value", "draws", "draws_mean", "draws_low", "draws_high")
_DECIMALS = 6


def labels_of(found: Iterable[FoldPrediction], *roles: str) -> list[str]:
    """Labels of what was fitted in some roles, in order."""
    return list(dict.fromkeys(part.decoder for part in found if part.role in roles))


def describe(part: FoldPrediction) -> dict[str, Any]:
    """Fields of a record that tell a seed, or a piece of the window, from its decoder."""
    fields: dict[str, Any] = {"decoder": part.decoder}
    if part.role != "decoder":
        fields["base_decoder"] = part.base
    if part.role == "seed":
        fields["seed"] = part.seed
    if part.role == "piece" and part.window is not None:
        begin, end = part.window
        centre = round((begin + end) / 2, _DECIMALS)
        fields |= {"window_begin": begin, "window_end": end, "window_centre": centre}
    return fields


def over_seeds(
    records: Sequence[Mapping[str, Any]], found: Iterable[FoldPrediction]
) -> list[dict[str, Any]]:
    """Mean, standard deviation and range of every score over the seeds of a decoder.

    The standard deviation is that of a sample (``n - 1``). It tells how much training by itself
    moves a score; people and stimuli are the same for all seeds, so it is no interval.

    Parameters
    ----------
    records : of ``metrics.score`` for all decoders
    found : the predictions they are made of

    Returns
    -------
    records of the decoder ``<name>.seeds`` with ``sd``, ``value_min``, ``value_max``, ``n_seeds``;
    none for decoders with one seed
    """
    labels: dict[str, list[str]] = {}
    for part in found:
        if part.role != "piece" and part.decoder not in labels.setdefault(part.base, []):
            labels[part.base].append(part.decoder)
    out = []
    for base, own in labels.items():
        if len(own) < 2:
            continue
        together: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for record in records:
            if record["decoder"] in own:
                together.setdefault((record["subject"], record["metric"]), []).append(record)
        for rows in together.values():
            values = np.array([row["value"] for row in rows])
            out.append(
                {key: value for key, value in rows[0].items() if key != "seed"}
                | {key: None for key in _OF_ONE if key in rows[0]}
                | {
                    "decoder": f"{base}.{SEEDS}",
                    "base_decoder": base,
                    "value": float(values.mean()),
                    "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                    "value_min": float(values.min()),
                    "value_max": float(values.max()),
                    "n_seeds": len(values),
                    "null": "none",
                    "bootstrap_unit": "",
                }
            )
    return out


def add_curve_p(
    records: Sequence[dict[str, Any]],
    nulls: Mapping[str, Mapping[str, np.ndarray]],
    larger_is_better: Mapping[str, bool],
) -> None:
    """Give the records of pieces, over everybody, a p-value that holds for the whole curve.

    Against the best of all pieces of the decoder in each permutation (largest statistic: Nichols &
    Holmes 2002, Human Brain Mapping 15, 1-25), which controls the probability of any false
    positive along the curve. All pieces of a fold are scored on the same events, so a permutation
    is the same for each. Field ``p_value_curve``; left out where a piece lacks some of the events.

    Parameters
    ----------
    records : of the pieces
    nulls : label -> metric -> (permutations,)
    larger_is_better : metric -> bool
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        if record["subject"] == "all":
            groups.setdefault((record["base_decoder"], record["metric"]), []).append(record)
    for (_, metric), own in groups.items():
        drawn = [nulls[record["decoder"]][metric] for record in own]
        same = len({record["n_queries"] for record in own}) == 1
        if not same or len({len(null) for null in drawn}) > 1 or not len(drawn[0]):
            continue
        larger = larger_is_better[metric]
        best = np.max(drawn, axis=0) if larger else np.min(drawn, axis=0)
        for record in own:
            record["p_value_curve"] = permutation_p(record["value"], best, larger)
