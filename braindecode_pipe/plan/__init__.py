"""Stage ``plan``: recordings, events, stimuli and the split, before anything is fitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import DuplicateRecordingError, EventError, LeakageError
from braindecode_pipe.plan.duplicates import find_copies, recording_anchors
from braindecode_pipe.plan.events import (
    check_readable,
    event_files,
    no_events,
    read_all_events,
)
from braindecode_pipe.plan.modalities import join_modalities
from braindecode_pipe.plan.recordings import (
    dataset_description,
    find_recordings,
    hash_file,
)
from braindecode_pipe.plan.stimuli import COLUMNS as STIMULUS_COLUMNS
from braindecode_pipe.plan.stimuli import match_stimuli
from braindecode_pipe.recipe import PlanSection, SplitSection
from braindecode_pipe.schema import ROLES, table_to_dataset
from braindecode_pipe.splits import (
    StudyPlan,
    content_hash,
    divided_recordings,
    make_folds,
    shared_between_roles,
    within_reach,
)
from braindecode_pipe.store import write_store

__all__ = ["build", "find_recordings", "fingerprint", "run"]

# Attributes of a plan -> what `read_all_events` calls them.
_NOTED = {
    "dropped_events": "dropped",
    "unsorted_events": "unsorted",
    "event_matching": "matching",
    "repaired_events": "repaired",
}
_FITTED = (ROLES["train"], ROLES["validation"])
Hasher = Callable[[Path], str]
Reach = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class PlanResult:
    """A plan and what was noticed on the way."""

    plan: StudyPlan
    attrs: dict[str, Any]


def fingerprint(section: PlanSection, data: Path, hasher: Hasher = hash_file) -> dict[str, str]:
    """Content hashes of all files that decide the plan, by relative name: a cache key's input."""
    recordings = find_recordings(section, data, hasher)
    parts = dict(zip(recordings["recording"], recordings["content_hash"]))
    for recording in recordings.to_dict("records"):
        for file in event_files(recording, data, section.derivatives):
            parts[file.relative_to(data).as_posix()] = hasher(file)
    for name in ("dataset_description.json", "participants.tsv"):
        if (data / name).is_file():
            parts[name] = hasher(data / name)
    for spec in section.stimuli.values():
        folder = data / spec.folder
        if spec.kind not in ("concept", "text") and folder.is_dir():
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    parts[file.relative_to(data).as_posix()] = hasher(file)
    return parts


def find_duplicates(recordings: pd.DataFrame, data: Path) -> list[tuple[str, str, float]]:
    """Pairs of usable recordings that share samples, with the share."""
    found = {
        str(row.recording): recording_anchors(data / row.path, row.datatype)
        for row in recordings.itertuples()
        if not row.excluded and not row.problem
    }
    return find_copies(found)


def build(
    section: PlanSection,
    split: SplitSection,
    data: Path,
    *,
    extent: tuple[float, float | None] = (0.0, None),
    hasher: Hasher = hash_file,
    reach: Reach | None = None,
    repairs: Sequence[str] = (),
) -> PlanResult:
    """Make the plan of a study in memory.

    With ``split.by = "none"`` it has no folds: copies, stimuli and events that are missing or wrong
    stop nothing, and such events are told in the attribute ``event_problems``.

    Parameters
    ----------
    section, split : sections of the recipe
    data : root of the data set
    extent : times of the windows that decoders read, as in :func:`splits.make_folds`; windows of
        different roles must not overlap
    hasher : content hash of a file
    reach : row of ``recordings`` -> seconds over which preprocessing carries samples on; default:
        it carries nothing
    repairs : of ``EmegSection.repairs``: what event tables are repaired of while they are read

    Raises
    ------
    MissingFileError, DataError, EventError, StimulusError, SplitError
        Whatever makes the study impossible, named.
    DuplicateRecordingError : recordings share samples and ``plan.duplicates`` is "error"
    LeakageError : the split would train on what it tests
    """
    recordings = find_recordings(section, data, hasher)
    check_readable(recordings)
    if split.by == "none":
        return _without_split(section, split, recordings, data, repairs)
    copies = find_duplicates(recordings, data)
    if copies and section.duplicates == "error":
        raise _duplicate_error(copies, data)
    events, noted, problems = read_all_events(section, recordings, data, repairs)
    named = recordings["recording"].map(problems)
    recordings["problem"] = recordings["problem"].where(named.isna(), named)
    for root in {data, data.resolve()}:  # a plan does not depend on where the data lie
        recordings["problem"] = recordings["problem"].str.replace(f"{root}/", "", regex=False)
    stimuli = []
    for target, spec in section.stimuli.items():
        ids, table = match_stimuli(target, spec, events, data, hasher)
        for name, column in ids.items():
            events[f"stimulus_{name}"] = column
        stimuli.append(table)
    stimuli = pd.concat(stimuli, ignore_index=True)
    target = split.target or next(iter(section.stimuli))
    joins = join_modalities(recordings, events, target)
    events["repetition"] = events.groupby(["subject", f"stimulus_{target}"]).cumcount()
    usable = recordings[~recordings["excluded"] & (recordings["problem"] == "")]
    seconds = {str(r["recording"]): reach(r) for r in usable.to_dict("records")} if reach else {}
    folds, role, events["group"] = make_folds(
        events, recordings, stimuli, split, target=target, extent=extent, reach=seconds
    )
    plan = StudyPlan(recordings, events, stimuli, folds, role)
    kinds = {name: spec.kind for name, spec in section.stimuli.items()}
    _refuse_shared(plan, split, kinds)
    attrs = {
        **_attrs(section, split, plan, data),
        **{attr: noted.get(what, {}) for attr, what in _NOTED.items()},
        "duplicates": [list(pair) for pair in copies],
        "shared_stimuli": {name: shared_between_roles(plan, name) for name in kinds},
        **({"joins": joins} if joins else {}),
        "extent": list(extent),
        "purged": _purged(plan),
        **_reaches(plan, extent, seconds),
    }
    return PlanResult(plan, attrs)


def _attrs(
    section: PlanSection, split: SplitSection, plan: StudyPlan, data: Path
) -> dict[str, Any]:
    """What every plan says about itself."""
    description = dataset_description(data)
    rows = plan.recordings.itertuples()
    return {
        "excluded": {e.recording: e.reason for e in section.exclude},
        "problems": {row.recording: row.problem for row in rows if row.problem},
        "split": split.model_dump(mode="json"),
        "split_hash": content_hash([list(plan.events["event"]), plan.role.tolist()]),
        "dataset_name": str(description.get("Name", "")),
        "dataset_license": str(description.get("License", "")),
        "dataset_references": [str(r) for r in description.get("ReferencesAndLinks", []) or []],
    }


def _without_split(
    section: PlanSection,
    split: SplitSection,
    recordings: pd.DataFrame,
    data: Path,
    repairs: Sequence[str],
) -> PlanResult:
    """A plan of recordings that are preprocessed only: no stimuli, no folds."""
    try:
        events, noted, problems = read_all_events(section, recordings, data, repairs)
    except EventError as error:
        events, noted = no_events(), {}
        problems = {"": str(error)}
    for root in {data, data.resolve()}:
        problems = {name: text.replace(f"{root}/", "") for name, text in problems.items()}
        recordings["problem"] = recordings["problem"].str.replace(f"{root}/", "", regex=False)
    events["repetition"] = 0
    events["group"] = ""
    folds = pd.DataFrame({name: pd.Series(dtype=str) for name in ("fold", "subject", "groups")})
    stimuli = pd.DataFrame({name: pd.Series(dtype=str) for name in STIMULUS_COLUMNS})
    plan = StudyPlan(recordings, events, stimuli, folds, np.zeros((0, len(events)), np.int8))
    attrs = {
        **_attrs(section, split, plan, data),
        **{attr: noted.get(what, {}) for attr, what in _NOTED.items()},
        "event_problems": problems,
        "duplicates": [],
        "shared_stimuli": {},
        "extent": [0.0, None],
    }
    return PlanResult(plan, attrs)


def _purged(plan: StudyPlan) -> dict[str, list[int]]:
    """Fold -> windows that were left out since they reach into another role, of how many."""
    counts = {
        str(fold): [int((role == ROLES["purged"]).sum()), int((role != ROLES["unused"]).sum())]
        for fold, role in zip(plan.folds["fold"], plan.role)
    }
    return {fold: count for fold, count in counts.items() if count[0]}


def _reaches(
    plan: StudyPlan, extent: tuple[float, float | None], seconds: dict[str, float]
) -> dict[str, Any]:
    """How far filters reach in recordings that are divided, and into how many fitted windows."""
    own = {name: seconds[name] for name in divided_recordings(plan) if seconds.get(name)}
    folds = plan.folds["fold"].astype(str)
    return {
        "filter_reach_s": {n: s if math.isfinite(s) else "recording" for n, s in own.items()},
        "within_reach": {
            name: [len(rows), int(np.isin(plan.role[fold], _FITTED).sum())]
            for fold, name in enumerate(folds)
            if len(rows := within_reach(plan, fold, extent, own))
        },
    }


def _duplicate_error(copies: list[tuple[str, str, float]], data: Path) -> DuplicateRecordingError:
    pairs = "; ".join(f"{a} and {b} ({share:.0%} of the samples)" for a, b, share in copies)
    second = copies[0][1]
    return DuplicateRecordingError(
        "recordings hold the same samples: a test set would contain training data",
        file=data,
        expected="every sample in one recording",
        found=pairs,
        remedy="exclude one of each pair by name in the recipe:\n"
        f'    [[plan.exclude]]\n    recording = "{second}"\n    reason = "copy of {copies[0][0]}"',
    )


def _refuse_shared(plan: StudyPlan, split: SplitSection, kinds: dict[str, str]) -> None:
    """Pictures and sounds in training and test are a leak; labels of a closed set are the task."""
    if split.shared_stimuli == "allow":
        return
    for target, kind in kinds.items():
        shared = shared_between_roles(plan, target)
        if kind == "concept" or not shared:
            continue
        labels = plan.stimuli.set_index("stimulus")["label"]
        shown = ", ".join(str(labels[s]) for s in shared[:8])
        raise LeakageError(
            f"stimuli of target {target!r} are in training and in test",
            expected="every picture or sound on one side only",
            found=f"{len(shared)} on both sides: {shown}",
            remedy='[split] by = "stimulus" (or shared_stimuli = "allow", which the report states)',
        )


def run(
    section: PlanSection,
    split: SplitSection,
    data: Path,
    out: Path,
    *,
    extent: tuple[float, float | None] = (0.0, None),
    hasher: Hasher = hash_file,
    reach: Reach | None = None,
    repairs: Sequence[str] = (),
) -> None:
    """Build the plan and write it: groups recordings, events, stimuli, folds, split."""
    result = build(section, split, data, extent=extent, hasher=hasher, reach=reach, repairs=repairs)
    plan = result.plan
    groups = {
        "recordings": table_to_dataset(plan.recordings, "recording_row"),
        "events": table_to_dataset(plan.events, "event_row"),
        "stimuli": table_to_dataset(plan.stimuli, "stimulus_row"),
        "folds": table_to_dataset(plan.folds, "fold_row"),
        "split": xr.Dataset(
            {"role": (("fold", "event"), np.asarray(plan.role, np.int8))},
            attrs={"schema_version": "1", "kind": "table", "columns": [], "dim": "event"},
        ),
    }
    write_store(out, groups, attrs={"kind": "table", "stage": "plan", **result.attrs})
