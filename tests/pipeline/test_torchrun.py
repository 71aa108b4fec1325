"""Two processes of ``torchrun`` train a study together, and end together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.store import open_store, store_attrs, verify_store

RECIPE = """
[train]
decoders = ["ridge", "mlp", "conv"]
epochs = 2
batch_size = 16
lr = 1e-4
[train.network.mlp]
hidden = 8
dropout = 0.0
input_dropout = 0.0
[train.network.conv]
n_virtual = 4
hidden = 8
depth = 2
n_fourier = 32
dropout = 0.0
spatial_dropout = 0.0
[train.windows]
tmax = 0.4
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory, make_study, recipe_text):
    """A small data set of one person, and a recipe with networks that draw nothing."""
    folder = tmp_path_factory.mktemp("torchrun")
    make_study(folder / "bids", subjects=("01",), runs="12")
    (folder / "words.toml").write_text(recipe_text.replace("[train.windows]\n", RECIPE))
    return folder


def torchrun(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """``torchrun --nproc-per-node 2 -m braindecode_pipe ...`` with gloo."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "braindecode_pipe", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


def train(study: Path, out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return torchrun("train", study / "words.toml", "--data", study / "bids", "--out", out,
                    "--quiet", *options, folder=out.parent)  # fmt: skip


def test_two_processes_predict_what_one_does(study, tmp_path):
    both, one = tmp_path / "both", tmp_path / "one"
    ran = train(study, both)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("train") == 1  # one process tells
    recipe = load_recipe(study / "words.toml")
    assert pipeline.run(recipe, study / "bids", one, until="train", quiet=True).failed == []
    stores = {p.relative_to(one) for p in one.glob("*/*/*.zarr")}
    assert stores == {p.relative_to(both) for p in both.glob("*/*/*.zarr")}
    for path in sorted(p for p in stores if p.parts[0] == "train"):
        first, second = (open_store(out / path)["prediction"].values for out in (one, both))
        is_network = "ridge" not in path.parts[1]
        assert np.abs(first - second).max() <= (1e-5 if is_network else 0.0)
        assert store_attrs(both / path).get("processes") == (2 if is_network else None)
        assert np.ptp(first, axis=0).max() > 1e-3 and verify_store(both / path) == []
    assert list(both.glob("train/*/*.fit")) == []
    # The same key: what many computed is there for one.
    assert pipeline.run(recipe, study / "bids", both, until="train", quiet=True).up_to_date


@pytest.mark.slow
def test_a_failing_network_fails_its_units_and_the_rest_goes_on(study, tmp_path):
    ran = train(study, tmp_path / "out", "--set", "train.lr=1e30")
    assert ran.returncode == 1
    assert "is not finite in epoch" in ran.stderr and "process 1 of 2: train/word_mlp" in ran.stderr
    assert "braindecode_pipe/train" not in ran.stderr  # no traceback but that of torchrun
    assert len(list(tmp_path.glob("out/train/word_ridge*/*.zarr"))) == 2


@pytest.mark.slow
def test_workers_and_bad_input_are_refused_once(study, tmp_path):
    ran = train(study, tmp_path / "out", "--jobs", "2")
    assert ran.returncode != 0 and ran.stderr.count("Error: processes of torchrun") == 1
    ran = train(study, tmp_path / "out", "--data", tmp_path / "nowhere")
    assert ran.returncode != 0 and ran.stderr.count("the data folder does not exist") == 1
    # What cannot be shared is done by one process.
    ran = torchrun("doctor", folder=tmp_path)
    assert ran.returncode == 0 and ran.stdout.count("accelerator") == 1
