"""Look for faults in a whole data set, file by file, before any work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from braindecode_pipe.errors import BraindecodePipeError, MissingFileError
from braindecode_pipe.formats.tables import read_cells
from braindecode_pipe.inspect import faults as look
from braindecode_pipe.inspect.faults import Fault, Header
from braindecode_pipe.inspect.recordings import recording_faults
from braindecode_pipe.plan.recordings import candidates, entities, sidecars
from braindecode_pipe.preprocess.sidecars import merged_json
from braindecode_pipe.recipe import PlanSection, toml_value

_DATATYPES = ("eeg", "meg", "ieeg", "func")
# What lies in those folders beside recordings and their tables.
_BESIDE = (
    ".json", ".tsv", ".tsv.gz", ".eeg", ".dat", ".vmrk", ".fdt", ".mrk", ".pos", ".elp", ".hsp",
    ".txt", ".md", ".jpg", ".png", ".fif", ".sqd", ".edf", ".bdf", ".vhdr", ".set", ".nii",
    ".nii.gz", ".con", ".cal", ".gii", ".nwb", ".pdf",
)  # fmt: skip
_ORDER = {"error": 0, "warning": 1, "note": 2}
_STYLE = {"error": "bold red", "warning": "yellow", "note": "dim"}
# So many files with one fault stand in a table by name.
_SHOWN_FILES = 3


def diagnose(data: str | Path, *, subjects: Sequence[str] = (), quiet: bool = True) -> list[Fault]:
    """Faults of a BIDS data set, or of a folder of loose recordings.

    Headers, tables and sidecars are read, and two seconds of every EEG and MEG recording, to see
    whether its unit can be right. Nothing is written.

    Parameters
    ----------
    data : root of the data set
    subjects : labels to look at, with or without ``sub-``; empty: all
    quiet : no progress bar

    Returns
    -------
    list of Fault, the worst first

    Raises
    ------
    MissingFileError : no such folder
    """
    data = Path(data)
    if not data.is_dir():
        raise MissingFileError(
            "the data folder does not exist", file=data, expected="a folder", found="nothing"
        )
    wanted = {label.removeprefix("sub-") for label in subjects}
    is_bids = any(path.is_dir() for path in data.glob("sub-*"))
    found = list(_dataset_faults(data)) if is_bids and not wanted else []
    files = [
        file for file in _files(data)
        if not wanted or file.relative_to(data).parts[0].removeprefix("sub-") in wanted
    ]  # fmt: skip
    recordings = [
        (path, datatype) for path, datatype in _recordings(data, is_bids)
        if not wanted or entities(path.name).get("sub") in wanted
    ]  # fmt: skip
    headers: dict[Path, Header] = {}
    with _bar(len(files) + len(recordings), quiet) as advance:
        for file in files:
            found += look.file_faults(file, _name(file, data))
            advance()
        for path, datatype in recordings:
            more, headers[path] = _recording(path, datatype, data)
            found += [fault for fault in more if fault not in found]
            advance()
    found += _beside_recordings(files, headers, data)
    found += _strangers(files, set(headers), data)
    found += _across_runs(headers, data)
    unique = list(dict.fromkeys(found))
    return sorted(unique, key=lambda fault: (_ORDER[fault.severity], fault.file, fault.code))


def _name(path: Path, data: Path) -> str:
    return path.relative_to(data).as_posix()


def _files(data: Path) -> list[Path]:
    """Files below ``sub-*``, and tables and sidecars of the root; no hidden ones."""
    found = [p for p in sorted(data.iterdir()) if p.suffix in (".tsv", ".json") and not p.is_dir()]
    for subject in sorted(data.glob("sub-*")):
        for folder, folders, names in os.walk(subject):
            folders[:] = sorted(
                f for f in folders
                if not f.startswith(".") and Path(f).suffix not in (".ds", ".mff", ".mefd")
            )  # fmt: skip
            found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _recordings(data: Path, is_bids: bool) -> list[tuple[Path, str]]:
    if is_bids:
        return list(candidates(PlanSection(), data))
    from braindecode_pipe.inspect.survey import LOOSE

    section = PlanSection(files=[f"**/{pattern}" for pattern in LOOSE])
    return list(dict(candidates(section, data)).items())


def _recording(path: Path, datatype: str, data: Path) -> tuple[list[Fault], Header]:
    name = _name(path, data)
    if path.is_symlink() and not path.exists():
        return [], Header(path, datatype)  # told among the files
    try:
        sidecar = merged_json(path, data, path.name.split(".")[0].rsplit("_", 1)[-1])
        tables = sidecars(path, data, "channels", ".tsv")
        kinds = {}
        if tables:
            cells = read_cells(tables[-1])
            kinds = dict(zip(look.column(cells, "name"), look.column(cells, "type")))
        found, header = recording_faults(path, name, datatype, sidecar, kinds)
    except BraindecodePipeError as error:
        what = f"{error.message}: {error.found}" if error.found else error.message
        return [Fault(name, "error", "unreadable", what, str(error.remedy or ""))], Header(
            path, datatype
        )
    return found, header


# --- the data set as a whole ---------------------------------------------------------------------


def _dataset_faults(data: Path) -> Iterator[Fault]:
    if not any(data.glob("README*")):
        yield Fault("README", "note", "README", "there is no README", "write what the data are")
    file = data / "dataset_description.json"
    if not file.is_file():
        yield Fault(
            file.name, "warning", "description", "not there",
            'write {"Name": ..., "BIDSVersion": "1.9.0"}',
        )  # fmt: skip
    else:
        try:
            content = merged_json(data / "x_description.json", data, "dataset_description")
        except BraindecodePipeError:
            content = {}  # told among the files
        lacking = [key for key in ("Name", "BIDSVersion") if key not in content]
        if lacking and content:
            what = f"{', '.join(lacking)} missing"
            yield Fault(file.name, "warning", "description", what, "write them")
    yield from _participant_faults(data)


def _participant_faults(data: Path) -> Iterator[Fault]:
    file = data / "participants.tsv"
    there = {path.name for path in data.glob("sub-*") if path.is_dir()}
    if not file.is_file():
        return
    listed = look.column(read_cells(file), "participant_id")
    if not listed:
        yield Fault(
            file.name, "warning", "participants", "no column participant_id", "write sub-LABEL"
        )
        return
    unsafe = [name for name in listed if not re.fullmatch(r"sub-[A-Za-z0-9+]+", name)]
    for name in unsafe[:5]:
        yield Fault(
            file.name, "error", "unsafe path", f"{name[:60]!r} is no label of a participant",
            "write sub- and letters or digits",
        )  # fmt: skip
    lacking = sorted(set(listed) - there - set(unsafe))
    extra = sorted(there - set(listed) - {"sub-emptyroom"})
    for names, what, remedy in (
        (lacking, "listed and without a folder", "copy their data, or remove the rows"),
        (extra, "with a folder and not listed", "add their rows"),
    ):
        if names:
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
            yield Fault(file.name, "warning", "participants", f"{shown}: {what}", remedy)


def _beside_recordings(
    files: Iterable[Path], headers: dict[Path, Header], data: Path
) -> Iterator[Fault]:
    """Tables that say something about a recording, beside what its header says."""
    by_folder: dict[Path, list[Header]] = {}
    for header in headers.values():
        by_folder.setdefault(header.path.parent, []).append(header)
    for file in files:
        if file.suffix != ".tsv" or not file.is_file() or file.stat().st_size == 0:
            continue
        name = _name(file, data)
        own = entities(file.name)
        near = [h for h in by_folder.get(file.parent, ())
                if own.items() <= entities(h.path.name).items()]  # fmt: skip
        header = near[0] if near else None
        if file.name.endswith("_channels.tsv"):
            yield from look.channel_faults(file, name, header)
        elif file.name.endswith("_electrodes.tsv"):
            yield from look.electrode_faults(file, name, _position_unit(file, data))
        elif file.name.endswith("_events.tsv"):
            yield from look.event_faults(file, name, header)
        elif file.name.endswith("_scans.tsv"):
            yield from look.listed_faults(file, name, data)


def _position_unit(file: Path, data: Path) -> str:
    """Unit of an electrodes.tsv, from the coordsystem.json that belongs to it."""
    beside = file.with_name(file.name.replace("_electrodes.tsv", "_coordsystem.json"))
    folders = [beside] if beside.is_file() else sorted(file.parent.glob("*coordsystem.json"))
    for candidate in folders:
        try:
            meta: dict[str, Any] = merged_json(candidate, data, "coordsystem")
        except BraindecodePipeError:
            return ""
        for kind in ("EEG", "iEEG", "MEG"):
            if f"{kind}CoordinateUnits" in meta:
                return str(meta[f"{kind}CoordinateUnits"])
    return ""


def _strangers(files: Iterable[Path], known: set[Path], data: Path) -> Iterator[Fault]:
    """Files in folders of recordings that nothing will read."""
    for file in files:
        name = file.name.lower()
        if file.parent.name not in _DATATYPES or file in known or name.endswith(_BESIDE):
            continue
        yield Fault(
            _name(file, data), "warning", "unknown type",
            f"nothing reads files of type {file.suffix or 'without ending'} here",
            "convert it to a format of BIDS, e.g. with mne_bids.write_raw_bids",
        )  # fmt: skip


def _across_runs(headers: dict[Path, Header], data: Path) -> Iterator[Fault]:
    """Rates and channels that differ between the runs of one person."""
    groups: dict[tuple[str, str], list[Header]] = {}
    for header in headers.values():
        if header.names:
            key = entities(header.path.name).get("sub", ""), header.datatype
            groups.setdefault(key, []).append(header)
    for (subject, _), runs in sorted(groups.items()):
        first = runs[0]
        for other in runs[1:]:
            name = _name(other.path, data)
            if not np.isclose(other.sfreq, first.sfreq, rtol=1e-6):
                yield Fault(
                    name, "warning", "rates differ",
                    f"{other.sfreq:g} Hz, while {first.path.name} has {first.sfreq:g} Hz",
                    f"preprocess.emeg.sfreq = {min(first.sfreq, other.sfreq):g} resamples both",
                )  # fmt: skip
            if set(other.names) != set(first.names):
                lost = sorted(set(first.names) ^ set(other.names))
                yield Fault(
                    name, "warning", "channels differ",
                    f"{len(lost)} channels are not in both this run and {first.path.name}: "
                    f"{', '.join(lost[:5])}",
                    f"what all runs of sub-{subject} have is used",
                )  # fmt: skip
            elif other.names != first.names:
                yield Fault(
                    name, "note", "channel order",
                    f"channels stand in another order than in {first.path.name}",
                    "they are brought together by their names",
                )  # fmt: skip


# --- showing -------------------------------------------------------------------------------------


def diagnosis_table(found: Sequence[Fault]) -> RenderableType:
    """A table of faults, those of one kind together, and the lines that repair while reading."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("file", "severity", "what", "remedy"):
        table.add_column(name, overflow="fold")
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in found:
        groups.setdefault((fault.severity, fault.code), []).append(fault)
    for (severity, _), members in groups.items():
        style = _STYLE[severity]
        for fault in members[:_SHOWN_FILES]:
            remedy = fault.remedy + (f'; or repairs = ["{fault.repair}"]' if fault.repair else "")
            cells = (fault.file, fault.what, remedy)
            file, what, remedy = (Text(_plain(cell)) for cell in cells)
            table.add_row(file, Text(severity, style=style), what, remedy)
        if len(members) > _SHOWN_FILES:
            rest = len(members) - _SHOWN_FILES
            table.add_row(Text(f"and {rest} more"), Text(severity, style=style), Text("the same"))
    counts = ", ".join(
        f"{n} {severity}{'s' if n != 1 else ''}" for severity in _ORDER
        if (n := sum(fault.severity == severity for fault in found))
    )  # fmt: skip
    parts: list[RenderableType] = [table] if found else []
    parts.append(Text(counts or "No fault found.", style="" if counts else "green"))
    repairs = sorted({fault.repair for fault in found} - {""})
    if repairs:
        parts.append(Text("These can be repaired while reading; add to the recipe:"))
        parts.append(Text(f"  [preprocess.emeg]\n  repairs = {toml_value(repairs)}", style="bold"))
    return Group(*parts)


def _plain(text: str) -> str:
    """Names come from files; on a console they must not move the cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def _bar(total: int, quiet: bool) -> Any:
    """A context whose value is called once per file."""
    if quiet:
        return nullcontext(lambda: None)
    return _Bar(total)


class _Bar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("files", total=total)

    def __enter__(self) -> Any:
        self._progress.start()
        return lambda: self._progress.advance(self._task)

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()
