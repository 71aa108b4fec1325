"""Retrieval in full for the decoder of the verdict: every metric, both directions, drawn pools."""

from __future__ import annotations

from collections.abc import Iterator

from braindecode_pipe.report import wording
from braindecode_pipe.report.document import Block, Column, Table
from braindecode_pipe.report.study import Evaluation, of_whole_window

DIRECTIONS = {"query": "response to stimulus", "candidate": "stimulus to response"}

POOLS = {
    "test": "the stimuli of the test fold",
    "all": "all stimuli of the study",
    "prototypes": "one per class of tested stimuli",
    "frequent": "the stimuli that the test fold shows most often",
}


def retrieval_table(evaluation: Evaluation) -> Iterator[Block]:
    """Each metric of everybody together, with chance and interval, and how it was asked."""
    own = [
        r for r in of_whole_window(evaluation.records)
        if r.get("decoder") == evaluation.headline and str(r.get("subject", "all")) == "all"
        and not r.get("control")
    ]  # fmt: skip
    if not own:
        return
    drawn = any(r.get("draws") for r in own)
    both = len({r.get("direction") for r in own}) > 1
    rows = []
    for record in own:
        metric = str(record["metric"])
        row = [
            wording.metric_name(metric),
            wording.score(metric, record.get("value")),
            wording.interval(metric, record.get("ci_low"), record.get("ci_high")),
            wording.score(metric, record.get("chance")),
            wording.p_value(record.get("p_value")),
            _candidates(record),
        ]
        if drawn:
            row.append(_over_draws(metric, record))
        if both:
            direction = str(record.get("direction") or "")
            row.append(DIRECTIONS.get(direction, direction) or wording.NOTHING)
        rows.append(tuple(row))
    level = wording.number(own[0].get("ci_level"))
    names = ("Value", f"{100 * level:.0f} % interval" if level == level else "Interval", "Chance",
             "p", "Candidates", *(("Over draws",) * drawn))  # fmt: skip
    columns = (Column("Metric"), *(Column(n, True) for n in names),
               *((Column("Direction"),) * both))  # fmt: skip
    notes = [_asked(own[0])]
    if drawn:
        most = max(int(r["draws"]) for r in own if r.get("draws"))
        notes.append(f"Over draws: mean and range of the middle 95 % over {most} draws of the "
                     "candidates; the interval beside it is over queries.")  # fmt: skip
    name = wording.decoder_name(evaluation.headline)
    yield Table(f"Retrieval by the decoder of the verdict ({name})", columns, tuple(rows),
                tuple(notes))  # fmt: skip


def _candidates(record: dict) -> str:
    few, many = record.get("n_candidates_min"), record.get("n_candidates")
    if few is None or few == many:
        return wording.plain(many)
    return f"{wording.plain(few)} – {wording.plain(many)}"


def _over_draws(metric: str, record: dict) -> str:
    if not record.get("draws"):
        return wording.NOTHING
    between = wording.interval(metric, record.get("draws_low"), record.get("draws_high"))
    return f"{wording.score(metric, record.get('draws_mean'))} ({between})"


def _asked(record: dict) -> str:
    """Protocol, candidates and averaging in one sentence."""
    preset = str(record.get("protocol") or "")
    named = f"Protocol “{preset}”. " if preset else ""
    averaged = wording.number(record.get("n_averaged"))
    trials = "single trials"
    stated = str(record.get("candidates") or "not stated")
    if str(record.get("aggregate") or "none") != "none":
        trials = f"means over {record['aggregate']}, of {wording.plain(averaged)} trials at most"
    return (
        f"{named}Queries: {wording.plain(record.get('n_queries'))} {trials}. Candidates: "
        f"{POOLS.get(stated, stated)}. Ranks count from 1, the best; ties count half."
    )
