"""Where the audit stands in a run: before anything is trained, and before anything is scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from braindecode_pipe.audit import Finding, audit_plan, audit_stores, refuse, worst_first
from braindecode_pipe.plan import build
from braindecode_pipe.preprocess.reach import reach
from braindecode_pipe.recipe import Recipe
from braindecode_pipe.splits import StudyPlan


class Auditor:
    """What was found on the way of one run, and which leaks it may go on with."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self.allowed = list(allowed)
        self.findings: list[Finding] = []
        self._attrs: dict[str, Any] = {}

    def before_training(self, plan: StudyPlan, attrs: dict[str, Any]) -> None:
        """Stop where the plan alone shows a leak that is not allowed."""
        self._attrs = attrs
        self.findings = audit_plan(plan, attrs)
        refuse(self.findings, self.allowed)

    def before_evaluation(self, plan: StudyPlan, stores: Mapping[str, Iterable[Path]]) -> list[str]:
        """Stop where what was fitted shows one; names of all leaks that were found and allowed."""
        self.findings += audit_stores(plan, self._attrs, dict(stores))
        return refuse(self.findings, self.allowed)

    def record(self) -> list[dict[str, Any]]:
        """The findings as plain values, errors first, each with ``allowed``."""
        return [
            {**asdict(f), "names": list(f.names), "allowed": f.check in self.allowed}
            for f in worst_first(self.findings)
        ]


def audit_recipe(recipe: Recipe, data: str | Path) -> list[Finding]:
    """Findings about the plan that a recipe makes of a data set; nothing is written.

    Raises
    ------
    InputError
        There is no such plan; :class:`LeakageError` where the split itself refuses.
    """
    result = build(
        recipe.plan, recipe.split, Path(data), extent=recipe.train.extent,
        reach=lambda recording: reach(recipe.preprocess, recording).total,
        repairs=recipe.preprocess.emeg.repairs,
    )  # fmt: skip
    return worst_first(audit_plan(result.plan, result.attrs))
