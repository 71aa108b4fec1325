"""Leaks of published studies, each named by what was done, and found by the check that is meant."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from braindecode_pipe.audit import CHECKS, audit, audit_plan, refuse
from braindecode_pipe.errors import InputError, LeakageError
from braindecode_pipe.schema import prediction_dataset, sensor_coords, signal_dataset
from braindecode_pipe.store import write_store


def found(findings):
    return {f.check: f for f in findings}


def test_trial_level_split_of_repeated_stimuli(make_plan):
    """Ten pictures, each shown eight times; trials are dealt out, pictures are not."""
    rng = np.random.default_rng(0)
    stimulus = rng.permutation(np.repeat(np.arange(10), 8))
    test = np.isin(np.arange(80), rng.choice(80, 20, replace=False))
    plan = make_plan(["r"] * 80, 2.0 * np.arange(80), stimulus, test)
    leak = found(audit_plan(plan, {"split": {"by": "stimulus"}}))["stimuli"]
    assert leak.severity == "error"
    assert set(leak.names) == {str(s) for s in stimulus[test]}
    # Who says that recordings are cut in time claims less, and is told so.
    by_time = found(audit_plan(plan, {"split": {"by": "time"}}))
    assert set(by_time) == {"repeated-stimuli"}
    assert by_time["repeated-stimuli"].severity == "warning"
    by_stimulus = make_plan(["r"] * 80, 2.0 * np.arange(80), stimulus, stimulus < 2)
    assert audit_plan(by_stimulus, {"split": {"by": "stimulus"}}) == []


@pytest.mark.parametrize("label", ["recording", "block"])
def test_random_segments_of_a_recording(make_plan, label):
    """Segments of 1 s side by side, dealt out at random; a whole recording or block is one class.

    BrainOmni splits its segments so (its public code); so do many studies of states and diseases.
    """
    rng = np.random.default_rng(1)
    n = 120
    recording = np.repeat(["r1", "r2"], n // 2)
    onset = np.tile(np.arange(n // 2), 2)
    stimulus = (recording == "r2") if label == "recording" else (onset // 15) % 2
    test = rng.random(n) < 0.15
    plan = make_plan(recording, onset, np.asarray(stimulus, int), test)
    leak = found(audit_plan(plan, {"split": {"by": "time"}}))["segments"]
    assert leak.severity == "error"
    assert set(leak.names) <= set(plan.events["event"][test])
    whole = make_plan(recording, onset, np.asarray(stimulus, int), recording == "r2")
    assert "segments" not in found(audit_plan(whole, {"split": {"by": "time"}}))


@pytest.mark.parametrize("seed", range(5))
def test_random_order_within_a_recording_is_no_segment_leak(make_plan, seed):
    rng = np.random.default_rng(seed)
    stimulus = rng.integers(0, 2, 100)
    test = np.arange(100) // 20 == rng.integers(5)
    plan = make_plan(["r"] * 100, 2.0 * np.arange(100), stimulus, test)
    assert "segments" not in found(audit_plan(plan, {"split": {"by": "time"}}))


@pytest.mark.parametrize("drawn", ["copied", "augmented"])
def test_resampling_before_the_split(make_plan, drawn):
    """Trials drawn with replacement, then folds: copies of one trial meet over the border."""
    rng = np.random.default_rng(2)
    rows = np.sort(rng.integers(0, 40, 40))
    first = np.searchsorted(rows, rows)
    onset = 2.0 * rows if drawn == "copied" else 2.0 * np.arange(40)
    columns = {"augmented_from": [f"r:{i}" for i in first]} if drawn == "augmented" else {}
    test = np.arange(40) % 4 == 0
    plan = make_plan(["r"] * 40, onset, rows, test, **columns)
    copies = set(rows[test]) & set(rows[~test])
    leak = found(audit_plan(plan, {"split": {"by": "run"}}))
    leak = leak["events" if drawn == "copied" else "copied-trials"]
    assert {rows[int(name.split(":")[1])] for name in leak.names} == copies


def test_copied_trials_of_epochs(tmp_path, make_plan, write_plan):
    """Oversampled epochs: other ids and times, equal samples."""
    rng = np.random.default_rng(3)
    plan = make_plan(["r"] * 6, 2.0 * np.arange(6), [0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1])
    write_plan(tmp_path, plan, split={"by": "time"})
    from braindecode_pipe.schema import response_dataset

    values = rng.normal(size=(6, 2, 5)).astype(np.float32)
    values[4] = values[1]
    attrs = {"data_origin": "recorded", "sfreq": 10.0, "recording": "r", "fit_extents": []}
    dataset = response_dataset(values, sensor_coords(["a", "b"], "eeg", "V"),
                               list(plan.events["event"]), attrs, np.arange(5) / 10)  # fmt: skip
    write_store(tmp_path / "preprocess" / "r" / "k.zarr", {"": dataset})
    leak = found(audit(tmp_path))["copied-trials"]
    assert leak.names == ("r:4 = r:1",)


def prediction(out, plan, stage="train", files=None, **attrs):
    events = plan.events.iloc[plan.rows(0, "test")]
    dataset = prediction_dataset(
        np.ones((len(events), 2)), list(events["event"]), list(events["stimulus_object"]),
        {"decoder": "atm", "fold": 0, "embedding": "e", "target": "object",
         "data_origin": "recorded", "fit_scope": plan.scope(0).hash(), **attrs},
    )  # fmt: skip
    write_store(out / stage / "e_atm_fold-0" / "k.zarr", {"": dataset}, files=files)


@pytest.fixture
def by_run(tmp_path, make_plan, write_plan):
    recording = np.repeat(["r1", "r2", "r3"], 4)
    plan = make_plan(recording, np.tile(2.0 * np.arange(4), 3), np.tile(range(4), 3),
                     recording == "r3")  # fmt: skip
    write_plan(tmp_path, plan, split={"by": "run"})
    return plan


def test_best_epoch_chosen_on_the_test_set(tmp_path, by_run):
    """ATM's script evaluates the test set after every epoch and reports the best."""
    prediction(tmp_path, by_run, selection_scope=by_run.scope(0).hash())
    assert audit(tmp_path) == []
    prediction(tmp_path, by_run, selection_scope=by_run.scope(0, ("test",)).hash())
    leak = found(audit(tmp_path))["selection"]
    assert leak.severity == "error" and "chosen on the test" in leak.text


def test_learning_rate_picked_on_the_test_set(tmp_path, by_run):
    """BrainOmni scores three learning rates on the test set and reports the best of them."""
    from braindecode_pipe.evaluate.ledger import append

    ledger = tmp_path / "ledger"
    line = {"decoder": "atm", "metric": "top1", "n": 4, "n_candidates": 4}
    scores = {"lr-1": 0.31, "lr-2": 0.42, "lr-3": 0.37}
    for name, value in scores.items():
        append(ledger, "t", configuration=name, study="s", embedding="e", value=value, **line)
    for name, value in scores.items():
        store = tmp_path / name / "evaluate" / "e" / "k.zarr"
        scored = {**line, "value": value, "candidates": "test", "aggregate": "none"}
        attrs = {"kind": "table", "embedding": "e", "test_hash": "t", "scored": [scored],
                 "verdict": {"decoder": "atm", "metric": "top1"}}  # fmt: skip
        write_store(store, {"items": empty_table()}, attrs=attrs)
        (tmp_path / name / "plan").symlink_to(tmp_path / "plan")
        units = [{"stage": s, "unit": u, "status": "done", "store": f"{s}/{u}/k.zarr"}
                 for s, u in (("plan", "study"), ("evaluate", "e"))]  # fmt: skip
        record = {"units": units, "ledger": str(ledger), "configuration": name}
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    assert audit(tmp_path / "lr-1") == audit(tmp_path / "lr-3") == []
    leak = found(audit(tmp_path / "lr-2"))["ledger"]
    assert leak.severity == "warning"
    assert "best of 3 configurations" in leak.text and "median 0.37" in leak.text


def empty_table():
    from braindecode_pipe.schema import table_to_dataset

    return table_to_dataset(pd.DataFrame({"event": ["r:0"]}), "item")


def test_scaler_fitted_on_everything(tmp_path, make_plan, write_plan):
    plan = make_plan(["r"] * 6, 2.0 * np.arange(6), np.arange(6), np.arange(6) == 5)
    write_plan(tmp_path, plan, split={"by": "stimulus"})
    attrs = {"data_origin": "recorded", "sfreq": 10.0, "recording": "r"}
    sensors = sensor_coords(["a"], "eeg", "V")
    for extents, leaks in (([[0.0, 10.0]], False), ([[0.0, 12.0]], True)):
        dataset = signal_dataset(np.ones((1, 120), np.float32), sensors, np.arange(120) / 10,
                                 {**attrs, "fit_extents": extents})  # fmt: skip
        write_store(tmp_path / "preprocess" / "r" / "k.zarr", {"": dataset})
        errors = found(audit(tmp_path))
        assert ("fit-extents" in errors) == leaks
    assert errors["fit-extents"].names == ("r:5",)


@pytest.mark.parametrize("saw", ["training", "everything", "test"])
def test_anything_with_a_scope_is_checked_by_one_rule(tmp_path, by_run, saw):
    """Clusters, feature selections: a stage that the audit has never heard of."""
    roles = {"training": ("train",), "everything": ("train", "test"), "test": ("test",)}[saw]
    scope = by_run.scope(0, roles).hash()
    store = tmp_path / "selection" / "words" / "k.zarr"
    config = json.dumps({"fit_scope": scope}).encode()
    dataset = xr.Dataset({"code": ("window", np.zeros(3, np.int64))},
                         attrs={"schema_version": "1", "kind": "table"})  # fmt: skip
    write_store(store, {"": dataset}, files={"model.json": config})
    findings = audit(tmp_path)
    assert [f.check for f in findings] == ([] if saw == "training" else ["fit-scope"])
    if saw != "training":
        assert "selection words" in findings[0].text
        assert ("the test" in findings[0].text) == (saw == "test")


def test_extents_of_any_store_are_checked(tmp_path, by_run):
    extents = {"r1": [[0.0, 9.0]], "r3": [[0.0, 9.0]]}
    attrs = {"schema_version": "1", "kind": "table", "fold": "fold-0", "fit_extents": extents}
    dataset = xr.Dataset({"label": ("sensor", np.zeros(3, np.int64))}, attrs=attrs)
    write_store(tmp_path / "clusters" / "c" / "k.zarr", {"": dataset})
    leak = found(audit(tmp_path))["fit-extents"]
    assert leak.names == ("r3:8", "r3:9", "r3:10", "r3:11")


def test_embedding_normalised_on_tested_stimuli(tmp_path, make_plan, write_plan):
    from braindecode_pipe.fitting.normalizer import Normalizer

    plan = make_plan(["r"] * 4, 2.0 * np.arange(4), np.arange(4), np.arange(4) == 3)
    write_plan(tmp_path, plan, split={"by": "stimulus"})
    normalizer = Normalizer.fit("zscore", np.eye(4), ["0", "1", "2", "3"])
    attrs = {"decoder": "ridge", "fold": 0, "embedding": "e", "target": "object",
             "data_origin": "recorded", "fit_scope": plan.scope(0).hash()}  # fmt: skip
    groups = {"": prediction_dataset(np.ones((1, 4)), ["r:3"], ["3"], attrs),
              "normalizer": normalizer.to_dataset()}  # fmt: skip
    write_store(tmp_path / "train" / "e" / "k.zarr", groups)
    assert found(audit(tmp_path))["normalizer"].names == ("3",)


def test_the_same_person_on_both_sides(make_plan):
    plan = make_plan(["r1", "r2"] * 3, 2.0 * np.arange(6), range(6), [0, 1] * 3)
    leak = found(audit_plan(plan, {"split": {"by": "subject"}}))["groups"]
    assert leak.names == ("01",)


def test_one_sentence_in_two_spellings(make_plan):
    plan = make_plan(["r"] * 3, 2.0 * np.arange(3), range(3), [0, 0, 1])
    plan.stimuli["kind"] = "text"
    plan.stimuli["label"] = ["The dog barks.", "A cat", "the dog barks"]
    leak = found(audit_plan(plan, {"split": {"by": "stimulus"}}))["stimuli"]
    assert leak.names == ("the dog barks",)


@pytest.mark.parametrize(("onset", "leaks"), [(3.0, False), (2.95, False), (1.5, True)])
def test_clips_that_overlap_in_their_source(make_plan, onset, leaks):
    plan = make_plan(["r"] * 2, [0.0, 10.0], range(2), [0, 1])
    plan.stimuli["source"] = "story"
    plan.stimuli["onset"], plan.stimuli["offset"] = [0.0, onset], [3.0, onset + 3.0]
    assert ("source-clips" in found(audit_plan(plan, {"split": {"by": "segment"}}))) == leaks


def test_refusal_names_pairs_and_the_way_out(make_plan):
    plan = make_plan(["r1", "r2"] * 3, 2.0 * np.arange(6), range(6), [0, 1] * 3)
    findings = audit_plan(plan, {"split": {"by": "run"}, "duplicates": [["r1", "r2", 0.4]]})
    with pytest.raises(LeakageError, match=r"r2 = r1") as caught:
        refuse(findings)
    assert "--allow-leak recordings" in str(caught.value)
    assert refuse(findings, ["recordings"]) == ["recordings"]


def test_names_of_leaks_are_checked():
    from braindecode_pipe.audit import check_names

    assert check_names(["time", "events", "time"]) == ["time", "events"]
    with pytest.raises(InputError, match="recordings"):
        check_names(["everything"])
    assert all(check.severity in ("error", "warning") for check in CHECKS.values())


def test_a_damaged_store_is_told_and_stops_nothing_else(tmp_path, by_run):
    prediction(tmp_path, by_run, selection_scope=by_run.scope(0, ("test",)).hash())
    prediction(tmp_path, by_run, stage="other")
    store = tmp_path / "other" / "e_atm_fold-0" / "k.zarr"
    for file in store.rglob("*"):
        if file.is_file() and "event" in file.parts:
            file.write_bytes(b"\0" * file.stat().st_size)
    findings = found(audit(tmp_path))
    assert set(findings) == {"selection", "unreadable"}
    assert findings["unreadable"].names == ("e_atm_fold-0",)
