"""How far a run has come, on stderr or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event, Thread
from typing import Any

from braindecode_pipe.errors import one_line


class Quiet:
    """Progress that shows nothing."""

    def stage(self, name: str, n_units: int) -> Quiet:
        """A context for one stage."""
        return self

    def advance(self, unit: str, error: str) -> None:
        """One unit ended."""

    def watch(self, folders: Iterable[Path]) -> None:
        """Look, until the stage ends, at the logs of fits that other processes write there."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class _Shown(logging.Handler):
    """Shows what a room says about its progress (how many, how fast, until when) beside a bar."""

    def __init__(self, bar: Any, task: Any) -> None:
        super().__init__(logging.INFO)
        self._bar, self._task = bar, task

    def emit(self, record: logging.LogRecord) -> None:
        from rich.markup import escape

        self._bar.update(self._task, unit=escape(record.getMessage())[:80])


class FitLogs:
    """Tells the last epoch of whichever fit has just ended one, as it stands in its log.

    Parameters
    ----------
    folders : of units; logs lie somewhere below
    tell : gets a sentence
    """

    def __init__(
        self, folders: Iterable[Path], tell: Callable[[str], None], every_s: float = 1.0
    ) -> None:
        self._folders, self._tell, self._every_s = list(folders), tell, every_s
        self._seen: dict[Path, int] = {}
        self._ended = Event()
        self._thread = Thread(target=self._look, daemon=True)
        if self._folders:
            self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()

    def look(self) -> None:
        """Tell what is new since the last look."""
        from braindecode_pipe.train.course import told

        for folder in self._folders:
            for log in folder.glob("*/*/log.jsonl"):
                try:
                    lines = log.read_text(encoding="utf-8").splitlines()
                    last = json.loads(lines[-1])
                except (OSError, ValueError, IndexError):  # the fit has just ended, or begun
                    continue
                if self._seen.get(log) != len(lines):
                    self._seen[log] = len(lines)
                    self._tell(f"{told(last)}: {folder.parent.name}")

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


class Bars(Quiet):
    """Progress bars on stderr, one per stage.

    Within a unit, what a room logs as ``braindecode_pipe.<room>`` at INFO stands beside the bar.
    Units in other processes are shown when they end, and networks among them after every epoch.
    """

    _watch: FitLogs | None = None

    def stage(self, name: str, n_units: int) -> Bars:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[unit]}"),
            console=Console(stderr=True), transient=False,
        )  # fmt: skip
        self._task = self._bar.add_task(name, total=n_units, unit="")
        self._log = logging.getLogger(f"braindecode_pipe.{name}")
        self._shown = _Shown(self._bar, self._task)
        return self

    def advance(self, unit: str, error: str) -> None:
        from rich.markup import escape

        if error:
            self._bar.console.print(f"[red]failed[/red] {escape(unit)}: "
                                    f"{escape(one_line(error))}")  # fmt: skip
        self._bar.update(self._task, advance=1, unit=escape(unit)[:50])

    def watch(self, folders: Iterable[Path]) -> None:
        self._watch = FitLogs(folders, self._log.info)

    def __enter__(self) -> Bars:
        self._bar.start()
        self._level = self._log.level
        self._log.addHandler(self._shown)
        self._log.setLevel(logging.INFO)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._log.removeHandler(self._shown)
        self._log.setLevel(self._level)
        self._bar.stop()
