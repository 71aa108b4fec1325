"""The commands that run a study: whole, until a stage, or as a job of a cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from braindecode_pipe.cli.console import crash_log, show
from braindecode_pipe.cli.options import (
    AllowLeakOption,
    AnonymizeOption,
    BreakLockOption,
    DataOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    FromOption,
    GeneratorOption,
    JobsOption,
    LedgerOption,
    OutOption,
    QuietOption,
    RecipeArgument,
    ReportsOnlyOption,
    SchedulerOption,
    SetOption,
    Stage,
    TensorboardOption,
    UntilOption,
)
from braindecode_pipe.errors import InputError

if TYPE_CHECKING:
    from braindecode_pipe.recipe import Recipe

_DOES = {
    Stage.plan: "Find recordings, events and stimuli, and fix the split",
    Stage.preprocess: "Turn recordings into signal stores",
    Stage.embed: "Turn stimuli into vectors",
    Stage.tokenize: "Fit or load tokenizers, and turn recordings into codes",
    Stage.train: "Fit decoders on every fold",
    Stage.evaluate: "Score the predictions against chance",
    Stage.report: "Write the report",
}
_TIME = r"\d+(-\d+)?(:\d+){0,2}"


def is_left_out(given: Sequence[str]) -> bool:
    """Whether this process of ``torchrun`` has no part in a command."""
    shared = {"run", *(stage.value for stage in Stage)}
    return os.environ.get("RANK", "0") != "0" and not shared & set(given[:1])


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
    tensorboard: TensorboardOption = None,
    allow_leak: AllowLeakOption = None,
    quiet: QuietOption = False,
    reports_only: ReportsOnlyOption = False,
    anonymize: AnonymizeOption = False,
) -> None:
    """Run a whole study: from recordings to a report."""
    from braindecode_pipe.recipe import load_recipe

    if reports_only:
        if start or until or force:
            raise InputError(
                "--reports-only says already which stages run", expected="--reports-only alone",
                found="it beside --from, --until or --force", remedy="leave those out",
            )  # fmt: skip
        start, force = Stage.report, [Stage.report]
    study = load_recipe(recipe, overrides or ())
    _execute(
        study,
        data,
        out or _folder(study),
        jobs=jobs,
        scheduler=scheduler,
        start=start.value if start else None,
        until=until.value if until else None,
        force=tuple(stage.value for stage in force or ()),
        dry_run=dry_run,
        break_lock=break_lock,
        ledger=ledger,
        tensorboard=tensorboard,
        allow_leaks=tuple(allow_leak or ()),
        quiet=quiet,
        anonymize=anonymize,
    )


def stage_command(stage: Stage) -> Callable[..., None]:
    """The command that runs a study until a stage."""

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
        allow_leak: AllowLeakOption = None,
        quiet: QuietOption = False,
    ) -> None:
        run(
            recipe, data, out, overrides, jobs, scheduler, None, stage, force, dry_run, break_lock,
            ledger, None, allow_leak, quiet,
        )  # fmt: skip

    command.__doc__ = f"{_DOES[stage]} (run until this stage)."
    return command


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
    allow_leak: AllowLeakOption = None,
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
        force, dry_run, break_lock, ledger, None, allow_leak, quiet,
    )  # fmt: skip


def train(
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
    tensorboard: TensorboardOption = None,
    allow_leak: AllowLeakOption = None,
    quiet: QuietOption = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Print a script for sbatch that does this, and end")
    ] = False,
    nodes: Annotated[int, typer.Option(min=1, help="--slurm: machines")] = 1,
    gpus: Annotated[
        int, typer.Option(min=0, help="--slurm: GPUs of each, a process for every one")
    ] = 1,
    limit: Annotated[
        str, typer.Option("--time", metavar="[D-]H:M:S", help="--slurm: longest time of the job")
    ] = "24:00:00",
    partition: Annotated[
        str | None, typer.Option(help="--slurm: part of the cluster; default: its own choice")
    ] = None,
) -> None:
    """Fit decoders on every fold (run until this stage)."""
    if not slurm:
        run(
            recipe, data, out, overrides, jobs, scheduler, None, Stage.train, force, dry_run,
            break_lock, ledger, tensorboard, allow_leak, quiet,
        )  # fmt: skip
        return
    from braindecode_pipe.cli.slurm import sbatch_script
    from braindecode_pipe.recipe import load_recipe

    study = load_recipe(recipe, overrides or ())
    _check_job(jobs, scheduler, limit, partition)
    file = Path(recipe)
    places = {"--data": data, "--out": out or _folder(study), "--ledger": ledger,
              "--tensorboard": tensorboard}  # fmt: skip
    command = ["train", str(file.resolve()) if file.is_file() else recipe]
    for option, place in places.items():
        command += [] if place is None else [option, str(place.resolve())]
    for override in overrides or ():
        command += ["--set", override]
    for stage in force or ():
        command += ["--force", stage.value]
    for leak in allow_leak or ():
        command += ["--allow-leak", leak]
    text = sbatch_script(
        [*command, "--quiet"],
        name=study.study.name,
        folder=Path.cwd(),
        nodes=nodes,
        gpus=gpus,
        time=limit,
        partition=partition,
        threads=study.compute.threads,
    )
    typer.echo(text, nl=False)


def _check_job(jobs: int, scheduler: str | None, limit: str, partition: str | None) -> None:
    if jobs > 1 or scheduler is not None:
        raise InputError(
            "a job of SLURM starts its processes itself",
            expected="--slurm with --nodes and --gpus",
            found="--slurm with --jobs or --scheduler",
            remedy="leave --jobs and --scheduler out",
        )
    if not re.fullmatch(_TIME, limit):
        raise InputError("the time limit cannot be read", expected="e.g. 12:00:00 or 2-00:00:00",
                         found=repr(limit), remedy="correct --time")  # fmt: skip
    if partition is not None and not re.fullmatch(r"[\w.,+-]+", partition):
        raise InputError("no name of a partition", expected="letters, digits, dash",
                         found=repr(partition), remedy="correct --partition")  # fmt: skip


def _folder(study: Recipe) -> Path:
    return Path("runs") / study.study.name


def _execute(recipe: Recipe, data: Path, out: Path, **options: Any) -> None:
    from braindecode_pipe import pipeline

    with crash_log(out):
        result = pipeline.run(recipe, data, out, **options)
        if os.environ.get("RANK", "0") != "0":
            return
        show(result)
