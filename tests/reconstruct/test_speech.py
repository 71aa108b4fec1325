"""Sounds from spectrograms: exact where phases are known, near where they are found."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.errors import DataError
from braindecode_pipe.reconstruct.speech import (
    Mel,
    griffin_lim,
    inverse,
    retrieval_constrained,
    transform,
)

MEL = Mel(sfreq=8000.0, n_fft=256, hop=64, n_mels=40)


def vowel(pitch=140.0, n=4000):
    time = np.arange(n) / MEL.sfreq
    return sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 12)) * np.hanning(n)


def distance(sound, magnitude):
    found = np.abs(transform(sound, MEL.n_fft, MEL.hop))
    return np.linalg.norm(found - magnitude) / np.linalg.norm(magnitude)


def test_the_transform_is_undone_exactly():
    sound = np.random.default_rng(0).normal(size=3001)
    spectrum = transform(sound, 256, 64)
    np.testing.assert_allclose(inverse(spectrum, 256, 64, 3001), sound, atol=1e-12)
    one = np.fft.rfft(np.pad(sound, 128)[64 * 5 : 64 * 5 + 256] * np.hanning(257)[:-1])
    np.testing.assert_allclose(spectrum[:, 5], one)


def test_griffin_lim_never_gets_worse_and_finds_a_vowel():
    magnitude = np.abs(transform(vowel(), MEL.n_fft, MEL.hop))
    found = [
        distance(griffin_lim(magnitude, MEL.n_fft, MEL.hop, 4000, rounds=n), magnitude)
        for n in (0, 5, 20, 60)
    ]
    assert all(b <= a + 1e-9 for a, b in zip(found, found[1:]))
    assert found[-1] < 0.15 < 0.4 < found[0]


def test_a_mel_spectrogram_gives_a_sound_of_that_spectrogram():
    spectrogram = MEL.spectrogram(vowel())
    sound = MEL.sound(spectrogram, 4000)
    again = MEL.spectrogram(sound)
    assert np.corrcoef(again.ravel(), spectrogram.ravel())[0, 1] > 0.97
    other = MEL.spectrogram(vowel(210.0))
    assert np.linalg.norm(again - spectrogram) < 0.5 * np.linalg.norm(again - other)
    np.testing.assert_array_equal(sound, MEL.sound(spectrogram, 4000))


def test_triangles_peak_at_1_and_cover_the_band():
    bank = Mel(sfreq=8000.0, n_fft=4096, hop=64, n_mels=10).bank()
    assert bank.max() <= 1 and (bank.max(axis=1) > 0.97).all()
    inner = slice(bank[0].argmax(), bank[-1].argmax())
    np.testing.assert_allclose(bank.sum(axis=0)[inner], 1.0)


def test_the_bank_draws_a_prediction_to_the_most_similar_sound():
    rng = np.random.default_rng(1)
    bank = rng.random((5, 4, 6))
    blurred = 0.5 * bank[[2]] + 0.5 * bank.mean(0)
    found = retrieval_constrained(blurred, bank, weight=1.0, neighbours=1)
    np.testing.assert_allclose(found[0], bank[2])
    kept = retrieval_constrained(blurred, bank, weight=0.0)
    np.testing.assert_array_equal(kept, blurred)


@pytest.mark.parametrize("bad", [np.ones((3, 4)), -np.ones((40, 4)), np.full((40, 4), np.nan)])
def test_what_is_no_spectrogram_is_refused(bad):
    with pytest.raises(DataError, match="cannot|can be undone"):
        MEL.sound(bad, 100)
