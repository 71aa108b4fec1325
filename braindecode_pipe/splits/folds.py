"""Who is trained on, validated on and tested on, in every fold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from braindecode_pipe.errors import LeakageError, SplitError
from braindecode_pipe.recipe import SplitSection
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits.extents import overlaps, window_times


def make_folds(
    events: pd.DataFrame,
    recordings: pd.DataFrame,
    stimuli: pd.DataFrame,
    section: SplitSection,
    *,
    target: str,
    extent: tuple[float, float | None],
    reach: Mapping[str, float] | None = None,
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
    reach : recording -> [s] over which preprocessing carries samples on, to both sides. Where
        recordings are cut in time, training windows within it of a test window are left out;
        default: 0

    Returns
    -------
    folds : table fold, subject, groups
    role : (n_folds, n_events) int8, values of ``schema.ROLES``
    group : (n_events,) str

    Raises
    ------
    SplitError : nothing to train on, or nothing to test
    LeakageError : windows of training and test overlap and ``section.overlap`` is "error"; or
        recordings are cut in time and ``section.purge_s`` is shorter than ``reach``
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
            _keep_apart(role, events, recordings, section, extent, name, reach or {})
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
    reach: Mapping[str, float],
) -> None:
    """Training and validation windows that reach into test windows: purge or refuse."""
    epoched = set(recordings["recording"][recordings["datatype"] == "epochs"])
    start, stop = window_times(events, extent)
    recording = events["recording"].to_numpy()
    pairs = []
    for name in sorted(set(recording[role == ROLES["test"]]) - epoched):
        here = recording == name
        fitted = np.flatnonzero(here & np.isin(role, [ROLES["train"], ROLES["validation"]]))
        test = np.flatnonzero(here & (role == ROLES["test"]))
        if not len(fitted):
            continue
        needed = reach.get(name, 0.0) if section.by == "time" else 0.0
        gap = needed if section.purge_s == "auto" else section.purge_s

        def meets(gap: float, fitted: np.ndarray = fitted, test: np.ndarray = test) -> np.ndarray:
            return overlaps(start[fitted] - gap, stop[fitted] + gap, start[test], stop[test])

        pairs += list(events["event"].iloc[fitted[meets(0.0)]])
        near = meets(gap)
        role[fitted[near]] = ROLES["purged"]
        if (meets(needed) & ~near).any() or math.isinf(needed):
            raise _reach_error(name, fold, needed, gap)
    if pairs and section.overlap == "error":
        raise LeakageError(
            f"windows of training overlap windows of test in fold {fold}",
            expected="no sample in both",
            found=f"{len(pairs)} training windows, e.g. " + ", ".join(pairs[:5]),
            remedy='[split] overlap = "purge" leaves them out; or split by run; or shorten '
            "[train.windows]",
        )


def _reach_error(recording: str, fold: str, needed: float, gap: float) -> LeakageError:
    whole = math.isinf(needed)
    return LeakageError(
        f"what is preprocessed for training in fold {fold} holds samples of the test",
        file=recording,
        expected="recordings that are not cut: their responses come from one fit over all of it"
        if whole
        else f"[split] purge_s >= {math.ceil(needed * 100) / 100:g}: so far filters reach",
        found=f'by = "time", purge_s = {gap:g}',
        remedy='[split] by = "run"' if whole else '[split] purge_s = "auto"',
    )


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
