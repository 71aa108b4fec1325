"""Panels of events: when they were, what was left out, device against sheet, response lag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from braindecode_pipe.report import qc_time_figures, wording
from braindecode_pipe.report.document import Block, Column, Heading, Table, Text
from braindecode_pipe.report.recording import Recording

MAX_SPANS = 40
LAG_UNITS = {"bold": "correlation", "evoked": "field power [s.d.]", "speech": "correlation"}


def timing(recording: Recording) -> Iterator[Block]:
    """Events over time and the intervals between them."""
    events = recording.events
    if events.empty:
        yield Text("The plan has no event of this recording.", "warning")
        return
    study = recording.study
    targets = study.plan.stimuli["target"].unique()
    column = f"stimulus_{targets[0]}" if len(targets) else ""
    level = [study.label(s) if s else "no stimulus" for s in events.get(column, [])]
    onset = events["onset"].to_numpy(float)
    span = extent(recording, onset)
    gaps = recording.bad_spans
    alt = f"{wording.count(len(onset), 'event')} over {wording.duration(span[1] - span[0])}"
    caption = f"{alt}, and the intervals between them."
    caption += " Shaded: spans marked as bad." if gaps else ""
    duration = events["duration"].fillna(0).to_numpy(float)
    yield qc_time_figures.timeline(
        onset, duration, level or ["event"] * len(onset), span, gaps, alt, caption
    )


def extent(recording: Recording, onset: np.ndarray) -> tuple[float, float]:
    """Start and end of the recording [s], or of its events where it has no time of its own."""
    time = recording.time
    if time is not None and len(time):
        return float(time[0]), float(time[-1])
    onset = onset if len(onset) else np.zeros(1)
    return float(onset.min()), float(onset.max())


def in_bad_spans(recording: Recording) -> int | None:
    """How many events have a sample of their window in a bad span; None without such spans."""
    gaps = np.array(recording.bad_spans, float).reshape(-1, 2)
    if not len(gaps) or recording.events.empty:
        return None
    window = recording.study.section("train", "windows")
    onset = recording.events["onset"].to_numpy(float)
    duration = recording.events["duration"].fillna(0).to_numpy(float)
    delay = window.get("delay")
    delay = float(delay) if isinstance(delay, (int, float)) else 0.0
    start = onset + float(window.get("tmin") or 0.0) + delay
    stop = onset + (duration if window.get("tmax") is None else float(window["tmax"])) + delay
    # The first gap that ends after the window began; behind the last one lies a gap at infinity.
    begins = np.append(gaps[:, 0], np.inf)[np.searchsorted(gaps[:, 1], start)]
    return int((begins <= stop).sum())


def drop_log(recording: Recording) -> Iterator[Block]:
    """Every span, event and epoch that was left out, with its reason."""
    spans = recording.spans()
    onset = recording.events["onset"].to_numpy(float)
    rows: list[tuple[str, str, str]] = []
    if spans is None:
        gaps = recording.bad_spans
        if gaps:
            spans = None
            lasted = sum(b - a for a, b in gaps)
            rows.append(("Marked as bad, reason not stored",
                         wording.count(len(gaps), "span"), f"{lasted:.1f} s"))  # fmt: skip
    elif len(spans):
        for reason, part in spans.groupby("reason", sort=False):
            lasted = f"{part['duration'].sum():.1f} s"
            rows.append((str(reason), wording.count(len(part), "span"), lasted))
        alt = f"{wording.count(len(spans), 'span')} left out, by reason"
        caption = f"Spans that were left out: {100 * (1 - recording.good_share):.1f} % of the time."
        yield qc_time_figures.spans(
            spans["onset"].to_numpy(), spans["duration"].to_numpy(), spans["reason"].tolist(),
            extent(recording, onset), alt, caption,
        )  # fmt: skip
    rows += [(reason, n, "") for reason, n in dropped_events(recording)]
    if recording.is_response and "event_good" in recording.root.coords:
        good = np.asarray(recording.root["event_good"].values, bool)
        if not good.all():
            rows.append(("Epochs rejected", f"{int((~good).sum())} of {len(good)}", ""))
    touched = in_bad_spans(recording)
    if touched:
        rows.append(("Windows that meet a bad span", f"{touched} of {len(onset)} events", ""))
    if not rows:
        yield Text("No span, event or epoch was left out.")
        return
    columns = (Column("Left out"), Column("How many", True), Column("In sum", True))
    rows = rows[:MAX_SPANS]
    yield Table("Drop log", columns, tuple(rows))


def dropped_events(recording: Recording) -> list[tuple[str, str]]:
    """(reason, how many) of the events that the plan dropped."""
    found = (recording.plan_attrs.get("dropped_events") or {}).get(recording.name)
    if not found:
        return []
    if isinstance(found, dict):
        return [(f"Events: {why}", str(n)) for why, n in found.items() if n]
    return [("Events outside of the recording", str(found))]


def matching_of(recording: Recording) -> dict[str, Any] | None:
    """What the plan says about the device's triggers against the sheet, or None."""
    return (recording.plan_attrs.get("event_matching") or {}).get(recording.name)


def mismatch(recording: Recording) -> str:
    """What the comparison of table and device says where the two disagree, else ""."""
    found = matching_of(recording) or {}
    share = found.get("label_agreement")
    wrong = (
        found.get("status") in ("device", "table")
        or bool(found.get("relabelled")) or bool(found.get("trial_shift"))
        or (share is not None and float(share) < 1)
    )  # fmt: skip
    return str(found.get("message") or "event table and device disagree") if wrong else ""


def matching(recording: Recording) -> Iterator[Block]:
    """Onsets of the table against the device's triggers: offset, drift, residual."""
    found = matching_of(recording)
    if found is None:
        yield Text("The plan compared no triggers of the device with an event table.", "note")
        return
    yield Heading("Event table against the device's triggers")
    if found.get("message"):
        text = str(found["message"])
        yield Text(f"{text[:1].upper()}{text[1:]}.", "warning" if mismatch(recording) else "")
    offset, drift, residual, largest = (
        wording.number(found.get(key))
        for key in ("offset_s", "drift_ms_per_min", "residual_sd_s", "largest_difference_s")
    )
    used = {"agree": "both agree", "device": "the device", "table": "the table"}
    status = str(found.get("status") or "")
    rows = [
        ("Onsets that are used", used.get(status, status or wording.NOTHING)),
        ("Triggers are from", str(found.get("source") or wording.NOTHING)),
        ("Events in the table", wording.plain(found.get("n_table"))),
        ("Triggers of the device", wording.plain(found.get("n_device"))),
        ("Events with their trigger", wording.plain(found.get("n_matched"))),
        ("Events without trigger", wording.plain(found.get("n_without_trigger"))),
        ("Triggers without event", wording.plain(found.get("n_extra"))),
        ("Offset of the clocks", f"{wording.plain(offset, 4)} s"),
        ("Drift of the clocks", f"{wording.plain(drift)} ms/min"),
        ("Residual s.d.", f"{wording.plain(1e3 * residual)} ms"),
        ("Largest difference of onsets", f"{wording.plain(1e3 * largest)} ms"),
        ("Shift in trials", wording.plain(found.get("trial_shift"))),
        ("Labels that fit the trigger's code", wording.share(found.get("label_agreement"))),
    ]
    known = tuple(row for row in rows if not row[1].startswith(wording.NOTHING))
    yield Table("Table and triggers", (Column("Quantity"), Column("Value")), known)
    if np.isfinite(offset) and np.isfinite(drift):
        span = extent(recording, recording.events["onset"].to_numpy(float))
        alt = f"Drift of the clocks {wording.plain(drift)} ms/min"
        caption = "Clock of the device against that of the event table, as fitted."
        yield qc_time_figures.drift(span, offset, drift, residual, alt, caption)


def lag(recording: Recording) -> Iterator[Block]:
    """When the recording responds to events, without a look at what they were."""
    found = recording.lag
    if found is None:
        text = "Too few events, or responses without time: no response lag can be measured."
        yield Text(text, "note")
        return
    yield Heading("When does the recording respond?")
    text = f"{found.message[:1].upper()}{found.message[1:]}."
    yield Text(text, "warning" if found.shifted else "")
    low, high = (float(v) for v in found.expected)
    peak = wording.number(found.lag)
    caption = (
        f"Response to {wording.count(found.n_events, 'training event')} at each lag, without a "
        f"look at labels; expected between {low:g} and {high:g} s. Grey: 95 % of designs that "
        "never took place."
    )
    alt = f"Response by lag, peak at {wording.plain(peak)} s, expected {low:g} to {high:g} s"
    yield qc_time_figures.lag(
        np.asarray(found.lags, float), np.asarray(found.curve, float),
        np.asarray(found.band, float), peak, (low, high),
        LAG_UNITS.get(found.kind, "response"), alt, caption,
    )  # fmt: skip
