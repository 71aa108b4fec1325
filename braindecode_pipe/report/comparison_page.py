"""The comparison of runs as a page, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import SchemaError
from braindecode_pipe.report import figures, wording
from braindecode_pipe.report.comparison import METRICS, Contest, compare_runs
from braindecode_pipe.report.document import Block, Column, Figure, Page, Section, Table, Text
from braindecode_pipe.report.html import render
from braindecode_pipe.report.markdown import finite_json, render_markdown
from braindecode_pipe.report.results import pooled
from braindecode_pipe.report.runs import System
from braindecode_pipe.schema import join_data_origin

LEVEL = 0.95


def write_comparison(folders: list[Path], out: Path) -> Path:
    """Compare runs and write ``compare.html``, ``compare.md`` and ``compare.json``.

    Returns
    -------
    Path of the HTML page

    Raises
    ------
    InputError
        Runs that cannot be compared, or a folder that cannot be written.
    """
    contests = compare_runs(folders)
    page = comparison_page(contests)
    files = {
        "compare.html": render(page),
        "compare.md": render_markdown(page),
        "compare.json": finite_json(as_records(contests)),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        temporary = out / f"{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(out / name)
    return out / "compare.html"


def comparison_page(contests: list[Contest]) -> Page:
    """One section per target."""
    names = list(dict.fromkeys(s.run.name for contest in contests for s in contest.systems))
    sections = tuple(
        Section(f"target-{i + 1}", f"Target “{contest.target}”", tuple(_blocks(contest)))
        for i, contest in enumerate(contests)
    )
    every = [system for contest in contests for system in contest.systems]
    return Page(
        title=f"{wording.count(len(names), 'run')} compared",
        subtitle=f"{wording.joined(names)}. The same test items and candidates in every pair.",
        data_origin=_origin(every),
        sections=sections,
    )


def _origin(every: list[System]) -> str:
    try:
        return join_data_origin(*(str(s.evaluation.attrs.get("data_origin")) for s in every))
    except SchemaError:
        return "unknown"


def _blocks(contest: Contest) -> Iterator[Block]:
    yield Text(_conclusion(contest), "lead")
    yield _forest(contest)
    yield _difference_table(contest)
    yield _score_table(contest)
    yield _system_table(contest)


def _own(contest: Contest, metric: str) -> list:
    return [d for d in contest.differences if d.metric == metric]


def _conclusion(contest: Contest) -> str:
    """What the first metric says of every system, in words."""
    first, parts = contest.systems[0].name, []
    for d in _own(contest, METRICS[0]):
        r = d.result
        told = f"Holm p = {wording.p_value(d.p_holm)}".replace("= <", "<")
        if d.p_holm <= 1 - LEVEL:
            how = "better" if r.difference > 0 else "worse"
            parts.append(f"{d.system.name} is {how} than {first} ({told}).")
        else:
            parts.append(f"{d.system.name} and {first} cannot be told apart ({told}).")
    name = wording.metric_name(METRICS[0])
    return f"By {name[0].lower()}{name[1:]}, on the same items: {' '.join(parts)}"


def _forest(contest: Contest) -> Figure:
    """Differences with their intervals, one panel per metric."""
    names = [d.system.name for d in _own(contest, METRICS[0])]
    with figures.canvas(8.2, 1.0 + 0.36 * len(names), ncols=len(METRICS), sharey=True,
                        squeeze=False) as (figure, axes):  # fmt: skip
        for ax, metric in zip(axes[0], METRICS):
            own = _own(contest, metric)
            for y, d in enumerate(own):
                sure = d.p_holm <= 1 - LEVEL
                colour = figures.COLOURS[0] if sure else figures.MUTED
                ax.hlines(y, d.result.ci_low, d.result.ci_high, color=colour, lw=2.2)
                ax.plot(d.result.difference, y, "o", ms=7.5, color=colour, mec="white", mew=1)
            ax.axvline(0, color=figures.INK, lw=1.2, ls=(0, (2, 1.5)), zorder=0)
            ax.set_yticks(range(len(own)), [figures.short(n, 30) for n in names])
            ax.set_ylim(len(own) - 0.5, -0.5)
            ax.set_title(wording.metric_name(metric))
            ax.grid(axis="x", color=figures.RULE, lw=0.6)
            ax.set_axisbelow(True)
            ax.tick_params(axis="y", length=0)
            ax.locator_params(axis="x", nbins=4)
            if wording.is_share(metric):
                ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}".replace("-", "−"))
                ax.set_xlabel("percentage points")
        first = contest.systems[0].name
        figure.supxlabel(f"difference from {figures.short(first, 40)}", fontsize=9)
        alt = "; ".join(f"{d.system.name} less {first}, {wording.metric_name(d.metric)} "
                        f"{_signed(d.metric, d.result.difference)}"
                        for d in contest.differences)  # fmt: skip
        caption = (
            f"Differences from {first} on the same items with {100 * LEVEL:.0f} % intervals; in "
            "colour where Holm-corrected p is at most .05. Right is better."
        )
        return figures.picture(figure, alt, caption)


def _signed(metric: str, value: float) -> str:
    if not np.isfinite(value):
        return wording.NOTHING
    text = f"{100 * value:+.1f} pp" if wording.is_share(metric) else f"{value:+.3f}"
    return text.replace("-", "−")


def _difference_table(contest: Contest) -> Table:
    rows = []
    for d in contest.differences:
        r = d.result
        low, high = (_signed(d.metric, v) for v in (r.ci_low, r.ci_high))
        rows.append(
            (
                d.system.name, wording.metric_name(d.metric), _signed(d.metric, r.difference),
                f"{low.removesuffix(' pp')} to {high}", wording.p_value(r.p_value),
                wording.p_value(d.p_holm), str(r.n_items), str(r.n_units), str(d.left_out),
            )
        )  # fmt: skip
    unit = contest.differences[0].result.unit
    numeric = ("Difference", f"{100 * LEVEL:.0f} % interval", "p", "Holm p", "Items",
               wording.plural(unit).capitalize(), "Left out")  # fmt: skip
    columns = (Column("Run"), Column("Metric"), *(Column(n, True) for n in numeric))
    notes = (
        f"Each difference is the run less {contest.systems[0].name}, item by item. p: signs of all "
        f"differences of one {unit} flipped together; interval: bootstrap over "
        f"{wording.plural(unit)}.",
        "Holm p holds for all runs of a metric together. pp: percentage points. Left out: items "
        "that only one of the two runs has.",
    )
    return Table("Paired differences", columns, tuple(rows), notes)


def _score_table(contest: Contest) -> Table:
    """Every metric of the decoders that are compared, runs in columns."""
    found = [
        {r["metric"]: r for r in pooled(s.evaluation) if r.get("decoder") == s.evaluation.headline
         and not r.get("control")}
        for s in contest.systems
    ]  # fmt: skip
    rows = []
    for metric in dict.fromkeys(name for by in found for name in by):
        chance = {wording.score(metric, by[metric]["chance"]) for by in found if metric in by}
        cells = [_with_interval(metric, by[metric]) if metric in by else wording.NOTHING
                 for by in found]  # fmt: skip
        rows.append((wording.metric_name(metric), *cells, ", ".join(sorted(chance))))
    columns = (Column("Metric"), *(Column(s.name, True) for s in contest.systems),
               Column("Chance", True))  # fmt: skip
    note = "Each over all items of its run. In brackets the interval of the run's own report."
    return Table("Scores of the decoders that are compared", columns, tuple(rows), (note,))


def _with_interval(metric: str, record: dict) -> str:
    between = wording.interval(metric, record.get("ci_low"), record.get("ci_high"))
    return f"{wording.score(metric, record.get('value'))} ({between})"


def _system_table(contest: Contest) -> Table:
    rows = [
        (
            s.name, s.evaluation.name, wording.decoder_name(s.evaluation.headline),
            str(len(s.items)), _sizes(s), s.protocol.aggregate, s.evaluation.path.stem,
        )
        for s in contest.systems
    ]  # fmt: skip
    columns = (
        Column("Run"), Column("Embedding"), Column("Decoder"), Column("Items", True),
        Column("Candidates", True), Column("Averaged over"), Column("Evaluation"),
    )  # fmt: skip
    return Table("What is compared", columns, tuple(rows))


def _sizes(system: System) -> str:
    sizes = sorted({size for size, _ in system.pools.values()})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} – {sizes[-1]}"


def as_records(contests: list[Contest]) -> list[dict]:
    """One record per difference."""
    return [
        {
            "target": contest.target, "run": d.system.name, "reference": contest.systems[0].name,
            "decoder": d.system.evaluation.headline,
            "reference_decoder": contest.systems[0].evaluation.headline,
            "embedding": d.system.evaluation.name,
            "data_origin": _origin(contest.systems), "metric": d.metric,
            "p_holm": d.p_holm, "left_out": d.left_out, **vars(d.result),
        }
        for contest in contests
        for d in contest.differences
    ]  # fmt: skip
