from __future__ import annotations

from itertools import combinations
from math import erf, sqrt

import numpy as np
import pytest

from braindecode_pipe.simulate.optimal import Whitener, identify, score


@pytest.fixture
def noise():
    rng = np.random.default_rng(0)
    lags = np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    return {
        "background": rng.standard_normal((5, 3)),
        "white": rng.uniform(0.5, 1.5, 5),
        "temporal": 0.8**lags,
    }


def dense_covariance(noise):
    spatial = noise["background"] @ noise["background"].T
    return np.kron(spatial, noise["temporal"]) + np.kron(np.diag(noise["white"] ** 2), np.eye(7))


def test_inverse_equals_the_dense_one(noise):
    x = np.random.default_rng(1).standard_normal((5, 7))
    whitener = Whitener.of(**noise, null_times=np.zeros((7, 0)))
    naive = np.linalg.solve(dense_covariance(noise), x.ravel()).reshape(5, 7)
    np.testing.assert_allclose(whitener.inverse(x), naive, rtol=1e-9, atol=1e-12)


def test_nuisance_is_the_limit_of_infinite_variance(noise):
    rng = np.random.default_rng(1)
    x, sensor, course = rng.standard_normal((5, 7)), rng.standard_normal(5), np.cos(np.arange(7.0))
    whitener = Whitener.of(**noise, null_times=course[:, None], null_sensors=sensor[:, None])
    nuisance = np.kron(np.outer(sensor, sensor), np.eye(7))
    nuisance += np.kron(np.eye(5), np.outer(course, course))
    naive = np.linalg.solve(dense_covariance(noise) + 1e7 * nuisance, x.ravel()).reshape(5, 7)
    np.testing.assert_allclose(whitener.inverse(x), naive, atol=1e-5)
    np.testing.assert_allclose(
        whitener.inverse(x + 1e3 * np.outer(sensor, rng.standard_normal(7))),
        whitener.inverse(x), atol=1e-8,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e6])
def test_decision_does_not_depend_on_the_unit(noise, scale):
    scaled = {
        "background": scale * noise["background"],
        "white": scale * noise["white"],
        "temporal": noise["temporal"],
    }
    x = np.random.default_rng(1).standard_normal((5, 7))
    null = np.ones((7, 1))
    one = Whitener.of(**noise, null_times=null, null_sensors=np.ones((5, 1))).inverse(x)
    other = Whitener.of(**scaled, null_times=null, null_sensors=scale * np.ones((5, 1)))
    np.testing.assert_allclose(scale * other.inverse(scale * x), one, rtol=1e-6, atol=1e-12)


def test_identify_equals_naive_gaussian_likelihood(noise):
    rng = np.random.default_rng(2)
    templates, code = rng.standard_normal((3, 5, 7)), rng.standard_normal((6, 3))
    covariance = dense_covariance(noise)
    whitener = Whitener.of(**noise, null_times=np.zeros((7, 0)))
    filters = np.stack([whitener.inverse(t) for t in templates])
    gram = np.tensordot(filters, templates, axes=((1, 2), (1, 2)))
    shown = np.arange(6).repeat(4)
    draws = rng.multivariate_normal(np.zeros(35), covariance, size=24).reshape(24, 5, 7)
    trials = 0.3 * np.tensordot(code[shown], templates, axes=1) + draws
    u = np.tensordot(trials, filters, axes=((1, 2), (1, 2)))
    ranks = identify(u, gram, code, shown)
    for trial, true, rank in zip(trials, shown, ranks):
        likelihood = []
        for z in code:
            rest = (trial - np.tensordot(z, templates, axes=1)).ravel()
            likelihood.append(-0.5 * rest @ np.linalg.solve(covariance, rest))
        assert rank[0] == sum(value > likelihood[true] for value in likelihood)
    assert 0 < (ranks[:, 0] == 0).mean() < 1


def test_two_candidates_reach_what_theory_says():
    rng = np.random.default_rng(3)
    code, gram, n = np.array([[0.5], [-0.5]]), np.array([[4.0]]), 20_000
    shown = rng.integers(2, size=n)
    u = gram[0, 0] * code[shown] + 2.0 * rng.standard_normal((n, 1))
    result = score([identify(u, gram, code, shown)], 2)
    expected = 0.5 * (1 + erf(0.5 * sqrt(4.0) / sqrt(2)))  # d' = 2
    assert abs(result["top1"] - expected) < 4 * sqrt(expected * (1 - expected) / n)
    assert result["ci"][0] < result["top1"] < result["ci"][1]


@pytest.mark.parametrize("n", [2, 10, 30])
def test_no_signal_is_exactly_chance(n):
    code = np.random.default_rng(0).standard_normal((n, 4))
    ranks = identify(np.zeros((50, 4)), np.zeros((4, 4)), code, np.arange(50) % n)
    result = score([ranks], n)
    assert result["top1"] == pytest.approx(1 / n) and result["chance"] == 1 / n
    for m, value in result["top1_by_n_candidates"].items():
        assert value == pytest.approx(1 / int(m))


def test_fewer_candidates_equal_all_subsets():
    # Six candidates; three of the five others are likelier than the true one in trial 0, none in 1.
    ranks = np.array([[3, 0], [0, 0], [1, 0]])
    many = score([np.repeat(ranks, 5, axis=0)], 12)["top1_by_n_candidates"]["10"]
    naive = []
    for better, _ in ranks:
        subsets = list(combinations(range(11), 9))
        naive.append(np.mean([min(s) >= better for s in subsets]))
    assert many == pytest.approx(np.mean(naive))


def test_score_is_perfect_only_when_every_trial_is():
    assert score([np.zeros((8, 2), int)], 20)["ci"][1] == 1.0
    assert score([np.array([[0, 0], [5, 0]])], 20)["top1"] == 0.5
