"""Stimuli by content hash: which stimulus of each target every event presents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from braindecode_pipe.errors import EventError, MissingFileError, StimulusError
from braindecode_pipe.plan.events import MISSING
from braindecode_pipe.plan.recordings import hash_file
from braindecode_pipe.recipe import StimuliSpec
from braindecode_pipe.store import safe_join

COLUMNS = (
    "stimulus", "target", "kind", "label", "path", "onset", "offset", "category",
    "near_duplicate_group",
)  # fmt: skip


def stimulus_id(content: bytes) -> str:
    """First 16 hex digits of SHA-256: the identity of a stimulus is what it holds."""
    return hashlib.sha256(content).hexdigest()[:16]


def match_stimuli(
    target: str,
    spec: StimuliSpec,
    events: pd.DataFrame,
    data: Path,
    hasher: Callable[[Path], str] = hash_file,
) -> tuple[pd.Series, pd.DataFrame]:
    """Stimulus id of every event, and the table of stimuli, of one target.

    Returns
    -------
    ids : (n_events,) str, "" where the event presents none
    stimuli : one row per stimulus; two files with the same bytes are one stimulus

    Raises
    ------
    EventError : the column is not there, or no event is left
    MissingFileError : a stimulus file that is named and not there
    StimulusError : one stimulus with two categories
    """
    _need_column(spec.column, events, f"the stimuli of [plan.stimuli.{target}]")
    levels = events[spec.column].astype(str).str.strip()
    shown = ~levels.isin(MISSING) & ~levels.isin(spec.drop)
    for column, value in spec.where.items():
        _need_column(column, events, f"[plan.stimuli.{target}] where")
        shown &= events[column].astype(str).str.strip() == value
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
    identity = {
        level: _identify(level, spec, data, target, hasher) for level in sorted(set(levels[shown]))
    }
    ids = levels.map(lambda level: identity[level]["stimulus"] if level in identity else "")
    ids = ids.where(shown, "")
    rows = {row["stimulus"]: row for row in identity.values()}
    stimuli = pd.DataFrame(list(rows.values()))
    stimuli["category"] = _categories(target, spec, events, ids, stimuli)
    stimuli["target"] = target
    stimuli["near_duplicate_group"] = stimuli["stimulus"]
    return ids, stimuli[list(COLUMNS)].sort_values("stimulus", ignore_index=True)


def _need_column(column: str, events: pd.DataFrame, what: str) -> None:
    if column not in events:
        raise EventError(
            f"the events have no column {column!r}",
            expected=f"the column for {what}",
            found=", ".join(sorted(events.columns)),
            remedy="name one of them, or map it in [plan.columns]",
        )


def _identify(
    level: str, spec: StimuliSpec, data: Path, target: str, hasher: Callable[[Path], str]
) -> dict[str, object]:
    label = spec.rename.get(level, level)
    row: dict[str, object] = {
        "kind": spec.kind, "label": label, "path": "", "onset": 0.0, "offset": float("nan"),
    }  # fmt: skip
    if spec.kind == "concept":
        return {**row, "stimulus": stimulus_id(f"concept\0{label}".encode())}
    folder = safe_join(data, spec.folder) if spec.folder else data
    prefix = f"{spec.folder}/"
    relative = level[len(prefix) :] if spec.folder and level.startswith(prefix) else level
    path = safe_join(folder, relative)
    if not path.is_file():
        raise MissingFileError(
            f"a stimulus of target {target!r} is named in the events and not on disk",
            file=path,
            expected=f"a file {relative!r} below {spec.folder or 'the data folder'}",
            found="nothing" if folder.is_dir() else f"no folder {spec.folder!r}",
            remedy=f"put it there, or set [plan.stimuli.{target}] folder",
        )
    row["path"] = path.resolve().relative_to(data.resolve()).as_posix()
    row["label"] = spec.rename.get(level, Path(relative).stem)
    return {**row, "stimulus": hasher(path)[:16]}


def _categories(
    target: str, spec: StimuliSpec, events: pd.DataFrame, ids: pd.Series, stimuli: pd.DataFrame
) -> list[str]:
    if not spec.category_column:
        return list(stimuli["label"]) if spec.kind == "concept" else [""] * len(stimuli)
    _need_column(spec.category_column, events, f"the categories of [plan.stimuli.{target}]")
    pairs = events[spec.category_column].astype(str).groupby(ids).unique()
    for stimulus in stimuli["stimulus"]:
        if len(pairs[stimulus]) > 1:
            raise StimulusError(
                "one stimulus has several categories",
                expected="one value of " + spec.category_column,
                found=f"{', '.join(pairs[stimulus])} for stimulus {stimulus}",
            )
    return [pairs[stimulus][0] for stimulus in stimuli["stimulus"]]
