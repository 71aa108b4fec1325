"""Roles that a data set gives its events itself: ``by = "column"``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from braindecode_pipe.errors import LeakageError, SplitError
from braindecode_pipe.recipe import SplitSection
from braindecode_pipe.schema import ROLES

_SAID = {"train": "train", "training": "train", "validation": "validation", "val": "validation",
         "valid": "validation", "test": "test"}  # fmt: skip


def given_roles(
    events: pd.DataFrame,
    group: pd.Series,
    category: pd.Series,
    own: np.ndarray,
    section: SplitSection,
) -> np.ndarray:
    """Roles ``(n_events,)`` int8 that the column says; events of other values take no part.

    With ``zero_shot`` no category is both trained on and tested. *small*: training leaves out all
    events whose category is tested. *large*: what is left out so is tested, in place of the events
    that the column names (the two test sets of Benchetrit et al. 2024, arXiv 2310.19812, with
    THINGS-MEG: 22,248 training trials of a person become 19,848, and 2,400 are the large test).

    Parameters
    ----------
    events : table of events
    group : (n_events,) what may not be on both sides: stimuli with their near-duplicates
    category : (n_events,) text, "" where there is none
    own : (n_events,) bool, those that a fold is about

    Raises
    ------
    SplitError : no such column; a tested stimulus without category
    LeakageError : a stimulus that the column puts on both sides
    """
    if section.column not in events:
        raise SplitError(
            "the events have no column that says who is tested",
            expected=", ".join(map(str, events.columns)),
            found=repr(section.column),
            remedy="name another in [split] column, or bring it by [plan.columns]",
        )
    said = events[section.column].astype(str).str.strip().str.lower().map(_SAID).fillna("")
    said = said.to_numpy(object)
    role = np.zeros(len(events), np.int8)
    for name in ("train", "validation", "test"):
        role[own & (said == name)] = ROLES[name]
    test = role == ROLES["test"]
    fitted = np.isin(role, [ROLES["train"], ROLES["validation"]])
    if section.zero_shot != "off":
        categories = category.to_numpy(object)
        if (bare := test & (categories == "")).any():
            raise SplitError(
                "tested stimuli have no category to be kept apart",
                expected="one for each, in category_column of [plan.stimuli]",
                found=f"{int(bare.sum())} events without, e.g. {events['event'][bare].iloc[0]}",
            )
        left_out = fitted & np.isin(categories, sorted(set(categories[test])))
        role[left_out] = ROLES["purged"]
        if section.zero_shot == "large":
            ids = group.to_numpy(object)
            # The given test pictures themselves are no part of the large test.
            role[left_out & ~np.isin(ids, sorted(set(ids[test])))] = ROLES["test"]
            role[test] = 0
    _refuse_shared(events, group.to_numpy(object), role)
    return role


def _refuse_shared(events: pd.DataFrame, ids: np.ndarray, role: np.ndarray) -> None:
    fitted = np.isin(role, [ROLES["train"], ROLES["validation"]])
    test = role == ROLES["test"]
    both = sorted(set(ids[fitted]) & set(ids[test]))
    if both:
        name = events["event"].astype(str).to_numpy(object)
        pairs = [f"{name[fitted & (ids == g)][0]} and {name[test & (ids == g)][0]}" for g in both]
        raise LeakageError(
            "the column puts equal stimuli, or near-duplicates, on both sides",
            expected="each in training or in the test",
            found=f"{len(both)}, e.g. " + "; ".join(pairs[:5]),
            remedy="correct the column, or name those events otherwise so that they take no part",
        )
