"""Two-way identification and 2V2 against double loops."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate.identification import two_v_two, two_way


def cosine_distance(a, b):
    return 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("seed", range(3))
def test_two_way_equals_a_double_loop(seed):
    rng = np.random.default_rng(seed)
    targets = rng.standard_normal((15, 6))
    predictions = targets + 2 * rng.standard_normal((15, 6))
    for i, share in enumerate(two_way(predictions, targets)):
        own = np.corrcoef(targets[i], predictions[i])[0, 1]
        others = [np.corrcoef(targets[j], predictions[i])[0, 1] for j in range(15) if j != i]
        assert share == pytest.approx(np.mean([c < own for c in others]))


@pytest.mark.parametrize("distance", ["cosine", "correlation"])
def test_2v2_equals_the_double_loop_over_pairs(distance):
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((14, 5)) + 0.5
    predictions = targets + 2 * rng.standard_normal((14, 5))
    y, p = targets, predictions
    if distance == "correlation":
        y, p = (a - a.mean(axis=1, keepdims=True) for a in (targets, predictions))
    right = {}
    for i in range(14):
        for j in range(i + 1, 14):
            same = cosine_distance(y[i], p[i]) + cosine_distance(y[j], p[j])
            crossed = cosine_distance(y[i], p[j]) + cosine_distance(y[j], p[i])
            right[i, j] = same < crossed
    accuracy, by_item = two_v_two(predictions, targets, distance)
    assert accuracy == pytest.approx(2 / (14 * 13) * sum(right.values()))
    for i in range(14):
        own = [right[min(i, j), max(i, j)] for j in range(14) if j != i]
        assert by_item[i] == pytest.approx(np.mean(own))


def test_2v2_of_perfect_reversed_random_and_tied_predictions():
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((60, 8))
    assert two_v_two(targets, targets)[0] == 1.0
    assert two_v_two(-targets, targets)[0] == 0.0
    assert two_v_two(rng.standard_normal((60, 8)), targets)[0] == pytest.approx(0.5, abs=0.15)
    for constant in (np.ones((60, 8)), np.zeros((60, 8)), np.tile(targets[:1], (60, 1))):
        assert two_v_two(constant, targets)[0] == pytest.approx(0.5, abs=1e-12)
    assert two_v_two(np.tile(targets[:1], (60, 1)), targets, "correlation")[0] == 0.5


def test_f40_ties_of_two_way_identification_count_half():
    targets = np.repeat(np.random.default_rng(0).standard_normal((5, 4)), 2, axis=0)
    np.testing.assert_allclose(two_way(targets, targets), 8.5 / 9)
    np.testing.assert_array_equal(two_way(np.ones((10, 4)), targets), 0.5)


@pytest.mark.parametrize("scale", [1e-300, 1e-13, 1e6, 1e300])
def test_scale_changes_nothing(scale):
    rng = np.random.default_rng(0)
    targets, predictions = rng.standard_normal((20, 6)), rng.standard_normal((20, 6))
    scaled = predictions * scale, targets * scale
    np.testing.assert_array_equal(two_way(*scaled), two_way(predictions, targets))
    assert two_v_two(*scaled)[0] == two_v_two(predictions, targets)[0]


@pytest.mark.parametrize("function", [two_way, two_v_two])
def test_what_cannot_be_compared(function):
    with pytest.raises(DataError, match=r"pairs cannot be compared(.|\n)*\(1, 3\)"):
        function(np.ones((1, 3)), np.ones((1, 3)))
    with pytest.raises(DataError, match=r"NaN or infinity in targets(.|\n)*1 such rows"):
        function(np.ones((2, 2)), np.array([[1.0, np.nan], [1, 2]]))
