"""Look for leaks between training and test in a finished run, from what its stores say.

Nothing is computed anew: the plan's tables and the fit scopes that predictions carry are compared.
An empty result means that none of the leaks below was found, not that there can be no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import MissingFileError
from braindecode_pipe.evaluate.queries import fold_number
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import (
    StudyPlan,
    divided_recordings,
    seen_tests,
    tested_within,
    within_reach,
)
from braindecode_pipe.store import (
    is_committed,
    list_groups,
    open_store,
    read_table,
    store_attrs,
)

_SHOWN = 8


@dataclass(frozen=True)
class Finding:
    """One leak, or sign of one.

    Attributes
    ----------
    severity : "error" (a score is wrong) or "warning" (a score may be)
    check : name of the check
    fold : name of the fold, or ""
    text : what was found, in one sentence
    names : the events, stimuli, recordings or stores that it concerns
    """

    severity: str
    check: str
    fold: str
    text: str
    names: tuple[str, ...]


def audit(out: str | Path) -> list[Finding]:
    """Findings of all checks on the folder of a run; errors first.

    Checks: events tested and trained on (also under two ids); stimuli, or near-duplicates of them,
    on both sides of a split by stimulus or category; windows of different roles that overlap in
    time within a recording, or that filters join; copies of recordings in different roles;
    preprocessing or tokenizers fitted on samples of tested windows; predictions of events that
    their fold does not test; predictions whose fit scope is not the one of the plan; stimuli on
    both sides whose embeddings are nearly the same.

    Parameters
    ----------
    out : folder of a run, ``<out>/<stage>/<unit>/<key>.zarr``

    Raises
    ------
    MissingFileError
        There is no plan in it.
    """
    out = Path(out)
    plans, failed = _stores(out, "plan"), _failed_recordings(out)
    if not plans:
        raise MissingFileError(
            "there is no plan to audit",
            file=out,
            expected="plan/<unit>/<key>.zarr, as `braindecode-pipe run` writes it",
            found="none",
            remedy="name the folder of a run",
        )
    loaded = [StudyPlan.load(path).without(failed) for path in plans]
    findings = [f for path, plan in zip(plans, loaded) for f in audit_plan(plan, store_attrs(path))]
    for path in _stores(out, "preprocess"):
        reports = [
            list(audit_recording(path, plan, store_attrs(at).get("extent", (0.0, None))))
            for at, plan in zip(plans, loaded)
        ]
        findings += min(reports, key=len)
    for path in _stores(out, "tokenize"):
        findings += min((list(audit_tokens(path, plan)) for plan in loaded), key=len)
    for path in _stores(out, "embed"):
        findings += [f for plan in loaded for f in audit_embedding(path, plan)]
    predictions = [path for path in _stores(out, "train") if _is_prediction(path)]
    for path in predictions:
        reports = [list(audit_prediction(path, plan)) for plan in loaded]
        # Plans of earlier settings may lie beside the current one: the best match is the one used.
        findings += min(reports, key=len)
    return sorted(findings, key=lambda f: f.severity != "error")


def audit_plan(plan: StudyPlan, attrs: dict[str, Any]) -> list[Finding]:
    """Findings about the plan itself.

    Parameters
    ----------
    plan : StudyPlan
    attrs : attributes of the plan's store: ``split``, ``duplicates`` and ``extent`` are used, where
        ``extent`` is (tmin, tmax) [s] of windows; default: from onset to end of the event
    """
    findings: list[Finding] = []
    for fold, name in enumerate(plan.folds["fold"].astype(str)):
        fitted = np.flatnonzero(np.isin(plan.role[fold], [ROLES["train"], ROLES["validation"]]))
        test = plan.rows(fold, "test")
        findings += _same_events(plan, fitted, test, name)
        findings += _shared_stimuli(plan, fitted, test, name, attrs.get("split", {}))
        findings += _overlaps(plan, fitted, test, name, attrs.get("extent", (0.0, None)))
        findings += _copies(plan, fitted, test, name, attrs.get("duplicates", []))
        findings += _joined(plan, fold, name, attrs)
    return findings


def audit_recording(
    path: Path, plan: StudyPlan, extent: tuple[float, float | None]
) -> Iterator[Finding]:
    """Findings about one preprocessed recording: what its scaler, drift terms, ICA ... saw."""
    attrs = store_attrs(path)
    name = str(attrs.get("recording", path.parent.name))
    if name not in divided_recordings(plan):
        return
    extents = attrs.get("fit_extents")
    if extents is None:
        what = "the recording is divided by the split and does not say what was fitted on it"
        yield _finding("warning", "fit extents", "", what, [name])
    elif met := tested_within(plan, name, extents, tuple(extent)):
        what = f"preprocessing of {name} was fitted on samples of tested windows"
        yield _finding("error", "fit extents", "", what, met)


def audit_tokens(path: Path, plan: StudyPlan) -> Iterator[Finding]:
    """Findings about the tokens of one recording that decoders read: what their tokenizer saw."""
    attrs = store_attrs(path)
    if attrs.get("kind") != "response":
        return  # a tokenizer, or codes that nothing is decoded from
    name, seen = str(attrs["recording"]), attrs["tokenizer_seen"]
    if seen is None:
        what = f"the tokenizer of {name} does not say what it was fitted on"
        yield _finding("warning", "tokenizer", "", what, [name])
        return
    content = str(plan.recordings.set_index("recording").loc[name, "content_hash"])
    for fold, label in enumerate(plan.folds["fold"].astype(str)):
        if label in attrs["folds"]:
            met = seen_tests(plan, {content: seen}, tuple(attrs["token_extent"]), fold)
            if met:
                what = f"the tokenizer of {name} was fitted on samples of tested windows"
                yield _finding("error", "tokenizer", label, what, met)


def audit_embedding(path: Path, plan: StudyPlan) -> Iterator[Finding]:
    """Findings about stimuli whose embeddings are nearly the same, one tested, one trained on.

    Only of targets whose stimuli the split keeps apart; the threshold is the table's own.
    """
    attrs = store_attrs(path)
    column = f"stimulus_{attrs.get('target', '')}"
    if "near_duplicates" not in list_groups(path) or column not in plan.events:
        return
    pairs = read_table(path, "near_duplicates")
    shown = plan.events[column].astype(str).to_numpy()
    own = plan.stimuli[plan.stimuli["target"] == attrs["target"]]
    label = dict(zip(own["stimulus"], own["label"].astype(str)))
    for fold, name in enumerate(plan.folds["fold"].astype(str)):
        fitted = np.isin(plan.role[fold], [ROLES["train"], ROLES["validation"]])
        trained, tested = set(shown[fitted]) - {""}, set(shown[plan.rows(fold, "test")]) - {""}
        if trained & tested:
            continue
        close = [
            f"{label.get(a, a)} and {label.get(b, b)} ({cosine:.3f})"
            for a, b, cosine in zip(pairs["first"], pairs["second"], pairs["cosine"])
            if (a in tested and b in trained) or (b in tested and a in trained)
        ]
        if close:
            yield _finding("warning", "near-duplicates", name,
                           f"stimuli on both sides are nearly the same for {attrs['model']}",
                           close)  # fmt: skip


def audit_prediction(path: Path, plan: StudyPlan) -> Iterator[Finding]:
    """Findings about one prediction store: the events it holds, and what its decoder saw."""
    dataset = open_store(path)
    decoder, given = dataset.attrs.get("decoder", "?"), dataset.attrs.get("fold", "")
    fold = fold_number(given, plan)
    if fold is None:
        what = f"{decoder} was trained on a fold that the plan does not have"
        yield _finding("error", "fold", str(given), what, [path.parent.name])
        return
    name = str(plan.folds["fold"].iloc[fold])
    tested = set(plan.events["event"].iloc[plan.rows(fold, "test")])
    strange = sorted({str(e) for e in dataset["event"].values} - tested)
    if strange:
        yield _finding(
            "error",
            "tested events",
            name,
            f"{decoder} is scored on events that the fold does not test",
            strange,
        )
    stored, expected = dataset.attrs.get("fit_scope"), plan.scope(fold).hash()
    if stored is None:
        yield _finding(
            "warning",
            "fit scope",
            name,
            f"{decoder} does not say what it was fitted on",
            [path.parent.name],
        )
    elif stored != expected:
        yield _finding("error", "fit scope", name,
                       f"{decoder} was fitted on something else than the fold's training part",
                       [path.parent.name])  # fmt: skip


def _same_events(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str
) -> Iterator[Finding]:
    content = dict(zip(plan.recordings["recording"], plan.recordings["content_hash"]))
    ids = plan.events["event"].to_numpy()
    both = sorted(set(ids[fitted]) & set(ids[test]))
    if both:
        yield _finding("error", "events", fold, "events are trained on and tested", both)
    where = list(zip(plan.events["recording"].map(content), plan.events["onset"].astype(float)))
    trained = {where[i] for i in fitted}
    twice = sorted({str(ids[i]) for i in test if where[i] in trained} - set(both))
    if twice:
        yield _finding(
            "error",
            "events",
            fold,
            "tested events have the recording content and onset of trained ones",
            twice,
        )


def _shared_stimuli(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str, split: dict[str, Any]
) -> Iterator[Finding]:
    if split.get("by") not in ("stimulus", "category"):
        return
    target = split.get("target") or str(plan.stimuli["target"].iloc[0])
    shown = plan.events[f"stimulus_{target}"].to_numpy()
    own = plan.stimuli[plan.stimuli["target"] == target]
    label = dict(zip(own["stimulus"], own["label"].astype(str)))
    trained, tested = set(shown[fitted]) - {""}, set(shown[test]) - {""}
    both = sorted(label.get(s, s) for s in trained & tested)
    if both:
        yield _finding("error", "stimuli", fold, "stimuli are trained on and tested", both)
    for column, what in (("near_duplicate_group", "near-duplicates of tested stimuli are"),
                         ("category", "categories that are tested are")):  # fmt: skip
        if column not in own or (column == "category" and split.get("by") != "category"):
            continue
        group = {s: str(g) for s, g in zip(own["stimulus"], own[column]) if str(g)}
        known = {group[s] for s in trained - tested if s in group}
        close = sorted(label.get(s, s) for s in tested - trained if group.get(s) in known)
        if close:
            yield _finding("error", "stimuli", fold, f"{what} trained on", close)


def _overlaps(
    plan: StudyPlan,
    fitted: np.ndarray,
    test: np.ndarray,
    fold: str,
    extent: tuple[float, float | None],
) -> Iterator[Finding]:
    """Windows of training and test that share time within a recording (epochs do not)."""
    epoched: set[str] = set()
    if "datatype" in plan.recordings:
        own = plan.recordings["datatype"] == "epochs"
        epoched = set(plan.recordings["recording"][own])
    recording = plan.events["recording"].to_numpy()
    onset = plan.events["onset"].to_numpy(float)
    tmin, tmax = extent
    stop = onset + (plan.events["duration"].to_numpy(float) if tmax is None else tmax)
    onset = onset + tmin
    found: list[int] = []
    for name in sorted(set(recording[test]) - epoched):
        ours, theirs = test[recording[test] == name], fitted[recording[fitted] == name]
        if not len(theirs):
            continue
        order = theirs[np.argsort(onset[theirs], kind="stable")]
        furthest = np.maximum.accumulate(stop[order])
        last = np.searchsorted(onset[order], stop[ours], side="left") - 1
        found += list(ours[(last >= 0) & (furthest[np.maximum(last, 0)] > onset[ours])])
    if found:
        events = list(plan.events["event"].iloc[sorted(found)])
        what = "windows of tested events overlap trained ones in time"
        yield _finding("error", "time", fold, what, events)


def _joined(plan: StudyPlan, fold: int, name: str, attrs: dict[str, Any]) -> Iterator[Finding]:
    """Fitted windows into which filters carry samples of tested ones."""
    reach = {n: float("inf") if s == "recording" else float(s)
             for n, s in attrs.get("filter_reach_s", {}).items()}  # fmt: skip
    rows = within_reach(plan, fold, tuple(attrs.get("extent", (0.0, None))), reach)
    if len(rows):
        far = max(reach.values())
        far = f"filters reach {far:.2f} s" if np.isfinite(far) else "one fit over the recording"
        yield _finding("warning", "filters", name,
                       f"windows that are trained on hold something of tested ones ({far})",
                       list(plan.events["event"].iloc[rows]))  # fmt: skip


def _copies(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str, duplicates: list[Any]
) -> Iterator[Finding]:
    content = dict(zip(plan.recordings["recording"], plan.recordings["content_hash"]))
    recording = plan.events["recording"].to_numpy()
    trained, tested = set(recording[fitted]), set(recording[test])
    pairs = {
        (a, b) for a in tested for b in trained - {a} if content[a] == content[b]
    } | {
        pair
        for first, second, *_ in duplicates
        for pair in ((first, second), (second, first))
        if pair[0] in tested and pair[1] in trained
    }  # fmt: skip
    if pairs:
        yield _finding("error", "recordings", fold,
                       "tested recordings hold the same samples as trained ones",
                       [f"{a} = {b}" for a, b in sorted(pairs)])  # fmt: skip


def _finding(severity: str, check: str, fold: str, what: str, names: list[str]) -> Finding:
    names = [str(name) for name in names]
    shown = ", ".join(names[:_SHOWN])
    if len(names) > _SHOWN:
        shown += f" and {len(names) - _SHOWN} more"
    where = f"fold {fold}: " if fold else ""
    return Finding(severity, check, fold, f"{where}{what}: {shown}", tuple(names))


def _run_units(out: Path) -> list[dict[str, Any]]:
    """What the last ``run`` did, one entry per unit; nothing where there is no ``run.json``."""
    file = out / "run.json"
    if not file.is_file():
        return []
    return list(json.loads(file.read_text(encoding="utf-8")).get("units", []))


def _stores(out: Path, stage: str) -> list[Path]:
    """Stores of a stage that the last run used; without ``run.json`` all that there are."""
    named = [out / u["store"] for u in _run_units(out) if u["stage"] == stage and u.get("store")]
    stores = named or sorted((out / stage).glob("*/*.zarr"))
    return [path for path in stores if is_committed(path)]


def _failed_recordings(out: Path) -> list[str]:
    return [
        str(unit["unit"])
        for unit in _run_units(out)
        if unit["stage"] == "preprocess" and unit["status"] == "failed"
    ]


def _is_prediction(path: Path) -> bool:
    return store_attrs(path).get("kind") == "prediction"
