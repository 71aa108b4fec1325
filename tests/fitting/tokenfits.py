"""Fits of a tokenizer that tests run in processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from braindecode_pipe.fitting.loop import fit
from braindecode_pipe.fitting.selfsupervised import Unlabelled
from braindecode_pipe.fitting.world import launched
from braindecode_pipe.networks.tokenizer import BrainTokenizer

N_SENSORS = 5


def windows(n: int = 24, seed: int = 0, dtype: torch.dtype = torch.float32) -> Unlabelled:
    """One oscillation per window, which sensors see by their place."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(1).normal(size=(N_SENSORS, 6))
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    waves = np.sin(phase + np.arange(16) / 2) * places[:, :1]
    x = torch.from_numpy(waves + 0.05 * rng.normal(size=waves.shape)).to(dtype)
    geometry = torch.from_numpy(places).to(dtype)
    kinds = torch.tensor([0, 0, 1, 2, 2])
    return Unlabelled(n, lambda rows: (x[rows], geometry.expand(len(rows), -1, -1),
                                       kinds.expand(len(rows), -1)))  # fmt: skip


def tokenizer(**settings) -> BrainTokenizer:
    torch.manual_seed(0)
    return BrainTokenizer(window=16, width=32, n_sources=3, n_heads=2, n_filters=8, ratios=(2, 2),
                          kernel=3, n_levels=2, codebook_size=16, **settings)  # fmt: skip


def shared() -> BrainTokenizer:
    """A tokenizer that draws nothing: no noise, no hidden sensors, codebooks that have started."""
    network = tokenizer(noise=0.0, hidden=0.0).double()
    for level in network.quantizer.levels:
        level.started.fill_(True)
        level.threshold = 0.0
    return network


def save(network: BrainTokenizer, out: Path) -> None:
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, out)


def run_shared(out: Path) -> None:
    network = shared()
    fit(network, windows(dtype=torch.float64), loss="own", lr=0.01, epochs=2, batch_size=8)
    save(network, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with launched() as world:
        run_shared(folder / f"shared.{world.rank}")
        network = tokenizer()
        fit(network, windows(), loss="own", lr=0.01, epochs=2, batch_size=8)
        save(network, folder / f"drawn.{world.rank}")
