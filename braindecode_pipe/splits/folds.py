"""Who is trained on, validated on and tested on, in every fold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from braindecode_pipe.errors import LeakageError, SplitError
from braindecode_pipe.recipe import SplitSection
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits.extents import leaves_its_side, overlaps, window_times
from braindecode_pipe.splits.given import given_roles
from braindecode_pipe.splits.segments import segments_of


@dataclass(frozen=True)
class _Fold:
    """Groups that are tested and that validate; all others are trained on."""

    name: str
    test: Sequence[str]
    validation: Sequence[str]


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

    Groups (all events of a run, session, person, stimulus, category, segment or block of time) are
    never divided. With ``n_folds`` = 0 every group is a fold of its own; otherwise groups are dealt
    out in the order of the SHA-256 of their name and the seed. With ``fractions`` there is one
    fold, and the role of a group follows from that hash alone (:func:`drawn`): a sentence has the
    same role for every person and data set (as in Defossez et al. 2023).

    A split by segment has borders in the midst of recordings: a window, of whatever role, that
    reaches over one into another role is left out. Two more reasons to leave out windows, of
    training and validation, are that they meet a test window, or come closer than ``purge_s``.

    Parameters
    ----------
    events, recordings, stimuli : tables of the plan
    section : SplitSection
    target : name of the target whose stimuli count
    extent : (tmin, tmax) [s] of the windows around events; with tmax None they end with the event,
        or as long after it as a third number says
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
    SplitError : nothing to train on, to validate on where that is asked for, or to test; stimuli
        without category or segment where these are split
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
        for fold in _deal(sorted(set(ids[own])), section, subject):
            if section.by == "column":
                category = _categories(events, stimuli, target)
                role = given_roles(events, group, category, own, section)
                left = sorted(set(ids[role == ROLES["train"]]))
                if not (role == ROLES["validation"]).any():
                    fold = replace(fold, validation=_held_out(left, section))
                fold = replace(fold, test=sorted(set(ids[role == ROLES["test"]])))
            else:
                role = np.zeros(len(events), np.int8)
                role[own] = ROLES["train"]
                role[own & np.isin(ids, fold.test)] = ROLES["test"]
            held = own & np.isin(ids, fold.validation) & (role == ROLES["train"])
            role[held] = ROLES["validation"]
            n_dealt = np.bincount(role, minlength=len(ROLES))
            if section.by == "segment":
                _purge_over_borders(role, events, recordings, extent)
            _keep_apart(role, events, recordings, section, extent, fold.name, reach or {})
            _refuse_empty(role, n_dealt, fold.name, section, len(set(ids[own])))
            rows.append({"fold": fold.name, "subject": subject, "groups": ",".join(fold.test)})
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
    if section.by in ("stimulus", "column"):
        own = stimuli[stimuli["target"] == target]
        near = dict(zip(own["stimulus"], own["near_duplicate_group"]))
        return ids.map(lambda stimulus: near.get(stimulus, ""))
    if section.by == "category":
        own = stimuli[stimuli["target"] == target]
        _refuse_uncategorised(own, target)
        return _categories(events, stimuli, target)
    if section.by == "segment":
        segment = segments_of(events, stimuli, section, target)
        return ids.map(lambda stimulus: segment.get(stimulus, ""))
    n_blocks = section.n_folds or 5
    blocks = pd.Series("", index=events.index, dtype=object)
    for _, part in events.groupby("recording"):
        # Blocks of equally many events; events at one time stay together.
        rank = part["onset"].rank(method="min").to_numpy() - 1
        number = np.floor(rank * n_blocks / len(part)).astype(int)
        blocks[part.index] = [f"block-{k + 1:02d}" for k in number]
    return blocks


def _categories(events: pd.DataFrame, stimuli: pd.DataFrame, target: str) -> pd.Series:
    own = stimuli[stimuli["target"] == target]
    category = dict(zip(own["stimulus"], own["category"].astype(str)))
    return events[f"stimulus_{target}"].map(lambda stimulus: category.get(stimulus, ""))


def _refuse_uncategorised(stimuli: pd.DataFrame, target: str) -> None:
    bare = stimuli[stimuli["category"].astype(str).isin(["", "n/a", "nan"])]
    if len(bare):
        raise SplitError(
            f"stimuli of target {target!r} have no category to be split by",
            expected=f"one for each, in category_column of [plan.stimuli.{target}]",
            found=f"{len(bare)} of {len(stimuli)} without, e.g. "
            + ", ".join(map(str, bare["label"][:5])),
            remedy='name the column and fill it in, or split by = "stimulus"',
        )


def drawn(group: str, seed: int) -> float:
    """Place of a group in [0, 1]: the first 8 bytes of SHA-256 of ``<seed>|<group>``, over 2**64.

    The shares of training, validation and test follow one another on that line.
    """
    digest = hashlib.sha256(f"{seed}|{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _order(groups: list[str], salt: str) -> list[str]:
    return sorted(groups, key=lambda name: hashlib.sha256(f"{salt}|{name}".encode()).digest())


def _deal(groups: list[str], section: SplitSection, subject: str) -> list[_Fold]:
    prefix = f"sub-{subject}_" if section.within_subject else ""
    if section.by == "column":
        return [_Fold(f"{prefix}given", (), ())]
    if section.fractions:
        train, validation, _ = section.fractions
        place = {name: drawn(name, section.seed) for name in groups}
        held = [name for name in groups if train <= place[name] < train + validation]
        return [_Fold(f"{prefix}fold-01", [n for n in groups if place[n] >= train + validation],
                      held)]  # fmt: skip
    if section.by == "time" or not section.n_folds:
        parts = {name if name.startswith(prefix) else prefix + name: [name] for name in groups}
    elif section.n_folds > len(groups) or section.n_folds < 2:
        raise SplitError(
            "the number of folds does not fit",
            expected=f"2 to {len(groups)} folds: there are {len(groups)} groups ({section.by})",
            found=str(section.n_folds),
            remedy="change [split] n_folds or by",
        )
    else:
        order = _order(groups, str(section.seed))
        parts = {
            f"{prefix}fold-{k + 1:02d}": sorted(order[k :: section.n_folds])
            for k in range(section.n_folds)
        }
    return [
        _Fold(name, test, _held_out([g for g in groups if g not in set(test)], section))
        for name, test in parts.items()
    ]


def _held_out(groups: list[str], section: SplitSection) -> list[str]:
    """The share of the training groups that validates."""
    if not section.validation or len(groups) < 2:
        return []
    n = min(max(1, round(section.validation * len(groups))), len(groups) - 1)
    return _order(groups, f"validation|{section.seed}")[:n]


def _purge_over_borders(
    role: np.ndarray,
    events: pd.DataFrame,
    recordings: pd.DataFrame,
    extent: tuple[float, float | None],
) -> None:
    """Windows of any role that reach over a border of segments into another role."""
    epoched = set(recordings["recording"][recordings["datatype"] == "epochs"])
    start, stop = window_times(events, extent)
    onset = events["onset"].to_numpy(float)
    end = onset + events["duration"].to_numpy(float)
    recording = events["recording"].to_numpy()
    for name in sorted(set(recording[role > 0]) - epoched):
        rows = np.flatnonzero((recording == name) & (role > 0))
        over = leaves_its_side(onset[rows], end[rows], start[rows], stop[rows], role[rows])
        role[rows[over]] = ROLES["purged"]


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
    recording, event = events["recording"].to_numpy(), events["event"].to_numpy()
    n_met, shown = 0, []
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

        met = fitted[meets(0.0)]
        n_met += len(met)
        for i in met[: max(0, 5 - len(shown))]:
            first = test[(start[test] < stop[i]) & (stop[test] > start[i])][0]
            shown.append(f"{event[i]} and {event[first]}")
        near = meets(gap)
        role[fitted[near]] = ROLES["purged"]
        if (meets(needed) & ~near).any() or math.isinf(needed):
            raise _reach_error(name, fold, needed, gap)
    if n_met and section.overlap == "error":
        raise LeakageError(
            f"windows of training overlap windows of test in fold {fold}",
            expected="no sample in both",
            found=f"{n_met} training windows that meet a test window: "
            + "; ".join(shown)
            + (f"; and {n_met - len(shown)} more" if n_met > len(shown) else ""),
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


def _refuse_empty(
    role: np.ndarray, n_dealt: np.ndarray, fold: str, section: SplitSection, n_groups: int
) -> None:
    """Refuse a fold in which nothing has a role that is needed, by how many had it at first."""
    needed = ["train", "test"]
    if section.fractions and section.fractions[1]:
        needed.append("validation")
    for name in needed:
        if (role == ROLES[name]).any():
            continue
        dealt = int(n_dealt[ROLES[name]])
        if dealt:
            expected = "windows that lie apart from those of other roles"
            found = f"all of its {dealt} windows reach into another role and are left out"
            remedy = "shorten [train.windows], or lengthen segments ([split] segment_s)"
        elif section.fractions:
            expected = (
                f"groups enough for shares of {', '.join(f'{f:g}' for f in section.fractions)}"
            )
            found = f"{n_groups} group(s) of kind {section.by!r}"
            remedy = "another [split] seed or other fractions, or n_folds for so few groups"
        else:
            expected = "at least two groups, so that one can be tested and one trained on"
            found = f"{n_groups} group(s) of kind {section.by!r}"
            remedy = (
                'split by something that there is more of (by = "time" or "stimulus"), '
                "or leave this person out in [plan] subjects"
            )
        raise SplitError(
            f"fold {fold} has no {name} item", expected=expected, found=found, remedy=remedy
        )
