"""Leaks that the plan alone shows: who is trained on, who is tested, and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from braindecode_pipe.audit.findings import Finding, finding
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan, overlaps, window_times, within_reach

# Columns in which data sets say which trial another one was made from.
_ORIGIN = ("augmented_from", "source_trial", "source_event", "original_trial")
# Splits that keep stimuli apart.
_APART = ("stimulus", "category", "segment", "column")
_FITTED = (ROLES["train"], ROLES["validation"])
_UNITS = {"subject": ("subject",), "session": ("subject", "session"), "run": ("recording",)}
# Test windows whose nearest trained neighbour shows the same, as a share of all: this many, at
# least so often as in a random order of all events, and over at least so many windows.
_SAME, _OVER_RANDOM, _FEWEST = 0.8, 1.5, 5


def audit_plan(plan: StudyPlan, attrs: dict[str, Any]) -> list[Finding]:
    """Findings about the plan itself.

    Parameters
    ----------
    plan : StudyPlan
    attrs : attributes of the plan's store: ``split``, ``duplicates`` and ``extent`` are used, where
        ``extent`` is (tmin, tmax) [s] of windows; default: from onset to end of the event
    """
    findings: list[Finding] = []
    split, extent = attrs.get("split", {}), attrs.get("extent", (0.0, None))
    for fold, name in enumerate(plan.folds["fold"].astype(str)):
        fitted, test = np.flatnonzero(np.isin(plan.role[fold], _FITTED)), plan.rows(fold, "test")
        findings += _divided_groups(plan, fitted, test, name, split)
        findings += _same_events(plan, fitted, test, name)
        findings += _made_from_one(plan, fitted, test, name)
        findings += _shared_stimuli(plan, fitted, test, name, split)
        findings += _shared_clips(plan, fitted, test, name, split)
        findings += _overlaps(plan, fitted, test, name, extent)
        findings += _neighbours(plan, fitted, test, name, split)
        findings += _copies(plan, fitted, test, name, attrs.get("duplicates", []))
        findings += _joined(plan, fold, name, attrs)
    return findings


def split_target(plan: StudyPlan, split: dict[str, Any]) -> str:
    """Target whose stimuli the split keeps apart: the one named, or the first."""
    return split.get("target") or str(plan.stimuli["target"].iloc[0])


def _divided_groups(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str, split: dict[str, Any]
) -> Iterator[Finding]:
    columns = _UNITS.get(split.get("by", ""), ())
    if not columns or not set(columns) <= set(plan.events):
        return
    unit = plan.events[list(columns)].astype(str).agg(" ".join, axis=1).to_numpy()
    both = sorted(set(unit[fitted]) & set(unit[test]))
    if both:
        what = f"split by {split['by']}, and yet trained on and tested"
        yield finding("groups", fold, what, both)


def _same_events(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str
) -> Iterator[Finding]:
    content = dict(zip(plan.recordings["recording"], plan.recordings["content_hash"]))
    ids = plan.events["event"].to_numpy()
    both = sorted(set(ids[fitted]) & set(ids[test]))
    if both:
        yield finding("events", fold, "events are trained on and tested", both)
    where = list(zip(plan.events["recording"].map(content), plan.events["onset"].astype(float)))
    trained = {where[i] for i in fitted}
    twice = sorted({str(ids[i]) for i in test if where[i] in trained} - set(both))
    if twice:
        yield finding(
            "events",
            fold,
            "tested events have the recording content and onset of trained ones",
            twice,
        )


def _made_from_one(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str
) -> Iterator[Finding]:
    """Trials on both sides that a column of the data set traces back to one trial."""
    origin = plan.events["event"].astype(str).to_numpy(object).copy()
    for column in (c for c in _ORIGIN if c in plan.events):
        made = plan.events[column].fillna("").astype(str).to_numpy(object)
        own = np.isin(made, ["", "n/a", "nan"])
        origin = np.where(own, origin, made)
    ids = plan.events["event"].to_numpy()
    trained = {origin[i] for i in fitted}
    met = sorted(
        {str(ids[i]) for i in test if origin[i] in trained} - {str(ids[i]) for i in fitted}
    )
    if met:
        yield finding("copied-trials", fold, "tested trials and trained ones were made from one "
                      "trial", met)  # fmt: skip


def _shared_stimuli(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str, split: dict[str, Any]
) -> Iterator[Finding]:
    by = split.get("by")
    if by not in (*_APART, "time"):
        return
    target = split_target(plan, split)
    shown = plan.events[f"stimulus_{target}"].to_numpy()
    own = plan.stimuli[plan.stimuli["target"] == target]
    label = dict(zip(own["stimulus"], own["label"].astype(str)))
    trained, tested = set(shown[fitted]) - {""}, set(shown[test]) - {""}
    both = sorted(label.get(s, s) for s in trained & tested)
    if both and by == "time":
        what = "tested stimuli were shown in the training part of the same recordings"
        yield finding("repeated-stimuli", fold, what, both)
    if by == "time":
        return
    if both:
        yield finding("stimuli", fold, "stimuli are trained on and tested", both)
    columns = {"near_duplicate_group": "near-duplicates of tested stimuli are"}
    if by == "category":
        columns["category"] = "categories that are tested are"
    alike = {what: dict(zip(own["stimulus"], own[column].astype(str)))
             for column, what in columns.items() if column in own}  # fmt: skip
    if "kind" in own and by != "segment":
        alike["texts that are tested are, in other spelling,"] = {
            s: "".join(c for c in str(text).casefold() if c.isalnum())
            for s, text, kind in zip(own["stimulus"], own["label"], own["kind"])
            if kind in ("text", "concept")
        }
    for what, group in alike.items():
        known = {group[s] for s in trained - tested if group.get(s)}
        close = sorted(label.get(s, s) for s in tested - trained if group.get(s) in known)
        if close:
            yield finding("stimuli", fold, f"{what} trained on", close)


def _shared_clips(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str, split: dict[str, Any]
) -> Iterator[Finding]:
    """Pieces of one file that overlap in it, as two stimuli of which one is tested.

    A tenth of a piece on either side does not count: words of an alignment touch.
    """
    if split.get("by") not in _APART:
        return
    target = split_target(plan, split)
    own = plan.stimuli[plan.stimuli["target"] == target]
    if "source" not in own or "onset" not in own:
        return
    shown = plan.events[f"stimulus_{target}"].to_numpy()
    trained, tested = set(shown[fitted]) - {""}, set(shown[test]) - {""}
    found: list[str] = []
    pieces = own[(own["source"].astype(str) != "") & own["onset"].notna() & own["offset"].notna()]
    for _, part in pieces.groupby("source"):
        ids = part["stimulus"].to_numpy()
        start, stop = part["onset"].to_numpy(float), part["offset"].to_numpy(float)
        ours = np.isin(ids, sorted(tested - trained))
        theirs = np.isin(ids, sorted(trained))
        if ours.any() and theirs.any():
            edge = 0.1 * (stop - start)[ours]
            met = overlaps(start[ours] + edge, stop[ours] - edge, start[theirs], stop[theirs])
            found += [str(v) for v in part["label"].to_numpy()[ours][met]]
    if found:
        what = "pieces of a file that are tested share time with trained ones"
        yield finding("source-clips", fold, what, sorted(found))


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
    start, stop = window_times(plan.events, tuple(extent))
    found: list[int] = []
    for name in sorted(set(recording[test]) - epoched):
        ours, theirs = test[recording[test] == name], fitted[recording[fitted] == name]
        if len(theirs):
            met = overlaps(start[ours], stop[ours], start[theirs], stop[theirs])
            found += list(ours[met])
    if found:
        events = list(plan.events["event"].iloc[sorted(found)])
        what = "windows of tested events overlap trained ones in time"
        yield finding("time", fold, what, events)


def _neighbours(
    plan: StudyPlan, fitted: np.ndarray, test: np.ndarray, fold: str, split: dict[str, Any]
) -> Iterator[Finding]:
    """Tested windows whose nearest trained window in the recording shows the same stimulus.

    Slow drifts make neighbours alike. Where the stimulus is the same for a whole recording or a
    block of it, and its windows are dealt out, drifts tell the answer. Compared with how often a
    trained event of the study shows the same.
    """
    target = split_target(plan, split)
    shown = plan.events[f"stimulus_{target}"].astype(str).to_numpy()
    recording = plan.events["recording"].to_numpy()
    onset = plan.events["onset"].to_numpy(float)
    fitted, test = fitted[shown[fitted] != ""], test[shown[test] != ""]
    share = {s: n / len(fitted) for s, n in zip(*np.unique(shown[fitted], return_counts=True))}
    same, random, met = 0, 0.0, []
    for name in sorted(set(recording[test]) & set(recording[fitted])):
        ours, theirs = test[recording[test] == name], fitted[recording[fitted] == name]
        order = theirs[np.argsort(onset[theirs], kind="stable")]
        after = np.searchsorted(onset[order], onset[ours])
        left, right = order[np.maximum(after - 1, 0)], order[np.minimum(after, len(order) - 1)]
        nearer = np.abs(onset[left] - onset[ours]) <= np.abs(onset[right] - onset[ours])
        alike = shown[np.where(nearer, left, right)] == shown[ours]
        same += int(alike.sum())
        random += sum(share.get(s, 0.0) for s in shown[ours])
        met += list(ours[alike])
    if len(met) >= max(_FEWEST, _SAME * len(test)) and same > _OVER_RANDOM * random:
        what = (
            f"{same} of {len(test)} tested windows lie beside a trained one that shows the same "
            f"({random:.0f} in a random order)"
        )
        yield finding("segments", fold, what, plan.events["event"].iloc[sorted(met)])


def _joined(plan: StudyPlan, fold: int, name: str, attrs: dict[str, Any]) -> Iterator[Finding]:
    """Fitted windows into which filters carry samples of tested ones."""
    reach = {n: float("inf") if s == "recording" else float(s)
             for n, s in attrs.get("filter_reach_s", {}).items()}  # fmt: skip
    rows = within_reach(plan, fold, tuple(attrs.get("extent", (0.0, None))), reach)
    if len(rows):
        far = max(reach.values())
        far = f"filters reach {far:.2f} s" if np.isfinite(far) else "one fit over the recording"
        yield finding("filters", name,
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
        yield finding("recordings", fold,
                       "tested recordings hold the same samples as trained ones",
                       [f"{a} = {b}" for a, b in sorted(pairs)])  # fmt: skip
