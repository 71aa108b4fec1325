"""Units of every stage of one study, and everything that their keys depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe import plan as plan_room
from braindecode_pipe.errors import RecipeError
from braindecode_pipe.fitting.inputs import InputScaling
from braindecode_pipe.formats.tables import TABLE_REPAIRS
from braindecode_pipe.pipeline.cache import FileHashes, code_hash, flatten, package_version
from braindecode_pipe.pipeline.units import STAGES, Unit, slug
from braindecode_pipe.preprocess.reach import SETTINGS, reach
from braindecode_pipe.recipe import EmbedSpec, Recipe, Variant, variants
from braindecode_pipe.splits import StudyPlan, content_hash, extents_hash, fit_extents

# Settings of a table of [embed] that train applies, at their defaults: no part of the embedding.
_AFTER_EMBED = {k: getattr(EmbedSpec(), k) for k in ("normalize", "components")}
# Parts of [train] that say which units there are or what they read, or are of one kind of decoder.
_OTHERS = {"decoders", "decoders_of", "embeddings", "inputs", "zero_shot", "seed", "seeds"}
_SLIDING = {"sliding_s", "sliding_step_s"}


class Stages:
    """Units of every stage of one study, made from the recipe, the data and upstream results."""

    def __init__(
        self, recipe: Recipe, data: Path, out: Path, hashes: FileHashes,
        tensorboard: Path | None = None,
    ) -> None:  # fmt: skip
        self.recipe, self.data, self.out, self.hashes = recipe, data, out, hashes
        self.threads, self.tensorboard = recipe.compute.threads, tensorboard

    def unit(
        self, stage: str, name: str, parts: dict[str, str], function: str,
        arguments: dict[str, Any], together: bool = False,
    ) -> Unit:  # fmt: skip
        """A unit of a stage, whose code and libraries join what it depends on."""
        table = STAGES[stage]
        parts = {
            **parts,
            "code": code_hash(table.rooms),
            **{f"version of {name}": package_version(name) for name in table.packages},
        }
        if stage != "report":
            parts["compute.threads"] = str(self.threads)
        return Unit(stage, name, parts, self.out, function, arguments, self.threads, together)

    @property
    def extent(self) -> tuple[float, float | None]:
        """Times [s] around an event that decoders read."""
        return self.recipe.extent

    @property
    def table_repairs(self) -> list[str]:
        """What event tables are repaired of while they are read."""
        return [r for r in self.recipe.preprocess.emeg.repairs if r in TABLE_REPAIRS]

    def reach(self, recording: Mapping[str, Any]) -> float:
        """Seconds over which preprocessing carries the samples of a recording on."""
        return reach(self.recipe.preprocess, recording).total

    def plan(self) -> Unit:
        """The single unit of stage ``plan``."""
        recipe = self.recipe
        contents = plan_room.fingerprint(recipe.plan, self.data, self.hashes)
        divides = recipe.split.by in ("time", "stimulus", "category", "segment", "column")
        parts = {
            **flatten(recipe.plan.model_dump(mode="json"), "plan"),
            **flatten(recipe.split.model_dump(mode="json"), "split"),
            **flatten(list(self.extent), "train.windows.tmin, tmax, baseline, delay"),
            **(flatten(self._reach_settings(), "preprocess") if divides else {}),
            **flatten(self.table_repairs, "preprocess.emeg.repairs"),
            **{f"content of {name}": value for name, value in contents.items()},
        }
        return self.unit(
            "plan",
            "study",
            parts,
            "braindecode_pipe.plan:run",
            {
                "section": recipe.plan,
                "split": recipe.split,
                "data": self.data,
                "extent": self.extent,
                "hasher": self.hashes,
                "reach": self.reach if divides else None,
                "repairs": self.table_repairs,
            },
        )

    def _reach_settings(self) -> dict[str, Any]:
        settings = self.recipe.preprocess.model_dump(mode="json")
        return {room: {k: settings[room][k] for k in keys} for room, keys in SETTINGS.items()}

    def preprocess(self, plan: StudyPlan) -> dict[str, Unit]:
        """One unit per recording that is not excluded."""
        from braindecode_pipe.preprocess import input_files

        units = {}
        section = self.recipe.preprocess
        for row in plan.recordings.to_dict("records"):
            if row["excluded"]:
                continue
            is_bold = row["datatype"] in ("bold", "parcels")
            own = section.bold if is_bold else section.emeg
            parts = {
                **flatten(own.model_dump(mode="json"), "bold" if is_bold else "emeg"),
                "allow_truncated": str(self.recipe.plan.allow_truncated),
                "content of the recording": row["content_hash"],
                "datatype": row["datatype"],
                "data_origin": row["data_origin"],
            }
            for file in input_files(section, row, self.data):
                name = file.relative_to(self.data.resolve()).as_posix()
                parts[f"content of {name}"] = self.hashes(file)
            events = None
            if is_bold and own.responses != "series":
                events = plan.events[plan.events["recording"] == row["recording"]]
                events = events.reset_index(drop=True)
                parts["events"] = table_hash(events)
            # EEG and MEG need no guard: what a fit must not see is bridged before it is filtered.
            guard_s = reach(section, row).filters if is_bold else 0.0
            extents = fit_extents(plan, row["recording"], self.extent, guard_s)
            if extents is not None:
                parts["fit_extents"] = extents_hash(extents)
            units[row["recording"]] = self.unit(
                "preprocess",
                row["recording"],
                parts,
                "braindecode_pipe.preprocess:run",
                {
                    "section": section,
                    "recording": row,
                    "data": self.data,
                    "allow_truncated": self.recipe.plan.allow_truncated,
                    "data_origin": row["data_origin"],
                    "events": events,
                    "fit_extents": extents,
                },
            )
        return units

    def target_of(self, name: str) -> str:
        """Target of ``[plan.stimuli]`` that an embedding table belongs to."""
        return self.recipe.embed[name].target or name

    def embed(self, plan: StudyPlan) -> dict[str, Unit]:
        """One unit per table of ``[embed]``."""
        from braindecode_pipe.embed import model_fingerprint, reaches_out, split_spans

        origin = plan.data_origin
        units = {}
        for name, spec in self.recipe.embed.items():
            spec = spec.model_copy(update=_AFTER_EMBED)
            target = self.target_of(name)
            # Only what reads beyond a stimulus depends on where the split cuts its file.
            stimuli = split_spans(plan, target) if reaches_out(spec) else _stimuli(plan, target)
            kind = str(stimuli["kind"].iloc[0]) if len(stimuli) else None
            parts = {
                **flatten(spec.model_dump(mode="json", exclude=set(_AFTER_EMBED)), f"embed.{name}"),
                **flatten(model_fingerprint(spec, kind), "model"),
                "stimuli": table_hash(stimuli),
                "data_origin": origin,
            }
            onsets = None
            if spec.onsets_of:
                onsets = _stimuli(plan, spec.onsets_of).reset_index(drop=True)
                parts["onsets"] = table_hash(onsets)
            units[name] = self.unit(
                "embed",
                name,
                parts,
                "braindecode_pipe.embed:run",
                {
                    "name": name,
                    "spec": spec,
                    "stimuli": stimuli.reset_index(drop=True),
                    "data": self.data,
                    "data_origin": origin,
                    "onsets": onsets,
                },
            )
        return units

    def decoded(self) -> list[str]:
        """Embedding tables that decoders are trained for."""
        zero_shot = self.recipe.train.zero_shot
        prompts = set(zero_shot.embeddings) if zero_shot else set()
        return self.recipe.train.embeddings or [n for n in self.recipe.embed if n not in prompts]

    def train(
        self,
        plan: StudyPlan,
        signals: dict[str, Unit],
        embeddings: dict[str, Unit],
        tokens: Mapping[str, dict[str, Unit]] | None = None,
    ) -> dict[tuple[str, str, str], Unit]:
        """One unit per (embedding, label of a variant, fold), and one for zero-shot.

        ``tokens`` of each fold are read in place of ``signals``, where there are any.
        """
        units, train = {}, self.recipe.train
        for name in self.decoded():
            if name not in embeddings:
                continue
            for decoder in train.decoders_of.get(name, train.decoders):
                for own in variants(train, decoder):
                    for fold, label in enumerate(plan.folds["fold"]):
                        read = signals if tokens is None else tokens.get(label, {})
                        units[(name, own.label, label)] = self._train_unit(
                            plan, read, embeddings[name], name, own, fold
                        )
        if self.recipe.train.zero_shot:
            units[("zero_shot", "ridge", "")] = self._zero_shot_unit(plan, signals)
        return units

    def _signals_of(
        self, plan: StudyPlan, rows: np.ndarray, signals: dict[str, Unit]
    ) -> tuple[dict[str, Path], dict[str, str]]:
        names = sorted(set(plan.events["recording"].iloc[rows]) & set(signals))
        return (
            {name: signals[name].path for name in names},
            {f"signal {name}": signals[name].key for name in names},
        )

    def _scaling(self, plan: StudyPlan, recordings: Iterable[str]) -> InputScaling | None:
        """The scaler that folds fit, where recordings are kept in SI units for it."""
        section = self.recipe.preprocess.emeg
        if self.recipe.train.inputs == "tokens":
            return None
        if section.scaler == "none" or section.scaler_scope != "train_only":
            return None
        own = plan.recordings[plan.recordings["recording"].isin(list(recordings))]
        fast = own["datatype"].isin(["eeg", "meg", "ieeg", "epochs"]).any()
        return InputScaling(section.scaler, section.clamp) if fast else None

    def _train_unit(
        self,
        plan: StudyPlan,
        signals: dict[str, Unit],
        embedding: Unit,
        name: str,
        own: Variant,
        fold: int,
    ) -> Unit:
        used = np.flatnonzero(plan.role[fold] > 0)
        target = self.target_of(name)
        columns = ["event", "onset", "duration", "group", "subject", f"stimulus_{target}"]
        paths, keys = self._signals_of(plan, used, signals)
        section = self.recipe.train.model_dump(
            mode="json", exclude={**dict.fromkeys(_OTHERS, True), "windows": _SLIDING}
        )
        section["network"] = section["network"].get(own.decoder, {})
        section |= {} if own.seed is None else {"seed": own.seed}
        section |= {} if own.window is None else {"piece": own.window}
        normalize = {k: getattr(self.recipe.embed[name], k) for k in _AFTER_EMBED}
        parts = {
            **flatten(section, "train"),
            **flatten(normalize, "embed"),
            "target": target,
            "events": table_hash(plan.events.iloc[used][columns]),
            "roles": content_hash(plan.role[fold][used].tolist()),
            "embedding": embedding.key,
            **keys,
        }
        scaling = self._scaling(plan, paths)
        if scaling is not None:
            parts |= flatten(asdict(scaling), "preprocess.emeg.scaler of each fold")
        label = str(plan.folds["fold"].iloc[fold])
        arguments = {
            "section": self.recipe.train,
            "name": name,
            "decoder": own.decoder,
            "seed": own.seed,
            "window": own.window,
            "fold": fold,
            "plan": plan,
            "signals": paths,
            "embedding": embedding.path,
            "target": target,
            **normalize,
            "scaling": scaling,
            "threads": self.threads,
        }
        unit = f"{name}_{own.label}_{label}"
        is_network = own.seed is not None
        if is_network and self.tensorboard is not None:
            arguments["tensorboard"] = self.tensorboard / slug(unit)
        return self.unit("train", unit, parts, "braindecode_pipe.train:run", arguments, is_network)

    def _zero_shot_unit(self, plan: StudyPlan, signals: dict[str, Unit]) -> Unit:
        section = self.recipe.train
        zero_shot = section.zero_shot
        if zero_shot is None:
            raise RecipeError("no [train.zero_shot] in the recipe")
        shown = (plan.events[f"stimulus_{zero_shot.target}"] != "").to_numpy()
        used = np.flatnonzero(shown & (plan.role > 0).any(axis=0))
        paths, keys = self._signals_of(plan, used, signals)
        columns = [
            "event", "onset", "duration", "group", "subject", f"stimulus_{zero_shot.target}"
        ]  # fmt: skip
        parts = {
            **flatten(zero_shot.model_dump(mode="json", exclude={"embeddings"}), "zero_shot"),
            **flatten(section.windows.model_dump(mode="json", exclude=_SLIDING), "train.windows"),
            "events": table_hash(plan.events.iloc[used][columns]),
            "stimuli": table_hash(plan.stimuli[plan.stimuli["target"] == zero_shot.target]),
            **keys,
        }
        arguments = {
            "section": section,
            "plan": plan,
            "signals": paths,
            "scaling": self._scaling(plan, paths),
            "threads": self.threads,
        }
        if arguments["scaling"] is not None:
            parts |= flatten(asdict(arguments["scaling"]), "preprocess.emeg.scaler of each fold")
        return self.unit(
            "train", "zero_shot", parts, "braindecode_pipe.train:run_zero_shot", arguments
        )

    def evaluate(
        self,
        plan: StudyPlan,
        trained: dict[tuple[str, str, str], Unit],
        embeddings: dict[str, Unit],
        leaks: Sequence[str] = (),
    ) -> dict[str, Unit]:
        """One unit per embedding table with predictions, and one for zero-shot."""
        section = self.recipe.evaluate
        settings = flatten(section.model_dump(mode="json"), "evaluate")
        tables = {
            "events": table_hash(plan.events),
            "roles": content_hash(plan.role.tolist()),
            "stimuli": table_hash(plan.stimuli),
            "recordings": table_hash(plan.recordings[["recording", "content_hash"]]),
            "split.by": self.recipe.split.by,
            **({"leaks": ", ".join(leaks)} if leaks else {}),
        }
        units = {}
        for name in self.decoded():
            own = {key: unit for key, unit in trained.items() if key[0] == name}
            if not own:
                continue
            parts = {
                **settings,
                **tables,
                "embedding": embeddings[name].key,
                **{f"predictions {d} {f}": unit.key for (_, d, f), unit in own.items()},
            }
            arguments = {
                "section": section,
                "name": name,
                "plan": plan,
                "predictions": [unit.path for unit in own.values()],
                "embedding": embeddings[name].path,
                "split": self.recipe.split.by,
                "leaks": list(leaks),
            }
            units[name] = self.unit(
                "evaluate", name, parts, "braindecode_pipe.evaluate:run", arguments
            )
        zero_shot = self.recipe.train.zero_shot
        if zero_shot and ("zero_shot", "ridge", "") in trained:
            weights = trained[("zero_shot", "ridge", "")]
            prompts = {n: embeddings[n] for n in zero_shot.embeddings if n in embeddings}
            parts = {
                **settings,
                **tables,
                "weights": weights.key,
                **{f"embedding {n}": unit.key for n, unit in prompts.items()},
            }
            arguments = {
                "section": section,
                "zero_shot": zero_shot,
                "store": weights.path,
                "embeddings": {n: unit.path for n, unit in prompts.items()},
                "plan": plan,
                "leaks": list(leaks),
            }
            units["zero_shot"] = self.unit(
                "evaluate", "zero_shot", parts, "braindecode_pipe.evaluate:run_zero_shot", arguments
            )
        return units

    def report(self, inputs: Any, upstream: list[Unit]) -> Unit:
        """The single unit of stage ``report``: it sees the whole recipe and every result."""
        parts = {
            **flatten({k: v for k, v in inputs.recipe.items() if k != "compute"}, "recipe"),
            **{f"result of {unit.stage}/{unit.name}": unit.key for unit in upstream},
            "plan": inputs.plan.stem,
            "ledger": content_hash(inputs.ledger),
            "audit": content_hash(inputs.audit),
            "failures": content_hash(inputs.failures),
            "versions": content_hash(dict(inputs.versions)),
            **({"anonymize": "true"} if inputs.anonymize else {}),
        }
        return self.unit(
            "report", "study", parts, "braindecode_pipe.report:run", {"inputs": inputs}
        )


def _stimuli(plan: StudyPlan, target: str) -> Any:
    return plan.stimuli[plan.stimuli["target"] == target]


def table_hash(table: Any) -> str:
    """Content hash of a table's rows and columns."""
    return content_hash([list(map(str, table.columns)), table.astype(str).to_numpy().tolist()])
