"""Runs side by side: paired tests on the same items, never between different candidate sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import InputError
from braindecode_pipe.evaluate.comparison import Comparison, compare_items
from braindecode_pipe.report.runs import System, read_runs, systems

METRICS = ("mrr", "top1", "pair_accuracy")
UNITS = {"event": "event", "stimulus": "stimulus", "run": "recording", "subject": "subject"}
_REMEDY = "compare runs with the same [plan], [split] and [evaluate] protocol"


@dataclass(frozen=True)
class Difference:
    """One system less the first one, in one metric.

    Attributes
    ----------
    result : mean difference, its interval and p-value
    p_holm : p-value after Holm's correction over all systems, of this metric
    left_out : items that only one of the two has
    """

    system: System
    metric: str
    result: Comparison
    p_holm: float
    left_out: int


@dataclass(frozen=True)
class Contest:
    """All systems that decode one target; the first is what the others are compared with."""

    target: str
    systems: list[System]
    differences: list[Difference]


def compare_runs(folders: list[Path], *, draws: int = 2000, seed: int = 0) -> list[Contest]:
    """Every later run less the first one, on the items that both have, per target.

    Parameters
    ----------
    folders : of finished runs
    draws : bootstrap samples and permutations of each paired test
    seed : of both

    Raises
    ------
    InputError
        No common target or item; other candidates, averaging or test items.
    """
    runs = read_runs(folders)
    contests = [_contest(target, own, draws, seed) for target, own in systems(runs)]
    if not contests:
        found = "; ".join(f"{run.name}: {', '.join(run.targets)}" for run in runs)
        raise InputError("the runs decode different things", expected="a target in common",
                         found=found, remedy=_REMEDY)  # fmt: skip
    return contests


def _contest(target: str, own: list[System], draws: int, seed: int) -> Contest:
    first, *others = own
    unit = UNITS[str(_headline(first).get("bootstrap_unit") or "event")]
    results: dict[str, list[tuple[System, Comparison, int]]] = {m: [] for m in METRICS}
    for other in others:
        a, b, left_out = common_items(other, first)
        for metric in METRICS:
            found = compare_items(a, b, unit, metric, n_bootstrap=draws, n_permutations=draws,
                                  seed=seed)  # fmt: skip
            results[metric].append((other, found, left_out))
    differences = []
    for metric, rows in results.items():
        corrected = holm([result.p_value for _, result, _ in rows])
        differences += [
            Difference(other, metric, result, float(p), left_out)
            for (other, result, left_out), p in zip(rows, corrected)
        ]
    return Contest(target, own, differences)


def _headline(system: System) -> dict:
    metric, decoder = system.evaluation.verdict.get("metric"), system.evaluation.headline
    return next((r for r in system.evaluation.records
                 if r["metric"] == metric and r.get("decoder") == decoder), {})  # fmt: skip


def common_items(a: System, b: System):
    """Items of two systems that both have, as tables, and how many only one has.

    Single trials may be lost in one run only, as by another limit on artifacts. Averages over
    other trials are other items.

    Raises
    ------
    InputError
        Other averaging, no item in common, or any item with other candidates.
    """
    pair = f"{a.name} and {b.name}"
    if a.protocol.aggregate != b.protocol.aggregate:
        raise InputError(
            f"{pair} average differently and cannot be compared",
            expected=f"aggregate = {b.protocol.aggregate!r}", found=repr(a.protocol.aggregate),
            remedy=_REMEDY,
        )  # fmt: skip
    common = a.items.index.intersection(b.items.index)
    if not len(common):
        raise InputError(f"{pair} were tested on different items and cannot be compared",
                         expected="the same test items", found="none in common",
                         remedy=_REMEDY)  # fmt: skip
    pools = [system.pool_of_items().loc[common] for system in (a, b)]
    other = [x != y for x, y in zip(*pools)]
    if any(other):
        where = other.index(True)
        sizes = [pool.iloc[where][0] for pool in pools]
        raise InputError(
            f"{pair} chose among different candidates and cannot be compared",
            expected=f"the {sizes[1]} candidates of {b.name}",
            found=f"{sizes[0]} candidates" if sizes[0] != sizes[1] else "as many others",
            remedy=_REMEDY,
        )  # fmt: skip
    left_out = len(a.items) + len(b.items) - 2 * len(common)
    tables = [system.items.loc[common].reset_index() for system in (a, b)]
    if a.protocol.aggregate != "none" and left_out:
        raise InputError(f"{pair} average over different items and cannot be compared",
                         expected="the same averages", found=f"{left_out} of one run only",
                         remedy=_REMEDY)  # fmt: skip
    if not (tables[0]["n_averaged"] == tables[1]["n_averaged"]).all():
        raise InputError(f"{pair} average over different trials and cannot be compared",
                         expected="equal numbers of trials in every average",
                         found="other numbers", remedy=_REMEDY)  # fmt: skip
    return *tables, left_out


def holm(p: list[float]) -> np.ndarray:
    """p-values that hold for all tests together: Holm (1979), Scandinavian J. Statistics 6:65-70.

    The k-th smallest of n is multiplied by ``n - k + 1``; none gets smaller than one before it.
    """
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(raised, 1)
    return corrected
