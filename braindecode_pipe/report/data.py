"""Sections on the audit, the ledger of the test set, and the data with all that was left out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from braindecode_pipe.evaluate.ledger import configuration_of, summary
from braindecode_pipe.report import wording
from braindecode_pipe.report.document import (
    Block,
    Column,
    Heading,
    Items,
    Link,
    Links,
    Section,
    Table,
    Text,
    attempt,
)
from braindecode_pipe.report.study import ZERO_SHOT, Evaluation, Study

MAX_ENTRIES = 50


def page_name(recording: str) -> str:
    """File name of a recording's quality page, safe for any recording id."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", recording).lstrip(".") or "recording"
    if safe != recording or len(safe) > 120 or safe.lower() == "index":
        safe = f"{safe[:100]}-{hashlib.sha256(recording.encode()).hexdigest()[:8]}"
    return f"{safe}.html"


def audit_section(study: Study) -> Section:
    """What was looked for between training and test, and what was found."""
    blocks = attempt("audit", _audit, study)
    return Section("audit", "Audit", tuple(blocks))


def _audit(study: Study) -> Iterator[Block]:
    found = study.inputs.audit
    leaks = [f for f in found if f["severity"] == "error"]
    if leaks:
        names = wording.joined(list(dict.fromkeys(str(f["check"]) for f in leaks)))
        yield Text(
            f"Training and test are not apart ({names}). This was allowed; no number on this page "
            "tells how well anything new is decoded.",
            "warning",
        )
    elif found:
        yield Text("No leak was found; what follows may still weigh on the numbers.", "lead")
    else:
        yield Text("No leak was found, nor a sign of one.", "lead")
    rows = [(str(f["check"]), str(f["fold"]) or "all", str(f["text"])) for f in found]
    if rows:
        columns = (Column("Check"), Column("Fold"), Column("Found"))
        yield Table(f"Findings ({len(rows)})", columns, tuple(rows), folded=len(rows) > 10)
    yield Text(
        "Compared, before training and again before evaluation: events, stimuli, near-duplicates, "
        "pieces of files, windows, neighbours in time, what filters reach, raw recordings, and the "
        "scope that everything fitted carries.",
        "note",
    )


def ledger_section(study: Study) -> Section:
    """How many configurations were ever scored on these test items."""
    blocks: list[Block] = [
        Text(
            "Every configuration that was ever scored on a set of test items is written down, so "
            "that a result can be read next to the number of attempts that led to it.",
            "note",
        )
    ]
    evaluations = [*study.evaluations, *([study.zero_shot] if study.zero_shot else [])]
    by_hash: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        failed = attempt(f"ledger, {evaluation.name}", lambda e=evaluation: e.attrs and ())
        blocks += failed
        if not failed:
            by_hash.setdefault(evaluation.test_hash, []).append(evaluation)
    for test_hash, found in by_hash.items():
        blocks += attempt(f"ledger of {test_hash}", _ledger, study, test_hash, found)
    return Section("ledger", "Ledger of the test set", tuple(blocks))


def _ledger(study: Study, test_hash: str, evaluations: list[Evaluation]) -> Iterator[Block]:
    entries = study.inputs.ledger.get(test_hash)
    if not entries:
        names = wording.joined([e.name for e in evaluations])
        yield Text(f"The ledger holds no entry for the test set of {names}.", "warning")
        return
    place = summary(entries, configuration_of(study.recipe))
    text = f"{wording.count(place['count'], 'configuration')} on this test set; this is not one."
    if place["number"] is not None:
        text = f"Configuration {place['number']} of {place['count']} on this test set."
    yield Text(text, "lead")
    lines = []
    for evaluation in evaluations:
        metric = str(evaluation.verdict.get("metric"))
        alike = [e for e in entries if e["metric"] == metric
                 and e["n_candidates"] == evaluation.verdict.get("n_candidates")]  # fmt: skip
        if alike:
            values = [float(e["value"]) for e in alike]
            lines.append(
                f"{_title(evaluation)}: {wording.metric_name(metric)} here "
                f"{wording.score(metric, evaluation.verdict.get('value'))}; over all "
                f"{wording.count(len(alike), 'score')} on this test set best "
                f"{wording.score(metric, max(values))}, median "
                f"{wording.score(metric, float(np.median(values)))}"
            )
    yield Items(tuple(lines))
    yield _ledger_table(entries, test_hash)


def _title(evaluation: Evaluation) -> str:
    return "Zero-shot" if evaluation.name == ZERO_SHOT else f"Embedding “{evaluation.name}”"


def _ledger_table(entries: list[dict], test_hash: str) -> Table:
    order = {c: i + 1 for i, c in enumerate(dict.fromkeys(e["configuration"] for e in entries))}
    rows = [
        (
            str(order[e["configuration"]]),
            str(e["configuration"])[:8],
            str(e.get("study", "")),
            str(e["embedding"]),
            wording.decoder_name(str(e["decoder"])),
            wording.metric_name(str(e["metric"])),
            wording.score(str(e["metric"]), e["value"]),
            wording.plain(e["n"]),
            wording.plain(e.get("n_candidates")),
        )
        for e in entries
    ]
    names = ("Number", "Configuration", "Study", "Embedding", "Decoder", "Metric")
    numeric = ("Value", "Queries", "Candidates")
    columns = (*map(Column, names), *(Column(n, True) for n in numeric))
    notes = (f"Test set {test_hash}.",)
    if len(rows) > MAX_ENTRIES:
        notes += (f"The last {MAX_ENTRIES} of {len(rows)} entries are shown.",)
    caption = f"Everything scored on this test set ({wording.count(len(rows), 'entry', 'entries')})"
    return Table(caption, columns, tuple(rows[-MAX_ENTRIES:]), notes, folded=True)


def data_section(study: Study) -> Section:
    """Recordings, events and stimuli, and all that was left out, with the reason."""
    blocks: list[Block] = []
    blocks += attempt("recordings", _recordings, study)
    blocks += attempt("exclusions", _exclusions, study)
    blocks += attempt("events left out", _drops, study)
    blocks += attempt("stimuli", _stimuli, study)
    return Section("data", "Data and exclusions", tuple(blocks))


def _recordings(study: Study) -> Iterator[Block]:
    table = study.plan.recordings
    counts = Counter(study.plan.events["recording"].astype(str))
    pages = study.section("report").get("qc", True)
    rows = []
    for row in table.to_dict("records"):
        name = str(row["recording"])
        linked = pages and name in study.inputs.signals
        size = row.get("n_sensors")
        rows.append(
            (
                Link(name, f"qc/{page_name(name)}") if linked else name,
                str(row["subject"]),
                str(row["datatype"]),
                wording.plain(size) if wording.number(size) > 0 else wording.NOTHING,
                wording.plain(row["sfreq"], 4),
                wording.duration(wording.number(row["duration"])),
                str(counts.get(name, 0)),
                f"excluded: {row['exclude_reason']}" if row["excluded"] else "used",
            )
        )
    columns = (
        Column("Recording"), Column("Person"), Column("Type"), Column("Sensors in file", True),
        Column("Rate [Hz]", True), Column("Duration", True), Column("Events", True),
        Column("State"),
    )  # fmt: skip
    note = ("The name of a recording leads to its quality page.",) if pages else ()
    yield Table("Recordings", columns, tuple(rows), note)
    if pages and study.inputs.signals:
        yield Links((Link("Quality of all recordings, the worst first", "qc/index.html"),))


def _exclusions(study: Study) -> Iterator[Block]:
    attrs = study.plan_attrs
    notes = [f"{name}: excluded, {why}" for name, why in (attrs.get("excluded") or {}).items()]
    notes += [f"{name}: {why}" for name, why in (attrs.get("problems") or {}).items()]
    for first, second, part in attrs.get("duplicates") or []:
        notes.append(f"{first} and {second} share {wording.share(part, 0)} of their samples")
    shared = attrs.get("shared_stimuli") or {}
    for target, stimuli in shared.items():
        if stimuli:
            notes.append(
                f"{wording.count(len(stimuli), 'stimulus', 'stimuli')} of target “{target}” "
                "are in training and in test: what is decoded is which of a known set was shown"
            )
    yield Heading("Exclusions and warnings")
    yield Items(tuple(notes)) if notes else Text("Nothing was excluded and nothing was reported.")


def _drops(study: Study) -> Iterator[Block]:
    outside = study.plan_attrs.get("dropped_events") or {}
    rows = [(str(k), "outside the recording", str(v), "all") for k, v in outside.items() if v]
    for embedding in study.inputs.predictions:
        seen: dict[tuple[str, str], dict[str, int]] = {}
        for _, attrs in study.predictions(embedding):
            dropped = attrs.get("dropped") or {}
            person = str(attrs.get("subject") or "all")
            for reason, n in dropped.items():
                # Every fold and decoder of a person reads the same windows: take the most.
                most = seen.setdefault((person, str(reason)), {"n": 0})
                most["n"] = max(most["n"], int(np.sum(n)))
        rows += [
            (f"person {who}", reason, str(v["n"]), embedding)
            for (who, reason), v in sorted(seen.items())
            if v["n"]
        ]
    if not rows:
        yield Text("No event was dropped.")
        return
    columns = (Column("Where"), Column("Reason"), Column("Events", True), Column("Embedding"))
    yield Table("Events left out", columns, tuple(rows))


def _stimuli(study: Study) -> Iterator[Block]:
    rows = []
    for (target, kind), part in study.plan.stimuli.groupby(["target", "kind"], sort=False):
        categories = sorted({str(c) for c in part["category"]} - {""})
        labels = [str(v) for v in part["label"]]
        rows.append(
            (
                str(target),
                str(kind),
                str(len(part)),
                str(len(categories)) if categories else wording.NOTHING,
                wording.joined(sorted(labels), 10),
            )
        )
    columns = (
        Column("Target"), Column("Kind"), Column("Stimuli", True), Column("Categories", True),
        Column("Labels"),
    )  # fmt: skip
    yield Table("Stimuli", columns, tuple(rows))


def licence_texts(data: Path) -> list[tuple[str, str]]:
    """(file, text) of everything in the data folder that states a licence of the stimuli."""
    found = []
    for pattern in ("LICEN[SC]E*", "README*", "stimuli/LICEN[SC]E*", "stimuli/README*"):
        for path in sorted(Path(data).glob(pattern)):
            if path.is_file() and path.stat().st_size < 200_000:
                text = path.read_text(encoding="utf-8", errors="replace")
                lines = [line.strip() for line in text.splitlines()]
                stated = [ln for ln in lines if re.search(r"licen[sc]e|CC[ -]BY|CC0", ln, re.I)]
                chosen = stated if path.name.upper().startswith("README") else lines[:6]
                text = " ".join(filter(None, chosen))[:600]
                if text:
                    found.append((path.relative_to(data).as_posix(), text))
    return found
