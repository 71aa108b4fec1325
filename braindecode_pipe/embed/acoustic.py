"""Sounds without a model: log-mel spectrogram, envelope, onsets of words or phonemes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from braindecode_pipe.embed.audio import open_audio, read_audio, resample
from braindecode_pipe.embed.interface import (
    EmbeddingModel,
    Item,
    TimeAxis,
    check_no_layer,
    check_pooling,
)
from braindecode_pipe.embed.pooling import to_steps
from braindecode_pipe.errors import ModelError, StimulusError

_WINDOW_S, _HOP_S, _N_FFT = 0.025, 0.010, 1024
_SFREQ = 16000.0
_FLOOR = -8.0


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
    frames, taper = _frames(wave)
    filters = mel_filters(n_mels).T
    power = np.empty((len(frames), n_mels))
    for start in range(0, len(frames), 4096):
        spectrum = np.fft.rfft(frames[start : start + 4096] * taper, _N_FFT)
        power[start : start + 4096] = (spectrum.real**2 + spectrum.imag**2) @ filters
    loudest = power.max()
    if loudest == 0:
        return np.full_like(power, _FLOOR)
    return np.log10(np.maximum(power / loudest, 10**_FLOOR))


def _frames(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows of 25 ms every 10 ms as a view (the last filled with zeros), and the Hann taper."""
    window, hop = round(_WINDOW_S * _SFREQ), round(_HOP_S * _SFREQ)
    n_frames = 1 + max(0, math.ceil((len(wave) - window) / hop))
    padded = np.pad(wave, (0, max(0, (n_frames - 1) * hop + window - len(wave))))
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::hop], taper


def time_bins(frames: np.ndarray, n_bins: int) -> np.ndarray:
    """Means in ``n_bins`` equal parts of time; a frame on a border counts for both by its share.

    Works for fewer frames than bins too: (n_frames, n_features) -> (n_bins, n_features).
    """
    n = len(frames)
    edges = np.linspace(0, n, n_bins + 1)
    index = np.arange(n)
    share = np.minimum(index + 1, edges[1:, None]) - np.maximum(index, edges[:-1, None])
    return np.clip(share, 0, None) @ frames / (n / n_bins)


def envelope(wave: np.ndarray, sfreq: float) -> np.ndarray:
    """Loudness over time: ``sqrt(mean(x^2))`` of 25 ms Hann windows every 10 ms, over its peak.

    The power is weighted by the window; the scale of the recording drops out; silence is 0.

    Parameters
    ----------
    wave : (n_samples,), any scale
    sfreq : float [Hz]

    Returns
    -------
    (n_frames, 1) in [0, 1], frames as in :func:`log_mel`
    """
    wave = resample(wave, sfreq, _SFREQ).astype(float)
    peak = np.abs(wave).max()
    frames, taper = _frames(wave / peak if peak > 0 else wave)
    power = np.concatenate(
        [frames[start : start + 4096] ** 2 @ taper for start in range(0, len(frames), 4096)]
    )
    amplitude = np.sqrt(power / taper.sum())
    loudest = amplitude.max()
    return (amplitude / loudest if loudest > 0 else amplitude)[:, None]


class AcousticModel(EmbeddingModel):
    """Frames of 25 ms every 10 ms of a sound, summarised or on a time axis.

    Parameters
    ----------
    pooling : "" | "mean" | "time"
        "mean": mean over time. "" (default): mean, standard deviation over time, and the means in
        ``n_bins`` equal parts of the sound, one after the other: ``2 + n_bins`` times the frame's
        features. The parts keep the order of sounds in a word. "time": per step of ``time_axis``;
        the sound is read from ``onset + tmin`` to ``onset + tmax``.
    n_bins : int
    steps : int
        When not 0: the means in so many equal parts, as (n_items, steps, n_features), and no
        summary.
    time_axis : TimeAxis, with pooling "time"
    """

    reads = "audio"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy")
    name: ClassVar[str]

    def __init__(
        self,
        *,
        layer: Any = None,
        pooling: str = "",
        n_bins: int = 8,
        steps: int = 0,
        time_axis: TimeAxis | None = None,
    ) -> None:
        check_no_layer(layer, self.name)
        check_pooling(pooling, ("", "mean", "time"), self.name)
        if n_bins < 1 or steps < 0:
            raise ModelError(
                f"{self.name} settings",
                expected="n_bins of at least 1, steps of at least 0",
                found=f"n_bins = {n_bins}, steps = {steps}",
            )
        if pooling == "time" and time_axis is None:
            raise no_time_axis(self.name)
        self.pooling, self.n_bins, self.steps, self.axis = pooling, n_bins, steps, time_axis

    @abstractmethod
    def frames(self, wave: np.ndarray, sfreq: float) -> np.ndarray:
        """(n_frames, n_features)."""

    def fingerprint(self) -> dict[str, Any]:
        processor = {
            "sfreq": _SFREQ, "window_s": _WINDOW_S, "hop_s": _HOP_S, "n_bins": self.n_bins,
            "steps": self.steps,
        }  # fmt: skip
        return {
            "model": self.name,
            "pooling": self.pooling or "summary",
            "processor": processor,
            "time_axis": axis_settings(self.axis) if self.pooling == "time" else {},
        }

    def step_times(self, n_steps: int) -> np.ndarray:
        timed = self.pooling == "time" and self.axis is not None
        return self.axis.times if timed else super().step_times(n_steps)

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        return np.stack([self._vector(item) for item in items]).astype(np.float32)

    def _vector(self, item: Item) -> np.ndarray:
        if self.pooling == "time" and self.axis is not None:
            return self._timed(item, self.axis)
        frames = self.frames(*read_audio(item))
        if self.steps:
            return time_bins(frames, self.steps)
        if self.pooling == "mean":
            return frames.mean(0)
        bins = time_bins(frames, self.n_bins)
        return np.concatenate([frames.mean(0), frames.std(0), bins.ravel()])

    def _timed(self, item: Item, axis: TimeAxis) -> np.ndarray:
        sound, clip = open_audio(item), item.value
        begin, end = sound.span(clip.start, clip.stop)
        onset = clip.onset or 0.0
        sound.span(onset, clip.offset)
        start = min(max(sound.position(onset + axis.tmin), begin), end - 1)
        stop = max(min(sound.position(onset + axis.tmax), end), start + 1)
        frames = self.frames(sound.mono(start, stop), sound.sfreq)
        times = start / sound.sfreq + _WINDOW_S / 2 + _HOP_S * np.arange(len(frames))
        return to_steps(times, frames, onset + axis.times, axis.sfreq)


class LogMelModel(AcousticModel):
    """Log-mel spectrogram (:func:`log_mel`), what DeepMel reads in Defossez et al. (2023)."""

    name = "log-mel"

    def __init__(self, *, n_mels: int = 40, **settings: Any) -> None:
        super().__init__(**settings)
        if n_mels < 1:
            raise ModelError("log-mel settings", expected="n_mels of at least 1", found=str(n_mels))
        self.n_mels = n_mels

    def frames(self, wave: np.ndarray, sfreq: float) -> np.ndarray:
        return log_mel(wave, sfreq, self.n_mels)

    def fingerprint(self) -> dict[str, Any]:
        own = super().fingerprint()
        return {**own, "processor": {**own["processor"], "n_mels": self.n_mels}}


class EnvelopeModel(AcousticModel):
    """Loudness over time (:func:`envelope`)."""

    name = "envelope"

    def frames(self, wave: np.ndarray, sfreq: float) -> np.ndarray:
        return envelope(wave, sfreq)


@dataclass(frozen=True)
class Onsets:
    """Onset of a stimulus, and of all others in the same file: ``others`` (n,) [s]."""

    onset: float
    others: tuple[float, ...]


class OnsetsModel(EmbeddingModel):
    """How many words (or phonemes) begin in each step: (n_items, n_steps, 1).

    A step at ``t`` counts the onsets in ``[t - 1/(2 sfreq), t + 1/(2 sfreq))``, so every onset in
    reach is counted in one step.
    """

    reads = "onsets"

    def __init__(
        self, *, layer: Any = None, pooling: str = "", time_axis: TimeAxis | None = None
    ) -> None:
        check_no_layer(layer, "onsets")
        check_pooling(pooling, ("", "time"), "onsets")
        if time_axis is None:
            raise no_time_axis("onsets")
        self.axis = time_axis

    def fingerprint(self) -> dict[str, Any]:
        return {"model": "onsets", "pooling": "time", "time_axis": axis_settings(self.axis)}

    def step_times(self, n_steps: int) -> np.ndarray:
        return self.axis.times

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        counts = np.zeros((len(items), self.axis.n_steps, 1), np.float32)
        for row, item in enumerate(items):
            if not isinstance(item.value, Onsets):
                raise StimulusError(
                    f"{item.name} has no onset inside a file",
                    expected="a stimulus with file_column and onset_column in [plan.stimuli]",
                    found=type(item.value).__name__,
                )
            lag = np.asarray(item.value.others) - item.value.onset - self.axis.tmin
            step = np.floor(lag * self.axis.sfreq + 0.5).astype(int)
            np.add.at(counts[row, :, 0], step[(step >= 0) & (step < self.axis.n_steps)], 1)
        return counts


def axis_settings(axis: TimeAxis | None) -> dict[str, float]:
    """A time axis as plain numbers."""
    return {"sfreq": axis.sfreq, "tmin": axis.tmin, "tmax": axis.tmax} if axis else {}


def no_time_axis(model: str) -> ModelError:
    """The error of a model that needs a time axis and was given none."""
    return ModelError(
        f"{model} needs a time axis",
        expected="step_sfreq [Hz], step_tmin and step_tmax [s]",
        found="no step_sfreq or no step_tmax",
        remedy="[embed.<table>] step_sfreq = 120.0, step_tmin = 0.0, step_tmax = 3.0",
    )
