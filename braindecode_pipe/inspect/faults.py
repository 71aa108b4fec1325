"""What is wrong with one file of a data set, beside the recordings: tables and sidecars.

Every function yields :class:`Fault` and raises nothing for bad input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import (
    BraindecodePipeError,
    MissingFileError,
    UnsafePathError,
)
from braindecode_pipe.formats import repeated
from braindecode_pipe.formats.kinds import describe
from braindecode_pipe.formats.tables import MISSING, RawTable, read_cells, table_problems
from braindecode_pipe.store import safe_join

# Tables that decide what is computed; others only describe.
_READ = ("_events.tsv", "_channels.tsv", "_electrodes.tsv")
_UNITS_TO_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
_MAX_RADIUS, _MIN_RADIUS = 0.5, 1e-3


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a file.

    Attributes
    ----------
    file : path below the data set
    severity : "error" (cannot be used as it is), "warning" (may be wrong) or "note"
    code : names the kind of fault, the same for all files that have it
    what : what is wrong, in words
    remedy : what to do
    repair : entry of ``preprocess.emeg.repairs`` that helps while reading, or ""
    """

    file: str
    severity: str
    code: str
    what: str
    remedy: str = ""
    repair: str = ""


@dataclass
class Header:
    """What the header of a recording says, for comparisons with its neighbours."""

    path: Path
    datatype: str
    sfreq: float = float("nan")
    duration: float = float("nan")
    names: list[str] = field(default_factory=list)


# --- any file ------------------------------------------------------------------------------------


def file_faults(path: Path, name: str) -> Iterator[Fault]:
    """Placeholders, links to nothing, empty files, JSON that is none, tables."""
    try:
        describe(path) if path.is_symlink() or path.stat().st_size <= 1024 else None
    except MissingFileError as error:
        yield Fault(name, "error", "missing", str(error.found), str(error.remedy or ""))
        return
    except BraindecodePipeError:
        pass
    if path.is_file() and path.stat().st_size == 0:
        yield Fault(name, "error", "empty", "an empty file", "copy it again")
    elif path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, OSError) as error:
            yield Fault(name, "error", "json", f"no JSON: {error}", "correct the file")
        else:
            if not isinstance(content, dict):
                yield Fault(name, "error", "json", "JSON, but no object", "correct the file")
    elif path.suffix == ".tsv":
        yield from _table_faults(path, name)


def _table_faults(path: Path, name: str) -> Iterator[Fault]:
    is_read = path.name.endswith(_READ)
    for problem in table_problems(path):
        severity = "note" if not problem.fatal else "error" if is_read else "warning"
        remedy = "correct the file" if problem.fatal else "harmless"
        code = problem.repair or re.sub(r"[^a-z ]+", "", problem.what)[:30]
        yield Fault(name, severity, code, problem.what, remedy, problem.repair if is_read else "")


# --- tables --------------------------------------------------------------------------------------


def column(table: RawTable, name: str) -> list[str]:
    """Cells of a column, without spaces around them; empty where there is no such column."""
    if name not in table.columns:
        return []
    at = table.columns.index(name)
    return [row[at].strip() if at < len(row) else "" for row in table.rows]


def numbers(cells: list[str]) -> np.ndarray:
    """Cells as numbers, with decimal points or commas; NaN where there is none."""
    values = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        try:
            values[i] = float(cell.replace(",", "."))
        except ValueError:
            continue
    return values


def channel_faults(path: Path, name: str, header: Header | None) -> Iterator[Fault]:
    """channels.tsv: names that repeat or are not those of the header."""
    names = column(read_cells(path), "name")
    if not names:
        yield Fault(name, "error", "channels", "no column name", "write the channels' names")
        return
    if twice := repeated(names):
        yield Fault(
            name, "error", "repeated", f"channel names repeat: {twice}",
            "rename them in the header and here", "unique-names",
        )  # fmt: skip
    if header is None or not header.names:
        return
    lacking = [n for n in names if n not in header.names]
    extra = [n for n in header.names if n not in names]
    if lacking or extra:
        shown = f"{len(lacking)} of them not in the header ({', '.join(lacking[:4])})"
        other = f"{len(extra)} of the header not here ({', '.join(extra[:4])})"
        yield Fault(
            name, "warning", "channel names", f"channels differ from the recording's: "
            f"{'; '.join(t for t, there in ((shown, lacking), (other, extra)) if there)}",
            "write the names of the header",
        )  # fmt: skip


def electrode_faults(path: Path, name: str, unit: str) -> Iterator[Fault]:
    """electrodes.tsv: positions that are missing, equal, or in another unit than is stated."""
    table = read_cells(path)
    cells = [column(table, axis) for axis in "xyz"]
    if not all(cells):
        yield Fault(name, "error", "positions", "no columns x, y, z", "write the positions")
        return
    position = np.stack([numbers(axis) for axis in cells], axis=1)
    placed = np.isfinite(position).all(axis=1)
    if not placed.any():
        yield Fault(
            name, "warning", "positions n/a", f"all {len(placed)} positions are n/a",
            'preprocess.emeg.montage = "standard_1005" gives EEG standard places',
        )  # fmt: skip
        return
    if not placed.all():
        what = f"{int((~placed).sum())} of {len(placed)} positions are n/a"
        yield Fault(name, "note", "some positions n/a", what, "these sensors have no place")
    position = position[placed]
    if len(position) > 1 and (position == position[0]).all():
        yield Fault(
            name, "error", "one place", f"all {len(position)} positions are equal",
            "write the true positions, or leave them out", "drop-positions",
        )  # fmt: skip
        return
    scale = _UNITS_TO_METRES.get(unit)
    if scale is None:
        return
    distance = float(np.median(np.linalg.norm(position, axis=1))) * scale
    if not _MIN_RADIUS < distance < _MAX_RADIUS:
        fitting = [u for u, s in _UNITS_TO_METRES.items() if 0.01 < distance / scale * s < 0.2]
        guess = f"; they look like {fitting[0]}" if fitting else ""
        yield Fault(
            name, "error", "position unit",
            f"electrodes lie {distance:.3g} m from the origin when read in {unit}{guess}",
            "correct the unit in coordsystem.json", "drop-positions",
        )  # fmt: skip


def event_faults(path: Path, name: str, header: Header | None) -> Iterator[Fault]:
    """events.tsv: onsets that are missing, no numbers, or outside of the recording."""
    table = read_cells(path)
    cells = column(table, "onset")
    if not cells:
        if "onset" not in table.columns:
            yield Fault(
                name, "error", "onset", "no column onset: " + ", ".join(table.columns)[:80],
                'map it: [plan.columns] their_name = "onset"',
            )  # fmt: skip
        return
    onset = numbers(cells)
    wrong = np.flatnonzero(~np.isfinite(onset))
    if len(wrong):
        what = f"{len(wrong)} onsets are no numbers, first {cells[wrong[0]]!r} in line "
        yield Fault(name, "error", "onset", f"{what}{wrong[0] + 2}", "write seconds")
    if header is None or not np.isfinite(header.duration):
        return
    outside = np.isfinite(onset) & ((onset < 0) | (onset > header.duration + 1 / header.sfreq))
    if outside.any():
        worst = float(onset[outside][np.argmax(np.abs(onset[outside]))])
        guess = " (milliseconds?)" if worst > 100 * header.duration else ""
        share = outside.mean()
        yield Fault(
            name, "error" if share > 0.05 else "warning", "outside",
            f"{int(outside.sum())} of {len(onset)} events lie outside the recording of "
            f"{header.duration:.2f} s, e.g. at {worst:g} s{guess}",
            "correct the onsets, or the recording was cut short",
        )  # fmt: skip


def listed_faults(path: Path, name: str, root: Path) -> Iterator[Fault]:
    """scans.tsv: files that are not there, or lie outside of the data set."""
    for cell in column(read_cells(path), "filename"):
        if cell in MISSING:
            continue
        try:
            there = safe_join(root / path.parent.relative_to(root), cell).exists()
        except UnsafePathError:
            what = f"a path that leaves the data set: {cell[:60]!r}"
            yield Fault(name, "error", "unsafe path", what, "correct the file")
            continue
        if not there:
            yield Fault(name, "warning", "scans", f"{cell} is listed and not there", "copy it")
