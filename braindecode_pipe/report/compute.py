"""What the results cost: filled into the published pages, since stores hold no clocks.

Equal inputs give equal report stores. Seconds differ from run to run, so the store has a slot in
their place, and who publishes the pages fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.report import wording
from braindecode_pipe.report.document import Block, Column, Fact, Facts, Section, Slot, Table, Text
from braindecode_pipe.report.html import render_blocks
from braindecode_pipe.report.markdown import render_block

SLOT = Slot("compute")


@dataclass(frozen=True)
class Spent:
    """Seconds that every result of one stage took when it was made; NaN where nothing tells."""

    stage: str
    seconds: Sequence[float]


def compute_section(_study: object = None) -> Section:
    """The section with its slot."""
    note = "Time that the results took when they were made, some of them by an earlier run."
    return Section("compute", "Compute used", (Text(note, "note"), SLOT))


def fill(name: str, content: bytes, spent: Sequence[Spent], machine: Sequence[tuple[str, str]]):
    """The content of a published file with its slot filled; other files as they are.

    Parameters
    ----------
    name : ends in .html or .md
    spent : of every stage, in order
    machine : (name, value) of what computed, such as threads and device
    """
    blocks = (Facts(tuple(Fact(key, value) for key, value in machine)), _table(spent))
    if name == "report.html":
        return content.replace(SLOT.mark.encode(), render_blocks(blocks), 1)
    if name == "report.md":
        text = "\n".join(line for block in blocks for line in render_block(block))
        return content.replace(SLOT.mark.encode(), text.encode(), 1)
    return content


def _table(spent: Sequence[Spent]) -> Block:
    rows, total = [], 0.0
    for part in spent:
        seconds = np.asarray(part.seconds, float)
        known = seconds[np.isfinite(seconds)]
        total += float(known.sum())
        rows.append((part.stage, str(len(seconds)), clock(known.sum()) if known.size else
                     wording.NOTHING, clock(known.max()) if known.size else wording.NOTHING,
                     str(len(seconds) - known.size)))  # fmt: skip
    rows.append(("all", str(sum(len(p.seconds) for p in spent)), clock(total), "", ""))
    numeric = ("Results", "Time", "Longest", "Time unknown")
    columns = (Column("Stage"), *(Column(n, True) for n in numeric))
    return Table("Time by stage", columns, tuple(rows),
                 ("Sums over results; those made side by side count each.",))  # fmt: skip


def clock(seconds: float) -> str:
    """Seconds with a decimal below two minutes, else minutes or hours."""
    return f"{seconds:.1f} s" if seconds < 120 else wording.duration(float(seconds))
