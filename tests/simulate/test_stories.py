"""Stories: what is heard is what the event tables say, and everybody hears the same."""

from __future__ import annotations

import wave

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import InputError
from braindecode_pipe.inspect import survey, write_recipe
from braindecode_pipe.plan import build
from braindecode_pipe.recipe import parse_recipe
from braindecode_pipe.simulate import Settings, simulate_tiny
from braindecode_pipe.simulate.speech import SPEECH_SFREQ, synthesise_word
from braindecode_pipe.simulate.stimuli import Word
from braindecode_pipe.simulate.stories import make_stories

WORDS = [Word(w, "object", synthesise_word(w)) for w in ("cat", "hammer", "sun", "boat")]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "stories"
    simulate_tiny(
        out, n_subjects=2, n_words=8, n_pictures=24, n_stories=2, n_sentences=40, n_repeats=1,
        n_runs=1, n_eeg=8,
    )  # fmt: skip
    return out


def events_of(root, subject, run):
    path = root / f"sub-{subject}" / "eeg" / f"sub-{subject}_task-story_run-{run}_events.tsv"
    return pd.read_csv(path, sep="\t")


def test_a_story_holds_every_word_where_it_says():
    (story,) = make_stories(WORDS, Settings(n_stories=1, n_sentences=20, n_words=4))
    heard = np.zeros_like(story.sound)
    for word, onset in zip(story.word, story.onset):
        at = round(onset * SPEECH_SFREQ)
        sound = WORDS[word].sound
        assert np.array_equal(story.sound[at : at + sound.size], sound)  # words never overlap
        heard[at : at + sound.size] = 1
    assert not story.sound[heard == 0].any()
    assert (np.diff(story.word) != 0).all()
    gap = np.diff(story.onset)
    border = np.diff(story.sentence) > 0
    assert gap.min() >= 0.65 - 1e-9 and gap[border].min() > gap[~border].max()
    lengths = np.bincount(story.sentence)[1:]
    assert len(lengths) == 20 and lengths.min() >= 4 and lengths.max() <= 8


def test_everybody_hears_the_same_story(told):
    for run in ("01", "02"):
        pd.testing.assert_frame_equal(events_of(told, "01", run), events_of(told, "02", run))
    assert not events_of(told, "01", "01")["word"].equals(events_of(told, "01", "02")["word"])
    with wave.open(str(told / "stimuli/stories/story-01.wav")) as file:
        length = file.getnframes() / file.getframerate()
    events = events_of(told, "01", "01")
    assert length >= (events["sound_onset"] + events["duration"]).max()
    np.testing.assert_allclose(events["onset"] - events["sound_onset"], 2.0, atol=1e-6)


def test_stories_need_words():
    with pytest.raises(InputError, match="stories need words"):
        make_stories(WORDS[:1], Settings(n_stories=1))
    assert make_stories([], Settings()) == []


def test_init_proposes_a_split_by_segment(told):
    """`init` finds the words of recorded stories, and what it writes can be planned."""
    for path in told.rglob("*_task-concepts_*"):
        path.unlink()  # only people who listen are left
    text = write_recipe(survey(told))
    recipe = parse_recipe(text, "recipe.toml")
    spec = recipe.plan.stimuli["word"]
    assert (spec.kind, spec.column) == ("speech", "word")
    assert (spec.file_column, spec.onset_column) == ("sound", "sound_onset")
    split = recipe.split
    assert (split.by, split.segment_column, split.segment_s) == ("segment", "sentence", 6.0)
    assert split.fractions == [0.7, 0.1, 0.2] and split.overlap == "purge"
    plan = build(recipe.plan, split, told, extent=recipe.train.windows.extent).plan
    assert len(plan.folds) == 2 and plan.events["group"].nunique() > 30
