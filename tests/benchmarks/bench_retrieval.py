"""Exact ranks beside the bare matrix product of the same sizes, in the same run.

Queries, candidates and 768 dimensions, float32, simulated. The limit is one BLAS product of all
queries with all candidates, in slices that write over one another, so that its memory is small
too. Both alternate; medians of the times, the ratio of every pair, and the memory that ranking adds
to that of its arguments (peak resident size of a process that does nothing else).

``python bench_retrieval.py [--large] [--n N] [--queries Q] [--repeats R] [--lists K]``
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from braindecode_pipe.evaluate.retrieval import retrieve

N_FEATURES = 768


def data(n: int, n_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that hold a trace of their candidate: ranks of all sizes occur."""
    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((n, N_FEATURES), np.float32)
    predictions = rng.standard_normal((n_queries, N_FEATURES), np.float32)
    predictions *= 20
    predictions += candidates[:n_queries]
    return predictions, candidates


def product(predictions: np.ndarray, candidates: np.ndarray) -> float:
    """Seconds of the bare product, in slices of 200 MB of scores."""
    size = max(1, 50_000_000 // len(candidates))
    buffer = np.empty((min(size, len(predictions)), len(candidates)), np.float32)
    began = time.perf_counter()
    for start in range(0, len(predictions), size):
        part = predictions[start : start + size]
        np.matmul(part, candidates.T, out=buffer[: len(part)])
    return time.perf_counter() - began


def peak() -> float:
    """Highest resident size of this process so far, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def memory(n: int, n_queries: int, k: int) -> None:
    predictions, candidates = data(n, n_queries)
    names = [str(i) for i in range(n)]
    before = peak()
    retrieve(predictions, candidates, names[:n_queries], names, k=k)
    print(f"{peak() - before:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true", help="100,000 x 100,000")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--queries", type=int, help="fewer queries than candidates")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lists", type=int, default=5, help="best candidates listed per query")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    n = 100_000 if given.large else given.n
    n_queries = min(n, given.queries or n)
    if given.memory:
        return memory(n, n_queries, given.lists)
    blas = [(i["internal_api"], i.get("architecture"), i["num_threads"]) for i in threadpool_info()]
    print(
        f"{n_queries} queries x {n} candidates x {N_FEATURES}, BLAS {blas}, lists of {given.lists}"
    )
    predictions, candidates = data(n, n_queries)
    names = [str(i) for i in range(n)]
    bare, ranked = [], []
    product(predictions[:1000], candidates[:1000])
    for _ in range(given.repeats):
        bare.append(product(predictions, candidates))
        began = time.perf_counter()
        found = retrieve(predictions, candidates, names[:n_queries], names, k=given.lists)
        ranked.append(time.perf_counter() - began)
        print(f"product {bare[-1]:.2f} s, ranks {ranked[-1]:.2f} s: {ranked[-1] / bare[-1]:.2f}")
    ratios = [r / b for r, b in zip(ranked, bare)]
    print(f"median ratio {statistics.median(ratios):.2f} (goal 1.5, limit 1.8)")
    print(f"median rank {np.median(found.rank):.0f} of {n}, {(found.ties > 1).sum()} queries tied")
    sizes = {"--n": n, "--queries": n_queries, "--lists": given.lists}
    command = [sys.executable, __file__, "--memory", *(str(a) for p in sizes.items() for a in p)]
    added = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(f"memory added {int(added)} MB (limit 1000)")
    return None


if __name__ == "__main__":
    main()
