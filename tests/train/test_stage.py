"""The unit of the stage: what it reads, what it writes, and what it must never see."""

import functools

import numpy as np
import pytest

from braindecode_pipe import store
from braindecode_pipe.errors import (
    DataError,
    LeakageError,
    ModelError,
    SplitError,
    StimulusError,
)
from braindecode_pipe.fitting.normalizer import Normalizer
from braindecode_pipe.recipe import AugmentSection, NetworkSection, TrainSection, WindowSection
from braindecode_pipe.schema import ROLES, embedding_dataset, sensor_coords, signal_dataset
from braindecode_pipe.train import run
from braindecode_pipe.train.decoder import BrainDecoder
from braindecode_pipe.train.folds import open_signals, read_fold
from braindecode_pipe.train.saved import load_decoder


def section(**changes):
    base = {
        "windows": WindowSection(reduce="mean"),
        "network": {
            "mlp": NetworkSection(hidden=16),
            "conv": NetworkSection(n_virtual=6, hidden=8, depth=2, n_fourier=32),
        },
        "lr": 1e-2,
        "epochs": 10,
    }
    return TrainSection(**{**base, **changes})


def predict(study, decoder="ridge", fold=0, name="out", sec=None, **arguments):
    out = study.folder / f"{name}.zarr"
    run(sec or section(), "object", decoder, fold, study.plan, study.signals, study.embedding, out,
        **arguments)  # fmt: skip
    return out


def accuracy(study, out):
    dataset, embedding = store.open_store(out), store.open_store(study.embedding)
    ids = [str(s) for s in embedding["stimulus"].values]
    normalizer = store.open_store(out, "normalizer")
    candidates = (embedding["embedding"].values - normalizer["mean"].values) / normalizer[
        "scale"
    ].values
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    best = (unit(dataset["prediction"].values) @ unit(candidates).T).argmax(1)
    return np.mean([ids[b] == s for b, s in zip(best, dataset["stimulus"].values)])


@pytest.mark.parametrize("decoder", ["ridge", "logistic", "mlp", "conv"])
def test_planted_patterns_are_found(make_study, decoder):
    study = make_study(snr=1.5)
    sec = section(epochs=40)
    scores = [
        accuracy(study, predict(study, decoder, fold, f"{decoder}{fold}", sec)) for fold in (0, 1)
    ]
    assert np.mean(scores) > 0.6


def test_store_says_what_was_done(make_study):
    study = make_study()
    sec = section(windows=WindowSection(reduce="mean", delay="estimate"), select=True)
    out = predict(study, sec=sec, target="object")
    dataset = store.open_store(out)
    attrs = dataset.attrs
    test = study.plan.events.iloc[study.plan.rows(0, "test")]
    assert dataset["event"].values.tolist() == test["event"].tolist()
    assert dataset["stimulus"].values.tolist() == test["stimulus_object"].tolist()
    assert attrs["fit_scope"] == study.plan.scope(0).hash()
    assert attrs["fold"] == "sub-01_run-0" and attrs["subject"] == "01"
    assert (attrs["n_train"], attrs["n_validation"], attrs["n_test"]) == (24, 0, 8)
    assert attrs["data_origin"] == "simulated"
    assert attrs["hyper"]["alpha"] in sec.alphas
    assert 0 <= attrs["inner_score"] <= 1
    assert store.read_table(out, "delay")["delay"].tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert store.read_table(out, "penalties")["penalty"].tolist() == sorted(sec.alphas)
    pattern = store.open_store(out, "pattern")
    assert pattern["pattern"].dims == ("component", "sensor")
    assert sorted(pattern["component"].values) == ["cat", "chair", "face", "house"]
    assert store.verify_store(out) == []


def test_network_writes_its_log_and_a_checkpoint_that_predicts_the_same(make_study):
    study = make_study(validation=True)
    out = predict(study, "mlp")
    log = store.read_table(out, "log")
    assert log["epoch"].tolist() == list(range(1, len(log) + 1))
    assert log["validation_loss"].notna().all()
    model = load_decoder(functools.partial(store.read_file, out))
    data = read_fold(study.plan, 0, "object", section().windows, study.signals)
    again = model.predict(data.read(data.test))
    assert np.array_equal(again, store.open_store(out)["prediction"].values)


@pytest.mark.parametrize("decoder", ["ridge", "mlp", "conv"])
def test_f46_equal_work_gives_equal_bytes(make_study, decoder):
    study = make_study()
    one, two = predict(study, decoder, name="one"), predict(study, decoder, name="two")
    assert store.store_hash(one) == store.store_hash(two)


def test_augmentation_of_the_recipe_reaches_training_windows_alone(make_study):
    study = make_study(validation=True)
    windows = WindowSection(tmax=8.0, reduce="mean")
    found = {}
    for name, augment in (("plain", {}), ("shift", {"shift_s": 4.0}), ("noise", {"noise": 0.5})):
        sec = section(windows=windows, augment=AugmentSection(**augment), epochs=3, lr=1e-4)
        out = predict(study, "conv", name=name, sec=sec)
        found[name] = store.read_table(out, "log")
        predict(study, "conv", name="again", sec=sec)
        assert store.store_hash(out) == store.store_hash(study.folder / "again.zarr")
    losses = [tuple(log["train_loss"]) for log in found.values()]
    assert len(set(losses)) == 3
    with pytest.raises(ModelError, match="augment.channel_dropout"):
        BrainDecoder("conv", augment={"channel_dropout": 1.5}).fit(np.zeros((4, 2, 3)), np.eye(4))


@pytest.mark.parametrize("decoder", ["ridge", "logistic", "mlp", "conv"])
def test_f36_test_run_moves_nothing_that_is_fitted(make_study, decoder):
    study, spoiled = make_study(), make_study(folder="spoiled")
    name = "sub-01_run-0"
    rng = np.random.default_rng(7)
    data = 50 * rng.normal(size=study.data[name].shape)
    dataset = store.open_store(spoiled.signals[name])
    sensors = sensor_coords(
        [str(s) for s in dataset["sensor"].values], "voxel", "a.u.", dataset["position"].values
    )
    replaced = signal_dataset(data.astype(np.float32), sensors, dataset["time"].values,
                              {"data_origin": "simulated", "sfreq": 0.5})  # fmt: skip
    store.write_store(spoiled.signals[name], {"": replaced})
    sec = section(windows=WindowSection(reduce="mean", delay="estimate"), select=True, epochs=3)
    one, two = predict(study, decoder, sec=sec), predict(spoiled, decoder, sec=sec)
    for file in ("model.safetensors", "model.json"):
        assert store.read_file(one, file) == store.read_file(two, file)
    assert store.open_store(one).attrs["inner_score"] == store.open_store(two).attrs["inner_score"]
    first, second = (store.open_store(p)["prediction"].values for p in (one, two))
    assert not np.array_equal(first, second)


def test_delay_is_estimated_from_training_events(make_study):
    study = make_study(delay=4.0, snr=2.0)
    sec = section(windows=WindowSection(reduce="mean", delay="estimate"))
    out = predict(study, sec=sec)
    assert store.open_store(out).attrs["delay_s"] == 4.0
    assert accuracy(study, out) >= accuracy(study, predict(study, name="none"))


@pytest.mark.parametrize("kind", ["none", "center", "zscore"])
def test_targets_are_normalised_by_the_training_stimuli(make_study, kind):
    study = make_study(n_features=7, snr=1.5)
    out = predict(study, normalize=kind)
    values = store.open_store(study.embedding)["embedding"].values.astype(np.float64)
    normalizer = store.open_store(out, "normalizer")
    mean = np.zeros(7) if kind == "none" else values.mean(0)
    scale = values.std(0) if kind == "zscore" else np.ones(7)
    assert normalizer["mean"].values == pytest.approx(mean)
    assert normalizer["scale"].values == pytest.approx(scale)
    assert accuracy(study, out) > 0.6


def test_whitened_targets_are_predicted_in_their_components(make_study):
    study = make_study(n_features=7, snr=1.5)
    out = predict(study, normalize="whiten", components=2)
    assert store.open_store(out)["prediction"].shape[1] == 2
    fitted = Normalizer.from_dataset(store.open_store(out, "normalizer"))
    values = store.open_store(study.embedding)["embedding"].values.astype(np.float64)
    white = fitted(values)
    np.testing.assert_allclose(white.T @ white / 4, np.eye(2), atol=1e-6)


@pytest.mark.parametrize(
    ("decoder", "seen"),
    [("mlp", ["id-face", "id-house"]), ("ridge", ["id-chair", "id-face", "id-house"])],
)
def test_f36_the_normaliser_sees_stimuli_of_fitted_events_alone(make_study, decoder, seen):
    """Stimuli that only the test shows may change as they like, and for networks those that only
    validation shows: linear decoders train on it."""
    study = make_study(n_features=7, snr=1.5, validation=True)
    role, shown = study.plan.role[0], study.plan.events["stimulus_object"].to_numpy()
    for name, stimulus in (("test", "id-cat"), ("validation", "id-chair")):
        role[(shown == stimulus) & (role != ROLES[name])] = ROLES["unused"]
    assert {ROLES["test"], ROLES["validation"], ROLES["train"]} <= set(role)
    fitted = []
    for k in range(2):
        out = predict(study, decoder, normalize="whiten", name=f"out{k}")
        fitted.append(store.open_store(out, "normalizer"))
        dataset = store.open_store(study.embedding).load()
        values = dataset["embedding"].values.copy()
        values[[0] if decoder == "ridge" else [0, 1]] = 100 + k
        attrs = {"data_origin": "simulated", "target": "object"}
        ids = [str(s) for s in dataset["stimulus"].values]
        store.write_store(study.embedding, {"": embedding_dataset(values, ids, attrs)})
    assert [str(s) for s in fitted[0]["stimulus"].values] == seen
    for name in ("mean", "scale", "components"):
        np.testing.assert_array_equal(fitted[0][name].values, fitted[1][name].values)


@pytest.mark.parametrize("decoder", ["ridge", "logistic"])
def test_linear_decoders_without_a_signal_do_not_answer_the_same_to_all(make_study, decoder):
    """What predictions share is no larger than what tells them apart: no answer by default."""
    study = make_study(snr=0.0, n_runs=6, n_sensors=40, n_features=7, validation=True)
    role, shown = study.plan.role[0], study.plan.events["stimulus_object"].to_numpy()
    role[(shown == "id-chair") & (role == ROLES["train"])] = ROLES["validation"]
    out = predict(study, decoder, normalize="center", sec=section(alphas=[1e5]))
    values = store.open_store(out)["prediction"].values
    shared = np.linalg.norm(values.mean(0))
    assert shared < 0.5 * np.linalg.norm(values - values.mean(0), axis=1).mean()


def test_embeddings_with_steps_are_not_whitened(make_study):
    study = make_study(snr=1.5)
    ids = [str(s) for s in store.open_store(study.embedding)["stimulus"].values]
    values = np.random.default_rng(0).normal(size=(4, 3, 5))
    attrs = {"data_origin": "simulated", "target": "object"}
    dataset = embedding_dataset(values, ids, attrs, step_times=np.arange(3) * 0.1)
    store.write_store(study.embedding, {"": dataset})
    with pytest.raises(DataError, match="an embedding with steps cannot be whitened"):
        predict(study, normalize="whiten")


def test_normalizer_keeps_features_that_do_not_vary():
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    fitted = Normalizer.fit("zscore", values)
    assert fitted.scale.tolist() == [1.0, 1.0] and fitted(values)[:, 1].tolist() == [0.0, 0.0]


def test_embedding_with_steps_is_predicted_step_by_step(make_study):
    study = make_study(snr=1.5)
    values = np.random.default_rng(0).normal(size=(4, 3, 5))
    ids = [str(s) for s in store.open_store(study.embedding)["stimulus"].values]
    attrs = {"data_origin": "simulated", "target": "object"}
    dataset = embedding_dataset(values, ids, attrs, step_times=np.arange(3) * 0.1)
    store.write_store(study.embedding, {"": dataset})
    for decoder in ("ridge", "conv"):
        prediction = store.open_store(predict(study, decoder, name=decoder))
        assert prediction["prediction"].shape == (8, 15)
        assert prediction.attrs["n_steps"] == 3


def test_pooled_people_with_other_sensors_need_conv(make_study):
    study = make_study(subjects=("01", "02"))
    role = np.where(study.plan.role[0] == 0, ROLES["train"], study.plan.role[0]).astype(np.int8)
    other = make_study(subjects=("02",), n_sensors=20, folder="other")
    for name, path in other.signals.items():
        study.signals[name] = path
    study.plan.role[0] = role
    with pytest.raises(DataError, match="same sensors in all people[\\s\\S]*conv"):
        predict(study)
    assert store.open_store(predict(study, "conv")).attrs["n_train"] == 24 + 32


def test_event_in_training_and_test_is_a_leak(make_study):
    study = make_study()
    events = study.plan.events
    events.loc[study.plan.rows(0, "train")[0], "event"] = events["event"].iloc[
        study.plan.rows(0, "test")[0]
    ]
    with pytest.raises(LeakageError, match="saw items of the test set[\\s\\S]*sub-01_run-0:00000"):
        predict(study)


def test_stimulus_without_embedding_is_named(make_study):
    study = make_study()
    study.plan.events.loc[3, "stimulus_object"] = "id-dragon"
    study.plan.events.loc[20, "stimulus_object"] = "id-dragon"
    with pytest.raises(StimulusError, match="without embedding[\\s\\S]*id-dragon"):
        predict(study)


def test_no_usable_test_window_is_named(make_study):
    study = make_study()
    test = study.plan.rows(0, "test")
    study.plan.events.loc[test, "onset"] = 1e6
    with pytest.raises(SplitError, match="no usable test window in fold sub-01_run-0"):
        predict(study)


def test_unknown_target_is_named(make_study):
    with pytest.raises(DataError, match="no such target[\\s\\S]*expected: object"):
        predict(make_study(), target="word")


def test_dropped_events_are_counted(make_study):
    study = make_study()
    study.plan.events.loc[study.plan.rows(0, "train")[:3], "onset"] = 1e6
    attrs = store.open_store(predict(study)).attrs
    assert attrs["dropped"] == {"window leaves the recording": 3}
    assert attrs["n_train"] == 21


def test_signals_stay_open_until_the_store_changes(make_study):
    study = make_study()
    name = "sub-01_run-1"
    first = open_signals(study.signals, [name, name, "missing"])
    assert list(first) == [name]
    assert open_signals(study.signals, [name])[name] is first[name]
    before = first[name].read(0, 5)
    other = make_study(seed=5, folder="study")
    assert not np.array_equal(open_signals(other.signals, [name])[name].read(0, 5), before)
