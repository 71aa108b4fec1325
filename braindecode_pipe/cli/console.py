"""What the command line prints: results, errors, bugs."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from braindecode_pipe.errors import BraindecodePipeError

if TYPE_CHECKING:
    from braindecode_pipe.pipeline import RunResult


def console(stderr: bool = False) -> Console:
    """A console that never breaks a path: what reads a pipe gets lines as long as they are."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        soft_wrap=True,
        highlight=False,
        width=None if stream.isatty() else 1000,
    )


def print_error(error: BraindecodePipeError) -> None:
    """An error that was foreseen, without traceback; names in it come from files, as plain text.

    Of several processes that ``torchrun`` started, the first one tells.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in str(error))
    console(stderr=True).print(Text.assemble(("Error: ", "bold red"), text))


def print_bug(error: Exception, folder: Path | None = None) -> None:
    """One line about something unforeseen; the traceback goes to a file."""
    text = "".join(traceback.format_exception(error))
    if folder is None or not folder.is_dir() or not os.access(folder, os.W_OK):
        folder = Path(tempfile.mkdtemp(prefix="braindecode-pipe-"))
    log = folder / "crash.log"
    log.write_text(text, encoding="utf-8")
    if os.environ.get("BRAINDECODE_PIPE_DEBUG") == "1":
        console(stderr=True).print(Text(text))
    console(stderr=True).print(
        Text.assemble(
            ("Error: ", "bold red"),
            f"{type(error).__name__}: {error} (this is a bug; its traceback is in {log})",
        )
    )


@contextmanager
def crash_log(folder: Path) -> Iterator[None]:
    """Errors that nobody foresaw leave their traceback in ``folder``, the folder of the run."""
    try:
        yield
    except (BraindecodePipeError, typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        console(stderr=True).print("Interrupted. The same command continues where it stopped.")
        raise typer.Exit(130) from None
    except Exception as error:
        print_bug(error, folder)
        raise typer.Exit(1) from error


def show(result: RunResult) -> None:
    """Print how a run ended and what it found, and leave with its exit code."""
    from braindecode_pipe.inspect import metrics_table

    out = console()
    if result.up_to_date:
        out.print("Everything is up to date:", style="green")
    out.print(result.table())
    for note in result.notes:
        out.print(Text(f"Events: {note}", style="yellow"))
    scored: dict[Path, list[Path]] = {}
    for row in result.rows:
        if row.stage == "evaluate" and row.status in ("done", "cached") and row.path is not None:
            # <out>/evaluate/<unit>/<key>.zarr; the demo runs several studies.
            scored.setdefault(row.path.parents[2], []).append(row.path)
    for folder, stores in scored.items():
        table = metrics_table(stores, str(folder) if len(scored) > 1 else "")
        if table is not None:
            out.print(table)
    if result.report is not None:
        out.print(Text(f"Report: {result.report}", style="bold"))
    if result.failed:
        console(stderr=True).print(result.failures())
    raise typer.Exit(result.exit_code)
