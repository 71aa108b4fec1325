"""The command ``braindecode-pipe``. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from braindecode_pipe import __version__
from braindecode_pipe.cli.bids import bids, spread
from braindecode_pipe.cli.compare import compare
from braindecode_pipe.cli.console import console, crash_log, print_bug, print_error, show
from braindecode_pipe.cli.looking import ablate, audit
from braindecode_pipe.cli.options import (
    ForceFileOption,
    JobsOption,
    QuietOption,
    RecipeArgument,
    SeedOption,
    SetOption,
    SnrOption,
    Stage,
)
from braindecode_pipe.cli.running import is_left_out, reconstruct, run, stage_command, train
from braindecode_pipe.errors import BraindecodePipeError, InputError

app = typer.Typer(
    name="braindecode-pipe",
    help="From EEG, MEG and fMRI recordings to decoded speech, pictures and words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_START, _RUN, _LOOK, _MORE = "Start here", "Run", "Look", "More"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done; 1: a stage failed, or a bug; 2: bad input (recipe, data, arguments); 130: interrupted.
    Of the processes that ``torchrun`` starts, the first one does what they cannot share.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if is_left_out(given):
        return 0
    if given[:1] == ["bids"]:
        given = spread(given)
    try:
        app(given, prog_name="braindecode-pipe")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BraindecodePipeError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print_bug(error)
        return 1
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version")
    ] = False,
) -> None:
    pass


# --- start here ----------------------------------------------------------------------------------


@app.command(rich_help_panel=_START)
def init(
    data: Annotated[Path, typer.Argument(help="BIDS data set or folder of recordings")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the recipe is written")
    ] = Path("recipe.toml"),
    force: ForceFileOption = False,
) -> None:
    """Look at a data set, print what it holds and write a recipe for it."""
    from braindecode_pipe.inspect import describe_survey, survey, write_recipe

    if output.exists() and not force:
        raise InputError(
            "the recipe is already there",
            file=output,
            expected="a new file",
            remedy="give another name with -o, or --force to overwrite it",
        )
    found = survey(data)
    console().print(describe_survey(found))
    text = write_recipe(found)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            "the recipe cannot be written", file=output, found=error.strerror or str(error)
        ) from error
    console().print(Text(f"Recipe: {output}", style="bold"))
    console().print(Text(f"  braindecode-pipe run {output} --data {data}"))


@app.command(rich_help_panel=_START)
def demo(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="A published design, made small: speech_meg | speech_eeg | images_meg | "
            "images_eeg | images_fmri",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where data and results go; default: runs/demo"),
    ] = None,
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
    snr: SnrOption = None,
    quiet: QuietOption = False,
) -> None:
    """Simulate people who see pictures and hear words, decode them, and report."""
    from braindecode_pipe import pipeline

    out = out or Path("runs") / (f"demo_{recipe}" if recipe else "demo")
    with crash_log(out):
        options: dict[str, Any] = {"jobs": jobs, "quiet": quiet, "seed": seed, "snr": snr}
        if recipe:
            show(pipeline.rehearse(recipe, out, **options))
        else:
            show(pipeline.demo(out, **options))


@app.command(rich_help_panel=_START)
def check(
    what: Annotated[str, typer.Argument(metavar="DATA | RECIPE", help="A data folder or a recipe")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Data folder for a recipe")
    ] = None,
    overrides: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Look for faults in a data set, or read all that a study would read; write nothing."""
    from braindecode_pipe import pipeline
    from braindecode_pipe.inspect import (
        diagnose,
        diagnosis_table,
        findings_table,
        survey,
        write_recipe,
    )
    from braindecode_pipe.recipe import load_recipe, parse_recipe

    faults = []
    if Path(what).is_dir():
        data = Path(what)
        faults = diagnose(data, quiet=quiet)
        console().print(diagnosis_table(faults))
        recipe = parse_recipe(write_recipe(survey(data)), f"recipe for {what}", overrides or ())
    else:
        recipe = load_recipe(what, overrides or ())
    if data is None:
        raise InputError(
            "which data is to be checked?", expected="a folder", remedy="give it with --data DIR"
        )
    findings = pipeline.check(recipe, data, is_proposal=Path(what).is_dir())
    console().print(findings_table(findings))
    found = (*faults, *findings)
    raise typer.Exit(2 if any(finding.severity == "error" for finding in found) else 0)


# --- run and one command per stage ---------------------------------------------------------------


app.command(rich_help_panel=_RUN)(run)
for _stage in Stage:
    _own = {Stage.train: train, Stage.reconstruct: reconstruct}
    app.command(_stage.value, rich_help_panel=_RUN)(_own.get(_stage) or stage_command(_stage))
app.command(rich_help_panel=_RUN)(bids)


# --- look ----------------------------------------------------------------------------------------


@app.command(rich_help_panel=_LOOK)
def config(recipe: RecipeArgument, overrides: SetOption = None) -> None:
    """Print a recipe with all its values and what they mean."""
    from braindecode_pipe.recipe import load_recipe, recipe_toml

    typer.echo(recipe_toml(load_recipe(recipe, overrides or ())), nl=False)


@app.command(rich_help_panel=_LOOK)
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from braindecode_pipe.recipe import recipe_json_schema

    typer.echo(json.dumps(recipe_json_schema(), indent=2))


@app.command(rich_help_panel=_LOOK)
def inspect(
    store: Annotated[Path, typer.Argument(help="A store, or a folder that holds stores")],
) -> None:
    """Print what a store holds."""
    from braindecode_pipe.inspect import inspect_store

    console().print(inspect_store(store))


@app.command(rich_help_panel=_LOOK)
def verify(
    store: Annotated[Path, typer.Argument(help="A store, or a folder that holds stores")],
) -> None:
    """Compare every byte of a store with its checksums."""
    from braindecode_pipe.errors import StoreError
    from braindecode_pipe.inspect import find_stores
    from braindecode_pipe.store import verify_store

    damaged = 0
    for path in find_stores(store):
        try:
            problems = [str(problem) for problem in verify_store(path)]
        except StoreError as error:
            problems = [str(error)]
        damaged += bool(problems)
        console().print(Text(f"{'damaged' if problems else 'intact'}  {path}"))
        for problem in problems:
            console().print(Text(f"  {problem}"))
    raise typer.Exit(1 if damaged else 0)


app.command(rich_help_panel=_LOOK)(audit)
app.command(rich_help_panel=_LOOK)(ablate)


app.command(rich_help_panel=_LOOK)(compare)


@app.command(rich_help_panel=_LOOK)
def doctor() -> None:
    """Print versions, optional parts and what this machine offers."""
    from braindecode_pipe.inspect import environment

    console().print(environment())


# --- more ----------------------------------------------------------------------------------------


@app.command(rich_help_panel=_MORE)
def fetch(
    name: Annotated[
        str, typer.Argument(help="haxby2001, mne-sample, openneuro:ds000000 or model:ID")
    ],
    out: Annotated[Path | None, typer.Argument(help="Where it goes; default: data/NAME")] = None,
) -> None:
    """Download a data set or a model: the only command that uses the network."""
    from braindecode_pipe.fetch import fetch as download

    found = download(name, out or Path("data") / re.sub(r"[^\w.-]+", "-", name))
    console().print(Text(f"Fetched: {found}"))


@app.command(rich_help_panel=_MORE)
def simulate(
    out: Annotated[Path, typer.Argument(help="New folder for the data set")],
    subjects: Annotated[int | None, typer.Option(min=1, help="How many people")] = None,
    snr: SnrOption = None,
    seed: SeedOption = 0,
) -> None:
    """Write simulated raw recordings, as BIDS, with planted truth."""
    from braindecode_pipe.simulate import simulate as write

    settings = {"n_subjects": subjects, "snr": snr, "seed": seed}
    write(out, **{name: value for name, value in settings.items() if value is not None})
    console().print(Text(f"Simulated data: {out}"))


@app.command(rich_help_panel=_MORE)
def clean(out: Annotated[Path, typer.Argument(help="Folder of a run")]) -> None:
    """Delete results that the latest run did not use."""
    from braindecode_pipe import pipeline

    removed = pipeline.clean(out)
    console().print(f"{len(removed)} unused results deleted")
