"""Pictures against pictures: the metrics of image reconstruction, from arrays.

Every metric is a matrix ``score(i, j)`` of reconstruction i for target j. Its diagonal is what is
reported; exchanging the targets among the reconstructions gives its null distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.statistics import interval, permutation_p

Kind = Literal["correlation", "ssim", "two-way", "distance"]
# Luminance of scikit-image's rgb2gray (CRT primaries).
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
_SIGMA, _RADIUS, _K1, _K2 = 1.5, 5, 0.01, 0.03
_COLUMNS = 16384


@dataclass(frozen=True)
class Metric:
    """One metric of reconstruction.

    Attributes
    ----------
    name : str
    kind : ``correlation`` (Pearson of the features), ``ssim``, ``two-way`` (share of the other
        targets that are less correlated with the reconstruction), ``distance`` (1 - correlation)
    feature : what of a picture is compared
    stand_in_for : metric of the field in whose place it stands; "" where it is that metric
    """

    name: str
    kind: Kind
    feature: str
    stand_in_for: str = ""

    @property
    def larger_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self.kind != "distance"

    @property
    def chance(self) -> float:
        """Value of a reconstruction that knows nothing of its target; NaN where none is known."""
        return {"two-way": 0.5, "correlation": 0.0}.get(self.kind, np.nan)


def grey(pictures: np.ndarray) -> np.ndarray:
    """Luminance ``.2125 R + .7154 G + .0721 B``: (..., 3) -> (...), float64."""
    return np.asarray(pictures, np.float64) @ _LUMINANCE


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity of two grey pictures whose values lie in 0 to 1.

    Mean over pixels of ``(2 mx my + C1)(2 sxy + C2) / ((mx2 + my2 + C1)(sx2 + sy2 + C2))`` with
    ``C = (.01)^2, (.03)^2``; local moments under a Gaussian of 1.5 pixels cut at 11 x 11, weights
    that sum to 1 and no sample correction; the 5 pixels at the border are left out (Wang et al.
    2004, as in scikit-image with ``gaussian_weights``, ``use_sample_covariance=False``).

    Parameters
    ----------
    first, second : (height, width)

    Raises
    ------
    DataError
        Shapes differ, a side is shorter than 11 pixels, or a value is not finite.
    """
    return float(ssim_matrix(first[None], second[None])[0, 0])


def ssim_matrix(pictures: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """SSIM of every picture with every target: (n, h, w) and (m, h, w) -> (n, m).

    Means and variances are computed once for each picture; only the products are for each pair.
    """
    pictures, targets = np.asarray(pictures, np.float64), np.asarray(targets, np.float64)
    _check_grey(pictures, targets)
    theirs = [_moments(target) for target in targets]
    values = np.empty((len(pictures), len(targets)))
    for i, picture in enumerate(pictures):
        own = _moments(picture)
        for j, target in enumerate(targets):
            values[i, j] = _ssim(picture, target, own, theirs[j])
    return values


def _check_grey(pictures: np.ndarray, targets: np.ndarray) -> None:
    same = pictures.ndim == 3 and pictures.shape[1:] == targets.shape[1:]
    if not same or min(pictures.shape[1:]) < 2 * _RADIUS + 1:
        raise DataError(
            "pictures cannot be compared by SSIM",
            expected=f"grey pictures of one size, at least {2 * _RADIUS + 1} pixels a side",
            found=f"{pictures.shape} and {targets.shape}",
        )
    _check_finite(pictures, targets)


def _check_finite(*arrays: np.ndarray) -> None:
    bad = sum(int((~np.isfinite(a.reshape(len(a), -1))).any(axis=1).sum()) for a in arrays)
    if bad:
        raise DataError(
            "NaN or infinity in what is compared", expected="finite numbers",
            found=f"{bad} such pictures",
        )  # fmt: skip


def _blur(picture: np.ndarray) -> np.ndarray:
    return gaussian_filter(picture, _SIGMA, radius=_RADIUS, mode="reflect")


def _moments(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = _blur(picture)
    return mean, _blur(picture * picture) - mean * mean


def _ssim(x: np.ndarray, y: np.ndarray, of_x: Any, of_y: Any) -> float:
    (mean_x, var_x), (mean_y, var_y) = of_x, of_y
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    value = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    value /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(value[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS].mean())


def correlation_matrix(pictures: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Pearson correlation of every picture with every target, over their features.

    Sums are taken in float64, some columns at a time, so that wide float32 features need no copy.
    A constant row correlates with nothing (0).

    Parameters
    ----------
    pictures, targets : (n, ...) and (m, ...), equal but for the number of rows

    Returns
    -------
    (n, m)

    Raises
    ------
    DataError
        Shapes that do not fit, no features, NaN.
    """
    first = np.asarray(pictures).reshape(len(pictures), -1)
    second = np.asarray(targets).reshape(len(targets), -1)
    if first.shape[1] != second.shape[1] or first.shape[1] < 2:
        raise DataError(
            "features cannot be compared",
            expected="two matrices with equally many columns, at least two",
            found=f"{first.shape} and {second.shape}",
        )
    _check_finite(first, second)
    centres = [a.mean(axis=1, dtype=np.float64, keepdims=True) for a in (first, second)]
    products = np.zeros((len(first), len(second)))
    squares = [np.zeros(len(first)), np.zeros(len(second))]
    for start in range(0, first.shape[1], _COLUMNS):
        parts = [a[:, start : start + _COLUMNS] - c for a, c in zip((first, second), centres)]
        products += parts[0] @ parts[1].T
        for total, part in zip(squares, parts):
            total += (part * part).sum(axis=1)
    for total, rows in zip(squares, (first, second)):
        total[(rows == rows[:, :1]).all(axis=1)] = 0.0
    norm = np.sqrt(squares[0][:, None] * squares[1])
    return np.where(norm > 0, products / np.where(norm > 0, norm, 1.0), 0.0)


def two_way_matrix(similarity: np.ndarray) -> np.ndarray:
    """Share of the other targets that are less similar to reconstruction i than target j is.

    ``T[i, j] = mean_{k != j} [s(i, k) < s(i, j)]``, ties half: by the mid ranks of each row, in
    O(N^2 log N). The public code of MindEye2 counts a tie as wrong.

    Parameters
    ----------
    similarity : (n, m), m >= 2
    """
    if similarity.shape[1] < 2:
        raise DataError(
            "nothing to tell a target from", expected="at least two targets",
            found=str(similarity.shape[1]),
        )  # fmt: skip
    return (rankdata(similarity, method="average", axis=1) - 1) / (similarity.shape[1] - 1)


def score_matrix(metric: Metric, pictures: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Value of ``metric`` for every reconstruction and every target: (n, n)."""
    if metric.kind == "ssim":
        return ssim_matrix(pictures, targets)
    correlations = correlation_matrix(pictures, targets)
    if metric.kind == "two-way":
        return two_way_matrix(correlations)
    return 1 - correlations if metric.kind == "distance" else correlations


def score_own(metric: Metric, pictures: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Diagonal of :func:`score_matrix`, without the pairs that it does not need: (n,)."""
    if metric.kind == "ssim":
        return np.array([ssim(a, b) for a, b in zip(pictures, targets)])
    return own(score_matrix(metric, pictures, targets))


@dataclass(frozen=True)
class Pool:
    """Reconstructions that are compared with each other's targets: one fold, one person.

    Attributes
    ----------
    scores : metric name -> (n, n), reconstruction i for target j
    controls : control name -> metric name -> (n,), each for its own target
    """

    scores: Mapping[str, np.ndarray]
    controls: Mapping[str, Mapping[str, np.ndarray]]


def own(matrix: np.ndarray) -> np.ndarray:
    """Value of every reconstruction for its own target."""
    return np.diagonal(matrix).copy()


def measure(
    metrics: Sequence[Metric],
    pools: Sequence[Pool],
    *,
    permutations: int,
    bootstrap: int,
    level: float,
    seed: int,
) -> list[dict[str, Any]]:
    """One record per metric: value, interval, permutation p, and every control beside it.

    The value is the mean over the items of all pools. ``p_value``: the targets of each pool are
    exchanged among its reconstructions. ``p_<control>``: the difference of an item to its control
    changes sign at random, one-sided for the reconstruction being better. The interval is a
    percentile bootstrap over items.

    Raises
    ------
    DataError
        No pool, or a pool with fewer than two items.
    """
    if not pools or min(len(next(iter(p.scores.values()))) for p in pools) < 2:
        raise DataError(
            "there is nothing to compare reconstructions with",
            expected="at least two pictures in every fold and person",
            found="fewer",
        )
    orders = list(_orders([len(next(iter(p.scores.values()))) for p in pools], permutations, seed))
    rng = np.random.default_rng([seed, 1])
    records = []
    for metric in metrics:
        values = np.concatenate([own(p.scores[metric.name]) for p in pools])
        null = _null([p.scores[metric.name] for p in pools], orders)
        better = metric.larger_is_better
        draws = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=bootstrap)
        low, high = interval(draws @ values / len(values), level)
        record: dict[str, Any] = {
            "metric": metric.name,
            "kind": metric.kind,
            "feature": metric.feature,
            "stand_in_for": metric.stand_in_for,
            "larger_is_better": better,
            "value": float(values.mean()),
            "ci_low": low,
            "ci_high": high,
            "chance": metric.chance,
            "null_mean": float(null.mean()) if len(null) else np.nan,
            "p_value": permutation_p(float(values.mean()), null, better),
            "n_items": len(values),
        }
        for name in pools[0].controls:
            other = np.concatenate([p.controls[name][metric.name] for p in pools])
            record[name] = float(other.mean())
            record[f"p_{name}"] = sign_flip_p(
                (values - other) * (1 if better else -1), permutations, rng
            )
        records.append(record)
    return records


def sign_flip_p(differences: np.ndarray, permutations: int, rng: np.random.Generator) -> float:
    """One-sided p of a mean difference over 0, the sign of every item being exchangeable."""
    if not permutations:
        return np.nan
    signs = rng.integers(0, 2, (permutations, len(differences))) * 2 - 1
    return permutation_p(float(differences.mean()), signs @ differences / len(differences))


def rising(
    levels: np.ndarray, values: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Whether items are better the higher the level: of signal to noise, or of repetitions.

    Mean over items of Spearman's correlation of level and value; under the null the levels of
    each item are exchanged, one-sided for a rise.

    Parameters
    ----------
    levels : (k,), k >= 2
    values : (k, n_items), larger is better

    Returns
    -------
    correlation, p : an item whose value never changes correlates 0
    """
    x = rankdata(levels) - (len(levels) + 1) / 2
    y = rankdata(values, axis=0) - (len(levels) + 1) / 2
    length = np.sqrt((x @ x) * (y * y).sum(axis=0))
    y = y / np.where(length > 0, length, np.inf)
    null = np.zeros(permutations)
    for k in range(permutations):
        null[k] = (x @ rng.permuted(y, axis=0)).mean()
    observed = float((x @ y).mean())
    return observed, permutation_p(observed, null)


def _orders(sizes: Sequence[int], permutations: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Targets of each pool in a random order, the same for all metrics."""
    rng = np.random.default_rng([seed, 0])
    for _ in range(permutations):
        yield [rng.permutation(size) for size in sizes]


def _null(matrices: Sequence[np.ndarray], orders: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    total = sum(map(len, matrices))
    return np.array(
        [
            sum(m[np.arange(len(m)), o].sum() for m, o in zip(matrices, order)) / total
            for order in orders
        ]
    )
