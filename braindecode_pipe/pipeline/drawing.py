"""The optional stage ``reconstruct``: its units, and how they are run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.pipeline.cache import flatten
from braindecode_pipe.recipe import Recipe
from braindecode_pipe.splits import StudyPlan, content_hash

if TYPE_CHECKING:
    from braindecode_pipe.pipeline.stages import Stages
    from braindecode_pipe.pipeline.units import Unit

Trained = dict[tuple[str, str, str], "Unit"]


def refuse_without_section(recipe: Recipe, until: str | None) -> None:
    """Raise where the run is to end at a stage that the recipe does not ask for."""
    if until == "reconstruct" and recipe.reconstruct is None:
        raise RecipeError(
            "the recipe asks for no reconstruction", expected="a section [reconstruct]",
            found="none", remedy="add it, or --set reconstruct.generator=embedded",
        )  # fmt: skip


def reconstruct(
    current: Any, plan: StudyPlan, trained: Trained, embeddings: dict[str, Unit]
) -> dict[str, Unit]:
    """Run the stage, where it is asked for; the units whose result is there."""
    if current.recipe.reconstruct is None or "reconstruct" not in current.wanted:
        return {}
    units = reconstruct_units(current.stages, plan, trained, embeddings)
    done = current.execute(units.values())
    return {name: unit for name, unit in units.items() if unit.name in done}


def reconstruct_units(
    stages: Stages, plan: StudyPlan, trained: Trained, embeddings: dict[str, Unit]
) -> dict[str, Unit]:
    """One unit per decoded table whose stimuli are pictures, for one decoder."""
    from braindecode_pipe.reconstruct import fingerprint

    recipe, section = stages.recipe, stages.recipe.reconstruct
    if section is None:
        return {}
    units = {}
    pictures = set(plan.stimuli["target"][plan.stimuli["kind"] == "image"])
    for name in section.embeddings or stages.decoded():
        decoders = recipe.train.decoders_of.get(name, recipe.train.decoders)
        decoder = section.decoder or decoders[0]
        own = {fold: u for (n, d, fold), u in trained.items() if (n, d) == (name, decoder)}
        target = stages.target_of(name) if name in recipe.embed else ""
        if name not in embeddings or not own or (not section.embeddings and target not in pictures):
            continue
        # Names of folders decide nothing; the files in them do.
        settings = section.model_dump(mode="json", exclude={"embeddings", "networks"})
        settings["generator"] = Path(section.generator).name
        parts = {
            **flatten(settings, "reconstruct"),
            **fingerprint(section),
            "events": content_hash(plan.events.astype(str).to_numpy().tolist()),
            "roles": content_hash(plan.role.tolist()),
            "stimuli": content_hash(plan.stimuli.astype(str).to_numpy().tolist()),
            "embedding": embeddings[name].key,
            **{f"predictions {decoder} {fold}": unit.key for fold, unit in own.items()},
        }
        arguments = {
            "section": section,
            "name": name,
            "plan": plan,
            "predictions": [unit.path for unit in own.values()],
            "embedding": embeddings[name].path,
            "data": stages.data,
            "threads": stages.threads,
        }
        units[name] = stages.unit(
            "reconstruct", name, parts, "braindecode_pipe.reconstruct:run", arguments
        )
    return units
