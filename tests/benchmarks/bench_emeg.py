"""Speed and memory of M/EEG preprocessing, beside MNE's own chain in the same run.

``python tests/benchmarks/bench_emeg.py [--quick] [FOLDER]``. Not part of the tests: the figures
depend on the machine, their ratios less so. Every run is a process of its own with one compute
thread; the implementations take turns, and medians are compared. Peak memory is what a run adds to
the process after its imports. The recordings are simulated (noise with a line).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# name: channels, minutes, mne type
CASES = {"MEG 270 x 10 min": (270, 10, "mag"), "EEG 64 x 30 min": (64, 30, "eeg")}
QUICK = {"MEG 270 x 1 min": (270, 1, "mag"), "EEG 64 x 3 min": (64, 3, "eeg")}
SFREQ, LINES = 1000.0, [50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 450.0]
SECTION = {"notch": [50.0], "l_freq": 0.1, "h_freq": 40.0, "sfreq": 120.0, "clamp": 20.0}
ROW = dict.fromkeys(["session", "task", "run"], "") | {
    "recording": "a", "subject": "01", "datatype": "meg", "path": "a_raw.fif",
    "content_hash": "0" * 64,
}  # fmt: skip
TARGET, MEMORY_MB, WORKERS = 0.15, 420, 1.5


def simulate(file: Path, n_channels: int, minutes: float, kind: str, seed: int = 0) -> None:
    """Write a FIF file of correlated noise, drift and a line, minute by minute."""
    import mne

    rng = np.random.default_rng(seed)
    info = mne.create_info(n_channels, SFREQ, kind)
    unit = 1e-12 if kind == "mag" else 2e-5
    maps = rng.standard_normal((n_channels, 8))
    n_times = int(minutes * 60 * SFREQ)
    data = np.empty((n_channels, n_times))
    for start in range(0, n_times, 60_000):
        t = np.arange(start, min(start + 60_000, n_times)) / SFREQ
        sources = rng.standard_normal((8, len(t)), dtype=np.float32)
        sources[0] += 3 * np.sin(2 * np.pi * 50 * t) + 5 * np.sin(2 * np.pi * 0.02 * t)
        noise = rng.standard_normal((n_channels, len(t)), dtype=np.float32)
        data[:, start : start + len(t)] = unit * (maps @ sources + noise)
    raw = mne.io.RawArray(data, info, copy=None, verbose="error")
    raw.save(file, fmt="single", verbose="error")


def chain_of_mne(file: Path, out: Path) -> None:
    """MNE step by step, robust scaling and clamp by numpy, into the same kind of store."""
    import mne

    raw = mne.io.read_raw_fif(file, preload=True, verbose="error")
    raw.notch_filter(LINES, picks="all", verbose="error")
    raw.filter(0.1, 40.0, picks="all", verbose="error")
    raw.resample(120.0, method="polyphase", verbose="error")
    data = raw.get_data()
    low, middle, high = np.percentile(data, [25, 50, 75], axis=1)
    data = np.clip((data - middle[:, None]) / (high - low)[:, None], -20, 20).astype(np.float32)
    _write(data, raw.info["ch_names"], out)


def engine_alone(file: Path, out: Path) -> None:
    """Our filters, scaler and clamp without any check or quality figure."""
    import mne

    from braindecode_pipe.preprocess import engines, output
    from braindecode_pipe.preprocess.blocks import pieces_of
    from braindecode_pipe.preprocess.scratch import Scratch, write_along
    from braindecode_pipe.preprocess.sources import level, open_source
    from braindecode_pipe.preprocess.steps import Log
    from braindecode_pipe.recipe import EmegSection
    from braindecode_pipe.store import StoreWriter

    section, log = EmegSection(**SECTION), Log()
    raw = mne.io.read_raw_fif(file, verbose="error")
    picks, n = list(range(len(raw.ch_names))), raw.n_times
    plan = engines.plan_filter(section, SFREQ, n / SFREQ, log)
    with open_source(raw, picks, raw.info, file, file.parent, out, []) as source:
        shape = (len(picks), plan.kernel.n_out(n))
        with Scratch(out, shape, np.float32, blank=True) as result:
            engine = engines.FastEngine(plan, out)
            offset = level(source, pieces_of(n, []))
            engine.start(source, result, offset, None)
            zero = engine.finish(source, engines.Spatial(np.eye(len(picks))), result, offset)
            sensors = mne.io.RawArray(np.eye(len(picks)), raw.info, verbose="error")
            good = np.ones(shape[1], bool)
            rows = output.Rows(section, result, zero, sensors, 120.0, good, [], log)
            rows.fit(result, zero, good)
            rows.watch([])
            template = _dataset(np.broadcast_to(np.float32(0), shape), raw.info["ch_names"])
            with StoreWriter(out, {"": template}) as writer:
                write_along(writer, "signal", "time", shape[1], rows.final)


def whole_stage(file: Path, out: Path) -> None:
    """``preprocess.run``, with checks, bad channels and quality figures."""
    from braindecode_pipe.preprocess import run
    from braindecode_pipe.recipe import PreprocessSection

    row = ROW | {"path": file.name}
    run(PreprocessSection(emeg=SECTION), row, file.parent, out, allow_truncated=False,
        data_origin="simulated")  # fmt: skip


def _dataset(data: np.ndarray, names: list[str]):
    from braindecode_pipe.schema import sensor_coords, signal_dataset

    coords = sensor_coords(list(names), "eeg", "a.u.")
    times = np.arange(data.shape[1]) / 120.0
    return signal_dataset(data, coords, times, {"sfreq": 120.0, "data_origin": "simulated"})


def _write(data: np.ndarray, names: list[str], out: Path) -> None:
    from braindecode_pipe.store import write_store

    write_store(out, {"": _dataset(data, names)})


WAYS = {"mne": chain_of_mne, "engine": engine_alone, "stage": whole_stage}


def _peak_mb() -> float:
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) / 1024


def run_one(way: str, file: Path, out: Path) -> None:
    """Run one implementation in this process; print seconds and megabytes as JSON.

    A tiny recording goes before, so that nothing is imported while the clock runs.
    """
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        tiny = Path(folder) / "a_raw.fif"
        simulate(tiny, 10, 1.0, "mag")
        for name in WAYS:
            WAYS[name](tiny, Path(folder) / "a.zarr")
    before, start = _peak_mb(), time.perf_counter()
    WAYS[way](file, out)
    took = time.perf_counter() - start
    print(json.dumps({"seconds": took, "megabytes": _peak_mb() - before}))


def measure(way: str, file: Path, out: Path) -> dict[str, float]:
    """One run in a new process with one thread."""
    env = os.environ | dict.fromkeys(
        ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1"
    )
    command = [sys.executable, __file__, "--one", way, str(file), str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, n_channels: int, minutes: float, kind: str, folder: Path, n: int) -> None:
    """Print one case."""
    file = folder / f"{kind}_raw.fif"
    simulate(file, n_channels, minutes, kind)
    # The stores wait for the disk, which should not be busy with the recording.
    os.sync()
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(n):
        for way in WAYS:
            out = folder / f"{kind}-{way}.zarr"
            runs[way].append(measure(way, file, out))
    times = {way: statistics.median(r["seconds"] for r in found) for way, found in runs.items()}
    print(f"{name} at 1 kHz, {n} runs each, one thread")
    for way, found in runs.items():
        spread = f"{min(r['seconds'] for r in found):.2f}-{max(r['seconds'] for r in found):.2f}"
        memory = max(r["megabytes"] for r in found)
        ratio = times[way] / times["mne"]
        print(f"  {way:7s}{times[way]:8.2f} s ({spread})  ratio {ratio:.3f}  +{memory:.0f} MB")
    ratio, memory = times["engine"] / times["mne"], max(r["megabytes"] for r in runs["stage"])
    print(f"  engine / mne {ratio:.3f} (at most {TARGET})")
    print(f"  stage / engine {times['stage'] / times['engine']:.2f}")
    print(f"  memory {memory:.0f} MB (at most {MEMORY_MB})")
    file.unlink()


def two_workers(minutes: float, folder: Path) -> None:
    """Print the gain of a second worker on two recordings; both started before the clock."""
    from braindecode_pipe.executor import Executor, Task
    from braindecode_pipe.recipe import PreprocessSection

    def tasks(jobs: str, recordings: list[str]) -> list[Task]:
        return [
            Task(name, "braindecode_pipe.preprocess:run", {
                "section": PreprocessSection(emeg=SECTION), "data": folder,
                "recording": ROW | {"path": f"{name}_raw.fif"}, "allow_truncated": False,
                "data_origin": "simulated", "out": folder / f"{jobs}-{name}.zarr",
            })
            for name in recordings
        ]  # fmt: skip

    def report(outcome) -> None:
        if outcome.error:
            raise SystemExit(outcome.error)

    for seed, name in enumerate("abcd"):
        simulate(folder / f"{name}_raw.fif", 270, minutes if name in "ab" else 0.1, "mag", seed)
    # The stores wait for the disk, which should not be busy with the recordings.
    os.sync()
    took: dict[int, list[float]] = {1: [], 2: []}
    with Executor(1) as one, Executor(2) as two:
        for executor in (one, two):
            executor.run(tasks(f"warm{executor.jobs}", ["c", "d"]), report)
        for _ in range(5):
            for executor in (one, two):
                start = time.perf_counter()
                executor.run(tasks(str(executor.jobs), ["a", "b"]), report)
                took[executor.jobs].append(time.perf_counter() - start)
    single, double = (statistics.median(took[jobs]) for jobs in (1, 2))
    ranges = {jobs: f"{min(times):.2f}-{max(times):.2f}" for jobs, times in took.items()}
    print(f"two recordings of {minutes} min: {single:.2f} s ({ranges[1]}) with one worker, "
          f"{double:.2f} s ({ranges[2]}) with two: {single / double:.2f} x "
          f"(at least {WORKERS})")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="small recordings, one run each")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FILE", "OUT"))
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one[0], Path(arguments.one[1]), Path(arguments.one[2]))
        sys.exit()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        for case, (channels, length, sort) in (QUICK if arguments.quick else CASES).items():
            compare(case, channels, length, sort, Path(temporary), 1 if arguments.quick else 3)
        two_workers(1 if arguments.quick else 10, Path(temporary))
