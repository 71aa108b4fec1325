"""Pairs: is a prediction nearer to its own target than to another one? Chance is .5."""

from __future__ import annotations

import numpy as np

from braindecode_pipe.errors import DataError

_BLOCK = 1024


def two_way(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Two-way identification: ``mean_j [corr(y_j, p_i) < corr(y_i, p_i)]`` over ``j != i``.

    As in MindEye2's public code (``corr`` over features), but ties count half: there a tie counts
    as wrong.

    Parameters
    ----------
    predictions, targets : (n, f), row i belongs to row i

    Returns
    -------
    (n,) share of the other targets that are less like the prediction. A constant row correlates
    with nothing (0).

    Raises
    ------
    DataError
        NaN, unequal shapes, fewer than two rows.
    """
    similarity = _correlations(predictions, targets)
    own = np.diagonal(similarity)[:, None]
    n = len(similarity)
    lower = (similarity < own).sum(axis=1)
    ties = (similarity == own).sum(axis=1) - 1
    return (lower + ties / 2) / (n - 1)


def two_v_two(
    predictions: np.ndarray, targets: np.ndarray, distance: str = "cosine"
) -> tuple[float, np.ndarray]:
    """2V2 accuracy, and the share of its pairs that every item is right in.

    ``2 / (N (N - 1)) sum_{i<j} [d(y_i, p_i) + d(y_j, p_j) < d(y_i, p_j) + d(y_j, p_i)]``, ties half
    (Toneva & Wehbe 2019; Oota et al. 2022 with cosine distance over voxels). With ``A_ij =
    d(y_i, p_j)`` all pairs follow from ``A_ii + A_jj - A_ij - A_ji``.

    Parameters
    ----------
    predictions, targets : (n, f), row i belongs to row i
    distance : ``cosine`` or ``correlation``

    Returns
    -------
    accuracy : float
    by_item : (n,)
        Its mean is ``accuracy``; items, not pairs, are what a bootstrap may draw.

    Raises
    ------
    DataError
        NaN, unequal shapes, fewer than two rows.
    """
    similarity = _correlations(predictions, targets, centre=distance == "correlation").T
    own = np.diagonal(similarity)
    n = len(own)
    by_item = np.empty(n)
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        margin = own[rows, None] + own - similarity[rows] - similarity[:, rows].T
        # Cosines lie in [-1, 1]: sums that differ by rounding only are ties.
        right = np.where(np.abs(margin) <= 1e-12, 0.5, margin > 0)
        by_item[rows] = (right.sum(axis=1) - 0.5) / (n - 1)
    return float(by_item.mean()), by_item


def _correlations(predictions: np.ndarray, targets: np.ndarray, centre: bool = True) -> np.ndarray:
    """(n, n) similarity of prediction i and target j, in float64."""
    predictions, targets = (np.asarray(a, np.float64) for a in (predictions, targets))
    if predictions.ndim != 2 or predictions.shape != targets.shape or len(targets) < 2:
        raise DataError(
            "pairs cannot be compared",
            expected="two matrices of equal shape with at least two rows",
            found=f"{predictions.shape} and {targets.shape}",
        )
    for name, values in (("predictions", predictions), ("targets", targets)):
        bad = np.count_nonzero(~np.isfinite(values).all(axis=1))
        if bad:
            raise DataError(
                f"NaN or infinity in {name}", expected="finite numbers", found=f"{bad} such rows"
            )
    return _unit(predictions, centre) @ _unit(targets, centre).T


def _unit(values: np.ndarray, centre: bool) -> np.ndarray:
    peak = np.abs(values).max(axis=1, keepdims=True)
    values = values / np.where(peak > 0, peak, 1.0)
    if centre:
        constant = (values == values[:, :1]).all(axis=1, keepdims=True)
        values = np.where(constant, 0.0, values - values.mean(axis=1, keepdims=True))
    norm = np.sqrt((values**2).sum(axis=1, keepdims=True))
    return values / np.where(norm > 0, norm, 1.0)
