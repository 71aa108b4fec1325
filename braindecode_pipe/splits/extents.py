"""Times of a recording that training and test share, or that a fit may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits.study import StudyPlan, content_hash


def window_times(
    events: pd.DataFrame, extent: tuple[float, float | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end [s] of the window of every event; ``extent`` as in :func:`make_folds`."""
    tmin, tmax, *late = extent
    onset = events["onset"].to_numpy(float)
    if tmax is None:
        return onset + tmin, onset + events["duration"].to_numpy(float) + sum(late)
    return onset + tmin, onset + tmax


def divided_recordings(plan: StudyPlan) -> list[str]:
    """Recordings that some fold both fits on and tests."""
    recording = plan.events["recording"].to_numpy()
    found: set[str] = set()
    for role in plan.role:
        fitted = np.isin(role, [ROLES["train"], ROLES["validation"]])
        found |= set(recording[fitted]) & set(recording[role == ROLES["test"]])
    return sorted(map(str, found))


def within_reach(
    plan: StudyPlan, fold: int, extent: tuple[float, float | None], reach: Mapping[str, float]
) -> np.ndarray:
    """Rows of ``events`` that are fitted in a fold though filters carry test samples into them."""
    start, stop = window_times(plan.events, extent)
    recording = plan.events["recording"].to_numpy()
    role = plan.role[fold]
    found = []
    for name, seconds in reach.items():
        here = recording == name
        fitted = np.flatnonzero(here & np.isin(role, [ROLES["train"], ROLES["validation"]]))
        test = np.flatnonzero(here & (role == ROLES["test"]))
        if len(fitted) and len(test):
            near = overlaps(
                start[fitted] - seconds, stop[fitted] + seconds, start[test], stop[test]
            )
            found.append(fitted[near])
    return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)


def extents_hash(extents: Iterable[tuple[float, float]]) -> str:
    """What a preprocessed recording stores about the extents that its fits saw."""
    return content_hash([[float(a), float(b)] for a, b in extents])


def fit_extents(
    plan: StudyPlan,
    recording: str,
    extent: tuple[float, float | None],
    guard_s: float = 0.0,
    fold: int | None = None,
) -> tuple[tuple[float, float], ...] | None:
    """What a fit on one recording may see, where some fold divides it between its roles.

    Parameters
    ----------
    plan : StudyPlan
    recording : its name
    extent : (tmin, tmax) [s] of the windows around events, tmax None for the event's duration
    guard_s : float [s], kept away on both sides of every test window: half the filters' length
    fold : number of the fold that the fit is for; None: it is for all of them

    Returns
    -------
    (start, stop) [s] pairs that meet no test window of any fold, perhaps none; None where no fold
    divides the recording, so that what it teaches stays with it
    """
    rows = np.flatnonzero((plan.events["recording"] == recording).to_numpy())
    role = (plan.role if fold is None else plan.role[fold : fold + 1])[:, rows]
    test = role == ROLES["test"]
    fitted = np.isin(role, [ROLES["train"], ROLES["validation"]])
    if not (test.any(axis=1) & fitted.any(axis=1)).any():
        return None
    starts, stops = window_times(plan.events.iloc[rows[test.any(axis=0)]], extent)
    starts, stops = starts - guard_s, stops + guard_s
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


def tested_within(
    plan: StudyPlan,
    recording: str,
    extents: Iterable[tuple[float, float]],
    extent: tuple[float, float | None],
    fold: int | None = None,
) -> list[str]:
    """Events tested (in one fold, or in any) whose window shares time with ``extents``.

    Parameters
    ----------
    plan : StudyPlan
    recording : its name
    extents : (start, stop) [s] pairs that a fit saw
    extent : (tmin, tmax) [s] of the windows around events, tmax None for the event's duration
    fold : its number; None: all folds that also fit on the recording
    """
    here = (plan.events["recording"] == recording).to_numpy()
    role = plan.role if fold is None else plan.role[fold : fold + 1]
    fits = np.isin(role[:, here], [ROLES["train"], ROLES["validation"]]).any(axis=1)
    rows = np.flatnonzero(here & (role[fits] == ROLES["test"]).any(axis=0))
    pairs = np.array([[a, b] for a, b in extents], float).reshape(-1, 2)
    if not len(rows) or not len(pairs):
        return []
    start, stop = window_times(plan.events.iloc[rows], extent)
    met = overlaps(start + 1e-9, stop - 1e-9, pairs[:, 0], pairs[:, 1])
    return list(map(str, plan.events["event"].iloc[rows[met]]))


def seen_tests(
    plan: StudyPlan,
    seen: Mapping[str, Iterable[tuple[float, float]]],
    extent: tuple[float, float | None],
    fold: int,
) -> list[str]:
    """Events that a fold tests and whose window shares time with what a fit saw.

    Unlike :func:`tested_within`, of all recordings, also those that the fold only tests.

    Parameters
    ----------
    seen : content hash of a recording -> (start, stop) [s] pairs
    extent : (tmin, tmax) [s] of the windows around events, tmax None for the event's duration
    """
    content = dict(zip(plan.recordings["recording"], plan.recordings["content_hash"]))
    test = plan.rows(fold, "test")
    hashes = plan.events["recording"].iloc[test].map(content).to_numpy()
    start, stop = window_times(plan.events.iloc[test], extent)
    found: list[int] = []
    for name in sorted(set(hashes) & set(seen)):
        here = np.flatnonzero(hashes == name)
        pairs = np.array([[a, b] for a, b in seen[name]], float).reshape(-1, 2)
        if len(pairs):
            met = overlaps(start[here] + 1e-9, stop[here] - 1e-9, pairs[:, 0], pairs[:, 1])
            found += test[here[met]].tolist()
    return list(map(str, plan.events["event"].iloc[sorted(found)]))


def overlaps(
    start: np.ndarray, stop: np.ndarray, test_start: np.ndarray, test_stop: np.ndarray
) -> np.ndarray:
    """Which of the intervals (start, stop) share more than a border with any test interval."""
    # The last test window that starts before an interval ends is the one that can meet it, since
    # ``furthest`` holds the largest end among all that start so early.
    order = np.argsort(test_start, kind="stable")
    furthest = np.maximum.accumulate(test_stop[order])
    last = np.searchsorted(test_start[order], stop, side="left") - 1
    return (last >= 0) & (furthest[np.maximum(last, 0)] > start)


def leaves_its_side(
    onset: np.ndarray, end: np.ndarray, start: np.ndarray, stop: np.ndarray, side: np.ndarray
) -> np.ndarray:
    """Which windows of one recording share time with what belongs to another side.

    Where two events that follow one another have different sides, a border lies in the middle
    between the end of the first and the onset of the second, or at that onset where they overlap:
    the borders at which embeddings are cut.

    Parameters
    ----------
    onset, end : (n,) [s] of what the events present
    start, stop : (n,) [s] of their windows
    side : (n,) any labels

    Returns
    -------
    (n,) bool
    """
    order = np.argsort(onset, kind="stable")
    onset_, end_, side_ = onset[order], end[order], side[order]
    change = np.flatnonzero(side_[1:] != side_[:-1])
    border = np.minimum((end_[change] + onset_[change + 1]) / 2, onset_[change + 1])
    # Number of borders up to here: equal for all times of one stretch.
    stretch = np.empty(len(onset), np.int64)
    stretch[order] = np.searchsorted(change, np.arange(len(onset)), side="left")
    first = np.searchsorted(border, start, side="right")
    last = np.searchsorted(border, stop, side="left")
    return (first != stretch) | (last != stretch)
