"""The command ``bids``: the arguments that every BIDS app has."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from braindecode_pipe.cli.console import crash_log, show
from braindecode_pipe.cli.options import QuietOption, SetOption

# Options of BIDS apps that take several values after one name.
_LISTS = {
    "--participant-label": "--participant-label", "--participant_label": "--participant-label",
    "--session-label": "--session-label", "--session_label": "--session-label",
    "--task-label": "--task-label", "--task_label": "--task-label",
}  # fmt: skip
_RECIPE = '[study]\nname = "preprocessing"\n\n[split]\nby = "none"\n'


class Level(StrEnum):
    """What a BIDS app works on."""

    participant = "participant"
    group = "group"


def spread(arguments: Sequence[str]) -> list[str]:
    """``--participant-label 01 02`` as ``--participant-label 01 --participant-label 02``."""
    found: list[str] = []
    name = ""
    for argument in arguments:
        if argument in _LISTS:
            name = _LISTS[argument]
        elif argument.startswith("-"):
            name = ""
            head, equals, value = argument.partition("=")
            found.append(f"{_LISTS[head]}={value}" if equals and head in _LISTS else argument)
        else:
            found += [name, argument] if name else [argument]
    return found


def bids(
    bids_dir: Annotated[Path, typer.Argument(metavar="BIDS_DIR", help="BIDS data set")],
    output_dir: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the derivative")],
    level: Annotated[Level, typer.Argument(help="participant: make; group: gather the pages")],
    participant_label: Annotated[
        list[str] | None, typer.Option("--participant-label", help="Labels; default: all")
    ] = None,
    session_label: Annotated[
        list[str] | None, typer.Option("--session-label", help="Labels; default: all")
    ] = None,
    task_label: Annotated[
        list[str] | None, typer.Option("--task-label", help="Labels; default: all")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="RECIPE", help="Default: default values")
    ] = None,
    overrides: SetOption = None,
    n_cpus: Annotated[int, typer.Option("--n-cpus", min=1, help="Local worker processes")] = 1,
    skip_bids_validation: Annotated[
        bool, typer.Option("--skip-bids-validation", help="Do not look for faults first")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Preprocess a BIDS data set, in the form of a BIDS app."""
    from braindecode_pipe import pipeline
    from braindecode_pipe.cli.console import console
    from braindecode_pipe.inspect import diagnose, diagnosis_table
    from braindecode_pipe.recipe import load_recipe, parse_recipe

    if config is None:
        recipe = parse_recipe(_RECIPE, "the default recipe", overrides or ())
    else:
        recipe = load_recipe(config, overrides or ())
    if not skip_bids_validation and level is Level.participant and bids_dir.is_dir():
        found = diagnose(bids_dir, subjects=participant_label or (), quiet=quiet)
        faults = [finding for finding in found if finding.severity == "error"]
        if faults:
            console(stderr=True).print(diagnosis_table(faults))
    with crash_log(output_dir):
        show(
            pipeline.run_bids(
                recipe,
                bids_dir,
                output_dir,
                level.value,
                participants=participant_label or (),
                sessions=session_label or (),
                tasks=task_label or (),
                jobs=n_cpus,
                quiet=quiet,
            )
        )
