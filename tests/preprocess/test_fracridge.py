"""Fractional ridge regression against a root finder."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from braindecode_pipe.preprocess import fracridge


def test_fractions_are_the_lengths_that_they_name():
    rng = np.random.default_rng(0)
    s = np.r_[30.0, 4.0, 1.0, 0.02]
    rotated = rng.standard_normal((4, 50))
    grid = fracridge.penalties(s)
    fractions = np.array([1.0, 0.9, 0.5, 0.1, 0.05])
    lengths = fracridge.squared_lengths(rotated, s, grid)
    found = fracridge.alphas_of(lengths, grid, fractions)

    def length(alpha, column):
        return np.linalg.norm(s * rotated[:, column] / (s**2 + alpha))

    assert not found[0].any()
    for column in range(50):
        whole = length(0.0, column)
        for fraction, alpha in zip(fractions[1:], found[1:, column]):
            exact = brentq(lambda a, c=column, g=fraction, w=whole: length(a, c) - g * w, 0, 1e9)
            assert alpha == pytest.approx(exact, rel=0.05)
            assert length(alpha, column) == pytest.approx(fraction * whole, rel=0.01)
    kept = np.linalg.norm(fracridge.shrunk(rotated, s, found[2]), axis=0)
    np.testing.assert_allclose(kept, 0.5 * np.linalg.norm(rotated / s[:, None], axis=0), rtol=0.01)


@pytest.mark.parametrize("scale", [2.0**-43, 2.0**20])
def test_fractions_do_not_depend_on_the_unit(scale):
    rotated = np.random.default_rng(0).standard_normal((3, 9))
    s, fractions = np.array([3.0, 1.0, 0.5]), np.array([0.7, 0.2])
    grid = fracridge.penalties(s)
    expected = fracridge.alphas_of(fracridge.squared_lengths(rotated, s, grid), grid, fractions)
    lengths = fracridge.squared_lengths(scale * rotated, s, grid)
    np.testing.assert_array_equal(fracridge.alphas_of(lengths, grid, fractions), expected)
    zeros = fracridge.squared_lengths(0 * rotated, s, grid)
    assert not fracridge.alphas_of(zeros, grid, fractions).any()
