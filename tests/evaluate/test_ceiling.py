"""Noise ceilings against planted reliability and naive loops."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.ceiling import cross_subject, spearman_brown, split_half


def test_split_half_recovers_planted_reliability():
    """Signal variance 1, noise variance 4, six repetitions: 1 / (1 + 4 / 6) = .6."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((2000, 5))
    responses = signal + 2 * rng.standard_normal((6, 2000, 5))
    found = split_half(responses, n_splits=20)
    np.testing.assert_allclose(found.reliability, 0.6, atol=0.04)
    truth = [np.corrcoef(signal[:, v], responses.mean(axis=0)[:, v])[0, 1] for v in range(5)]
    np.testing.assert_allclose(found.high, truth, atol=0.03)
    np.testing.assert_array_equal(found.low, found.high)


def test_two_repetitions_by_hand():
    responses = np.random.default_rng(1).standard_normal((2, 8, 3)) + np.arange(8)[:, None]
    r = np.array([np.corrcoef(responses[0, :, v], responses[1, :, v])[0, 1] for v in range(3)])
    np.testing.assert_allclose(split_half(responses).reliability, 2 * r / (1 + r))
    assert spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert spearman_brown(0.3, 1) == 0.3


def test_noise_has_no_ceiling_and_constant_sensors_none_that_is_known():
    rng = np.random.default_rng(0)
    responses = rng.standard_normal((4, 500, 3))
    responses[:, :, 2] = 7.0
    found = split_half(responses)
    assert (found.high[:2] < 0.35).all()
    assert np.isnan(found.high[2])
    opposed = np.stack([np.arange(5.0), -np.arange(5.0)])[:, :, None]
    assert split_half(opposed).high[0] == 0


def test_cross_subject_equals_a_naive_loop_and_brackets_the_shared_model():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((300, 2))
    people = shared + rng.standard_normal((8, 300, 2))
    found = cross_subject(people)
    z = (people - people.mean(axis=1, keepdims=True)) / people.std(axis=1, keepdims=True)
    for v in range(2):
        low = [
            np.corrcoef(z[s, :, v], np.delete(z, s, 0).mean(axis=0)[:, v])[0, 1] for s in range(8)
        ]
        high = [np.corrcoef(z[s, :, v], z.mean(axis=0)[:, v])[0, 1] for s in range(8)]
        assert found.low[v] == pytest.approx(np.mean(low))
        assert found.high[v] == pytest.approx(np.mean(high))
        model = np.mean([np.corrcoef(people[s, :, v], shared[:, v])[0, 1] for s in range(8)])
        assert found.low[v] < model < found.high[v]


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_scale_changes_nothing(scale):
    responses = np.random.default_rng(0).standard_normal((4, 30, 2))
    for function in (split_half, cross_subject):
        first, second = function(responses), function(responses * scale)
        np.testing.assert_allclose(first.high, second.high, rtol=1e-9)


def test_too_little_data():
    with pytest.raises(DataError, match="at least 2 repetitions and 3 stimuli"):
        split_half(np.ones((1, 5, 2)))
    with pytest.raises(DataError, match=r"\(3, 4, 2\), 1 not finite"):
        cross_subject(np.where(np.arange(24).reshape(3, 4, 2) == 5, np.nan, 1.0))
