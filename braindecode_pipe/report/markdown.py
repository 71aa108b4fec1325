"""A document as Markdown, and the records as CSV: plain text that other programs may interpret."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence

from braindecode_pipe.report.document import Block, Page

# Spreadsheets run cells that begin with one of these as formulas.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape(text: object) -> str:
    """Text that no Markdown reader takes for markup."""
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~])", r"\\\1", text)
    return re.sub(r"^([#+=-]|\d+[.)](?=\s))", r"\\\1", text)


def render_markdown(page: Page) -> bytes:
    """The page as Markdown, UTF-8; figures stand as their alternative text."""
    lines = [f"# {escape(page.title)}", ""]
    if page.data_origin != "recorded":
        lines += [f"**{page.data_origin.upper()} DATA**", ""]
    if page.subtitle:
        lines += [escape(page.subtitle), ""]
    for alert in page.alerts:
        lines += render_block(alert)
    for section in page.sections:
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            lines += render_block(block)
    return ("\n".join(lines).rstrip() + "\n").encode()


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"


def render_block(block: Block) -> list[str]:
    """Lines of one block."""
    if block.kind == "text":
        return [escape(block.text), ""]
    if block.kind == "slot":
        return [block.mark, ""]
    if block.kind == "heading":
        return [f"### {escape(block.text)}", ""]
    if block.kind == "items":
        marks = [f"{i}." if block.ordered else "-" for i in range(1, len(block.items) + 1)]
        return [*(f"{mark} {escape(item)}" for mark, item in zip(marks, block.items)), ""]
    if block.kind == "figure":
        return [f"*Figure.* {escape(block.caption)} {escape(block.alt)}.", ""]
    if block.kind == "failed":
        return [f"**FAILED: {escape(block.title)}.** {escape(block.cause)}", ""]
    if block.kind == "facts":
        looks = [(f, f" ({f.look})" if f.look else "") for f in block.facts]
        return [*(f"- {escape(f.name)}: {escape(f.value + look)}" for f, look in looks), ""]
    if block.kind == "links":
        return [escape(", ".join(map(str, block.links))), ""]
    if block.kind == "verdict":
        state = {True: "Evidence.", False: "No evidence."}.get(block.evidence, "")
        facts = "; ".join(f"{name} {value}" for name, value in block.facts)
        text = f"**{state}** {escape(block.text)}" if state else escape(block.text)
        return [f"### {escape(block.heading)}", "", text, "", escape(facts), ""]
    if block.kind == "table":
        rule = "|" + "|".join(" ---: " if c.numeric else " --- " for c in block.columns) + "|"
        notes = [line for note in block.notes for line in (escape(note), "")]
        return [
            f"**{escape(block.caption)}**", "", _row(c.name for c in block.columns), rule,
            *(_row(row) for row in block.rows), "", *notes,
        ]  # fmt: skip
    if block.kind == "gallery":
        lines = [
            escape(block.caption),
            "",
            _row(("Rank", "Shown", block.right.capitalize())),
            "| --- | --- | --- |",
        ]
        for query in block.queries:
            top = ", ".join(f"{item.label} ({score})" for item, score, _ in query.top)
            lines.append(_row((query.title, query.truth.label, top)))
        return [*lines, ""]
    # Indented code needs no fence that the text itself could close.
    return [f"### {escape(block.caption)}", "", *(f"    {ln}" for ln in block.text.split("\n")), ""]


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite_json(records: Sequence[dict]) -> bytes:
    """The flat list of records, null where there is no number."""
    records = [{k: _finite(v) for k, v in record.items()} for record in records]
    text = json.dumps(records, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _cell(value: object) -> object:
    value = _finite(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def metrics_csv(records: Sequence[dict]) -> bytes:
    """The same records as CSV; text that a spreadsheet would run is quoted with an apostrophe."""
    first = ("metric", "value", "ci_low", "ci_high", "chance", "p_value")
    names = [n for n in first if any(n in r for r in records)]
    names += sorted({n for r in records for n in r} - set(names))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_cell(name) for name in names])
    for record in records:
        writer.writerow([_cell(record.get(name)) for name in names])
    return buffer.getvalue().encode()
