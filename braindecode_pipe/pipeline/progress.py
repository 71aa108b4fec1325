"""How far a run has come, on stderr or not at all."""

from __future__ import annotations

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


class Bars(Quiet):
    """Progress bars on stderr, one per stage."""

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
        return self

    def advance(self, unit: str, error: str) -> None:
        from rich.markup import escape

        if error:
            self._bar.console.print(f"[red]failed[/red] {escape(unit)}: "
                                    f"{escape(one_line(error))}")  # fmt: skip
        self._bar.update(self._task, advance=1, unit=escape(unit)[:50])

    def __enter__(self) -> Bars:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()
