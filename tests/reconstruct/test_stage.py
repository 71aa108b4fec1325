"""The stage on a study whose predictions are known: pictures, scores, controls, refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from braindecode_pipe.errors import DataError, LeakageError, ModelError, RecipeError, SplitError
from braindecode_pipe.fitting.normalizer import Normalizer
from braindecode_pipe.recipe import ReconstructSection
from braindecode_pipe.reconstruct import run
from braindecode_pipe.reconstruct.presets import PRESETS
from braindecode_pipe.reconstruct.stage import INPUTS
from braindecode_pipe.schema import embedding_dataset, prediction_dataset
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_store, read_file, read_table, store_attrs, write_store

N, TESTED = 30, 6
FAST = {"side": 16, "steps": 150, "permutations": 299, "bootstrap": 100}


class Study:
    """A data folder with pictures, a plan, an embedding and predictions of one decoder."""

    def __init__(self, folder, discs, noise=1.0, seed=0, kind="image", near=""):
        rng = np.random.default_rng(seed)
        self.folder, code = folder, rng.random((N, 5))
        self.vectors = ((code - 0.5) @ rng.normal(size=(5, 6)) * 3 + 1).astype(np.float32)
        self.ids = [f"s{i:02d}" for i in range(N)]
        (folder / "stimuli").mkdir(parents=True)
        for name, picture in zip(self.ids, discs(code, 32)):
            Image.fromarray(picture).save(folder / "stimuli" / f"{name}.png")
        self.plan = self._plan(kind, near)
        self.embedding = folder / "embedding.zarr"
        attrs = {"data_origin": "simulated", "target": "picture"}
        write_store(self.embedding, {"": embedding_dataset(self.vectors, self.ids, attrs)})
        self.prediction = folder / "prediction.zarr"
        test = self.plan.events.iloc[self.plan.rows(0, "test")]
        own = [self.ids.index(s) for s in test["stimulus_picture"]]
        normalizer = Normalizer.fit("zscore", self.vectors[TESTED:], self.ids[TESTED:])
        self.predicted = normalizer(self.vectors[own])
        self.predicted = self.predicted + noise * rng.normal(size=self.predicted.shape)
        self.test, self.normalizer = test, normalizer
        self.write()

    def write(self, **changed):
        attrs = {
            "decoder": "ridge", "fold": "0", "embedding": "pictures", "target": "picture",
            "data_origin": "simulated", "fit_scope": self.plan.scope(0).hash(), **changed,
        }  # fmt: skip
        dataset = prediction_dataset(
            self.predicted, list(self.test["event"]), list(self.test["stimulus_picture"]), attrs
        )
        groups = {"": dataset, "normalizer": self.normalizer.to_dataset()}
        write_store(self.prediction, groups)

    def _plan(self, kind, near):
        rows = [(p, s, r) for p in ("01", "02") for s in self.ids for r in (1, 2)]
        events = pd.DataFrame(rows, columns=["subject", "stimulus_picture", "repetition"])
        events.insert(0, "event", [f"e{i}" for i in range(len(events))])
        events = events.assign(recording="rec" + events["subject"], onset=1.0, duration=0.5)
        tested = events["stimulus_picture"].isin(self.ids[:TESTED])
        stimuli = pd.DataFrame({"stimulus": self.ids, "target": "picture", "kind": kind})
        stimuli["path"] = [f"stimuli/{name}.png" for name in self.ids]
        stimuli["near_duplicate_group"] = [near if i in (0, N - 1) else "" for i in range(N)]
        folds = pd.DataFrame({"fold": ["0"], "subject": [""], "groups": [""]})
        role = np.where(tested, 3, 1).astype(np.int8)[None]
        return StudyPlan(pd.DataFrame(), events, stimuli, folds, role)

    def run(self, name="out", **settings):
        out = self.folder / f"{name}.zarr"
        section = ReconstructSection(**{**FAST, **settings})
        run(section, "pictures", self.plan, [self.prediction], self.embedding, self.folder, out)
        return out, json.loads(read_file(out, "metrics.json"))


@pytest.fixture
def make(tmp_path, discs, monkeypatch):
    # Small views: what the metrics see is tested with the presets.
    offline = PRESETS["offline"]
    kept = [replace(c, view=replace(c.view, side=32)) for c in offline.comparisons[:3]]
    monkeypatch.setitem(PRESETS, "offline", replace(offline, side=32, comparisons=tuple(kept)))
    return lambda **options: Study(tmp_path / "study", discs, **options)


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
