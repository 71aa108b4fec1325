"""Where work runs: in this process, on local Dask workers, or on any Dask cluster.

A task is a function named by its import path and its keyword arguments, so that workers are
*spawned*, never forked, and nothing but names and plain values travels.

A task whose worker dies is tried again *alone*: Dask blames every task that was assigned to a dead
worker, so all tasks in flight at that moment are suspects. In quarantine, one at a time, only the
one that really kills workers fails.
"""

from __future__ import annotations

import importlib
import logging
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from braindecode_pipe.errors import BraindecodePipeError, InputError, one_line

if TYPE_CHECKING:
    from braindecode_pipe.fitting.team import Team

LOG = logging.getLogger("braindecode_pipe.executor")
QUARANTINE_TRIES = 2
# What libraries read when they are loaded; Task.threads sets the number afterwards.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Each brings BLAS or OpenMP of its own, which can only be limited once it is loaded.
_POOLS = ("numpy", "scipy.linalg", "sklearn", "torch")
CONNECT_S = 10


@dataclass(frozen=True)
class Task:
    """One unit of work: ``function`` is "package.module:name".

    ``together``: the processes of a team do it together, each by the same call.
    """

    name: str
    function: str
    arguments: dict[str, Any]
    threads: int = 1
    together: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a task ended. ``error`` is "" when it succeeded; ``bad_input`` tells whose fault."""

    name: str
    seconds: float = 0.0
    error: str = ""
    bad_input: bool = False
    trace: str = ""
    tries: int = field(default=1, compare=False)
    foreseen: bool = field(default=True, compare=False)


def call(name: str, function: str, arguments: dict[str, Any], threads: int) -> Outcome:
    """Run one task in this process with a fixed number of compute threads."""
    start = time.perf_counter()
    try:
        with _limited(threads):
            module, _, attribute = function.partition(":")
            getattr(importlib.import_module(module), attribute)(**arguments)
    except BraindecodePipeError as error:
        return Outcome(
            name,
            time.perf_counter() - start,
            str(error),
            isinstance(error, InputError),
            traceback.format_exc(),
        )
    except Exception as error:  # a bug or a library's own error: this unit fails, others go on
        return Outcome(
            name,
            time.perf_counter() - start,
            f"{type(error).__name__}: {error}",
            False,
            traceback.format_exc(),
            foreseen=False,
        )
    return Outcome(name, time.perf_counter() - start)


class _limited:
    """Fix the threads of BLAS, OpenMP and torch for the length of a task.

    What a task loads first itself would bring as many threads as there are cores: it is loaded
    here, before.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        import threadpoolctl
        import torch

        for name in _POOLS:
            importlib.import_module(name)
        self._pools = threadpoolctl.threadpool_limits(self._threads)
        self._torch = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        _take_device()

    def __exit__(self, *exc: object) -> None:
        import torch

        torch.set_num_threads(self._torch)
        self._pools.restore_original_limits()


def _take_device() -> None:
    """Spread local workers over the GPUs of the machine; elsewhere the device stays as it is."""
    import torch

    if not torch.cuda.is_available():
        return
    from distributed import get_worker

    try:
        number = get_worker().name
    except ValueError:  # no worker
        return
    if isinstance(number, int):
        torch.cuda.set_device(number % torch.cuda.device_count())


class Executor:
    """Runs batches of independent tasks; use as a context manager.

    Parameters
    ----------
    jobs : int
        1 runs in this process; N starts a Dask ``LocalCluster`` of N single-threaded processes at
        the first batch.
    scheduler : str, optional
        Address of a running Dask scheduler, instead of a local cluster.
    team : Team, optional
        The processes that ``torchrun`` started, of which this is the first: they do together the
        tasks that are meant for it; this process does the others alone.

    Raises
    ------
    InputError : a team, and Dask as well
    """

    def __init__(
        self, jobs: int = 1, scheduler: str | None = None, team: Team | None = None
    ) -> None:
        if team is not None and (jobs > 1 or scheduler is not None):
            raise InputError(
                "processes of torchrun share one fit after the other and start no workers",
                expected="torchrun, or --jobs or --scheduler",
                found=f"both: {team.size} processes and "
                + (f"--jobs {jobs}" if scheduler is None else f"--scheduler {scheduler}"),
                remedy="leave --jobs and --scheduler out",
            )
        self.jobs, self.scheduler, self.team = jobs, scheduler, team
        self._client: Any = None
        self._cluster: Any = None

    @property
    def elsewhere(self) -> bool:
        """Whether tasks run in other processes than this one."""
        return self.jobs > 1 or self.scheduler is not None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def run(self, tasks: Iterable[Task], report: Callable[[Outcome], None]) -> None:
        """Run ``tasks``; ``report`` is called in this process as each one ends."""
        tasks = list(tasks)
        if not self.elsewhere:
            for task in tasks:
                if self.team is not None and task.together:
                    report(_together(self.team, task))
                else:
                    report(call(task.name, task.function, task.arguments, task.threads))
        elif tasks:
            self._distribute(tasks, report)

    def _connect(self) -> Any:
        if self._client is None:
            import dask
            from distributed import Client, LocalCluster

            # A worker that dies is our own message to give, once, with the unit's name.
            for name in ("distributed", "distributed.scheduler", "distributed.nanny"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            dask.config.set(
                {
                    "distributed.scheduler.allowed-failures": 0,
                    "distributed.scheduler.worker-saturation": 1.0,
                    "distributed.worker.multiprocessing-method": "spawn",
                    "distributed.worker.daemon": False,
                    # Without dask's MALLOC_TRIM_THRESHOLD_: with it every large array is mapped
                    # anew, which makes array code several times slower.
                    "distributed.nanny.pre-spawn-environ": dict.fromkeys(_THREADS, 1),
                }
            )
            if self.scheduler is None:
                self._cluster = LocalCluster(
                    n_workers=self.jobs,
                    threads_per_worker=1,
                    processes=True,
                    # Any free port: None would mean 8787, which another cluster may hold.
                    dashboard_address=":0",
                )
            self._client = self._client_of(Client)
        return self._client

    def _client_of(self, client: Callable[..., Any]) -> Any:
        try:
            return client(self._cluster or self.scheduler, set_as_default=False, timeout=CONNECT_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                "the Dask scheduler cannot be reached",
                expected="the address of a running scheduler, e.g. tcp://10.0.0.1:8786",
                found=f"{self.scheduler}: {error}",
                remedy="start one with `dask scheduler`, or leave --scheduler out",
            ) from error

    def _distribute(self, tasks: list[Task], report: Callable[[Outcome], None]) -> None:
        client = self._connect()
        from distributed import as_completed

        waiting, in_flight, suspects = list(reversed(tasks)), {}, []
        pool = as_completed(loop=client.loop)
        width = self.jobs if self.scheduler is None else max(1, len(client.nthreads()))

        def submit(task: Task) -> None:
            future = client.submit(
                call, task.name, task.function, task.arguments, task.threads, pure=False, retries=0
            )
            in_flight[future] = task
            pool.add(future)

        # No more tasks than workers are in flight, so a dead worker casts doubt on few.
        while waiting and len(in_flight) < width:
            submit(waiting.pop())
        for future in pool:
            task = in_flight.pop(future)
            outcome = _collect(future, task)
            future.release()  # a result kept on a worker would be computed again if that one died
            if outcome is None:
                suspects.append(task)
            else:
                report(outcome)
            if waiting:
                submit(waiting.pop())
        for task in suspects:
            report(self._quarantine(task))

    def _quarantine(self, task: Task) -> Outcome:
        for attempt in range(QUARANTINE_TRIES):
            client = self._connect()
            if self.scheduler is None:
                client.wait_for_workers(1)
            future = client.submit(
                call, task.name, task.function, task.arguments, task.threads, pure=False, retries=0
            )
            outcome = _collect(future, task)
            if outcome is not None:
                return Outcome(
                    outcome.name, outcome.seconds, outcome.error, outcome.bad_input, outcome.trace,
                    tries=attempt + 2,
                )  # fmt: skip
        return Outcome(
            task.name,
            error=f"the worker process died {QUARANTINE_TRIES + 1} times on this unit "
            "(out of memory, or a crash in a compiled library); the others were not affected\n"
            "  remedy: run it alone with --jobs 1 to see the crash, or on a machine with more "
            "memory",
            tries=QUARANTINE_TRIES + 1,
        )


def _together(team: Team, task: Task) -> Outcome:
    """One task of a team, in one of its processes: the outcome of the one that failed first."""
    with team.task(task) as given:
        outcome = call(given.name, given.function, given.arguments, given.threads)
        if outcome.error:
            team.fail(outcome.error)
    if outcome.error and not outcome.foreseen:
        # Whoever waits for a process that failed gets an error too, which says nothing.
        return replace(outcome, error=team.failure())
    return outcome


def follow(team: Team) -> None:
    """Do the tasks of a team, in all but its first process, until that one ends."""
    while team.wait():
        outcome = _together(team, Task("", "", {}))
        if outcome.error:
            LOG.warning("process %d of %d: %s failed: %s", team.rank, team.size, outcome.name,
                        one_line(outcome.error))  # fmt: skip


def _collect(future: Any, task: Task) -> Outcome | None:
    """Outcome of a finished future; None when its worker died."""
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return None
    except Exception as error:  # scheduler lost, task could not be sent, ...
        return Outcome(task.name, error=f"{type(error).__name__}: {error}")
