"""Finished runs, read from their folders: what each decoded, from which candidates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from braindecode_pipe.errors import InputError, MissingFileError
from braindecode_pipe.evaluate.protocols import Protocol
from braindecode_pipe.evaluate.tasks import make_task, naming
from braindecode_pipe.report.study import ZERO_SHOT, Evaluation
from braindecode_pipe.splits import StudyPlan, content_hash

USED = ("done", "cached")


@dataclass(frozen=True)
class Run:
    """The folder of a finished run.

    Attributes
    ----------
    name : what tables call it, different for every run of a comparison
    folder : the folder that ``run`` wrote to
    """

    name: str
    folder: Path

    @cached_property
    def _stores(self) -> list[tuple[str, str, Path]]:
        """(stage, unit, store) of everything that the latest run used."""
        record = self.folder / "run.json"
        try:
            units = json.loads(record.read_text(encoding="utf-8"))["units"]
            return [(u["stage"], u["unit"], self.folder / u["store"]) for u in units
                    if u["status"] in USED and u["store"]]  # fmt: skip
        except FileNotFoundError:
            raise MissingFileError(
                "this is not the folder of a run", file=self.folder, expected="run.json in it",
                remedy="give the folder that `run` wrote to",
            ) from None  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                "the record of the run cannot be read", file=record,
                expected="JSON with the units of the run", found=repr(error),
                remedy="run the recipe again: results that are there are kept",
            ) from error  # fmt: skip

    @cached_property
    def plan(self) -> StudyPlan:
        """The plan that the latest run used."""
        found = [path for stage, _, path in self._stores if stage == "plan"]
        if not found:
            raise InputError("the run has no plan", file=self.folder, expected="a finished run")
        return StudyPlan.load(found[-1])

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """One per embedding; zero-shot decoding has no single queries to compare."""
        found = [Evaluation(unit, path) for stage, unit, path in self._stores
                 if stage == "evaluate" and unit != ZERO_SHOT]  # fmt: skip
        if not found:
            raise InputError(
                "the run was not evaluated", file=self.folder,
                expected="results of the stage evaluate", found="none",
                remedy="run its recipe to the end",
            )  # fmt: skip
        return found

    @property
    def targets(self) -> list[str]:
        """What was decoded."""
        return sorted({str(e.attrs.get("target", "")) for e in self.evaluations})


@dataclass(frozen=True)
class System:
    """The decoder of the verdict of one evaluation of one run."""

    run: Run
    evaluation: Evaluation

    @property
    def name(self) -> str:
        several = len(self.run.evaluations) > 1
        return f"{self.run.name}, {self.evaluation.name}" if several else self.run.name

    @property
    def target(self) -> str:
        return str(self.evaluation.attrs.get("target", ""))

    @cached_property
    def protocol(self) -> Protocol:
        """What was asked; runs of versions that did not write it cannot be compared."""
        stated = self.evaluation.attrs.get("protocol")
        if not isinstance(stated, dict):
            raise InputError(
                f"{self.name} does not say what it was asked", file=self.evaluation.path,
                expected="the protocol in the evaluation", found="none: an older version wrote it",
                remedy="run its recipe again with this version",
            )  # fmt: skip
        return Protocol(**{k: tuple(v) if isinstance(v, list) else v for k, v in stated.items()})

    @cached_property
    def items(self) -> pd.DataFrame:
        """The queries of the decoder, by event and stimulus."""
        items = self.evaluation.items
        items = items[items["decoder"] == self.evaluation.headline]
        return items.set_index(["event", "stimulus"]).sort_index()

    @cached_property
    def pools(self) -> dict[str, tuple[int, str]]:
        """Fold -> number of its candidates and hash of their content."""
        names = naming(self.run.plan, self.target)
        found = {}
        for number, fold in enumerate(self.run.plan.folds["fold"].astype(str)):
            if fold in set(self.items["fold"].astype(str)):
                task = make_task(self.run.plan, number, self.target, self.protocol, names)
                members = sorted(sorted(group) for group in task.members)
                found[fold] = (len(members), content_hash(members))
        return found

    def pool_of_items(self) -> pd.Series:
        """(event, stimulus) -> number and hash of the candidates that it was ranked among."""
        return self.items["fold"].astype(str).map(self.pools)


def read_runs(folders: list[Path]) -> list[Run]:
    """Runs with names that tell them apart: their folders' names, longer where those are equal.

    Raises
    ------
    InputError
        Fewer than two folders, or one folder twice.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise InputError(
            "there is nothing to compare", expected="two or more different runs",
            found=f"{len(set(paths))} run{'s' * (len(set(paths)) != 1)}",
            remedy="give the folders of two or more runs",
        )  # fmt: skip
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [Run("/".join(path.parts[-depth:]), Path(folder))
            for path, folder in zip(paths, folders)]  # fmt: skip


def systems(runs: list[Run]) -> Iterator[tuple[str, list[System]]]:
    """(target, what decodes it) for every target that at least two runs decode."""
    every = [System(run, evaluation) for run in runs for evaluation in run.evaluations]
    for target in dict.fromkeys(system.target for system in every):
        own = [system for system in every if system.target == target]
        if len({system.run.name for system in own}) > 1:
            yield target, own
