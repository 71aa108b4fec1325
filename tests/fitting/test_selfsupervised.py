"""A tokenizer in the training loop: it learns, goes on where it stopped, and shares batches."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting.examples import evaluate
from braindecode_pipe.fitting.loop import Settings, fit
from braindecode_pipe.fitting.selfsupervised import OwnLoss, Unlabelled, objective_of

SCRIPT = Path(__file__).with_name("tokenfits.py")
_spec = importlib.util.spec_from_file_location("tokenfits", SCRIPT)
tokenfits = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tokenfits)


def test_own_loss_is_of_the_mean_terms():
    class Ratio(nn.Module):
        terms = ("total", "count")

        def combine(self, means):
            return means[0] / means[1]

    terms = torch.tensor([[6.0, 3.0], [2.0, 1.0], [9.0, 1.0]])
    assert float(OwnLoss(Ratio())(terms)) == pytest.approx(17 / 5)


def test_networks_without_a_loss_options_and_retrieval_are_refused():
    with pytest.raises(ModelError, match="no loss of its own"):
        objective_of(nn.Linear(2, 2), Settings(loss="own"))
    for wrong in ({"loss_options": {"weight": 1.0}}, {"monitor": "retrieval"}):
        with pytest.raises(ModelError, match="no options and retrieves nothing"):
            objective_of(tokenfits.tokenizer(), Settings(loss="own", **wrong))


def test_a_tokenizer_learns_and_the_best_epoch_stays():
    network = tokenfits.tokenizer()
    settings = {"loss": "own", "lr": 0.003, "epochs": 10, "batch_size": 16}
    result = fit(network, tokenfits.windows(64), tokenfits.windows(32, seed=3), **settings)
    losses = [record["validation_loss"] for record in result.log]
    assert min(losses) < losses[0] - 0.5
    assert losses.index(min(losses)) + 1 == result.best_epoch
    again = evaluate(network, tokenfits.windows(32, seed=3), OwnLoss(network), 16)
    assert again[0] == pytest.approx(min(losses), rel=1e-6)


class Stopped(Exception):
    pass


def test_stopped_after_any_batch_it_goes_on_bit_for_bit(tmp_path):
    settings = {"loss": "own", "lr": 0.01, "epochs": 2, "batch_size": 8, "save_every_s": 0.0}
    whole = tokenfits.tokenizer()
    fit(whole, tokenfits.windows(), **settings)

    for at in (1, 4):
        left = at

        def stop(number, of, value):
            nonlocal left
            left -= 1
            if not left:
                raise Stopped

        folder = tmp_path / str(at)
        with pytest.raises(Stopped):
            fit(tokenfits.tokenizer(), tokenfits.windows(), folder=folder, on_batch=stop,
                **settings)  # fmt: skip
        network = tokenfits.tokenizer()
        fit(network, tokenfits.windows(), folder=folder, **settings)
        expected = whole.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in network.state_dict().items())


def test_two_processes_equal_one_with_the_whole_batch_and_draw_the_same_codes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    both = [subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in (0, 1)]  # fmt: skip
    assert [process.wait(180) for process in both] == [0, 0]

    first, second = (load_file(tmp_path / f"shared.{rank}") for rank in (0, 1))
    tokenfits.run_shared(tmp_path / "one")
    one, start = load_file(tmp_path / "one"), tokenfits.shared().state_dict()
    moved = 0.0
    for name, value in one.items():
        assert torch.allclose(first[name].double(), value.double(), rtol=0, atol=1e-9), name
        assert torch.equal(first[name], second[name])
        moved = max(moved, float((value.double() - start[name].double()).abs().max()))
    assert moved > 1e-2

    first, second = (load_file(tmp_path / f"drawn.{rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert bool(first["quantizer.levels.0.started"])


def test_parts_of_a_batch_are_refused_as_codebooks_follow_whole_batches():
    with pytest.raises(ModelError, match="normalised by themselves"):
        fit(tokenfits.tokenizer(), tokenfits.windows(), loss="own", batch_size=8, micro_batch=4)


def test_unlabelled_examples_have_targets_without_columns():
    examples = Unlabelled(3, lambda rows: (torch.arange(3.0)[rows],))
    arguments, targets, number = examples.batch([2, 0])
    assert arguments[0].tolist() == [2.0, 0.0]
    assert targets.shape == (2, 0)
    assert number.tolist() == [2, 0]
    assert len(examples) == 3
