"""The page that lists the recordings of a study, those that need a look first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.report import qc_events, qc_summary, wording
from braindecode_pipe.report.data import page_name
from braindecode_pipe.report.document import (
    Block,
    Column,
    Fact,
    Facts,
    Failed,
    Level,
    Link,
    Page,
    Section,
    Table,
    Text,
    attempt,
)
from braindecode_pipe.report.recording import Recording
from braindecode_pipe.report.study import Study

UNREADABLE = "the store cannot be read"


@dataclass(frozen=True)
class Overview:
    """One recording in a line.

    Attributes
    ----------
    name, datatype : str
    sensors, bad : how many were recorded, how many of them are bad; -1 where unknown
    good : share of the time, or of the epochs, that is good; NaN where unknown
    seconds : duration [s], NaN where unknown
    movement, lag : text with unit, "" where unknown
    warnings : how many
    concerns : why a reader should look, the gravest first
    gravity : larger is worse; what the table is sorted by
    """

    name: str
    datatype: str = ""
    sensors: int = -1
    bad: int = -1
    good: float = float("nan")
    seconds: float = float("nan")
    movement: str = ""
    lag: str = ""
    warnings: int = 0
    concerns: tuple[str, ...] = ()
    gravity: float = 0.0


def overview(recording: Recording, page: Page) -> Overview:
    """What the index says about one recording, after its page was made."""
    found: list[Overview] = []
    attempt("overview", lambda: found.append(_measured(recording, page)) or ())
    if found:
        return found[0]
    return Overview(recording.name, recording.datatype, concerns=(UNREADABLE,), gravity=1000.0)


def _measured(recording: Recording, page: Page) -> Overview:
    sensors, bad = qc_summary.sensor_counts(recording)
    good = recording.good_share
    moved = qc_summary.movement_of(recording)
    lag, wrong = qc_summary.lag_of(recording)
    failed = [b.title for s in page.sections for b in s.blocks if isinstance(b, Failed)]
    bad_share, lost = bad / sensors if sensors else 0.0, 1 - good if np.isfinite(good) else 0.0
    concerns, gravity = [], bad_share + lost
    if failed:
        concerns.append(f"failed: {wording.joined(failed, 3)}")
        gravity += 100
    if wrong:
        concerns.append(f"response lag {lag}")
        gravity += 10
    if qc_events.mismatch(recording):
        concerns.append("event table and device disagree")
        gravity += 2
    if bad_share > qc_summary.MAX_BAD_SHARE:
        concerns.append(f"{wording.share(bad_share, 0)} of the sensors are bad")
        gravity += 1
    if lost > 1 - qc_summary.MIN_GOOD_SHARE:
        concerns.append(f"{wording.share(lost, 0)} of the time is lost")
        gravity += 1
    if moved is not None and moved.much:
        concerns.append("the head moved")
        gravity += 1
    warnings = len(recording.warnings)
    if warnings:
        concerns.append(wording.count(warnings, "warning"))
        gravity += min(0.1 * warnings, 1)
    return Overview(
        recording.name, recording.datatype, sensors, bad, good, _seconds(recording),
        moved.text if moved else "", lag, warnings, tuple(concerns), gravity,
    )  # fmt: skip


def _seconds(recording: Recording) -> float:
    if recording.is_response:
        return wording.number(recording.row.get("duration"))
    return recording.seconds


def index_page(study: Study, overviews: list[Overview]) -> Page:
    """The page of all recordings, the worst first; equals by name."""
    order = sorted(overviews, key=lambda o: (-o.gravity, o.name))
    return Page(
        title="Quality of the recordings",
        subtitle=f"“{study.name}”",
        data_origin=study.data_origin,
        sections=(
            Section("overview", "Overview", tuple(attempt("overview", _overview, order))),
            Section("recordings", "Recordings", tuple(attempt("recordings", _table, order))),
        ),
        back=(Link("Back to the report", "../report.html"),),
        wide=True,
    )


def _overview(order: list[Overview]) -> list[Block]:
    serious = [o for o in order if o.gravity >= 1]
    types = Counter(o.datatype for o in order)
    kinds = ", ".join(f"{n} {wording.DATATYPES.get(k, k or 'unknown')}" for k, n in types.items())
    bad = [o.bad / o.sensors for o in order if o.sensors > 0]
    good = [o.good for o in order if np.isfinite(o.good)]
    facts = [
        Fact("Recordings", kinds),
        Fact("Need a look", f"{len(serious)} of {len(order)}",
             "those at the head of the table" if serious else ""),
    ]  # fmt: skip
    if bad:
        facts.append(Fact("Bad sensors, mean", wording.share(float(np.mean(bad)))))
    if good:
        facts.append(Fact("Good time, mean", wording.share(float(np.mean(good)))))
    lasted = [o.seconds for o in order if np.isfinite(o.seconds)]
    if lasted:
        facts.append(Fact("Duration in sum", wording.duration(float(np.sum(lasted)))))
    text = (
        "The recordings that need a look stand first: panels that failed, then a response lag "
        "that is not where it should be, then events that disagree with the device, then bad "
        "sensors, lost time, movement and warnings."
    )
    return [Facts(tuple(facts)), Text(text, "note")]


def _table(order: list[Overview]) -> Table:
    """A row per recording; columns in which nothing is known are left out."""
    cells = {
        Column("Recording"): [Link(o.name, f"./{page_name(o.name)}") for o in order],
        Column("What to look at"): ["; ".join(o.concerns) or "nothing" for o in order],
        Column("Bad sensors"): [_bad(o) for o in order],
        Column("Good time"): [_good(o) for o in order],
        Column("Movement"): [o.movement or wording.NOTHING for o in order],
        Column("Response lag", True): [o.lag or wording.NOTHING for o in order],
        Column("Warnings", True): [str(o.warnings) for o in order],
        Column("Duration", True): [wording.duration(o.seconds) for o in order],
        Column("Type"): [wording.DATATYPES.get(o.datatype, o.datatype) for o in order],
    }
    known = {c: v for c, v in cells.items() if any(cell != wording.NOTHING for cell in v)}
    return Table("Recordings, the worst first", tuple(known), tuple(zip(*known.values())))


def _bad(o: Overview) -> str | Level:
    if o.sensors <= 0:
        return wording.NOTHING
    share = o.bad / o.sensors
    return Level(f"{o.bad} of {o.sensors}", share, share > qc_summary.MAX_BAD_SHARE)


def _good(o: Overview) -> str | Level:
    if not np.isfinite(o.good):
        return wording.NOTHING
    return Level(wording.share(o.good), o.good, o.good < qc_summary.MIN_GOOD_SHARE)
