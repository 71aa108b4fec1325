"""Units of the stage ``tokenize``: which folds share a tokenizer, and what each may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.pipeline.cache import flatten
from braindecode_pipe.pipeline.stages import Stages, table_hash
from braindecode_pipe.pipeline.units import Unit
from braindecode_pipe.preprocess.reach import reach
from braindecode_pipe.recipe import TokenizeSection
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import FitScope, StudyPlan, content_hash, fit_extents

if TYPE_CHECKING:
    from braindecode_pipe.pipeline.running import Run

WHOLE = "all"
# Settings that come after the fit, and those of it.
_AFTER = {"folder", "overlap", "values"}


@dataclass(frozen=True)
class Shared:
    """Folds that share a tokenizer.

    Attributes
    ----------
    name : that of the first fold, or ``all``
    folds : their names
    scope : what the fit may see, None where the tokenizer is there already
    recordings : that are encoded with it
    """

    name: str
    folds: tuple[str, ...]
    scope: FitScope | None
    recordings: tuple[str, ...]


@dataclass
class Tokens:
    """Token stores of a study.

    Attributes
    ----------
    of_fold : name of a fold -> recording -> unit; key ``all`` where nothing is decoded
    lost : name of a fold -> why it has no tokens
    units : those whose result is there
    """

    of_fold: dict[str, dict[str, Unit]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)

    @property
    def shown(self) -> dict[str, Path]:
        """Recording -> the store that a report shows: that of the first fold that has it."""
        found: dict[str, Path] = {}
        for own in self.of_fold.values():
            found = {name: unit.path for name, unit in own.items()} | found
        return found


def section_of(stages: Stages) -> TokenizeSection:
    """The section ``[tokenize]``.

    Raises
    ------
    RecipeError
        There is none.
    """
    section = stages.recipe.tokenize
    if section is None:
        raise RecipeError(
            "the recipe makes no tokens",
            expected="a section [tokenize]",
            found="none",
            remedy="add [tokenize]; what it may hold: `braindecode-pipe schema`",
        )
    return section


def shared_folds(stages: Stages, plan: StudyPlan, signals: Iterable[str]) -> list[Shared]:
    """Which folds share a tokenizer: those whose fits may see the same."""
    section, signals = section_of(stages), sorted(signals)
    fitted = not section.folder
    if not len(plan.folds):
        scope = _scope(stages, plan, None, signals) if fitted else None
        return [Shared(WHOLE, (), scope, tuple(signals))]
    recording = plan.events["recording"].to_numpy()
    found: dict[str, Shared] = {}
    for fold, label in enumerate(plan.folds["fold"].astype(str)):
        own = tuple(sorted(set(recording[plan.role[fold] > 0]) & set(signals)))
        scope = _scope(stages, plan, fold, signals) if fitted else None
        key = content_hash(scope.extents) if scope else ""
        before = found.get(key, Shared(label if scope else WHOLE, (), scope, ()))
        found[key] = Shared(
            before.name, (*before.folds, label), before.scope,
            tuple(sorted({*before.recordings, *own})),
        )  # fmt: skip
    return list(found.values())


def _scope(stages: Stages, plan: StudyPlan, fold: int | None, signals: list[str]) -> FitScope:
    """Recordings that a fold fits on, but for what lies within reach of its tests; else all."""
    recording = plan.events["recording"].to_numpy()
    names, label = signals, WHOLE
    if fold is not None:
        fits = np.isin(plan.role[fold], [ROLES["train"], ROLES["validation"]])
        names = sorted(set(recording[fits]) & set(signals))
        label = str(plan.folds["fold"].iloc[fold])
    extents: dict[str, tuple[tuple[float, float], ...]] = {}
    for row in plan.recordings.to_dict("records"):
        name = str(row["recording"])
        if name not in names:
            continue
        free = None
        if fold is not None:
            guard_s = reach(stages.recipe.preprocess, row).total
            free = fit_extents(plan, name, stages.extent, guard_s, fold)
        extents[name] = ((0.0, float(row["duration"])),) if free is None else free
    events = () if fold is None else plan.scope(fold).events
    return FitScope(label, events, extents)


def fit_unit(stages: Stages, plan: StudyPlan, signals: Mapping[str, Unit], own: Shared) -> Unit:
    """The fit that some folds share."""
    section = section_of(stages)
    if own.scope is None:
        raise RecipeError("the tokenizer is not fitted here", found=section.folder)
    names = [name for name in own.scope.extents if own.scope.extents[name]]
    known = plan.recordings.set_index("recording")["content_hash"]
    parts = {
        **flatten(section.model_dump(mode="json", exclude=_AFTER), "tokenize"),
        "extents": content_hash({k: sorted(v) for k, v in own.scope.extents.items()}),
        "fit scope": own.scope.hash(),
        "contents": content_hash({name: str(known[name]) for name in names}),
        **{f"signal {name}": signals[name].key for name in names},
    }
    return stages.unit(
        "tokenize",
        f"fit_{own.name}",
        parts,
        "braindecode_pipe.tokenize.stage:fit",
        {
            "section": section,
            "scope": own.scope,
            "contents": {name: str(known[name]) for name in names},
            "signals": {name: signals[name].path for name in names},
            "threads": stages.threads,
        },
    )


def encode_units(
    stages: Stages,
    plan: StudyPlan,
    signals: Mapping[str, Unit],
    own: Shared,
    tokenizer: tuple[Path, str],
) -> dict[str, Unit]:
    """One unit per recording that some folds read.

    Parameters
    ----------
    tokenizer : its store or folder, and its key
    """
    section, window = section_of(stages), stages.recipe.train.windows
    first, last = stages.recipe.extent
    if last is not None:
        last = first + section.windows_in(last - first) * section.window_s
    vectors = section.values == "vectors" and len(plan.folds) and last is not None
    vectors = vectors and window.delay != "estimate"
    rows = {str(r["recording"]): r for r in plan.recordings.to_dict("records")}
    units = {}
    for name in own.recordings:
        parts = {
            **flatten(section.model_dump(mode="json", include={"overlap", "values"}), "tokenize"),
            "tokenizer": tokenizer[1],
            "signal": signals[name].key,
            "content of the recording": str(rows[name]["content_hash"]),
            "folds": content_hash(list(own.folds)),
        }
        arguments: dict[str, Any] = {
            "section": section,
            "tokenizer": tokenizer[0],
            "recording": rows[name],
            "signal": signals[name].path,
            "folds": own.folds,
            "threads": stages.threads,
        }
        if vectors:
            here = (plan.events["recording"] == name).to_numpy()
            events = plan.events[here & (plan.role > 0).any(axis=0)]
            events = events[["event", "onset"]].reset_index(drop=True)
            parts["events"] = table_hash(events)
            parts |= flatten([first, last, window.delay], "train.windows.tmin, tmax, delay")
            arguments |= {"events": events, "extent": (first, last), "delay": window.delay}
        label = name if own.name == WHOLE else f"{name}_{own.name}"
        units[name] = stages.unit(
            "tokenize", label, parts, "braindecode_pipe.tokenize.stage:encode", arguments
        )
    return units


def run_tokens(current: Run, plan: StudyPlan, signals: Mapping[str, Unit]) -> Tokens | None:
    """Fit or load tokenizers and encode what is there; None without ``[tokenize]``."""
    stages = current.stages
    if stages.recipe.tokenize is None or "tokenize" not in current.wanted:
        return None
    every, found = shared_folds(stages, plan, signals), Tokens()
    sources = _tokenizers(current, plan, signals, every)
    encoded: dict[str, dict[str, Unit]] = {}
    for own in every:
        if own.name in sources:
            encoded[own.name] = encode_units(stages, plan, signals, own, sources[own.name])
    done = current.execute([unit for units in encoded.values() for unit in units.values()])
    for own in every:
        units = encoded.get(own.name)
        failed = [n for n, u in (units or {}).items() if u.name not in done]
        for label in own.folds or (WHOLE,):
            if units is None:
                found.lost[label] = "its tokenizer failed"
            elif failed:
                found.lost[label] = f"no tokens of {', '.join(failed[:3])}"
            found.of_fold[label] = {n: u for n, u in (units or {}).items() if u.name in done}
    found.units = [u for units in encoded.values() for u in units.values() if u.name in done]
    return found


def _tokenizers(
    current: Run, plan: StudyPlan, signals: Mapping[str, Unit], every: list[Shared]
) -> dict[str, tuple[Path, str]]:
    """Name -> place and key of every tokenizer that is there."""
    section = section_of(current.stages)
    if section.folder:
        from braindecode_pipe.tokenize.saved import fingerprint

        folder = Path(section.folder)
        return {own.name: (folder, fingerprint(folder)) for own in every}
    fits = {own.name: fit_unit(current.stages, plan, signals, own) for own in every}
    done = current.execute(fits.values())
    return {name: (unit.path, unit.key) for name, unit in fits.items() if unit.name in done}
