"""Windows of one stimulus averaged: which, over whom, and what stores and scores say of it."""

import json

import numpy as np
import pytest

from braindecode_pipe import evaluate, store
from braindecode_pipe.audit import audit_prediction
from braindecode_pipe.recipe import EvaluateSection, NetworkSection, TrainSection, WindowSection
from braindecode_pipe.schema import ROLES
from braindecode_pipe.train import run
from braindecode_pipe.train.folds import read_fold
from braindecode_pipe.train.repeats import joined_groups, repeats_of

AVERAGE = WindowSection(reduce="mean", repeats="average")


def predict(study, decoder="ridge", fold=0, windows=AVERAGE):
    out = study.folder / f"{decoder}-{windows.repeats}-{fold}.zarr"
    network = {"mlp": NetworkSection(hidden=16)}
    settings = TrainSection(windows=windows, network=network, lr=1e-2, epochs=10)
    run(settings, "object", decoder, fold, study.plan, study.signals, study.embedding, out)
    return out


def accuracy(study, out):
    dataset, embedding = store.open_store(out), store.open_store(study.embedding)
    ids = [str(s) for s in embedding["stimulus"].values]
    best = dataset["prediction"].values.argmax(1)  # the embedding is one-hot
    return np.mean([ids[b] == s for b, s in zip(best, dataset["stimulus"].values)])


def fold_of(study, window=AVERAGE, fold=0, **more):
    return read_fold(study.plan, fold, "object", window, study.signals, **more)


def test_average_is_over_one_person_one_role_and_one_stimulus(make_study):
    study = make_study(subjects=("01", "02"), validation=True)
    # One fold with everybody: training runs of both people, a validation and a test run of 01.
    study.plan.role[0] = np.where(study.plan.role[0] == 0, ROLES["train"], study.plan.role[0])
    single, data = fold_of(study, WindowSection(reduce="mean")), fold_of(study)
    ids = single.text("event", np.arange(len(single.windows)))
    person = single.windows.events["subject"].to_numpy()
    shown = single.windows.events["stimulus_object"].to_numpy()
    role = dict(zip(study.plan.events["event"], study.plan.role[0]))
    role = np.array([role[i] for i in ids])
    x = single.windows.read(np.arange(len(ids)))
    rows = np.concatenate([data.fit, data.test])
    found = np.concatenate([data.read(data.fit)[:], data.read(data.test)[:]])
    assert len(rows) == 4 * 4  # stimuli; training of 01 and of 02, validation, test
    for row, mean in zip(rows, found):
        alike = (person == person[row]) & (shown == shown[row]) & (role == role[row])
        assert row == np.flatnonzero(alike)[0]
        assert mean == pytest.approx(x[alike].mean(0), abs=1e-6)
    assert data.validation.sum() == 4 and data.trials_per_query == [2] * 4
    assert sorted(data.single(rows)) == list(range(len(ids)))


def test_views_read_what_arrays_hold(make_study, monkeypatch):
    study = make_study()
    whole = fold_of(study)
    expected = whole.read(whole.fit)
    monkeypatch.setattr("braindecode_pipe.fitting.views.IN_MEMORY_BYTES", 0)
    view = whole.read(whole.fit)
    assert view.shape == expected.shape and np.array_equal(np.asarray(view), expected)
    assert np.array_equal(view[[2, 0]], expected[[2, 0]])
    assert np.array_equal(view.subset(np.array([3, 1]))[:], expected[[3, 1]])


def test_groups_of_averages():
    trials = repeats_of(np.arange(6), np.array(list("aabbcc")))
    assert {k: v.tolist() for k, v in trials.items()} == {0: [0, 1], 2: [2, 3], 4: [4, 5]}
    groups = np.array(["r1", "r1", "r1", "r2", "r2", "r2"], object)
    stimuli = np.array(list("aabbcc"), object)
    assert joined_groups(trials, groups, stimuli).tolist() == ["r1", "b", "r2"]


@pytest.mark.parametrize("decoder", ["ridge", "mlp"])
def test_store_says_that_queries_are_averages_and_evaluate_scores_them(make_study, decoder):
    study = make_study(snr=0.6)
    paths = [predict(study, decoder, fold) for fold in range(4)]
    attrs = store.open_store(paths[0]).attrs
    assert (attrs["repeats"], attrs["trials_per_query"]) == ("average", [2] * 4)
    assert attrs["n_test"] == 4 and attrs["n_train"] == 4
    events = study.plan.events.iloc[study.plan.rows(0, "test")]
    first = events.drop_duplicates("stimulus_object")["event"].tolist()
    assert [str(e) for e in store.open_store(paths[0])["event"].values] == first
    assert list(audit_prediction(paths[0], study.plan)) == []
    study.plan.stimuli["category"] = ""
    study.plan.recordings["content_hash"] = study.plan.recordings["recording"]
    out = study.folder / "evaluation.zarr"
    settings = EvaluateSection(bootstrap=0, permutations=20)
    evaluate.run(settings, "object", study.plan, paths, study.embedding, out)
    records = json.loads(store.read_file(out, "metrics.json"))
    records = records if isinstance(records, list) else records["records"]
    own = next(
        r for r in records if r["decoder"] == decoder and r["metric"] == "identification_accuracy"
    )
    assert own["n_queries"] == 16
    assert own["value"] == pytest.approx(np.mean([accuracy(study, p) for p in paths]))


def test_single_windows_say_so(make_study):
    attrs = store.open_store(predict(make_study(), windows=WindowSection(reduce="mean"))).attrs
    assert attrs["repeats"] == "single" and "trials_per_query" not in attrs
    assert attrs["n_test"] == 8
