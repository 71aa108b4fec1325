"""Shuffled batches of windows from a store: ours beside plain copies and others' ways, in one run.

A simulated recording of 270 sensors x 1 h at 120 Hz (float32, a valid Zarr v3 store by this
package's writer); batches of 256 windows of 270 x 360 at random onsets, overlapping. All ways
alternate in one run, medians of five, wall and CPU time. One thread.

* *memcpy*: the same bytes, one copy of a whole batch from memory to memory.
* *memmap*: numpy's fancy index into an array of windows that were cut before (no overlap, so
  1200 windows an hour), and slices of one memory-mapped array ``(sensors, time)``.
* *zarr*: zarr-python, one slice of the same store per window.
* *segments*: an emulation of neuralset's way, which cannot be installed here: a torch Dataset of
  Python objects, one per segment, each sliced out of a memory-mapped recording, turned into a
  tensor and given with its metadata to torch's default collate.

``python bench_feed.py [--quick] [FOLDER]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from braindecode_pipe.fitting.examples import batches
from braindecode_pipe.fitting.feeding import Feeder, shuffled_by_chunks
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import AugmentSection, WindowSection
from braindecode_pipe.schema import sensor_coords, signal_dataset
from braindecode_pipe.store import open_signal, write_store
from braindecode_pipe.store import signal as store_signal
from braindecode_pipe.train.networks import Inputs

N_SENSORS, SFREQ, WIDTH, SIZE = 270, 120.0, 360, 256


def make(folder: Path, n_times: int) -> tuple[Path, Path, Path]:
    """The store, the raw array and the array of cut windows."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((N_SENSORS, n_times), dtype=np.float32)
    sensors = sensor_coords([str(i) for i in range(N_SENSORS)], "mag", "T")
    attrs = {"sfreq": SFREQ, "data_origin": "simulated"}
    store, raw, cut = folder / "meg.zarr", folder / "meg.raw", folder / "meg.cut"
    write_store(store, {"": signal_dataset(data, sensors, np.arange(n_times) / SFREQ, attrs)})
    data.tofile(raw)
    n = n_times // WIDTH
    data[:, : n * WIDTH].reshape(N_SENSORS, n, WIDTH).swapaxes(0, 1).tofile(cut)
    os.sync()  # pages that are not written yet cannot be dropped
    return store, raw, cut


@dataclass
class Segment:
    """What an emulated dataset keeps of an event."""

    recording: np.ndarray
    start: float
    duration: float
    subject: str
    trial: dict[str, object]

    def read(self) -> torch.Tensor:
        first = round(self.start * SFREQ)
        return torch.from_numpy(
            np.array(self.recording[:, first : first + round(self.duration * SFREQ)])
        )


class SegmentDataset(torch.utils.data.Dataset):
    """Emulation of a dataset of segments; not neuralset's code."""

    def __init__(self, recording: np.ndarray, onsets: np.ndarray) -> None:
        self.segments = [
            Segment(recording, float(t), WIDTH / SFREQ, "01", {"word": str(i), "index": i})
            for i, t in enumerate(onsets)
        ]

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> dict[str, object]:
        segment = self.segments[index]
        return {"meg": segment.read(), "subject": segment.subject, **segment.trial}


def drop(paths: Sequence[Path]) -> None:
    """Forget maps, checks and cached pages."""
    maps = store_signal._maps
    maps._maps.clear()
    maps._verified.clear()
    maps._bytes = 0
    for path in paths:
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.is_file():
                descriptor = os.open(file, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def alternate(
    ways: dict[str, Callable[[], int]], repeats: int, before: Callable[[], None] = lambda: None
) -> dict[str, tuple[float, float]]:
    """Windows per second of wall and of CPU time, medians over turns that alternate."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            before()
            wall, cpu = time.perf_counter(), time.process_time()
            n = work()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            seen[name].append((n / wall, n / max(cpu, 1e-9)))
    return {
        name: tuple(statistics.median(pair[k] for pair in pairs) for k in (0, 1))
        for name, pairs in seen.items()
    }


def show(title: str, rates: dict[str, tuple[float, float]], peer: str) -> None:
    print(title)
    for name, (wall, cpu) in rates.items():
        print(
            f"  {name:42s} {wall:8.0f} windows/s  {wall / rates[peer][0]:6.3f} of {peer}"
            f"   CPU {cpu:8.0f}/s  {cpu / rates[peer][1]:6.3f}"
        )


def crowding(chunk: np.ndarray, order: np.ndarray, size: int) -> float:
    """How many times more often than in a full shuffle two windows of a chunk share a batch."""
    total = np.bincount(chunk).astype(float)
    pairs = (total * (total - 1)).sum() * (size - 1) / (len(order) - 1)
    found = sum(
        (c * (c - 1)).sum()
        for part in np.split(order, range(size, len(order), size))
        for c in [np.bincount(chunk[part]).astype(float)]
    )
    return float(found / pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where files go; default: a temporary folder")
    parser.add_argument("--quick", action="store_true", help="12 minutes, two turns")
    given = parser.parse_args()
    n_times, repeats = (86_400, 2) if given.quick else (432_000, 5)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        measure(Path(temporary), n_times, repeats)


def measure(folder: Path, n_times: int, repeats: int) -> None:
    store = make(folder, n_times)[0]
    rng = np.random.default_rng(1)
    n_cut = n_times // WIDTH
    onsets = np.sort(rng.uniform(0, (n_times - WIDTH - 1) / SFREQ, 4 * n_cut))
    events = pd.DataFrame(
        {"event": [str(i) for i in range(len(onsets))], "recording": "a", "subject": "01",
         "onset": onsets, "duration": 0.0}
    )  # fmt: skip
    windows = Windows({"a": open_signal(store)}, events, WindowSection(tmax=WIDTH / SFREQ))
    rows, first = windows.rows(), np.floor(onsets * SFREQ + 0.5).astype(int)
    buffer = warm(folder, windows, rows, first, repeats)
    cold(folder, windows, first, buffer, repeats)
    feeder_rates(windows, rows, repeats)
    randomness(windows, rows)


def warm(
    folder: Path, windows: Windows, rows: np.ndarray, first: np.ndarray, repeats: int
) -> np.ndarray:
    """All in memory. Returns the buffer of a batch."""
    store, raw, cut = (folder / f"meg.{end}" for end in ("zarr", "raw", "cut"))
    rng, n_times = np.random.default_rng(4), windows._signals["a"].n_times
    n_cut = n_times // WIDTH
    buffer = np.zeros((SIZE, N_SENSORS, WIDTH), np.float32)
    source = rng.standard_normal(buffer.shape, dtype=np.float32)
    mapped = np.memmap(raw, np.float32, "r", shape=(N_SENSORS, n_times))
    pieces = np.memmap(cut, np.float32, "r", shape=(n_cut, N_SENSORS, WIDTH))
    segments = SegmentDataset(mapped, first / SFREQ)
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = zarr.open(str(store), mode="r")["signal"]

    def some(n: int = SIZE) -> np.ndarray:
        return rng.choice(rows, n, replace=False)

    def ours() -> int:
        return len(windows.read(some(), buffer))

    def memcpy() -> int:
        np.copyto(buffer, source)
        return SIZE

    def fancy() -> int:
        return len(pieces[rng.choice(n_cut, min(SIZE, n_cut), replace=False)])

    def slices() -> int:
        for place, start in enumerate(first[some()]):
            buffer[place] = mapped[:, start : start + WIDTH]
        return SIZE

    def by_zarr() -> int:
        np.stack([lazy[:, a : a + WIDTH] for a in first[some(8)]])
        return 8

    def by_segments() -> int:
        loader = torch.utils.data.DataLoader(
            segments, SIZE, sampler=torch.from_numpy(some()), num_workers=0
        )
        return sum(len(batch["meg"]) for batch in loader)

    windows.read(rows[:: max(1, len(rows) // 500)])
    ways = {
        "memcpy": memcpy, "ours, Windows.read": ours, "memmap fancy index, windows cut before":
        fancy, "memmap slices": slices, "emulated segments + torch collate": by_segments,
        "zarr-python, a slice per window": by_zarr,
    }  # fmt: skip
    for work in ways.values():
        work()
    rates = alternate(ways, 3 * repeats)
    show(f"warm, batches of {SIZE}, {len(rows)} windows", rates, "memcpy")
    own, copy, others = (
        rates[name]
        for name in ("ours, Windows.read", "memcpy", "emulated segments + torch collate")
    )
    for k, clock in enumerate(("wall", "CPU")):
        print(
            f"  ours, {clock}: {own[k] / copy[k]:.2f} of memcpy (goal 0.40), "
            f"{own[k] / others[k]:.1f} x emulated segments (goal 10)"
        )
    return buffer


def cold(folder: Path, windows: Windows, first, buffer: np.ndarray, repeats: int) -> None:
    """Nothing in memory, checksums on: a whole epoch, and its first batch."""
    store, raw, cut = (folder / f"meg.{end}" for end in ("zarr", "raw", "cut"))
    rng, n_times = np.random.default_rng(2), windows._signals["a"].n_times
    n_cut = n_times // WIDTH
    rows = np.sort(rng.choice(windows.rows(), n_cut, replace=False))

    def ours(n: int) -> int:
        for part in batches(n_cut, SIZE, rng)[:n]:
            windows.read(rows[part], buffer[: len(part)] if len(part) <= SIZE else None)
        return n_cut if n > 1 else SIZE

    def fancy(n: int) -> int:
        pieces = np.memmap(cut, np.float32, "r", shape=(n_cut, N_SENSORS, WIDTH))
        for part in batches(n_cut, SIZE, rng)[:n]:
            pieces[part]
        return n_cut if n > 1 else SIZE

    def slices(n: int) -> int:
        mapped = np.memmap(raw, np.float32, "r", shape=(N_SENSORS, n_times))
        for part in batches(n_cut, SIZE, rng)[:n]:
            for place, start in enumerate(first[rows[part]][:SIZE]):
                buffer[place] = mapped[:, start : start + WIDTH]
        return n_cut if n > 1 else SIZE

    named = {"memmap fancy index, windows cut before": fancy, "ours, Windows.read, checksums on":
             ours, "memmap slices": slices}  # fmt: skip
    for title, n in ((f"cold, an epoch of {n_cut} windows", 10_000), ("cold, its first batch", 1)):
        rates = alternate(
            {name: (lambda work=work, n=n: work(n)) for name, work in named.items()},
            repeats, lambda: drop([store, raw, cut]),
        )  # fmt: skip
        show(title, rates, "memmap fancy index, windows cut before")


def feeder_rates(windows: Windows, rows: np.ndarray, repeats: int) -> None:
    """The whole way to the loop's door: read ahead, scaled, augmented; nobody trains."""
    view, n = windows.view(rows), len(rows)
    inputs = Inputs(
        "conv", view, np.zeros((1, N_SENSORS, 1)), np.ones((1, N_SENSORS, 1)),
        np.zeros(n, np.int64), np.zeros((1, N_SENSORS, 2), np.float32),
        np.ones((1, N_SENSORS), bool),
    )  # fmt: skip
    cases = {
        "plain": AugmentSection(), "shift_s": AugmentSection(shift_s=0.1),
        "channel_dropout": AugmentSection(channel_dropout=0.1),
        "mixup": AugmentSection(mixup=0.4), "noise": AugmentSection(noise=0.1),
    }  # fmt: skip
    order = batches(n, SIZE, np.random.default_rng(3))[:4]

    def through(augment: AugmentSection) -> Callable[[], int]:
        fed = Feeder(inputs, torch.zeros(n, 1), torch.arange(n), np.arange(n), augment=augment)

        def epoch() -> int:
            with fed.ahead(1, order) as feed:
                return sum(len(stimuli) for _, _, stimuli in feed)

        return epoch

    ways = {f"Feeder, scaled, {name}": through(augment) for name, augment in cases.items()}
    for work in ways.values():
        work()
    show("warm, through the feeder", alternate(ways, repeats), "Feeder, scaled, plain")


def randomness(windows: Windows, rows: np.ndarray) -> None:
    number, size = windows.chunks(rows)
    total = size[np.unique(number, return_index=True)[1]].sum()
    print(f"order by chunks: {len(set(number))} chunks, {total / 2**20:.0f} MiB")
    for share in (1.0, 0.5, 0.25, 0.125):
        orders = [
            shuffled_by_chunks(number, size, int(share * total), np.random.default_rng(seed))
            for seed in range(20)
        ]
        crowd = statistics.mean(crowding(number, order, SIZE) for order in orders)
        print(
            f"  memory {share:5.3f} of the store: two windows of a chunk share a batch "
            f"{crowd:.2f} times as often as in a full shuffle"
        )


if __name__ == "__main__":
    sys.exit(main())
