"""The gallery: chosen by rank alone, pictures and sounds inside the page, bounded in size."""

from __future__ import annotations

import dataclasses
import io
import wave

import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile

from braindecode_pipe.errors import StimulusError
from braindecode_pipe.report import gallery
from braindecode_pipe.report.document import Page, Section
from braindecode_pipe.report.gallery import Shelf, best_median_worst
from braindecode_pipe.report.html import render
from braindecode_pipe.report.sounds import LONGEST_S, RATE, excerpt
from braindecode_pipe.report.study import Study
from braindecode_pipe.splits import StudyPlan


def table(rank, n_candidates=100):
    return pd.DataFrame({"rank": rank, "n_candidates": n_candidates,
                         "event": [f"run:{i:05d}" for i in range(len(rank))]})  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "sizes"),
    [(12, [4, 4, 4]), (3, [1, 1, 1]), (2, [1, 1]), (1, [1]), (5, [1, 3, 1])],
)
def test_parts_are_the_ends_and_the_middle_of_the_ranks(wanted, sizes):
    rng = np.random.default_rng(0)
    parts = best_median_worst(table(rng.permutation(99) + 1.0), wanted)
    assert [len(part) for _, part in parts] == sizes
    found = {name: sorted(part["rank"]) for name, part in parts}
    if "Best" in found:
        assert found["Best"] == list(range(1, 1 + sizes[0]))
        assert found["Worst"] == list(range(100 - sizes[-1], 100))
    if "Around the median" in found:
        assert 50 in found["Around the median"]


def test_ranks_count_as_shares_of_the_candidates():
    parts = best_median_worst(table([2.0, 2.0, 30.0], [2, 100, 100]), 2)
    assert [part["n_candidates"].tolist() for _, part in parts] == [[100], [2]]


def test_few_queries_are_shown_once_each():
    ((name, part),) = best_median_worst(table([3.0, 1.0, 2.0]), 12)
    assert name.startswith("All") and list(part["rank"]) == [1, 2, 3]


def test_equal_ranks_do_not_prefer_the_first_events():
    parts = dict(best_median_worst(table(np.ones(900)), 30))
    first = [int(event.split(":")[1]) for event in parts["Best"]["event"]]
    assert np.mean(first) > 200


def tone(path, seconds=5.0, sfreq=44100, hertz=440.0, amplitude=0.1):
    time = np.arange(int(seconds * sfreq)) / sfreq
    both = np.repeat(amplitude * np.sin(2 * np.pi * hertz * time)[:, None], 2, axis=1)
    wavfile.write(path, sfreq, np.round(32767 * both).astype(np.int16))
    return path


def read(content):
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def test_excerpt_is_short_bounded_and_sounds_alike(tmp_path):
    content = excerpt(tone(tmp_path / "a.wav"), 0.5, None, "a")
    samples = read(content)
    assert len(samples) == LONGEST_S * RATE and len(content) <= 48_044
    assert np.abs(samples).max() == pytest.approx(0.9, abs=1e-3)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * RATE / len(samples) == pytest.approx(440, abs=1)
    assert len(read(excerpt(tmp_path / "a.wav", 1.0, 1.25, "a"))) == 0.25 * RATE


def test_excerpt_of_silence_is_silent_and_of_nothing_an_error(tmp_path):
    assert not read(excerpt(tone(tmp_path / "a.wav", amplitude=0), None, None, "a")).any()
    with pytest.raises(StimulusError):
        excerpt(tmp_path / "missing.wav", None, None, "a")
    with pytest.raises(StimulusError):
        excerpt(tmp_path / "a.wav", 90.0, None, "a")


@pytest.fixture
def heard(make_study, tmp_path, monkeypatch):
    """A study whose stimuli are sounds."""
    inputs = make_study(tmp_path / "in", n_runs=2, n_trials=12, draws=5)
    study = Study(dataclasses.replace(inputs, data=tmp_path))
    plan = StudyPlan.load(inputs.plan)
    tone(tmp_path / "a.wav", seconds=30.0, sfreq=16000)
    stimuli = plan.stimuli.assign(path="a.wav", kind="speech", onset=np.arange(24.0), offset=np.nan)
    study.__dict__["plan"] = dataclasses.replace(plan, stimuli=stimuli)
    return study


def page_of(study, wanted=12):
    blocks = gallery.gallery(study, study.evaluations[0], Shelf(study), wanted)
    return render(Page("t", "", "recorded", (Section("gallery", "G", tuple(blocks)),))).decode()


def test_sounds_play_inside_the_page_within_their_budget(heard, monkeypatch):
    html = page_of(heard)
    n = html.count('<audio controls preload="none" src="data:audio/wav;base64,')
    assert n == 2 * 12 and len(html) < 2_300_000 and "can be played" in html
    monkeypatch.setattr(gallery, "SOUND_BYTES", 200_000)
    assert page_of(heard).count("<audio") == 4


def test_a_sound_that_cannot_be_read_is_told_in_its_place(heard):
    (heard.inputs.data / "a.wav").write_bytes(b"RIFF")
    html = page_of(heard, 3)
    assert "FAILED: " in html and "<audio" not in html
