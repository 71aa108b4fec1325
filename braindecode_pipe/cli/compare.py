"""The command that puts finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from braindecode_pipe.cli.console import console
from braindecode_pipe.errors import InputError


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the page, Markdown and JSON go")
    ] = Path("compare"),
) -> None:
    """Put runs side by side, each tested against the first on the same items."""
    from braindecode_pipe.report.comparison_page import write_comparison

    try:
        page = write_comparison(runs, out)
    except OSError as error:
        raise InputError(
            "the comparison cannot be written", file=error.filename or out,
            expected="a folder that can be made and written", found=error.strerror or str(error),
            remedy="give another with --out DIR",
        ) from error  # fmt: skip
    console().print(Text(f"Comparison: {page}"))
