"""Sounds to vectors: reading pieces of audio files, log-mel spectrograms and their summaries."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from braindecode_pipe.embed.interface import (
    EmbeddingModel,
    Item,
    check_no_layer,
    check_pooling,
)
from braindecode_pipe.errors import ModelError, StimulusError

_WINDOW_S, _HOP_S, _N_FFT = 0.025, 0.010, 1024
_SFREQ = 16000.0
_FLOOR = -8.0


@dataclass(frozen=True)
class Clip:
    """A piece of sound: of a file, or samples that are already in memory.

    Attributes
    ----------
    path : path or None
    onset, offset : float or None
        Piece of the file [s]; None is its beginning or end.
    samples : (n_samples,) or (n_samples, n_channels) float array, or None
        In place of a file.
    sfreq : float or None
        Rate of ``samples`` [Hz].
    """

    path: Path | None = None
    onset: float | None = None
    offset: float | None = None
    samples: np.ndarray | None = None
    sfreq: float | None = None


def read_audio(item: Item) -> tuple[np.ndarray, float]:
    """One channel of sound in [-1, 1] and its rate.

    Channels are averaged. WAV (8, 16, 24, 32 bit, float) is read by SciPy; other formats need the
    optional package ``soundfile``.

    Parameters
    ----------
    item : Item
        Its value is a :class:`Clip`.

    Returns
    -------
    wave : (n_samples,) float32
    sfreq : float [Hz]

    Raises
    ------
    StimulusError
        The file is missing, truncated, of an unknown format, empty, holds NaN, or ends before the
        piece does.
    """
    clip: Clip = item.value
    if clip.samples is not None:
        samples, sfreq = np.asarray(clip.samples), clip.sfreq
        if not sfreq or not np.isfinite(sfreq) or sfreq <= 0:
            raise StimulusError(
                f"{item.name}: samples without their rate",
                expected="sfreq [Hz]",
                found=repr(sfreq),
                remedy="embed(..., sfreq=16000)",
            )
    else:
        if not clip.path.is_file():
            raise StimulusError(
                f"{item.name}: the sound is missing",
                file=clip.path,
                expected="a file",
                found="nothing",
            )
        wav = clip.path.suffix.lower() in (".wav", ".wave")
        samples, sfreq = (_open_wav if wav else _open_soundfile)(clip.path, item.name)
    samples = _piece(samples, float(sfreq), clip, item.name)
    wave = _to_float(samples)
    if wave.ndim == 2:
        wave = wave.mean(1)
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise StimulusError(
            f"{item.name}: no usable samples",
            file=clip.path,
            expected="finite samples, (n_samples,) or (n_samples, n_channels)",
            found=f"shape {samples.shape}" if wave.ndim != 1 else "NaN or infinity",
        )
    return wave.astype(np.float32), float(sfreq)


def _open_wav(path: Path, name: str) -> tuple[np.ndarray, float]:
    from scipy.io import wavfile

    def read(mmap: bool) -> tuple[float, np.ndarray]:
        with warnings.catch_warnings():
            # A file that ends early is only a warning there; chunks of metadata are none of ours.
            warnings.filterwarnings("ignore", message="Chunk .*not understood")
            warnings.filterwarnings("error", category=wavfile.WavFileWarning, message="Reached EOF")
            return wavfile.read(path, mmap=mmap)

    try:
        try:
            sfreq, samples = read(mmap=True)
        except ValueError as error:
            if "mmap" not in str(error):
                raise
            # 24-bit samples cannot be mapped; a mapping beyond the end of the file fails again.
            sfreq, samples = read(mmap=False)
    except (wavfile.WavFileWarning, ValueError, OSError, EOFError, RuntimeError) as error:
        raise StimulusError(
            f"{name}: the sound cannot be decoded",
            file=path,
            expected="a whole WAV file",
            found=str(error) or type(error).__name__,
        ) from error
    return samples, float(sfreq)


def _open_soundfile(path: Path, name: str) -> tuple[np.ndarray, float]:
    try:
        import soundfile
    except ImportError:
        raise StimulusError(
            f"{name}: this format of sound needs another package",
            file=path,
            expected="a WAV file",
            found=path.suffix or "no suffix",
            remedy="pip install soundfile, or convert the files to WAV",
        ) from None
    try:
        samples, sfreq = soundfile.read(path, dtype="float32")
    except (RuntimeError, OSError) as error:
        raise StimulusError(
            f"{name}: the sound cannot be decoded",
            file=path,
            expected="a whole sound file",
            found=str(error),
        ) from error
    return samples, float(sfreq)


def _piece(samples: np.ndarray, sfreq: float, clip: Clip, name: str) -> np.ndarray:
    n = len(samples)
    start = 0 if clip.onset is None else round(clip.onset * sfreq)
    stop = n if clip.offset is None else round(clip.offset * sfreq)
    # Tables round their times: half a hop beyond the end is the end.
    if n < stop <= n + _HOP_S / 2 * sfreq:
        stop = n
    if not 0 <= start < stop <= n:
        whole = not clip.onset and clip.offset is None
        raise StimulusError(
            f"{name}: " + ("the sound is empty" if whole else "no such piece of the sound"),
            file=clip.path,
            expected="at least one sample" if whole else f"a piece of 0 to {n / sfreq:.3f} s",
            found="0 samples" if whole else f"{start / sfreq:.3f} to {stop / sfreq:.3f} s",
        )
    return samples[start:stop]


def _to_float(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples / np.float64(2 ** (8 * samples.dtype.itemsize - 1))
    return samples.astype(np.float64)


def resample(wave: np.ndarray, sfreq: float, target: float) -> np.ndarray:
    """``wave`` at the rate ``target`` [Hz], by polyphase filtering; unchanged at equal rates."""
    from scipy.signal import resample_poly

    ratio = Fraction(target / sfreq).limit_denominator(4096)
    if ratio == 1:
        return wave
    return resample_poly(wave.astype(float), ratio.numerator, ratio.denominator)


@lru_cache(maxsize=8)
def mel_filters(n_mels: int, sfreq: float = _SFREQ, n_fft: int = _N_FFT) -> np.ndarray:
    """Triangular filters, equally spaced in mel from 0 to ``sfreq / 2``: (n_mels, n_fft/2 + 1).

    ``mel = 2595 log10(1 + f / 700)`` (O'Shaughnessy 1987; HTK). Every filter sums to one.
    """
    top = 2595 * math.log10(1 + sfreq / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, n_mels + 2) / 2595) - 1)
    frequencies = np.arange(n_fft // 2 + 1) * sfreq / n_fft
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (frequencies - low) / (mid - low), (high - frequencies) / (high - mid)
    filters = np.clip(np.minimum(rise, fall), 0, None)
    total = filters.sum(1, keepdims=True)
    if not total.all():
        raise ModelError(
            "too many mel bands for the frequency resolution",
            expected=f"bands wider than {sfreq / n_fft:.1f} Hz",
            found=f"n_mels = {n_mels}",
        )
    return filters / total


def log_mel(wave: np.ndarray, sfreq: float, n_mels: int = 40) -> np.ndarray:
    """Log-mel spectrogram relative to its own peak.

    ``L[t, b] = max(log10(M[t, b] / max M), -8)``, where ``M`` is the mel-filtered power of 25 ms
    Hann windows every 10 ms at 16 kHz. The scale of the recording drops out; digital silence is
    -8 everywhere. A last window that is not full is filled with zeros.

    Parameters
    ----------
    wave : (n_samples,), any scale
    sfreq : float [Hz]
    n_mels : int

    Returns
    -------
    (n_frames, n_mels) float64 in [-8, 0]
    """
    wave = resample(wave, sfreq, _SFREQ).astype(float)
    peak = np.abs(wave).max()
    if peak > 0:
        wave = wave / peak
    window, hop = round(_WINDOW_S * _SFREQ), round(_HOP_S * _SFREQ)
    n_frames = 1 + max(0, math.ceil((len(wave) - window) / hop))
    padded = np.pad(wave, (0, max(0, (n_frames - 1) * hop + window - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    filters = mel_filters(n_mels).T
    power = np.empty((n_frames, n_mels))
    for start in range(0, n_frames, 4096):
        spectrum = np.fft.rfft(frames[start : start + 4096] * taper, _N_FFT)
        power[start : start + 4096] = (spectrum.real**2 + spectrum.imag**2) @ filters
    loudest = power.max()
    if loudest == 0:
        return np.full_like(power, _FLOOR)
    return np.log10(np.maximum(power / loudest, 10**_FLOOR))


def time_bins(frames: np.ndarray, n_bins: int) -> np.ndarray:
    """Means in ``n_bins`` equal parts of time; a frame on a border counts for both by its share.

    Works for fewer frames than bins too: (n_frames, n_features) -> (n_bins, n_features).
    """
    n = len(frames)
    edges = np.linspace(0, n, n_bins + 1)
    index = np.arange(n)
    share = np.minimum(index + 1, edges[1:, None]) - np.maximum(index, edges[:-1, None])
    return np.clip(share, 0, None) @ frames / (n / n_bins)


class LogMelModel(EmbeddingModel):
    """Log-mel spectrogram of a sound, as one vector of fixed length.

    Parameters
    ----------
    pooling : "" | "mean"
        "mean": mean over time, ``n_mels`` features. "" (default): mean, standard deviation over
        time, and the means in ``n_bins`` equal parts of the sound, one after the other:
        ``(2 + n_bins) * n_mels`` features. The parts keep the order of sounds in a word.
    n_mels, n_bins : int
    steps : int
        When not 0: the means in so many equal parts, as (n_items, steps, n_mels), and no summary.
    """

    reads = "audio"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def __init__(
        self,
        *,
        layer: Any = None,
        pooling: str = "",
        n_mels: int = 40,
        n_bins: int = 8,
        steps: int = 0,
    ) -> None:
        check_no_layer(layer, "log-mel")
        check_pooling(pooling, ("", "mean"), "log-mel")
        if n_mels < 1 or n_bins < 1 or steps < 0:
            raise ModelError(
                "log-mel settings",
                expected="n_mels and n_bins of at least 1, steps of at least 0",
                found=f"n_mels = {n_mels}, n_bins = {n_bins}, steps = {steps}",
            )
        self.pooling, self.n_mels, self.n_bins, self.steps = pooling, n_mels, n_bins, steps

    def fingerprint(self) -> dict[str, Any]:
        return {
            "model": "log-mel",
            "pooling": self.pooling or "summary",
            "processor": {
                "sfreq": _SFREQ,
                "window_s": _WINDOW_S,
                "hop_s": _HOP_S,
                "n_mels": self.n_mels,
                "n_bins": self.n_bins,
                "steps": self.steps,
            },
        }

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        return np.stack([self._vector(*read_audio(item)) for item in items]).astype(np.float32)

    def _vector(self, wave: np.ndarray, sfreq: float) -> np.ndarray:
        spectrogram = log_mel(wave, sfreq, self.n_mels)
        if self.steps:
            return time_bins(spectrogram, self.steps)
        if self.pooling == "mean":
            return spectrogram.mean(0)
        bins = time_bins(spectrogram, self.n_bins)
        return np.concatenate([spectrogram.mean(0), spectrogram.std(0), bins.ravel()])
