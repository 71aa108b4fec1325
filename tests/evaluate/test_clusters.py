"""Clusters over time against mne.stats, and false discovery rates against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.clusters import cluster_test, false_discovery


def planted(seed, n=9, m=40):
    rng = np.random.default_rng(seed)
    smooth = np.apply_along_axis(
        np.convolve, 1, rng.standard_normal((n, m)), np.ones(3) / 3, "same"
    )
    smooth[:, 10:16] += 0.8
    smooth[:, 30:33] -= 0.7
    return 0.5 + smooth


@pytest.mark.parametrize("tail", [0, 1, -1])
@pytest.mark.parametrize("seed", range(3))
def test_clusters_equal_those_of_mne(seed, tail):
    """All signs, so that the null is the same to the last value."""
    from mne.stats import permutation_cluster_1samp_test

    values = planted(seed)
    sides = 2 if tail == 0 else 1
    threshold = stats.t.ppf(1 - 0.05 / sides, 8) * (-1 if tail == -1 else 1)
    t, clusters, p, _ = permutation_cluster_1samp_test(
        values - 0.5, threshold=threshold, tail=tail, n_permutations=2000, seed=0, verbose=False,
        out_type="mask",
    )  # fmt: skip
    found_t, found = cluster_test(values, 0.5, tail=tail)
    np.testing.assert_allclose(found_t, t)
    expected = sorted((c[0].start, c[0].stop, q) for c, q in zip(clusters, p))
    assert [(c.start, c.stop) for c in found] == [e[:2] for e in expected]
    # mne leaves out the mirror images of a two-sided null; one-sided, it counts all signs.
    np.testing.assert_allclose([c.p_value for c in found], [e[2] for e in expected], atol=2e-3)
    for cluster in found:
        assert cluster.mass == pytest.approx(t[cluster.start : cluster.stop].sum())


def test_random_signs_agree_with_all_signs():
    values = planted(0, n=10)
    exact = cluster_test(values, 0.5)[1]
    drawn = cluster_test(values, 0.5, n_permutations=1000)[1]
    assert [c.start for c in exact] == [c.start for c in drawn]
    for a, b in zip(exact, drawn):
        assert b.p_value == pytest.approx(a.p_value, abs=0.03)


def test_f37_no_more_than_five_percent_of_null_curves_have_a_cluster():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        _, clusters = cluster_test(rng.standard_normal((8, 25)), n_permutations=256)
        found += any(c.p_value <= 0.05 for c in clusters)
    assert found / 200 < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_scale_and_constant_curves(scale):
    values = planted(0)
    first, second = cluster_test(values, 0.5), cluster_test(values * scale, 0.5 * scale)
    assert [c.start for c in first[1]] == [c.start for c in second[1]]
    t, clusters = cluster_test(np.full((5, 4), 0.1), 0.1)
    np.testing.assert_array_equal(t, 0)
    assert clusters == []
    t, clusters = cluster_test(np.full((5, 4), 0.3), 0.1)
    assert np.isposinf(t).all()
    assert clusters[0].p_value == 1 / 32


def test_one_unit_is_not_enough():
    with pytest.raises(DataError, match=r"need several units(.|\n)*\(1, 4\)"):
        cluster_test(np.ones((1, 4)))


def test_false_discovery_equals_scipy_and_a_hand_computed_case():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(false_discovery(p), [0.02, 0.04, 0.04, 0.02])
    rng = np.random.default_rng(0)
    p = rng.random((5, 8)) ** 2
    expected = stats.false_discovery_control(p.ravel()).reshape(5, 8)
    np.testing.assert_allclose(false_discovery(p), expected)
    with_gap = np.append(p.ravel(), np.nan)
    np.testing.assert_allclose(false_discovery(with_gap)[:-1], expected.ravel())
    assert np.isnan(false_discovery(with_gap)[-1])
    assert false_discovery(np.empty(0)).shape == (0,)
    with pytest.raises(DataError, match="these are no p-values"):
        false_discovery(np.array([1.2]))


def test_false_discovery_on_noise_rejects_in_at_most_five_percent_of_studies():
    rng = np.random.default_rng(0)
    any_found = np.mean([(false_discovery(rng.random(50)) <= 0.05).any() for _ in range(1000)])
    assert any_found < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 1000)
