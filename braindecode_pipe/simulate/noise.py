"""Noise of EEG and MEG: ongoing brain activity, sensor noise, line, blinks, a bad channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.simulate.forward import Head, lead_field
from braindecode_pipe.simulate.settings import Settings

_BACKGROUND_MOMENT = 13e-9  # Am, root mean square of each background dipole: about 7 uV of EEG
_EYE_MOMENT = 700e-9  # Am at the peak of a blink: about 150 uV at frontal electrodes
_SENSOR_NOISE = {"eeg": 2e-6, "mag": 1e-13, "grad": 5e-12}  # V, T, T/m, root mean square
_LINE = {1: 0.5, 2: 0.15}  # harmonic -> amplitude over the sensor's noise
_BAD = 12.0  # times the sensor's noise
_BLINK_S = 0.35


@dataclass(frozen=True)
class Noise:
    """Noise model of one person's sensors.

    Attributes
    ----------
    background : (n_sensors, rank) topographies of unit-variance series with the spectrum of
        :func:`background_power` [V, T or T/m]
    white : (n_sensors,) standard deviation of the sensors' own noise [V, T or T/m]
    line : (n_harmonics, n_sensors) complex amplitudes of the line and its harmonics
    line_freqs : (n_harmonics,) [Hz]
    blink : (n_sensors,) topography at the peak of a blink
    bad : number of the bad channel
    """

    background: np.ndarray
    white: np.ndarray
    line: np.ndarray
    line_freqs: np.ndarray
    blink: np.ndarray
    bad: int

    @property
    def variance(self) -> np.ndarray:
        """Variance of every sensor's noise ``(n_sensors,)``, without line, blinks and defect."""
        return (self.background**2).sum(1) + self.white**2

    def draw(self, n_times: int, sfreq: float, rng: np.random.Generator) -> np.ndarray:
        """Background and sensor noise ``(n_sensors, n_times)``."""
        series = draw_background(self.background.shape[1], n_times, sfreq, rng)
        data = self.background @ series
        data += self.white[:, None] * rng.standard_normal(data.shape, dtype=np.float32)
        return data

    def add_artefacts(self, data: np.ndarray, sfreq: float, rng: np.random.Generator) -> np.ndarray:
        """Add line, blinks and the bad channel to ``data`` in place; returns blink peaks [s]."""
        n_times = data.shape[1]
        time = np.arange(n_times) / sfreq
        for frequency, amplitude in zip(self.line_freqs, self.line):
            wave = np.exp(2j * np.pi * frequency * time)
            data += amplitude.real[:, None] * wave.real - amplitude.imag[:, None] * wave.imag
        course, peaks = draw_blinks(n_times, sfreq, rng)
        data += self.blink[:, None] * course
        scale = _BAD * np.sqrt(self.variance[self.bad])
        data[self.bad] += scale * rng.standard_normal(n_times)
        return peaks


def make_noise(settings: Settings, modality: str, subject: str, head: Head, info) -> Noise:
    """Noise model of one person under the sensors of ``info``."""
    rng = settings.rng("noise", modality, subject)
    mixing = _BACKGROUND_MOMENT * lead_field(info, head.background)
    left, singular, _ = np.linalg.svd(mixing, full_matrices=False)
    white = np.array([_SENSOR_NOISE[kind] for kind in info.get_channel_types()])
    white = white * np.exp(0.1 * rng.standard_normal(len(white)))
    background = left * singular
    sd = np.sqrt((background**2).sum(1) + white**2)
    harmonics = {h: a for h, a in _LINE.items() if h * settings.line_freq < settings.sfreq / 2}
    line = [
        amplitude
        * sd
        * np.exp(
            0.3 * rng.standard_normal(len(sd))
            + 1j * (rng.uniform(0, 2 * np.pi) + 0.5 * rng.standard_normal(len(sd)))
        )  # fmt: skip
        for amplitude in harmonics.values()
    ]
    return Noise(
        background=background,
        white=white,
        line=np.array(line),
        line_freqs=np.array(list(harmonics)) * settings.line_freq,
        blink=_EYE_MOMENT * lead_field(info, head.eyes).sum(1),
        bad=int(rng.integers(len(sd))),
    )


def background_power(frequency: np.ndarray) -> np.ndarray:
    """Power density, up to a factor: ``1 / f`` above 0.5 Hz, flat below, and a peak at 10 Hz."""
    pink = 1 / np.maximum(frequency, 0.5)
    return pink + 0.3 * np.exp(-0.5 * ((frequency - 10.0) / 1.0) ** 2)


def draw_background(
    n_series: int, n_times: int, sfreq: float, rng: np.random.Generator
) -> np.ndarray:
    """Independent series ``(n_series, n_times)`` of unit variance with the background spectrum."""
    from scipy import fft

    length = fft.next_fast_len(n_times, real=True)
    power = background_power(fft.rfftfreq(length, 1 / sfreq))
    spectrum = fft.rfft(rng.standard_normal((n_series, length)), axis=1)
    spectrum *= np.sqrt(power / _mean_power(power, length))
    return fft.irfft(spectrum, length, axis=1)[:, :n_times]


def background_autocovariance(n_lags: int, sfreq: float, length: int = 2**15) -> np.ndarray:
    """Autocovariance ``(n_lags,)`` of :func:`draw_background`; 1 at lag 0."""
    power = background_power(np.fft.rfftfreq(length, 1 / sfreq))
    return np.fft.irfft(power / _mean_power(power, length), length)[:n_lags]


def _mean_power(power: np.ndarray, length: int) -> float:
    """Mean over all ``length`` frequencies of a two-sided spectrum given by its half."""
    both = np.full(len(power), 2.0)
    both[0] = 1.0
    if length % 2 == 0:
        both[-1] = 1.0
    return float((both * power).sum() / length)


def draw_blinks(
    n_times: int, sfreq: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Time course ``(n_times,)`` of blinks of height about 1, and their peaks [s].

    One blink every 5 s on average, at least 1 s apart, each lasting 0.35 s.
    """
    peaks = np.cumsum(1.0 + rng.exponential(4.0, int(n_times / sfreq) + 1))
    peaks = peaks[peaks < n_times / sfreq - _BLINK_S]
    time = np.arange(n_times) / sfreq
    course = np.zeros(n_times)
    for peak in peaks:
        height = np.exp(0.2 * rng.standard_normal())
        near = np.abs(time - peak) < _BLINK_S / 2
        course[near] += height * np.cos(np.pi * (time[near] - peak) / _BLINK_S) ** 2
    return course, peaks
