"""Sounds back from predicted mel spectrograms: the inverse filter bank and Griffin-Lim."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from braindecode_pipe.errors import DataError


@dataclass(frozen=True)
class Mel:
    """A mel spectrogram: how it was made, so that it can be undone.

    Attributes
    ----------
    sfreq : rate of the sound [Hz]
    n_fft, hop : window and step [samples]
    n_mels : bands, triangles of equal width on the mel scale ``2595 log10(1 + f / 700)``
    """

    sfreq: float = 16000.0
    n_fft: int = 512
    hop: int = 128
    n_mels: int = 64

    def bank(self) -> np.ndarray:
        """Weights (n_mels, n_fft // 2 + 1) of triangles whose peak is 1, from 0 to Nyquist."""
        top = 2595 * np.log10(1 + self.sfreq / 2 / 700)
        edges = 700 * (10 ** (np.linspace(0, top, self.n_mels + 2) / 2595) - 1)
        frequency = np.fft.rfftfreq(self.n_fft, 1 / self.sfreq)
        low, middle, high = (edges[k : k + self.n_mels, None] for k in range(3))
        rising = (frequency - low) / (middle - low)
        falling = (high - frequency) / (high - middle)
        return np.clip(np.minimum(rising, falling), 0, None)

    def spectrogram(self, sound: np.ndarray) -> np.ndarray:
        """Magnitudes (n_mels, n_frames) of a sound (n_samples,)."""
        return self.bank() @ np.abs(transform(sound, self.n_fft, self.hop))

    def sound(self, spectrogram: np.ndarray, n_samples: int, *, rounds: int = 60, seed: int = 0):
        """A sound (n_samples,) with that mel spectrogram: bands undone, then Griffin-Lim.

        Parameters
        ----------
        spectrogram : (n_mels, n_frames) magnitudes, 0 or more
        rounds : iterations of :func:`griffin_lim`

        Raises
        ------
        DataError
            Another number of bands, negative or not finite.
        """
        values = np.asarray(spectrogram, float)
        if values.ndim != 2 or values.shape[0] != self.n_mels or not (values >= 0).all():
            raise DataError(
                "this is no mel spectrogram that can be undone",
                expected=f"({self.n_mels}, n_frames), finite and not negative",
                found=f"{values.shape}, smallest {values.min(initial=np.inf):g}",
            )
        bank = self.bank()
        magnitude = np.stack([nnls(bank, column)[0] for column in values.T], axis=1)
        return griffin_lim(magnitude, self.n_fft, self.hop, n_samples, rounds=rounds, seed=seed)


def _window(n_fft: int) -> np.ndarray:
    return np.hanning(n_fft + 1)[:-1]


def transform(sound: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """Short-time Fourier transform (n_fft // 2 + 1, n_frames), frames centred, Hann window."""
    padded = np.pad(np.asarray(sound, float), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    return np.fft.rfft(frames * _window(n_fft), axis=1).T


def inverse(spectrum: np.ndarray, n_fft: int, hop: int, n_samples: int) -> np.ndarray:
    """The sound whose transform is nearest, by least squares (Griffin and Lim 1984, eq. 6)."""
    window = _window(n_fft)
    frames = np.fft.irfft(spectrum.T, n_fft, axis=1) * window
    length = max(n_samples + n_fft, hop * (len(frames) - 1) + n_fft)
    total, weight = np.zeros(length), np.zeros(length)
    for number, frame in enumerate(frames):
        at = slice(number * hop, number * hop + n_fft)
        total[at] += frame
        weight[at] += window**2
    sound = total / np.where(weight > 1e-8 * weight.max(), weight, np.inf)
    return sound[n_fft // 2 : n_fft // 2 + n_samples]


def griffin_lim(
    magnitude: np.ndarray, n_fft: int, hop: int, n_samples: int, *, rounds: int = 60, seed: int = 0
) -> np.ndarray:
    """A sound with the given magnitudes, its phases found by going to and fro.

    ``x <- istft(magnitude exp(i angle(stft(x))))`` from random phases; the distance between the
    magnitudes never grows (Griffin and Lim 1984).

    Parameters
    ----------
    magnitude : (n_fft // 2 + 1, n_frames)
    """
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, magnitude.shape)
    sound = inverse(magnitude * np.exp(1j * phase), n_fft, hop, n_samples)
    for _ in range(rounds):
        spectrum = transform(sound, n_fft, hop)
        size = np.abs(spectrum)
        unit = np.where(size > 0, spectrum / np.where(size > 0, size, 1.0), 1.0)
        sound = inverse(magnitude * unit, n_fft, hop, n_samples)
    return sound


def retrieval_constrained(
    predicted: np.ndarray, bank: np.ndarray, *, weight: float = 0.5, neighbours: int = 3
) -> np.ndarray:
    """Predicted spectrograms drawn towards those of a bank of training sounds.

    ``(1 - w) p + w sum_k softmax(c)_k b_k`` over the ``neighbours`` bank entries of the largest
    correlation ``c`` with the prediction: what regression blurs gets the fine structure of sounds
    that were heard in training.

    Parameters
    ----------
    predicted : (n, n_mels, n_frames)
    bank : (m, n_mels, n_frames), of training stimuli only
    weight : 0 leaves the prediction as it is, 1 leaves nothing of it
    """
    from braindecode_pipe.evaluate.reconstruction import correlation_matrix

    likeness = correlation_matrix(predicted, bank)
    best = np.argsort(-likeness, axis=1, kind="stable")[:, :neighbours]
    chosen = np.take_along_axis(likeness, best, axis=1)
    share = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return (1 - weight) * predicted + weight * np.einsum("nk,nkij->nij", share, bank[best])
