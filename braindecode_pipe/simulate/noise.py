"""Noise of EEG and MEG: ongoing activity, sensor noise, line, blinks, drift, bad channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.simulate.forward import Head, eye_field, lead_field
from braindecode_pipe.simulate.settings import Settings

_BACKGROUND_MOMENT = 13e-9  # Am, root mean square of each background dipole: about 7 uV of EEG
_EYE_MOMENT = 290e-9  # Am of each eye at the peak of a blink: about 150 uV at Fp1 and Fp2
_SENSOR_NOISE = {"eeg": 2e-6, "mag": 1e-13, "grad": 5e-12}  # V, T, T/m, root mean square
_LINE = {1: 0.5, 2: 0.15}  # harmonic -> amplitude over the sensor's noise
_NOISY = 12.0  # times the sensor's noise
_BLINK_S = 0.35
_DRIFT_HZ = (0.005, 0.1)  # power falls with the square of the frequency between these
_DRIFT_S = 400.0  # shortest series that drift is cut from: its slowest waves are longer than a run
BAD_KINDS = ("noisy", "flat", "loose")


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
    drift : (n_sensors,) root mean square of each sensor's own slow drift
    bad : number of every bad channel -> one of ``BAD_KINDS``: ``noisy`` has white noise of 12 times
        its noise on top, ``flat`` is zero, ``loose`` has noise of its own of the usual size and
        spectrum in place of everything else
    """

    background: np.ndarray
    white: np.ndarray
    line: np.ndarray
    line_freqs: np.ndarray
    blink: np.ndarray
    drift: np.ndarray
    bad: dict[int, str]

    @property
    def variance(self) -> np.ndarray:
        """Variance of every sensor's noise ``(n_sensors,)``, without all that is added later."""
        return (self.background**2).sum(1) + self.white**2

    @property
    def good(self) -> np.ndarray:
        """Which sensors are not bad ``(n_sensors,)``."""
        good = np.ones(len(self.white), bool)
        good[list(self.bad)] = False
        return good

    def draw(self, n_times: int, sfreq: float, rng: np.random.Generator) -> np.ndarray:
        """Background and sensor noise ``(n_sensors, n_times)``."""
        series = draw_background(self.background.shape[1], n_times, sfreq, rng)
        data = self.background @ series
        data += self.white[:, None] * rng.standard_normal(data.shape, dtype=np.float32)
        return data

    def add_artefacts(self, data: np.ndarray, sfreq: float, rng: np.random.Generator) -> Artefacts:
        """Add line, drift and blinks to ``data`` (n_sensors, n_times) in place; spoil bad channels.

        What is drawn does not depend on how large anything is.
        """
        n_times = data.shape[1]
        time = np.arange(n_times) / sfreq
        for frequency, amplitude in zip(self.line_freqs, self.line):
            wave = np.exp(2j * np.pi * frequency * time)
            data += amplitude.real[:, None] * wave.real - amplitude.imag[:, None] * wave.imag
        course, peaks = draw_blinks(n_times, sfreq, rng)
        data += self.blink[:, None] * course
        drift = draw_drift(len(data), n_times, sfreq, rng)
        drift *= self.drift[:, None]
        data += drift
        for row, kind in self.bad.items():
            sd = np.sqrt(self.variance[row])
            if kind == "noisy":
                data[row] += _NOISY * sd * rng.standard_normal(n_times)
            else:
                data[row] = 0
            if kind == "loose":
                data[row] = sd * draw_background(1, n_times, sfreq, rng)[0]
        return Artefacts(course, peaks, drift)


@dataclass(frozen=True)
class Artefacts:
    """What was added to one run.

    Attributes
    ----------
    blinks : (n_times,) time course, height about 1
    peaks : [s] of the blinks
    drift : (n_sensors, n_times) [V, T or T/m]
    """

    blinks: np.ndarray
    peaks: np.ndarray
    drift: np.ndarray


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
    chosen = settings.rng("bad", modality, subject).permutation(len(sd))[: settings.n_bad]
    return Noise(
        background=background,
        white=white,
        line=settings.line * np.array(line),
        line_freqs=np.array(list(harmonics)) * settings.line_freq,
        blink=settings.blinks * _EYE_MOMENT * eye_field(info, head.eyes).sum(1),
        drift=settings.drift * sd,
        bad={int(row): BAD_KINDS[i % len(BAD_KINDS)] for i, row in enumerate(chosen)},
    )


def background_power(frequency: np.ndarray) -> np.ndarray:
    """Power density, up to a factor: ``1 / f`` above 0.5 Hz, flat below, and a peak at 10 Hz."""
    pink = 1 / np.maximum(frequency, 0.5)
    return pink + 0.3 * np.exp(-0.5 * ((frequency - 10.0) / 1.0) ** 2)


def draw_background(
    n_series: int, n_times: int, sfreq: float, rng: np.random.Generator
) -> np.ndarray:
    """Independent series ``(n_series, n_times)`` of unit variance with the background spectrum."""
    return _draw(background_power, n_series, n_times, n_times, sfreq, rng)


def drift_power(frequency: np.ndarray) -> np.ndarray:
    """Power density, up to a factor: ``1 / f^2`` between 0.005 and 0.1 Hz, zero elsewhere.

    Half-cell potentials of electrodes wander at random; skin potentials and sweat take tens of
    seconds (Picton and Hillyard 1972, Electroencephalogr. Clin. Neurophysiol. 33). What is faster
    than 0.1 Hz is left to the background, so that a high-pass can be seen to remove all of it.
    """
    low, high = _DRIFT_HZ
    inside = (frequency >= low) & (frequency <= high)
    return np.where(inside, 1 / np.maximum(frequency, low) ** 2, 0.0)


def draw_drift(n_series: int, n_times: int, sfreq: float, rng: np.random.Generator) -> np.ndarray:
    """Independent series ``(n_series, n_times)`` of unit variance with the spectrum of drift.

    The variance is that of the endless process; within a run shorter than its slowest waves a
    series has a mean and varies less.
    """
    rate = min(sfreq, 2.0)  # far above the fastest drift: interpolation loses nothing
    time = np.arange(n_times) / sfreq
    n_slow = int(np.ceil(time[-1] * rate)) + 4
    slow = _draw(drift_power, n_series, n_slow, round(_DRIFT_S * rate), rate, rng)
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.arange(n_slow) / rate, slow, axis=1)(time)


def _draw(
    density, n_series: int, n_times: int, n_least: int, sfreq: float, rng: np.random.Generator
) -> np.ndarray:
    """The first ``n_times`` of periodic series of unit variance, ``n_least`` or more long."""
    from scipy import fft

    length = fft.next_fast_len(max(n_times, n_least), real=True)
    power = density(fft.rfftfreq(length, 1 / sfreq))
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
