"""What a data set holds: people, recordings, events, stimuli, derivatives, copies."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from braindecode_pipe.errors import BraindecodePipeError, DataError, MissingFileError
from braindecode_pipe.plan.events import MISSING, read_events
from braindecode_pipe.plan.recordings import (
    dataset_description,
    find_recordings,
    hash_file,
    sidecars,
)
from braindecode_pipe.recipe import PlanSection
from braindecode_pipe.store import safe_join

_KINDS = {
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    "speech": (".wav", ".flac", ".mp3", ".ogg"),
}
LOOSE = (
    "*_epo.fif", "*-epo.fif", "*_raw.fif", "*-raw.fif", "*_meg.fif", "*.vhdr", "*.edf", "*.bdf",
    "*.set", "*.gdf", "*.cnt", "*.mff", "*.ds", "*.sqd", "*.con", "*-ave.fif", "*_ave.fif",
    "*_bold.nii.gz", "*_bold.nii", "*_timeseries.tsv",
)  # fmt: skip
# Columns that say when and where, not what.
_WHEN = ("event", "recording", "subject", "session", "run", "onset", "duration", "sample")
_SHOWN_LEVELS, _SHOWN_ROWS = 12, 20


@dataclass(frozen=True)
class Column:
    """One column of the event tables.

    Attributes
    ----------
    name : str
    levels : level -> number of events, the most frequent first
    kind : "image" or "speech" where the levels are names of such files, else ""
    folder : folder below the data set that holds most of those files
    missing : file names that are not there
    """

    name: str
    levels: dict[str, int]
    kind: str = ""
    folder: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What :func:`survey` found.

    Attributes
    ----------
    data : root of the data set
    description : content of dataset_description.json
    sections : name of a derivative, or "" for the data set itself -> how the plan finds recordings
    recordings : the plan's table of recordings, with ``source`` (a key of ``sections``), and
        ``n_events``
    events : events of all readable recordings, with ``source``
    columns : event columns that say what was presented
    derivatives : name -> kind of file -> how many
    copies : pairs of recordings whose data files are equal byte by byte
    problems : what cannot be read, one line each
    """

    data: Path
    description: dict[str, Any]
    sections: dict[str, PlanSection]
    recordings: pd.DataFrame
    events: pd.DataFrame
    columns: dict[str, Column]
    derivatives: dict[str, dict[str, int]]
    copies: list[tuple[str, str]]
    problems: list[str]


def survey(data: str | Path) -> Survey:
    """Look at a BIDS data set, or at a folder of loose recordings.

    Headers and event tables are read; of the recordings only those that may be copies.

    Raises
    ------
    MissingFileError
        There is no such folder, or no recording in it.
    """
    data = Path(data)
    if not data.is_dir():
        raise MissingFileError(
            "the data folder does not exist", file=data, expected="a folder", found="nothing"
        )
    sections, tables, problems = _find(data)
    if not tables:
        raise MissingFileError(
            "no recording found",
            file=data,
            expected="sub-*/ folders as in BIDS, or files like " + ", ".join(LOOSE),
            found=", ".join(sorted(p.name for p in data.iterdir())[:8]) or "an empty folder",
            remedy="see https://bids.neuroimaging.io for how folders and files are named",
        )
    recordings = pd.concat(tables, ignore_index=True)
    problems += [
        f"{row.recording}: {row.problem}" for row in recordings.itertuples() if row.problem
    ]
    events, more = _events(recordings, sections, data)
    counts = Counter(zip(events.get("source", ()), events.get("recording", ())))
    recordings["n_events"] = [counts[row.source, row.recording] for row in recordings.itertuples()]
    return Survey(
        data,
        dataset_description(data),
        sections,
        recordings,
        events,
        _columns(events, data),
        _derivatives(data),
        _copies(recordings, data),
        problems + more,
    )


def _size(path: Path) -> str:
    """Stands in for a content hash: copies are looked for among files of equal size only."""
    return str(path.stat().st_size)


def _find(data: Path) -> tuple[dict[str, PlanSection], list[pd.DataFrame], list[str]]:
    """Recordings of the data set itself, of its preprocessed derivatives, or else loose ones."""
    candidates = {"": PlanSection()}
    for folder in sorted((data / "derivatives").glob("*")):
        if next(folder.rglob("*_desc-preproc_bold.nii*"), None):
            candidates[folder.name] = PlanSection(derivatives=folder.name, datatypes=["bold"])
    sections, tables, problems = {}, [], []
    for source, section in candidates.items():
        try:
            table = _table(section, data)
        except MissingFileError:
            continue
        except DataError as error:
            section = _one_space(section, data)
            if section is None:
                problems.append(error.message)
                continue
            table = _table(section, data)
        sections[source] = section
        tables.append(table.assign(source=source))
    if not tables:
        patterns = [f"**/{name}" for name in LOOSE if next(data.rglob(name), None)]
        if patterns:
            sections[""] = PlanSection(files=patterns)
            tables.append(_table(sections[""], data).assign(source=""))
    return sections, tables, problems


def _table(section: PlanSection, data: Path) -> pd.DataFrame:
    return find_recordings(section, data, _size)


def _one_space(section: PlanSection, data: Path) -> PlanSection | None:
    """The same derivative, in the first of the spaces that its images come in."""
    root = data / "derivatives" / section.derivatives
    names = [path.name for path in root.rglob("*_space-*_desc-preproc_bold.nii.gz")]
    spaces = sorted({m[1] for name in names if (m := re.search(r"_space-([a-zA-Z0-9]+)_", name))})
    if not spaces:
        return None
    pattern = f"derivatives/{section.derivatives}/**/*_space-{spaces[0]}*_desc-preproc_bold.nii.gz"
    return section.model_copy(update={"files": [pattern]})


def _events(
    recordings: pd.DataFrame, sections: dict[str, PlanSection], data: Path
) -> tuple[pd.DataFrame, list[str]]:
    tables, problems = [], []
    for row in recordings.to_dict("records"):
        if row["problem"]:
            continue
        try:
            table = read_events(sections[row["source"]], row, data)
        except BraindecodePipeError as error:
            problems.append(f"{row['recording']}: {error.message}: {error.found}")
            continue
        if len(table):
            table.attrs = {}
            tables.append(table.assign(source=row["source"]))
    if not tables:
        return pd.DataFrame(columns=["onset", "duration", "recording", "source"]), problems
    return pd.concat(tables, ignore_index=True), problems


def _columns(events: pd.DataFrame, data: Path) -> dict[str, Column]:
    columns = {}
    for name in events.columns:
        if name in (*_WHEN, "source"):
            continue
        values = events[name].dropna().astype(str).str.strip()
        levels = values[~values.isin(MISSING)].value_counts()
        if len(levels):
            ordered = {str(level): int(n) for level, n in levels.items()}
            columns[str(name)] = Column(str(name), ordered, *_files(list(ordered), data))
    return columns


def _files(levels: list[str], data: Path) -> tuple[str, str, tuple[str, ...]]:
    """Kind, folder and missing files of a column whose levels look like file names."""
    for kind, endings in _KINDS.items():
        if not all(level.lower().endswith(endings) for level in levels):
            continue
        lacking = {
            folder: tuple(level for level in levels if not _is_there(data, folder, level))
            for folder in ("stimuli", "")
        }
        folder = min(lacking, key=lambda name: len(lacking[name]))
        return kind, folder, lacking[folder]
    return "", "", ()


def _is_there(data: Path, folder: str, level: str) -> bool:
    relative = level.removeprefix(f"{folder}/") if folder else level
    try:
        return safe_join(data / folder, relative).is_file()
    except BraindecodePipeError:
        return False


def _derivatives(data: Path) -> dict[str, dict[str, int]]:
    found = {}
    for folder in sorted((data / "derivatives").glob("*")):
        if folder.is_dir():
            files = [path for path in folder.rglob("sub-*") if path.is_file()]
            kinds = Counter(re.sub(r"^.*?(desc-[a-zA-Z0-9]+_)?([^_]+)$", r"\1\2", path.name)
                            for path in files)  # fmt: skip
            found[folder.name] = dict(sorted(kinds.items()))
    return found


def _copies(recordings: pd.DataFrame, data: Path) -> list[tuple[str, str]]:
    """Pairs of recordings with equal data files; only files of equal size are read."""
    by_size: dict[int, list[tuple[str, Path]]] = {}
    for row in recordings.itertuples():
        path = data / str(row.path)
        for extension in (".eeg", ".fdt"):
            if path.suffix in (".vhdr", ".set") and path.with_suffix(extension).is_file():
                path = path.with_suffix(extension)
        if path.is_file():
            by_size.setdefault(path.stat().st_size, []).append((str(row.recording), path))
    pairs, first = [], {}
    for _, same in sorted(by_size.items()):
        for name, path in same if len(same) > 1 else ():
            twin = first.setdefault(hash_file(path), name)
            if twin != name:
                pairs.append((twin, name))
    return sorted(pairs)


def sidecar_value(found: Survey, recording: dict[str, Any], key: str) -> Any:
    """Value of ``key`` in the nearest JSON sidecar of a recording that has it, or ``None``."""
    path = found.data / recording["path"]
    suffix = path.name.split(".")[0].rsplit("_", 1)[-1]
    value = None
    for sidecar in sidecars(path, found.data, suffix, ".json"):
        try:
            value = json.loads(sidecar.read_text(encoding="utf-8")).get(key, value)
        except (ValueError, AttributeError):
            continue
    return value


# --- printing ------------------------------------------------------------------------------------


def describe_survey(found: Survey) -> RenderableType:
    """What was found, for a console."""
    recordings = found.recordings
    people = sorted(set(recordings["subject"]))
    title = str(found.description.get("Name", "") or found.data.name)
    parts: list[RenderableType] = [
        Text(_plain(title), style="bold"),
        Text(
            f"{len(people)} people, {len(recordings)} recordings, {len(found.events)} events"
            + (", simulated" if (recordings["data_origin"] == "simulated").any() else "")
        ),
        _recordings_table(recordings),
    ]
    if found.columns:
        parts.append(_columns_table(found.columns))
    parts += [Text(f"Derivatives in {name}: {_counts(kinds)}")
              for name, kinds in found.derivatives.items()]  # fmt: skip
    parts += [Text(line, style="yellow") for line in _notices(found)]
    return Group(*parts)


def _recordings_table(recordings: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("person", "data", "sessions", "tasks", "runs"):
        table.add_column(name)
    for name in ("recordings", "sensors", "rate [Hz]", "minutes", "events"):
        table.add_column(name, justify="right")
    groups = list(recordings.groupby(["subject", "source", "datatype"]))
    for (subject, source, datatype), part in groups[:_SHOWN_ROWS]:
        table.add_row(
            Text(_plain(subject)),
            Text(f"{datatype} ({source})" if source else datatype),
            *(Text(_names(part[name])) for name in ("session", "task", "run")),
            str(len(part)),
            _range(part["n_sensors"]),
            _range(part["sfreq"]),
            f"{part['duration'].sum() / 60:.1f}",
            str(part["n_events"].sum()),
        )
    if len(groups) > _SHOWN_ROWS:
        table.add_row(f"and {len(groups) - _SHOWN_ROWS} more")
    return table


def _columns_table(columns: dict[str, Column]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("event column")
    table.add_column("levels", justify="right")
    table.add_column("most frequent (events)")
    table.add_column("files")
    for column in columns.values():
        files = ""
        if column.kind:
            there = len(column.levels) - len(column.missing)
            files = f"{there} found, {len(column.missing)} missing"
        table.add_row(
            Text(_plain(column.name)), str(len(column.levels)), Text(_counts(column.levels)), files
        )
    return table


def _notices(found: Survey) -> Iterator[str]:
    for first, second in found.copies:
        yield f"Copies: {first} and {second} hold the same bytes"
    for column in found.columns.values():
        for name in column.missing[:3]:
            yield f"Missing: {_plain(name)}, named in column {column.name}"
    silent = found.recordings[(found.recordings["n_events"] == 0)]
    if len(silent):
        yield f"Without events: {_names(silent['recording'])}"
    for problem in found.problems[:_SHOWN_ROWS]:
        yield f"Problem: {_plain(problem)}"


def _names(values: pd.Series) -> str:
    names = sorted({_plain(str(value)) for value in values} - {""})
    more = f" and {len(names) - _SHOWN_LEVELS} more" if len(names) > _SHOWN_LEVELS else ""
    return ", ".join(names[:_SHOWN_LEVELS]) + more or "-"


def _counts(levels: dict[str, int]) -> str:
    shown = [f"{_plain(level)} ({n})" for level, n in list(levels.items())[:_SHOWN_LEVELS]]
    more = f" and {len(levels) - _SHOWN_LEVELS} more" if len(levels) > _SHOWN_LEVELS else ""
    return ", ".join(shown) + more


def _plain(text: str) -> str:
    """Names come from files; on a console they must not move the cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def _range(values: pd.Series) -> str:
    values = values.dropna()
    if not len(values):
        return "?"
    low, high = f"{values.min():g}", f"{values.max():g}"
    return low if low == high else f"{low}-{high}"
