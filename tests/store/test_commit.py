"""Interrupted, failing and full: the previous version stays, or nothing is called a store."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from braindecode_pipe.errors import (
    DiskFullError,
    IncompleteStoreError,
    MissingFileError,
    StoreError,
    StoreLockedError,
)
from braindecode_pipe.store import (
    StoreLock,
    StoreWriter,
    delete_store,
    is_committed,
    open_store,
    store_hash,
    verify_store,
    write_hook,
    write_store,
)

SCRIPT = Path(__file__).with_name("kill_writes.py")


@pytest.mark.parametrize("scenario", ["fresh", "overwrite", "recover"])
def test_f01_killed_at_every_write_fsync_rename_and_delete(tmp_path, scenario):
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), scenario], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    counts = json.loads(run.stdout)
    assert counts["operations"] > 60
    assert counts["renames"] == (2 if scenario == "fresh" else 3)
    if scenario == "fresh":
        assert counts["killed"] == counts["operations"]
        assert counts["old"] == 0
        assert counts["none"] > 60
        assert counts["new"] == 2  # killed at the two syncs that follow the marker
    else:
        assert counts["none"] == 0
        assert counts["old"] + counts["new"] == counts["killed"]
        assert counts["new"] >= 3


def test_f01_incomplete_stores_say_what_is_missing(stored):
    assert is_committed(stored)
    (stored / "COMMITTED").unlink()
    assert not is_committed(stored)
    with pytest.raises(IncompleteStoreError, match=r"unit.zarr[\s\S]*no COMMITTED[\s\S]*remedy"):
        open_store(stored)
    (stored / "MANIFEST.json").unlink()
    with pytest.raises(IncompleteStoreError, match=r"no MANIFEST.json and COMMITTED"):
        verify_store(stored)
    shutil.rmtree(stored)
    with pytest.raises(MissingFileError, match="there is no store"):
        open_store(stored)
    assert not is_committed(stored)
    stored.with_name(f"{stored.name}.tmp-{'0' * 32}").mkdir()
    with pytest.raises(IncompleteStoreError, match=r"only unit.zarr.tmp-0+"):
        open_store(stored)


def test_f01_only_our_own_left_overs_are_cleaned_up(tmp_path, stored, make_signal):
    kept = ["unit.zarr.tmp-notes", "unit.zarr2.tmp-" + "0" * 32, "unit.zarr.old"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ("unit.zarr.old-" + "a" * 32)).mkdir()
    write_store(stored, {"": make_signal()})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".lock", stored.name, *kept])


def test_f02_an_exception_leaves_the_old_version(stored, make_signal):
    before = store_hash(stored)
    with (
        pytest.raises(ZeroDivisionError),
        StoreWriter(stored, {"": make_signal(seed=1)}, chunks={"time": 300}) as writer,
    ):
        writer.write("", "signal", {"time": slice(0, 600)}, np.zeros((4, 600), np.float32))
        raise ZeroDivisionError
    assert store_hash(stored) == before
    assert verify_store(stored) == []
    assert sorted(p.name for p in stored.parent.iterdir()) == [".lock", stored.name]


class Stop(Exception):
    """Raised by the hooks of these tests."""


def failing_at(number: int, error: BaseException, seen: list[str] | None = None):
    """A hook that raises before operation ``number``."""
    seen = [] if seen is None else seen

    def hook(event: str, path: Path) -> None:
        seen.append(event)
        if len(seen) == number + 1:
            raise error

    return hook


def count_operations(stored, dataset) -> list[str]:
    seen: list[str] = []
    copy = stored.with_name("copy.zarr")
    shutil.copytree(stored, copy)
    write_store(copy, {"": dataset}, hook=failing_at(-1, Stop(), seen))
    shutil.rmtree(copy)
    return seen


def some_of(operations: list[str]) -> list[int]:
    """Every fourth operation, and all of the last twelve (the commit itself)."""
    n = len(operations)
    return [*range(0, n - 12, 4), *range(n - 12, n)]


@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt()])
def test_f02_an_error_at_any_operation_leaves_one_whole_version(stored, make_signal, error):
    dataset = make_signal(seed=1)
    operations = count_operations(stored, dataset)
    assert {"write", "fsync", "rename", "delete"} == set(operations)
    before = store_hash(stored)
    for number in some_of(operations):
        with pytest.raises(type(error)):
            write_store(stored, {"": dataset}, hook=failing_at(number, error))
        if store_hash(stored) != before:
            break
        assert sorted(p.name for p in stored.parent.iterdir()) == [".lock", stored.name]
    # The marker's own rename is the last operation that an error can undo.
    assert operations[number:] == ["fsync", "fsync", "delete"]
    assert verify_store(stored) == []
    xr.testing.assert_identical(open_store(stored).load(), dataset)


def test_f05_a_full_disk_at_any_operation_leaves_the_old_version(stored, make_signal):
    dataset = make_signal(seed=1)
    operations = count_operations(stored, dataset)
    before = store_hash(stored)
    for number in some_of(operations[:-3]):
        full = OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(DiskFullError, match=r"unit.zarr[\s\S]*bytes free[\s\S]*bytes free"):
            write_store(stored, {"": dataset}, hook=failing_at(number, full))
        assert store_hash(stored) == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 20 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount command")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_f05_free_space_is_checked_first(small_disk, make_signal):
    seen: list[str] = []
    with pytest.raises(DiskFullError, match=r"big.zarr[\s\S]*bytes free") as raised:
        write_store(
            small_disk / "big.zarr",
            {"": make_signal(n_sensors=100, n_times=100_000)},
            hook=failing_at(-1, Stop(), seen),
        )
    assert seen == []
    needed = int(raised.value.expected.split()[0])
    assert 1.0 <= needed / (100 * 100_000 * 4) < 1.1
    assert [p.name for p in small_disk.iterdir()] == [".lock"]


def test_f05_a_disk_that_fills_up_meanwhile(small_disk, make_signal):
    target = small_disk / "unit.zarr"
    write_store(target, {"": make_signal()})
    before = store_hash(target)
    filler = small_disk / "filler"

    def fill(event: str, path: Path) -> None:
        if event == "write" and path.parts[-3:] == ("c", "0", "2"):
            free = shutil.disk_usage(small_disk).free
            filler.write_bytes(bytes(max(0, free - 100_000)))

    big = make_signal(n_sensors=100, n_times=20_000, seed=1)
    with pytest.raises(DiskFullError, match=r"unit.zarr[\s\S]*bytes free"):
        write_store(target, {"": big}, hook=fill, chunks={"time": 4000})
    assert store_hash(target) == before
    assert verify_store(target) == []
    assert sorted(p.name for p in small_disk.iterdir()) == [".lock", "filler", "unit.zarr"]
    filler.unlink()
    write_store(target, {"": big}, chunks={"time": 4000})
    assert store_hash(target) != before


def test_errors_of_the_system_name_the_store(tmp_path, make_signal):
    denied = PermissionError(errno.EACCES, "Permission denied", "somewhere")
    with pytest.raises(StoreError, match=r"cannot be written[\s\S]*unit[\s\S]*Permission denied"):
        write_store(tmp_path / "unit", {"": make_signal()}, hook=failing_at(3, denied))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="lock of the store cannot be written"):
        write_store(tmp_path / "file" / "unit", {"": make_signal()})


def test_a_hook_for_the_whole_process(tmp_path, make_signal):
    seen: list[str] = []
    with write_hook(failing_at(-1, Stop(), seen)):
        write_store(tmp_path / "a", {"": make_signal()})
    n = len(seen)
    assert n > 50
    write_store(tmp_path / "b", {"": make_signal()})
    assert len(seen) == n
    with write_hook(failing_at(5, Stop())), pytest.raises(Stop):
        write_store(tmp_path / "c", {"": make_signal()})
    assert not is_committed(tmp_path / "c")


def test_delete_store(tmp_path, stored):
    with StoreLock(stored), pytest.raises(StoreLockedError):
        delete_store(stored)
    shutil.copytree(stored, stored.with_name(f"{stored.name}.old-{'0' * 32}"))
    delete_store(stored)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("")
    with pytest.raises(StoreError, match="is no store"):
        delete_store(tmp_path / "folder")
