"""The processes that ``torchrun`` started, as one worker for tasks that all of them do together.

The first process decides; the others wait for tasks. What they tell each other about tasks goes
through the key-value store of the launcher, which has no time limit; a task gets a process group
of its own, so that one that fails leaves nothing behind for the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from torch import distributed

from braindecode_pipe.fitting.world import backend, take_device

# A process that does not answer within a task for so long is lost: a batch takes seconds.
TASK_TIMEOUT = timedelta(minutes=10)
_LOOK_AGAIN_S = 0.1
_FAREWELL_S = 10.0


class Team:
    """This process among those that share tasks.

    Every process opens and closes tasks in the same order: the first by :meth:`task` with what is
    to be done, the others by :meth:`wait` and :meth:`task` without.

    Attributes
    ----------
    rank, size : number of this process; how many there are
    """

    def __init__(self) -> None:
        from torch.distributed.rendezvous import rendezvous

        self._store, self.rank, self.size = next(rendezvous("env://", timeout=TASK_TIMEOUT))
        self._number = 0

    def wait(self) -> bool:
        """Until the first process has a task (True), or has ended or is gone (False)."""
        key = f"team/{self._number + 1}"
        try:
            while not self._store.check([key]):
                time.sleep(_LOOK_AGAIN_S)
            if self._store.get(key) == b"task":
                return True
            self._number += 1
            self._store.add(f"{key}/left", 1)
        except RuntimeError:  # the store has gone, and the first process with it
            pass
        return False

    @contextmanager
    def task(self, content: Any = None) -> Iterator[Any]:
        """A process group for one task; gives all what the first process put in."""
        self._number += 1
        if self.rank == 0:
            self._store.set(f"team/{self._number}", "task")
        take_device()
        distributed.init_process_group(
            backend(),
            store=distributed.PrefixStore(f"team/{self._number}/group", self._store),
            rank=self.rank, world_size=self.size, timeout=TASK_TIMEOUT,
        )  # fmt: skip
        try:
            parcel = [content]
            distributed.broadcast_object_list(parcel, 0, device=torch.device("cpu"))
            yield parcel[0]
        finally:
            # Closes the connections: who still waits for this process gets an error.
            distributed.destroy_process_group()

    def fail(self, error: str) -> None:
        """Say, inside of a task, that this process cannot go on."""
        self._store.compare_set(self._failed, "", f"process {self.rank}: {error}")

    def failure(self) -> str:
        """Why the last task failed in the process that failed first; "" where none did."""
        return self._store.get(self._failed).decode() if self._store.check([self._failed]) else ""

    @property
    def _failed(self) -> str:
        return f"team/{self._number}/failed"

    def dismiss(self) -> None:
        """Let the others go, who wait for tasks, and see them off."""
        self._number += 1
        key = f"team/{self._number}"
        with suppress(RuntimeError):
            self._store.set(key, "end")
            until = time.monotonic() + _FAREWELL_S
            while self._store.add(f"{key}/left", 0) < self.size - 1 and time.monotonic() < until:
                time.sleep(_LOOK_AGAIN_S)


@cache
def team() -> Team:
    """The team of this process."""
    return Team()
