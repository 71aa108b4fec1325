"""What several fits of a decoder show: how much seeds differ, and the score over time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.ticker import PercentFormatter

from braindecode_pipe.report import wording
from braindecode_pipe.report.document import Block, Column, Figure, Table
from braindecode_pipe.report.figures import INK, RULE, canvas, colour_of, picture
from braindecode_pipe.report.study import Evaluation

SIGNIFICANCE = 0.05


def seeds_table(evaluation: Evaluation) -> Iterator[Block]:
    """Mean, standard deviation and range of the headline score over the seeds of each network."""
    metric = str(evaluation.verdict.get("metric", ""))
    rows = [r for r in _everybody(evaluation, metric) if "n_seeds" in r]
    if not rows:
        return
    columns = (
        Column("Decoder"), Column("Seeds", True), Column("Mean", True), Column("s.d.", True),
        Column("Range", True), Column("Chance", True),
    )  # fmt: skip
    shown = tuple(
        (
            wording.decoder_name(str(r["base_decoder"])),
            wording.plain(r["n_seeds"]),
            wording.score(metric, r["value"]),
            wording.score(metric, r["sd"]),
            wording.interval(metric, r["value_min"], r["value_max"]),
            wording.score(metric, r["chance"]),
        )
        for r in rows
    )
    note = (
        "All seeds see the same people and stimuli: their spread tells how much training by itself "
        "moves the score, not how it would differ in other data."
    )
    yield Table(f"{wording.metric_name(metric)} over seeds", columns, shown, (note,))


def time_curves(evaluation: Evaluation) -> Iterator[Block]:
    """The headline score of pieces of the window by their centre."""
    metric = str(evaluation.verdict.get("metric", ""))
    curves: dict[str, list[dict]] = {}
    for record in _everybody(evaluation, metric):
        if "window_centre" in record:
            curves.setdefault(str(record["base_decoder"]), []).append(record)
    if not curves:
        return
    for own in curves.values():
        own.sort(key=lambda r: r["window_centre"])
    yield _figure(curves, metric)


def _everybody(evaluation: Evaluation, metric: str) -> list[dict]:
    return [
        r
        for r in evaluation.records
        if r["metric"] == metric and str(r.get("subject", "all")) == "all"
    ]


def _figure(curves: dict[str, list[dict]], metric: str) -> Figure:
    """Score, interval and chance by the centre of the piece; squares on top mark evidence."""
    name = wording.metric_name(metric)
    colours = colour_of([*curves])
    with canvas(8.2, 3.0) as (figure, ax):
        for number, (decoder, own) in enumerate(curves.items()):
            time, value, low, high, chance = (
                np.array([wording.number(r.get(key)) for r in own])
                for key in ("window_centre", "value", "ci_low", "ci_high", "chance")
            )
            colour = colours[decoder]
            ax.fill_between(time, low, high, color=colour, alpha=0.18, lw=0)
            ax.plot(time, value, "o-", color=colour, ms=4, lw=1.6,
                    label=wording.decoder_name(decoder))  # fmt: skip
            ax.plot(time, chance, color=INK, lw=1.2, ls=(0, (3, 2)),
                    label="chance" if number == 0 else None)  # fmt: skip
            sure = np.array([wording.number(r.get("p_value_curve")) <= SIGNIFICANCE for r in own])
            if sure.any():
                ax.plot(time[sure], np.full(sure.sum(), 1.02 + 0.035 * number), "s", ms=4,
                        color=colour, transform=ax.get_xaxis_transform(), clip_on=False,
                        zorder=5)  # fmt: skip
        ax.set_xlabel("centre of the piece after event onset and delay [s]", labelpad=8)
        ax.set_ylabel(name)
        ax.grid(axis="y", color=RULE, lw=0.6)
        if wording.is_share(metric):
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        figure.legend(loc="outside upper right", ncols=3)
        return picture(figure, _alt(curves, metric), _caption(curves, name))


def _alt(curves: dict[str, list[dict]], metric: str) -> str:
    best = {decoder: max(own, key=lambda r: r["value"]) for decoder, own in curves.items()}
    if metric in ("median_rank", "normalized_rank"):
        best = {decoder: min(own, key=lambda r: r["value"]) for decoder, own in curves.items()}
    told = "; ".join(
        f"{wording.decoder_name(decoder)} best with {wording.score(metric, r['value'])} at "
        f"{r['window_centre']:g} s"
        for decoder, r in best.items()
    )
    return f"{wording.metric_name(metric)} by time: {told}"


def _caption(curves: dict[str, list[dict]], name: str) -> str:
    pieces = [r for own in curves.values() for r in own]
    length = pieces[0]["window_end"] - pieces[0]["window_begin"]
    level = wording.number(pieces[0].get("ci_level"))
    text = (
        f"{name} of decoders that each read {1e3 * length:.0f} ms of the window, by the centre of "
        f"that piece; bands are {100 * level:.0f} % intervals of each point."
    )
    if any("p_value_curve" in r for r in pieces):
        text += (
            f" Squares on top: p ≤ {SIGNIFICANCE:g} against the best of all pieces in "
            "each permutation, which holds for the whole curve."
        )
    return text
