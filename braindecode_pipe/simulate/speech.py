"""A small deterministic source-filter synthesiser for single words.

Every letter is a short segment: pulses or noise through three formant resonators (Klatt
1980, "Software for a cascade/parallel formant synthesizer", J. Acoust. Soc. Am. 67, eq. 1-4).
The sound is synthetic and only roughly like English: what matters here is that words that share
letters share spectro-temporal structure, and that the same word always sounds the same.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

SPEECH_SFREQ = 16000  # Hz
_FRAME = 80  # samples (5 ms): the resonators move once per frame

# Three formants [Hz] per letter: Peterson & Barney 1952 for the vowels, rounded textbook values for
# the rest. Fricatives and plosives also say whether they are voiced.
_VOWELS = {
    "a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (300, 2290, 3010),
    "o": (570, 840, 2410), "u": (320, 870, 2240), "y": (390, 1990, 2550),
}  # fmt: skip
_SONORANTS = {
    "m": (250, 1000, 2200), "n": (250, 1500, 2400), "l": (360, 1300, 2700),
    "r": (330, 1060, 1380), "w": (290, 610, 2150), "j": (280, 2200, 2900),
}  # fmt: skip
_FRICATIVES = {
    "s": (False, (4200, 5600, 7000)), "z": (True, (4000, 5400, 6800)),
    "f": (False, (1400, 4600, 7200)), "v": (True, (1100, 3300, 6200)),
    "h": (False, (700, 1600, 2600)), "x": (False, (2600, 4400, 6400)),
    "c": (False, (1900, 3400, 5200)), "q": (False, (900, 1900, 3300)),
}  # fmt: skip
_PLOSIVES = {
    "p": (False, (500, 1100, 2300)), "b": (True, (350, 900, 2200)),
    "t": (False, (3200, 4400, 6000)), "d": (True, (300, 1800, 3600)),
    "k": (False, (1500, 2400, 3300)), "g": (True, (280, 1600, 2500)),
}  # fmt: skip


def _segments(word: str) -> list[tuple[float, float, float, tuple[int, ...]]]:
    """``(duration [s], level, share of noise, formants [Hz])`` of every segment of ``word``."""
    segments = []
    for letter in word:
        if letter in _VOWELS:
            segments.append((0.11, 1.0, 0.0, _VOWELS[letter]))
        elif letter in _SONORANTS:
            segments.append((0.07, 0.5, 0.0, _SONORANTS[letter]))
        elif letter in _FRICATIVES:
            voiced, formants = _FRICATIVES[letter]
            segments.append((0.09, 0.25, 0.5 if voiced else 1.0, formants))
        elif letter in _PLOSIVES:
            voiced, formants = _PLOSIVES[letter]
            segments.append((0.035, 0.05 if voiced else 0.005, 0.0, formants))  # closure
            segments.append((0.025, 0.35, 0.6 if voiced else 1.0, formants))  # burst
    return segments


def synthesise_word(word: str, longest: float = 0.55) -> np.ndarray:
    """Speak ``word``.

    Parameters
    ----------
    word : str
        Lower-case ASCII letters; other characters are silent.
    longest : float
        Words that would last longer are spoken faster [s].

    Returns
    -------
    (n_samples,) float64 in [-1, 1] at ``SPEECH_SFREQ``, peak 0.9; empty without letters.
    """
    from scipy.signal import lfilter

    segments = _segments(word)
    duration = sum(s[0] for s in segments)
    if not segments:
        return np.zeros(0)
    rate = max(1.0, duration / longest)
    n_frames = int(duration / rate * SPEECH_SFREQ / _FRAME)
    ends = np.cumsum([s[0] for s in segments]) / rate
    time = (np.arange(n_frames) + 0.5) * _FRAME / SPEECH_SFREQ
    which = np.minimum(np.searchsorted(ends, time), len(segments) - 1)
    # Frame-wise parameters, smoothed over 25 ms: tongues move, they do not jump.
    track = np.array([(s[1], s[2], *s[3]) for s in segments])[which]
    kernel = np.hanning(7)[1:-1] / np.hanning(7)[1:-1].sum()
    padded = np.pad(track, ((2, 2), (0, 0)), mode="edge")
    track = np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1)

    n_samples = n_frames * _FRAME
    pitch = np.linspace(130.0, 95.0, n_samples)  # Hz, falling as in a statement
    pulses = np.diff(np.floor(np.cumsum(pitch) / SPEECH_SFREQ), prepend=0.0)
    glottis = lfilter([1.0], [1.0, -1.7, 0.7225], pulses)  # -12 dB per octave
    # The noise belongs to the word, not to the data set's seed: one word has one sound.
    noise = np.random.default_rng(list(word.encode())).standard_normal(n_samples)
    share = np.repeat(track[:, 1], _FRAME)
    signal = (1 - share) * glottis / glottis.std() + share * noise
    for formant in range(3):
        signal = _resonate(signal, track[:, 2 + formant], 60.0 + 40.0 * formant)
    # The resonators' gain depends on their frequency; the level of a segment must not.
    rms = np.sqrt(np.convolve(signal**2, np.full(4 * _FRAME, 1 / (4 * _FRAME)), mode="same"))
    signal = signal / rms * np.interp(np.arange(n_samples), time * SPEECH_SFREQ, track[:, 0])
    signal *= np.minimum(1.0, np.minimum(np.arange(n_samples), np.arange(n_samples)[::-1]) / 160)
    return 0.9 * signal / np.abs(signal).max()


def _resonate(signal: np.ndarray, frequency: np.ndarray, bandwidth: float) -> np.ndarray:
    """Klatt's resonator, ``y[n] = A x[n] + B y[n-1] + C y[n-2]``, its frequency set per frame."""
    from scipy.signal import lfilter

    c = -np.exp(-2 * np.pi * bandwidth / SPEECH_SFREQ)
    out = np.empty_like(signal)
    state = np.zeros(2)
    for i, f in enumerate(frequency):
        b = 2 * np.exp(-np.pi * bandwidth / SPEECH_SFREQ) * np.cos(2 * np.pi * f / SPEECH_SFREQ)
        part = slice(i * _FRAME, (i + 1) * _FRAME)
        out[part], state = lfilter([1 - b - c], [1.0, -b, -c], signal[part], zi=state)
    # A little of the input passes by: three resonators in a row would lose everything else.
    return out + 0.1 * signal


def write_wav(path: Path, sound: np.ndarray) -> None:
    """Write ``sound`` (n_samples,) in [-1, 1] as 16-bit mono WAV at ``SPEECH_SFREQ``."""
    samples = np.round(np.clip(sound, -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SPEECH_SFREQ)
        file.writeframes(samples.tobytes())
