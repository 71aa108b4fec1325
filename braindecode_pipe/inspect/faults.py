"""What is wrong with one file of a data set; headers and tables are read, samples for a moment.

Every function yields :class:`Fault` and raises nothing for bad input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import (
    BraindecodePipeError,
    MissingFileError,
    TruncatedRecordingError,
    UnitError,
    UnsafePathError,
)
from braindecode_pipe.formats import brainvision, declared, guarded, open_epochs, open_raw, repeated
from braindecode_pipe.formats.kinds import describe
from braindecode_pipe.formats.tables import MISSING, RawTable, read_cells, table_problems
from braindecode_pipe.preprocess.quality import check_units
from braindecode_pipe.store import safe_join

# Tables that decide what is computed; others only describe.
_READ = ("_events.tsv", "_channels.tsv", "_electrodes.tsv")
_UNITS_TO_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
_MAX_RADIUS, _MIN_RADIUS = 0.5, 1e-3
_EXCERPT_S = 2.0
_COUNTS = ("EEG", "EOG", "ECG", "EMG", "MISC", "Misc", "Trigger", "MEG", "MEGREF", "SEEG", "ECOG",
           "iEEG", "DBS")  # fmt: skip


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


# --- recordings ----------------------------------------------------------------------------------


def recording_faults(
    path: Path, name: str, datatype: str, sidecar: dict[str, Any], kinds: dict[str, str]
) -> tuple[list[Fault], Header]:
    """Faults of a recording, and its header.

    Parameters
    ----------
    path, name : the recording; its path below the data set
    datatype : as the plan names it
    sidecar : its JSON, inherited
    kinds : channel name -> type in channels.tsv, empty without one
    """
    header, faults = Header(path, datatype), []
    if datatype == "bold":
        return list(_image_faults(path, name, sidecar, header)), header
    if datatype == "parcels":
        return [], header
    try:
        faults += _declared_faults(path, name)
        if path.suffix.lower() == ".set" and describe(path).form == "epochs":
            datatype = header.datatype = "epochs"
            faults.append(Fault(
                name, "note", "epoched", "EEGLAB epochs: no filter is applied to them",
                "give the continuous recording where there is one",
            ))  # fmt: skip
        numbered = ("unique-names",)
        opener = open_epochs if datatype == "epochs" else partial(open_raw, repairs=numbered)
        inst, _ = guarded(partial(opener, path), path, path.parent, numbered)
    except BraindecodePipeError as error:
        if not any(fault.severity == "error" for fault in faults):
            what = f"{error.message}: {error.found}" if error.found else error.message
            faults.append(Fault(name, "error", "unreadable", what, str(error.remedy or "")))
        return faults, header
    header.names, header.sfreq = list(inst.ch_names), float(inst.info["sfreq"])
    if datatype != "epochs":
        header.duration = inst.n_times / header.sfreq
        faults += _unit_faults(inst, name, kinds)
    faults += _sidecar_faults(name, sidecar, header)
    return faults, header


def _declared_faults(path: Path, name: str) -> Iterator[Fault]:
    """Cut files, missing parts, names that repeat."""
    try:
        found = declared(path)
    except MissingFileError as error:
        what = f"{error.message}: {error.expected}"
        yield Fault(name, "error", "missing", what, str(error.remedy or "copy it too"))
        return
    if path.suffix.lower() in (".vhdr", ".ahdr"):
        markers = brainvision.read_header(path).markers
        if markers is not None and not markers.is_file():
            yield Fault(
                name, "error", "missing", f"the marker file {markers.name} is not there",
                "copy it too, or name the right one in the header",
            )  # fmt: skip
    if twice := repeated(found.names):
        yield Fault(
            name, "error", "repeated", f"channel names repeat: {twice}",
            "rename them in the header", "unique-names",
        )  # fmt: skip
    if found.truncated:
        keep = "" if found.n_times == 0 else ", or use the prefix: plan.allow_truncated = true"
        yield Fault(
            name, "error", TruncatedRecordingError.__name__,
            f"cut short: {found.found} of {found.expected}", f"copy it again{keep}",
        )  # fmt: skip


def _unit_faults(raw: Any, name: str, kinds: dict[str, str]) -> Iterator[Fault]:
    """Amplitudes of an excerpt from the middle that no volt or tesla can have."""
    sfreq = float(raw.info["sfreq"])
    n = min(raw.n_times, max(2, round(_EXCERPT_S * sfreq)))
    start = (raw.n_times - n) // 2
    types = [
        {"EEG": "eeg", "SEEG": "seeg", "ECOG": "ecog", "DBS": "dbs"}.get(kinds[n].upper(), "misc")
        if n in kinds and kind in ("eeg", "seeg", "ecog", "dbs") else kind
        for n, kind in zip(raw.ch_names, raw.get_channel_types())
    ]  # fmt: skip
    reader = partial(raw.get_data, start=start, stop=start + n, verbose="error")
    try:
        values, _ = guarded(reader, Path(name), Path("."))
        check_units(np.nan_to_num(values).std(axis=1), types, name)
    except UnitError as error:
        yield Fault(
            name, "error", "unit", f"{error.message}: {error.found}", str(error.remedy or "")
        )
    except BraindecodePipeError as error:
        yield Fault(name, "error", "unreadable", error.line, str(error.remedy or ""))


def _sidecar_faults(name: str, sidecar: dict[str, Any], header: Header) -> Iterator[Fault]:
    """Rate, length and channel counts of the sidecar against those of the header."""
    stated = sidecar.get("SamplingFrequency")
    if isinstance(stated, (int, float)) and abs(stated - header.sfreq) > 1e-3 * header.sfreq:
        yield Fault(
            name, "error", "sidecar rate",
            f"SamplingFrequency is {stated:g} Hz in the sidecar, {header.sfreq:g} Hz in the header",
            "correct the one that is wrong",
        )  # fmt: skip
    stated = sidecar.get("RecordingDuration")
    if isinstance(stated, (int, float)) and np.isfinite(header.duration):
        longer = header.duration - stated
        if abs(longer) > max(1.0 if longer < 0 else 0.5, 0.01 * stated):
            yield Fault(
                name, "error" if longer < 0 else "warning", "sidecar length",
                f"RecordingDuration is {stated:g} s in the sidecar, the recording lasts "
                f"{header.duration:g} s",
                "copy it again" if longer < 0 else "is the number format of the header right?",
            )  # fmt: skip
    counts = [sidecar.get(f"{kind}ChannelCount") for kind in _COUNTS]
    known = [count for count in counts if isinstance(count, int)]
    if known and header.names and sum(known) > len(header.names):
        yield Fault(
            name, "warning", "sidecar channels",
            f"the sidecar counts {sum(known)} channels, the header {len(header.names)}",
            "correct the one that is wrong",
        )  # fmt: skip


def _image_faults(
    path: Path, name: str, sidecar: dict[str, Any], header: Header
) -> Iterator[Fault]:
    """Shape, length of the file and repetition time of an image."""
    import nibabel

    try:
        image = nibabel.load(path)
        shape, zooms = image.shape, image.header.get_zooms()
        unit = image.header.get_xyzt_units()[1] if hasattr(image.header, "get_xyzt_units") else ""
    except Exception as error:  # nibabel has errors of its own, and passes on those of gzip
        text = str(error).splitlines()[0] if str(error) else ""
        what = f"cannot be opened: {type(error).__name__}: {text}"
        yield Fault(name, "error", "unreadable", what, "copy it again")
        return
    if len(shape) != 4:
        yield Fault(name, "error", "no series", f"no time series: {len(shape)} dimensions",
                    "give the 4-D image")  # fmt: skip
        return
    t_r = float(zooms[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    stated = sidecar.get("RepetitionTime")
    if isinstance(stated, (int, float)) and stated > 0:
        if t_r > 0 and abs(t_r - stated) > 1e-3 * stated:
            yield Fault(name, "error", "sidecar TR", f"RepetitionTime is {stated:g} s in the "
                        f"sidecar, {t_r:g} s in the header", "correct the one that is wrong",
                        )  # fmt: skip
        t_r = float(stated)
    if not 0.1 <= t_r <= 20:
        guess = " (milliseconds?)" if t_r > 20 else ""
        yield Fault(name, "error", "TR", f"the repetition time is {t_r:g} s{guess}",
                    "write RepetitionTime [s] in the sidecar, or set preprocess.bold.t_r",
                    )  # fmt: skip
    else:
        header.sfreq, header.duration = 1 / t_r, shape[3] * t_r
    if path.suffix == ".nii":
        offset = int(image.dataobj.offset)
        needed = offset + int(np.prod(shape)) * image.get_data_dtype().itemsize
        size = path.stat().st_size
        if size < needed:
            yield Fault(name, "error", TruncatedRecordingError.__name__,
                        f"cut short: {size} of {needed} bytes", "copy it again")  # fmt: skip
