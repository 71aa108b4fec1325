"""Averages, bootstrap and permutations against naive loops; calibration under the null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from braindecode_pipe.evaluate import statistics
from braindecode_pipe.evaluate.statistics import (
    exchange,
    interval,
    macro_mean,
    permutation_p,
    resample,
    stratified_auc,
    weighted_mean,
    weighted_median,
)

REDUCTIONS = [weighted_mean, weighted_median, macro_mean, stratified_auc]


def draws(seed, n=23, b=7):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, n).astype(float)
    classes = rng.integers(0, 2, n)
    classes[:4] = [0, 1, 0, 1]
    strata = np.r_[0, 0, 1, 1, rng.integers(0, 2, n - 4)]
    weights = rng.multinomial(n, np.full(n, 1 / n), size=b).astype(float)
    weights[:, :4] += 1
    return values, classes, weights, strata


def repeated(weights, *arrays):
    """Arrays with every item as often as its weight says."""
    times = weights.astype(int)
    return [np.repeat(a, times) for a in arrays]


@pytest.mark.parametrize("seed", range(10))
def test_weighted_statistics_equal_those_of_repeated_items(seed):
    values, classes, weights, strata = draws(seed)
    found = [r(values[None], classes[None], weights, strata) for r in REDUCTIONS]
    for i, w in enumerate(weights):
        v, c, s = repeated(w, values, classes, strata)
        assert found[0][i] == pytest.approx(v.mean())
        assert found[1][i] == np.median(v)
        assert found[2][i] == pytest.approx(np.mean([v[c == k].mean() for k in np.unique(c)]))
        wins = pairs = 0
        for a, ka, sa in zip(v, c, s):
            for b, kb, sb in zip(v, c, s):
                if sa == sb and ka == 1 and kb == 0:
                    wins += (a > b) + 0.5 * (a == b)
                    pairs += 1
        assert found[3][i] == pytest.approx(wins / pairs)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batches_equal_single_draws(reduction):
    """Values, classes or weights may each come as one row or as many."""
    rng = np.random.default_rng(1)
    values, classes, weights, strata = draws(0)
    many_values = values[None] if reduction is stratified_auc else rng.random((7, len(values)))
    many_classes = rng.permuted(np.tile(classes, (7, 1)), axis=1)
    for v in (values[None], many_values):
        for c in (classes[None], many_classes):
            for w in (np.ones((1, len(values))), weights):
                b = max(len(v), len(c), len(w))
                whole = reduction(v, c, w, strata)
                for i in range(b):
                    one = [a[[i if len(a) > 1 else 0]] for a in (v, c, w)]
                    expected = reduction(*one, strata)[0]
                    assert whole[i if len(whole) > 1 else 0] == pytest.approx(expected, nan_ok=True)


def test_auc_and_balanced_accuracy_equal_scikit_learn():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 60)
    values = np.round(rng.standard_normal(60) + classes, 1)
    one = np.ones((1, 60))
    auc = stratified_auc(values[None], classes[None], one, np.zeros(60, int))[0]
    assert auc == pytest.approx(roc_auc_score(classes, values))
    truth = rng.integers(0, 5, 60)
    guess = np.where(rng.random(60) < 0.4, truth, rng.integers(0, 5, 60))
    hit = (guess == truth).astype(float)
    macro = macro_mean(hit[None], truth[None], one, truth)[0]
    assert macro == pytest.approx(balanced_accuracy_score(truth, guess))


def test_auc_never_compares_scores_of_two_strata():
    """Within each fold perfect, but every score of fold 1 is above those of fold 0."""
    values = np.array([0.0, 1.0, 10.0, 11.0])
    classes, strata = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    one = np.ones((1, 4))
    assert stratified_auc(values[None], classes[None], one, strata)[0] == 1.0
    assert stratified_auc(values[None], classes[None], one, strata * 0)[0] == 0.75


def test_auc_without_pairs_is_nan():
    one = np.ones((1, 3))
    assert np.isnan(stratified_auc(np.ones((1, 3)), np.ones((1, 3), int), one, np.zeros(3))[0])


def test_macro_mean_leaves_out_classes_that_were_not_drawn():
    weights = np.array([[1.0, 1.0, 0.0]])
    found = macro_mean(np.array([[1.0, 0.0, 0.0]]), np.array([[0, 0, 1]]), weights, np.zeros(3))
    assert found[0] == 0.5


def test_bootstrap_draws_are_counts_of_the_right_total():
    rng = np.random.default_rng(0)
    counts = np.concatenate(list(resample(31, 50, rng)))
    assert counts.shape == (50, 31)
    np.testing.assert_array_equal(counts.sum(axis=1), 31)


def test_hierarchical_bootstrap_draws_units_then_queries():
    units = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    counts = np.concatenate(list(resample(9, 4000, np.random.default_rng(0), units)))
    per_unit = counts.reshape(-1, 3, 3).sum(axis=2)
    np.testing.assert_array_equal(per_unit % 3, 0)
    np.testing.assert_array_equal(per_unit.sum(axis=1), 9)
    # A unit stays out of a draw with probability (2/3)^3.
    assert (per_unit == 0).mean() == pytest.approx((2 / 3) ** 3, abs=0.02)
    assert (counts[per_unit[:, 0] == 3][:, :3] != 1).any()


def test_bootstrap_of_persons_is_wider_than_of_events():
    """Ten people with very different scores: events say nothing about other people."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(10), 40)
    hit = (rng.random(400) < np.repeat(np.linspace(0.1, 0.9, 10), 40)).astype(float)
    widths = []
    for unit in (None, units):
        weights = np.concatenate(list(resample(400, 1000, rng, unit)))
        low, high = interval(weighted_mean(hit[None], units[None], weights, units), 0.95)
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_event_bootstrap_interval_covers_the_truth():
    """Planted accuracy .3: 95 % intervals of 100 events hold it in about 95 % of studies."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        hit = (rng.random(100) < 0.3).astype(float)
        weights = np.concatenate(list(resample(100, 300, rng)))
        low, high = interval(weighted_mean(hit[None], hit[None], weights, hit), 0.95)
        covered += low <= 0.3 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_interval_without_draws_is_nan():
    assert np.isnan(interval(np.empty(0), 0.95)).all()
    assert np.isnan(interval(np.array([np.nan]), 0.95)).all()


def test_labels_are_exchanged_within_groups_only():
    label = np.array([0, 1, 2, 0, 0, 1])
    group = np.array([0, 0, 0, 1, 1, 1])
    drawn = np.concatenate(list(exchange(label, group, 500, np.random.default_rng(0), False)))
    assert drawn.shape == (500, 6)
    np.testing.assert_array_equal(np.sort(drawn[:, :3], axis=1), np.tile([0, 1, 2], (500, 1)))
    np.testing.assert_array_equal(np.sort(drawn[:, 3:], axis=1), np.tile([0, 0, 1], (500, 1)))
    assert len(np.unique(drawn, axis=0)) == 18


def test_f37_stimuli_are_exchanged_together():
    label = np.array([0, 1, 0, 2, 2, 1, 1, 0])
    group = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    drawn = np.concatenate(list(exchange(label, group, 500, np.random.default_rng(0), True)))
    for a in range(8):
        for b in range(8):
            if group[a] == group[b]:
                same = (drawn[:, a] == drawn[:, b]).all()
                assert same == (label[a] == label[b])
    assert len(np.unique(drawn, axis=0)) == 12


def test_blocks_do_not_change_what_is_drawn_in_distribution(monkeypatch):
    monkeypatch.setattr(statistics, "_BLOCK_DRAWS", 20)
    label, group = np.array([0, 1, 2, 3]), np.zeros(4, int)
    parts = list(exchange(label, group, 48, np.random.default_rng(0), False))
    assert [len(p) for p in parts] == [5] * 9 + [3]
    assert len(list(resample(4, 48, np.random.default_rng(0)))) == 10


def test_permutation_p_counts_itself():
    null = np.array([0.1, 0.2, 0.3, 0.4])
    assert permutation_p(0.35, null) == 2 / 5
    assert permutation_p(0.4, null) == 2 / 5
    assert permutation_p(0.5, null) == 1 / 5
    assert permutation_p(0.15, null, larger_is_better=False) == 2 / 5
    assert permutation_p(0.1 + 0.2, np.array([0.3, 0.0])) == 2 / 3
    assert np.isnan(permutation_p(np.nan, null))
    assert np.isnan(permutation_p(0.5, np.empty(0)))


def null_p(rng, together):
    """p of one study without any relation: biased predictions, repeated and unequal stimuli."""
    m, n = 8, 48
    group = np.repeat(np.arange(4), 12)
    label = rng.integers(0, m, n)
    # Predictions that prefer some classes, the same for all queries of a stimulus-free group.
    score = rng.standard_normal((n, m)) + 2 * rng.standard_normal(m)
    if together:
        # Each stimulus has a response of its own, unrelated to its embedding.
        score = rng.standard_normal((4, m, m))[group, label]
        score = score + 0.3 * rng.standard_normal((n, m))
    rank = stats.rankdata(-score, axis=1)
    # Labels 0..m-1 in every group: those a group does not show cannot be swapped in.
    for g in range(4):
        used = np.unique(label[group == g])
        rank[group == g, : len(used)] = rank[group == g][:, used]
        label[group == g] = np.searchsorted(used, label[group == g])
    rows = np.arange(n)
    null = np.concatenate(
        [rank[rows, lab].mean(axis=1) for lab in exchange(label, group, 199, rng, together)]
    )
    return permutation_p(rank[rows, label].mean(), null, larger_is_better=False)


@pytest.mark.parametrize("together", [False, True])
def test_f37_p_values_are_uniform_when_nothing_is_there(together):
    rng = np.random.default_rng(0)
    p = np.array([null_p(rng, together) for _ in range(400)])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert (p <= 0.05).mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)


def test_f37_exchanging_trials_would_not_be_calibrated():
    """The reason for exchanging stimuli: repetitions of one stimulus are not independent."""
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        label = np.repeat(np.arange(6), 8)
        score = rng.standard_normal((6, 6))[label] + 0.1 * rng.standard_normal((48, 6))
        rank = stats.rankdata(-score, axis=1)
        rows = np.arange(48)
        null = np.concatenate(
            [rank[rows, d].mean(axis=1) for d in exchange(label, rows * 0, 99, rng, False)]
        )
        p.append(permutation_p(rank[rows, label].mean(), null, larger_is_better=False))
    assert (np.array(p) <= 0.05).mean() > 0.15
