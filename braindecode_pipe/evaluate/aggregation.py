"""Predictions of several trials as one query: what is averaged, and how many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, InputError, SplitError
from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.evaluate.protocols import Protocol
from braindecode_pipe.evaluate.tasks import FoldTask
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.splits import StudyPlan

EVERYBODY = "average"


@dataclass(frozen=True)
class Asked:
    """Queries of one decoder and fold.

    Attributes
    ----------
    values : (n, f) predictions
    table : one row per query: event (the first, where several are averaged), fold, subject,
        recording, n_averaged
    candidate : (n,) true candidate
    groups : (n,) name of the group within which true candidates may be exchanged
    """

    values: np.ndarray
    table: pd.DataFrame
    candidate: np.ndarray
    groups: list[str]


def ask(
    prediction: FoldPrediction,
    task: FoldTask,
    plan: StudyPlan,
    protocol: Protocol,
    together: bool,
    most: int | None = None,
) -> Asked:
    """The queries of one prediction store.

    Parameters
    ----------
    together : whether the fold tests stimuli that training has not shown
    most : average only the first trials of every stimulus and person, so many

    Raises
    ------
    DataError
        NaN in a prediction; events that the plan does not have, or whose stimulus is not tested.
    SplitError
        An average over people in a fold that tests one person.
    """
    bad = np.flatnonzero(~np.isfinite(prediction.values).all(axis=1))
    if len(bad):
        raise DataError(
            f"NaN or infinity in the predictions of {prediction.decoder}",
            expected="finite numbers",
            found=f"{len(bad)} of {len(prediction.values)} queries, e.g. "
            + ", ".join(map(str, prediction.events[bad[:5]])),
            remedy="look at the training log of this decoder, or at the recordings",
        )
    table = _table(prediction, plan)
    kept = np.array([s in task.candidate for s in prediction.stimuli], bool)
    unknown = sorted(set(prediction.stimuli[~kept]) - set(task.left_out))
    if unknown:
        raise DataError(
            "predicted events show stimuli that are not tested in their fold",
            expected="stimuli of the fold's test events",
            found=", ".join(unknown[:5]),
        )
    values, table = prediction.values[kept], table[kept].reset_index(drop=True)
    if protocol.aggregate != "none":
        values, table = average(values, table, protocol.aggregate, most)
        groups = list(table["subject"])
    else:
        table = table.assign(n_averaged=1)
        groups = list(table["subject"] if together else table["subject"] + "|" + table["recording"])
    candidate = np.array([task.candidate[s] for s in table.pop("shown")], dtype=object)
    return Asked(values, table, candidate, groups)


def average(
    values: np.ndarray, table: pd.DataFrame, how: str, most: int | None = None
) -> tuple[np.ndarray, pd.DataFrame]:
    """Mean predictions of the trials that showed one stimulus, in the order of first appearance.

    Parameters
    ----------
    values : (n, f)
    table : (n) rows with subject, shown, fold
    how : ``repetitions`` (within a person) or ``subjects`` (mean over people of those means)
    most : trials per stimulus and person, the first ones

    Raises
    ------
    SplitError
        ``subjects`` where there is one person.
    """
    if how == "subjects" and table["subject"].nunique() < 2:
        raise SplitError(
            f"fold {table['fold'].iloc[0]} has nobody to average over",
            expected='aggregate = "subjects" in folds that test several people',
            found=f"one person, {table['subject'].iloc[0]}",
            remedy='split with within_subject = false, or take aggregate = "repetitions"',
        )
    means, rows = [], []
    for _, own in table.groupby(["subject", "shown"], sort=False):
        index = own.index[:most]
        means.append(values[index].mean(axis=0, dtype=float))
        rows.append({**own.iloc[0].to_dict(), "n_averaged": len(index)})
    found, result = np.array(means), pd.DataFrame(rows)
    if how == "repetitions":
        return found, result
    means, rows = [], []
    for _, own in result.groupby("shown", sort=False):
        means.append(found[own.index].mean(axis=0))
        first = {**own.iloc[0].to_dict(), "subject": EVERYBODY, "recording": EVERYBODY}
        rows.append({**first, "n_averaged": int(own["n_averaged"].sum())})
    return np.array(means), pd.DataFrame(rows)


def check_unit(section: EvaluateSection, protocol: Protocol) -> None:
    """Raise :class:`InputError` where what the bootstrap draws was averaged away."""
    lost = {"repetitions": ("run",), "subjects": ("run", "subject")}.get(protocol.aggregate, ())
    if section.bootstrap and section.bootstrap_unit in lost:
        raise InputError(
            f'bootstrap_unit = "{section.bootstrap_unit}" does not exist after averaging',
            expected="a unit that averaged queries still have: event (the averaged query), "
            "stimulus" + (", subject" if protocol.aggregate == "repetitions" else ""),
            found=f'aggregate = "{protocol.aggregate}"'
            + (f", of protocol {protocol.name}" if protocol.name else ""),
            remedy='[evaluate] bootstrap_unit = "stimulus"',
        )


def _table(prediction: FoldPrediction, plan: StudyPlan) -> pd.DataFrame:
    events = plan.events.set_index("event")
    unknown = sorted(set(prediction.events) - set(events.index))
    if unknown:
        raise DataError(
            f"predictions of {prediction.decoder} hold events that the plan does not have",
            expected="test events of the plan",
            found=", ".join(unknown[:5]),
            remedy="run the stage train again",
        )
    own = events.loc[prediction.events]
    return pd.DataFrame(
        {
            "event": prediction.events,
            "fold": str(plan.folds["fold"].iloc[prediction.fold]),
            "subject": own["subject"].to_numpy(object),
            "recording": own["recording"].to_numpy(object),
            "shown": prediction.stimuli,
        }
    )
