"""How many times faster than real time sensors become codes and back, beside matrix products.

64 EEG electrodes and 306 MEG coils (noise, random weights of the published size), 2 s windows at
256 Hz, float32 and bfloat16. The share is that of the rate at which this machine multiplies
square matrices of 1024 in the same type; both alternate in one run. Times are of the processor
(all threads), divided by the threads, so that other work on the machine counts less; ``--wall``
takes the clock.

``python bench_tokenizer.py [--threads 2] [--windows 8] [--repeats 5] [--wall]``
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from braindecode_pipe.networks.omni import BrainOmni
from braindecode_pipe.networks.sensors import normalize_signal, sensor_geometry
from braindecode_pipe.networks.tokenizer import BrainTokenizer

SIZE = 1024
ARRAYS = {"64 EEG": [0] * 64, "306 MEG": [1, 2, 2] * 102}


def multiplications(tokenizer: BrainTokenizer, n_sensors: int) -> dict[str, float]:
    """Multiply-adds of a window: every weight of a layer counts at every place it is used."""
    steps, width = tokenizer.steps_per_window, len(tokenizer.sensors.norm.weight)
    per_row = []
    for coder, row in (
        (tokenizer.encoder, torch.zeros(1, tokenizer.window)),
        (tokenizer.decoder, torch.zeros(1, steps, width)),
    ):
        counts = [steps * sum(p.numel() for p in coder.recurrent.parameters() if p.ndim == 2)]

        def count(layer, inputs, output, counts=counts):
            longer = max(inputs[0].shape[1], output.shape[1])
            counts.append(layer.direction.numel() * longer // getattr(layer, "ratio", 1))

        layers = [m for m in coder.modules() if hasattr(m, "direction")]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        coder(row)
        for hook in hooks:
            hook.remove()
        per_row.append(sum(counts))
    sources = len(tokenizer.gather.sources)
    attention = steps * 2 * sources * tokenizer.gather.n_heads * width
    return {"encode": n_sensors * (per_row[0] + attention), "decode": n_sensors * per_row[1]}


def clock(wall: bool) -> Callable[[], float]:
    """Seconds of the clock, or of the processor per thread."""
    if wall:
        return time.perf_counter
    return lambda: time.process_time() / torch.get_num_threads()


def measure(tasks: dict[str, Callable[[], object]], repeats: int, wall: bool) -> dict[str, float]:
    """Median seconds of each task, all in turn."""
    now, seconds = clock(wall), {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(repeats):
        for name, task in tasks.items():
            start = now()
            task()
            seconds[name].append(now() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--wall", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokenizer = BrainTokenizer().eval()
    omni = BrainOmni.of(tokenizer).eval()
    duration = 2.0 * options.windows
    print(f"{options.threads} threads, {options.windows} windows of 2 s, "
          f"{'clock' if options.wall else 'processor time per thread'}")  # fmt: skip
    torch.set_grad_enabled(False)
    for kind in (torch.float32, torch.bfloat16):
        square = torch.randn(SIZE, SIZE, dtype=kind)
        tasks: dict[str, Callable[[], object]] = {"matmul": lambda square=square: square @ square}
        work = {"matmul": float(SIZE**3)}
        for name, kinds in ARRAYS.items():
            kinds = torch.tensor(kinds)
            geometry = sensor_geometry(*torch.randn(2, len(kinds), 3), kinds)
            x = torch.randn(1, len(kinds), 512 * options.windows)
            x = normalize_signal(x, kinds)
            tokens = tokenizer.encode(x, geometry, kinds)
            cost = multiplications(tokenizer, len(kinds))
            tasks[f"{name} encode"] = lambda x=x, g=geometry, k=kinds: tokenizer.encode(x, g, k)
            tasks[f"{name} decode"] = lambda c=tokens.codes, g=geometry, k=kinds: tokenizer.decode(
                c, g, k
            )
            work |= {f"{name} {way}": n * options.windows for way, n in cost.items()}
        tasks["omni tiny"] = lambda codes=tokens.codes: omni.encode(codes)
        with torch.autocast("cpu", dtype=kind, enabled=kind != torch.float32):
            seconds = measure(tasks, options.repeats, options.wall)
        peak = 2 * work["matmul"] / seconds["matmul"]
        print(f"{str(kind).removeprefix('torch.')}: matmul {peak / 1e9:.0f} GFLOP/s")
        for name, taken in seconds.items():
            if name != "matmul":
                share = f", {2 * work[name] / taken / peak:5.0%} of matmul" if name in work else ""
                print(f"  {name:16s} {duration / taken:7.1f} x real time{share}")


if __name__ == "__main__":
    main()
