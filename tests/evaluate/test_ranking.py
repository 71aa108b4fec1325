"""Scores by place against all orders of ties, all samples of distractors, and scikit-learn."""

from __future__ import annotations

from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.ranking import (
    average_precision,
    by_number,
    chance_precision,
    k_way,
    k_way_draws,
    over_ties,
    pool_draws,
    reciprocal,
    top_k_of_several,
)


def orders(scores):
    """All orders of the candidates that agree with the scores, each equally likely."""
    return [p for p in permutations(range(len(scores))) if (np.diff(scores[list(p)]) <= 0).all()]


@pytest.mark.parametrize("scores", [[3, 2, 2, 2, 1], [1, 1, 1, 1, 1], [5, 4, 3, 2, 1]])
@pytest.mark.parametrize("true", range(5))
def test_reciprocal_rank_is_the_mean_over_all_orders(scores, true):
    scores = np.array(scores, float)
    expected = np.mean([1 / (p.index(true) + 1) for p in orders(scores)])
    greater, ties = (scores > scores[true]).sum(), (scores == scores[true]).sum()
    assert over_ties(reciprocal(5), greater, ties) == pytest.approx(expected)


def test_reciprocal_rank_by_hand():
    # Ranks 1, 4 and a tie of places 2 and 3 among four: (1 + 1/4 + (1/2 + 1/3) / 2) / 3.
    greater, ties = np.array([0, 3, 1]), np.array([1, 1, 2])
    found = by_number(reciprocal, greater, ties, np.array([4, 4, 4]))
    assert found.mean() == pytest.approx((1 + 1 / 4 + 5 / 12) / 3)
    mixed = by_number(reciprocal, np.array([[0, 1]]), np.array([[1, 1]]), np.array([2, 9]))
    np.testing.assert_allclose(mixed, [[1, 0.5]])


@pytest.mark.parametrize(("k", "top"), [(2, 1), (3, 1), (4, 2), (6, 1)])
def test_k_way_is_the_mean_over_all_samples(k, top):
    rng = np.random.default_rng(0)
    scores = rng.permutation(6).astype(float)
    for true in range(6):
        others = [i for i in range(6) if i != true]
        hits = [
            sum(scores[i] > scores[true] for i in sample) < top
            for sample in combinations(others, k - 1)
        ]
        assert len(hits) == comb(5, k - 1)
        place = int((scores > scores[true]).sum())
        assert k_way(6, k, top)[place] == pytest.approx(np.mean(hits))


def test_k_way_of_two_is_the_pair_accuracy_and_of_all_is_top_k():
    m = 20
    place = np.arange(m)
    np.testing.assert_allclose(k_way(m, 2, 1), 1 - place / (m - 1))
    np.testing.assert_allclose(k_way(m, m, 5), place < 5)
    for k in (2, 5, 20):
        assert k_way(m, k, 1).mean() == pytest.approx(1 / k)


def test_draws_of_distractors_scatter_around_their_expectation():
    rng = np.random.default_rng(0)
    n, m = 60, 30
    greater, ties = rng.integers(0, 20, n), rng.integers(1, 10, n)
    numbers = np.full(n, m)
    drawn = k_way_draws(greater, ties, numbers, 10, 1, 4000, rng)
    expected = by_number(lambda m: k_way(m, 10, 1), greater, ties, numbers).mean()
    assert drawn.mean() == pytest.approx(expected, abs=4 * drawn.std() / 4000**0.5)
    assert drawn.std() > 0.01


def test_shared_pools_equal_a_naive_loop_and_average_to_the_expectation():
    rng = np.random.default_rng(0)
    n, m, k = 40, 40, 12
    scores = np.round(rng.standard_normal((n, m)) + 2 * np.eye(n), 1)
    true = np.arange(n)
    pools = np.array([rng.permutation(m)[:k] for _ in range(600)])
    greater, ties = pool_draws(scores, true, pools)
    for d in range(3):
        for q in range(n):
            if q not in pools[d]:
                assert ties[q, d] == 0
                continue
            assert greater[q, d] == sum(scores[q, c] > scores[q, q] for c in pools[d])
            assert ties[q, d] == sum(scores[q, c] == scores[q, q] for c in pools[d])
    hits = np.clip((1 - greater) / np.maximum(ties, 1), 0, 1) * (ties > 0)
    draws = hits.sum(axis=0) / (ties > 0).sum(axis=0)
    above, equal = (
        (scores > scores[true, true][:, None]).sum(1),
        (scores == scores[true, true][:, None]).sum(1),
    )
    expected = by_number(lambda m: k_way(m, k, 1), above, equal, np.full(n, m)).mean()
    assert draws.mean() == pytest.approx(expected, abs=4 * draws.std() / 600**0.5)


def test_average_precision_by_hand_and_as_scikit_learn():
    # Right candidates at ranks 1, 3 and 4 of 5: (1/1 + 2/3 + 3/4) / 3.
    found = average_precision(np.array([[5.0, 4, 3, 2, 1]]), np.array([0, 1, 0, 0, 1]), 2)
    np.testing.assert_allclose(found, [[(1 + 2 / 3 + 3 / 4) / 3, (1 / 2 + 2 / 5) / 2]])
    rng = np.random.default_rng(0)
    scores, code = rng.standard_normal((30, 25)), rng.integers(0, 4, 25)
    found = average_precision(scores, code, 5)
    for c in range(4):
        expected = [average_precision_score(code == c, s) for s in scores]
        np.testing.assert_allclose(found[:, c], expected)
    assert np.isnan(found[:, 4]).all()


@pytest.mark.parametrize("scores", [[2, 2, 1, 1, 1], [1, 1, 1, 1, 1], [3, 2, 2, 2, 2]])
def test_average_precision_with_ties_is_the_mean_over_all_orders(scores):
    scores, code = np.array(scores, float), np.array([0, 1, 0, 1, 1])
    for c in (0, 1):
        expected = []
        for order in orders(scores):
            right = code[list(order)] == c
            expected.append((np.cumsum(right) / np.arange(1, 6))[right].mean())
        assert average_precision(scores[None], code, 2)[0, c] == pytest.approx(np.mean(expected))
    tied = average_precision(np.zeros((1, 5)), code, 2)[0]
    np.testing.assert_allclose(tied, chance_precision(np.array([2, 3]), 5))


def test_top_k_of_several_is_the_mean_over_all_orders():
    scores = np.array([2.0, 2, 1, 1, 1])
    for right in ([0, 0, 1, 1, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 0]):
        right = np.array(right, bool)
        for k in range(1, 6):
            expected = np.mean([right[list(o)][:k].any() for o in orders(scores)])
            found = top_k_of_several(scores[None], right[None], k)[0]
            assert found == pytest.approx(expected), (right, k)


def test_f40_several_right_candidates_need_finite_scores():
    with pytest.raises(DataError, match=r"queries cannot be scored(.|\n)*1 scores that are not"):
        top_k_of_several(np.array([[np.nan, 1.0]]), np.array([[True, False]]), 1)
    with pytest.raises(DataError, match="1 queries without a right candidate"):
        top_k_of_several(np.ones((1, 2)), np.zeros((1, 2), bool), 1)
