"""Tab-separated tables of BIDS as people really write them, and repairs that a recipe asks for.

A repair never writes into the data set: a table is read as if it had been written rightly.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from braindecode_pipe.errors import DataError
from braindecode_pipe.formats.names import numbered

MISSING = ("", "n/a", "N/A", "nan", "NaN", "NA")
_DECIMAL_COMMA = re.compile(r"^[+-]?\d+,\d+(e[+-]?\d+)?$", re.IGNORECASE)
_NUMBER = re.compile(r"^[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?$", re.IGNORECASE)
_ENCODING, _COMMA, _NEGATIVE = "text-encoding", "decimal-comma", "negative-durations"
# Entries of ``repairs`` that concern what stands in a table.
TABLE_REPAIRS = (_ENCODING, _COMMA, _NEGATIVE)


@dataclass(frozen=True)
class TableProblem:
    """Something wrong with a table; ``repair`` is the entry of ``repairs`` that helps, or ""."""

    what: str
    repair: str = ""
    fatal: bool = True


@dataclass(frozen=True)
class RawTable:
    """Cells of a table as they stand, before anything is repaired."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    encoding: str
    crlf: bool


def read_cells(file: Path) -> RawTable:
    """The cells of a table in whatever encoding: UTF-8, UTF-16 with a mark, else cp1252."""
    content = file.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif content.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    else:
        encoding = "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252"
        text = content.decode(encoding, errors="replace")
    lines = text.split("\n")
    crlf = any(line.endswith("\r") for line in lines)
    cells = [tuple(line.rstrip("\r").split("\t")) for line in lines if line.strip("\r\n\0 ")]
    header = cells[0] if cells else ()
    return RawTable(tuple(name.strip() for name in header), tuple(cells[1:]), encoding, crlf)


def table_problems(file: Path) -> list[TableProblem]:
    """What is wrong with a table, or unusual and harmless (``fatal`` False)."""
    table = read_cells(file)
    found = []
    if not table.columns:
        return [TableProblem("an empty table")]
    if table.encoding in ("cp1252", "utf-16"):
        found.append(TableProblem(f"not UTF-8, as BIDS asks for, but {table.encoding}", _ENCODING))
    if table.encoding == "utf-8-sig":
        found.append(TableProblem("begins with a byte-order mark", fatal=False))
    if table.crlf:
        found.append(TableProblem("lines end with CRLF", fatal=False))
    twice = sorted({name for name in table.columns if table.columns.count(name) > 1})
    if twice:
        found.append(TableProblem(f"columns stand twice: {', '.join(twice)}"))
    if len(table.columns) == 1 and re.search(r"[,;]", table.columns[0]):
        found.append(TableProblem(f"one column only: {table.columns[0][:60]!r}; no tabs?"))
    wrong = [i for i, row in enumerate(table.rows) if len(row) != len(table.columns)]
    if wrong:
        row = wrong[0]
        found.append(TableProblem(
            f"{len(wrong)} rows with another number of cells than the header, first in line "
            f"{row + 2}: {len(table.rows[row])} for {len(table.columns)} columns"
        ))  # fmt: skip
        return found
    commas = _comma_columns(table)
    for name, (line, cell) in commas.items():
        what = f"decimal commas in column {name}, e.g. {cell!r} in line {line}"
        found.append(TableProblem(what, _COMMA))
    if "duration" in table.columns:
        at = table.columns.index("duration")
        cells = [row[at].strip().replace(",", ".") for row in table.rows]
        lines = [i + 2 for i, c in enumerate(cells) if _NUMBER.match(c) and float(c) < 0]
        if lines:
            what = f"{len(lines)} negative durations, first in line {lines[0]}"
            found.append(TableProblem(what, _NEGATIVE))
    return found


def needs_repair(file: Path, repairs: Sequence[str]) -> bool:
    """Whether a table has a problem that one of ``repairs`` helps with."""
    asked = set(repairs) & set(TABLE_REPAIRS)
    return bool(asked) and any(p.repair in asked for p in table_problems(file))


def repaired_text(file: Path, repairs: Sequence[str]) -> tuple[str, list[str]]:
    """A table as it should have been written, and a text per repair; see :func:`repaired_table`."""
    table = repaired_table(file, repairs)
    rows = [list(table.columns), *table.to_numpy().tolist()]
    return "".join("\t".join(row) + "\n" for row in rows), table.attrs["repaired"]


def repaired_table(file: Path, repairs: Sequence[str] = ()) -> pd.DataFrame:
    """A table of strings, with the repairs that a recipe asks for.

    Parameters
    ----------
    file : Path
    repairs : of ``EmegSection.repairs``
        ``text-encoding``: UTF-16 and cp1252 are read as what they are. ``decimal-comma``: in
        columns of numbers a comma is a point. ``negative-durations``: they become 0 s.
        ``unique-names``: names in channels.tsv that repeat are numbered.

    Returns
    -------
    DataFrame of str; ``attrs["repaired"]`` says what was done, one text per repair

    Raises
    ------
    DataError : the table cannot be read as it is and no repair for it was asked for
    """
    table = read_cells(file)
    for problem in table_problems(file):
        if problem.fatal and problem.repair in ("", _ENCODING) and problem.repair not in repairs:
            raise DataError(
                "a table cannot be read", file=file, expected="tab-separated UTF-8 text",
                found=problem.what,
                remedy=f'write it anew, or set preprocess.emeg.repairs = ["{problem.repair}"]'
                if problem.repair else "correct the file",
            )  # fmt: skip
    frame = pd.DataFrame(list(table.rows), columns=list(table.columns), dtype=str)
    done = []
    if table.encoding in ("cp1252", "utf-16"):
        done.append(f"{file.name}: read as {table.encoding}")
    if _COMMA in repairs and (commas := _comma_columns(table)):
        for name in commas:
            frame[name] = frame[name].str.replace(",", ".", regex=False)
        done.append(f"{file.name}: decimal commas in {', '.join(commas)}")
    if _NEGATIVE in repairs and "duration" in frame:
        values = pd.to_numeric(frame["duration"], errors="coerce")
        if (values < 0).any():
            frame.loc[values < 0, "duration"] = "0"
            done.append(f"{file.name}: {int((values < 0).sum())} negative durations are 0 s")
    if "unique-names" in repairs and file.name.endswith("channels.tsv") and "name" in frame:
        names = numbered(list(frame["name"]))
        if names != list(frame["name"]):
            frame["name"] = names
            done.append(f"{file.name}: channel names that repeat are numbered")
    frame.attrs["repaired"] = done
    return frame


def _comma_columns(table: RawTable) -> dict[str, tuple[int, str]]:
    """Columns of numbers with decimal commas -> line and text of the first such cell."""
    found = {}
    for at, name in enumerate(table.columns):
        cells = [row[at].strip() if at < len(row) else "" for row in table.rows]
        held = [cell for cell in cells if cell not in MISSING]
        first = next((i for i, cell in enumerate(cells) if _DECIMAL_COMMA.match(cell)), None)
        if first is not None and all(_NUMBER.match(cell) for cell in held):
            found[name] = (first + 2, cells[first])
    return found
