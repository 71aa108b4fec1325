"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Stage(StrEnum):
    """Stages in their order."""

    plan = "plan"
    preprocess = "preprocess"
    embed = "embed"
    tokenize = "tokenize"
    train = "train"
    evaluate = "evaluate"
    reconstruct = "reconstruct"
    report = "report"


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a recipe in pipelines/")
]
DataOption = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="BIDS data set or folder of recordings")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where results go; default: runs/<study.name>"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value of the recipe"),
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Local worker processes")]
SchedulerOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on the Dask cluster at this address")
]
FromOption = Annotated[
    Stage | None,
    typer.Option("--from", metavar="STAGE", help="First stage that may run"),
]
UntilOption = Annotated[
    Stage | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage")
]
ForceOption = Annotated[
    list[Stage] | None,
    typer.Option("--force", metavar="STAGE", help="Run this stage again though it is cached"),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what is cached and what would run, and why")
]
BreakLockOption = Annotated[
    bool,
    typer.Option("--break-lock", help="Take over stores whose writer was silent for 10 minutes"),
]
GeneratorOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER_OR_ID",
        help="embedded, nearest, or a pipeline of diffusers; default: the recipe's, else embedded",
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="Where pictures are drawn: cpu, cuda, mps")
]
LedgerOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the list of configurations ever scored is kept"),
]
AllowLeakOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-leak",
        metavar="NAME",
        help="Go on with a leak of this name, and mark every number with it",
    ),
]
TensorboardOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write the learning curves of networks for TensorBoard"),
]
ReportsOnlyOption = Annotated[
    bool, typer.Option("--reports-only", help="Make the report again from the results that exist")
]
AnonymizeOption = Annotated[
    bool, typer.Option("--anonymize", help="Other names for people and recordings in the report")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result")]
SeedOption = Annotated[int, typer.Option(min=0, help="Equal seeds give equal bytes")]
SnrOption = Annotated[
    float | None, typer.Option(min=0, help="Signal to noise of the simulation; 0: no response")
]
ForceFileOption = Annotated[bool, typer.Option("--force", help="Overwrite the file")]
