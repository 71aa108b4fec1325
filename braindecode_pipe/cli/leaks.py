"""The command ``audit``: of a recipe before it runs, or of what a run left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from braindecode_pipe.cli.console import console
from braindecode_pipe.cli.options import SetOption
from braindecode_pipe.errors import InputError


def audit(
    what: Annotated[str, typer.Argument(metavar="RECIPE | RUN", help="A recipe or a run folder")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Data folder for a recipe")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Look for leaks between training and test: of a recipe before it runs, or of a run."""
    from braindecode_pipe.audit import audit as find_leaks
    from braindecode_pipe.inspect import findings_table

    if Path(what).is_dir():
        findings = find_leaks(what)
    elif data is None:
        raise InputError(
            "which data is the recipe for?", expected="a folder, or the folder of a run to audit",
            found=what, remedy="give it with --data DIR",
        )  # fmt: skip
    else:
        from braindecode_pipe import pipeline
        from braindecode_pipe.recipe import load_recipe

        findings = pipeline.audit_recipe(load_recipe(what, overrides or ()), data)
    if findings:
        console().print(findings_table(findings))
    else:
        console().print("No leak found.", style="green")
    raise typer.Exit(1 if any(finding.severity == "error" for finding in findings) else 0)
