"""Two processes, or parts of a batch in one, compute what one process computes of the whole."""

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
from braindecode_pipe.fitting.loop import Settings, fit
from braindecode_pipe.fitting.world import World

SCRIPT = Path(__file__).with_name("fits.py")
_spec = importlib.util.spec_from_file_location("fits", SCRIPT)
fits = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fits)


def difference(a, b):
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.mark.parametrize("kind", ["clip", "siglip", "nice"])
def test_two_processes_equal_one_with_the_whole_batch(kind, tmp_path):
    """The network of Defossez et al. with both losses, and NICE: all have batch norms.

    Stimuli repeat within a batch.
    """
    build, loss = (fits.compact, "clip") if kind == "nice" else (fits.encoder, kind)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    command = [sys.executable, str(SCRIPT), kind, str(tmp_path / "w.x"), "-"]
    both = [subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in (0, 1)]  # fmt: skip
    assert [process.wait(180) for process in both] == [0, 0]
    fits.run(tmp_path / "one", None, build, epochs=2, batch_size=18, double=True, dropout=0.0,
        disc=0.0, loss=loss, clip_norm=1.0, warmup=0.2)  # fmt: skip
    first, second = (load_file(tmp_path / f"w.{rank}") for rank in (0, 1))
    one = load_file(tmp_path / "one")
    assert difference(first, second) < 1e-12
    assert difference(first, one) < 1e-9
    start = build(True).state_dict()
    assert difference(one, start) > 1e-2  # it moved


def test_too_few_examples_for_all_processes_are_refused():
    World(0, 4).check_share(4, 8)
    for n, batch_size in ((3, 8), (100, 3)):
        with pytest.raises(ModelError, match="less to share than processes"):
            World(0, 4).check_share(n, batch_size)


def test_processes_go_on_from_the_same_checkpoint_or_not_at_all():
    class Two(World):
        def gather(self, values):
            return torch.cat([values, torch.tensor([7])])

    Two(0, 2).check_same(7, "x.fit")
    with pytest.raises(ModelError, match="different checkpoints[\\s\\S]*steps -1, 7"):
        Two(0, 2).check_same(-1, "x.fit")


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(7 * 24, 16), nn.Dropout(0.4), nn.GELU(),
                         nn.Linear(16, 5)).double()  # fmt: skip


class Flat(fits.Windows):
    def batch(self, rows):
        arguments, targets, stimuli = super().batch(rows)
        return arguments[:1], targets, stimuli


@pytest.mark.parametrize("loss", ["clip", "clip-symmetric", "mixco+softclip"])
def test_parts_of_a_batch_equal_the_whole(loss):
    settings = {"epochs": 2, "batch_size": 20, "loss": loss, "lr": 0.01}
    networks = []
    for size in (0, 20, 6):
        network = perceptron()
        network[2] = nn.Identity()
        fit(network, Flat(double=True), micro_batch=size, **settings)
        networks.append(network.state_dict())
    assert difference(networks[0], networks[1]) == 0
    assert difference(networks[0], networks[2]) < 1e-12


def test_parts_draw_the_same_noise_in_both_passes():
    """With dropout the second pass must see what the first saw, or the gradient is wrong."""

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.seen = perceptron(), []

        def forward(self, x):
            out = self.inner(x)
            self.seen.append((torch.is_grad_enabled(), out.detach().clone()))
            return out

    network = Spy()
    fit(network, Flat(20, double=True), epochs=1, batch_size=20, micro_batch=6, lr=0.0)
    without = [out for grad, out in network.seen if not grad]
    with_gradient = [out for grad, out in network.seen if grad]
    assert len(without) == len(with_gradient) == 4
    assert all(torch.equal(a, b) for a, b in zip(without, with_gradient))


def test_parts_with_batch_statistics_are_refused_by_name():
    with pytest.raises(ModelError, match=r"blocks\.0\.norm, blocks\.1\.norm.* and 1 more"):
        fit(fits.encoder(), fits.Windows(), batch_size=20, micro_batch=5)


def test_rate_rises_then_falls_along_a_cosine():
    settings = Settings(lr=1.0, schedule="cosine", warmup=0.1)
    rates = [settings.rate(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 11 for k in range(10)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5)
    assert all(a > b for a, b in zip(rates[10:], rates[11:]))
