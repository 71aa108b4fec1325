"""`check` tells onsets that lie beside the responses, before anything is run."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import wavfile

from braindecode_pipe import pipeline
from braindecode_pipe.pipeline.lag_check import sound_envelope
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.simulate import simulate_tiny


def test_f20_check_tells_planted_shifts(tmp_path):
    data = tmp_path / "data"
    simulate_tiny(data, modalities=("eeg", "bold"), snr=0.5, seed=3, n_pictures=30)
    for name in ("demo_eeg", "demo_fmri"):
        found = [f for f in pipeline.check(load_recipe(name), data) if "response" in f.text]
        assert [f.severity for f in found] == ["note"] and "as expected" in found[0].text
    for table in data.rglob("*_events.tsv"):
        lines = table.read_text().splitlines()
        rows = [line.split("\t", 1) for line in lines[1:]]
        shift = 4.0 if "func" in table.parts else 0.5
        moved = [f"{float(onset) + shift}\t{rest}" for onset, rest in rows]
        table.write_text("\n".join([lines[0], *moved]) + "\n")
    found = pipeline.check(load_recipe("demo_fmri"), data)
    (told,) = [f for f in found if f.severity == "warning"]
    assert "response peaks 2 s after onset, expected 4-7 s: onsets may be shifted" in told.text
    # The device's triggers are there: they win, and the response is where it should be.
    found = pipeline.check(load_recipe("demo_eeg"), data)
    assert any("the device's triggers are used" in f.text for f in found if f.severity == "warning")
    assert any("as expected" in f.text for f in found)
    kept = load_recipe("demo_eeg", ["plan.event_source=table"])
    texts = [f.text for f in pipeline.check(kept, data)]
    assert any("s before onset, expected 0.05-0.6 s: onsets may be shifted" in t for t in texts)


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
