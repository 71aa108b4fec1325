"""What stands beside the numbers: controls, decoders compared, clusters over time, ceilings."""

from __future__ import annotations

from collections.abc import Iterator

from braindecode_pipe.report import wording
from braindecode_pipe.report.document import Block, Column, Heading, Section, Table, Text, attempt
from braindecode_pipe.report.results import headline_metric, pooled, record_table
from braindecode_pipe.report.study import Evaluation, Study, table_or_none

_CONTROLS = (
    "Controls should lie at chance. The prior knows how often training showed each candidate. A "
    "decoder that is given noise knows the statistics of the stimuli alone. A probe that tells "
    "run, session or third of the run says that predictions hold something of when they were "
    "recorded."
)
_CEILING = (
    "Correlation, over stimuli and averaged over features, of the mean prediction with the "
    "embedding; no prediction that scatters so much over repetitions can correlate more than the "
    "ceiling (split halves, Spearman-Brown). It is the ceiling of this decoder's output."
)


def controls_section(study: Study) -> Section | None:
    """Controls and comparisons of every embedding; None where there are none."""
    blocks: list[Block] = []
    for evaluation in study.evaluations:
        own = attempt(f"controls, {evaluation.name}", controls, evaluation)
        if own:
            blocks += [Heading(f"Embedding “{evaluation.name}”"), *own]
    return Section("controls", "Controls and comparisons", tuple(blocks)) if blocks else None


def controls(evaluation: Evaluation) -> Iterator[Block]:
    """The tables of one evaluation, those that there are."""
    metric = headline_metric(evaluation)
    shown = [
        r
        for r in pooled(evaluation)
        if r.get("control") and (r["metric"] == metric or r["control"] == "probe")
    ]
    if shown:
        yield record_table(shown, "Controls")
        yield Text(_CONTROLS, "note")
    if (table := table_or_none(evaluation.path, "comparisons")) is not None:
        yield _comparisons(table)
    if (table := table_or_none(evaluation.path, "clusters")) is not None:
        yield _clusters(table)
    if (table := table_or_none(evaluation.path, "ceiling")) is not None:
        yield _ceiling(table)
        yield Text(_CEILING, "note")


def _comparisons(table) -> Table:
    rows = [
        (
            wording.decoder_name(str(r["a"])), wording.decoder_name(str(r["b"])),
            wording.share(r["difference"]),
            wording.interval(str(r["metric"]), r["ci_low"], r["ci_high"]),
            wording.p_value(r["p_value"]), wording.p_value(r["q_value"]),
            wording.plain(r["n_items"]), f"{r['n_units']} ({r['unit']})",
        )
        for r in table.to_dict("records")
    ]  # fmt: skip
    names = ("Difference of pair accuracy", "Interval", "p", "q", "Queries", "Units")
    columns = (Column("Decoder"), Column("minus"), *(Column(n, True) for n in names))
    note = "Same queries; signs of whole units flipped; q: false discovery rate over all pairs."
    return Table("Decoders compared", columns, tuple(rows), (note,))


def _clusters(table) -> Table:
    rows = [
        (
            wording.decoder_name(str(r["decoder"])), f"{r['start']:g} to {r['stop']:g}",
            wording.plain(r["mass"]), wording.p_value(r["p_value"]),
            f"{r['n_units']} ({r['unit']})",
        )
        for r in table.to_dict("records")
    ]  # fmt: skip
    columns = (Column("Decoder"), *(Column(n, True) for n in ("Time [s]", "Mass", "p", "Units")))
    note = "A p-value is about a cluster as a whole, not about where it begins and ends."
    return Table("Times above chance", columns, tuple(rows), (note,))


def _ceiling(table) -> Table:
    rows = []
    for (decoder, person), own in table.groupby(["decoder", "subject"], sort=False):
        few, many = int(own["n_repetitions"].min()), int(own["n_repetitions"].max())
        rows.append(
            (
                wording.decoder_name(str(decoder)), str(person),
                wording.plain(own["correlation"].mean()), wording.plain(own["ceiling"].mean()),
                str(many) if few == many else f"{few} – {many}", str(len(own)),
            )
        )  # fmt: skip
    numeric = ("Correlation", "Ceiling", "Repetitions", "Folds")
    columns = (Column("Decoder"), Column("Person"), *(Column(n, True) for n in numeric))
    return Table("Noise ceiling", columns, tuple(rows), folded=len(rows) > 12)
