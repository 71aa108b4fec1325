"""F-10: a fit that was stopped goes on bit for bit; damaged checkpoints are passed over."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from braindecode_pipe.errors import CorruptStoreError, ModelError
from braindecode_pipe.fitting import loop

SCRIPT = Path(__file__).with_name("fits.py")
_spec = importlib.util.spec_from_file_location("fits", SCRIPT)
fits = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fits)
SETTINGS = {"epochs": 3, "batch_size": 8, "loss": "mixco+softclip", "schedule": "cosine",
            "precision": "bf16", "lr": 0.01, "seed": 3, "monitor": "retrieval"}  # fmt: skip


class Stopped(Exception):
    pass


def fitted(folder=None, stop_after=None, **settings):
    """Weights and log of a fit, or None where it stops itself after some batches."""
    network, seen = fits.encoder(dropout=0.3), []

    def on_batch(*_):
        seen.append(1)
        if len(seen) == stop_after:
            raise Stopped

    try:
        result = loop.fit(
            network,
            fits.Windows(),
            fits.Windows(16, 5),
            folder=folder,
            save_every_s=0,
            on_batch=on_batch,
            **{**SETTINGS, **settings},
        )
    except Stopped:
        return None
    return network.state_dict(), result


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def whole():
    return fitted()


@pytest.mark.parametrize("at", [1, 4, 6, 7, 17])
def test_f10_stopped_after_any_batch_goes_on_bit_for_bit(at, whole, tmp_path):
    torch.manual_seed(99)
    assert fitted(tmp_path, at) is None
    torch.rand(7)  # what the process draws between does not matter
    weights, result = fitted(tmp_path)
    assert same(weights, whole[0])
    assert result.best_epoch == whole[1].best_epoch
    assert json.dumps(result.log) == json.dumps(whole[1].log)


def test_f10_stopped_again_and_again(whole, tmp_path):
    while (end := fitted(tmp_path, 5)) is None:
        pass
    assert same(end[0], whole[0])


def test_f10_killed_in_the_middle_of_an_epoch(tmp_path):
    def start(name):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(SCRIPT), "resume", str(tmp_path / name)]
        return subprocess.Popen([*command, str(tmp_path / f"{name}.d")], env=environment)

    assert start("whole").wait(120) == 0
    killed = start("killed")
    folder = tmp_path / "killed.d"
    while killed.poll() is None and len(list(folder.glob("*.safetensors"))) < 2:
        time.sleep(0.005)
    if killed.poll() is None:
        killed.send_signal(signal.SIGKILL)
        killed.wait(30)
    assert start("killed").wait(120) == 0
    assert same(load_file(tmp_path / "killed"), load_file(tmp_path / "whole"))


def test_the_last_two_are_kept_and_a_finished_fit_is_not_done_again(tmp_path, whole):
    fitted(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert not list(tmp_path.glob("*.tmp"))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    seen = []
    network = fits.encoder(dropout=0.3)
    loop.fit(network, fits.Windows(), fits.Windows(16, 5), folder=tmp_path,
             on_batch=lambda *_: seen.append(1), **SETTINGS)  # fmt: skip
    assert not seen and same(network.state_dict(), whole[0])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_f10_damaged_newest_falls_back_with_a_warning(damage, whole, tmp_path):
    fitted(tmp_path, 9)
    newest = sorted(tmp_path.glob("*.safetensors"))[-1]
    data = bytearray(newest.read_bytes())
    if damage == "flip":
        data[-100] ^= 1
    newest.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage])
    with pytest.warns(UserWarning, match="is damaged"):
        weights, _ = fitted(tmp_path)
    assert same(weights, whole[0])


def test_all_damaged_is_an_error(tmp_path):
    fitted(tmp_path, 9)
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"x")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(CorruptStoreError, match="no checkpoint can be read"),
    ):
        fitted(tmp_path)


def test_checkpoint_of_other_settings_is_refused(tmp_path):
    fitted(tmp_path, 5)
    with pytest.raises(ModelError, match="belongs to another fit"):
        fitted(tmp_path, lr=0.02)
