"""Building networks from data and recipe, what they are fed with, and what they are refused."""

import numpy as np
import pytest
import torch

from braindecode_pipe.errors import DataError, ModelError, RecipeError
from braindecode_pipe.train import networks
from braindecode_pipe.train.decoder import BrainDecoder
from braindecode_pipe.train.moments import input_moments
from braindecode_pipe.train.networks import Sizes, build, join_steps, split_steps

SMALL = {"n_virtual": 8, "hidden": 16, "depth": 2, "n_fourier": 32}
NARROW = {
    "mlp": {"hidden": 8},
    "mixer": {"hidden": 8, "depth": 1},
    "conv": SMALL,
    "conv-image": {**SMALL, "n_backbone": 16},
    "nice": {"width": 4},
    "atm": {"width": 4},
    "eegnet": {},
}


def sizes(n_sensors=6, n_times=100, n_out=5, n_steps=1, n_subjects=2, **changes):
    masks = changes.pop("masks", np.ones((n_subjects, n_sensors), bool))
    return Sizes(n_sensors, n_times, n_out, n_steps, masks, **changes)


def people(counts, n=24, n_times=20, seed=0, n_axes=2):
    """Windows of people with ``counts`` sensors, padded, with all that belongs to them."""
    rng = np.random.default_rng(seed)
    width = max(counts)
    who = np.arange(n) % len(counts)
    masks = np.arange(width) < np.array(counts)[:, None]
    positions = rng.uniform(size=(len(counts), width, n_axes)).astype(np.float32)
    positions[~masks] = np.nan
    x = rng.normal(size=(n, width, n_times)) * masks[who][..., None]
    y = rng.normal(size=(n // 2, 5))[np.arange(n) // 2]
    return x, y, {"subjects": who, "positions": positions, "masks": masks}


@pytest.mark.parametrize("kind", networks.NETWORKS)
def test_every_network_is_built_from_data_and_recipe(kind):
    network, arguments = build(kind, sizes(), NARROW[kind], seed=0)
    assert arguments.items() >= NARROW[kind].items()
    assert type(network) is networks.NETWORKS[kind]
    again, _ = build(kind, sizes(), NARROW[kind], seed=0)
    other, _ = build(kind, sizes(), NARROW[kind], seed=1)
    state = [torch.cat([v.flatten().double() for v in n.state_dict().values()])
             for n in (network, again, other)]  # fmt: skip
    assert torch.equal(state[0], state[1]) and not torch.equal(state[0], state[2])


@pytest.mark.parametrize("kind", networks.NETWORKS)
@pytest.mark.parametrize("wrong", [{"n_out": 3}, {"n_sensors": 9}, {"widthh": 4}])
def test_settings_that_no_constructor_has_name_the_section(kind, wrong):
    with pytest.raises(RecipeError, match=rf"unknown setting[\s\S]*\[train.network.{kind}\]"):
        build(kind, sizes(), wrong, seed=0)


@pytest.mark.parametrize(
    ("kind", "arguments", "change", "loss", "message"),
    [
        ("nice", {}, {"n_times": 60}, "clip", "too short"),
        ("conv", {"n_fourier": 30}, {}, "clip", "square number"),
        ("conv", {"n_fourier": 32}, {"n_axes": 3}, "clip", "cube number"),
        ("conv", {"hidden": "wide"}, {}, "clip", "cannot be built"),
        ("conv", {**SMALL, "pool": "none"}, {}, "clip", "something else than the target"),
        ("conv", {**SMALL, "pool": "mean"}, {"n_steps": 4}, "clip", "something else than the t"),
        ("conv-image", {**SMALL, "two_heads": True}, {}, "mse", "two_heads = false"),
        ("mlp", {"hidden": -3}, {}, "clip", "cannot be built"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_right_name_the_section(kind, arguments, change, loss, message):
    with pytest.raises(RecipeError, match=message) as caught:
        build(kind, sizes(**change), arguments, 0, loss)
    assert f"[train.network.{kind}]" in str(caught.value)


@pytest.mark.parametrize("kind", ["conv-image", "nice", "atm", "eegnet"])
def test_targets_with_steps_are_refused_by_networks_without(kind):
    with pytest.raises(RecipeError, match="one vector per window[\\s\\S]*4 steps"):
        build(kind, sizes(n_steps=4), NARROW[kind], 0)


@pytest.mark.parametrize("kind", ["conv", "mixer", "mlp"])
def test_targets_with_steps_come_back_in_their_order(kind):
    y = np.arange(2 * 12.0).reshape(2, 12)
    shaped = split_steps(kind, y, 4)
    if kind == "conv":
        assert shaped[1, 2, 3] == y[1, 3 * 3 + 2]  # step 3, feature 2
    assert np.array_equal(join_steps(kind, shaped), y)
    network, _ = build(kind, sizes(n_out=3, n_steps=4), NARROW[kind], 0)
    assert network.training


def test_paper_keeps_time_where_the_target_has_its_samples():
    network, arguments = build("conv", sizes(n_steps=100), {**SMALL, "pool": "none"}, 0)
    assert arguments["pool"] == "none" and network.pool.kind == "none"


def test_second_head_comes_with_its_loss_and_predictions_are_those_of_the_first():
    assert build("conv-image", sizes(), SMALL, 0, "clip")[0].regression is None
    x, y, _ = people([6])
    model = BrainDecoder("conv-image", network=NARROW["conv-image"], loss="clip+mse", epochs=1)
    found = model.fit(x, y).predict(x)
    assert model.two_heads and model.network_.regression is not None
    with torch.no_grad():
        heads = model.network_(*model._inputs(x, np.zeros(len(x), int))(np.arange(len(x))))
    assert heads.shape == (24, 2, 5)
    assert np.allclose(found, heads[:, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["conv", "conv-image"])
@pytest.mark.parametrize("n_axes", [2, 3])
def test_batch_mixes_montages_and_the_order_of_sensors_does_not_matter(kind, n_axes):
    x, y, layout = people([19, 64, 306], n_axes=n_axes)
    size = {**NARROW[kind], "n_fourier": 32 if n_axes == 2 else 54}
    model = BrainDecoder(kind, network=size, epochs=1, batch_size=12)
    model.fit(x, y, **layout)
    who = layout["subjects"]
    inputs = model._inputs(x, who)
    arguments = [a.double() if a.is_floating_point() else a for a in inputs(np.arange(24))]
    network = model.network_.double().eval()
    order = np.random.default_rng(1).permutation(306)
    moved = [arguments[0][:, order], arguments[1][:, order], arguments[2][:, order], arguments[3]]
    with torch.no_grad():
        expected, found = network(*arguments), network(*moved)
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() < 1e-6
    # What stands where a person has no sensor is not looked at.
    noisy = np.where(layout["masks"][who][..., None], x, 1e9)
    network.float()
    assert np.array_equal(model.predict(noisy, who), model.predict(x, who))


@pytest.mark.parametrize("kind", ["nice", "atm", "eegnet"])
def test_networks_with_fixed_sensors_name_the_remedy(kind):
    x, y, layout = people([5, 9], n_times=100)
    model = BrainDecoder(kind, network=NARROW[kind], epochs=1)
    with pytest.raises(DataError, match=rf"2 layouts[\s\S]*{kind}\] n_virtual"):
        model.fit(x, y, **layout)
    model.set_params(network={**NARROW[kind], "n_virtual": 4, "n_fourier": 32})
    assert model.fit(x, y, **layout).predict(x, layout["subjects"]).shape == (24, 5)


@pytest.mark.parametrize("kind", ["ridge", "logistic", "mlp"])
def test_decoders_of_features_refuse_mixed_montages(kind):
    x, y, layout = people([5, 9])
    with pytest.raises(DataError, match="needs the same sensors"):
        BrainDecoder(kind).fit(x, y, **layout)


def test_mixer_reads_the_own_voxels_of_each_person():
    x, y, layout = people([4, 7], n_times=1)
    model = BrainDecoder("mixer", network=NARROW["mixer"], epochs=1).fit(x, y, **layout)
    assert model.arguments_["n_voxels"] == [4, 7]
    who, one = layout["subjects"], layout["subjects"] == 1
    assert model.mean_[1] == pytest.approx(x[one][..., 0].mean(0))
    assert model.scale_[0, :4] == pytest.approx(x[~one][:, :4, 0].std(0))
    spoiled = np.where(layout["masks"][who][..., None], x, 1e9)
    assert np.array_equal(model.predict(spoiled, who), model.predict(x, who))
    changed = x.copy()
    changed[one, 6] += 1
    difference = np.abs(model.predict(changed, who) - model.predict(x, who)).max(1)
    assert (difference[one] > 0).all() and not difference[~one].any()


@pytest.mark.parametrize("kind", ["mlp", "mixer", "conv"])
def test_moments_are_those_of_the_training_rows_in_one_go(kind):
    x, _, layout = people([6, 6], n=50, n_times=3)
    x = 1e-13 * x + 5e-13
    who, rows = layout["subjects"], np.flatnonzero(np.arange(50) % 5)
    mean, sd = input_moments(kind, x, rows, who, layout["masks"], block=7)
    part = x[rows]
    if kind == "mlp":
        flat = part.reshape(len(rows), -1)
        assert mean[0] == pytest.approx(flat.mean(0), abs=0, rel=1e-9)
        assert sd[0] == pytest.approx(flat.std(0), abs=0, rel=1e-9)
        return
    for person in (0, 1):
        own = part[who[rows] == person]
        axes = (0, 2) if kind == "conv" else 0
        assert mean[person].ravel() == pytest.approx(own.mean(axes).ravel(), abs=0, rel=1e-9)
        assert sd[person].ravel() == pytest.approx(own.std(axes).ravel(), abs=0, rel=1e-9)


def test_somebody_without_training_rows_is_scaled_like_the_others():
    x, _, layout = people([6, 6, 4], n=60)
    x, rows = 3 * x + 2 * layout["masks"][layout["subjects"]][..., None], np.arange(60)
    seen = rows[layout["subjects"] == 0]
    mean, sd = input_moments("conv", x, seen, layout["subjects"], layout["masks"])
    assert np.array_equal(mean[1], mean[0]) and np.array_equal(sd[1], sd[0])
    assert sd[2] == pytest.approx(np.full((6, 1), sd[0].mean()))


def test_people_whom_a_network_with_weights_per_person_never_saw_are_refused():
    x, y, layout = people([6, 6])
    held = layout["subjects"] == 1
    layout["sensors"] = {"01": list("abcdef"), "02": list("abcdef")}
    model = BrainDecoder("conv", network=SMALL, epochs=1)
    with pytest.raises(ModelError, match="never saw[\\s\\S]*none of 02"):
        model.fit(x, y, validation=held, **layout)
    rows = np.flatnonzero(~held)
    model.fit(x[rows], y[rows], **{**layout, "subjects": layout["subjects"][rows]})
    with pytest.raises(ModelError, match="subject_layer = false"):
        model.predict(x, layout["subjects"])
    model.set_params(network={**SMALL, "subject_layer": False})
    assert model.fit(x, y, validation=held, **layout).predict(x, layout["subjects"]).shape == (
        24,
        5,
    )


def test_inputs_are_mixed_within_a_person_only():
    x, y, layout = people([6, 6], n=48)
    model = BrainDecoder("conv", network=SMALL, loss="mixco+softclip", epochs=3)
    model.fit(x, y, **layout)
    targets = networks.Feeder(
        model._inputs(x, layout["subjects"]), torch.zeros(48, 5), torch.zeros(48), np.arange(24, 48)
    )
    assert targets.mates(np.array([0, 1, 3])).tolist() == [0, 1, 1]


def test_settings_reach_the_loop(monkeypatch):
    seen = {}

    def spy(network, train, validation, **settings):
        seen.update(settings)
        return networks.loop.Fit([], 1)

    monkeypatch.setattr(networks.loop, "fit", spy)
    x, y, _ = people([6])
    settings = {
        "loss": "siglip", "logit_scale": 5.0, "learn_scale": False, "loss_weight": 0.25,
        "lr": 0.1, "weight_decay": 0.2, "warmup": 0.3, "clip_norm": 0.4, "precision": "bf16",
        "batch_size": 6, "micro_batch": 3, "epochs": 7, "patience": 8, "monitor": "loss", "seed": 9,
    }  # fmt: skip
    model = BrainDecoder("mlp", network=NARROW["mlp"], **settings)
    model.fit(x, y, folder="here")
    options = {"logit_scale": 5.0, "learn_scale": False, "weight": 0.25}
    for name in ("logit_scale", "learn_scale", "loss_weight"):
        del settings[name]
    assert seen == {**settings, "schedule": "cosine", "loss_options": options, "folder": "here",
                    "on_epoch": None, "on_batch": None}  # fmt: skip
    model.fit(x, y, validation=np.arange(24) > 12)
    assert seen["schedule"] == "constant"
    model.set_params(schedule="cosine").fit(x, y, validation=np.arange(24) > 12)
    assert seen["schedule"] == "cosine"


@pytest.mark.parametrize("loss", ["clip-symmetric", "siglip", "mse", "cosine", "clip+mse"])
def test_every_loss_trains(loss):
    x, y, _ = people([6], n=48)
    model = BrainDecoder("mlp", network=NARROW["mlp"], loss=loss, epochs=12, lr=0.01, batch_size=16)
    log = model.fit(x, y).log_
    assert log[-1]["train_loss"] < log[0]["train_loss"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "hinge"}, {"schedule": "linear"}, {"precision": "fp8"}, {"monitor": "f1"},
        {"batch_size": 1}, {"lr": -1.0}, {"warmup": 1.0}, {"layout": "sphere"},
    ],
)  # fmt: skip
def test_values_that_the_recipe_refuses_are_refused(wrong):
    x, y, _ = people([6])
    with pytest.raises(ModelError, match=f"cannot have this setting: {next(iter(wrong))}"):
        BrainDecoder("mlp", **wrong).fit(x, y)


def test_micro_batches_name_the_layer_that_forbids_them():
    x, y, _ = people([6])
    with pytest.raises(ModelError, match="batches would|normalised by themselves"):
        BrainDecoder("conv", network=SMALL, batch_size=8, micro_batch=4, epochs=1).fit(x, y)
    whole, parts = (
        BrainDecoder("mixer", network={**NARROW["mixer"], "dropout": 0.0}, batch_size=8,
                     micro_batch=m, epochs=2).fit(x, y).predict(x)
        for m in (0, 3)
    )  # fmt: skip
    assert parts == pytest.approx(whole, abs=1e-5)
