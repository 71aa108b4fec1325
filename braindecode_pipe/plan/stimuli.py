"""Stimuli by content hash: which stimulus of each target every event presents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import EventError, MissingFileError, StimulusError
from braindecode_pipe.plan.events import MISSING
from braindecode_pipe.plan.near import near_groups
from braindecode_pipe.plan.recordings import hash_file
from braindecode_pipe.recipe import StimuliSpec
from braindecode_pipe.store import safe_join

COLUMNS = (
    "stimulus", "target", "kind", "label", "path", "onset", "offset", "source", "category",
    "near_duplicate_group",
)  # fmt: skip

Hasher = Callable[[Path], str]


def stimulus_id(content: bytes) -> str:
    """First 16 hex digits of SHA-256: the identity of a stimulus is what it holds."""
    return hashlib.sha256(content).hexdigest()[:16]


def match_stimuli(
    target: str,
    spec: StimuliSpec,
    events: pd.DataFrame,
    data: Path,
    hasher: Hasher = hash_file,
) -> tuple[dict[str, pd.Series], pd.DataFrame]:
    """Stimulus id of every event, and the table of stimuli, of one target.

    Returns
    -------
    ids : target -> (n_events,) str, "" where the event presents none; with ``spec.file_column``
        also ``<target>_file``, the file or text that the event's stimulus is a piece of
    stimuli : one row per stimulus; two files with the same bytes are one stimulus, and so are two
        pieces with the same file, onset, length and label. Pieces have their onset and offset [s]
        inside the file and the id of its row as ``source``.

    Raises
    ------
    EventError : a column is not there or holds no number, or no event is left
    MissingFileError : a stimulus file that is named and not there
    StimulusError : one stimulus with two categories; an empty text; a piece without length
    UnsafePathError : a path that leaves the folder
    """
    levels, shown = _shown(target, spec, events)
    first = dict(zip(reversed(levels[shown].tolist()), reversed(_event_names(events, shown))))
    if spec.file_column:
        ids, rows = _pieces(target, spec, events, levels, shown, data, hasher)
    else:
        identity = {
            level: _identify(level, spec, data, target, hasher, first[level])
            for level in sorted(set(levels[shown]))
        }
        named = levels.map(lambda level: identity[level]["stimulus"] if level in identity else "")
        ids = {target: named.where(shown, "")}
        rows = [{**row, "target": target} for row in identity.values()]
    stimuli = pd.DataFrame(list({(r["target"], r["stimulus"]): r for r in rows}.values()))
    stimuli["category"] = ""
    for name, column in ids.items():
        own = stimuli["target"] == name
        stimuli.loc[own, "category"] = _categories(target, spec, events, column, stimuli[own])
    stimuli["near_duplicate_group"] = _near_groups(spec, stimuli, data)
    stimuli = stimuli[list(COLUMNS)].sort_values("stimulus", kind="stable")
    return ids, stimuli.sort_values("target", kind="stable", ignore_index=True)


def _event_names(events: pd.DataFrame, rows: pd.Series) -> list[str]:
    names = events["event"] if "event" in events else pd.Series(events.index.map(str), events.index)
    return [str(name) for name in names[rows]]


def _shown(target: str, spec: StimuliSpec, events: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Level of every event, and whether it presents a stimulus of the target."""
    _need_column(spec.column, events, f"the stimuli of [plan.stimuli.{target}]")
    levels = events[spec.column].astype(str).str.strip()
    shown = ~levels.isin(spec.drop)
    for column, value in spec.where.items():
        _need_column(column, events, f"[plan.stimuli.{target}] where")
        shown &= events[column].astype(str).str.strip() == value
    empty = shown & (levels == "")
    if spec.kind == "text" and spec.where and empty.any():
        raise StimulusError(
            f"a text of target {target!r} is empty",
            expected=f"a word or a sentence in the column {spec.column}",
            found=f"nothing at event {_event_names(events, empty)[0]} "
            f"({int(empty.sum())} such events)",
            remedy="fill it in, or write n/a where the event presents no text",
        )
    shown &= ~levels.isin(MISSING)
    if spec.only:
        absent = sorted(set(spec.only) - set(levels))
        if absent:
            raise EventError(
                f"[plan.stimuli.{target}] only names levels that do not occur",
                expected=", ".join(sorted(set(levels))[:30]),
                found=", ".join(absent),
            )
        shown &= levels.isin(spec.only)
    if not shown.any():
        raise EventError(
            f"no event presents a stimulus of target {target!r}",
            expected=f"values in the column {spec.column}",
            found=", ".join(sorted(set(levels))[:10]),
        )
    return levels, shown


def _need_column(column: str, events: pd.DataFrame, what: str) -> None:
    if column not in events:
        raise EventError(
            f"the events have no column {column!r}",
            expected=f"the column for {what}",
            found=", ".join(sorted(events.columns)),
            remedy="name one of them, or map it in [plan.columns]",
        )


def _identify(
    level: str, spec: StimuliSpec, data: Path, target: str, hasher: Hasher, event: str
) -> dict[str, Any]:
    label = spec.rename.get(level, level)
    row: dict[str, Any] = {
        "kind": spec.kind, "label": label, "path": "", "onset": 0.0, "offset": float("nan"),
        "source": "",
    }  # fmt: skip
    if spec.kind in ("concept", "text"):
        return {**row, "stimulus": stimulus_id(f"{spec.kind}\0{label}".encode())}
    folder = safe_join(data, spec.folder) if spec.folder else data
    prefix = f"{spec.folder}/"
    relative = level[len(prefix) :] if spec.folder and level.startswith(prefix) else level
    path = safe_join(folder, relative)
    is_there = path.is_file() or (spec.kind == "video" and path.is_dir())
    if not is_there:
        raise MissingFileError(
            f"a stimulus of target {target!r} is named in the events and not on disk",
            file=path,
            expected=f"a file {relative!r} below {spec.folder or 'the data folder'}",
            found=("nothing" if folder.is_dir() else f"no folder {spec.folder!r}")
            + f"; event {event} presents it",
            remedy=f"put it there, or set [plan.stimuli.{target}] folder",
        )
    row["path"] = path.resolve().relative_to(data.resolve()).as_posix()
    row["label"] = spec.rename.get(level, Path(relative).stem)
    return {**row, "stimulus": _folder_hash(path, hasher) if path.is_dir() else hasher(path)[:16]}


def _folder_hash(folder: Path, hasher: Hasher) -> str:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return stimulus_id("\0".join(f"{file.name}\0{hasher(file)}" for file in files).encode())


def _pieces(
    target: str,
    spec: StimuliSpec,
    events: pd.DataFrame,
    levels: pd.Series,
    shown: pd.Series,
    data: Path,
    hasher: Hasher,
) -> tuple[dict[str, pd.Series], list[dict[str, Any]]]:
    """Stimuli that are pieces of files or texts: a row for every piece and every whole."""
    if spec.kind not in ("speech", "text", "video"):
        raise EventError(
            f"[plan.stimuli.{target}] has a file_column and stimuli without parts",
            expected='kind = "speech", "text" or "video"', found=f"kind = {spec.kind!r}",
        )  # fmt: skip
    for column in (spec.file_column, spec.onset_column or "onset_column"):
        _need_column(column, events, f"the pieces of [plan.stimuli.{target}]")
    own = events[shown]
    table = pd.DataFrame(
        {
            "event": _event_names(events, shown),
            "label": [spec.rename.get(level, level) for level in levels[shown]],
            "file": own[spec.file_column].astype(str).str.strip().to_numpy(object),
            "onset": _times(own[spec.onset_column], spec.onset_column),
        },
        index=own.index,
    )
    lost = table["file"].isin(MISSING)
    if lost.any():
        raise EventError(
            f"a stimulus of target {target!r} does not say what it is a piece of",
            expected=f"a name in the column {spec.file_column}",
            found=f"nothing at event {table['event'][lost].iloc[0]}, {int(lost.sum())} in all",
        )
    table["offset"] = np.nan
    if spec.kind != "text":
        _need_column(spec.duration_column, events, f"the pieces of [plan.stimuli.{target}]")
        length = _times(own[spec.duration_column], spec.duration_column)
        if (length <= 0).any():
            raise StimulusError(
                f"a piece of target {target!r} has no length",
                expected=f"more than 0 s in the column {spec.duration_column}",
                found=f"{length.min():g} s at event {table['event'].iloc[int(length.argmin())]}",
            )
        table["offset"] = np.round(table["onset"] + length, 3)
    files = _sources(target, spec, table, data, hasher)
    table["source"] = table["file"].map({name: row["stimulus"] for name, row in files.items()})
    table["stimulus"] = [
        stimulus_id(f"{spec.kind}\0{s}\0{a:.3f}\0{b:.3f}\0{label}".encode())
        for s, a, b, label in zip(table["source"], table["onset"], table["offset"], table["label"])
    ]
    pieces = table.drop_duplicates("stimulus")[["stimulus", "label", "onset", "offset", "source"]]
    path = {row["stimulus"]: row["path"] for row in files.values()}
    rows = [
        {**row, "kind": spec.kind, "path": path[row["source"]], "target": target}
        for row in pieces.to_dict("records")
    ]
    rows += [{**row, "target": f"{target}_file"} for row in files.values()]
    empty = pd.Series("", index=events.index, dtype=object)
    ids = {target: empty.copy(), f"{target}_file": empty.copy()}
    ids[target][table.index] = table["stimulus"]
    ids[f"{target}_file"][table.index] = table["source"]
    return ids, rows


def _sources(
    target: str, spec: StimuliSpec, table: pd.DataFrame, data: Path, hasher: Hasher
) -> dict[str, dict[str, Any]]:
    """Row of every file, or of every text as the words that it is made of, by its name."""
    found = {}
    for name, part in table.groupby("file", sort=True):
        if spec.kind == "text":
            words = part.drop_duplicates(["onset", "label"]).sort_values("onset", kind="stable")
            whole = " ".join(words["label"])
            row = _identify(whole, spec.model_copy(update={"rename": {}}), data, target, hasher, "")
        else:
            row = _identify(str(name), spec, data, target, hasher, str(part["event"].iloc[0]))
        found[str(name)] = row
    return found


def _times(column: pd.Series, name: str) -> np.ndarray:
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise EventError(
            f"the column {name} holds something that is no number",
            expected="seconds, with a decimal point",
            found=f"{column.iloc[wrong[0]]!r} ({len(wrong)} such events)",
        )
    # People who hear one file have its onsets with different rounding.
    return np.round(values, 3)


def _near_groups(spec: StimuliSpec, stimuli: pd.DataFrame, data: Path) -> list[str]:
    own = list(stimuli["stimulus"])
    if not spec.near_duplicates or spec.kind != "image":
        return own
    return near_groups([safe_join(data, path) for path in stimuli["path"]], own,
                       spec.near_duplicates)  # fmt: skip


def _categories(
    target: str, spec: StimuliSpec, events: pd.DataFrame, ids: pd.Series, stimuli: pd.DataFrame
) -> list[str]:
    if not spec.category_column:
        return list(stimuli["label"]) if spec.kind == "concept" else [""] * len(stimuli)
    _need_column(spec.category_column, events, f"the categories of [plan.stimuli.{target}]")
    pairs = events[spec.category_column].astype(str).groupby(ids).unique()
    if spec.file_column and (stimuli["target"] != target).all():
        # A story has words of all kinds.
        return [p[0] if len(p) == 1 else "" for p in map(pairs.get, stimuli["stimulus"])]
    for stimulus in stimuli["stimulus"]:
        if len(pairs[stimulus]) > 1:
            raise StimulusError(
                "one stimulus has several categories",
                expected="one value of " + spec.category_column,
                found=f"{', '.join(pairs[stimulus])} for stimulus {stimulus}",
            )
    return [pairs[stimulus][0] for stimulus in stimuli["stimulus"]]
