"""How far a run has come, on stderr or not at all."""

from __future__ import annotations

import logging
from typing import Any

from braindecode_pipe.errors import one_line


class Quiet:
    """Progress that shows nothing."""

    def stage(self, name: str, n_units: int) -> Quiet:
        """A context for one stage."""
        return self

    def advance(self, unit: str, error: str) -> None:
        """One unit ended."""

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


class Bars(Quiet):
    """Progress bars on stderr, one per stage.

    Within a unit, what a room logs as ``braindecode_pipe.<room>`` at INFO stands beside the bar;
    units in other processes are shown when they end.
    """

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

    def __enter__(self) -> Bars:
        self._bar.start()
        self._level = self._log.level
        self._log.addHandler(self._shown)
        self._log.setLevel(logging.INFO)
        return self

    def __exit__(self, *exc: object) -> None:
        self._log.removeHandler(self._shown)
        self._log.setLevel(self._level)
        self._bar.stop()
