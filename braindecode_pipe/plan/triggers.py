"""Triggers that the recording device wrote: stim channels and annotations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import EventError
from braindecode_pipe.formats import guarded, open_raw
from braindecode_pipe.recipe import PlanSection

# Annotations that mark the recording and not what was presented.
_NO_EVENTS = re.compile(r"^(BAD|EDGE|New Segment|SyncStatus)", re.IGNORECASE)
_CONSECUTIVE = {"increasing": "increasing", "all": True, "none": False}


@dataclass(frozen=True)
class Triggers:
    """Triggers of one recording, in order.

    Attributes
    ----------
    onset : (n,) [s] from the first sample
    duration : (n,) [s]
    code : (n,) text: number on the stim channel, or description of the annotation
    source : name of the channel(s), or "annotations"
    sfreq : rate of the recording [Hz], which limits how well an onset is known
    """

    onset: np.ndarray
    duration: np.ndarray
    code: np.ndarray
    source: str
    sfreq: float

    def __len__(self) -> int:
        return len(self.onset)

    def of(self, codes: Any) -> Triggers:
        """Those with one of ``codes``; all of them where ``codes`` is empty."""
        if not codes:
            return self
        kept = np.isin(self.code, list(codes))
        return Triggers(
            self.onset[kept], self.duration[kept], self.code[kept], self.source, self.sfreq
        )


def read_triggers(section: PlanSection, path: Path, source: str = "auto") -> Triggers:
    """Triggers of a continuous recording.

    A stim channel is read by ``mne.find_events`` (a first value that is not zero is no event);
    codes are those of the channel after ``stim_mask``.

    Parameters
    ----------
    section : PlanSection
        ``stim_channel``, ``stim_min_duration_s``, ``stim_mask``, ``stim_consecutive``.
    path : Path
        The recording.
    source : {"auto", "stim", "annotations"}
        auto: the stim channel where there is one that holds a trigger, else annotations.

    Raises
    ------
    EventError
        No such channel, or the stim channel is asked for and there is none.
    """
    numbered = ("unique-names",)
    raw, _ = guarded(partial(open_raw, path, numbered), path, path.parent, numbered)
    if source in ("auto", "stim"):
        channels = _stim_channels(raw, section, path, needed=source == "stim")
        if channels:
            found = _from_channels(raw, channels, section)
            if len(found) or source == "stim":
                return found
    return _from_annotations(raw)


def _stim_channels(raw: Any, section: PlanSection, path: Path, needed: bool) -> list[str]:
    wanted = [name.strip() for name in section.stim_channel.split(",") if name.strip()]
    stim = [n for n, kind in zip(raw.ch_names, raw.get_channel_types()) if kind == "stim"]
    absent = [name for name in wanted if name not in raw.ch_names]
    if absent or (needed and not (wanted or stim)):
        raise EventError(
            "the recording has no such stim channel" if absent else "no stim channel",
            file=path,
            expected=", ".join(wanted) or "a channel of type stim",
            found=", ".join(stim) or f"no channel of type stim among {len(raw.ch_names)}",
            remedy="name it in [plan] stim_channel",
        )
    if wanted:
        return wanted
    # A sum channel holds what the others of the device hold.
    for name in ("STI101", "STI 014", "Status"):
        if name in stim:
            return [name]
    return stim


def _from_channels(raw: Any, channels: list[str], section: PlanSection) -> Triggers:
    import mne

    sfreq = float(raw.info["sfreq"])
    parts = [
        mne.find_events(
            raw,
            stim_channel=name,
            consecutive=_CONSECUTIVE[section.stim_consecutive],
            min_duration=section.stim_min_duration_s,
            shortest_event=1,
            mask=section.stim_mask,
            mask_type="and",
            uint_cast=True,
            verbose="error",
        )
        for name in channels
    ]
    events = np.concatenate(parts)
    events = events[np.argsort(events[:, 0], kind="stable")]
    return Triggers(
        (events[:, 0] - raw.first_samp) / sfreq,
        np.zeros(len(events)),
        events[:, 2].astype(str).astype(object),
        ", ".join(channels),
        sfreq,
    )


def _from_annotations(raw: Any) -> Triggers:
    found = [a for a in raw.annotations if not _NO_EVENTS.match(a["description"])]
    first = raw.first_time if raw.annotations.orig_time is not None else 0.0
    onset = np.array([float(a["onset"]) - first for a in found])
    order = np.argsort(onset, kind="stable")
    duration = np.array([float(a["duration"]) for a in found])
    code = np.array([str(a["description"]) for a in found], object)
    return Triggers(
        onset[order], duration[order], code[order], "annotations", float(raw.info["sfreq"])
    )
