"""Sounds to vectors: reading pieces of files, log-mel spectrograms and summaries."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
from scipy.io import wavfile

from braindecode_pipe.embed import embed
from braindecode_pipe.embed.acoustic import log_mel, mel_filters, time_bins
from braindecode_pipe.embed.audio import Clip, read_audio, resample
from braindecode_pipe.embed.interface import Item
from braindecode_pipe.errors import ModelError, StimulusError


def _tone(frequency=440.0, duration=0.5, sfreq=16000):
    return np.sin(2 * np.pi * frequency * np.arange(round(duration * sfreq)) / sfreq)


def _write_24_bit(path, wave, sfreq):
    body = b"".join(struct.pack("<i", int(v * (2**23 - 1)))[:3] for v in wave)
    header = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, sfreq, sfreq * 3, 3, 24)
    path.write_bytes(header + b"data" + struct.pack("<I", len(body)) + body)


def _read(path, **piece):
    return read_audio(Item("item 0", Clip(path=path, **piece)))


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("u1", 1e-2), ("i2", 1e-4), ("i4", 1e-7), ("f4", 1e-7), ("f8", 1e-7), ("24", 1e-6)],
)
def test_all_sample_types_read_alike(tmp_path, kind, tolerance):
    wave, path = 0.5 * _tone(), tmp_path / "a.wav"
    if kind == "24":
        _write_24_bit(path, wave, 16000)
    elif kind == "u1":
        wavfile.write(path, 16000, np.round(wave * 128 + 128).astype(np.uint8))
    elif kind.startswith("i"):
        full = 2.0 ** (8 * int(kind[1]) - 1)
        wavfile.write(path, 16000, np.round(wave * full).astype(kind))
    else:
        wavfile.write(path, 16000, wave.astype(kind))
    read, sfreq = _read(path)
    assert (read.dtype, sfreq) == (np.float32, 16000.0)
    np.testing.assert_allclose(read, wave, atol=tolerance)


def test_channels_are_averaged_and_pieces_cut(tmp_path):
    left, right = _tone(300), _tone(500)
    wavfile.write(tmp_path / "a.wav", 16000, np.stack([left, right], 1).astype(np.float32))
    wave, _ = _read(tmp_path / "a.wav", onset=0.1, offset=0.3)
    np.testing.assert_allclose(wave, ((left + right) / 2)[1600:4800], atol=1e-6)
    to_end, _ = _read(tmp_path / "a.wav", onset=0.4, offset=0.503)
    assert len(to_end) == 1600


def test_other_formats_through_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.flac", 0.5 * _tone(), 16000)
    wave, sfreq = _read(tmp_path / "a.flac")
    np.testing.assert_allclose(wave, 0.5 * _tone(), atol=1e-4)
    (tmp_path / "b.flac").write_bytes(b"no sound")
    with pytest.raises(StimulusError, match=r"item 0: .*cannot be decoded(.|\n)*b.flac"):
        _read(tmp_path / "b.flac")


def test_without_soundfile_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    (tmp_path / "a.mp3").write_bytes(b"x")
    with pytest.raises(StimulusError, match=r"found: .mp3(.|\n)*braindecode-pipe.audio"):
        _read(tmp_path / "a.mp3")


@pytest.mark.parametrize("twenty_four", [False, True])
def test_truncated_files_are_errors(tmp_path, twenty_four):
    path = tmp_path / "a.wav"
    if twenty_four:
        _write_24_bit(path, _tone(), 16000)
    else:
        wavfile.write(path, 16000, (_tone() * 20000).astype(np.int16))
    path.write_bytes(path.read_bytes()[:5001])
    with pytest.raises(StimulusError, match=r"item 0: .*cannot be decoded(.|\n)*a.wav"):
        _read(path)


def test_foreign_missing_and_empty_files_are_errors(tmp_path):
    (tmp_path / "text.wav").write_text("no sound at all, only text")
    with pytest.raises(StimulusError, match=r"cannot be decoded(.|\n)*text.wav"):
        _read(tmp_path / "text.wav")
    with pytest.raises(StimulusError, match=r"the sound is missing(.|\n)*nowhere.wav"):
        _read(tmp_path / "nowhere.wav")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wavfile.write(tmp_path / "none.wav", 16000, np.zeros(0, np.int16))
    with pytest.raises(StimulusError, match=r"none.wav"):
        _read(tmp_path / "none.wav")


@pytest.mark.parametrize(
    ("onset", "offset"), [(0.4, 0.6), (0.3, 0.3), (0.3, 0.2), (-0.1, 0.2), (0.7, None)]
)
def test_pieces_outside_the_file_are_errors(tmp_path, onset, offset):
    wavfile.write(tmp_path / "a.wav", 16000, _tone().astype(np.float32))
    with pytest.raises(StimulusError, match=r"no such piece(.|\n)*a piece of 0 to 0.500 s"):
        _read(tmp_path / "a.wav", onset=onset, offset=offset)


def test_arrays_need_a_rate_and_finite_samples():
    with pytest.raises(StimulusError, match="samples without their rate"):
        embed([_tone()], "log-mel")
    with pytest.raises(StimulusError, match=r"item 0: no usable samples(.|\n)*NaN"):
        embed([np.full(2000, np.nan)], "log-mel", sfreq=16000)
    with pytest.raises(StimulusError, match="item 0: the sound is empty"):
        embed([np.zeros(0)], "log-mel", sfreq=16000)


def test_resampling_keeps_a_tone():
    wave = resample(_tone(440, 1.0, 44100), 44100, 16000)
    assert len(wave) == 16000
    np.testing.assert_allclose(wave[500:-500], _tone(440, 1.0)[500:-500], atol=2e-3)


def test_mel_filters_are_triangles_that_sum_to_one():
    filters = mel_filters(40)
    assert filters.shape == (40, 513)
    np.testing.assert_allclose(filters.sum(1), 1)
    centre = (filters * np.arange(513)).sum(1)
    assert (np.diff(centre) > 0).all()
    with pytest.raises(ModelError, match=r"too many mel bands(.|\n)*n_mels = 400"):
        mel_filters(400)


def test_log_mel_equals_a_naive_loop():
    wave = np.random.default_rng(0).normal(size=1234)
    filters, frames, start = mel_filters(40), [], 0
    while True:
        piece = np.zeros(400)
        part = wave[start : start + 400]
        piece[: len(part)] = part
        piece = piece * [0.5 - 0.5 * np.cos(2 * np.pi * k / 400) for k in range(400)]
        power = np.abs(np.fft.fft(piece, 1024)[:513]) ** 2
        frames.append([sum(filters[m] * power) for m in range(40)])
        if start + 400 >= len(wave):
            break
        start += 160
    expected = np.maximum(np.log10(np.array(frames) / np.max(frames)), -8)
    np.testing.assert_allclose(log_mel(wave, 16000), expected, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_log_mel_does_not_depend_on_the_scale(scale):
    wave = _tone() + 0.1 * np.random.default_rng(0).normal(size=8000)
    np.testing.assert_allclose(log_mel(scale * wave, 16000), log_mel(wave, 16000), atol=1e-9)


def test_tones_light_up_their_band_and_silence_is_the_floor():
    low, high = (log_mel(_tone(f), 16000).mean(0).argmax() for f in (200, 4000))
    assert low < 8 < 25 < high
    assert (log_mel(np.zeros(3000), 16000) == -8).all()
    assert log_mel(np.ones(1), 16000).shape == (1, 40)


@pytest.mark.parametrize(("n", "bins"), [(12, 4), (10, 4), (3, 8), (1, 5)])
def test_time_bins_equal_a_fine_average(n, bins):
    frames = np.random.default_rng(0).normal(size=(n, 2))
    fine = np.repeat(frames, bins, axis=0)
    np.testing.assert_allclose(time_bins(frames, bins), fine.reshape(bins, n, 2).mean(1))


def test_summary_steps_and_mean_have_their_shapes():
    waves = [_tone(f, d) for f, d in ((300, 0.3), (500, 1.0))]
    assert embed(waves, "log-mel", sfreq=16000).shape == (2, 400)
    assert embed(waves, "log-mel", sfreq=16000, pooling="mean").shape == (2, 40)
    assert embed(waves, "log-mel", sfreq=16000, steps=5).shape == (2, 5, 40)
    with pytest.raises(ModelError, match="no layers"):
        embed(waves, "log-mel", sfreq=16000, layer=3)
    with pytest.raises(ModelError, match="n_bins = 0"):
        embed(waves, "log-mel", sfreq=16000, n_bins=0)


def test_order_of_sounds_is_kept():
    up = np.concatenate([_tone(300, 0.3), _tone(3000, 0.3)])
    down = np.concatenate([_tone(3000, 0.3), _tone(300, 0.3)])
    a, b = embed([up, down], "log-mel", sfreq=16000)
    assert np.abs(a - b).max() > 3
    np.testing.assert_allclose(a[:40], b[:40], atol=0.2)


@pytest.mark.data
def test_spoken_words_are_nearer_to_themselves_than_to_others(shared_data):
    """Every sentence, hidden in noise 20 dB below, finds itself among all recordings."""
    paths = sorted((shared_data / "speech").rglob("*.wav"))
    paths = [path for path in paths if path.name != "null.wav"]
    rng = np.random.default_rng(0)
    noisy = []
    for path in paths:
        wave, _ = _read(path)
        noisy.append(wave + 0.1 * wave.std() * rng.normal(size=len(wave)))
    clean, disturbed = embed(paths, "log-mel"), embed(noisy, "log-mel", sfreq=16000)
    clean, disturbed = clean - clean.mean(0), disturbed - disturbed.mean(0)
    distance = np.linalg.norm(clean[:, None] - disturbed[None], axis=2)
    assert (distance.argmin(0) == np.arange(len(paths))).mean() >= 0.9


def test_f31_sounds_that_unpack_to_hours_are_refused(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "silence.flac", np.zeros(60 * 8000), 8000)
    assert (tmp_path / "silence.flac").stat().st_size < 20_000
    monkeypatch.setattr("braindecode_pipe.embed.audio.MOST_SAMPLES", 30 * 8000)
    with pytest.raises(StimulusError, match=r"too long to be read at once(.|\n)*found: 1 min"):
        embed([tmp_path / "silence.flac"], "log-mel")
    embed([Clip(path=tmp_path / "silence.flac", onset=40.0, offset=45.0)], "log-mel")


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_stereo_of_every_width_is_the_mean_of_its_channels(tmp_path, subtype):
    soundfile = pytest.importorskip("soundfile")
    stereo = 0.5 * np.stack([_tone(300), _tone(500)], 1)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype=subtype)
    wave, _ = _read(tmp_path / "a.wav")
    np.testing.assert_allclose(wave, stereo.mean(1), atol=1e-2 if subtype == "PCM_U8" else 1e-4)
