"""The split: groups stay whole, nothing is on both sides, windows do not overlap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braindecode_pipe.errors import LeakageError, SplitError
from braindecode_pipe.recipe import SplitSection
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import (
    StudyPlan,
    check_disjoint,
    divided_recordings,
    extents_hash,
    fit_extents,
    make_folds,
    seen_tests,
    shared_between_roles,
    within_reach,
)


def tables(n_subjects=2, n_runs=3, n_events=12, n_stimuli=6, soa=1.0):
    rng = np.random.default_rng(0)
    rows = []
    for s in range(n_subjects):
        for r in range(n_runs):
            name = f"sub-{s}_run-{r}_eeg"
            for k, stimulus in enumerate(rng.integers(0, n_stimuli, n_events)):
                rows.append(
                    {
                        "event": f"{name}:{k:05d}", "recording": name, "subject": str(s),
                        "session": "", "run": str(r), "onset": k * soa, "duration": 0.2,
                        "stimulus_word": f"w{stimulus}",
                    }
                )  # fmt: skip
    events = pd.DataFrame(rows)
    recordings = pd.DataFrame(
        {"recording": sorted(set(events["recording"])), "datatype": "eeg", "excluded": False,
         "data_origin": "recorded", "duration": n_events * soa + 5.0}
    )  # fmt: skip
    stimuli = pd.DataFrame(
        {
            "stimulus": [f"w{i}" for i in range(n_stimuli)],
            "target": "word",
            "category": ["odd" if i % 2 else "even" for i in range(n_stimuli)],
            "near_duplicate_group": [f"g{i // 2}" for i in range(n_stimuli)],
        }
    )
    return events, recordings, stimuli


def folds_of(section, extent=(0.0, 0.5), reach=None, **kwargs):
    events, recordings, stimuli = tables(**kwargs)
    reach = dict.fromkeys(recordings["recording"], reach) if reach is not None else None
    folds, role, group = make_folds(
        events, recordings, stimuli, section, target="word", extent=extent, reach=reach
    )
    return StudyPlan(recordings, events.assign(group=group), stimuli, folds, role)


@settings(max_examples=40, deadline=None)
@given(
    by=st.sampled_from(["run", "stimulus", "category", "time"]),
    within=st.booleans(),
    n_folds=st.integers(0, 2),
    validation=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 5),
)
def test_every_event_is_tested_once_and_groups_stay_whole(by, within, n_folds, validation, seed):
    n_folds = 0 if n_folds == 1 else n_folds
    section = SplitSection(
        by=by, within_subject=within, n_folds=n_folds, validation=validation, seed=seed
    )
    plan = folds_of(section)
    tested = (plan.role == ROLES["test"]).sum(axis=0)
    assert (tested == 1).all()
    for role, subject in zip(plan.role, plan.folds["subject"]):
        used = role != ROLES["unused"]
        assert set(plan.events["subject"][used]) == ({subject} if within else {"0", "1"})
        for _, part in plan.events.assign(role=role)[used].groupby("group"):
            assert part["role"].nunique() == 1
        assert (role == ROLES["validation"]).any() == bool(
            validation and len(set(plan.events["group"][role != ROLES["test"]])) > 1
            and plan.events["group"][used & (role != ROLES["test"])].nunique() > 1
        )  # fmt: skip


def test_stimulus_split_shares_no_stimulus_and_keeps_near_duplicates_together():
    plan = folds_of(SplitSection(by="stimulus", within_subject=False, n_folds=3))
    assert shared_between_roles(plan, "word") == []
    assert set(plan.events["group"]) == {"g0", "g1", "g2"}
    assert shared_between_roles(folds_of(SplitSection(by="run")), "word")


def test_same_stimulus_same_fold_for_everybody():
    plan = folds_of(SplitSection(by="stimulus", n_folds=3))
    tested = {}
    for fold, role in zip(plan.folds["fold"], plan.role):
        for stimulus in plan.events["stimulus_word"][role == ROLES["test"]]:
            tested.setdefault(stimulus, set()).add(fold.split("_")[1])
    assert all(len(folds) == 1 for folds in tested.values())


def test_f33_overlapping_windows_are_refused_or_purged():
    section = SplitSection(by="stimulus", within_subject=False, n_folds=3)
    folds_of(section, extent=(0.0, 1.0))  # windows that only touch are apart
    with pytest.raises(LeakageError, match="windows of training overlap"):
        folds_of(section, extent=(0.0, 1.5))
    plan = folds_of(section.model_copy(update={"overlap": "purge"}), extent=(0.0, 1.5))
    for role in plan.role:
        for _, part in plan.events.assign(role=role).groupby("recording"):
            test = part[part["role"] == ROLES["test"]]["onset"].to_numpy()
            fitted = part[part["role"] == ROLES["train"]]["onset"].to_numpy()
            gaps = np.abs(test[:, None] - fitted[None])
            assert not gaps.size or gaps.min() >= 1.5  # against a naive search over all pairs
    assert (plan.role == ROLES["purged"]).any()


def test_f35_purge_gap_by_time():
    plan = folds_of(SplitSection(by="time", n_folds=3, purge_s=2.0), n_events=60, extent=(0.0, 0.5))
    for role in plan.role:
        for _, part in plan.events.assign(role=role).groupby("recording"):
            test = part[part["role"] == ROLES["test"]]["onset"].to_numpy()
            fitted = part[part["role"] == ROLES["train"]]["onset"].to_numpy()
            if len(test) and len(fitted):
                assert np.abs(test[:, None] - fitted[None]).min() >= 2.0 + 0.5


def closest(plan, fold, extent, roles=("train", "validation")):
    """Smallest gap [s] between a fitted and a tested window of one recording, over all pairs."""
    gap = np.inf
    fitted = np.isin(plan.role[fold], [ROLES[r] for r in roles])
    for i in np.flatnonzero(fitted):
        for j in np.flatnonzero(plan.role[fold] == ROLES["test"]):
            if plan.events["recording"].iloc[i] != plan.events["recording"].iloc[j]:
                continue
            a, b = (plan.events["onset"].iloc[k] for k in (i, j))
            gap = min(gap, max(b - a, a - b) - (extent[1] - extent[0]))
    return gap


@pytest.mark.parametrize("reach", [0.7, 3.3, 8.0])
def test_f35_auto_purges_as_far_as_filters_reach(reach):
    section = SplitSection(by="time", n_folds=3)
    plan = folds_of(section, reach=reach, n_subjects=1, n_runs=2, n_events=60)
    for fold in range(len(plan.folds)):
        assert closest(plan, fold, (0.0, 0.5)) >= reach - 1e-9
        assert len(within_reach(plan, fold, (0.0, 0.5), {"sub-0_run-0_eeg": reach})) == 0
    without = folds_of(section, reach=0.0, n_subjects=1, n_runs=2, n_events=60)
    assert closest(without, 0, (0.0, 0.5)) == pytest.approx(0.5)
    found = within_reach(without, 0, (0.0, 0.5), {"sub-0_run-0_eeg": reach})
    assert set(found) == set(naive_within(without, 0, (0.0, 0.5), "sub-0_run-0_eeg", reach))
    assert len(found)


def naive_within(plan, fold, extent, recording, reach):
    onset, here = plan.events["onset"], plan.events["recording"] == recording
    tested = onset[here & (plan.role[fold] == ROLES["test"])]
    for i in np.flatnonzero(here & (plan.role[fold] == ROLES["train"])):
        if (np.abs(onset.iloc[i] - tested) < reach + extent[1] - extent[0]).any():
            yield i


def test_f35_a_gap_that_is_too_short_is_refused_with_the_one_needed():
    section = SplitSection(by="time", n_folds=3, purge_s=1.0, overlap="purge")
    with pytest.raises(LeakageError, match=r"purge_s >= 3\.31"):
        folds_of(section, reach=3.305, n_events=60)
    folds_of(section.model_copy(update={"purge_s": 3.31}), reach=3.305, n_events=60)
    with pytest.raises(LeakageError, match="one fit over all of it"):
        folds_of(SplitSection(by="time", n_folds=3), reach=np.inf, n_events=60)


def test_f35_interleaved_stimuli_are_not_purged_but_counted():
    section = SplitSection(by="stimulus", within_subject=False, n_folds=3)
    plan = folds_of(section, reach=3.3)
    assert not (plan.role == ROLES["purged"]).any()
    names = divided_recordings(plan)
    assert len(names) == 6 and divided_recordings(folds_of(SplitSection(by="run"))) == []
    assert len(within_reach(plan, 0, (0.0, 0.5), dict.fromkeys(names, 3.3))) > 0


@pytest.mark.parametrize("guard", [0.0, 1.5])
def test_f36_fits_of_a_divided_recording_see_no_test_window(guard):
    section = SplitSection(by="stimulus", within_subject=False, n_folds=3, test_folds=1)
    plan = folds_of(section, n_subjects=1, n_runs=1, n_events=40, n_stimuli=12)
    extents = fit_extents(plan, "sub-0_run-0_eeg", (-0.1, 0.5), guard)
    seen = np.zeros(4500, bool)  # centiseconds of the recording
    for start, stop in extents:
        assert 0 <= start < stop <= 45.0
        seen[int(np.ceil(start * 100 - 1e-9)) : int(np.floor(stop * 100 + 1e-9))] = True
    free = np.ones(4500, bool)
    for onset in plan.events["onset"][plan.role[0] == ROLES["test"]]:
        free[max(0, round((onset - 0.1 - guard) * 100)) : round((onset + 0.5 + guard) * 100)] = 0
    assert np.array_equal(seen, free)
    assert extents_hash(extents) == extents_hash([list(pair) for pair in extents])
    assert extents_hash(extents) != extents_hash(extents[1:])
    assert fit_extents(folds_of(SplitSection(by="run")), "sub-0_run-0_eeg", (0, 1), 0) is None


def test_extents_of_one_fold_leave_out_its_own_tests_only():
    section = SplitSection(by="time", within_subject=False, n_folds=3)
    plan = folds_of(section, n_subjects=1, n_runs=1, n_events=30)
    name, extent = "sub-0_run-0_eeg", (0.0, 0.5)
    # Blocks of ten events a second apart, in a recording of 35 s.
    found = [fit_extents(plan, name, extent, 0.25, fold) for fold in range(3)]
    first = [plan.events["onset"][plan.rows(fold, "test")].min() for fold in range(3)]
    by_begin = dict(zip(first, found))
    assert by_begin[0.0] == ((9.75, 35.0),)
    assert by_begin[20.0] == ((0.0, 19.75), (29.75, 35.0))
    assert fit_extents(plan, name, extent, 0.25) == ((29.75, 35.0),)


def test_tests_that_a_fit_saw_are_found_by_content():
    plan = folds_of(SplitSection(by="run", within_subject=False, n_folds=3), n_subjects=1)
    content = "content of " + plan.recordings["recording"]
    plan = StudyPlan(plan.recordings.assign(content_hash=content), plan.events, plan.stimuli,
                     plan.folds, plan.role)  # fmt: skip
    tested = plan.rows(0, "test")
    name = plan.events["recording"].iloc[tested[0]]
    # A window of half a second begins every second: from 1.5 on, the next is that at 2.
    for extents, expected in (
        ([(2.2, 3.1)], [2, 3]),
        ([(1.5, 2.0)], []),
        ([(0.0, 0.1), (11.4, 20.0)], [0, 11]),
        ([], []),
    ):
        found = seen_tests(plan, {f"content of {name}": extents}, (0.0, 0.5), 0)
        assert found == [plan.events["event"].iloc[tested[k]] for k in expected]
    other = plan.events["recording"].iloc[plan.rows(0, "train")[0]]
    assert seen_tests(plan, {f"content of {other}": [(0.0, 99.0)]}, (0.0, 0.5), 0) == []


def test_impossible_splits_say_why():
    with pytest.raises(SplitError, match="has no train item"):
        folds_of(SplitSection(by="run"), n_runs=1)
    with pytest.raises(SplitError, match="number of folds"):
        folds_of(SplitSection(by="run", n_folds=9))
    with pytest.raises(SplitError, match="within one person"):
        folds_of(SplitSection(by="subject"))
    plan = folds_of(SplitSection(by="subject", within_subject=False))
    assert list(plan.folds["fold"]) == ["0", "1"]


def test_scopes_hash_what_they_hold():
    plan = folds_of(SplitSection(by="run"))
    scope = plan.scope(0)
    assert scope.hash() == plan.scope_of(plan.rows(0, "train")[::-1], "other name").hash()
    assert scope.hash() != plan.scope(1).hash()
    assert plan.without(["sub-0_run-1_eeg"]).scope(0).hash() != scope.hash()
    check_disjoint(scope.events, plan.events["event"].iloc[plan.rows(0, "test")], "the scaler")
    with pytest.raises(LeakageError, match="the scaler saw items of the test set"):
        check_disjoint(scope.events, list(scope.events)[:1], "the scaler")
