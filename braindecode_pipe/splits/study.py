"""The tables of a study, who is trained on and tested on, and the scope of a fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import LeakageError
from braindecode_pipe.schema import ROLES, join_data_origin
from braindecode_pipe.store import open_store, read_table


def content_hash(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class FitScope:
    """What a fit may see: event ids and, per recording, the time extents [s] that they cover."""

    fold: str
    events: tuple[str, ...]
    extents: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)

    def hash(self) -> str:
        """SHA-256 over the events and extents, independent of their order."""
        return content_hash(
            {
                "events": sorted(self.events),
                "extents": {k: sorted(map(list, v)) for k, v in sorted(self.extents.items())},
            }
        )


@dataclass(frozen=True)
class StudyPlan:
    """Tables of one study.

    Attributes
    ----------
    recordings : one row per recording: recording, subject, session, task, run, datatype, path,
        content_hash, sfreq, n_times, n_sensors, duration, excluded, exclude_reason, data_origin
    events : one row per event: event, recording, subject, session, run, onset [s], duration [s],
        group (what the split keeps together), repetition, ``stimulus_<target>`` (stimulus id or
        ""), and every column that the data set brings
    stimuli : one row per stimulus: stimulus (id), target, kind, label, path, onset, offset,
        category, near_duplicate_group
    folds : one row per fold: fold, subject ("" where people are pooled), groups
    role : (n_folds, n_events) int8, values of ``schema.ROLES``
    """

    recordings: pd.DataFrame
    events: pd.DataFrame
    stimuli: pd.DataFrame
    folds: pd.DataFrame
    role: np.ndarray

    @classmethod
    def load(cls, path: str | Path) -> StudyPlan:
        """Read the store that the stage ``plan`` wrote."""
        return cls(
            recordings=read_table(path, "recordings"),
            events=read_table(path, "events"),
            stimuli=read_table(path, "stimuli"),
            folds=read_table(path, "folds"),
            role=np.asarray(open_store(path, "split")["role"].values),
        )

    @property
    def data_origin(self) -> str:
        """recorded | simulated | mixed, over the recordings that are used."""
        used = self.recordings[~self.recordings["excluded"].astype(bool)]
        return join_data_origin(*used["data_origin"])

    def without(self, recordings: Iterable[str]) -> StudyPlan:
        """The same plan with the events of some recordings unused, as when they failed."""
        gone = self.events["recording"].isin(list(recordings)).to_numpy()
        role = self.role.copy()
        role[:, gone] = ROLES["unused"]
        return replace(self, role=role)

    def rows(self, fold: int, role: str) -> np.ndarray:
        """Positions in ``events`` that have ``role`` in fold number ``fold``."""
        return np.flatnonzero(self.role[fold] == ROLES[role])

    def scope(self, fold: int, roles: Iterable[str] = ("train", "validation")) -> FitScope:
        """The FitScope of fold number ``fold``: its training (and validation) events."""
        rows = np.concatenate([self.rows(fold, r) for r in roles])
        return self.scope_of(np.sort(rows), str(self.folds["fold"].iloc[fold]))

    def scope_of(self, rows: np.ndarray, fold: str) -> FitScope:
        """A FitScope of any rows of ``events``."""
        table = self.events.iloc[rows]
        extents: dict[str, tuple[tuple[float, float], ...]] = {}
        for recording, part in table.groupby("recording", sort=True):
            extents[str(recording)] = tuple(
                (float(a), float(a + b)) for a, b in zip(part["onset"], part["duration"])
            )
        return FitScope(fold, tuple(map(str, table["event"])), extents)


def check_disjoint(seen: Iterable[str], test: Iterable[str], what: str) -> None:
    """Raise :class:`LeakageError`, naming the ids, when something fitted saw test items."""
    both = sorted(set(seen) & set(test))
    if both:
        shown = ", ".join(both[:10]) + (f" and {len(both) - 10} more" if len(both) > 10 else "")
        raise LeakageError(
            f"{what} saw items of the test set",
            expected="no item in common",
            found=f"{len(both)} in common: {shown}",
            remedy="fit on the training part of the split only",
        )


def shared_between_roles(plan: StudyPlan, target: str) -> list[str]:
    """Stimuli of ``target`` that are tested on and trained (or validated) on in one fold."""
    ids = plan.events[f"stimulus_{target}"].to_numpy()
    shared: set[str] = set()
    for role in plan.role:
        seen = set(ids[np.isin(role, [ROLES["train"], ROLES["validation"]])])
        shared |= (seen & set(ids[role == ROLES["test"]])) - {""}
    return sorted(shared)
