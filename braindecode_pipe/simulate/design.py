"""Which stimulus is presented when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

EVENT_COLUMNS = {
    "onset": "Onset of the stimulus in seconds from the start of the recording.",
    "duration": "Duration of the stimulus in seconds.",
    "trial_type": "What the stimulus is: picture or word.",
    "stim_file": "The stimulus, below the folder stimuli.",
    "label": "Name of what is shown or said.",
    "category": "Category of what is shown or said.",
    "picture": "The picture, below the folder stimuli; n/a for words.",
    "sound": "The sound, below the folder stimuli; n/a for pictures.",
    "word": "The word that is heard; n/a for pictures.",
}


@dataclass(frozen=True)
class Run:
    """Presentations of one run.

    Attributes
    ----------
    stimulus : (n_trials,) rows of the stimulus table
    onset : (n_trials,) [s], increasing
    duration : length of the recording [s]
    """

    stimulus: np.ndarray
    onset: np.ndarray
    duration: float


def sequence(
    is_picture: np.ndarray, repeats: int, word_repeats: int, n_runs: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Rows of the stimulus table in the order of presentation, one array per run.

    The repetitions of a stimulus are spread over the study: each round of presentations is
    permuted by itself, and no stimulus follows itself. The rounds are cut into ``n_runs`` runs
    whose lengths differ by at most one.
    """
    rounds: list[np.ndarray] = []
    for k in range(max(repeats, word_repeats)):
        wanted = np.where(is_picture, repeats, word_repeats) > k
        order = rng.permutation(np.flatnonzero(wanted))
        if rounds and len(order) > 1 and order[0] == rounds[-1][-1]:
            order[[0, -1]] = order[[-1, 0]]
        rounds.append(order)
    return np.array_split(np.concatenate(rounds), n_runs)


def jittered_run(
    stimulus: np.ndarray, soa: float, jitter: float, sfreq: float, rng: np.random.Generator
) -> Run:
    """Onsets on the sampling grid, ``soa`` ... ``soa + jitter`` [s] apart, from 2 s on."""
    steps = np.round(rng.uniform(soa, soa + jitter, len(stimulus)) * sfreq)
    # Rounding must not bring two onsets closer than the response lasts.
    steps = np.maximum(steps, np.ceil(round(soa * sfreq, 6)))
    first = round(2.0 * sfreq)
    samples = first + np.r_[0, np.cumsum(steps[:-1])].astype(int)
    return Run(stimulus, samples / sfreq, (samples[-1] + round(2.0 * sfreq)) / sfreq)


def slow_run(stimulus: np.ndarray, interval: float, t_r: float, rng: np.random.Generator) -> Run:
    """Onsets for BOLD, from 10 s on: whole volumes, with 16 s of rest at the end.

    Between onsets lie ``interval`` [s] and, at random, none or one ``t_r`` [s] more; after every
    twelfth stimulus come 12 s of rest. Without them stimulation would be periodic, and no one
    could tell a response that comes late from the next one.
    """
    n = len(stimulus)
    gaps = interval + t_r * rng.integers(0, 2, n) + np.where(np.arange(1, n + 1) % 12 == 0, 12.0, 0)
    onset = 10.0 + np.r_[0.0, np.cumsum(gaps[:-1])]
    n_volumes = int(np.ceil(round((onset[-1] + interval + 16.0) / t_r, 6)))
    return Run(stimulus, onset, n_volumes * t_r)


def event_table(run: Run, stimuli: pd.DataFrame, picture_duration: float) -> pd.DataFrame:
    """``events.tsv`` of a run: columns of ``EVENT_COLUMNS``."""
    shown = stimuli.iloc[run.stimulus].reset_index(drop=True)
    is_picture = shown["trial_type"] == "picture"
    return pd.DataFrame(
        {
            "onset": np.round(run.onset, 6),
            "duration": shown["duration"].where(~is_picture, picture_duration).round(4),
            "trial_type": shown["trial_type"],
            "stim_file": shown["stim_file"],
            "label": shown["label"],
            "category": shown["category"],
            "picture": shown["stim_file"].where(is_picture, "n/a"),
            "sound": shown["stim_file"].where(~is_picture, "n/a"),
            "word": shown["label"].where(~is_picture, "n/a"),
        },
        columns=list(EVENT_COLUMNS),
    )
