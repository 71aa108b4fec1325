"""How loud the sounds of a study are over time: what recordings of speech follow."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import safe_join

# Stimulus id -> values and their rate [Hz], None for what is no sound.
Envelope = Callable[[str], "tuple[np.ndarray, float] | None"]
_SFREQ = 100.0


def stimulus_envelopes(plan: StudyPlan, data: Path) -> Envelope | None:
    """Reader of the envelopes of WAV stimuli; None where the study has none."""
    own = plan.stimuli[plan.stimuli["kind"] == "speech"]
    rows = {str(r["stimulus"]): r for r in own.to_dict("records")}
    if not rows:
        return None

    @lru_cache(maxsize=8)
    def read(stimulus: str) -> tuple[np.ndarray, float] | None:
        row = rows.get(stimulus)
        if row is None or not str(row["path"]).lower().endswith(".wav"):
            return None
        return sound_envelope(safe_join(data, row["path"]))

    return read


def sound_envelope(path: Path) -> tuple[np.ndarray, float] | None:
    """Root mean square of a WAV file in pieces of 10 ms, and its rate; None if it cannot be read.

    A sound that cannot be decoded is told by the stage ``embed``, not by a check of onsets.
    """
    from scipy.io import wavfile

    try:
        rate, wave = wavfile.read(path, mmap=True)
    except (ValueError, OSError, EOFError, struct.error):
        return None
    n = max(1, round(rate / _SFREQ))
    pieces = len(wave) // n
    if pieces < 2:
        return None
    out = np.empty(pieces)
    for start in range(0, pieces, 10_000):
        part = np.asarray(wave[start * n : min(start + 10_000, pieces) * n], np.float64)
        part = part.reshape(-1, n * (1 if part.ndim == 1 else part.shape[1]))
        out[start : start + len(part)] = np.sqrt(((part - part.mean()) ** 2).mean(1))
    return out, rate / n
