"""The split and the scope of every fit.

A :class:`StudyPlan` holds the tables of a study and who is trained on, validated on and tested on
in every fold. A :class:`FitScope` names exactly what a fit may see; every fitted object stores the
hashes of what it saw, and :func:`check_disjoint` refuses a scope that meets the test items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import LeakageError, SplitError
from braindecode_pipe.recipe import SplitSection
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


def fit_extents(
    plan: StudyPlan, recording: str, extent: tuple[float, float | None], guard_s: float = 0.0
) -> tuple[tuple[float, float], ...] | None:
    """What a fit on one recording may see, where some fold divides it between its roles.

    Parameters
    ----------
    plan : StudyPlan
    recording : its name
    extent : (tmin, tmax) [s] of the windows around events, tmax None for the event's duration
    guard_s : float [s], kept away on both sides of every test window: half the filters' length

    Returns
    -------
    (start, stop) [s] pairs that meet no test window of any fold, perhaps none; None where no fold
    divides the recording, so that what it teaches stays with it
    """
    rows = np.flatnonzero((plan.events["recording"] == recording).to_numpy())
    role = plan.role[:, rows]
    test = role == ROLES["test"]
    fitted = np.isin(role, [ROLES["train"], ROLES["validation"]])
    if not (test.any(axis=1) & fitted.any(axis=1)).any():
        return None
    table = plan.events.iloc[rows[test.any(axis=0)]]
    onset = table["onset"].to_numpy(float)
    tmin, tmax = extent
    length = table["duration"].to_numpy(float) if tmax is None else tmax
    starts, stops = onset + tmin - guard_s, onset + length + guard_s
    duration = float(
        plan.recordings.loc[plan.recordings["recording"] == recording, "duration"].iloc[0]
    )
    free, at = [], 0.0
    for start, stop in sorted(zip(starts.tolist(), stops.tolist())):
        if start > at:
            free.append((at, min(start, duration)))
        at = max(at, stop)
    if at < duration:
        free.append((at, duration))
    return tuple(free)


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


def make_folds(
    events: pd.DataFrame,
    recordings: pd.DataFrame,
    stimuli: pd.DataFrame,
    section: SplitSection,
    *,
    target: str,
    extent: tuple[float, float | None],
) -> tuple[pd.DataFrame, np.ndarray, pd.Series]:
    """Who is trained on and tested on, in every fold.

    Groups (all events of a run, session, person, stimulus, category or block of time) are never
    divided. With ``n_folds`` = 0 every group is a fold of its own; otherwise groups are dealt out
    in the order of the SHA-256 of their name and the seed, so that a stimulus falls into the same
    fold for every person and data set (as sentences do in Defossez et al. 2023).

    Parameters
    ----------
    events, recordings, stimuli : tables of the plan
    section : SplitSection
    target : name of the target whose stimuli count
    extent : (tmin, tmax) [s] of the windows around events

    Returns
    -------
    folds : table fold, subject, groups
    role : (n_folds, n_events) int8, values of ``schema.ROLES``
    group : (n_events,) str

    Raises
    ------
    SplitError : nothing to train on, or nothing to test
    LeakageError : windows of training and test overlap and ``section.overlap`` is "error"
    """
    if section.by == "subject" and section.within_subject:
        raise SplitError(
            "people cannot be split within one person",
            expected='[split] within_subject = false together with by = "subject"',
            found="within_subject = true",
        )
    shown = (events[[c for c in events if c.startswith("stimulus_")]] != "").any(axis=1).to_numpy()
    group = _groups(events, stimuli, section, target)
    ids = group.to_numpy()
    subjects = sorted(set(events["subject"])) if section.within_subject else [""]
    rows, roles = [], []
    for subject in subjects:
        own = shown & (ids != "")
        if section.within_subject:
            own &= (events["subject"] == subject).to_numpy()
        if not own.any():
            continue
        for name, test_groups in _deal(sorted(set(ids[own])), section, subject):
            role = np.zeros(len(events), np.int8)
            test = own & np.isin(ids, test_groups)
            role[own & ~test] = ROLES["train"]
            role[test] = ROLES["test"]
            _hold_out(role, ids, section)
            _keep_apart(role, events, recordings, section, extent, name)
            _refuse_empty(role, name, section, len(set(ids[own])))
            rows.append({"fold": name, "subject": subject, "groups": ",".join(test_groups)})
            roles.append(role)
    if section.test_folds:
        rows, roles = rows[: section.test_folds], roles[: section.test_folds]
    if not rows:
        raise SplitError("there is nothing to split", expected="events that present stimuli",
                         found="none")  # fmt: skip
    return pd.DataFrame(rows), np.stack(roles), group


def _groups(
    events: pd.DataFrame, stimuli: pd.DataFrame, section: SplitSection, target: str
) -> pd.Series:
    ids = events[f"stimulus_{target}"]
    if section.by == "run":
        return events["recording"].astype(str)
    if section.by == "session":
        return "sub-" + events["subject"] + "_ses-" + events["session"]
    if section.by == "subject":
        return events["subject"].astype(str)
    if section.by == "stimulus":
        own = stimuli[stimuli["target"] == target]
        near = dict(zip(own["stimulus"], own["near_duplicate_group"]))
        return ids.map(lambda stimulus: near.get(stimulus, ""))
    if section.by == "category":
        own = stimuli[stimuli["target"] == target]
        category = dict(zip(own["stimulus"], own["category"]))
        return ids.map(lambda stimulus: category.get(stimulus, ""))
    n_blocks = section.n_folds or 5
    blocks = pd.Series("", index=events.index, dtype=object)
    for _, part in events.groupby("recording"):
        # Blocks of equally many events; events at one time stay together.
        rank = part["onset"].rank(method="min").to_numpy() - 1
        number = np.floor(rank * n_blocks / len(part)).astype(int)
        blocks[part.index] = [f"block-{k + 1:02d}" for k in number]
    return blocks


def _order(groups: list[str], salt: str) -> list[str]:
    return sorted(groups, key=lambda name: hashlib.sha256(f"{salt}|{name}".encode()).digest())


def _deal(groups: list[str], section: SplitSection, subject: str) -> list[tuple[str, list[str]]]:
    prefix = f"sub-{subject}_" if section.within_subject else ""
    if section.by == "time" or not section.n_folds:
        return [(name if name.startswith(prefix) else prefix + name, [name]) for name in groups]
    if section.n_folds > len(groups) or section.n_folds < 2:
        raise SplitError(
            "the number of folds does not fit",
            expected=f"2 to {len(groups)} folds: there are {len(groups)} groups ({section.by})",
            found=str(section.n_folds),
            remedy="change [split] n_folds or by",
        )
    order = _order(groups, str(section.seed))
    return [
        (f"{prefix}fold-{k + 1:02d}", sorted(order[k :: section.n_folds]))
        for k in range(section.n_folds)
    ]


def _hold_out(role: np.ndarray, ids: np.ndarray, section: SplitSection) -> None:
    """Turn a share of the training groups into validation groups."""
    groups = sorted(set(ids[role == ROLES["train"]]))
    if not section.validation or len(groups) < 2:
        return
    n = min(max(1, round(section.validation * len(groups))), len(groups) - 1)
    held = _order(groups, f"validation|{section.seed}")[:n]
    role[(role == ROLES["train"]) & np.isin(ids, held)] = ROLES["validation"]


def _keep_apart(
    role: np.ndarray,
    events: pd.DataFrame,
    recordings: pd.DataFrame,
    section: SplitSection,
    extent: tuple[float, float | None],
    fold: str,
) -> None:
    """Training and validation windows that reach into test windows: purge or refuse."""
    epoched = set(recordings["recording"][recordings["datatype"] == "epochs"])
    tmin, tmax = extent
    onset = events["onset"].to_numpy(float)
    start = onset + tmin
    stop = onset + (events["duration"].to_numpy(float) if tmax is None else tmax)
    recording = events["recording"].to_numpy()
    pairs = []
    for name in sorted(set(recording[role == ROLES["test"]]) - epoched):
        here = recording == name
        fitted = np.flatnonzero(here & np.isin(role, [ROLES["train"], ROLES["validation"]]))
        test = np.flatnonzero(here & (role == ROLES["test"]))
        if not len(fitted):
            continue
        inside = _overlaps(start[fitted], stop[fitted], start[test], stop[test])
        near = _overlaps(
            start[fitted] - section.purge_s, stop[fitted] + section.purge_s, start[test], stop[test]
        )
        pairs += list(events["event"].iloc[fitted[inside]])
        role[fitted[near]] = ROLES["purged"]
    if pairs and section.overlap == "error":
        raise LeakageError(
            f"windows of training overlap windows of test in fold {fold}",
            expected="no sample in both",
            found=f"{len(pairs)} training windows, e.g. " + ", ".join(pairs[:5]),
            remedy='[split] overlap = "purge" leaves them out; or split by run; or shorten '
            "[train.windows]",
        )


def _overlaps(
    start: np.ndarray, stop: np.ndarray, test_start: np.ndarray, test_stop: np.ndarray
) -> np.ndarray:
    """Which of the intervals (start, stop) share more than a border with any test interval."""
    # The last test window that starts before an interval ends is the one that can meet it, since
    # ``furthest`` holds the largest end among all that start so early.
    order = np.argsort(test_start, kind="stable")
    furthest = np.maximum.accumulate(test_stop[order])
    last = np.searchsorted(test_start[order], stop, side="left") - 1
    return (last >= 0) & (furthest[np.maximum(last, 0)] > start)


def _refuse_empty(role: np.ndarray, fold: str, section: SplitSection, n_groups: int) -> None:
    for name in ("train", "test"):
        if not (role == ROLES[name]).any():
            raise SplitError(
                f"fold {fold} has no {name} item",
                expected="at least two groups, so that one can be tested and one trained on",
                found=f"{n_groups} group(s) of kind {section.by!r}",
                remedy='split by something that there is more of (by = "time" or "stimulus"), '
                "or leave this person out in [plan] subjects",
            )
