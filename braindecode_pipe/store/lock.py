"""One writer per store.

``<store>.lock`` is a JSON file that names its owner; the owner's heartbeat is the time stamp of
that file, refreshed by a thread. A file lock (``.lock`` in the same folder) is held only while the
owner is being looked up or replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from braindecode_pipe.errors import StoreError, StoreLockedError

HEARTBEAT_S = 30.0
STALE_S = 600.0
_GUARD_TIMEOUT_S = 4.0


class StoreLock:
    """Exclusive right to write one store, as a context manager.

    A lock that was left behind is taken over when its owner ran on this host, in this boot and in
    this process namespace, and is gone (its process id is free, or belongs to a process that
    started at another time). A lock of another host is taken over only with ``break_lock`` and
    only when its heartbeat is older than ten minutes.

    Parameters
    ----------
    path : path
        The store; its folder is made when it does not exist.
    break_lock : bool
        Take over a lock whose heartbeat is older than ten minutes.

    Raises
    ------
    StoreLockedError
        On entering, within five seconds, when somebody else holds the lock.
    """

    def __init__(self, path: str | Path, break_lock: bool = False) -> None:
        path = Path(path)
        self.path = path.parent.resolve() / path.name
        self.owner_file = self.path.with_name(self.path.name + ".lock")
        self.break_lock = break_lock
        self._token = ""
        self._descriptor = -1
        self._stop = threading.Event()

    def __enter__(self) -> StoreLock:
        self.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock or raise :class:`StoreLockedError`."""
        token = uuid.uuid4().hex
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._guard():
                self._refuse_live_owner()
                aside = self.owner_file.with_name(f"{self.owner_file.name}-{token}")
                with open(aside, "x") as file:
                    json.dump({"token": token, "started": time.time(), **_this_process()}, file)
                os.replace(aside, self.owner_file)
                self._descriptor = os.open(self.owner_file, os.O_RDONLY)
        except OSError as error:
            raise StoreError(
                "the lock of the store cannot be written",
                file=self.owner_file,
                expected="a folder in which this user may write, with space left",
                found=error.strerror or str(error),
                remedy="give write permission, free some space, or choose another output folder",
            ) from error
        self._token = token
        self._stop = threading.Event()
        threading.Thread(
            target=_beat, args=(self._stop, self._descriptor), name="store-lock", daemon=True
        ).start()

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if not self._token:
            return
        self._stop.set()
        with self._guard():
            if self.is_mine():
                self.owner_file.unlink()
            os.close(self._descriptor)
        self._token, self._descriptor = "", -1

    def check(self) -> None:
        """Raise :class:`StoreLockedError` when somebody has taken the lock over meanwhile."""
        if not self.is_mine():
            raise StoreLockedError(
                "the lock of the store was lost to another writer",
                file=self.path,
                expected="the lock that this process took",
                found=_describe(_read_owner(self.owner_file), 0.0),
                remedy="run again when the other writer has finished",
            )

    def is_mine(self) -> bool:
        """Whether this object holds the lock."""
        owner = _read_owner(self.owner_file)
        return bool(self._token) and owner is not None and owner.get("token") == self._token

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        guard = FileLock(self.path.parent / ".lock", timeout=_GUARD_TIMEOUT_S)
        try:
            guard.acquire()
        except Timeout as error:
            raise StoreLockedError(
                "the folder of the store is busy", file=self.path, remedy="run again"
            ) from error
        try:
            yield
        finally:
            guard.release()

    def _refuse_live_owner(self) -> None:
        owner = _read_owner(self.owner_file)
        if owner is None:
            return
        age = time.time() - self.owner_file.stat().st_mtime
        if _is_gone(owner) or (self.break_lock and age > STALE_S):
            return
        raise StoreLockedError(
            "somebody else is writing this store",
            file=self.path,
            expected="no other writer",
            found=_describe(owner, age),
            remedy="wait for it; if that process is surely gone, use --break-lock "
            f"once its last heartbeat is older than {STALE_S / 60:.0f} minutes",
        )


def _beat(stop: threading.Event, descriptor: int) -> None:
    # Through the descriptor: a lock that was taken over is another file and keeps its own beat.
    while not stop.wait(HEARTBEAT_S):
        try:
            os.utime(descriptor)
        except OSError:
            return


def _read_owner(file: Path) -> dict | None:
    try:
        owner = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(owner: dict | None, age: float) -> str:
    if owner is None:
        return "no lock file"
    return (
        f"pid {owner.get('pid', 'unknown')} on host {owner.get('host', 'unknown')}, "
        f"last heartbeat {age:.0f} s ago"
    )


def _this_process() -> dict:
    pid = os.getpid()
    return {"pid": pid, "process_start": _process_start(pid), **_machine()}


def _machine() -> dict:
    """What must be equal for process ids of two lock owners to be comparable."""
    try:
        # Containers of one machine share host names and boots, but not process ids.
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return {"host": socket.gethostname(), "boot": _boot_id(), "namespace": namespace}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _ask("sysctl", "-n", "kern.bootsessionuuid")


def _process_start(pid: int) -> str:
    """When process ``pid`` started, in the system's own notation; "" when there is no such one."""
    if platform.system() != "Linux":
        state, _, start = _ask("ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)).partition(" ")
        return "" if state.startswith("Z") else start.strip()
    try:
        # The command name, in brackets, may hold anything: the fields start after the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _ask(*command: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    except OSError:
        return ""
    return answer.stdout.strip()


def _is_gone(owner: dict) -> bool:
    machine = _machine()
    if not machine["boot"] or any(owner.get(key) != value for key, value in machine.items()):
        return False
    pid, start = owner.get("pid"), owner.get("process_start")
    if not isinstance(pid, int) or not start:
        return False
    return _process_start(pid) != start
