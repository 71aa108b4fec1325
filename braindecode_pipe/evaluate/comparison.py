"""Two decoders on the same items, and scores by the amount of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, InputError
from braindecode_pipe.evaluate.statistics import interval, permutation_p, resample

_BLOCK = 2**19


@dataclass(frozen=True)
class Comparison:
    """Result of :func:`compare`.

    Attributes
    ----------
    difference : mean of ``a - b`` over items
    ci_low, ci_high : percentile interval of a bootstrap over units (items within drawn units)
    p_value : two-sided, from flipping the sign of all differences of a unit together
    n_items, n_units, unit : what was compared, and what was drawn and flipped
    """

    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n_items: int
    n_units: int
    unit: str


def compare(
    a: np.ndarray,
    b: np.ndarray,
    units: np.ndarray | None = None,
    *,
    unit: str = "item",
    n_bootstrap: int = 2000,
    n_permutations: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Whether two decoders differ on the same items: paired permutation and bootstrap.

    Where nothing differs, ``a - b`` of a unit is as likely as ``b - a``; under that null the sign
    of each unit's sum is flipped at random (all ``2^u`` signs where there are not more than
    ``n_permutations``). ``p = (1 + #(|null| >= |observed|)) / (1 + N)``, or the share of all signs.

    Parameters
    ----------
    a, b : (n,) values per item, such as hits or reciprocal ranks
    units : (n,) run, person or stimulus of each item; default: items are the units
    unit : its name

    Raises
    ------
    DataError
        NaN, unequal lengths or no item.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or not np.isfinite([a, b]).all():
        raise DataError(
            "two decoders cannot be compared item by item",
            expected="finite values of the same items",
            found=f"{a.shape} and {b.shape} values, "
            f"{np.count_nonzero(~np.isfinite(a)) + np.count_nonzero(~np.isfinite(b))} not finite",
        )
    difference = a - b
    rng = np.random.default_rng([seed, 6])
    codes = np.arange(len(a)) if units is None else np.unique(units, return_inverse=True)[1]
    n_units = int(codes.max()) + 1
    draws = np.empty(0)
    if n_units > 1 and n_bootstrap:
        counts = resample(len(a), n_bootstrap, rng, None if units is None else codes)
        draws = np.concatenate([w @ difference / w.sum(axis=1) for w in counts])
    low, high = interval(draws, level)
    sums = np.bincount(codes, difference)
    observed, null = abs(difference.mean()), np.empty(0)
    if 2**n_units <= n_permutations:
        signs = 1 - 2 * (np.arange(2**n_units)[:, None] >> np.arange(n_units) & 1)
        null = np.abs(signs @ sums) / len(a)
        p = float(np.mean(null >= observed * (1 - 1e-12)))
    else:
        size = max(1, _BLOCK // n_units)
        parts = [
            rng.choice([-1.0, 1.0], (min(size, n_permutations - start), n_units)) @ sums
            for start in range(0, n_permutations, size)
        ]
        null = np.abs(np.concatenate(parts)) / len(a) if parts else null
        p = permutation_p(observed, null)
    return Comparison(float(difference.mean()), low, high, p, len(a), n_units, unit)


def compare_items(
    a: pd.DataFrame, b: pd.DataFrame, unit: str = "stimulus", metric: str = "mrr", **settings
) -> Comparison:
    """:func:`compare` of two ``items`` tables of one decoder each.

    Parameters
    ----------
    a, b : tables ``items`` of an evaluation store, rows of one decoder
    unit : event, stimulus, recording or subject
    metric : ``mrr`` (1 / mid-rank), ``top1`` (mid-rank 1) or ``pair_accuracy``
    settings : of :func:`compare`

    Raises
    ------
    InputError
        Other items, or other numbers of candidates.
    """
    a, b = (t.set_index(["event", "stimulus"]).sort_index() for t in (a, b))
    if not a.index.equals(b.index) or not a.index.is_unique:
        raise InputError(
            "decoders were scored on different items",
            expected="the same events and stimuli, one row each",
            found=f"{len(a)} and {len(b)} rows, {len(a.index.intersection(b.index))} in common",
            remedy="compare runs with the same [plan], [split] and [evaluate] protocol",
        )
    if not (a["n_candidates"] == b["n_candidates"]).all():
        raise InputError(
            "results with different numbers of candidates cannot be compared",
            expected="equal n_candidates for every item",
            found=f"{sorted(set(a['n_candidates']))} and {sorted(set(b['n_candidates']))}",
            remedy="compare runs with the same [evaluate] protocol and [split]",
        )
    value = {
        "mrr": lambda t: 1 / t["rank"],
        "top1": lambda t: (t["rank"] == 1).astype(float),
        "pair_accuracy": lambda t: 1 - (t["rank"] - 1) / (t["n_candidates"] - 1),
    }[metric]
    units = a.reset_index()[unit].to_numpy() if unit != "event" else None
    return compare(value(a).to_numpy(), value(b).to_numpy(), units, unit=unit, **settings)


def learning_curve(
    scores: Mapping[float, Sequence[float]],
    units: Mapping[float, Sequence[object]] | None = None,
    *,
    unit: str = "item",
    n_bootstrap: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Score by minutes of training data, with intervals.

    Parameters
    ----------
    scores : minutes of training data -> values per test item
    units : minutes -> run, person or stimulus of each item; default: items are drawn
    unit : its name

    Returns
    -------
    DataFrame
        minutes (rising), value, ci_low, ci_high, n_items, n_units, unit

    Raises
    ------
    DataError
        A point without items or with NaN, or minutes that are not positive.
    """
    rows = []
    for minutes in sorted(scores):
        values = np.asarray(scores[minutes], float)
        if not len(values) or not np.isfinite(values).all() or not minutes > 0:
            raise DataError(
                "a point of the learning curve has no score",
                expected="finite scores of test items after a positive number of minutes",
                found=f"{len(values)} items, {np.count_nonzero(~np.isfinite(values))} not finite, "
                f"{minutes:g} minutes",
            )
        codes = None
        if units is not None:
            codes = np.unique(np.asarray(units[minutes]), return_inverse=True)[1]
        n_units = len(values) if codes is None else int(codes.max()) + 1
        draws = np.empty(0)
        if n_units > 1 and n_bootstrap:
            # The same seed at every point: equal items are drawn alike along the curve.
            counts = resample(len(values), n_bootstrap, np.random.default_rng([seed, 7]), codes)
            draws = np.concatenate([w @ values / w.sum(axis=1) for w in counts])
        low, high = interval(draws, level)
        rows.append((float(minutes), float(values.mean()), low, high, len(values), n_units, unit))
    columns = ["minutes", "value", "ci_low", "ci_high", "n_items", "n_units", "unit"]
    return pd.DataFrame(rows, columns=columns)
