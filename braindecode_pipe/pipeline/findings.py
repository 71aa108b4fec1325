"""What a plan noticed, in sentences: for `check`, and for the end of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed; ``severity`` is "error", "warning" or "note"."""

    severity: str
    text: str


def plan_findings(attrs: Mapping[str, Any]) -> list[Finding]:
    """Findings in the attributes of a plan: problems, events, copies, exclusions."""
    findings = [Finding("error", text) for text in attrs.get("problems", {}).values()]
    findings += event_findings(attrs)
    findings += purge_findings(attrs)
    findings += reach_findings(attrs)
    findings += [
        Finding("warning", f"{a} and {b} share {share:.0%} of their samples")
        for a, b, share in attrs.get("duplicates", [])
    ]
    findings += [
        Finding("note", f"{name} is excluded: {reason}")
        for name, reason in attrs.get("excluded", {}).items()
    ]
    for join in attrs.get("joins", []):
        left, right = join["left"], join["right"]
        told = [
            f"{what}: {join[what][0]} in {left} alone, {join[what][1]} in {right} alone, "
            f"{join[what][2]} in both"
            for what in ("subjects", "stimuli")
        ]
        findings.append(Finding("note", "; ".join(told)))
    return findings


def purge_findings(attrs: Mapping[str, Any]) -> list[Finding]:
    """Windows that are left out since they reach into another role of the split."""
    told = [
        f"{n} of {total} in fold {fold}" for fold, (n, total) in attrs.get("purged", {}).items()
    ]
    if not told:
        return []
    more = f" and {len(told) - 5} more folds" if len(told) > 5 else ""
    return [
        Finding("note", "windows that reach into another role of the split are left out: "
                + ", ".join(told[:5]) + more)
    ]  # fmt: skip


def reach_findings(attrs: Mapping[str, Any]) -> list[Finding]:
    """Fitted windows that hold something of the test, carried there by filters."""
    within, reach = attrs.get("within_reach", {}), attrs.get("filter_reach_s", {})
    if not within:
        return []
    whole = any(seconds == "recording" for seconds in reach.values())
    longest = max((s for s in reach.values() if s != "recording"), default=0.0)
    far = "one fit over the recording joins" if whole else f"filters reach {longest:.2f} s and join"
    told = [f"{n} of {total} in fold {fold}" for fold, (n, total) in within.items()]
    remedy = '; [split] by = "run" keeps recordings whole'
    if not whole and all(n < total / 2 for n, total in within.values()):
        remedy += f", purge_s = {math.ceil(longest * 100) / 100:g} leaves these windows out"
    return [
        Finding(
            "warning",
            f"{far} training windows with test windows of the same recording: "
            + ", ".join(told[:5])
            + (f" and {len(told) - 5} more folds" if len(told) > 5 else "")
            + remedy,
        )
    ]


def event_findings(attrs: Mapping[str, Any]) -> list[Finding]:
    """Events that were dropped, sorted, or moved to the triggers of the device."""
    findings = [
        Finding("warning", f"{name}: {n} events lie outside the recording and are dropped")
        for name, n in attrs.get("dropped_events", {}).items()
    ]
    findings += [
        Finding("note", f"{name}: the events were not in the order of time ({n} steps back)")
        for name, n in attrs.get("unsorted_events", {}).items()
    ]
    findings += [
        Finding("note", f"{name}: repaired: {'; '.join(texts)}")
        for name, texts in attrs.get("repaired_events", {}).items()
    ]
    for name, report in attrs.get("event_matching", {}).items():
        severity = _severity(report)
        if severity:
            findings.append(Finding(severity, f"{name}: {report['message']}"))
    return findings


def _severity(report: Mapping[str, Any]) -> str:
    """How much a comparison of events and triggers matters; "" where it says nothing new."""
    agreement = report.get("label_agreement")
    if report["status"] in ("device", "table") or report.get("relabelled"):
        return "warning"
    if report["status"] == "not comparable":
        return "warning" if report["n_table"] == report["n_device"] else "note"
    if agreement is not None and 0.9 <= agreement < 1:
        return "warning"
    return ""
