"""Metrics of pictures: hand-computed cases, naive loops, properties that must hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.identification import two_way
from braindecode_pipe.evaluate.reconstruction import (
    Metric,
    Pool,
    correlation_matrix,
    grey,
    measure,
    rising,
    score_matrix,
    score_own,
    sign_flip_p,
    ssim,
    ssim_matrix,
    two_way_matrix,
)

METRICS = (
    Metric("PixCorr", "correlation", "pixels"),
    Metric("SSIM", "ssim", "grey"),
    Metric("Inception", "two-way", "features"),
    Metric("SwAV", "distance", "features"),
)


def naive_ssim(x, y):
    """Structural similarity with every window written out."""
    offsets = np.arange(-5, 6)
    weight = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets[None] ** 2) / 1.5**2)
    weight /= weight.sum()
    values = []
    for i in range(5, x.shape[0] - 5):
        for j in range(5, x.shape[1] - 5):
            a, b = (v[i - 5 : i + 6, j - 5 : j + 6] for v in (x, y))
            mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
            var_a = (weight * (a - mean_a) ** 2).sum()
            var_b = (weight * (b - mean_b) ** 2).sum()
            covariance = (weight * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )  # fmt: skip
    return np.mean(values)


def test_ssim_is_the_window_by_window_sum():
    rng = np.random.default_rng(0)
    x, y = rng.random((17, 21)), rng.random((17, 21))
    assert ssim(x, y) == pytest.approx(naive_ssim(x, y), abs=1e-12)
    assert ssim(x, x) == 1.0
    # Constant pictures: only the luminance term is left.
    black, white = np.zeros((12, 12)), np.ones((12, 12))
    assert ssim(black, white) == pytest.approx(1e-4 / (1 + 1e-4))


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    rng = np.random.default_rng(1)
    x = rng.random((40, 33))
    y = np.clip(x + rng.normal(0, 0.2, x.shape), 0, 1)
    expected = metrics.structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    assert ssim(x, y) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_all_pairs_is_that_of_each():
    rng = np.random.default_rng(2)
    x, y = rng.random((3, 16, 16)), rng.random((2, 16, 16))
    expected = [[ssim(a, b) for b in y] for a in x]
    np.testing.assert_allclose(ssim_matrix(x, y), expected, rtol=0, atol=1e-15)
    metric = Metric("SSIM", "ssim", "grey")
    np.testing.assert_allclose(score_own(metric, x[:2], y), np.diagonal(expected))


def test_luminance_weighs_the_colours():
    np.testing.assert_allclose(grey(np.eye(3)), [0.2125, 0.7154, 0.0721])


def test_correlations_are_numpys_and_constant_rows_are_nothing():
    rng = np.random.default_rng(3)
    x, y = rng.random((4, 5, 9)).astype(np.float32), rng.random((3, 5, 9)).astype(np.float32)
    x[1] = 0.3
    found = correlation_matrix(x, y)
    for i in (0, 2, 3):
        for j in range(3):
            expected = np.corrcoef(x[i].ravel(), y[j].ravel())[0, 1]
            assert found[i, j] == pytest.approx(expected, abs=1e-7)
    assert (found[1] == 0).all()
    for scale in (1e-13, 1e6):
        np.testing.assert_allclose(correlation_matrix(x * scale, y), found, atol=1e-6)


def test_two_way_counts_ties_half_and_agrees_with_the_loop():
    similarity = np.array([[0.9, 0.1, 0.1], [0.5, 0.5, 0.2], [0.0, 0.3, 0.2]])
    expected = [[1, 0.25, 0.25], [0.75, 0.75, 0], [0, 1, 0.5]]
    np.testing.assert_allclose(two_way_matrix(similarity), expected)
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(12, 6)), rng.normal(size=(12, 6))
    metric = Metric("Inception", "two-way", "features")
    np.testing.assert_allclose(np.diagonal(score_matrix(metric, x, y)), two_way(x, y))


def pools(similar, n=24, seed=5):
    rng = np.random.default_rng(seed)
    targets = rng.random((n, 16, 16, 3))
    noise, real = rng.random(targets.shape), rng.random(targets.shape)
    real = similar * targets + (1 - similar) * real
    features = {
        "pixels": lambda p: p, "grey": grey, "features": lambda p: p.mean(-1),
    }  # fmt: skip

    def scores(pictures, score=score_own):
        return {
            m.name: score(m, features[m.feature](pictures), features[m.feature](targets))
            for m in METRICS
        }

    return [
        Pool(
            scores(real, score_matrix),
            {"noise": scores(noise), "shuffled": scores(np.roll(real, 1, 0))},
        )
    ]


def test_likeness_is_found_and_noise_is_not():
    options = {"permutations": 499, "bootstrap": 200, "level": 0.95, "seed": 0}
    for record in measure(METRICS, pools(0.3), **options):
        assert record["p_value"] == record["p_noise"] == record["p_shuffled"] == 0.002
        assert record["ci_low"] <= record["value"] <= record["ci_high"]
        worse = record["value"] - record["shuffled"]
        assert worse > 0 if record["larger_is_better"] else worse < 0
    # 20 studies without any likeness: small p are rare.
    p = [
        record[key]
        for seed in range(20)
        for record in measure(METRICS[2:3], pools(0.0, seed=seed), **options)
        for key in ("p_value", "p_noise")
    ]
    assert np.mean(np.array(p) < 0.05) < 0.2 and np.median(p) > 0.2


def test_the_sign_flip_is_exact_where_all_items_agree():
    p = sign_flip_p(np.ones(4), 4000, np.random.default_rng(0))
    assert p == pytest.approx(1 / 16, abs=0.02)


def test_rising_is_the_mean_rank_correlation():
    levels = np.array([0.5, 1.0, 4.0])
    values = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 2.0], [3.0, 1.0, 2.0]])
    rho, p = rising(levels, values, 999, np.random.default_rng(0))
    # One item rises (1), one falls (-1), one never changes (0).
    assert rho == pytest.approx(0.0) and p > 0.5
    steep = np.random.default_rng(1).normal(size=(3, 30)) + levels[:, None]
    rho, p = rising(levels, steep, 999, np.random.default_rng(0))
    assert rho > 0.5 and p == 0.001
    expected = np.mean([spearmanr(levels, column).statistic for column in steep.T])
    assert rho == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pictures", "targets"),
    [
        (np.full((2, 4), np.nan), np.ones((2, 4))),
        (np.ones((2, 4)), np.ones((2, 5))),
        (np.ones((2, 1)), np.ones((2, 1))),
    ],
)
def test_what_cannot_be_compared_is_refused(pictures, targets):
    with pytest.raises(DataError):
        correlation_matrix(pictures, targets)


def test_small_pictures_and_single_items_are_refused():
    with pytest.raises(DataError, match="SSIM"):
        ssim(np.ones((8, 20)), np.ones((8, 20)))
    with pytest.raises(DataError, match="two targets"):
        two_way_matrix(np.ones((1, 1)))
    with pytest.raises(DataError, match="nothing to compare"):
        measure(METRICS, [], permutations=1, bootstrap=1, level=0.9, seed=0)
