"""Speed of window reads, beside numpy's memmap and a plain copy in the same run.

``python tests/benchmarks/bench_store.py [FOLDER]``. Not part of the tests: the figures depend on
the machine, their ratios less so.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from braindecode_pipe.schema import sensor_coords, signal_dataset
from braindecode_pipe.store import open_signal, open_store, verify_store, write_store
from braindecode_pipe.store.layout import crc32c

# name: sensors, samples, kind, samples per window
CASES = {
    "EEG 64 x 1 h at 120 Hz, 3 s": (64, 432_000, "eeg", 360),
    "MEG 306 x 20 min at 120 Hz, 3 s": (306, 144_000, "mag", 360),
    "fMRI 30000 voxels x 900 scans, 5 scans": (30_000, 900, "voxel", 5),
}
N_WINDOWS = 500


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Shortest time of a few."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(folder: Path, name: str) -> None:
    """Print one case."""
    n_sensors, n_times, kind, width = CASES[name]
    rng = np.random.default_rng(0)
    data = rng.standard_normal((n_sensors, n_times), dtype=np.float32)
    unit = "a.u." if kind == "voxel" else "T" if kind == "mag" else "V"
    sensors = sensor_coords([str(i) for i in range(n_sensors)], kind, unit)
    attrs = {"sfreq": 120.0, "data_origin": "simulated"}
    path = folder / f"{kind}.zarr"
    dataset = signal_dataset(data, sensors, np.arange(n_times) / 120.0, attrs)
    write = seconds(lambda: write_store(path, {"": dataset}), 1)
    verify = seconds(lambda: verify_store(path), 1)
    checksum = seconds(lambda: crc32c(data.reshape(-1).view("u1")))

    starts = rng.integers(0, n_times - width, N_WINDOWS)
    raw = folder / f"{kind}.raw"
    time_first = kind == "voxel"
    (data.T if time_first else data).tofile(raw)
    shape = (n_times, n_sensors) if time_first else (n_sensors, n_times)
    mapped = np.memmap(raw, np.float32, "r", shape=shape)
    mapped = mapped.T if time_first else mapped
    buffer = np.empty((width, n_sensors) if time_first else (n_sensors, width), np.float32)
    buffer = buffer.T if time_first else buffer
    source = buffer.copy(order="K")

    first = seconds(lambda: open_signal(path).read(0, n_times), 1)
    signal, lazy = open_signal(path), open_store(path)["signal"]
    signal.read(0, n_times)

    def by(read: Callable[[int], object], n: int = N_WINDOWS) -> float:
        return seconds(lambda: [read(int(a)) for a in starts[:n]]) / n * 1e6

    ours = by(lambda a: signal.read(a, a + width, out=buffer))
    numpy = by(lambda a: np.copyto(buffer, mapped[:, a : a + width]))
    copy = by(lambda a: np.copyto(buffer, source))
    zarr = by(lambda a: lazy[:, a : a + width].values, 10)
    gigabytes = data.nbytes / 1e9
    print(f"{name}: {gigabytes:.2f} GB")
    print(f"  write {gigabytes / write:6.2f} GB/s   verify {gigabytes / verify:6.2f} GB/s")
    print(f"  read whole, with checksums {gigabytes / first:6.2f} GB/s")
    print(f"  crc32c alone {gigabytes / checksum:6.2f} GB/s")
    print(f"  window {ours:8.1f} us = {ours / numpy:.2f} x memmap, {ours / copy:.2f} x memcpy")
    print(f"  the same through xarray and zarr {zarr:8.1f} us = {zarr / ours:.0f} x")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        for case in CASES:
            measure(Path(temporary), case)
