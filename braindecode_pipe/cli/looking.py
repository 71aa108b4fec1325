"""Commands that look closer at a study: for leaks, and for where the information is."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from braindecode_pipe.cli.console import console
from braindecode_pipe.cli.options import DataOption, OutOption, RecipeArgument, SetOption
from braindecode_pipe.errors import InputError


class Groups(StrEnum):
    """Groups of sensors."""

    region = "region"
    kind = "kind"
    sensor = "sensor"


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


def ablate(
    recipe: RecipeArgument,
    data: DataOption,
    out: OutOption = None,
    overrides: SetOption = None,
    by: Annotated[Groups, typer.Option(help="What is taken away together")] = Groups.region,
) -> None:
    """Score a finished run again without each region, kind of sensor, or sensor."""
    from rich.table import Table

    from braindecode_pipe import pipeline
    from braindecode_pipe.recipe import load_recipe

    study = load_recipe(recipe, overrides or ())
    out = out or Path("runs") / study.study.name
    found = pipeline.ablate(study, data, out, by.value)
    table = Table("embedding", "decoder", "without", "pair accuracy", "loss", "interval", "q")
    for row in found.to_dict("records"):
        loss = (f"{row['loss']:.3f}", f"{row['ci_low']:.3f} to {row['ci_high']:.3f}",
                f"{row['q_value']:.2g}") if row["group"] else ("", "", "")  # fmt: skip
        cells = (row["embedding"], row["decoder"], row["group"] or "nothing")
        table.add_row(*map(Text, (*cells, f"{row['value']:.3f}", *loss)))
    console().print(table)
    console().print(Text(f"Written: {out / f'ablation-{by.value}.json'}"))
