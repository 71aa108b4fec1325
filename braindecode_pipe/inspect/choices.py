"""Which recordings of a data set are decoded, and what is decoded from them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from braindecode_pipe.inspect.survey import Column, Survey

# Events that present nothing to decode.
_NO_STIMULUS = re.compile(
    r"^(rest|baseline|fix(ation)?|iti|isi|pause|break|blank|instruction|cue|button|response|key"
    r"|start|end|begin|stop|boundary|new segment|sync|trigger|experiment)s?([_ /:-].*)?$",
    re.IGNORECASE,
)
_MAX_CLASSES = 100


@dataclass(frozen=True)
class Target:
    """What is to be decoded."""

    name: str
    column: Column
    kind: str
    drop: tuple[str, ...] = ()
    is_text: bool = False
    is_decodable: bool = True

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
    """Files before a closed set of labels, and that before words; trial_type where all fails."""
    present = {name: column for name, column in found.columns.items()
               if name in events and (events[name].astype(str) != "").any()}  # fmt: skip
    for column in present.values():
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
