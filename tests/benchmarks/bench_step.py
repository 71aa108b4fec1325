"""A training step of the encoder of Defossez et al.: ours beside the paper's, layer by layer.

270 sensors x 360 samples, 1024 features out, batch 32, one thread: forward, contrastive loss,
backward, AdamW. The peer states the paper's network with plain torch layers. Both alternate in one
run; medians, and the share of the convolution rate that this machine reaches in the same run.

``python bench_step.py [--quick]``
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
from torch import nn

from braindecode_pipe.fitting.losses import clip_loss
from braindecode_pipe.networks.blocks import fourier_features
from braindecode_pipe.networks.convolution import ConvEncoder

N_SENSORS, N_TIMES, N_OUT, N_SUBJECTS = 270, 360, 1024, 27


class Plain(nn.Module):
    """The network as the paper writes it, one layer after the other (arXiv 2208.12266)."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Parameter(torch.randn(270, 2048) / math.sqrt(2048))
        self.initial = nn.Conv1d(270, 270, 1)
        self.subjects = nn.Parameter(torch.randn(N_SUBJECTS, 270, 270) / math.sqrt(270))
        self.convs = nn.ModuleList(
            nn.Conv1d(270 if k == 0 else 320, 320, 3, dilation=2 ** (k % 5), padding="same")
            for k in range(10)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(320) for _ in range(10))
        self.gates = nn.ModuleList(nn.Conv1d(320, 640, 3, padding="same") for _ in range(5))
        self.head = nn.Sequential(nn.Conv1d(320, 640, 1), nn.GELU(), nn.Conv1d(640, N_OUT, 1))

    def forward(self, x, positions, mask, subject):
        features = fourier_features(positions, 2048)
        scores = torch.einsum("of,bcf->boc", self.heads, features)
        out = (positions - torch.rand(2)).norm(dim=-1) <= 0.2
        x = scores.masked_fill(out[:, None], -math.inf).softmax(-1) @ x
        x = torch.einsum("bct,bcd->bdt", self.initial(x), self.subjects[subject])
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            y = nn.functional.gelu(norm(conv(x)))
            x = y + x if k else y
            if k % 2:
                x = nn.functional.glu(self.gates[k // 2](x), dim=1)
        return self.head(x)


def step(network, optimizer, batch, half):
    x, positions, mask, subject, target = batch
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        estimate = network(x, positions, mask, subject)
    clip_loss(estimate.float(), target).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def convolution_rate(half: bool, batch: int) -> float:
    """GFLOP/s of the network's own largest convolution, forward and backward."""
    conv = nn.Conv1d(320, 640, 3, padding="same")
    x = torch.randn(batch, 320, N_TIMES, requires_grad=True)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = conv(x)
        y.float().sum().backward()
        times.append(time.perf_counter() - began)
    return 3 * 2 * 320 * 640 * 3 * N_TIMES * batch / min(times[1:]) / 1e9


def step_flops(batch: int) -> float:
    """Products and sums of a step: three times the forward pass of what has to be computed."""
    front = 270 * N_SENSORS
    blocks = 270 * 320 * 3 + 9 * 320 * 320 * 3 + 5 * 320 * 640 * 3
    head = 320 * 640 + 640 * N_OUT
    return 3 * 2 * (front + blocks + head) * N_TIMES * batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="batch 8, two alternations")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    batch, rounds = (8, 2) if quick else (32, 5)
    torch.manual_seed(0)
    data = (
        torch.randn(batch, N_SENSORS, N_TIMES),
        torch.rand(N_SENSORS, 2).expand(batch, -1, -1).contiguous(),
        torch.ones(batch, N_SENSORS, dtype=torch.bool),
        torch.arange(batch) % 4,
        torch.randn(batch, N_OUT, N_TIMES),
    )
    print(f"batch {batch}, {N_SENSORS} x {N_TIMES}, one thread, medians of {rounds} alternations")
    for half in (False, True):
        networks = {"plain": Plain(), "ours": ConvEncoder(N_OUT, N_SUBJECTS)}
        optimizers = {k: torch.optim.AdamW(n.parameters(), 3e-4) for k, n in networks.items()}
        times: dict[str, list[float]] = {name: [] for name in networks}
        for turn in range(rounds + 1):
            for name, network in networks.items():
                seconds = step(network.train(), optimizers[name], data, half)
                if turn:  # the first pair warms up
                    times[name].append(seconds)
        rate = convolution_rate(half, batch)
        plain, ours = (statistics.median(times[name]) for name in ("plain", "ours"))
        share = step_flops(batch) / ours / 1e9 / rate
        print(
            f"{'bf16' if half else 'float32':8s} plain {1e3 * plain / batch:6.1f} ms/sample, "
            f"ours {1e3 * ours / batch:6.1f}, samples/s ratio {plain / ours:.2f}, "
            f"convolution rate {rate:.0f} GFLOP/s, share of it {share:.2f}"
        )


if __name__ == "__main__":
    main()
