"""A response planted at 100 to 250 ms after the onset, in simulated noise: when, and how often."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.train.decoder import BrainDecoder

SFREQ, TMIN, N_TIMES, N_SENSORS, N_CODE = 40.0, -0.5, 40, 16, 6
N_CANDIDATES, N_REPEATS = 60, 16


@pytest.fixture(scope="module")
def planted():
    """Windows and codes to train on, and repeated windows of stimuli never trained on."""
    rng = np.random.default_rng(0)
    times = TMIN + np.arange(N_TIMES) / SFREQ
    course = ((times >= 0.1) & (times < 0.25)).astype(float)
    mixing = rng.normal(size=(N_CODE, N_SENSORS))

    def windows(code):
        clean = 0.1 * (code @ mixing)[:, :, None] * course
        return clean + rng.normal(size=clean.shape)

    train, test = rng.normal(size=(1200, N_CODE)), rng.normal(size=(N_CANDIDATES, N_CODE))
    shown = np.repeat(np.arange(N_CANDIDATES), N_REPEATS)
    return times, windows(train), train, windows(test[shown]), test


def top5(model, x, candidates):
    """Share of rows whose own candidate is among the nearest five; rows stimulus by stimulus."""
    nearest = model.predict(x).retrieve(candidates, k=5)
    own = np.repeat(np.arange(len(candidates)), len(x) // len(candidates))
    return (nearest == own[:, None]).any(1).mean()


def test_pieces_of_250_ms_tell_nothing_before_the_onset(planted):
    times, x, y, test, candidates = planted
    found = {}
    for begin in (-0.5, -0.25, 0.0, 0.25):
        piece = (times >= begin - 1e-9) & (times < begin + 0.25 - 1e-9)
        model = BrainDecoder("ridge").fit(x[:, :, piece], y, np.arange(len(y)) % 5)
        found[begin] = top5(model, test[:, :, piece], candidates)
    chance, n = 5 / N_CANDIDATES, len(test)
    # Trials of a stimulus share their candidate: four standard errors of as few as there are.
    error = 4 * np.sqrt(chance * (1 - chance) / N_CANDIDATES)
    for begin in (-0.5, -0.25, 0.25):
        assert abs(found[begin] - chance) < error, (begin, found[begin], n)
    assert found[0.0] > chance + 2 * error


def test_averaging_repeats_raises_retrieval(planted):
    _, x, y, test, candidates = planted
    model = BrainDecoder("ridge").fit(x, y, np.arange(len(y)) % 5)
    repeats = test.reshape(N_CANDIDATES, N_REPEATS, N_SENSORS, N_TIMES)
    found = [top5(model, repeats[:, :n].mean(1), candidates) for n in (1, 2, 4, 8, 16)]
    assert all(a <= b for a, b in zip(found, found[1:])) and found[-1] > found[0] + 0.2, found
