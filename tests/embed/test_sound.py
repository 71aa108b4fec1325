"""Speech on the time axis: windows that overlap, steps of the recording, borders of the split."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import wavfile

from braindecode_pipe.embed import build_model, embed
from braindecode_pipe.embed.acoustic import EnvelopeModel, LogMelModel, Onsets, OnsetsModel, log_mel
from braindecode_pipe.embed.audio import (
    Clip,
    open_audio,
    read_resampled,
    resample,
    windows_of,
)
from braindecode_pipe.embed.interface import Item, TimeAxis
from braindecode_pipe.embed.pooling import mean_between, to_steps
from braindecode_pipe.errors import ModelError, StimulusError

torch = pytest.importorskip("torch")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
SFREQ = 16000
FIELD, STEP = 25, 20  # samples that a frame of the tiny network hears, and between two of them


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    path = tmp_path_factory.mktemp("sounds") / "story.wav"
    rng = np.random.default_rng(0)
    wavfile.write(path, SFREQ, (0.3 * rng.standard_normal(3 * SFREQ)).astype(np.float32))
    return path


def _clips(path, pairs, **limits):
    return [Item("i", Clip(path=path, onset=a, offset=b, **limits)) for a, b in pairs]


def _naive_windows(n, size, overlap):
    """For every sample, the window in which it is farthest from an edge (of the piece: no edge)."""
    starts = list(range(0, n - size, size - overlap)) + [n - size]
    best = []
    for sample in range(n):
        room = []
        for a in starts:
            left = np.inf if a == 0 else sample - a
            right = np.inf if a + size == n else a + size - 1 - sample
            room.append(min(left, right) if a <= sample < a + size else -np.inf)
        best.append(starts[int(np.argmax(room))])
    return starts, best


@pytest.mark.parametrize(("n", "size", "overlap"), [(100, 30, 10), (95, 30, 0), (31, 30, 12)])
def test_windows_share_out_every_sample(n, size, overlap):
    found = windows_of(n, size, overlap)
    starts, best = _naive_windows(n, size, overlap)
    assert [w[0] for w in found] == starts
    assert all(stop - start == size for start, stop, *_ in found)
    owner = np.full(n, -1)
    for start, _, own, end in found:
        assert (owner[own:end] == -1).all()
        owner[own:end] = start
    # On a tie between two windows either is as good.
    room = [abs(2 * s - (a + b + size - 1)) for s in range(n) for a, b in [(owner[s], best[s])]
            if a != best[s]]  # fmt: skip
    assert all(r <= 1 for r in room) and (owner >= 0).all()


def test_a_short_sound_is_one_window():
    assert windows_of(20, 30, 10) == [(0, 20, 0, 20)]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 16000])
def test_pieces_resample_as_the_whole(tmp_path, rate):
    rng = np.random.default_rng(0)
    wavfile.write(tmp_path / "a.wav", rate, rng.standard_normal(rate).astype(np.float32))
    sound = open_audio(Item("i", Clip(path=tmp_path / "a.wav")))
    for span in ((0, rate), (1234, rate - 777)):
        whole = resample(sound.mono(*span), rate, SFREQ)
        for start, stop in ((0, 500), (3000, 5000), (len(whole) - 300, len(whole))):
            piece = read_resampled(sound, span, SFREQ, start, stop)
            np.testing.assert_allclose(piece, whole[start:stop], atol=1e-5)


def test_resampling_keeps_what_fits_and_removes_what_does_not():
    time = np.arange(44100) / 44100
    kept = resample(np.sin(2 * np.pi * 7000 * time), 44100, SFREQ)
    expected = np.sin(2 * np.pi * 7000 * np.arange(len(kept)) / SFREQ)
    assert np.abs(kept - expected)[1000:-1000].max() < 1e-3
    folded = resample(np.sin(2 * np.pi * 8600 * time), 44100, SFREQ)
    assert np.abs(folded)[1000:-1000].max() < 1e-4


@pytest.mark.parametrize("sfreq", [120.0, 37.0, 10.0])
def test_steps_equal_a_naive_loop(sfreq):
    rng = np.random.default_rng(0)
    times, frames = 0.01 + 0.02 * np.arange(60), rng.normal(size=(60, 3))
    steps = np.arange(-0.1, 1.5, 1 / sfreq)
    found = to_steps(times, frames, steps, sfreq)
    for row, t in zip(found, steps):
        inside = [f for u, f in zip(times, frames) if t - 0.5 / sfreq <= u < t + 0.5 / sfreq]
        if sfreq < 50 and inside:
            expected = np.mean(inside, 0)
        else:
            expected = [np.interp(t, times, frames[:, k]) for k in range(3)]
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_means_take_the_frames_inside_or_the_nearest():
    times, frames = np.array([0.0, 1.0, 2.0]), np.array([[1.0], [2.0], [4.0]])
    assert mean_between(times, frames, 0.5, 2.5) == 3.0
    assert mean_between(times, frames, 1.6, 1.8) == 4.0


def _naive_frames(folder, transformers, wave, size, overlap, layer):
    """Frames of a whole piece by hand: pass each window alone, take each frame where it is best."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    starts, best = _naive_windows(len(wave), size, overlap)
    times, frames = [], []
    for start in starts:
        piece = wave[start : start + size]
        piece = (piece - piece.mean()) / np.sqrt(piece.var() + 1e-7)
        with torch.inference_mode():
            given = torch.tensor(piece, dtype=torch.float32)[None]
            state = model(given, output_hidden_states=True).hidden_states[layer][0].numpy()
        for k, frame in enumerate(state):
            middle = start + k * STEP + (FIELD - 1) / 2
            if best[min(int(middle), len(wave) - 1)] == start:
                times.append(middle / SFREQ)
                frames.append(frame)
    order = np.argsort(times)
    return np.array(times)[order], np.array(frames)[order]


def test_long_files_are_passed_in_windows_and_words_cut_from_them(tiny, transformers, story):
    folder = str(tiny / "wav2vec2")
    axis = TimeAxis(2000.0, 0.0, 0.1)
    settings = {"layer": 2, "context": "file", "window_s": 1.0, "overlap_s": 0.25}
    words = _clips(story, [(0.3, 0.45), (0.9, 1.3), (2.95, 2.98), (1.99, 2.01)])
    _, wave = wavfile.read(story)
    times, frames = _naive_frames(folder, transformers, wave, SFREQ, SFREQ // 4, 2)
    mean = build_model(folder, **settings).encode(words)
    expected = [mean_between(times, frames, w.value.onset, w.value.offset) for w in words]
    np.testing.assert_allclose(mean, expected, **CLOSE)
    timed = build_model(folder, pooling="time", time_axis=axis, **settings)
    found = timed.encode(words)
    assert found.shape == (4, 200, 16)
    for word, steps in zip(words, found):
        naive = [[np.interp(word.value.onset + t, times, frames[:, f]) for f in range(16)]
                 for t in axis.times]  # fmt: skip
        # Steps behind the end of the file hold its last frame.
        np.testing.assert_allclose(steps, naive, atol=1e-4)
    np.testing.assert_array_equal(timed.step_times(200), axis.times)


def test_one_word_and_all_words_hear_the_same(tiny, story):
    settings = {"context": "file", "window_s": 0.8, "overlap_s": 0.2, "layer": [1, 2]}
    pairs = [(0.1 * k, 0.1 * k + 0.08) for k in range(1, 28)]
    together = build_model(str(tiny / "hubert"), **settings).encode(_clips(story, pairs))
    for k in (0, 11, 26):
        alone = build_model(str(tiny / "hubert"), batch_size=1, **settings)
        np.testing.assert_allclose(alone.encode(_clips(story, [pairs[k]]))[0], together[k], **CLOSE)


def test_whisper_hears_long_files_in_its_own_windows(tiny, story):
    """Its windows are 2 s long here; a word must not depend on which words are asked for."""
    model = build_model(str(tiny / "whisper"), context="file", window_s=20.0, overlap_s=0.5)
    words = model.encode(_clips(story, [(0.5, 0.9), (2.4, 2.8)]))
    again = build_model(str(tiny / "whisper"), context="file", window_s=2.0, overlap_s=0.5)
    np.testing.assert_allclose(again.encode(_clips(story, [(2.4, 2.8)]))[0], words[1], **CLOSE)


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2-large", "hubert", "whisper"])
@pytest.mark.parametrize("context", ["file", "stimulus"])
@pytest.mark.parametrize("pooling", ["mean", "time"])
def test_nothing_is_heard_over_a_border(name, context, pooling, tiny, story, tmp_path):
    """Whatever stands behind a border of the split, a stimulus before it stays the same."""
    _, wave = wavfile.read(story)
    other = wave.copy()
    other[round(1.5 * SFREQ) :] = 0.9
    wavfile.write(tmp_path / "other.wav", SFREQ, other)
    settings = {"context": context, "pooling": pooling, "window_s": 0.7, "overlap_s": 0.2}
    if pooling == "time":
        settings["time_axis"] = TimeAxis(50.0, -0.1, 1.0)
    model = build_model(str(tiny / name), **settings)
    before = [(1.0, 1.2), (1.3, 1.5)]
    first = model.encode(_clips(story, before, stop=1.5))
    second = model.encode(_clips(tmp_path / "other.wav", before, stop=1.5))
    np.testing.assert_array_equal(second, first)
    if context == "file" or pooling == "time":
        leaky = model.encode(_clips(tmp_path / "other.wav", before))
        assert np.abs(leaky - model.encode(_clips(story, before))).max() > 1e-5


def test_stimuli_outside_of_their_part_are_errors(tiny, story):
    with pytest.raises(StimulusError, match=r"lies outside of its part(.|\n)*0.000 to 1.000 s"):
        embed([Clip(path=story, onset=1.2, offset=1.4, stop=1.0)], str(tiny / "wav2vec2"))
    with pytest.raises(StimulusError, match="the sound is too short for"):
        embed([Clip(path=story, onset=1.2, offset=1.201)], str(tiny / "wav2vec2"))


def test_a_single_sound_that_needs_too_much_memory_is_refused(tiny, story, monkeypatch):
    monkeypatch.setattr("braindecode_pipe.embed.sound._MOST_BYTES", 10_000)
    with pytest.raises(StimulusError, match="too long to be held at once"):
        embed([story], str(tiny / "wav2vec2"))


def test_memory_of_many_sounds_is_bounded(tiny, story, monkeypatch):
    pairs = [(0.1 * k, 0.1 * k + 0.09) for k in range(25)]
    whole = build_model(str(tiny / "wav2vec2")).encode(_clips(story, pairs))
    monkeypatch.setattr("braindecode_pipe.embed.sound._KEPT_BYTES", 15_000)
    monkeypatch.setattr("braindecode_pipe.embed.interface.BATCH_BYTES", 1)
    pieces = build_model(str(tiny / "wav2vec2")).encode(_clips(story, pairs))
    np.testing.assert_allclose(pieces, whole, **CLOSE)


@pytest.mark.parametrize("make", [LogMelModel, EnvelopeModel])
def test_baselines_lie_on_the_time_axis(make, story):
    """Equal to the frames of the same sound, interpolated by hand."""
    axis = TimeAxis(120.0, 0.0, 0.5)
    model = make(pooling="time", time_axis=axis)
    (steps,) = model.encode(_clips(story, [(1.0, 1.2)]))
    sfreq, wave = wavfile.read(story)
    frames = model.frames(wave[SFREQ : SFREQ + SFREQ // 2], sfreq)
    times = 0.0125 + 0.01 * np.arange(len(frames))
    for feature in range(frames.shape[1]):
        naive = np.interp(axis.times, times, frames[:, feature])
        np.testing.assert_allclose(steps[:, feature], naive, atol=1e-5)


def test_envelopes_follow_loudness_whatever_the_scale():
    time = np.arange(SFREQ) / SFREQ
    loud = 0.5 - 0.5 * np.cos(2 * np.pi * 3 * time)
    wave = loud * np.sin(2 * np.pi * 1000 * time)
    for scale in (1.0, 1e-13, 1e6):
        frames = EnvelopeModel().frames(scale * wave, SFREQ)[:, 0]
        expected = np.interp(0.0125 + 0.01 * np.arange(len(frames)), time, loud)
        assert np.abs(frames - expected)[2:-2].max() < 0.02
    assert (EnvelopeModel().frames(np.zeros(3000), SFREQ) == 0).all()
    assert log_mel(np.zeros(3000), SFREQ).shape[1] == 40


def test_onsets_are_counted_in_their_steps():
    model = OnsetsModel(time_axis=TimeAxis(10.0, 0.0, 1.0))
    (counts,) = model.encode([Item("i", Onsets(5.0, (4.2, 5.0, 5.31, 5.33, 5.94, 6.2)))])
    expected = np.zeros(10)
    for onset in (5.0, 5.31, 5.33, 5.94):
        expected[[k for k in range(10) if k / 10 - 0.05 <= onset - 5.0 < k / 10 + 0.05]] += 1
    np.testing.assert_array_equal(counts[:, 0], expected)
    assert counts.sum() == 4
    with pytest.raises(StimulusError, match="has no onset inside a file"):
        model.encode([Item("i", "word")])


def test_time_axes_must_hold_a_step():
    for sfreq, tmin, tmax in ((0.0, 0.0, 1.0), (10.0, 1.0, 1.0), (10.0, 0.0, 0.01)):
        with pytest.raises(ModelError, match="the time axis of an embedding"):
            TimeAxis(sfreq, tmin, tmax)
    with pytest.raises(ModelError, match="onsets needs a time axis"):
        OnsetsModel()
