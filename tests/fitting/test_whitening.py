"""Noise covariance and its inverse root: against naive loops, scikit-learn and planted noise."""

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.whitening import (
    NoiseCovariance,
    noise_covariance,
    shrink,
    whitening_matrix,
)


def trials(n=60, p=6, n_times=20, n_conditions=3, seed=0):
    """Conditions with a mean of their own, and noise that is correlated over sensors."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(p) + rng.uniform(-0.3, 0.3, (p, p))
    label = np.arange(n) % n_conditions
    evoked = 3 * rng.normal(size=(n_conditions, p, n_times))
    data = evoked[label] + np.einsum("ij,njt->nit", mixing, rng.normal(size=(n, p, n_times)))
    return data, [np.flatnonzero(label == k) for k in range(n_conditions)], mixing @ mixing.T


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_covariance_is_that_of_a_naive_loop(step):
    data, conditions, _ = trials()
    found = noise_covariance(lambda rows: data[rows], conditions, 6, step)
    total, fourth = np.zeros((6, 6)), 0.0
    residuals = []
    for rows in conditions:
        for row in rows:
            for t in range(20):
                residuals.append(data[row, :, t] - data[rows][:, :, t].mean(0))
    for r in residuals:
        total += np.outer(r, r) / (57 * 20)
    scale = np.sqrt(np.diag(total))
    correlation = total / np.outer(scale, scale)
    for r in residuals:
        fourth += ((r / scale) ** 2).sum() ** 2 / (57 * 20)
    a = (fourth - (correlation**2).sum()) / 57 / ((correlation - np.eye(6)) ** 2).sum()
    expected = ((1 - a) * correlation + a * np.eye(6)) * np.outer(scale, scale)
    assert found.method == "residuals" and found.rank == 6
    assert found.shrinkage == pytest.approx(a)
    assert found.covariance == pytest.approx(expected)


@pytest.mark.parametrize("n", [8, 40, 400])
def test_shrinkage_is_that_of_scikit_learn(n):
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 12)) @ rng.normal(size=(12, 12))
    x /= np.sqrt((x**2).mean(0))  # standardised: there the two are the same
    expected, a = ledoit_wolf(x, assume_centered=True)
    found, shrinkage, _ = shrink(x.T @ x / n, (x**2).T @ (x**2) / n, n)
    assert shrinkage == pytest.approx(a, rel=1e-9)
    assert found == pytest.approx(expected, rel=1e-9)


def test_planted_noise_becomes_white_and_conditions_stay_apart():
    data, conditions, truth = trials(n=600, n_conditions=3)
    noise = noise_covariance(lambda rows: data[rows], conditions, 6)
    assert noise.covariance == pytest.approx(truth, abs=0.05 * np.abs(truth).max())
    matrix = whitening_matrix(noise, np.array(["eeg"] * 6))
    assert matrix == pytest.approx(fractional_matrix_power(noise.covariance, -0.5).real)
    white = np.einsum("ij,njt->nit", matrix, data)
    again = noise_covariance(lambda rows: white[rows], conditions, 6).covariance
    assert again == pytest.approx(np.eye(6), abs=0.1)


def test_without_repetitions_trials_are_compared_with_themselves():
    data, _, _ = trials(n=50)
    found = noise_covariance(lambda rows: data[rows], [np.array([i]) for i in range(50)], 6)
    assert found.method == "epochs"
    flat = (data - data.mean(2, keepdims=True)).transpose(1, 0, 2).reshape(6, -1)
    variance = np.diag(flat @ flat.T / (50 * 20))
    assert np.diag(found.covariance) == pytest.approx(variance)
    with pytest.raises(DataError, match="noise of the sensors cannot be estimated"):
        noise_covariance(lambda rows: data[rows][..., :1], [np.array([i]) for i in range(50)], 6)
    with pytest.raises(DataError, match="too many sensors"):
        noise_covariance(lambda rows: data[rows], [np.arange(50)], 2001)


def test_an_average_reference_leaves_no_direction_to_blow_up():
    data, conditions, _ = trials(n=300)
    data = (data - data.mean(1, keepdims=True)).astype(np.float32).astype(float)
    noise = noise_covariance(lambda rows: data[rows], conditions, 6)
    assert noise.rank == 5
    matrix = whitening_matrix(noise, np.array(["eeg"] * 6))
    assert np.linalg.matrix_rank(matrix, tol=1e-6 * np.abs(matrix).max()) == 5
    white = np.einsum("ij,njt->nit", matrix, data)
    again = noise_covariance(lambda rows: white[rows], conditions, 6)
    values = np.linalg.eigvalsh(again.covariance)
    assert values[1:] == pytest.approx(np.ones(5), abs=0.1)
    assert values[0] == pytest.approx(0, abs=0.1)  # what shrinkage puts there


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_units_do_not_matter_not_even_mixed_ones(scale):
    data, conditions, _ = trials()
    kinds = np.array(["eeg"] * 3 + ["mag"] * 3)
    factor = np.where(kinds == "mag", scale, 1.0)[None, :, None]
    white = []
    for values in (data, data * factor):
        noise = noise_covariance(lambda rows, values=values: values[rows], conditions, 6)
        white.append(np.einsum("ij,njt->nit", whitening_matrix(noise, kinds), values))
    assert white[1] == pytest.approx(white[0], rel=1e-6, abs=1e-8)


def test_what_cannot_be_inverted_is_refused():
    with pytest.raises(DataError, match="cannot be inverted"):
        whitening_matrix(NoiseCovariance(np.zeros((2, 2)), 0.0, 2, "epochs"), np.array(["eeg"] * 2))
