"""Run by test_commit.py: stops a writer at every file operation and looks at what is left.

``python kill_writes.py FOLDER fresh|overwrite|recover`` prints JSON:
``{"killed": number of kills, "old": times the old version was read, "new": ..., "none": ...}``.
Children are forked, so that each kill is a process that really ends, without starting Python anew.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from braindecode_pipe.errors import IncompleteStoreError
from braindecode_pipe.schema import sensor_coords, signal_dataset
from braindecode_pipe.store import open_store, verify_store, write_store

KILLED = 17


def dataset(value: float) -> xr.Dataset:
    sensors = sensor_coords(["Cz", "Pz"], "eeg", "V")
    data = np.arange(180, dtype=np.float32).reshape(2, 90) + np.float32(value)
    attrs = {"sfreq": 10.0, "data_origin": "simulated", "value": value}
    return signal_dataset(data, sensors, np.arange(90) / 10.0, attrs)


def write(path: Path, value: float, hook=None) -> None:
    qc = xr.Dataset({"psd": ("freq", np.full(3, value))})
    files = {"page.html": str(value).encode()}
    write_store(path, {"": dataset(value), "qc": qc}, None, files, hook, chunks={"time": 30})


def files_of(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def write_until(path: Path, value: float, last: int, log: Path | None = None) -> bool:
    """Write in a child that ends before its operation number ``last``; whether it got there."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, file: Path) -> None:
            nonlocal count
            if count == last:
                os._exit(KILLED)
            count += 1
            if log is not None:
                with open(log, "a") as handle:
                    handle.write(f"{event} {file.name}\n")

        write(path, value, hook)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, KILLED):
        raise SystemExit(f"the child ended with {code} at operation {last}")
    return code == KILLED


def version_of(path: Path) -> str:
    """Which version is read, all of it: "old", "new", or "none" with the right error."""
    try:
        read = open_store(path).load()
    except IncompleteStoreError as error:
        if "COMMITTED" not in str(error):
            raise SystemExit(f"the error does not name what is missing: {error}") from error
        return "none"
    version = {1.0: "old", 2.0: "new"}[read.attrs["value"]]
    xr.testing.assert_identical(read, dataset(read.attrs["value"]))
    if verify_store(path):
        raise SystemExit(f"damaged: {verify_store(path)}")
    return version


def finish(path: Path, reference: dict[str, bytes]) -> None:
    """Write to the end: bytes are those of an uninterrupted writer, and nothing is left over."""
    write(path, 2.0)
    if files_of(path) != reference:
        raise SystemExit("other bytes than those of an uninterrupted writer")
    left = sorted(p.name for p in path.parent.iterdir())
    if left != [".lock", path.name]:
        raise SystemExit(f"left over: {left}")


def main(folder: Path, scenario: str) -> None:
    write(folder / "old", 1.0)
    write(folder / "new", 2.0)
    reference = files_of(folder / "new")
    log = folder / "log"
    counts = {"killed": 0, "old": 0, "new": 0, "none": 0}

    def prepare() -> Path:
        path = folder / "work" / "unit.zarr"
        shutil.rmtree(folder / "work", ignore_errors=True)
        path.parent.mkdir()
        if scenario != "fresh":
            shutil.copytree(folder / "old", path)
        return path

    write_until(prepare(), 2.0, -1, log)
    operations = log.read_text().splitlines()
    chunks = [name for name in operations if name in ("write 0", "write 1", "write 2")]
    if len(chunks) < 3:
        raise SystemExit(f"fewer than three chunks were seen: {operations}")
    first = 0
    if scenario == "recover":
        # Only from the first rename on is there something to recover; every kill is followed by
        # a second one, at every operation of the writer that cleans up.
        first = min(i for i, name in enumerate(operations) if name.startswith("rename"))
    for number in range(first, len(operations)):
        seconds = range(7) if scenario == "recover" else [None]
        for second in seconds:
            path = prepare()
            if not write_until(path, 2.0, number):
                raise SystemExit(f"operation {number} never came")
            if second is not None:
                write_until(path, 2.0, second)
            counts["killed"] += 1
            counts[version_of(path)] += 1
            finish(path, reference)
    counts["operations"] = len(operations)
    counts["renames"] = sum(name.startswith("rename") for name in operations)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
