"""A finished study as the sections see it: every store is read when a panel first asks for it.

A store that cannot be read raises each time, so that each panel which needs it says so.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import BraindecodePipeError, IncompleteStoreError, StoreError
from braindecode_pipe.report import ReportInputs
from braindecode_pipe.report.anonymity import Aliases
from braindecode_pipe.schema import join_data_origin
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import (
    list_groups,
    open_store,
    read_file,
    read_table,
    store_attrs,
    store_hash,
)

ZERO_SHOT = "zero_shot"


class Evaluation:
    """The evaluation of one embedding table."""

    def __init__(self, name: str, path: Path, aliases: Aliases | None = None) -> None:
        self.name, self.path, self._aliases = name, path, aliases

    @cached_property
    def records(self) -> list[dict]:
        """The flat list of ``metrics.json``."""
        records = json.loads(read_file(self.path, "metrics.json"))
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise StoreError(
                "metrics.json is not a flat list of records",
                file=self.path,
                expected="a list of objects",
                found=type(records).__name__,
            )
        return records if self._aliases is None else self._aliases.value(records)

    @cached_property
    def attrs(self) -> dict:
        """Root attributes, with ``verdict`` and ``test_hash``."""
        attrs = store_attrs(self.path)
        return attrs if self._aliases is None else self._aliases.value(attrs)

    @property
    def verdict(self) -> dict:
        """``{"text", "evidence", "decoder", "metric", ...}``."""
        verdict = self.attrs.get("verdict")
        if not isinstance(verdict, dict) or "text" not in verdict:
            raise StoreError("evaluation without a verdict", file=self.path, found=repr(verdict))
        return verdict

    @cached_property
    def items(self) -> pd.DataFrame:
        """One row per (query, decoder), with rank, scores and the five first candidates."""
        items = read_table(self.path, "items")
        return items if self._aliases is None else self._aliases.table(items)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Zero-shot only: one row per (prompt set, pair of categories)."""
        return read_table(self.path, "pairs")

    @cached_property
    def null(self) -> xr.Dataset:
        """Scores under the permutation null, ``null(decoder, metric, permutation)``."""
        return open_store(self.path, "null")

    @cached_property
    def confusion(self) -> xr.Dataset | None:
        """Counts ``confusion(decoder, true, predicted)``, or None with many stimuli."""
        if "confusion" not in list_groups(self.path):
            return None
        return open_store(self.path, "confusion")

    @property
    def headline(self) -> str:
        """The decoder that the verdict speaks of."""
        named = str(self.verdict.get("decoder", "") or "")
        return named or str(self.items["decoder"].iloc[0])

    @property
    def test_hash(self) -> str:
        return str(self.attrs.get("test_hash", ""))

    def null_values(self, decoder: str, metric: str) -> np.ndarray:
        """Null distribution of one score, empty where none was drawn."""
        try:
            array = self.null["null"]
        except (BraindecodePipeError, KeyError):
            return np.empty(0)
        decoders = [str(v) for v in np.asarray(array["decoder"].values)]
        metrics = [str(v) for v in np.asarray(array["metric"].values)]
        if decoder not in decoders or metric not in metrics:
            return np.empty(0)
        values = array.isel(decoder=decoders.index(decoder), metric=metrics.index(metric))
        values = np.asarray(values.values, float)
        return values[np.isfinite(values)]


class Study:
    """All stores of one study, by name."""

    def __init__(self, inputs: ReportInputs) -> None:
        self.aliases: Aliases | None = None
        if inputs.anonymize:
            self.aliases = Aliases(StudyPlan.load(inputs.plan), store_hash(inputs.plan))
            rename = self.aliases.value
            inputs = replace(
                inputs, recipe=rename(inputs.recipe), failures=rename(inputs.failures),
                audit=rename(inputs.audit),
                signals={self.aliases.text(k): v for k, v in inputs.signals.items()},
                tokens={self.aliases.text(k): v for k, v in inputs.tokens.items()},
            )  # fmt: skip
        self.inputs = inputs
        self.recipe = inputs.recipe
        self.evaluations = [
            Evaluation(name, Path(path), self.aliases)
            for name, path in inputs.evaluations.items()
            if name != ZERO_SHOT
        ]
        zero_shot = inputs.evaluations.get(ZERO_SHOT)
        self.zero_shot = None
        if zero_shot is not None:
            self.zero_shot = Evaluation(ZERO_SHOT, Path(zero_shot), self.aliases)

    def section(self, *names: str) -> dict:
        """A section of the resolved recipe, empty where the recipe has none."""
        part = self.recipe
        for name in names:
            part = part.get(name) or {}
        return part

    @property
    def name(self) -> str:
        study = self.section("study")
        return str(study.get("title") or study.get("name") or "Study")

    @cached_property
    def plan(self) -> StudyPlan:
        return self.stored_plan if self.aliases is None else self.aliases.plan(self.stored_plan)

    @cached_property
    def stored_plan(self) -> StudyPlan:
        """The plan under the names that other stores use."""
        return StudyPlan.load(self.inputs.plan)

    @cached_property
    def plan_attrs(self) -> dict:
        """Attributes of the plan store."""
        attrs = store_attrs(self.inputs.plan)
        return attrs if self.aliases is None else self.aliases.value(attrs)

    @cached_property
    def recordings(self) -> pd.DataFrame:
        """The recordings that were not excluded."""
        table = self.plan.recordings
        return table[~table["excluded"].astype(bool)] if "excluded" in table else table

    @cached_property
    def stimuli(self) -> dict[str, dict]:
        """Stimulus id -> its row of the stimulus table."""
        table = self.plan.stimuli
        return {str(row["stimulus"]): row for row in table.to_dict("records")}

    def label(self, stimulus: str) -> str:
        """What a reader calls a stimulus; its id where the plan has no label."""
        row = self.stimuli.get(str(stimulus), {})
        return str(row.get("label") or stimulus)

    def category(self, stimulus: str) -> str:
        return str(self.stimuli.get(str(stimulus), {}).get("category") or "")

    @cached_property
    def data_origin(self) -> str:
        """``recorded``, ``simulated`` or ``mixed``, joined over the plan and every record.

        Where nothing can be read the answer is ``unknown``: silence must not pass as recorded.
        """
        found: list[str] = []
        with suppress(BraindecodePipeError, KeyError, OSError):
            found += [str(v) for v in self.recordings["data_origin"]]
        for evaluation in [*self.evaluations, *([self.zero_shot] if self.zero_shot else [])]:
            with suppress(BraindecodePipeError, OSError, ValueError):
                found += [str(r["data_origin"]) for r in evaluation.records if "data_origin" in r]
        try:
            return join_data_origin(*found)
        except BraindecodePipeError:
            return "unknown"

    def predictions(self, embedding: str) -> list[tuple[Path, dict]]:
        """Prediction stores of one embedding table with their attributes."""
        rename = (lambda attrs: attrs) if self.aliases is None else self.aliases.value
        paths = self.inputs.predictions.get(embedding, [])
        return [(Path(p), rename(store_attrs(p))) for p in paths]


def of_whole_window(records: list[dict]) -> list[dict]:
    """Records of single fits to the whole window: no piece of it, no summary over seeds."""
    return [r for r in records if "window_centre" not in r and "n_seeds" not in r]


def group_or_none(path: str | Path, group: str) -> xr.Dataset | None:
    """A group of a store, or None where the store was written without it."""
    return open_store(path, group) if group in list_groups(path) else None


def table_or_none(path: str | Path, group: str) -> pd.DataFrame | None:
    """A table of a store, or None where the store was written without it."""
    return read_table(path, group) if group in list_groups(path) else None


def require(value: object, what: str, path: str | Path | None = None) -> None:
    """Raise :class:`IncompleteStoreError` when a panel lacks what it is made of."""
    if value is None:
        raise IncompleteStoreError(f"{what} is missing", file=path)
