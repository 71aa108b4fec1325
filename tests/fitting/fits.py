"""Small fits that tests run in processes of their own: to be killed, or to share a batch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from braindecode_pipe.fitting.loop import fit
from braindecode_pipe.fitting.world import launched
from braindecode_pipe.networks.compact import Nice
from braindecode_pipe.networks.convolution import ConvEncoder


class Windows:
    """Windows of two people with 7 sensors, and targets that follow from them."""

    def __init__(self, n: int = 48, seed: int = 0, double: bool = False) -> None:
        rng = np.random.default_rng(seed)
        dtype = torch.float64 if double else torch.float32
        self.x = torch.from_numpy(rng.normal(size=(n, 7, 24))).to(dtype)
        self.positions = torch.from_numpy(np.random.default_rng(1).uniform(size=(7, 2))).to(dtype)
        weights = torch.from_numpy(np.random.default_rng(2).normal(size=(7 * 24, 5))).to(dtype)
        self.y = self.x.flatten(1) @ weights
        self.person = torch.from_numpy(rng.integers(0, 2, n))
        self.stimuli = torch.from_numpy(rng.integers(0, n // 2, n))

    def __len__(self) -> int:
        return len(self.x)

    def mates(self, rows: np.ndarray) -> np.ndarray:
        return self.person[rows].numpy()

    def batch(self, rows):
        positions = self.positions.expand(len(rows), -1, -1)
        arguments = (self.x[rows], positions, None, self.person[rows])
        return arguments, self.y[rows], self.stimuli[rows]


def encoder(double: bool = False, **settings) -> nn.Module:
    torch.manual_seed(0)
    settings = {"n_virtual": 8, "hidden": 12, "depth": 4, "n_fourier": 32, "pool": "mean",
                **settings}  # fmt: skip
    network = ConvEncoder(5, 2, **settings)
    return network.double() if double else network


def compact(double: bool = False, **settings) -> nn.Module:
    torch.manual_seed(0)
    network = Nice(5, n_sensors=7, n_times=24, width=6, kernel=5, pool=4, stride=2, dropout=0.0)
    return network.double() if double else network


def run(out: Path, folder: Path | None, build=encoder, **settings) -> None:
    """Fit, and save the weights."""
    double = settings.pop("double", False)
    dropout = settings.pop("dropout", 0.3)
    network = build(double, dropout=dropout, spatial_dropout=settings.pop("disc", 0.2))
    fit(network, Windows(double=double), Windows(16, 5, double), folder=folder, save_every_s=0,
        lr=0.01, **settings)  # fmt: skip
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, out, folder = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if kind == "resume":
        run(out, Path(folder), epochs=3, batch_size=8, loss="mixco+softclip", schedule="cosine",
            precision="bf16")  # fmt: skip
    else:
        build, loss = (compact, "clip") if kind == "nice" else (encoder, kind)
        with launched() as world:
            run(out.with_suffix(f".{world.rank}"), None, build, epochs=2, batch_size=18,
                double=True, dropout=0.0, disc=0.0, loss=loss, clip_norm=1.0,
                warmup=0.2)  # fmt: skip
