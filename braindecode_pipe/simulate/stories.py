"""Stories that the simulated people hear: sentences of the spoken words, one file each.

Words are drawn at random, so that a story has no grammar and no word predicts the next: what is
simulated is the timing of a study in which people listen, and a code per word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from braindecode_pipe.errors import InputError
from braindecode_pipe.simulate.design import Run
from braindecode_pipe.simulate.settings import Settings
from braindecode_pipe.simulate.speech import SPEECH_SFREQ
from braindecode_pipe.simulate.stimuli import Word

STORY_COLUMNS = {
    "onset": "Onset of the word in seconds from the start of the recording.",
    "duration": "Duration of the word in seconds.",
    "trial_type": "What the stimulus is: word.",
    "word": "The word that is heard.",
    "category": "Category of what is said.",
    "sound": "The story that the word is a piece of, below the folder stimuli.",
    "sound_onset": "Onset of the word inside the story in seconds.",
    "sentence": "Number of the sentence inside the story.",
}
_LENGTHS = (4, 8)  # words of a sentence
_PAUSE = (0.6, 1.0)  # s, beyond the interval between words
_LEAD = 2.0  # s, from the start of a recording to that of the story


@dataclass(frozen=True)
class Story:
    """One story.

    Attributes
    ----------
    name : str
    word : (n,) rows of the words, from 0
    onset : (n,) inside the story [s], on the sampling grid of the recordings
    duration : (n,) [s]
    sentence : (n,) int, from 1
    sound : (n_samples,) float64 in [-1, 1] at ``SPEECH_SFREQ``
    """

    name: str
    word: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    sentence: np.ndarray
    sound: np.ndarray

    @property
    def file(self) -> str:
        """Path below ``stimuli/``."""
        return f"stories/{self.name}.wav"

    def run(self, n_pictures: int, sfreq: float) -> Run:
        """The story as it is heard in a recording; words stand behind the pictures."""
        onset = np.round((self.onset + _LEAD) * sfreq) / sfreq
        last = round(onset[-1] * sfreq) + round(2.0 * sfreq)
        return Run(self.word + n_pictures, onset, last / sfreq)

    def event_table(self, run: Run, words: list[Word]) -> pd.DataFrame:
        """``events.tsv``: columns of ``STORY_COLUMNS``."""
        return pd.DataFrame(
            {
                "onset": np.round(run.onset, 6),
                "duration": self.duration.round(4),
                "trial_type": "word",
                "word": [words[k].label for k in self.word],
                "category": [words[k].category for k in self.word],
                "sound": self.file,
                "sound_onset": self.onset.round(6),
                "sentence": self.sentence,
            },
            columns=list(STORY_COLUMNS),
        )


def make_stories(words: list[Word], settings: Settings) -> list[Story]:
    """``settings.n_stories`` stories of ``settings.n_sentences`` sentences each.

    Raises
    ------
    InputError
        Stories without words to tell them in.
    """
    if settings.n_stories and len(words) < 2:
        raise InputError(
            "stories need words",
            expected="n_words of 2 or more",
            found=str(len(words)),
            remedy="choose a larger n_words, or n_stories = 0",
        )
    return [_make(f"story-{k + 1:02d}", words, settings) for k in range(settings.n_stories)]


def _make(name: str, words: list[Word], settings: Settings) -> Story:
    rng = settings.rng("stories", name)
    lengths = rng.integers(_LENGTHS[0], _LENGTHS[1] + 1, settings.n_sentences)
    sentence = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    # Never a word twice in a row: steps of 1 ... n - 1 around the circle of words.
    steps = rng.integers(1, len(words), len(sentence))
    word = np.cumsum(steps) % len(words)
    gap = rng.uniform(settings.soa, settings.soa + settings.soa_jitter, len(sentence))
    gap[1:] += np.where(np.diff(sentence) > 0, rng.uniform(*_PAUSE, len(sentence) - 1), 0.0)
    grid = np.maximum(
        np.round(gap * settings.sfreq), np.ceil(round(settings.soa * settings.sfreq, 6))
    )
    onset = np.r_[0.0, np.cumsum(grid[1:])] / settings.sfreq
    duration = np.array([words[k].duration for k in word])
    sound = np.zeros(round((onset[-1] + 1.0) * SPEECH_SFREQ))
    for k, at in zip(word, np.round(onset * SPEECH_SFREQ).astype(int)):
        sound[at : at + words[k].sound.size] += words[k].sound
    return Story(name, word, onset, duration, sentence, sound)
