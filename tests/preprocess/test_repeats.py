"""Predictions of betas from the repeats of their stimulus, against a loop."""

from __future__ import annotations

import numpy as np

from braindecode_pipe.preprocess.repeats import Repeats


def test_predictions_from_repeats_equal_a_loop():
    stimulus = np.array(["a", "b", "a", "", "c", "a", "b", "b", "", "d", "d", "d"])
    recording = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    values = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    repeats = Repeats.of(stimulus, recording)
    expected = {}
    for j, name in enumerate(stimulus):
        same = [i for i in range(12) if i != j and name and stimulus[i] == name]
        elsewhere = [i for i in same if recording[i] != recording[j]]
        others = elsewhere or same
        if others:
            expected[j] = values[others].mean(axis=0)
    assert list(repeats.rows) == list(expected)
    means = np.stack(list(expected.values()))
    np.testing.assert_allclose(repeats.predict(values), means, rtol=1e-5)
    error, total = repeats.errors(values, values)
    wanted = values[repeats.rows]
    np.testing.assert_allclose(total, (wanted**2).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(error, ((wanted - means) ** 2).sum(axis=0), rtol=1e-5)
    assert not len(Repeats.of(np.array(["a", "b", ""]), np.zeros(3, int)).rows)
    assert not len(Repeats.of(np.array([], object), np.zeros(0, int)).rows)
