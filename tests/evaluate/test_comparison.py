"""Paired comparison of decoders: exact signs by hand, calibration, and what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from braindecode_pipe.errors import DataError, InputError
from braindecode_pipe.evaluate.comparison import compare, compare_items, learning_curve


def test_exact_signs_by_hand():
    a, b = np.array([1.0, 1, 1, 0, 1]), np.array([0.0, 0, 1, 1, 0])
    found = compare(a, b)
    d = a - b
    null = [abs(np.mean(np.array(s) * d)) for s in product([1, -1], repeat=5)]
    assert found.difference == pytest.approx(0.4)
    assert found.p_value == pytest.approx(np.mean(np.array(null) >= 0.4 - 1e-12))
    assert (found.n_items, found.n_units, found.unit) == (5, 5, "item")
    assert found.ci_low <= 0.4 <= found.ci_high


def test_units_flip_together():
    """Two people of ten items each, both better: only 4 signs, and 2 are as extreme."""
    a, b = np.ones(20), np.zeros(20)
    found = compare(a, b, np.repeat(["01", "02"], 10), unit="subject")
    assert found.p_value == 0.5
    assert (found.n_units, found.unit) == (2, "subject")
    assert compare(a, b).p_value < 0.001


def test_one_unit_has_no_interval():
    found = compare(np.ones(5), np.zeros(5), np.zeros(5))
    assert np.isnan(found.ci_low)
    assert found.p_value == 1.0


def test_f37_p_is_uniform_where_decoders_do_not_differ():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        difficulty = rng.standard_normal(40)
        a, b = (difficulty + rng.standard_normal(40) for _ in range(2))
        p.append(compare(a, b, n_bootstrap=0, n_permutations=199, seed=len(p)).p_value)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_pairing_finds_what_unpaired_intervals_miss():
    rng = np.random.default_rng(0)
    difficulty = 5 * rng.standard_normal(60)
    a = difficulty + 0.3 + 0.3 * rng.standard_normal(60)
    found = compare(a, difficulty)
    assert found.p_value < 0.01
    assert found.ci_low > 0
    assert stats.ttest_ind(a, difficulty).pvalue > 0.5


def items(ranks, n_candidates=10):
    n = len(ranks)
    return pd.DataFrame(
        {"event": [f"e{i}" for i in range(n)], "stimulus": [f"s{i % 3}" for i in range(n)],
         "subject": "01", "recording": "r", "rank": ranks, "n_candidates": n_candidates}
    )  # fmt: skip


def test_f39_items_of_two_decoders():
    a, b = items([1.0, 2, 1, 4]), items([2.0, 2, 3, 4])
    shuffled = b.iloc[[2, 0, 3, 1]]
    found = compare_items(a, shuffled, unit="event")
    assert found.difference == pytest.approx(np.mean([1 / 2, 0, 2 / 3, 0]))
    assert compare_items(a, b, metric="top1").difference == 0.5
    assert compare_items(a, b, metric="pair_accuracy").difference == pytest.approx(3 / 9 / 4)
    assert compare_items(a, b).n_units == 3
    with pytest.raises(InputError, match=r"different items(.|\n)*4 and 3 rows, 3 in common"):
        compare_items(a, b.iloc[:3])
    with pytest.raises(InputError, match=r"different numbers of candidates(.|\n)*\[10\] and"):
        compare_items(a, items([1.0, 2, 3, 4], 20))


def test_learning_curve_rises_with_data_and_states_its_unit():
    rng = np.random.default_rng(0)
    scores = {m: (rng.random(200) < p).astype(float) for m, p in ((30, 0.5), (10, 0.2), (60, 0.7))}
    people = {m: np.repeat(np.arange(10), 20) for m in scores}
    found = learning_curve(scores, people, unit="subject")
    assert list(found["minutes"]) == [10, 30, 60]
    assert found["value"].is_monotonic_increasing
    assert ((found["ci_low"] <= found["value"]) & (found["value"] <= found["ci_high"])).all()
    assert set(found["unit"]) == {"subject"}
    assert list(found["n_units"]) == [10, 10, 10]
    np.testing.assert_allclose(found["value"], [scores[m].mean() for m in (10, 30, 60)])


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match=r"item by item(.|\n)*\(3,\) and \(2,\)"):
        compare(np.ones(3), np.ones(2))
    with pytest.raises(DataError, match="1 not finite"):
        compare(np.array([1.0, np.nan]), np.ones(2))
    with pytest.raises(DataError, match=r"no score(.|\n)*0 items"):
        learning_curve({5.0: []})
    with pytest.raises(DataError, match="-1 minutes"):
        learning_curve({-1.0: [0.5]})
