from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.simulate.design import (
    EVENT_COLUMNS,
    event_table,
    jittered_run,
    sequence,
    slow_run,
)


def test_every_stimulus_is_presented_as_often_as_asked():
    is_picture = np.array([True] * 10 + [False] * 4)
    runs = sequence(is_picture, 3, 5, 4, np.random.default_rng(0))
    order = np.concatenate(runs)
    assert np.bincount(order).tolist() == [3] * 10 + [5] * 4
    assert max(map(len, runs)) - min(map(len, runs)) <= 1
    assert (np.diff(order) != 0).all()
    # Repetitions are spread: each of the first two rounds holds every stimulus once.
    assert sorted(order[:14]) == sorted(order[14:28]) == list(range(14))


@pytest.mark.parametrize("seed", range(20))
def test_no_stimulus_follows_itself(seed):
    order = np.concatenate(sequence(np.ones(3, bool), 30, 1, 2, np.random.default_rng(seed)))
    assert (np.diff(order) != 0).all()


def test_onsets_are_on_the_grid_and_far_enough_apart():
    run = jittered_run(np.arange(200), 0.65, 0.1, 128.0, np.random.default_rng(0))
    samples = run.onset * 128
    np.testing.assert_allclose(samples, np.round(samples), atol=1e-9)
    gaps = np.diff(run.onset)
    assert gaps.min() >= 0.65 - 1e-9 and gaps.max() <= 0.75 + 1 / 128
    assert np.unique(gaps).size > 5
    assert run.onset[0] == 2.0 and run.duration == pytest.approx(run.onset[-1] + 2.0)


def test_slow_runs_are_whole_volumes():
    run = slow_run(np.arange(40), 5.0, 1.5, np.random.default_rng(0))
    gaps = np.diff(run.onset)
    assert set(gaps) == {5.0, 6.5, 17.0, 18.5}
    assert np.flatnonzero(gaps > 10).tolist() == [11, 23, 35]
    assert run.duration / 1.5 == round(run.duration / 1.5)
    assert run.duration >= run.onset[-1] + 16


def test_event_table_names_the_stimuli():
    stimuli = pd.DataFrame(
        {
            "stim_file": ["pictures/a.png", "words/a.wav"],
            "trial_type": ["picture", "word"],
            "label": ["a", "a"],
            "category": ["food", "food"],
            "duration": [np.nan, 0.3],
        }
    )
    run = slow_run(np.array([1, 0]), 6.0, 2.0, np.random.default_rng(0))
    table = event_table(run, stimuli, 0.5)
    assert list(table.columns) == list(EVENT_COLUMNS)
    assert table["duration"].tolist() == [0.3, 0.5]
    assert table["picture"].tolist() == ["n/a", "pictures/a.png"]
    assert table["sound"].tolist() == ["words/a.wav", "n/a"]
    assert table["word"].tolist() == ["a", "n/a"]
