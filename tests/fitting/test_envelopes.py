"""Envelopes of the sounds of a study."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile

from braindecode_pipe.fitting.envelopes import sound_envelope, stimulus_envelopes


@pytest.mark.parametrize("channels", [1, 2])
def test_envelope_of_a_sound(tmp_path, channels):
    rate, path = 8000, tmp_path / "x.wav"
    time = np.arange(rate * 2) / rate
    loud = np.where(time < 1, 0.1, 0.8)
    wave = (loud * np.sin(2 * np.pi * 440 * time) * 32000).astype(np.int16)
    wavfile.write(path, rate, wave if channels == 1 else np.stack([wave] * channels, 1))
    values, sfreq = sound_envelope(path)
    assert sfreq == 100.0 and len(values) == 200
    assert values[150:].mean() / values[:50].mean() == pytest.approx(8, rel=0.05)
    path.write_bytes(b"RIFF")
    assert sound_envelope(path) is None


def test_only_sounds_of_the_study_have_an_envelope(tmp_path):
    wavfile.write(tmp_path / "a.wav", 1000, np.arange(2000, dtype=np.int16))
    rows = [("1", "speech", "a.wav"), ("2", "speech", "b.mp3"), ("3", "image", "a.wav"),
            ("4", "speech", "gone.wav")]  # fmt: skip
    stimuli = pd.DataFrame(rows, columns=["stimulus", "kind", "path"])
    read = stimulus_envelopes(SimpleNamespace(stimuli=stimuli), tmp_path)
    values, sfreq = read("1")
    assert len(values) == 200 and sfreq == 100.0
    assert [read(name) for name in ("2", "3", "4", "unknown")] == [None] * 4
    pictures = SimpleNamespace(stimuli=stimuli[stimuli["kind"] == "image"])
    assert stimulus_envelopes(pictures, tmp_path) is None
