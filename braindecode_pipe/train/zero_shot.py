"""Zero-shot decoding: ridge weights from which any embedding of category names can be predicted.

Ridge is linear in its targets. A fit to one-hot labels therefore holds the fits to every embedding
``E`` of the categories: the prediction for ``E`` is ``weights @ E`` with the rows of the training
categories, and a refit under a permuted category-to-embedding map is ``weights @ E[permutation]``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import RecipeError, SplitError
from braindecode_pipe.fitting.delay import estimate_delay
from braindecode_pipe.fitting.inputs import InputScaling, fit_inputs
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import TrainSection, ZeroShotSection
from braindecode_pipe.schema import SCHEMA_VERSION, join_data_origin
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import write_store
from braindecode_pipe.train.folds import open_signals
from braindecode_pipe.train.linear import fit_ridge, moments
from braindecode_pipe.train.people import check_one_layout, sensors_of


def run_zero_shot(
    section: TrainSection,
    plan: StudyPlan,
    signals: Mapping[str, Path],
    out: Path,
    *,
    scaling: InputScaling | None = None,
    threads: int = 1,
) -> None:
    """Leave two categories and one group out, for every pair and group, and store the weights.

    For every pair of categories and every group of the split (a run, say), ridge is fitted to the
    one-hot labels of the other categories in the other groups, its penalty chosen there by leaving
    groups out; it then predicts the events of the two categories in the left-out group. The
    penalty does not depend on any embedding. People are done one by one. The response delay,
    where asked for, is estimated without the left-out group. Windows are single ones, whatever
    ``[train.windows] repeats`` says.

    The store holds ``weights (row, category)``: a row is one test event in one pair, and its
    weights over the categories sum to 1 (0 for the two left out). Coordinates along ``row``:
    ``pair``, ``a``, ``b``, ``true`` (numbers of categories), ``event``, ``subject``, ``group``,
    ``alpha``, ``delay``; along ``category``: its label.

    Parameters
    ----------
    section : TrainSection with ``zero_shot``
    plan : StudyPlan
    signals : recording -> store
    out : store to write
    scaling : scaler of the recordings, fitted without the left-out group, if any
    threads : threads that sums may use

    Raises
    ------
    RecipeError
        When a category is not among the labels, or there are fewer than three.
    SplitError
        When there is only one group.
    """
    from threadpoolctl import threadpool_limits

    zero_shot = section.zero_shot
    if zero_shot is None:
        raise RecipeError(
            "no zero-shot analysis in the recipe", expected="[train.zero_shot]", found="nothing"
        )
    events = _category_events(zero_shot, plan)
    with threadpool_limits(threads):
        parts, origins = [], set()
        for subject in sorted(set(events["subject"].astype(str))):
            own = events[events["subject"].astype(str) == subject].reset_index(drop=True)
            opened = open_signals(signals, own["recording"])
            parts.append(_of_subject(section, zero_shot, own, opened, scaling))
            origins |= {str(s.attrs["data_origin"]) for s in opened.values()}
    dataset = _dataset(pd.concat([table for table, _ in parts], ignore_index=True),
                       np.concatenate([weights for _, weights in parts]),
                       zero_shot)  # fmt: skip
    dataset.attrs["data_origin"] = join_data_origin(*origins)
    write_store(out, {"": dataset})


def _category_events(zero_shot: ZeroShotSection, plan: StudyPlan) -> pd.DataFrame:
    """Events that show one of the categories, with the number of the category."""
    stimuli = plan.stimuli[plan.stimuli["target"] == zero_shot.target]
    label = dict(zip(stimuli["stimulus"].astype(str), stimuli["label"].astype(str)))
    number = {category: i for i, category in enumerate(zero_shot.categories)}
    unknown = sorted(set(number) - set(label.values()))
    if unknown or len(number) < 3:
        raise RecipeError(
            "categories of the zero-shot analysis",
            expected="at least 3 of " + ", ".join(sorted(set(label.values()))),
            found=", ".join(zero_shot.categories),
            remedy="correct [train.zero_shot] categories",
        )
    events = plan.events.copy()
    shown = events[f"stimulus_{zero_shot.target}"].astype(str).map(label)
    events["category"] = shown.map(number)
    used = (plan.role > 0).any(axis=0) & events["category"].notna().to_numpy()
    return events[used].reset_index(drop=True)


def _of_subject(
    section: TrainSection, zero_shot: ZeroShotSection, events: pd.DataFrame,
    opened: dict[str, Any], scaling: InputScaling | None,
) -> tuple[pd.DataFrame, np.ndarray]:  # fmt: skip
    """Rows of the table and their weights ``(n_rows, n_categories)`` for one person."""
    groups = list(dict.fromkeys(events["group"].astype(str)))
    if len(groups) < 3:
        raise SplitError(
            "zero-shot decoding leaves one group out and chooses a penalty in the others",
            expected="at least 3 groups (runs, say)",
            found=", ".join(groups) or "none",
        )
    n = len(zero_shot.categories)
    tables, weights = [], []
    windows = X = None
    for group in groups:
        delay = section.windows.delay
        if delay == "estimate":
            seen = events[events["group"].astype(str) != group]
            hidden = events[events["group"].astype(str) == group]
            inside = {r: opened[r] for r in dict.fromkeys(seen["recording"]) if r in opened}
            delay = estimate_delay(inside, seen, section.windows.delay_max, hidden).delay
        if windows is None or windows.delay != float(delay):
            windows = Windows(opened, events, section.windows, float(delay))
            check_one_layout(sensors_of(windows), "ridge")
            rows, X = windows.rows(), None
        valid = events.iloc[rows]
        category = valid["category"].to_numpy(int)
        member = valid["group"].astype(str).to_numpy(object)
        seen = member != group
        inputs = fit_inputs(windows, rows[seen], category[seen], scaling, section.windows.whiten)
        if X is None or inputs is not None:
            X = windows.transformed(inputs).read(rows).reshape(len(rows), -1).astype(np.float64)
        for pair, (a, b) in enumerate(itertools.combinations(range(n), 2)):
            left = np.isin(category, (a, b))
            train, test = ~left & (member != group), left & (member == group)
            if not test.any():
                continue
            predicted, alpha = _predict(X, category, member, train, test, n, zero_shot.alphas)
            tables.append(
                valid[test][["event", "subject", "group"]].assign(
                    pair=pair, a=a, b=b, true=category[test], alpha=alpha, delay=float(delay)
                )
            )
            weights.append(predicted)
    if not tables:
        raise SplitError("no event to decode zero-shot", expected="events of the categories",
                         found="none with a valid window")  # fmt: skip
    return pd.concat(tables, ignore_index=True), np.concatenate(weights)


def _predict(
    X: np.ndarray,
    category: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    n: int,
    alphas: list[float],
) -> tuple[np.ndarray, float]:
    """Weights over categories ``(n_test, n)`` of test rows, and the penalty chosen."""
    if len(set(groups[train])) < 2:
        raise SplitError(
            "too little to choose the penalty of zero-shot decoding",
            expected="training events in at least 2 groups",
            found=f"{int(train.sum())} events in {len(set(groups[train]))} groups",
        )
    mean, scale = moments(X[train])
    Z = (X - mean) / scale
    onehot = np.eye(n)[category[train]]
    fit = fit_ridge(Z[train], onehot, groups[train], alphas)
    return Z[test] @ fit.weights + fit.intercept, fit.penalty


def _dataset(table: pd.DataFrame, weights: np.ndarray, zero_shot: ZeroShotSection) -> xr.Dataset:
    coords: dict[str, Any] = {
        "category": ("category", np.asarray(zero_shot.categories, object)),
    }
    for name in ("event", "subject", "group"):
        coords[name] = ("row", table[name].astype(str).to_numpy(object))
    for name in ("pair", "a", "b", "true"):
        coords[name] = ("row", table[name].to_numpy(np.int64))
    for name in ("alpha", "delay"):
        coords[name] = ("row", table[name].to_numpy(np.float64))
    return xr.Dataset(
        {"weights": (("row", "category"), weights.astype(np.float32))},
        coords=coords,
        attrs={
            "schema_version": SCHEMA_VERSION,
            "kind": "table",
            "target": zero_shot.target,
            "decoder": "ridge",
        },
    )
