"""Brain tokens beside the same attention with every key and value formed.

``python tests/benchmarks/bench_brain_tokens.py [--quick]``. One thread. The peer is the formula
word for word: ``a_j e_j``, its key and value, a softmax by scatter. Both start from the same
weights, and their tokens and gradients are compared. A forward and backward pass of 128 clusters x
512, with the 15,000 voxels of a training step of Brain-IT; ``--quick`` has 3,000. Simulated data.
The figures depend on the machine, their ratios less so.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import torch  # noqa: E402

from braindecode_pipe.networks.brain_tokens import BrainTokens  # noqa: E402

BATCH = 4


def formed(network: BrainTokens, x: torch.Tensor) -> torch.Tensor:
    labels, n = network.cluster_0, network.n_clusters
    voxels = x[..., None] * network.people[0]
    queries = network.query(network.centres)[labels]
    scores = (network.key(voxels) * queries).sum(-1) / math.sqrt(network.width)
    index = labels.expand_as(scores)
    top = scores.new_full((len(x), n), -math.inf).scatter_reduce(1, index, scores, "amax")
    weights = (scores - top.gather(1, index)).exp()
    weights = weights / scores.new_zeros(len(x), n).scatter_add(1, index, weights).gather(1, index)
    sums = voxels.new_zeros(len(x), n, network.width)
    sums = sums.index_add(1, labels, weights[..., None] * network.value(voxels))
    return network.norm(torch.relu(network.root(network.centres) + sums))


def one(kind: str, n_voxels: int) -> None:
    """Seconds of a pass, growth of the peak in MiB, and what proves that both did the same."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = BrainTokens(n_voxels=[n_voxels])
    network.set_clusters(0, torch.randint(0, 128, (n_voxels,)))
    x = torch.randn(BATCH, n_voxels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(3):
        network.zero_grad()
        start = time.perf_counter()
        tokens = network(x) if kind == "own" else formed(network, x)
        tokens.square().sum().backward()
        times.append(time.perf_counter() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    check = [float(tokens.abs().sum()), float(network.people[0].grad.abs().sum())]
    print(min(times), grown, *check)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "VOXELS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], int(arguments.one[1]))
        return
    n_voxels = 3_000 if arguments.quick else 15_000
    found = {}
    for kind in ("formed", "own"):
        command = [sys.executable, __file__, "--one", kind, str(n_voxels)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[kind] = [float(value) for value in answer.split()]
    for kind, (seconds, grown, *_) in found.items():
        print(f"{kind:7} {seconds:8.3f} s  {grown:8.0f} MiB")
    own, peer = found["own"], found["formed"]
    difference = max(abs(a / b - 1) for a, b in zip(own[2:], peer[2:]))
    print(f"ratio   {own[0] / peer[0]:8.3f}    {own[1] / peer[1]:8.3f}")
    print(f"sums of tokens and gradients differ by {difference:.1e}")


if __name__ == "__main__":
    main()
