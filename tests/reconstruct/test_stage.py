"""The stage on a study whose predictions are known: pictures, scores, controls, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.errors import DataError, LeakageError, ModelError, RecipeError, SplitError
from braindecode_pipe.reconstruct.stage import INPUTS
from braindecode_pipe.store import open_store, read_table, store_attrs

N, TESTED = 30, 6


def test_pictures_scores_and_controls_of_a_store(make):
    study = make()
    out, records = study.run()
    attrs, items = store_attrs(out), read_table(out, "items")
    assert len(items) == 2 * TESTED and set(items["n_events"]) == {2}
    assert list(items["stimulus"][:TESTED]) == study.ids[:TESTED]
    pictures = open_store(out, "pictures")["pictures"]
    assert pictures.shape == (3, 2 * TESTED, 16, 16, 3) and pictures.dtype == np.uint8
    assert attrs["mixing"] == attrs["refiner"] == "none" and attrs["samples"] == 1
    assert attrs["data_origin"] == "simulated"
    [fold] = attrs["generators"]
    assert fold["n_pictures"] == N - TESTED and fold["fit_scope"] == study.plan.scope(0).hash()
    scores = open_store(out, "scores")
    assert list(scores["input"].values) == list(INPUTS)
    for record in records:
        row = scores["scores"].sel(metric=record["metric"])
        assert record["value"] == pytest.approx(float(row.sel(input="brain").mean()))
        assert record["shuffled"] == pytest.approx(float(row.sel(input="shuffled").mean()))
        assert record["stand_in_for"] or record["metric"] in ("PixCorr", "SSIM")
    pixel = records[[r["metric"] for r in records].index("PixCorr")]
    assert pixel["value"] > pixel["shuffled"] and pixel["p_value"] < 0.01
    again, _ = study.run("again")
    for file in sorted(out.rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (again / file.relative_to(out)).read_bytes()


def test_noise_predictions_reconstruct_nothing(make):
    study = make(noise=1e6)
    _, records = study.run(generator="nearest")
    assert all(record["p_value"] > 0.01 for record in records)


def test_a_prior_draws_several_and_keeps_one(make):
    study = make()
    out, _ = study.run(
        prior="diffusion", samples=3, prior_steps=60, draws=3, generator="nearest", average=False,
        items=5,
    )  # fmt: skip
    items = read_table(out, "items")
    assert len(items) == 2 * 5 and set(items["n_events"]) == {1}
    assert set(items["sample"]) <= {0, 1, 2} and len(set(items["sample"])) > 1
    assert "targets are not looked at" in store_attrs(out)["chosen_by"]


def test_near_duplicates_of_tested_pictures_make_no_generator(make):
    out, _ = make(near="g1").run(generator="nearest")
    assert store_attrs(out)["generators"][0]["n_pictures"] == N - TESTED - 1


def test_bad_input_is_told(make):
    study = make()
    with pytest.raises(ModelError, match="folder of the generator is missing|diffusers"):
        study.run(generator="./nowhere")
    with pytest.raises(ModelError, match="folder of the metrics"):
        study.run(networks="./nowhere")
    with pytest.raises(RecipeError, match="nothing to draw several samples"):
        study.run(samples=2)
    study.predicted[3, 1] = np.nan
    study.write()
    with pytest.raises(DataError, match="not finite"):
        study.run(generator="nearest")
    study.predicted = np.zeros((len(study.predicted), 5))
    study.write()
    with pytest.raises(ModelError, match="another width"):
        study.run(generator="nearest")
    study.write(fit_scope="0" * 64)
    with pytest.raises(LeakageError):
        study.run(generator="nearest")
    assert not list(study.folder.glob("out.zarr"))


def test_what_was_trained_on_and_tested_is_no_material(make):
    study = make(kind="concept")
    with pytest.raises(DataError, match="cannot be reconstructed as pictures"):
        study.run(generator="nearest")


def test_a_split_that_tests_every_picture_leaves_nothing(make):
    study = make()
    role = study.plan.role.copy()
    role[0] = np.where(study.plan.events["repetition"] == 1, 1, 3)
    object.__setattr__(study.plan, "role", role)
    study.write()
    with pytest.raises(SplitError, match="no picture is left"):
        study.run(generator="nearest")
