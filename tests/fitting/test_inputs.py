"""Scale, clamp and whitening of windows, fitted on training windows and on nothing else."""

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.inputs import InputScaling, InputTransform, fit_inputs
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import WindowSection

ROBUST = InputScaling("robust", 20.0)


def events_of(recording="a", subject="01", n=20):
    return pd.DataFrame(
        {"event": [f"{recording}:{i}" for i in range(n)], "recording": recording,
         "subject": subject, "onset": 1.0 + np.arange(n), "duration": 0.0}
    )  # fmt: skip


def noise(n_sensors=5, n_times=2400, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n_sensors, n_times)) * rng.uniform(1, 9, (n_sensors, 1)) + 4) * 1e-6


def fitted(windows, rows, conditions=None, scaling=ROBUST, whiten="none"):
    conditions = np.arange(len(rows)) % 2 if conditions is None else conditions
    return fit_inputs(windows, rows, conditions, scaling, whiten)


def test_scaler_is_that_of_the_training_samples(make_signal):
    data = noise()
    window = WindowSection(tmin=0.0, tmax=0.5, baseline=(-0.2, 0.0))
    windows = Windows({"a": make_signal("a", data, 100.0)}, events_of(), window)
    train = np.arange(12)
    inputs = fitted(windows, train)
    pieces = [data[:, 100 + 100 * i - 20 : 150 + 100 * i] for i in train]
    seen = np.concatenate(pieces, axis=1).astype(np.float32).astype(float)
    low, middle, high = np.quantile(seen, [0.25, 0.5, 0.75], axis=1)
    assert inputs.offset[0] == pytest.approx(middle) and inputs.gain[0] == pytest.approx(high - low)
    out = windows.transformed(inputs).read(np.array([15]))[0]
    block = (data[:, 1580:1650] - middle[:, None]) / (high - low)[:, None]
    assert out == pytest.approx(block[:, 20:] - block[:, :20].mean(1, keepdims=True), abs=1e-4)
    assert np.array_equal(windows.read(train), windows.transformed(None).read(train))


def test_clamp_comes_before_the_baseline(make_signal):
    data = noise()
    data[2, 1610] = 1.0  # a volt
    windows = Windows({"a": make_signal("a", data, 100.0)}, events_of(), WindowSection(tmax=0.5))
    inputs = fitted(windows, np.arange(12), scaling=InputScaling("standard", 3.0))
    out = windows.transformed(inputs).read(np.array([15]))[0]
    assert out[2, 10] == 3.0 and np.abs(out).max() <= 3.0


@pytest.mark.parametrize("whiten", ["none", "mvnn"])
@pytest.mark.parametrize("scaling", [None, ROBUST])
def test_f36_corrupting_test_windows_leaves_every_parameter_alone(make_signal, whiten, scaling):
    if scaling is None and whiten == "none":
        return
    data, train = noise(), np.arange(12)
    spoiled = data.copy()
    spoiled[:, 1300:] = np.random.default_rng(9).normal(size=(5, 1100)) * 1e3
    found = []
    for name, values in (("a", data), ("b", spoiled)):
        windows = Windows(
            {name: make_signal(name, values, 100.0)}, events_of(name), WindowSection(tmax=0.5)
        )
        found.append(fitted(windows, train, scaling=scaling, whiten=whiten))
    for key, values in found[0].arrays().items():
        assert np.array_equal(values, found[1].arrays()[key])
    assert found[0].facts == found[1].facts
    blind = fitted(windows, np.arange(20), scaling=scaling, whiten=whiten)
    assert any(not np.array_equal(v, blind.arrays()[k]) for k, v in found[0].arrays().items())


def test_whitened_training_noise_is_white(make_signal):
    mixing = np.eye(5) + np.random.default_rng(1).uniform(-0.3, 0.3, (5, 5))
    signal = make_signal("a", mixing @ noise(n_times=40000), 100.0)
    windows = Windows({"a": signal}, events_of(n=390), WindowSection(tmax=0.5))
    train = np.arange(300)
    inputs = fitted(windows, train, whiten="mvnn")
    out = windows.transformed(inputs).read(np.arange(300, 390))
    flat = out.swapaxes(0, 1).reshape(5, -1)
    assert np.cov(flat) == pytest.approx(np.eye(5), abs=0.1)
    assert inputs.facts["noise"]["01"]["method"] == "residuals"
    assert inputs.facts["n_windows"] == 300


def test_people_are_fitted_by_themselves_and_bad_sensors_left_out(make_signal):
    good = np.array([True, True, False, True])
    spoiled = noise(4, seed=1)
    spoiled[2] = np.nan
    signals = {
        "a": make_signal("a", noise(5), 100.0),
        "b": make_signal("b", spoiled, 100.0, good=good),
    }
    events = pd.concat([events_of("a", "01"), events_of("b", "02")], ignore_index=True)
    windows = Windows(signals, events, WindowSection(tmax=0.5))
    inputs = fitted(windows, windows.rows(), whiten="mvnn")
    alone = Windows({"b": signals["b"]}, events_of("b", "02"), WindowSection(tmax=0.5))
    own = fitted(alone, alone.rows(), whiten="mvnn")
    assert np.array_equal(inputs.gain[1, :4], own.gain[0])
    assert np.array_equal(inputs.whitener[1, :4, :4], own.whitener[0])
    assert not inputs.whitener[1, 2].any() and not inputs.whitener[1, :, 2].any()
    out = windows.transformed(inputs).read(np.array([25]))
    assert np.isfinite(out).all() and not out[0, 2].any() and not out[0, 4].any()


def test_somebody_who_is_only_tested_gets_the_mean_of_the_others(make_signal):
    signals = {name: make_signal(name, noise(5, seed=i), 100.0) for i, name in enumerate("abc")}
    tables = [events_of(name, name) for name in "abc"]
    windows = Windows(signals, pd.concat(tables, ignore_index=True), WindowSection(tmax=0.5))
    inputs = fitted(windows, np.arange(40))
    assert inputs.gain[2] == pytest.approx(inputs.gain[:2].mean(0))
    signals["c"] = make_signal("c4", noise(4), 100.0)
    windows = Windows(signals, pd.concat(tables, ignore_index=True), WindowSection(tmax=0.5))
    with pytest.raises(DataError, match="tested without having been trained on"):
        fitted(windows, np.arange(40))


def test_a_flat_sensor_becomes_zero(make_signal):
    data = noise()
    data[1] = 7e-6
    windows = Windows({"a": make_signal("a", data, 100.0)}, events_of(), WindowSection(tmax=0.5))
    inputs = fitted(windows, np.arange(12))
    assert inputs.gain[0, 1] == 0 and not windows.transformed(inputs).read([3])[0, 1].any()


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_units_do_not_matter(make_signal, scale):
    out = []
    for name, factor in (("a", 1.0), ("b", scale)):
        windows = Windows(
            {name: make_signal(name, noise() * factor, 100.0)}, events_of(name),
            WindowSection(tmax=0.5),
        )  # fmt: skip
        inputs = fitted(windows, np.arange(12), whiten="mvnn")
        out.append(windows.transformed(inputs).read(np.arange(20)))
    assert out[1] == pytest.approx(out[0], abs=1e-4)


def test_it_survives_a_checkpoint(make_signal):
    windows = Windows({"a": make_signal("a", noise(), 100.0)}, events_of(), WindowSection(tmax=0.5))
    inputs = fitted(windows, np.arange(12), whiten="mvnn")
    again = InputTransform.load(inputs.arrays(), inputs.config())
    rows = np.arange(20)
    assert np.array_equal(
        windows.transformed(again).read(rows), windows.transformed(inputs).read(rows)
    )
    assert fit_inputs(windows, rows, rows) is None
