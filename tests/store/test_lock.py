"""One writer per store, between processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from braindecode_pipe.errors import StoreLockedError
from braindecode_pipe.store import StoreLock, StoreWriter, lock, verify_store, write_store

HOLDER = """
import sys
from braindecode_pipe.store import StoreLock
with StoreLock(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``unit.zarr``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "unit.zarr")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def owner_file(tmp_path):
    return tmp_path / "unit.zarr.lock"


def change_owner(tmp_path, age=0.0, **changes):
    """Leave a lock as another process would have left it ``age`` seconds ago."""
    with StoreLock(tmp_path / "unit.zarr"):
        owner = json.loads(owner_file(tmp_path).read_text())
    owner_file(tmp_path).write_text(json.dumps({**owner, "token": "other", **changes}))
    then = time.time() - age
    os.utime(owner_file(tmp_path), (then, then))


def test_f04_the_second_writer_is_refused_within_five_seconds(tmp_path, holder, make_signal):
    start = time.monotonic()
    with pytest.raises(StoreLockedError) as raised:
        write_store(tmp_path / "unit.zarr", {"": make_signal()})
    assert time.monotonic() - start < 5
    text = str(raised.value)
    assert f"pid {holder.pid} on host {socket.gethostname()}" in text
    assert re.search(r"heartbeat \d+ s ago", text)
    assert not (tmp_path / "unit.zarr").exists()


def test_f04_the_lock_is_free_when_the_holder_ends(tmp_path, holder, make_signal):
    holder.stdin.close()
    holder.wait()
    assert not owner_file(tmp_path).exists()
    write_store(tmp_path / "unit.zarr", {"": make_signal()})
    assert verify_store(tmp_path / "unit.zarr") == []


def test_f04_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder, make_signal):
    holder.kill()
    deadline = time.monotonic() + 10
    # Until it is waited for, the killed process is a zombie: gone all the same.
    while lock._process_start(holder.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert owner_file(tmp_path).exists()
    write_store(tmp_path / "unit.zarr", {"": make_signal()})
    assert verify_store(tmp_path / "unit.zarr") == []


def test_f04_a_second_writer_in_the_same_process_is_refused(tmp_path, make_signal):
    with (
        StoreWriter(tmp_path / "unit.zarr", {"": make_signal()}),
        pytest.raises(StoreLockedError, match=f"pid {os.getpid()}"),
    ):
        write_store(tmp_path / "unit.zarr", {"": make_signal()})
    assert verify_store(tmp_path / "unit.zarr") == []


def test_f04_a_process_id_that_was_used_again_is_recognised(tmp_path):
    change_owner(tmp_path, process_start="1")
    with StoreLock(tmp_path / "unit.zarr"):
        pass


@pytest.mark.parametrize("key", ["host", "boot", "namespace"])
def test_f04_locks_of_elsewhere_need_age_and_break_lock(tmp_path, key):
    gone = {"pid": 2**30, "process_start": "1", key: "elsewhere"}
    change_owner(tmp_path, age=599, **gone)
    with pytest.raises(StoreLockedError, match=r"--break-lock"), StoreLock(tmp_path / "unit.zarr"):
        pass
    with pytest.raises(StoreLockedError), StoreLock(tmp_path / "unit.zarr", break_lock=True):
        pass
    change_owner_age = time.time() - 601
    os.utime(owner_file(tmp_path), (change_owner_age, change_owner_age))
    with pytest.raises(StoreLockedError, match="601 s ago"), StoreLock(tmp_path / "unit.zarr"):
        pass
    with StoreLock(tmp_path / "unit.zarr", break_lock=True):
        pass


def test_f04_a_live_owner_of_this_host_is_never_gone(tmp_path, holder):
    with (
        pytest.raises(StoreLockedError),
        StoreLock(tmp_path / "unit.zarr", break_lock=True),
    ):
        pass


def test_f04_an_unreadable_owner_is_not_taken_for_gone(tmp_path):
    owner_file(tmp_path).write_text("{")
    with pytest.raises(StoreLockedError, match="pid unknown"), StoreLock(tmp_path / "unit.zarr"):
        pass


def test_f04_who_lost_the_lock_does_not_commit(tmp_path, make_signal):
    with (
        pytest.raises(StoreLockedError, match="was lost to another writer"),
        StoreWriter(tmp_path / "unit.zarr", {"": make_signal()}),
    ):
        owner = json.loads(owner_file(tmp_path).read_text())
        owner_file(tmp_path).write_text(json.dumps({**owner, "token": "other"}))
    assert not (tmp_path / "unit.zarr").exists()
    assert owner_file(tmp_path).exists()


def test_f04_threads_exclude_each_other(tmp_path):
    entered, refused = [], []
    start = threading.Barrier(8)

    def attempt():
        start.wait()
        try:
            with StoreLock(tmp_path / "unit.zarr"):
                entered.append(1)
                time.sleep(0.5)
        except StoreLockedError:
            refused.append(1)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 7)


def test_the_heartbeat_is_refreshed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.05)
    with StoreLock(tmp_path / "unit.zarr"):
        os.utime(owner_file(tmp_path), (1, 1))
        deadline = time.monotonic() + 10
        while owner_file(tmp_path).stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert time.time() - owner_file(tmp_path).stat().st_mtime < 60


def test_releasing_twice_does_nothing(tmp_path):
    held = StoreLock(tmp_path / "unit.zarr")
    held.acquire()
    held.release()
    held.release()
    assert not owner_file(tmp_path).exists()


def test_start_times_of_processes_where_there_is_no_proc(holder, monkeypatch):
    if shutil.which("ps") is None:
        pytest.skip("there is no ps command")
    monkeypatch.setattr(lock.platform, "system", lambda: "Darwin")
    assert lock._process_start(holder.pid) == lock._process_start(holder.pid) != ""
    assert lock._process_start(2**22 + 1) == ""
    holder.kill()
    deadline = time.monotonic() + 10
    while lock._process_start(holder.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lock._process_start(holder.pid) == ""
