"""Run a study: in one process, with workers, or by all processes of ``torchrun``."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from braindecode_pipe.errors import DiskFullError, InputError, StageError
from braindecode_pipe.executor import Executor, follow
from braindecode_pipe.pipeline.progress import Bars, Quiet
from braindecode_pipe.pipeline.result import RunResult
from braindecode_pipe.pipeline.running import Run, run_stages
from braindecode_pipe.recipe import Recipe
from braindecode_pipe.store import StoreLock

if TYPE_CHECKING:
    from braindecode_pipe.fitting.team import Team


def run(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    executor: Executor | None = None,
    start: str | None = None,
    until: str | None = None,
    force: Iterable[str] = (),
    dry_run: bool = False,
    ledger: str | Path | None = None,
    break_lock: bool = False,
    quiet: bool = False,
    reuse: Iterable[str] = (),
    name: str = "run",
    tensorboard: str | Path | None = None,
    allow_leaks: Iterable[str] = (),
    anonymize: bool = False,
) -> RunResult:
    """Run a recipe on a data set, as far as it is not done already.

    In processes that ``torchrun`` started, all of which call this, the first one runs the study.
    The others wait for networks to be trained, do that together with it, and return an empty
    result when it has ended.

    Parameters
    ----------
    recipe : Recipe
    data : root of the data set
    out : folder of the run; results are kept there by content and reused
    jobs : 1 in this process, N on N local worker processes (a script that calls this with N > 1
        needs the usual ``if __name__ == "__main__":`` guard, since workers are spawned)
    scheduler : address of a Dask scheduler, instead of local workers
    executor : one that several runs share, instead of ``jobs`` and ``scheduler``
    start, until : first stage that may run, last stage that runs
    force : stages to run again although nothing changed
    dry_run : only say what would run, and why
    ledger : folder of the ledger of test sets
    break_lock : take over a run folder whose owner shows no sign of life for 10 minutes
    quiet : no progress bars
    reuse : stages whose results are taken as far as they are there, and never made
    name : of the record ``<name>.json`` and of the lock: runs of one folder under different
        names may go on at the same time
    tensorboard : folder that gets the learning curves of networks
    allow_leaks : names of leaks (``audit.CHECKS``) that do not stop the run and mark every number
    anonymize : the report calls people and recordings by other names

    Returns
    -------
    RunResult; a unit that failed is in it, and everything that did not need it was still done.

    Raises
    ------
    InputError : the recipe or the data set cannot be used at all
    LeakageError : training and test are not apart, see ``braindecode_pipe.audit``
    StageError, DiskFullError : the operating system refuses a file outside of the stores
    StoreLockedError : another process is running in ``out``
    """
    data, out, tensorboard = Path(data), Path(out), _writable(tensorboard)
    crew = _crew() if executor is None else None
    executor = nullcontext(executor) if executor else Executor(jobs, scheduler, crew)
    if crew is not None and crew.rank:
        follow(crew)
        return RunResult()
    began = time.time()
    with executor as executor, _dismissing(crew):
        if not data.is_dir():
            raise InputError(
                "the data folder does not exist", file=data, expected="a folder",
                remedy="give it with --data DIR",
            )  # fmt: skip
        current = Run(
            recipe, data, out, executor, start=start, until=until, force=force, dry_run=dry_run,
            ledger=Path(ledger) if ledger else None, break_lock=break_lock,
            progress=Quiet() if quiet else Bars(), reuse=reuse, name=name,
            tensorboard=tensorboard, allow_leaks=allow_leaks, anonymize=anonymize,
        )  # fmt: skip
        if dry_run:
            run_stages(current)
            return current.result
        _make_folder(out)
        with StoreLock(out / name, break_lock=break_lock), _system_errors(out):
            try:
                run_stages(current)
            finally:
                current.save(began)
    return current.result


def _writable(tensorboard: str | Path | None) -> Path | None:
    """The folder for TensorBoard, where something can write its files."""
    if tensorboard is None:
        return None
    from braindecode_pipe.train.curves import writer_class

    writer_class()
    return Path(tensorboard).resolve()


def _crew() -> Team | None:
    """The processes that ``torchrun`` started; None where this one is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from braindecode_pipe.fitting.team import team

    return team()


@contextmanager
def _dismissing(crew: Team | None) -> Iterator[None]:
    """However this ends, nobody waits for tasks afterwards."""
    try:
        yield
    finally:
        if crew is not None:
            crew.dismiss()


@contextmanager
def _system_errors(out: Path) -> Iterator[None]:
    """What the operating system refuses outside of stores: caches, pages, the ledger, inputs."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (DiskFullError if full else StageError)(
            "a file cannot be read or written",
            file=error.filename or out,
            expected="free space" if full else "a file that this user may read or write",
            found=error.strerror or str(error),
            remedy="free some space" if full else "check the path, its permissions and the disk",
        ) from error


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            "the output folder cannot be written",
            file=out,
            expected="a folder that can be made and written",
            found=str(error),
            remedy="give another with --out DIR",
        ) from error
