"""Sensors that are taken from test windows, and what a decoder predicts without them."""

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe import store
from braindecode_pipe.errors import PositionError
from braindecode_pipe.recipe import TrainSection, WindowSection
from braindecode_pipe.train import run
from braindecode_pipe.train.ablation import ablated_predictions, sensor_groups
from braindecode_pipe.train.folds import read_fold


def table(**columns):
    base = {"sensor": ["a", "b", "c", "d"], "kind": ["mag", "mag", "grad", "eeg"],
            "x": [-1.0, 1.0, -1.0, 1.0], "y": [1.0, 1.0, -1.0, -1.0]}  # fmt: skip
    return pd.DataFrame({**base, **columns})


def names(groups, person="01"):
    return {name: list(rows[person]) for name, rows in groups.items()}


def test_groups_by_kind_and_sensor():
    assert names(sensor_groups({"01": table()}, "kind")) == {"mag": [0, 1], "grad": [2], "eeg": [3]}
    assert names(sensor_groups({"01": table()}, "sensor")) == {n: [i] for i, n in enumerate("abcd")}


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_regions_by_place_whatever_the_unit(unit):
    own = table()
    own[["x", "y"]] *= unit
    assert names(sensor_groups({"01": own}, "region")) == {
        "left front": [0], "right front": [1], "left back": [2], "right back": [3]
    }  # fmt: skip


def test_regions_by_name_come_before_places():
    own = table(roi=["V1", "V2", "V1", ""])
    assert names(sensor_groups({"01": own}, "region")) == {"V1": [0, 2], "V2": [1], "": [3]}


def test_regions_need_a_place():
    with pytest.raises(PositionError, match="--by sensor"):
        sensor_groups({"01": table(x=np.nan, y=np.nan)}, "region")


def test_predictions_without_a_sensor_agree_with_a_linear_decoder_by_hand(make_study):
    study = make_study(snr=1.5, n_runs=3, n_sensors=6)
    section = TrainSection(windows=WindowSection(reduce="mean"))
    out = study.folder / "out.zarr"
    run(section, "object", "ridge", 0, study.plan, study.signals, study.embedding, out)
    found = ablated_predictions(out, section, 0, study.plan, study.signals, "object", "sensor")
    assert list(found) == ["", *(f"v{i}" for i in range(6))]
    stored = store.open_store(out)["prediction"].values
    np.testing.assert_allclose(found[""], stored, rtol=1e-6, atol=1e-7)
    data = read_fold(study.plan, 0, "object", section.windows, study.signals)
    X, fitted = np.asarray(data.read(data.test), float), np.asarray(data.read(data.fit), float)
    import functools

    from braindecode_pipe.train.saved import load_decoder

    model = load_decoder(functools.partial(store.read_file, out))
    for i in range(6):
        weights = model.fit_.weights[i] / model.scale_[i]
        change = (fitted[:, i, 0].mean() - X[:, i, 0])[:, None] * weights
        np.testing.assert_allclose(found[f"v{i}"], stored + change, rtol=1e-4, atol=1e-5)


def test_retrieval_falls_where_the_information_was(make_study):
    from braindecode_pipe.evaluate.ablation import ablation_table
    from braindecode_pipe.recipe import EvaluateSection

    study = make_study(snr=2.0, n_runs=4, n_sensors=8)
    section = TrainSection(windows=WindowSection(reduce="mean"))
    folds = []
    for fold in range(4):
        out = study.folder / f"{fold}.zarr"
        run(section, "object", "ridge", fold, study.plan, study.signals, study.embedding, out)
        whole = store.open_store(out)["prediction"].values
        lost = np.random.default_rng(fold).normal(size=whole.shape)
        folds.append((out, {"": whole, "unused": whole, "all": lost}))
    study.plan.stimuli["category"] = ""
    settings = EvaluateSection(bootstrap=100, permutations=500)
    table = ablation_table(settings, study.plan, study.embedding, folds)
    assert list(table["group"]) == ["", "all", "unused"]
    whole, lost, unused = table.to_dict("records")
    assert whole["value"] > 0.9 and whole["loss"] == 0 and np.isnan(whole["q_value"])
    assert lost["loss"] == pytest.approx(whole["value"] - lost["value"]) and lost["loss"] > 0.2
    assert unused["loss"] == 0 and unused["p_value"] == 1
