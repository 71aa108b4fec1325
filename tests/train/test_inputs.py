"""Fold-time scaling and whitening in the stage: what it stores, and what it must never see."""

import functools

import numpy as np
import pytest

from braindecode_pipe import store
from braindecode_pipe.errors import LeakageError
from braindecode_pipe.fitting.inputs import InputScaling
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import TrainSection, WindowSection, ZeroShotSection
from braindecode_pipe.schema import sensor_coords, signal_dataset
from braindecode_pipe.train import run, run_zero_shot
from braindecode_pipe.train.folds import open_signals
from braindecode_pipe.train.saved import load_decoder, load_inputs

SCALING = InputScaling("robust", 20.0)
WHITE = WindowSection(tmax=10.0, whiten="mvnn")


def fit(study, name, fold=0, window=WHITE, scaling=SCALING):
    out = study.folder / f"{name}.zarr"
    run(TrainSection(windows=window), "object", "ridge", fold, study.plan, study.signals,
        study.embedding, out, scaling=scaling)  # fmt: skip
    return out


def rewrite(study, name, change, **attrs):
    """Store a recording again, changed."""
    path = study.folder / f"{name}-again.zarr"
    old = store.open_store(study.signals[name])
    n = len(old["sensor"])
    sensors = sensor_coords([f"v{i}" for i in range(n)], "voxel", "a.u.", old["position"].values)
    data = np.asarray(change(study.data[name].copy()), np.float32)
    dataset = signal_dataset(data, sensors, old["time"].values, {**old.attrs, **attrs})
    store.write_store(path, {"": dataset})
    study.signals[name] = path


def test_store_holds_what_windows_go_through(make_study):
    study = make_study(snr=1.5)
    out = fit(study, "white")
    attrs, scope = store.store_attrs(out), study.plan.scope(0).hash()
    assert attrs["input_scope"] == attrs["fit_scope"] == scope
    assert attrs["inputs"]["n_windows"] == 24 and attrs["inputs"]["scaler"] == "robust"
    assert attrs["inputs"]["noise"]["01"]["method"] == "residuals"
    read = functools.partial(store.read_file, out)
    inputs, model = load_inputs(read), load_decoder(read)
    test = study.plan.events.iloc[study.plan.rows(0, "test")]
    windows = Windows(open_signals(study.signals, test["recording"]), test, WHITE)
    found = model.predict(windows.transformed(inputs).read(windows.rows()))
    assert found == pytest.approx(store.open_store(out)["prediction"].values, abs=1e-6)
    assert load_inputs(functools.partial(store.read_file, fit(study, "raw", scaling=None,
                       window=WindowSection(tmax=10.0)))) is None  # fmt: skip


def test_patterns_are_those_of_sensors(make_study):
    study = make_study(snr=1.5)
    plain = store.open_store(fit(study, "plain", window=WindowSection(tmax=10.0)), "pattern")
    white = store.open_store(fit(study, "white"), "pattern")
    r = np.corrcoef(plain["pattern"].values.ravel(), white["pattern"].values.ravel())[0, 1]
    assert r > 0.8


@pytest.mark.parametrize("change", ["noise", "huge"])
def test_f36_the_test_run_moves_no_fitted_number(make_study, change):
    study = make_study(snr=1.5)
    before = fit(study, "before")
    rng = np.random.default_rng(0)
    spoil = {"noise": lambda x: rng.normal(size=x.shape), "huge": lambda x: x * 1e6}[change]
    rewrite(study, "sub-01_run-0", spoil)  # fold 0 tests it
    after = fit(study, "after")
    for file in ("model.safetensors", "model.json"):
        assert store.read_file(before, file) == store.read_file(after, file)
    predictions = [store.open_store(out)["prediction"].values for out in (before, after)]
    assert not np.array_equal(*predictions)
    assert store.read_file(fit(study, "other", fold=1), "model.safetensors") != store.read_file(
        before, "model.safetensors"
    )


def test_f36_preprocessing_that_saw_the_test_is_refused(make_study):
    study = make_study()
    plan = study.plan
    plan.role[0, 1] = plan.role[0, 8]  # one event of the tested run is trained on: it is divided
    tested = plan.events.iloc[plan.rows(0, "test")[0]]
    inside = [[float(tested["onset"]) + 1.0, float(tested["onset"]) + 3.0]]
    rewrite(study, "sub-01_run-0", lambda x: x, fit_extents=inside)
    with pytest.raises(LeakageError, match="preprocessing of sub-01_run-0 saw items of the test"):
        fit(study, "leaky", window=WindowSection(tmax=10.0))
    rewrite(study, "sub-01_run-0", lambda x: x, fit_extents=[[0.0, 2.0]])
    fit(study, "clean", window=WindowSection(tmax=10.0))


def test_zero_shot_fits_without_the_left_out_group(make_study):
    study = make_study(snr=1.5)
    section = TrainSection(
        windows=WHITE,
        zero_shot=ZeroShotSection(
            target="object", categories=["cat", "chair", "face", "house"], embeddings=["e"]
        ),
    )
    spoiled = study.plan.events.iloc[study.plan.rows(0, "test")[3]]
    start = round(float(spoiled["onset"]) / 2.0)

    def spoil(values):
        values[:, start : start + 5] = 1e3
        return values

    tables = []
    for name in ("before", "after"):
        out = study.folder / f"zero-{name}.zarr"
        run_zero_shot(section, study.plan, study.signals, out, scaling=SCALING)
        tables.append(store.open_store(out).load())
        rewrite(study, "sub-01_run-0", spoil)
    own = tables[0]["group"].values == "sub-01_run-0"
    other = own & (tables[0]["event"].values != spoiled["event"])
    before, after = (table["weights"].values for table in tables)
    assert other.any() and np.array_equal(before[other], after[other])
    assert not np.array_equal(before[own & ~other], after[own & ~other])
    assert not np.array_equal(before[~own], after[~own])
