"""Which recordings of a data set are decoded, and what is decoded from them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from braindecode_pipe.inspect.survey import Column, Survey

# Events that present nothing to decode.
_NO_STIMULUS = re.compile(
    r"^(rest|baseline|fix(ation)?|iti|isi|pause|break|blank|instruction|cue|button|response|key"
    r"|start|end|begin|stop|boundary|new segment|sync|trigger|experiment)s?([_ /:-].*)?$",
    re.IGNORECASE,
)
_MAX_CLASSES = 100
_WORD = ("word", "text", "label", "trial_type")
_SEGMENT = re.compile(r"sentence|segment|phrase", re.IGNORECASE)


@dataclass(frozen=True)
class Pieces:
    """Stimuli that are pieces of recorded speech: where they say of what, and of which part.

    Attributes
    ----------
    file : column of the file
    onset : column of the onset inside it [s]
    segment : column of the sentence, or ""
    folder : folder of the files
    seconds : what the pieces span in all files together
    """

    file: str
    onset: str
    segment: str
    folder: str
    seconds: float


@dataclass(frozen=True)
class Target:
    """What is to be decoded."""

    name: str
    column: Column
    kind: str
    drop: tuple[str, ...] = ()
    is_text: bool = False
    is_decodable: bool = True
    pieces: Pieces | None = None

    @property
    def classes(self) -> list[str]:
        return [level for level in self.column.levels if level not in self.drop]


def choose_recordings(found: Survey) -> tuple[pd.DataFrame, str]:
    """The usable recordings of one kind: preprocessed before raw, then those with most events."""
    usable = found.recordings[found.recordings["problem"] == ""]
    usable = found.recordings if usable.empty else usable
    groups = [
        (bool(source) and part["n_events"].sum() > 0, int(part["n_events"].sum()), source, part)
        for (source, _), part in usable.groupby(["source", "datatype"])
    ]
    _, _, source, part = max(groups, key=lambda group: group[:2])
    with_events = part[part["n_events"] > 0]
    return (part if with_events.empty else with_events), source


def choose_target(found: Survey, events: pd.DataFrame) -> Target:
    """Files before a closed set of labels, and that before words; trial_type where all fails.

    Words of a recorded story come before all: their file is the story.
    """
    present = {name: column for name, column in found.columns.items()
               if name in events and (events[name].astype(str) != "").any()}  # fmt: skip
    for column in present.values():
        pieces = _pieces_of(events, column, present)
        if pieces:
            word = next((name for name in _WORD if name in present), column.name)
            return Target(_identifier(word), present[word], "speech", pieces=pieces)
        if column.kind and not column.missing and len(column.levels) >= 4:
            return Target("picture" if column.kind == "image" else "sound", column, column.kind)
    named = [name for name in ("trial_type", "label", "category", "condition") if name in present]
    others = [name for name in present if name not in named and not present[name].kind]
    for name in (*named, *others):
        drop = _not_decodable(events, name, present[name])
        left = len(present[name].levels) - len(drop)
        if 2 <= left <= _MAX_CLASSES:
            return Target(_identifier(name), present[name], "concept", drop)
    for name in others:
        levels = list(present[name].levels)
        words = sum(not re.fullmatch(r"[-+.\deE]+", level) for level in levels)
        if len(levels) > _MAX_CLASSES and words > 0.9 * len(levels):
            return Target(_identifier(name), present[name], "concept", is_text=True)
    column = present.get("trial_type", Column("trial_type", {}))
    return Target("trial_type", column, "concept", is_decodable=False)


def _pieces_of(events: pd.DataFrame, column: Column, present: dict[str, Column]) -> Pieces | None:
    """Sounds that many events share, with a column that runs along with the events' onsets."""
    if column.kind != "speech" or column.missing:
        return None
    own = events[events[column.name].astype(str).isin(column.levels)]
    by_file = [own["recording"], own[column.name]]
    if own.groupby(by_file).size().median() < 4:
        return None
    for name in own.columns:
        if name in ("onset", "sample", "duration"):
            continue
        at = pd.to_numeric(own[name], errors="coerce")
        if at.isna().any():
            continue
        lag = own["onset"].astype(float) - at
        # Clocks drift a little; words of one file lie tens of milliseconds apart at least.
        if (lag - lag.groupby(by_file).transform("median")).abs().median() > 0.05:
            continue
        if at.groupby(by_file).nunique().median() < 4:
            continue
        span = at.groupby(own[column.name].to_numpy()).agg(np.ptp)
        segment = next((c for c in present if _SEGMENT.search(c) and c != column.name), "")
        return Pieces(column.name, str(name), segment, column.folder, float(span.sum()))
    return None


def _not_decodable(events: pd.DataFrame, name: str, column: Column) -> tuple[str, ...]:
    """Levels that present nothing, or that one recording alone has (or one event)."""
    levels = events[name].astype(str).str.strip()
    several = events["recording"].nunique() > 1
    return tuple(
        level
        for level, n in column.levels.items()
        if _NO_STIMULUS.match(level)
        or n < 2
        or (several and events["recording"][levels == level].nunique() < 2)
    )


def _identifier(name: str) -> str:
    clean = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "stimulus"
    return f"table_{clean}" if clean == "zero_shot" else clean
