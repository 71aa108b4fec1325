"""F-10: a fit that is killed goes on where it was, to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.store import is_committed

KILLER = Path(__file__).with_name("kill_fits.py")
N_EPOCHS, N_BATCHES = 3, 5  # 40 training windows in batches of 8
NETWORK = f"""
[train]
decoders = ["conv"]
epochs = {N_EPOCHS}
batch_size = 8
[train.network.conv]
n_virtual = 4
hidden = 8
depth = 2
n_fourier = 32
dropout = 0.3
"""


@pytest.fixture
def study(tmp_path, make_study, recipe_text):
    """Three folds of one person, a recipe with dropout, and an uninterrupted run."""
    folder = tmp_path / "study"
    data = make_study(folder / "bids", subjects=("01",))
    text = recipe_text.replace("[train.windows]", f"{NETWORK}\n[train.windows]\ntmax = 0.4")
    (folder / "words.toml").write_text(text)
    result = pipeline.run(load_recipe(folder / "words.toml"), data, folder / "out", until="train",
                          quiet=True)  # fmt: skip
    assert result.failed == []
    return folder


def killed(study: Path, out: Path, batch: int) -> Path:
    """A run that was killed after ``batch`` batches of networks; where its fit lies."""
    ran = subprocess.run(
        [sys.executable, KILLER, study / "words.toml", study / "bids", out, str(batch)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    (folder,) = out.glob("train/*/*.fit")
    assert not is_committed(folder.with_suffix(".zarr"))
    return folder


def test_f10_a_fit_killed_in_mid_epoch_goes_on_to_the_same_bytes(study, tmp_path, stores_in):
    out = tmp_path / "out"
    # The second of three units, in the third batch of its second epoch.
    folder = killed(study, out, N_EPOCHS * N_BATCHES + N_BATCHES + 3)
    log = folder / "processes-1" / "fit" / "log.jsonl"
    assert len(log.read_text().splitlines()) == 1
    newest = sorted(log.parent.glob("checkpoint-*"))[-1]
    assert newest.name == f"checkpoint-{N_BATCHES + 2:010d}.safetensors"
    recipe = load_recipe(study / "words.toml")
    result = pipeline.run(recipe, study / "bids", out, until="train", quiet=True)
    assert [row.status for row in result.rows if row.stage == "train"] == ["cached", "done", "done"]
    assert stores_in(out) == stores_in(study / "out")
    assert list(out.glob("train/*/*.fit")) == []
