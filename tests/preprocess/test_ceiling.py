"""Noise ceiling from repeats: the formula by a loop, and against simulated responses."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.preprocess.ceiling import Variances, ceiling_of, noise_ceiling, variances
from braindecode_pipe.preprocess.scratch import Scratch


def simulated(signal, noise, counts, seed=0):
    """Responses with known variances: one column per pair of ``signal`` and ``noise``."""
    rng = np.random.default_rng(seed)
    stimulus = np.repeat(np.arange(len(counts)), counts)
    evoked = np.sqrt(signal) * rng.standard_normal((len(counts), len(signal)))
    betas = evoked[stimulus] + np.sqrt(noise) * rng.standard_normal((len(stimulus), len(noise)))
    order = rng.permutation(len(stimulus))
    return 5 + betas[order], np.array([f"s{k}" for k in stimulus[order]])


def test_variances_equal_a_loop():
    betas, stimulus = simulated(np.array([1.0, 0.2]), np.array([0.5, 3.0]), [3, 1, 2, 5, 2])
    found = variances(betas, stimulus)
    for column in range(2):
        x = betas[:, column]
        groups = [x[stimulus == name] for name in np.unique(stimulus)]
        within = sum(((g - g.mean()) ** 2).sum() for g in groups) / sum(len(g) - 1 for g in groups)
        n = len(x)
        spread = ((x - x.mean()) ** 2).sum() - (n - 1) * within
        between = spread / (n - sum(len(g) ** 2 for g in groups) / n)
        assert found.noise[column] == pytest.approx(within)
        assert found.signal[column] == pytest.approx(max(0, between))


@pytest.mark.parametrize("counts", [[3] * 60, [2] * 30 + [3] * 20 + [6] * 5 + [1] * 20])
def test_variances_are_those_that_were_simulated(counts):
    signal = np.repeat([0.0, 0.5, 2.0], 400)
    noise = np.tile([0.25, 1.0], 600)
    found = variances(*simulated(signal, noise, counts))
    for s in (0.5, 2.0):
        for n in (0.25, 1.0):
            here = (signal == s) & (noise == n)
            for values, truth in ((found.signal, s), (found.noise, n)):
                error = values[here].std() / np.sqrt(here.sum())
                assert abs(values[here].mean() - truth) < 4 * error
    # The ceiling is the variance of single trials that their stimulus explains.
    here = (signal == 2) & (noise == 1)
    assert noise_ceiling(found)[here].mean() == pytest.approx(100 * 2 / 3, abs=2)
    assert np.median(noise_ceiling(found)[signal == 0]) < 3


def test_ceiling_grows_with_averaging_and_averages_unequal_repeats():
    found = Variances(np.array([1.0]), np.array([2.0]))
    assert noise_ceiling(found, 1)[0] == pytest.approx(100 / 3)
    assert noise_ceiling(found, 4)[0] == pytest.approx(100 / 1.5)
    # NSD's manual: (A/3 + B/2 + C) / (A + B + C) for stimuli with three, two and one trial.
    mixed = noise_ceiling(found, np.repeat([3, 2, 1], [10, 5, 5]))[0]
    assert mixed == pytest.approx(100 / (1 + 2 * (10 / 3 + 5 / 2 + 5) / 20))


def test_no_repeats_no_ceiling():
    betas = np.random.default_rng(0).standard_normal((6, 3))
    assert np.isnan(variances(betas, np.arange(6)).noise).all()
    assert np.isnan(noise_ceiling(variances(betas, np.zeros(6)))).all()  # nothing to tell apart
    assert np.isnan(noise_ceiling(variances(np.zeros((6, 3)), np.arange(6) // 2))).all()
    assert np.isnan(noise_ceiling(variances(betas[:0], np.arange(0)))).all()


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_ceiling_does_not_depend_on_the_unit(scale):
    betas, stimulus = simulated(np.ones(20), np.ones(20), [2] * 20)
    expected = noise_ceiling(variances(betas, stimulus))
    np.testing.assert_allclose(noise_ceiling(variances(scale * betas, stimulus)), expected)


def test_ceiling_of_a_file_equals_that_in_memory(tmp_path, monkeypatch):
    betas, stimulus = simulated(np.ones(50), np.ones(50), [3] * 12)
    rows = np.arange(3, 36)
    monkeypatch.setattr("braindecode_pipe.preprocess.scratch.BLOCK_BYTES", 8 * 36 * 7)
    with Scratch(tmp_path / "x.zarr", betas.shape, np.float32) as values:
        values.write(0, 0, betas)
        found = ceiling_of(values, rows, stimulus[rows])
    expected = noise_ceiling(variances(betas[rows].astype(np.float32), stimulus[rows]))
    np.testing.assert_allclose(found, expected)
