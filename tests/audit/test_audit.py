"""Every leak that the audit looks for is planted once, and found; a clean run has no finding."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from braindecode_pipe.audit import audit, audit_plan
from braindecode_pipe.errors import MissingFileError
from braindecode_pipe.schema import (
    ROLES,
    prediction_dataset,
    sensor_coords,
    signal_dataset,
    table_to_dataset,
)
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import write_store

BY_RUN = {"split": {"by": "run", "target": "object"}}
BY_STIMULUS = {"split": {"by": "stimulus", "target": "object"}}


def clean_plan(by: str = "run") -> StudyPlan:
    """Three recordings of four events; folds by recording or by stimulus."""
    recordings = pd.DataFrame(
        {"recording": ["r1", "r2", "r3"], "content_hash": ["h1", "h2", "h3"], "datatype": "eeg"}
    )
    events = pd.DataFrame(
        [
            {"event": f"{r}:{i}", "recording": r, "subject": "01", "onset": 2.0 * i,
             "duration": 1.0, "stimulus_object": f"s{i}"}
            for r in recordings["recording"] for i in range(4)
        ]
    )  # fmt: skip
    stimuli = pd.DataFrame(
        {"stimulus": [f"s{i}" for i in range(4)], "target": "object",
         "label": [f"thing {i}" for i in range(4)], "category": ["a", "a", "b", "b"],
         "near_duplicate_group": [f"s{i}" for i in range(4)]}
    )  # fmt: skip
    column = "recording" if by == "run" else "stimulus_object"
    names = sorted(set(events[column]))
    role = np.stack([np.where(events[column] == n, ROLES["test"], ROLES["train"]) for n in names])
    folds = pd.DataFrame({"fold": names, "subject": "01", "groups": names})
    return StudyPlan(recordings, events, stimuli, folds, role.astype(np.int8))


def write_run(out, plan, attrs, fit_scope=None, events=None):
    """A run folder with one plan and the prediction of fold 0."""
    groups = {
        name: table_to_dataset(getattr(plan, name), f"{name}_row")
        for name in ("recordings", "events", "stimuli", "folds")
    }
    groups["split"] = xr.Dataset(
        {"role": (("fold", "event"), plan.role)}, attrs={"schema_version": "1", "kind": "table"}
    )
    write_store(out / "plan" / "study" / "k.zarr", groups, attrs={"kind": "table", **attrs})
    events = plan.events.iloc[plan.rows(0, "test")] if events is None else events
    scope = plan.scope(0).hash() if fit_scope is None else fit_scope
    dataset = prediction_dataset(
        np.ones((len(events), 2)), list(events["event"]), list(events["stimulus_object"]),
        {"decoder": "ridge", "fold": 0, "embedding": "e", "target": "object",
         "data_origin": "recorded", **({"fit_scope": scope} if scope else {})},
    )  # fmt: skip
    write_store(out / "train" / "e_ridge_r1" / "k.zarr", {"": dataset})


@pytest.mark.parametrize(("by", "attrs"), [("run", BY_RUN), ("stimulus", BY_STIMULUS)])
def test_clean_run_has_no_finding(tmp_path, by, attrs):
    write_run(tmp_path, clean_plan(by), attrs)
    assert audit(tmp_path) == []


def test_folder_without_a_plan(tmp_path):
    with pytest.raises(MissingFileError, match="no plan to audit"):
        audit(tmp_path)


def only(findings, check):
    assert [f.check for f in findings] == [check] * len(findings)
    assert findings
    return findings[0]


def test_one_event_under_two_roles():
    plan = clean_plan()
    events = plan.events.copy()
    events.loc[4, "event"] = "r1:0"
    found = only(audit_plan(replace(plan, events=events), BY_RUN), "events")
    assert found.severity == "error"
    assert found.names == ("r1:0",)


def test_one_moment_under_two_ids():
    plan = clean_plan("stimulus")
    events = plan.events.copy()
    events.loc[1, "onset"] = events.loc[0, "onset"]
    found = audit_plan(replace(plan, events=events), BY_STIMULUS)
    assert {f.check for f in found} == {"events", "time"}
    assert any(f.names == ("r1:0",) for f in found)


def test_f34_stimulus_on_both_sides():
    plan = clean_plan("stimulus")
    events = plan.events.copy()
    events.loc[5, "stimulus_object"] = "s0"
    findings = audit_plan(replace(plan, events=events), BY_STIMULUS)
    found = only(findings, "stimuli")
    assert "thing 0" in found.text
    assert [f.fold for f in findings] == ["s0", "s1"]


def test_f34_near_duplicates_on_both_sides():
    plan = clean_plan("stimulus")
    stimuli = plan.stimuli.assign(near_duplicate_group=["g", "g", "s2", "s3"])
    found = only(audit_plan(replace(plan, stimuli=stimuli), BY_STIMULUS), "stimuli")
    assert "near-duplicates" in found.text
    assert found.names == ("thing 0",)


def test_category_on_both_sides_of_a_split_by_category():
    attrs = {"split": {"by": "category", "target": "object"}}
    found = only(audit_plan(clean_plan("stimulus"), attrs), "stimuli")
    assert "categories" in found.text


def test_f33_windows_that_overlap():
    plan = clean_plan("stimulus")
    assert audit_plan(plan, {**BY_STIMULUS, "extent": [-0.5, 1.5]}) == []
    found = only(audit_plan(plan, {**BY_STIMULUS, "extent": [-0.5, 1.6]}), "time")
    assert found.severity == "error"
    assert found.names == ("r1:0", "r2:0", "r3:0")


@pytest.mark.parametrize("seed", range(20))
def test_f33_overlap_agrees_with_all_pairs(seed):
    rng = np.random.default_rng(seed)
    plan = clean_plan("stimulus")
    events = plan.events.assign(
        onset=rng.uniform(0, 12, 12).round(1), duration=rng.uniform(0.1, 1.5, 12).round(1)
    )
    plan = replace(plan, events=events)
    expected = {}
    for fold, name in enumerate(plan.folds["fold"]):
        hits = [
            a.event
            for a in events.iloc[plan.rows(fold, "test")].itertuples()
            for b in events.iloc[plan.rows(fold, "train")].itertuples()
            if a.recording == b.recording
            and a.onset < b.onset + b.duration
            and b.onset < a.onset + a.duration
        ]
        if hits:
            expected[name] = set(hits)
    found = {f.fold: set(f.names) for f in audit_plan(plan, BY_STIMULUS) if f.check == "time"}
    assert found == expected


def test_epochs_may_overlap():
    plan = clean_plan("stimulus")
    plan = replace(plan, recordings=plan.recordings.assign(datatype="epochs"))
    assert audit_plan(plan, {**BY_STIMULUS, "extent": [-0.5, 5.0]}) == []


def test_f33_copied_recordings():
    plan = clean_plan()
    copied = replace(plan, recordings=plan.recordings.assign(content_hash=["h1", "h1", "h3"]))
    findings = audit_plan(copied, BY_RUN)
    # Equal content and equal onsets: the same moments stand on both sides, too.
    assert {f.check for f in findings} == {"recordings", "events"}
    assert {f.fold for f in findings} == {"r1", "r2"}
    shifted = audit_plan(plan, {**BY_RUN, "duplicates": [["r2", "r3", 0.4]]})
    assert only(shifted, "recordings").names == ("r2 = r3",)


def test_f36_fit_scope_of_another_fold(tmp_path):
    plan = clean_plan()
    write_run(tmp_path, plan, BY_RUN, fit_scope=plan.scope(1).hash())
    found = only(audit(tmp_path), "fit-scope")
    assert found.severity == "error"
    assert found.fold == "r1"


def test_f36_fit_scope_that_is_missing(tmp_path):
    write_run(tmp_path, clean_plan(), BY_RUN, fit_scope="")
    assert only(audit(tmp_path), "fit-scope").severity == "warning"


def test_scored_on_events_of_the_training_part(tmp_path):
    plan = clean_plan()
    write_run(tmp_path, plan, BY_RUN, events=plan.events.iloc[[0, 1, 4]])
    found = only(audit(tmp_path), "tested-events")
    assert found.names == ("r2:0",)


def test_failed_recordings_and_older_stores(tmp_path):
    """run.json says which stores count, and which recordings no fit could see."""
    plan = clean_plan()
    scope = plan.without(["r3"]).scope(0).hash()
    write_run(tmp_path, plan, BY_RUN, fit_scope=scope)
    assert only(audit(tmp_path), "fit-scope").severity == "error"
    units = [
        {"stage": "plan", "unit": "study", "status": "done", "store": "plan/study/k.zarr"},
        {"stage": "preprocess", "unit": "r3", "status": "failed", "store": ""},
        {"stage": "train", "unit": "x", "status": "done", "store": "train/e_ridge_r1/k.zarr"},
    ]
    (tmp_path / "run.json").write_text(json.dumps({"units": units}))
    assert audit(tmp_path) == []


# --- what preprocessing carries over --------------------------------------------------------------


def test_f35_filters_that_join_training_and_test():
    plan = clean_plan("stimulus")  # events every 2 s, of 1 s
    attrs = {**BY_STIMULUS, "filter_reach_s": {"r1": 0.9}}
    assert audit_plan(plan, attrs) == []
    found = only(audit_plan(plan, {**attrs, "filter_reach_s": {"r1": 1.1}}), "filters")
    assert found.severity == "warning" and found.names == ("r1:1",)
    assert "filters reach 1.10 s" in found.text
    found = only(audit_plan(plan, {**attrs, "filter_reach_s": {"r1": "recording"}}), "filters")
    assert found.names == ("r1:1", "r1:2", "r1:3")


def write_recording(out, name, **attrs):
    sensors = sensor_coords(["a", "b"], "eeg", "V")
    attrs = {"data_origin": "recorded", "sfreq": 10.0, "recording": name, **attrs}
    dataset = signal_dataset(np.zeros((2, 90), np.float32), sensors, np.arange(90) / 10, attrs)
    write_store(out / "preprocess" / name / "k.zarr", {"": dataset})


def test_f36_preprocessing_that_saw_tested_windows(tmp_path):
    plan = clean_plan("stimulus")
    test_0 = plan.role[0] == ROLES["test"]
    plan = replace(plan, role=plan.role[:1], folds=plan.folds.iloc[:1])
    assert test_0.sum() == 3
    write_run(tmp_path, plan, BY_STIMULUS)
    write_recording(tmp_path, "r1", fit_extents=[[1.0, 9.0]])  # touches r1:0, 0 to 1 s
    assert audit(tmp_path) == []
    write_recording(tmp_path, "r2", fit_extents=[[0.9, 9.0]])
    found = only(audit(tmp_path), "fit-extents")
    assert found.severity == "error" and found.names == ("r2:0",)
    write_recording(tmp_path, "r3")
    findings = audit(tmp_path)
    assert [f.severity for f in findings] == ["error", "warning"]
    assert findings[1].names == ("r3",)


def test_f36_whole_recordings_may_be_seen_whole(tmp_path):
    write_run(tmp_path, clean_plan(), BY_RUN)
    write_recording(tmp_path, "r1")
    assert audit(tmp_path) == []


@pytest.mark.parametrize("by", ["run", "stimulus"])
def test_stimuli_that_look_nearly_the_same_on_both_sides(tmp_path, by):
    from braindecode_pipe.embed.duplicates import near_duplicates
    from braindecode_pipe.schema import embedding_dataset

    write_run(tmp_path, clean_plan(by), BY_RUN if by == "run" else BY_STIMULUS)
    vectors = np.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 0.05], [0, 0, 1]])
    stimuli = [f"s{i}" for i in range(4)]
    attrs = {"target": "object", "model": "m", "data_origin": "recorded"}
    pairs, _ = near_duplicates(vectors, stimuli)
    groups = {"": embedding_dataset(vectors, stimuli, attrs),
              "near_duplicates": table_to_dataset(pairs, "pair")}  # fmt: skip
    write_store(tmp_path / "embed" / "e" / "k.zarr", groups)
    findings = audit(tmp_path)
    if by == "run":
        assert findings == []  # every stimulus is on both sides by design
        return
    found = only(findings, "near-duplicates")
    assert {f.severity for f in findings} == {"warning"}
    assert {f.fold for f in findings} == {"s1", "s2"}
    assert "thing 1 and thing 2 (0.999)" in found.text
