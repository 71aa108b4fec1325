"""Linear decoders against other solvers and naive loops."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from braindecode_pipe.errors import ModelError
from braindecode_pipe.train.linear import (
    fit_logistic,
    fit_ridge,
    group_out_predictions,
    merge_groups,
    moments,
    softmax,
    solve_ridge,
)


def problem(n, p, n_targets=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + 2
    return x, x @ rng.normal(size=(p, n_targets)) + rng.normal(size=(n, n_targets)) - 1


@pytest.mark.parametrize("shape", [(60, 10), (30, 80)])
@pytest.mark.parametrize("alpha", [0.1, 30.0, 1e4])
def test_solution_is_that_of_sklearn(shape, alpha):
    x, y = problem(*shape)
    weights, intercept = solve_ridge(x, y, alpha)
    other = Ridge(alpha=alpha).fit(x, y)
    assert weights == pytest.approx(other.coef_.T, abs=1e-8)
    assert intercept == pytest.approx(other.intercept_, abs=1e-8)


@pytest.mark.parametrize(("n", "p", "n_groups"), [(40, 8, 5), (24, 60, 6), (30, 3, 2), (20, 9, 20)])
def test_group_out_equals_a_refit_for_every_group(n, p, n_groups):
    x, y = problem(n, p)
    groups = np.arange(n) % n_groups
    alphas = [0.5, 50.0]
    found = group_out_predictions(x, y, groups, alphas)
    for a, alpha in enumerate(alphas):
        for group in range(n_groups):
            own = groups == group
            weights, intercept = solve_ridge(x[~own], y[~own], alpha)
            assert found[a, own] == pytest.approx(x[own] @ weights + intercept, abs=1e-8)


def test_penalty_has_the_smallest_loss_of_the_loop():
    x, y = problem(36, 50)
    groups, alphas = np.repeat(np.arange(6), 6), [1e3, 0.1, 10.0]
    losses = []
    for alpha in sorted(alphas):
        error = 0.0
        for g in range(6):
            fit = Ridge(alpha=alpha).fit(x[groups != g], y[groups != g])
            error += ((fit.predict(x[groups == g]) - y[groups == g]) ** 2).sum()
        losses.append(error / y.size)
    fit = fit_ridge(x, y, groups, alphas)
    assert fit.losses == pytest.approx(losses)
    assert fit.penalty == sorted(alphas)[int(np.argmin(losses))]


def test_among_equal_losses_the_larger_penalty_wins():
    x = np.zeros((12, 4))
    y = np.tile(np.eye(2), (6, 1))
    assert fit_ridge(x, y, np.arange(12) // 4, [1.0, 10.0, 100.0]).penalty == 100.0


def test_one_group_is_divided_into_its_rows():
    x, y = problem(8, 3)
    one, rows = (fit_ridge(x, y, g, [1.0, 10.0]) for g in (np.zeros(8), np.arange(8)))
    assert one.losses == rows.losses
    with pytest.raises(ModelError, match="one group"):
        group_out_predictions(x, y, np.zeros(8), [1.0])


def test_ridge_refuses_one_row():
    x, y = problem(8, 3)
    with pytest.raises(ModelError, match="too few events"):
        fit_ridge(x[:1], y[:1], np.zeros(1), [1.0])


@pytest.mark.parametrize("n_classes", [2, 4])
def test_logistic_probabilities_are_those_of_sklearn(n_classes):
    rng = np.random.default_rng(1)
    classes = np.arange(48) % n_classes
    x = rng.normal(size=(48, 90)) + 0.4 * rng.normal(size=(n_classes, 90))[classes]
    fit = fit_logistic(x, classes, np.arange(48) // 8, penalties=[10.0])
    other = LogisticRegression(C=10.0, tol=1e-8, max_iter=5000).fit(x / np.sqrt(90), classes)
    fresh = rng.normal(size=(20, 90))
    found = softmax(fresh @ fit.weights + fit.intercept)
    assert found == pytest.approx(other.predict_proba(fresh / np.sqrt(90)), abs=2e-3)


def test_logistic_penalty_has_the_smallest_log_loss_over_three_folds():
    rng = np.random.default_rng(2)
    classes, groups = np.arange(60) % 3, np.arange(60) // 10
    x = rng.normal(size=(60, 20)) + 0.5 * rng.normal(size=(3, 20))[classes]
    fit = fit_logistic(x, classes, groups)
    losses = []
    for c in fit.penalties:
        fold_losses = []
        for fold in range(3):
            own = groups % 3 == fold
            model = LogisticRegression(C=c, tol=1e-8, max_iter=5000)
            p = model.fit(x[~own] / np.sqrt(20), classes[~own]).predict_proba(x[own] / np.sqrt(20))
            fold_losses.append(-np.log(p[np.arange(own.sum()), classes[own]]).mean())
        losses.append(np.mean(fold_losses))
    assert fit.losses == pytest.approx(losses, rel=5e-3)
    assert fit.penalty == fit.penalties[int(np.argmin(losses))]


def test_logistic_without_repeats_takes_the_strongest_penalty():
    x = np.random.default_rng(0).normal(size=(40, 5))
    assert fit_logistic(x, np.arange(40), np.arange(40)).penalty == 1.0


def test_logistic_needs_two_classes():
    with pytest.raises(ModelError, match="stimuli to tell apart"):
        fit_logistic(np.ones((5, 2)), np.zeros(5, int), np.arange(5))


def test_groups_are_dealt_whole_and_in_order():
    assert merge_groups(np.array(["b", "b", "a", "c"]), 12).tolist() == [0, 0, 1, 2]
    assert merge_groups(np.array(list("abcde")), 2).tolist() == [0, 1, 0, 1, 0]
    assert merge_groups(np.array(["a"] * 4), 3).tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_moments_know_constants_by_the_size_of_the_data(scale):
    x = np.random.default_rng(0).normal(size=(50, 3)) * scale
    x[:, 1] = 0.7 * scale
    mean, sd = moments(x)
    assert mean == pytest.approx(x.mean(0))
    assert sd == pytest.approx([x[:, 0].std(), 1.0, x[:, 2].std()])
