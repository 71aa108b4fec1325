"""Pictures whose embedding says what they show."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from braindecode_pipe.fitting.normalizer import Normalizer
from braindecode_pipe.recipe import ReconstructSection
from braindecode_pipe.reconstruct import run
from braindecode_pipe.reconstruct.embedded import TrainingPictures
from braindecode_pipe.reconstruct.presets import PRESETS
from braindecode_pipe.schema import embedding_dataset, prediction_dataset
from braindecode_pipe.splits import FitScope, StudyPlan
from braindecode_pipe.store import read_file, write_store


def discs(code: np.ndarray, side: int = 16) -> np.ndarray:
    """(n, 5) in 0 to 1 -> (n, side, side, 3): a disc's place and its colour."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    made = np.ones((len(code), side, side, 3))
    for picture, (a, b, *colour) in zip(made, code):
        inside = (x - 0.2 - 0.6 * a) ** 2 + (y - 0.2 - 0.6 * b) ** 2 < 0.06
        picture[inside] = colour
    return np.round(made * 255).astype(np.uint8)


@pytest.fixture(scope="session", name="discs")
def _discs():
    """Writer of such pictures."""
    return discs


@pytest.fixture(scope="session")
def study():
    """80 training and 20 test pictures with embeddings that are linear in what they show."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    code = rng.random((100, 5))
    embeddings = (code - 0.5) @ rng.normal(size=(5, 12)) * 3 + 1
    pictures = discs(code)
    training = TrainingPictures(
        [f"s{i}" for i in range(80)], pictures[:80], embeddings[:80],
        FitScope("0", ("e1", "e2")), [f"s{i}" for i in range(80, 100)],
    )  # fmt: skip
    return training, embeddings[80:], pictures[80:]


N, TESTED = 30, 6
FAST = {"side": 16, "steps": 150, "permutations": 299, "bootstrap": 100}


class Study:
    """A data folder with pictures, a plan, an embedding and predictions of one decoder."""

    def __init__(self, folder, discs, noise=1.0, width=6, seed=0, kind="image", near=""):
        rng = np.random.default_rng(seed)
        self.folder, code = folder, rng.random((N, 5))
        self.vectors = ((code - 0.5) @ rng.normal(size=(5, width)) * 3 + 1).astype(np.float32)
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
    return lambda folder="study", **options: Study(tmp_path / folder, discs, **options)
