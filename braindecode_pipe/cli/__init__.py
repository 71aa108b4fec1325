"""The command ``braindecode-pipe``. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from braindecode_pipe import __version__
from braindecode_pipe.cli.bids import bids, spread
from braindecode_pipe.cli.console import console, crash_log, print_bug, print_error, show
from braindecode_pipe.cli.options import (
    BreakLockOption,
    DataOption,
    DeviceOption,
    DryRunOption,
    ForceFileOption,
    ForceOption,
    FromOption,
    GeneratorOption,
    JobsOption,
    LedgerOption,
    OutOption,
    QuietOption,
    RecipeArgument,
    SchedulerOption,
    SeedOption,
    SetOption,
    SnrOption,
    Stage,
    UntilOption,
)
from braindecode_pipe.errors import BraindecodePipeError, InputError

if TYPE_CHECKING:
    from braindecode_pipe.recipe import Recipe

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
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
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
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where data and results go")
    ] = Path("runs/demo"),
    jobs: JobsOption = 1,
    seed: SeedOption = 0,
    snr: SnrOption = None,
    quiet: QuietOption = False,
) -> None:
    """Simulate people who see pictures and hear words, decode them, and report."""
    from braindecode_pipe import pipeline

    with crash_log(out):
        show(pipeline.demo(out, jobs=jobs, quiet=quiet, seed=seed, snr=snr))


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


@app.command(rich_help_panel=_RUN)
def run(
    recipe: RecipeArgument,
    data: DataOption,
    out: OutOption = None,
    overrides: SetOption = None,
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    start: FromOption = None,
    until: UntilOption = None,
    force: ForceOption = None,
    dry_run: DryRunOption = False,
    break_lock: BreakLockOption = False,
    ledger: LedgerOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a whole study: from recordings to a report."""
    from braindecode_pipe.recipe import load_recipe

    study = load_recipe(recipe, overrides or ())
    _execute(
        study,
        data,
        out or Path("runs") / study.study.name,
        jobs=jobs,
        scheduler=scheduler,
        start=start.value if start else None,
        until=until.value if until else None,
        force=tuple(stage.value for stage in force or ()),
        dry_run=dry_run,
        break_lock=break_lock,
        ledger=ledger,
        quiet=quiet,
    )


def _add_stage(stage: Stage, does: str) -> None:
    def command(
        recipe: RecipeArgument,
        data: DataOption,
        out: OutOption = None,
        overrides: SetOption = None,
        jobs: JobsOption = 1,
        scheduler: SchedulerOption = None,
        force: ForceOption = None,
        dry_run: DryRunOption = False,
        break_lock: BreakLockOption = False,
        ledger: LedgerOption = None,
        quiet: QuietOption = False,
    ) -> None:
        run(
            recipe, data, out, overrides, jobs, scheduler, None, stage, force, dry_run, break_lock,
            ledger, quiet,
        )  # fmt: skip

    command.__doc__ = f"{does} (run until this stage)."
    app.command(stage.value, rich_help_panel=_RUN)(command)


_add_stage(Stage.plan, "Find recordings, events and stimuli, and fix the split")
_add_stage(Stage.preprocess, "Turn recordings into signal stores")
_add_stage(Stage.embed, "Turn stimuli into vectors")
_add_stage(Stage.train, "Fit decoders on every fold")
_add_stage(Stage.evaluate, "Score the predictions against chance")


@app.command(rich_help_panel=_RUN)
def reconstruct(
    recipe: RecipeArgument,
    data: DataOption,
    out: OutOption = None,
    generator: GeneratorOption = None,
    device: DeviceOption = None,
    overrides: SetOption = None,
    jobs: JobsOption = 1,
    force: ForceOption = None,
    dry_run: DryRunOption = False,
    break_lock: BreakLockOption = False,
    ledger: LedgerOption = None,
    quiet: QuietOption = False,
) -> None:
    """Draw pictures from the predictions and score them (run until this stage)."""
    from braindecode_pipe.recipe import load_recipe

    if generator is None and load_recipe(recipe, overrides or ()).reconstruct is None:
        generator = "embedded"
    own = {"generator": generator, "device": device}
    settings = [f"reconstruct.{k}={v}" for k, v in own.items() if v is not None]
    run(
        recipe, data, out, [*(overrides or []), *settings], jobs, None, None, Stage.reconstruct,
        force, dry_run, break_lock, ledger, quiet,
    )  # fmt: skip


_add_stage(Stage.report, "Write the report")


app.command(rich_help_panel=_RUN)(bids)


def _execute(recipe: Recipe, data: Path, out: Path, **options: Any) -> None:
    from braindecode_pipe import pipeline

    with crash_log(out):
        show(pipeline.run(recipe, data, out, **options))


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


@app.command(rich_help_panel=_LOOK)
def audit(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run")],
) -> None:
    """Look for leaks between training and test in a finished run."""
    from braindecode_pipe.audit import audit as find_leaks
    from braindecode_pipe.inspect import findings_table

    findings = find_leaks(run_folder)
    if findings:
        console().print(findings_table(findings))
    else:
        console().print("No leak found.", style="green")
    raise typer.Exit(1 if any(finding.severity == "error" for finding in findings) else 0)


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
