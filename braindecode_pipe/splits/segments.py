"""Segments of a longer stimulus: sentences, or blocks of pieces that last long enough."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from braindecode_pipe.errors import SplitError
from braindecode_pipe.recipe import SplitSection

_EMPTY = ("", "n/a", "nan")


def segments_of(
    events: pd.DataFrame, stimuli: pd.DataFrame, section: SplitSection, target: str
) -> dict[str, str]:
    """The segment that each stimulus of a target is a piece of.

    Along its source (a file, a text), a new segment begins where ``section.segment_column`` changes
    its value; without a column every piece is one. Neighbours are merged until the segment lasts
    ``section.segment_s`` (sentences merged to 6 s in Defossez et al. 2023, Nature Machine
    Intelligence 5:1097); what is left at the end of a source joins the segment before it.

    A segment is named by the SHA-256 of its words, so it has one name for every person, recording
    and data set, and a sentence that occurs twice, in one file or in two, has one name too. Where
    all pieces of the target bear the same label, words tell nothing, and source and onset stand in.

    Parameters
    ----------
    events : table with ``stimulus_<target>`` and the segment column
    stimuli : table with stimulus, target, label, source, onset [s] and offset [s, may be NaN]; of
        a text without offsets a segment lasts as long as its column of onsets says
    section : SplitSection
    target : name in [plan.stimuli]

    Returns
    -------
    stimulus -> 16 hexadecimal digits

    Raises
    ------
    SplitError
        Stimuli that are no pieces; no such column; a stimulus in no segment, or in several.
    """
    own = stimuli[stimuli["target"] == target].reset_index(drop=True)
    if (own["source"].astype(str) == "").any():
        raise SplitError(
            f"stimuli of target {target!r} are no pieces of something longer",
            expected=f"file_column and onset_column in [plan.stimuli.{target}]",
            found="stimuli without source",
        )
    value = _values(events, own, section.segment_column, target)
    worded = own["label"].nunique() > 1
    names: dict[str, str] = {}
    for source, part in own.groupby("source", sort=True):
        part = part.sort_values(["onset", "stimulus"], kind="stable")
        for rows in _cut(part, value, section.segment_s):
            piece = part.iloc[rows]
            content = [*map(str, piece["label"])]
            if not worded:
                content = [str(source), f"{piece['onset'].iloc[0]:.3f}"]
            digest = hashlib.sha256("\0".join(["segment", *content]).encode()).hexdigest()
            names |= dict.fromkeys(map(str, piece["stimulus"]), digest[:16])
    return names


def _values(
    events: pd.DataFrame, own: pd.DataFrame, column: str, target: str
) -> dict[str, str] | None:
    """Stimulus -> value of the segment column; None without a column."""
    if not column:
        return None
    if column not in events:
        raise SplitError(
            f"the events have no column {column!r}",
            expected="the column of [split] segment_column",
            found=", ".join(sorted(map(str, events.columns))),
            remedy="name one of them, or map it in [plan.columns]",
        )
    ids = events[f"stimulus_{target}"]
    shown = ids != ""
    values = events[column][shown].astype(str).str.strip()
    pairs = values.groupby(ids[shown].to_numpy()).unique()
    for stimulus, label in zip(own["stimulus"], own["label"]):
        found = [str(v) for v in pairs.get(stimulus, ())]
        if len(found) != 1 or found[0] in _EMPTY:
            raise SplitError(
                f"{label!r} (stimulus {stimulus}) is a piece of no one segment",
                expected=f"one value of {column}, the same for everybody",
                found=", ".join(map(repr, found[:5])) or "none",
                remedy="correct the column, or leave it out and set segment_s",
            )
    return {str(stimulus): str(found[0]) for stimulus, found in pairs.items()}


def _cut(part: pd.DataFrame, value: dict[str, str] | None, shortest: float) -> list[np.ndarray]:
    """Positions of the pieces of every segment of one source, in the order of time."""
    onset, offset = part["onset"].to_numpy(float), part["offset"].to_numpy(float)
    # Of texts only onsets are known: a piece ends where the next one begins.
    end = np.where(np.isfinite(offset), offset, np.append(onset[1:], onset[-1]))
    kind = np.arange(len(part)) if value is None else np.array([value[s] for s in part["stimulus"]])

    def lasts(first: int, last: int) -> bool:
        # Onsets are rounded to milliseconds when stimuli are matched, and so are lengths here.
        return round(end[first:last].max() - onset[first], 3) >= shortest

    starts = [0]
    for k in range(1, len(part)):
        if kind[k] != kind[k - 1] and lasts(starts[-1], k):
            starts.append(k)
    if len(starts) > 1 and not lasts(starts[-1], len(part)):
        starts.pop()
    return np.split(np.arange(len(part)), starts[1:])
