"""The form of a BIDS app: ``BIDS_DIR OUT participant|group``, recordings to stores and pages.

Participants are preprocessed one by one or together, also at the same time into one folder; what
stands there is never touched. The group level makes nothing new: it gathers what is there into one
page that links the quality page of every recording.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from braindecode_pipe import __version__
from braindecode_pipe.errors import InputError, MissingFileError
from braindecode_pipe.pipeline.cache import write_json
from braindecode_pipe.pipeline.launch import run
from braindecode_pipe.pipeline.result import RunResult
from braindecode_pipe.pipeline.units import slug
from braindecode_pipe.plan.recordings import dataset_description
from braindecode_pipe.recipe import Recipe

LEVELS = ("participant", "group")
_BIDS_VERSION = "1.9.0"


def run_bids(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    level: str,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    tasks: Sequence[str] = (),
    jobs: int = 1,
    quiet: bool = False,
) -> RunResult:
    """Preprocess participants of a BIDS data set, or gather their quality pages.

    Parameters
    ----------
    recipe : Recipe
        Its sections ``plan`` and ``preprocess`` count; nothing is decoded.
    data, out : root of the data set; folder of the derivative
    level : "participant" or "group"
    participants, sessions, tasks : labels without ``sub-``, ``ses-``, ``task-``; empty: all
    jobs : local worker processes
    quiet : no progress bars

    Returns
    -------
    RunResult of the stages plan, preprocess and report

    Raises
    ------
    InputError : an unknown level, a label that no participant has, a folder that is no derivative
    MissingFileError : no data set
    """
    data, out = Path(data), Path(out)
    if level not in LEVELS:
        raise InputError("no such level", expected=" | ".join(LEVELS), found=level)
    if not data.is_dir():
        raise MissingFileError(
            "the data set does not exist", file=data, expected="a BIDS folder", found="nothing"
        )
    labels = _labels(data, participants)
    plan = {
        "subjects": labels or recipe.plan.subjects,
        "sessions": [_bare(s, "ses") for s in sessions] or recipe.plan.sessions,
        "tasks": [_bare(t, "task") for t in tasks] or recipe.plan.tasks,
    }
    recipe = recipe.model_copy(
        update={
            "plan": recipe.plan.model_copy(update=plan),
            "split": recipe.split.model_copy(update={"by": "none"}),
        }
    )
    _describe(data, out)
    if level == "group":
        return run(recipe, data, out, jobs=jobs, quiet=quiet, reuse=("preprocess",))
    chosen = [label for values in plan.values() for label in values]
    name = slug("-".join(("participant", *chosen))) if chosen else "participant-all"
    return run(recipe, data, out, jobs=jobs, quiet=quiet, name=name)


def _bare(label: str, entity: str) -> str:
    return label.removeprefix(f"{entity}-")


def _labels(data: Path, participants: Sequence[str]) -> list[str]:
    """Labels that were asked for, all of which must be there."""
    labels = [_bare(label, "sub") for label in participants]
    there = {path.name.removeprefix("sub-") for path in data.glob("sub-*") if path.is_dir()}
    unknown = [label for label in labels if label not in there]
    if unknown:
        raise InputError(
            "participants that the data set does not have",
            file=data,
            expected=", ".join(sorted(there)) or "folders sub-*",
            found=", ".join(re.sub(r"[^\w.+-]", "?", label) for label in unknown),
            remedy="correct --participant-label",
        )
    return labels


def _describe(data: Path, out: Path) -> None:
    """Write ``dataset_description.json`` of the derivative, unless it says the same already."""
    file = out / "dataset_description.json"
    if out.resolve() == data.resolve():
        raise InputError(
            "results cannot go into the data set itself", file=out,
            expected="another folder, e.g. BIDS_DIR/derivatives/braindecode_pipe", found=str(out),
        )  # fmt: skip
    source = dataset_description(data)
    content: dict[str, Any] = {
        "Name": f"{source.get('Name', 'BIDS data set')}: stores of braindecode_pipe",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "braindecode_pipe", "Version": __version__}],
    }
    if source.get("License"):
        content["License"] = source["License"]
    if source.get("DatasetDOI"):
        content["SourceDatasets"] = [{"DOI": source["DatasetDOI"]}]
    if source.get("SimulatedData") is True:
        content["SimulatedData"] = True
    if file.is_file():
        there = dataset_description(out)
        makers = [m.get("Name") for m in there.get("GeneratedBy", []) if isinstance(m, dict)]
        if "braindecode_pipe" not in makers:
            raise InputError(
                "the output folder is another data set", file=file,
                expected="a new folder, or one that this command wrote",
                found=json.dumps(there.get("Name", "")), remedy="give another folder",
            )  # fmt: skip
        if there == content:
            return
    write_json(file, content)
