"""Look before you run, and tidy up afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from braindecode_pipe.errors import InputError, MissingFileError, NoEventsError, SplitError
from braindecode_pipe.pipeline.consistency import rate_conflicts, repeat_findings
from braindecode_pipe.pipeline.findings import Finding, plan_findings
from braindecode_pipe.pipeline.lag_check import lag_findings
from braindecode_pipe.pipeline.units import FIT_SUFFIX
from braindecode_pipe.plan import build
from braindecode_pipe.preprocess.reach import reach
from braindecode_pipe.recipe import Recipe
from braindecode_pipe.store import StoreLock, delete_store, is_committed


def check(recipe: Recipe, data: str | Path, *, is_proposal: bool = False) -> list[Finding]:
    """Read headers, events, stimuli and the split of a study, and when a few recordings respond.

    Nothing is left behind: what is preprocessed for it lies in a temporary folder.

    Errors that would stop the plan are findings too, so that ``check`` never raises for bad input.

    Parameters
    ----------
    recipe, data : the study
    is_proposal : bool
        Nobody asked for this recipe: that there is nothing to decode, or nothing to split, is a
        warning then. The recordings can still be preprocessed.
    """
    try:
        result = build(
            recipe.plan, recipe.split, Path(data), extent=recipe.extent,
            reach=lambda recording: reach(recipe.preprocess, recording).total,
            repairs=recipe.preprocess.emeg.repairs,
        )  # fmt: skip
    except (SplitError, NoEventsError) as error:
        return [Finding("warning" if is_proposal else "error", str(error))]
    except InputError as error:
        return [Finding("error", str(error))]
    plan, attrs = result.plan, result.attrs
    findings = plan_findings(attrs)
    findings += [
        Finding("error", str(error)) for error in rate_conflicts(plan.recordings, recipe.preprocess)
    ]
    findings += repeat_findings(plan, recipe.preprocess)
    findings += lag_findings(recipe, Path(data), plan)
    findings.append(
        Finding(
            "note",
            f"{len(plan.recordings)} recordings of {plan.recordings['subject'].nunique()} people, "
            f"{len(plan.events)} events, {len(plan.stimuli)} stimuli, {len(plan.folds)} folds",
        )
    )
    return findings


def clean(out: str | Path) -> list[Path]:
    """Delete results that the last run did not use; the folders that were deleted.

    Stages that the last run did not reach keep all that they have. What killed writers left of
    unused results goes too, and so do checkpoints of fits that are done or not used any more.

    Raises
    ------
    MissingFileError : ``out`` is no run folder
    """
    out = Path(out)
    # What participants were given by `bids` is used as well, whatever ran last.
    records = [*out.glob("run.json"), *sorted(out.glob("participant-*.json"))]
    if not records:
        raise MissingFileError(
            "this is not the folder of a run", file=out, expected="run.json in it",
            remedy="give the folder that `run` wrote to",
        )  # fmt: skip
    units = [
        unit for file in records for unit in json.loads(file.read_text(encoding="utf-8"))["units"]
    ]
    used, reached = ({unit[key] for unit in units} for key in ("store", "stage"))
    removed = []
    with StoreLock(out / "run"):
        for fit in out.glob("tokenize/*/*.fit"):
            # Checkpoints of a fit that was stopped: of no use to another one.
            if fit.with_suffix(".zarr").relative_to(out).as_posix() not in used:
                shutil.rmtree(fit)
        parts = [path for path in out.glob("*/*/*.zarr.*-*") if path.is_dir()]
        named = {path.with_name(path.name.partition(".zarr.")[0] + ".zarr") for path in parts}
        for store in sorted({*out.glob("*/*/*.zarr"), *named}):
            name = store.relative_to(out)
            if name.parts[0] in reached and name.as_posix() not in used and not store.is_symlink():
                delete_store(store)
                removed.append(store)
        for folder in sorted(out.glob(f"*/*/*{FIT_SUFFIX}")):
            store = folder.with_suffix(".zarr")
            unused = store.relative_to(out).as_posix() not in used
            if is_committed(store) or (unused and store.relative_to(out).parts[0] in reached):
                shutil.rmtree(folder)
                removed.append(folder)
    return removed
