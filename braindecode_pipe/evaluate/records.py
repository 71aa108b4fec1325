"""``metrics.json`` as bytes, the hash that names a test set, and the groups of the store."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from braindecode_pipe.schema import ROLES, SCHEMA_VERSION
from braindecode_pipe.splits import StudyPlan, content_hash


def metrics_json(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The records as JSON with sorted keys; numbers that are not finite become null.

    Results over everybody come first, then those per person; the rest of the order is kept.
    """
    ordered = sorted(records, key=lambda r: "" if r["subject"] == "all" else str(r["subject"]))
    text = json.dumps(plain(ordered), indent=1, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode()


def hash_test_items(plan: StudyPlan, target: str, events: Collection[str] | None = None) -> str:
    """SHA-256 over the test items: recording content hash, onset and stimulus of each.

    Items, not names or settings: a renamed folder has the same hash, and so has every decoder,
    embedding and preprocessing that is scored on them.

    Parameters
    ----------
    plan : StudyPlan
    target : name of a target of ``[plan.stimuli]``
    events : ids of the events that are scored; default: every event that some fold tests
    """
    content = dict(zip(plan.recordings["recording"], plan.recordings["content_hash"]))
    if events is None:
        scored = (plan.role == ROLES["test"]).any(axis=0)
    else:
        scored = plan.events["event"].isin(list(events)).to_numpy()
    table = plan.events[scored]
    items = [
        [str(content[recording]), round(float(onset), 6), str(stimulus)]
        for recording, onset, stimulus in zip(
            table["recording"], table["onset"], table[f"stimulus_{target}"]
        )
        if stimulus
    ]
    return content_hash(sorted(items))


def plain(value: Any) -> Any:
    """``value`` with Python's own numbers, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def ledger_entry(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger keeps of the record that stands for a decoder."""
    return {
        "decoder": record["decoder"],
        "metric": record["metric"],
        "value": record["value"],
        "n": record["n_queries"],
        "n_candidates": record["n_candidates"],
        "candidates": record["candidates"],
        "aggregate": record["aggregate"],
        **({"leaks": record["leaks"]} if record["leaks"] else {}),
    }


def null_dataset(nulls: Mapping[str, Mapping[str, np.ndarray]], n: int) -> xr.Dataset:
    """``null(decoder, metric, permutation)``; NaN for a metric without permutations."""
    metrics = list(dict.fromkeys(m for null in nulls.values() for m in null))
    values = np.full((len(nulls), len(metrics), n), np.nan, np.float32)
    for i, null in enumerate(nulls.values()):
        for j, metric in enumerate(metrics):
            if len(null.get(metric, ())):
                values[i, j] = null[metric]
    return xr.Dataset(
        {"null": (("decoder", "metric", "permutation"), values)},
        coords={
            "decoder": ("decoder", np.array(list(nulls), dtype=object)),
            "metric": ("metric", np.array(metrics, dtype=object)),
        },
        attrs={"schema_version": SCHEMA_VERSION, "kind": "table"},
    )


def confusion_dataset(
    confusion: Mapping[str, np.ndarray], names: Sequence[str], kind: str
) -> xr.Dataset:
    """``confusion(decoder, true, predicted)``, counts."""
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
