"""BrainDecoder in scikit-learn's manners: cross-validation, Windows, saving and loading."""

import json

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, cross_val_predict, cross_validate

from braindecode_pipe import BrainDecoder
from braindecode_pipe.errors import DataError, MissingFileError, ModelError, PositionError
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import WindowSection
from braindecode_pipe.train.decoder import Estimates
from braindecode_pipe.train.folds import open_signals
from braindecode_pipe.train.selection import identification_accuracy

WINDOW = WindowSection(tmax=10.0)
CONV = {"n_virtual": 6, "hidden": 8, "depth": 2, "n_fourier": 32}


def conv(**settings):
    return BrainDecoder("conv", **{"network": CONV, "epochs": 2, "lr": 1e-2, **settings})


def planted(n=72, n_stimuli=6, seed=0):
    fixed = np.random.default_rng(42)
    embeddings, mixing = fixed.normal(size=(n_stimuli, 5)), fixed.normal(size=(5, 7 * 8))
    shown = np.arange(n) % n_stimuli
    noise = np.random.default_rng(seed).normal(size=(n, 7 * 8))
    x = (embeddings @ mixing)[shown] + noise
    return x.reshape(n, 7, 8), embeddings[shown], np.arange(n) // 12


def study_windows(study, fold=0, **changes):
    events = study.plan.events.iloc[study.plan.rows(fold, "train")]
    window = WINDOW.model_copy(update=changes)
    return Windows(open_signals(study.signals, events["recording"]), events, window)


def embeddings_of(windows):
    labels = sorted(set(windows.events["stimulus_object"]))
    return np.eye(4)[[labels.index(s) for s in windows.events["stimulus_object"]]]


@pytest.mark.parametrize("model", [BrainDecoder("ridge"), conv(), BrainDecoder("mixer", epochs=2)])
def test_cross_validate_with_groups_is_fit_and_score_by_hand(model):
    x, y, groups = planted()
    cv = GroupKFold(3)
    found = cross_validate(model, x, y, groups=groups, cv=cv, return_indices=True)
    for k, test in enumerate(found["indices"]["test"]):
        train = found["indices"]["train"][k]
        assert not set(groups[train]) & set(groups[test])
        one = clone(model).fit(x[train], y[train])
        assert found["test_score"][k] == one.score(x[test], y[test])
    assert not hasattr(model, "mean_")


def test_groups_reach_fit_through_scikit_learns_metadata():
    x, y, groups = planted()
    seen = []

    class Spy(BrainDecoder):
        def fit(self, X, Y, groups=None, *, subjects=None):
            seen.append((groups, subjects))
            return super().fit(X, Y, groups, subjects=subjects)

    who = np.arange(72) % 2
    with sklearn.config_context(enable_metadata_routing=True):
        model = Spy("ridge").set_fit_request(groups=True, subjects=True)
        model = model.set_score_request(subjects=True)
        cross_validate(model, x, y, cv=GroupKFold(3), params={"groups": groups, "subjects": who},
                       error_score="raise")  # fmt: skip
    assert len(seen) == 3
    assert all(len(g) == len(s) == 48 and len(set(g)) == 4 for g, s in seen)


def test_cross_val_predict_and_views_that_read_when_indexed(make_study):
    windows = study_windows(make_study(snr=2.0, n_runs=5))
    y, groups = embeddings_of(windows), windows.events["group"].to_numpy()
    view = windows.view(windows.rows())
    found = cross_val_predict(BrainDecoder("ridge"), view, y, groups=groups, cv=GroupKFold(4))
    assert found.shape == y.shape
    assert np.mean(found.argmax(1) == y.argmax(1)) > 0.6


def test_predictions_can_be_looked_up_and_are_an_array():
    x, y, _ = planted()
    found = BrainDecoder("ridge").fit(x, y).predict(x)
    assert isinstance(found, Estimates) and found.dtype == np.float32
    candidates = y[:6]
    nearest = found.retrieve(candidates, k=3)
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    scores = unit(np.asarray(found, float)) @ unit(candidates).T
    assert nearest.shape == (72, 3)
    assert np.array_equal(nearest[:, 0], scores.argmax(1))
    assert np.array_equal(nearest, np.argsort(-scores, 1, kind="stable")[:, :3])


def test_score_among_one_candidate_says_nothing():
    x, y, _ = planted()
    model = BrainDecoder("ridge").fit(x, y)
    with pytest.raises(DataError, match="nothing to choose from"):
        model.score(x[:1], y[:1])


def test_parameters_survive_clone_and_a_fit():
    model = BrainDecoder("conv", network=CONV, loss="siglip", schedule="cosine", warmup=0.1)
    twin = clone(model)
    assert twin.get_params() == model.get_params() and twin is not model
    x, y, _ = planted()
    before = dict(model.get_params())
    model.set_params(epochs=1).fit(x, y)
    assert model.get_params() == {**before, "epochs": 1}
    assert "_" not in before


@pytest.mark.parametrize("decoder", ["ridge", "mlp", "mixer", "conv"])
def test_windows_bring_people_sensors_and_validity_along(make_study, decoder):
    study = make_study(subjects=("01", "02"), snr=1.0)
    role = study.plan.role[0]
    role[role == 0] = 1
    study.plan.events.loc[10, "onset"] = 1e6
    windows = study_windows(study)
    y = embeddings_of(windows)
    rows = windows.rows()
    assert len(rows) == len(windows) - 1
    model = BrainDecoder(decoder, network=CONV if decoder == "conv" else None, epochs=2)
    by_windows = clone(model).fit(windows, y)
    by_arrays = clone(model).fit(
        windows.read(rows), y[rows], subjects=windows.subject_index(rows),
        positions=windows.positions, masks=windows.masks,
    )  # fmt: skip
    expected = by_arrays.predict(windows.read(rows), windows.subject_index(rows))
    assert np.array_equal(by_windows.predict(windows), expected)
    assert by_windows.score(windows, y) == identification_accuracy(expected, np.eye(4),
                                                                   y[rows].argmax(1))  # fmt: skip
    assert list(by_windows.people_) == ["01", "02"]
    # The second person alone is person number 0 of its own windows, and 1 of the fit.
    events = windows.events[windows.events["subject"] == "02"]
    alone = Windows(open_signals(study.signals, events["recording"]), events, WINDOW)
    second = windows.subject_index(rows) == 1
    assert np.allclose(by_windows.predict(alone), expected[second], atol=1e-6)


def test_people_of_windows_are_known_by_name_and_by_sensors(make_study):
    study, other = make_study(), make_study(subjects=("07",), folder="other")
    fewer = make_study(n_sensors=20, folder="fewer")
    windows = study_windows(study)
    model = conv().fit(windows, embeddings_of(windows))
    with pytest.raises(DataError, match="somebody whom the decoder was not fitted on[\\s\\S]*07"):
        model.predict(study_windows(other))
    with pytest.raises(DataError, match="other sensors than in the fit[\\s\\S]*20 sensors"):
        model.predict(study_windows(fewer))
    ridge = BrainDecoder("ridge").fit(windows, embeddings_of(windows))
    assert ridge.predict(study_windows(other)).shape == (24, 4)
    x, y, _ = planted()
    with pytest.raises(DataError, match="knows no names of people"):
        conv().fit(x, y).predict(windows)


def test_rows_of_windows_and_of_embeddings_must_agree(make_study):
    windows = study_windows(make_study())
    with pytest.raises(DataError, match="24 events"):
        BrainDecoder("ridge").fit(windows, np.eye(4))


def test_people_with_other_sensors_than_the_widest_are_predicted(make_study):
    one, two = make_study(), make_study(subjects=("02",), n_sensors=20, folder="two")
    events = [s.plan.events.iloc[s.plan.rows(0, "train")] for s in (one, two)]
    import pandas as pd

    signals = open_signals({**one.signals, **two.signals}, sum((list(e["recording"]) for e in
                                                               events), []))  # fmt: skip
    both = Windows(signals, pd.concat(events, ignore_index=True), WINDOW)
    y = embeddings_of(both)
    for model in (conv(), BrainDecoder("mixer", epochs=2)):
        model.fit(both, y)
        alone = study_windows(two)
        assert alone.shape[0] < model.shape_[0]
        rows = both.subject_index(both.rows()) == 1
        assert np.allclose(model.predict(alone), model.predict(both)[rows], atol=1e-5)
    with pytest.raises(DataError, match="same sensors"):
        BrainDecoder("ridge").fit(both, y)


def test_layout_in_space_takes_three_axes_and_refuses_what_is_no_head(make_study):
    windows = study_windows(make_study())
    with pytest.raises(PositionError, match="cube that a head fills"):
        conv(layout="space").fit(windows, embeddings_of(windows))
    for table in windows.sensors.values():
        table[["x", "y", "z"]] /= 100
    network = {k: v for k, v in CONV.items() if k != "n_fourier"}
    model = conv(layout="space", network=network).fit(windows, embeddings_of(windows))
    assert model.positions_.shape[2] == 3 and model.arguments_["n_fourier"] == 2000
    plane = conv(network=network).fit(windows, embeddings_of(windows))
    assert plane.positions_.shape[2] == 2
    assert not np.array_equal(plane.predict(windows), model.predict(windows))


@pytest.mark.parametrize("decoder", ["ridge", "logistic", "conv", "mixer"])
def test_saved_decoder_predicts_the_same(make_study, tmp_path, decoder):
    windows = study_windows(make_study())
    model = BrainDecoder(decoder, network=CONV if decoder == "conv" else None, epochs=2)
    model.set_params(alphas=np.array([1.0, 10.0]), seed=np.int64(3)).fit(
        windows, embeddings_of(windows)
    )
    with pytest.raises(NotFittedError):
        clone(model).save_pretrained(tmp_path / "none")
    folder = tmp_path / "deep" / "saved"
    model.save_pretrained(folder)
    model.save_pretrained(folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json", "model.json", "model.safetensors",
    ]  # fmt: skip
    loaded = BrainDecoder.from_pretrained(folder)
    assert np.array_equal(loaded.predict(windows), model.predict(windows))
    assert loaded.get_params() == {**model.get_params(), "alphas": [1.0, 10.0]}
    card = json.loads((folder / "card.json").read_text())
    assert card["decoder"] == decoder and card["people"] == ["01"]
    for path in folder.iterdir():
        assert not path.read_bytes().startswith((b"\x80\x04", b"\x80\x05", b"PK"))


def damage_byte(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def other_settings(folder):
    """A folder whose card fits, with settings of no decoder."""
    from hashlib import sha256

    (folder / "model.json").write_text('{"decoder": {"decoder": "ridge", "colour": 3}}')
    card = json.loads((folder / "card.json").read_text())
    card["sha256"]["model.json"] = sha256((folder / "model.json").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "model.json").unlink(), MissingFileError, "no model.json"),
        (lambda f: (f / "card.json").unlink(), MissingFileError, "no card.json"),
        (damage_byte, ModelError, "not as it was written[\\s\\S]*model.safetensors"),
        (lambda f: (f / "model.json").write_text("{"), ModelError, "others in model.json"),
        (lambda f: (f / "card.json").write_text("[]"), ModelError, "others in card.json"),
        (other_settings, ModelError, "no checkpoint of a decoder[\\s\\S]*colour"),
    ],
)
def test_damaged_folders_are_one_clear_error(tmp_path, damage, error, message):
    x, y, _ = planted()
    BrainDecoder("ridge").fit(x, y).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        BrainDecoder.from_pretrained(tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="no such folder"):
        BrainDecoder.from_pretrained(tmp_path / "nowhere")
