"""Linear decoders: ridge and multinomial logistic regression, their penalties chosen by group.

Functions on arrays; :class:`~braindecode_pipe.train.decoder.BrainDecoder` is the estimator.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import ModelError

# The decoders that these are.
LINEAR = ("ridge", "logistic")
# Penalties of logistic regression relative to features of unit mean square length.
LOGISTIC_C = (1.0, 10.0, 100.0)
LOGISTIC_FOLDS = 3


@dataclass(frozen=True)
class LinearFit:
    """``prediction = X @ weights + intercept``.

    Attributes
    ----------
    weights : (n_features, n_targets) float64
    intercept : (n_targets,) float64
    penalty : float, the one chosen
    penalties : penalties tried
    losses : loss of each on the left-out groups
    """

    weights: np.ndarray
    intercept: np.ndarray
    penalty: float
    penalties: tuple[float, ...]
    losses: tuple[float, ...]


def moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, 1 where a feature is constant.

    Constant is what varies by less than rounding errors of its own size.
    """
    mean = X.mean(0, dtype=np.float64)
    sd = X.std(0, dtype=np.float64)
    size = np.abs(X).max(0) if len(X) else sd
    return mean, np.where(sd > 1e-6 * size, sd, 1.0)


def group_out_predictions(
    X: np.ndarray, Y: np.ndarray, groups: np.ndarray, alphas: Sequence[float]
) -> np.ndarray:
    """Ridge predictions for every group by the fit that left it out, in closed form.

    With the hat matrix ``H = 1/n 11' + Xc (Xc'Xc + a I)^-1 Xc'`` of the fit to all rows, the fit
    without group ``g`` predicts it as ``Y_g - (I - H_gg)^-1 (Y - HY)_g``. This holds exactly for
    ridge with a free intercept. ``H_gg`` is never larger than the number of rows of the group or
    the rank of ``X``, whichever is smaller.

    Parameters
    ----------
    X : (n, n_features)
    Y : (n, n_targets)
    groups : (n,)
        At least two different.
    alphas : penalties, > 0

    Returns
    -------
    (n_alphas, n, n_targets)
    """
    ids, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(ids) < 2:
        raise ModelError(
            "a penalty cannot be chosen inside one group", expected="at least 2 groups", found="1"
        )
    n = len(X)
    Xc = X - X.mean(0)
    if X.shape[1] < n:
        U, s, _ = np.linalg.svd(Xc, full_matrices=False)
        square = s**2
    else:
        square, U = np.linalg.eigh(Xc @ Xc.T)
        square = np.maximum(square, 0)
    shares = square[:, None] / (square[:, None] + np.asarray(alphas, float))
    UY = U.T @ (Y - Y.mean(0))
    out = np.empty((len(alphas), *Y.shape))
    rows_of = [np.flatnonzero(member == i) for i in range(len(ids))]
    for a, share in enumerate(shares.T):
        residual = Y - Y.mean(0) - (U * share) @ UY
        factor = np.concatenate([U * np.sqrt(share), np.full((n, 1), n**-0.5)], axis=1)
        for rows in rows_of:
            F, R = factor[rows], residual[rows]
            if len(rows) <= F.shape[1]:
                left = np.linalg.solve(np.eye(len(rows)) - F @ F.T, R)
            else:
                left = R + F @ np.linalg.solve(np.eye(F.shape[1]) - F.T @ F, F.T @ R)
            out[a, rows] = Y[rows] - left
    return out


def fit_ridge(
    X: np.ndarray, Y: np.ndarray, groups: np.ndarray, alphas: Sequence[float]
) -> LinearFit:
    """Ridge regression, one penalty for all targets, chosen by leaving groups out.

    ``min_W ||Y - X W - b||^2 + alpha ||W||^2``. The penalty has the smallest squared error over
    groups that were left out (the larger one among equals); rows are left out where there is one
    group only. One penalty for all targets keeps the directions of predictions, that retrieval
    compares, in proportion. Solved by himalaya,
    in the space of the rows where these are fewer than the features.

    Parameters
    ----------
    X : (n, n_features), scaled
    Y : (n, n_targets)
    groups : (n,)
    alphas : penalties

    Raises
    ------
    ModelError
        With fewer than two rows.
    """
    if len(X) < 2:
        raise ModelError("too few events for ridge", expected="at least 2", found=str(len(X)))
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    alphas = tuple(sorted({float(alpha) for alpha in alphas}))
    losses = (float("nan"),)
    best = 0
    if len(alphas) > 1:
        members = np.arange(len(X)) if len(set(groups)) < 2 else groups
        left_out = group_out_predictions(X, Y, members, alphas)
        losses = tuple(float(v) for v in ((left_out - Y) ** 2).mean((1, 2)))
        best = max(i for i, loss in enumerate(losses) if loss == min(losses))
    weights, intercept = solve_ridge(X, Y, alphas[best])
    return LinearFit(weights, intercept, alphas[best], alphas, losses)


def solve_ridge(X: np.ndarray, Y: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(n_features, n_targets)`` and intercept ``(n_targets,)`` for one penalty."""
    if X.shape[1] <= len(X):
        from himalaya.ridge import solve_ridge_svd

        return solve_ridge_svd(X, Y, alpha=alpha, fit_intercept=True, warn=False)
    from himalaya.kernel_ridge import solve_kernel_ridge_eigenvalues

    mean_x, mean_y = X.mean(0), Y.mean(0)
    Xc = X - mean_x
    dual = solve_kernel_ridge_eigenvalues(Xc @ Xc.T, Y - mean_y, alpha=alpha)
    weights = Xc.T @ dual
    return weights, mean_y - mean_x @ weights


def merge_groups(groups: np.ndarray, n_folds: int) -> np.ndarray:
    """Fold ``0 .. n_folds - 1`` of every row: groups in their order of appearance, dealt in turn.

    With no more groups than folds every group is one fold. With a single group the rows are
    dealt out instead.
    """
    names = [str(g) for g in np.asarray(groups)]
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    if len(order) < 2:
        return np.arange(len(names)) % max(1, min(n_folds, len(names)))
    return np.array([order[name] % n_folds for name in names])


def fit_logistic(
    X: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray,
    penalties: Sequence[float] = LOGISTIC_C,
) -> LinearFit:
    """Multinomial logistic regression, its penalty chosen by leaving groups out.

    ``min_W -sum_i log softmax(x_i W + b)_class(i) + |W|^2 / (2 C)`` after division of ``X`` by the
    square root of its features; ``C`` has the smallest log-loss over three folds of groups. Folds
    whose rest lacks a class do not count; without any fold (stimuli that are not repeated) ``C``
    is the smallest. The fit is done in the row space of ``X``, where it is the same and small.

    Parameters
    ----------
    X : (n, n_features), scaled
    classes : (n,) int, ``0 .. n_classes - 1``, each present
    groups : (n,)
    penalties : values of ``C``

    Returns
    -------
    LinearFit whose predictions are log-odds ``(n, n_classes)``

    Raises
    ------
    ModelError
        With fewer than two classes.
    """
    n_classes = int(classes.max()) + 1 if len(classes) else 0
    if n_classes < 2:
        raise ModelError(
            "logistic regression needs stimuli to tell apart",
            expected="at least 2 stimuli in training",
            found=f"{n_classes} in {len(classes)} events",
        )
    scale = X.shape[1] ** -0.5
    _, s, Vt = np.linalg.svd(X - X.mean(0), full_matrices=False)
    Vt = Vt[s > 1e-10 * s[0]] if s[0] > 0 else Vt[:1]
    Z = (X @ Vt.T) * scale
    folds = merge_groups(groups, LOGISTIC_FOLDS)
    usable = [f for f in np.unique(folds) if len(np.unique(classes[folds != f])) == n_classes]
    penalties = tuple(sorted(float(c) for c in penalties))
    losses, best = (float("nan"),) * len(penalties), 0
    if len(penalties) > 1 and usable:
        losses = tuple(
            float(np.mean([_log_loss(Z, classes, folds == f, c) for f in usable]))
            for c in penalties
        )
        best = min(i for i, loss in enumerate(losses) if loss == min(losses))
    weights, intercept = _logistic(Z, classes, penalties[best])
    return LinearFit(Vt.T @ weights * scale, intercept, penalties[best], penalties, losses)


def _logistic(Z: np.ndarray, classes: np.ndarray, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(n, n_classes)`` and intercepts; two classes get opposite halves."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # Stimuli that are hardly repeated are a legitimate use here (see BrainDecoder).
        warnings.filterwarnings("ignore", message="The number of unique classes is greater")
        model = LogisticRegression(C=C, max_iter=5000, tol=1e-4).fit(Z, classes)
    weights, intercept = model.coef_.T, model.intercept_
    if weights.shape[1] == 1:
        weights = np.concatenate([-weights, weights], axis=1) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    return weights, intercept


def _log_loss(Z: np.ndarray, classes: np.ndarray, left_out: np.ndarray, C: float) -> float:
    weights, intercept = _logistic(Z[~left_out], classes[~left_out], C)
    probability = softmax(Z[left_out] @ weights + intercept)
    own = probability[np.arange(left_out.sum()), classes[left_out]]
    return float(-np.log(np.maximum(own, np.finfo(float).tiny)).mean())


def softmax(scores: np.ndarray) -> np.ndarray:
    """``exp(scores) / sum exp(scores)`` over the last axis."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
