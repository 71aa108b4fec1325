"""Noise in place of the test windows: its moments, and that a fold's store holds what it gives."""

import numpy as np
import pytest

from braindecode_pipe import store
from braindecode_pipe.recipe import TrainSection, WindowSection
from braindecode_pipe.train import run
from braindecode_pipe.train.folds import read_fold
from braindecode_pipe.train.noise import noise_predictions


class Listener:
    """Keeps what it is given to predict from."""

    def __init__(self):
        self.windows, self.people = [], []

    def predict(self, X, subjects):
        self.windows.append(X)
        self.people.append(subjects)
        return np.zeros((len(X), 1), np.float32)


def fold_of(study, windows):
    return read_fold(study.plan, 0, "object", windows, study.signals)


def test_noise_has_the_moments_of_the_training_windows(make_study):
    study = make_study(n_runs=6, subjects=("01", "02"))
    data = fold_of(study, WindowSection(tmax=12.0))
    shown = np.asarray(data.read(data.fit), float)
    heard = Listener()
    found = [noise_predictions(heard, data, 0) for _ in range(2)]
    assert all(f.shape == (len(data.test), 1) for f in found)
    noise = np.concatenate(heard.windows)
    assert noise.shape[1:] == shown.shape[1:]
    np.testing.assert_array_equal(heard.people[0], data.windows.subject_index(data.test))
    # The same seed: the same noise.
    np.testing.assert_array_equal(heard.windows[0], heard.windows[-1])
    one = heard.windows[0]
    n = one.shape[0] * one.shape[2]
    mean, spread = shown.mean((0, 2)), shown.std((0, 2))
    assert np.abs((one.mean((0, 2)) - mean) / spread).max() < 4 / np.sqrt(n)
    assert np.abs(one.std((0, 2)) / spread - 1).max() < 4 / np.sqrt(2 * n)


def test_noise_in_blocks_is_the_same_noise(make_study, monkeypatch):
    data = fold_of(make_study(), WindowSection())
    whole, parts = Listener(), Listener()
    noise_predictions(whole, data, 3)
    monkeypatch.setattr("braindecode_pipe.train.noise._BLOCK_BYTES", 1)
    noise_predictions(parts, data, 3)
    assert len(parts.windows) == len(data.test) > len(whole.windows) == 1
    np.testing.assert_array_equal(np.concatenate(parts.windows), whole.windows[0])


@pytest.mark.parametrize("decoder", ["ridge", "conv"])
def test_stores_hold_what_a_decoder_makes_of_noise(make_study, decoder):
    study = make_study(snr=1.5, n_runs=3)
    section = TrainSection(windows=WindowSection(reduce="mean"), epochs=2)
    out = study.folder / "out.zarr"
    run(section, "object", decoder, 0, study.plan, study.signals, study.embedding, out)
    own, noise = store.open_store(out), store.open_store(out, "noise")
    assert list(noise["event"].values) == list(own["event"].values)
    assert noise["prediction"].shape == own["prediction"].shape
    assert np.isfinite(noise["prediction"].values).all()
    assert not np.allclose(noise["prediction"].values, own["prediction"].values)


def test_f43_stores_say_what_the_epoch_was_chosen_on(make_study):
    study = make_study(n_runs=4, validation=True)
    section = TrainSection(windows=WindowSection(reduce="mean"), epochs=2)
    scopes = {}
    for decoder in ("ridge", "mlp"):
        out = study.folder / f"{decoder}.zarr"
        run(section, "object", decoder, 0, study.plan, study.signals, study.embedding, out)
        scopes[decoder] = store.store_attrs(out)["selection_scope"]
    assert scopes["mlp"] == study.plan.scope(0, ("validation",)).hash()
    assert scopes["ridge"] == study.plan.scope(0).hash()
