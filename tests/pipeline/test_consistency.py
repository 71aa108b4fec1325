"""What recordings of one person need in common, and what they do not when nothing is decoded."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.errors import DataError
from braindecode_pipe.plan import build
from braindecode_pipe.recipe import parse_recipe

ALONE = '[split]\nby = "none"\n[preprocess.emeg]\nsfreq = "none"\nl_freq = 1.0\nh_freq = 20.0\n'


@pytest.fixture
def slower(bids, make):
    """The third run of the first person has half the rate of the others."""
    write_brainvision, _ = make
    stem = bids / "sub-01" / "eeg" / "sub-01_task-words_run-3_eeg.vhdr"
    write_brainvision(stem, np.random.default_rng(0).normal(0, 10, (4, 1100)), sfreq=50.0)
    return bids


def test_f21_rates_that_differ_stop_the_study_with_both_values(slower, words, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="recordings of sub-01 differ in sampling rate") as caught:
        pipeline.run(words(), slower, out, quiet=True)
    assert caught.value.found == (
        "100 Hz in sub-01_task-words_run-1_eeg; 50 Hz in sub-01_task-words_run-3_eeg"
    )
    assert "preprocess.emeg.sfreq = 50" in caught.value.remedy
    assert not (out / "preprocess").exists(), "before any work"
    texts = [f.text for f in pipeline.check(words(), slower) if f.severity == "error"]
    assert any("differ in sampling rate" in text for text in texts)


def test_f21_rates_are_brought_together_only_by_the_recipe(slower, words, tmp_path):
    asked = words("preprocess.emeg.sfreq=50", "preprocess.emeg.l_freq=1")
    result = pipeline.run(asked, slower, tmp_path / "out", until="preprocess", quiet=True)
    assert [row.error for row in result.failed] == []
    # Nothing is decoded together: nothing has to agree.
    alone = parse_recipe(ALONE, "r")
    result = pipeline.run(alone, slower, tmp_path / "alone", until="preprocess", quiet=True)
    assert [row.error for row in result.failed] == []


def test_a_plan_without_a_split_needs_neither_events_nor_stimuli(bids):
    for file in bids.rglob("*_events.tsv"):
        file.unlink()
    recipe = parse_recipe(ALONE, "r")
    result = build(recipe.plan, recipe.split, bids)
    assert len(result.plan.recordings) == 6 and len(result.plan.folds) == 0
    assert result.plan.role.shape == (0, 0)
    assert "no recording has events" in result.attrs["event_problems"][""]


def test_copies_do_not_stop_what_is_only_preprocessed(bids):
    folder = bids / "sub-01" / "eeg"
    first, second = (folder / f"sub-01_task-words_run-{run}_eeg.eeg" for run in (1, 2))
    shutil.copy(first, second)
    recipe = parse_recipe(ALONE, "r")
    assert len(build(recipe.plan, recipe.split, bids).plan.events) == 120
