"""The estimator: manners, planted relations, and input that it must refuse."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from braindecode_pipe.errors import DataError, ModelError, RecipeError
from braindecode_pipe.train.decoder import BrainDecoder, number_stimuli
from braindecode_pipe.train.saved import decoder_files, load_decoder
from braindecode_pipe.train.selection import identification_accuracy, inner_score
from braindecode_pipe.train.settings import DECODERS

CONV = {"n_virtual": 8, "hidden": 16, "depth": 2, "n_fourier": 32}
CONVOLUTIONS = {"kernel": 3, "pool": 3, "stride": 1, "width": 8}
NARROW = {
    "conv": CONV,
    "conv-image": {**CONV, "n_backbone": 16},
    "mixer": {"hidden": 32, "depth": 1},
    "nice": {**CONVOLUTIONS, "dropout": 0.1},
    "atm": {**CONVOLUTIONS, "conv_dropout": 0.1, "n_heads": 2, "feedforward": 16},
    "eegnet": {"kernel": 3, "pools": [2, 2], "dropout": 0.1},
    "mlp": {"hidden": 32, "dropout": 0.1, "input_dropout": 0.0},
}


def planted(n=120, n_stimuli=6, n_features=5, seed=0, snr=2.0, n_times=8):
    """Windows (n, 7, n_times) that hold their stimulus' pattern, and embeddings."""
    fixed = np.random.default_rng(42)
    embeddings = fixed.normal(size=(n_stimuli, n_features))
    mixing = fixed.normal(size=(n_features, 7 * n_times)) / np.sqrt(n_features)
    rng = np.random.default_rng(seed)
    shown = np.arange(n) % n_stimuli
    x = snr * (embeddings @ mixing)[shown] + rng.normal(size=(n, 7 * n_times))
    return x.reshape(n, 7, n_times), embeddings[shown], shown, embeddings


def make(decoder, **settings):
    base = {"lr": 1e-2, "epochs": 25, "batch_size": 32, "network": NARROW.get(decoder)}
    return BrainDecoder(decoder, **{**base, **settings})


@pytest.mark.parametrize("decoder", DECODERS)
def test_planted_relation_is_found_and_broken_one_is_not(decoder):
    x, y, shown, candidates = planted()
    fresh, _, truth, _ = planted(60, seed=1)
    model = make(decoder).fit(x, y, np.arange(120) // 12)
    predictions = model.predict(fresh)
    assert predictions.shape == (60, 5) and predictions.dtype == np.float32
    assert identification_accuracy(predictions, candidates, truth) > 0.7
    assert (predictions.retrieve(candidates, k=1)[:, 0] == truth).mean() > 0.7
    assert model.score(fresh, candidates[truth]) > 0.7
    permuted = np.random.default_rng(3).permutation(120)
    broken = make(decoder).fit(x, y[permuted])
    assert identification_accuracy(broken.predict(fresh), candidates, truth) < 0.5


@pytest.mark.parametrize("decoder", DECODERS)
def test_same_seed_same_bytes_and_checkpoint_round_trip(decoder):
    x, y, _, _ = planted(60)
    model = make(decoder, epochs=3).fit(x, y)
    files = decoder_files(model)
    assert decoder_files(clone(model).fit(x, y)) == files
    loaded = load_decoder(files.__getitem__)
    assert np.array_equal(loaded.predict(x), model.predict(x))
    assert loaded.get_params()["decoder"] == decoder


def test_other_seed_other_network():
    x, y, _, _ = planted(60)
    files = [decoder_files(make("conv", epochs=2, seed=s).fit(x, y)) for s in (0, 1)]
    assert files[0]["model.safetensors"] != files[1]["model.safetensors"]


def test_scikit_learn_manners():
    model = BrainDecoder("mlp", network={"hidden": 8}, lr=0.1)
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(lr=0.2).lr == 0.2
    with pytest.raises(NotFittedError):
        model.predict(np.ones((2, 3, 4)))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_unit_of_the_signal_does_not_matter(decoder, scale):
    x, y, _, _ = planted(60)
    one = make(decoder, epochs=2).fit(x, y).predict(x)
    two = make(decoder, epochs=2).fit(x * scale, y).predict(x * scale)
    assert two == pytest.approx(one, abs=1e-3)


def test_f36_validation_and_test_rows_move_no_scaling_of_networks():
    x, y, _, _ = planted(60)
    held = np.arange(60) >= 48
    spoiled = x.copy()
    spoiled[held] *= 100
    for decoder in ("mlp", "conv"):
        one = make(decoder, epochs=2).fit(x, y, validation=held)
        two = make(decoder, epochs=2).fit(spoiled, y, validation=held)
        assert np.array_equal(one.mean_, two.mean_) and np.array_equal(one.scale_, two.scale_)


def test_validation_rows_stop_networks_and_train_linear_decoders():
    x, y, _, _ = planted(60)
    held = np.arange(60) >= 48
    model = make("mlp", epochs=6).fit(x, y, validation=held)
    assert np.isfinite(model.log_[0]["validation_loss"])
    assert model.hyper_["epoch"] == 1 + int(np.argmin([r["validation_loss"] for r in model.log_]))
    ridge = make("ridge").fit(x, y, validation=held)
    assert np.array_equal(ridge.predict(x), make("ridge").fit(x, y).predict(x))


def test_conv_scales_each_person_apart_and_masks_missing_sensors():
    x, y, _, _ = planted(60)
    who = np.arange(60) % 2
    other = x.copy()
    other[who == 1] = 1000 * other[who == 1] + 5
    masks = np.ones((2, 7), bool)
    masks[1, 5:] = False
    other[who == 1, 5:] = 0
    positions = np.random.default_rng(0).uniform(size=(2, 7, 2))
    layout = {"subjects": who, "positions": positions, "masks": masks}
    model = make("conv", epochs=2).fit(other, y, **layout)
    rows = np.flatnonzero(who == 1)
    noisy = other[rows].copy()
    noisy[:, 5:] = 1e9
    assert np.array_equal(model.predict(noisy, who[rows]), model.predict(other[rows], who[rows]))
    assert model.scale_[1, :5] == pytest.approx(
        other[rows][:, :5].std((0, 2), dtype=float)[:, None], rel=1e-6
    )


def test_steps_of_the_target_come_back_in_their_order():
    x, _, shown, _ = planted(60)
    steps = np.random.default_rng(5).normal(size=(6, 3, 4))  # stimulus, step, feature
    y = steps.reshape(6, -1)[shown]
    model = make("conv", n_steps=3, loss="mse", epochs=80).fit(x, y)
    found = model.predict(x).reshape(60, 3, 4)
    error = ((found - steps[shown]) ** 2).mean()
    assert error < 0.6 * ((steps[shown] - steps.mean(0)) ** 2).mean()
    swapped = ((found[:, ::-1] - steps[shown]) ** 2).mean()
    assert error < 0.6 * swapped


def test_logistic_predicts_embeddings_weighted_by_probability():
    x, y, shown, candidates = planted(60, snr=0.5)
    one_hot = make("logistic").fit(x, np.eye(6)[shown], np.arange(60) // 6).predict(x)
    assert one_hot.sum(1) == pytest.approx(np.ones(60), abs=1e-5)
    mapped = make("logistic").fit(x, y, np.arange(60) // 6).predict(x)
    assert mapped == pytest.approx(one_hot @ candidates, abs=1e-4)


def test_inner_score_is_the_mean_of_refits_and_sees_no_group_twice():
    x, y, shown, candidates = planted(48, snr=0.6)
    groups, none = np.repeat(np.arange(4), 12), np.zeros(48, bool)
    found = inner_score(make("ridge"), x, y, groups, shown, none)
    hits = []
    for g in range(4):
        own = groups == g
        p = make("ridge").fit(x[~own], y[~own], groups[~own]).predict(x[own])
        hits.append(identification_accuracy(p, candidates, shown[own]))
    assert found == pytest.approx(np.mean(hits))
    # Groups that agree on a wrong labelling within themselves cannot be predicted from others.
    rng = np.random.default_rng(0)
    chance = [
        inner_score(make("ridge"), rng.normal(size=x.shape), y, groups, shown, none)
        for _ in range(10)
    ]
    assert abs(np.mean(chance) - 1 / 6) < 0.06


def test_inner_score_leaves_no_validation_row_out():
    x, y, shown, _ = planted(48)
    seen = []

    class Spy(BrainDecoder):
        def fit(self, X, Y, groups=None, **rest):
            seen.append(int(rest["validation"].sum()))
            return super().fit(X, Y, groups, **rest)

    held = np.arange(48) >= 36
    inner_score(Spy("ridge"), x, y, np.repeat(np.arange(4), 12), shown, held)
    assert seen == [12, 12, 12]


def test_ties_count_as_chance():
    candidates = np.eye(4)
    assert identification_accuracy(np.ones((8, 4)), candidates, np.arange(8) % 4) == 0.25
    assert identification_accuracy(np.zeros((8, 4)), candidates, np.arange(8) % 4) == 0.25


def test_stimuli_are_numbered_by_value():
    first, number = number_stimuli(np.array(["b", "a", "b"], object))
    assert first.tolist() == [1, 0] and number.tolist() == [1, 0, 1]
    assert number_stimuli(np.array([[1.0, 2], [0, 1], [1, 2]]))[1].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"decoder": "forest"}, ModelError, "unknown decoder"),
        ({"y": np.ones((4, 2))}, DataError, "do not fit together"),
        ({"y": np.full((60, 2), np.nan)}, DataError, "not finite[\\s\\S]*60 rows"),
        ({"n_steps": 2}, DataError, "divided into steps"),
        (
            {"decoder": "mlp", "network": {"hiden": 3}},
            RecipeError,
            "unknown setting[\\s\\S]*hidden",
        ),
        ({"decoder": "mlp", "network": {"n_out": 3}}, RecipeError, "unknown setting"),
    ],
)
def test_refuses(change, error, message):
    x, y, _, _ = planted(60)
    y = change.pop("y", y)
    with pytest.raises(error, match=message):
        BrainDecoder(**change).fit(x, y)


def test_refuses_windows_of_another_shape():
    x, y, _, _ = planted(60)
    with pytest.raises(DataError, match="another shape"):
        make("ridge").fit(x, y).predict(x[:, :3])
