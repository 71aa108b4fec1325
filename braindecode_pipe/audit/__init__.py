"""Look for leaks between training and test: before anything is trained, and in a finished run.

Nothing is computed anew: the plan's tables, and the scopes that everything fitted carries, are
compared. What is looked for stands in :data:`CHECKS`. An empty result means that none of it was
found, not that there can be no other leak.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from braindecode_pipe.audit.design import audit_plan
from braindecode_pipe.audit.findings import (
    CHECKS,
    Check,
    Finding,
    check_names,
    finding,
    refuse,
    worst_first,
)
from braindecode_pipe.audit.stores import (
    audit_embedding,
    audit_extents,
    audit_ledger,
    audit_prediction,
    audit_recording,
    audit_scopes,
    audit_tokens,
    audit_trials,
)
from braindecode_pipe.errors import MissingFileError, StoreError
from braindecode_pipe.evaluate.ledger import read
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import is_committed, store_attrs

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "audit",
    "audit_plan",
    "audit_stores",
    "check_names",
    "refuse",
    "worst_first",
]


def audit(out: str | Path) -> list[Finding]:
    """Findings of all checks on the folder of a run; errors first.

    Parameters
    ----------
    out : folder of a run, ``<out>/<stage>/<unit>/<key>.zarr``

    Raises
    ------
    MissingFileError
        There is no plan in it.
    """
    out = Path(out)
    record = _record(out)
    stores = {stage: _stores(out, stage, record) for stage in _stages(out)}
    plans = stores.get("plan", [])
    if not plans:
        raise MissingFileError(
            "there is no plan to audit",
            file=out,
            expected="plan/<unit>/<key>.zarr, as `braindecode-pipe run` writes it",
            found="none",
            remedy="name the folder of a run",
        )
    failed = [
        str(unit["unit"])
        for unit in record.get("units", [])
        if unit["stage"] == "preprocess" and unit["status"] == "failed"
    ]
    loaded = [(StudyPlan.load(path).without(failed), store_attrs(path)) for path in plans]
    findings = [f for plan, attrs in loaded for f in audit_plan(plan, attrs)]
    # Plans of earlier settings may lie beside the current one: the best match is the one used.
    findings += min((audit_stores(plan, attrs, stores) for plan, attrs in loaded), key=len)
    for path in stores.get("evaluate", []):
        entries = read(record.get("ledger", ""), str(store_attrs(path).get("test_hash", "")))
        findings += audit_ledger(path, entries, str(record.get("configuration", "")))
    return worst_first(findings)


def audit_stores(
    plan: StudyPlan, attrs: dict[str, Any], stores: dict[str, Iterable[Path]]
) -> list[Finding]:
    """Findings about everything that was fitted and predicted under one plan.

    Parameters
    ----------
    plan : StudyPlan
    attrs : attributes of its store
    stores : stage -> its stores; stages that no check of their own knows fall under the general
        rules for ``*_scope`` and ``fit_extents``
    """
    extent = tuple(attrs.get("extent", (0.0, None)))
    stores = {stage: list(paths) for stage, paths in stores.items()}
    findings: list[Finding] = []
    recordings = stores.pop("preprocess", [])
    for path in recordings:
        findings += _readable(path, audit_recording, plan, extent)
    findings += audit_trials(recordings, plan)
    for path in stores.pop("embed", []):
        findings += _readable(path, audit_embedding, plan)
    for path in stores.pop("tokenize", []):
        findings += _readable(path, audit_tokens, plan)
    for stage in ("plan", "evaluate", "report"):
        stores.pop(stage, None)
    for path in (path for paths in stores.values() for path in paths):
        findings += _readable(path, _audit_fitted, plan)
        findings += _readable(path, audit_extents, plan, extent)
    return findings


def _audit_fitted(path: Path, plan: StudyPlan) -> Iterable[Finding]:
    is_prediction = store_attrs(path).get("kind") == "prediction"
    return audit_prediction(path, plan) if is_prediction else audit_scopes(path, plan)


def _readable(path: Path, check: Callable[..., Iterable[Finding]], *rest: Any) -> list[Finding]:
    """Findings of a check; of a damaged store that it is. What needs the store fails by itself."""
    try:
        return list(check(path, *rest))
    except StoreError as error:
        return [finding("unreadable", "", error.message, [path.parent.name])]


def _record(out: Path) -> dict[str, Any]:
    """What the last ``run`` said of itself; nothing where there is no ``run.json``."""
    file = out / "run.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _stages(out: Path) -> list[str]:
    return sorted({path.parent.parent.name for path in out.glob("*/*/*.zarr")})


def _stores(out: Path, stage: str, record: dict[str, Any]) -> list[Path]:
    """Stores of a stage that the last run used; without ``run.json`` all that there are."""
    units = record.get("units", [])
    named = [out / u["store"] for u in units if u["stage"] == stage and u.get("store")]
    stores = named or sorted((out / stage).glob("*/*.zarr"))
    return [path for path in stores if is_committed(path)]
