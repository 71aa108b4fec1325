"""Haufe patterns show where the signal is, which weights do not."""

import numpy as np
import pytest

from braindecode_pipe.train.linear import solve_ridge
from braindecode_pipe.train.patterns import at_peak, haufe_patterns


def test_matches_the_covariance():
    rng = np.random.default_rng(0)
    x, s = rng.normal(size=(50, 3, 4)), rng.normal(size=(50, 2))
    found = haufe_patterns(x, s)
    for k in range(2):
        for i in range(3):
            for t in range(4):
                c = np.cov(x[:, i, t], s[:, k], bias=True)[0, 1] / s[:, k].std()
                assert found[k, i, t] == pytest.approx(c)


def test_a_noise_sensor_has_a_weight_but_no_pattern():
    rng = np.random.default_rng(0)
    source, noise = rng.normal(size=(2, 5000))
    x = np.stack([source + noise, noise], 1)  # the second sensor only holds noise
    weights, _ = solve_ridge(x, source[:, None], 1.0)
    pattern = haufe_patterns(x[..., None], x @ weights)[0, :, 0]
    assert abs(weights[1, 0]) > 0.9
    assert abs(pattern[1]) < 0.05 < 0.9 < abs(pattern[0])


def test_constant_output_has_no_pattern_and_scale_of_output_does_not_matter():
    rng = np.random.default_rng(0)
    x, s = rng.normal(size=(30, 2, 2)), rng.normal(size=(30, 1))
    assert not haufe_patterns(x, np.full((30, 1), 3.3)).any()
    assert haufe_patterns(x, s * 1e-9) == pytest.approx(haufe_patterns(x, s))


def test_peak_is_signed_and_at_the_largest_rms():
    patterns = np.zeros((1, 3, 4))
    patterns[0, :, 2] = [-2, 1, 0]
    patterns[0, :, 1] = [1, 1, 1]
    pattern, time = at_peak(patterns, np.array([0.0, 0.1, 0.2, 0.3]))
    assert pattern.tolist() == [[-2, 1, 0]] and time.tolist() == [0.2]
