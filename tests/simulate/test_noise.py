from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.simulate import Settings
from braindecode_pipe.simulate.forward import make_head, sensor_info
from braindecode_pipe.simulate.noise import (
    background_autocovariance,
    background_power,
    draw_background,
    draw_blinks,
    draw_drift,
    make_noise,
)

SFREQ = 250.0


def spectrum(data, n=500):
    """Mean periodogram over series and blocks of ``n`` samples: frequencies, power."""
    blocks = data[:, : data.shape[1] // n * n].reshape(-1, n) * np.hanning(n)
    return np.fft.rfftfreq(n, 1 / SFREQ), (np.abs(np.fft.rfft(blocks, axis=1)) ** 2).mean(0)


def slope(frequency, power, low, high):
    part = (frequency >= low) & (frequency <= high)
    return np.polyfit(np.log(frequency[part]), np.log(power[part]), 1)[0]


@pytest.fixture(scope="module")
def background():
    return draw_background(60, 50_000, SFREQ, np.random.default_rng(0))


def test_background_is_one_over_f_with_an_alpha_peak(background):
    frequency, power = spectrum(background)
    assert slope(frequency, power, 1.5, 6) == pytest.approx(-1, abs=0.15)
    assert slope(frequency, power, 16, 100) == pytest.approx(-1, abs=0.05)
    pink = power[frequency == 20.0] * 20 / 10
    assert power[frequency == 10.0] > 2 * pink


def test_background_has_unit_variance_and_the_stated_autocovariance(background):
    assert background.var() == pytest.approx(1, abs=0.02)
    lags = background_autocovariance(150, SFREQ)
    assert lags[0] == pytest.approx(1)
    for lag in (1, 5, 25, 100, 149):
        products = (background[:, :-lag] * background[:, lag:]).mean(1)
        error = products.std(ddof=1) / np.sqrt(len(products))
        assert abs(products.mean() - lags[lag]) < 4 * error


@pytest.mark.parametrize("n_times", [251, 1000, 1021])
def test_background_of_any_length_has_unit_variance(n_times):
    data = draw_background(400, n_times, SFREQ, np.random.default_rng(1))
    assert data.shape == (400, n_times)
    assert data.var() == pytest.approx(1, abs=0.1)
    assert np.isfinite(background_power(np.array([0.0, 1e-9]))).all()


def test_blinks_are_apart_and_of_height_one():
    course, peaks = draw_blinks(100_000, SFREQ, np.random.default_rng(0))
    assert np.diff(peaks).min() > 1.0
    assert 400 / 5.0 * 0.7 < len(peaks) < 400 / 5.0 * 1.3
    at_peaks = course[np.round(peaks * SFREQ).astype(int)]
    assert at_peaks.min() > 0.4 and at_peaks.max() < 2.5 and course.min() >= 0
    assert (course > 0).mean() == pytest.approx(len(peaks) * 0.35 / 400, rel=0.05)


def test_drift_is_slower_than_a_tenth_of_a_hertz_and_falls_with_the_square():
    data = draw_drift(300, 100_000, SFREQ, np.random.default_rng(0))
    assert data.shape == (300, 100_000) and data.var() == pytest.approx(1, abs=0.1)
    slow = data[:, :: round(SFREQ)] * np.hanning(400)
    power = (np.abs(np.fft.rfft(slow, axis=1)) ** 2).mean(0)
    frequency = np.fft.rfftfreq(400, 1.0)
    assert power[frequency > 0.12].max() < 1e-6 * power.max()
    assert slope(frequency, power, 0.015, 0.08) == pytest.approx(-2, abs=0.15)
    # A run that is far shorter than the slowest waves drifts, too.
    short = draw_drift(300, 1000, SFREQ, np.random.default_rng(1))
    assert 1e-3 < short.std(1).mean() < 0.3 and (short**2).mean() == pytest.approx(1, abs=0.3)


def test_artefacts_of_no_size_change_nothing_else():
    """The twin without blinks, line and drift has the same noise, and the same bad channels."""
    spoiled = []
    for sizes in ({}, {"blinks": 0.0, "line": 0.0, "drift": 0.0}):
        settings = Settings(n_eeg=16, n_bad=3, **sizes)
        head = make_head(settings, "01")
        noise = make_noise(settings, "eeg", "01", head, sensor_info(settings, "eeg", head))
        rng = np.random.default_rng(0)
        data = noise.draw(5000, SFREQ, rng)
        before = data.copy()
        artefacts = noise.add_artefacts(data, SFREQ, rng)
        spoiled.append((noise, before, data, artefacts))
    (noise, before, data, added), (clean, base, twin, _) = spoiled
    assert noise.bad == clean.bad and list(noise.bad.values()) == ["noisy", "flat", "loose"]
    np.testing.assert_array_equal(before, base)
    np.testing.assert_allclose(twin[clean.good], base[clean.good], atol=1e-15)
    rest = data - twin - added.drift - noise.blink[:, None] * added.blinks
    time = np.arange(5000) / SFREQ
    for frequency, amplitude in zip(noise.line_freqs, noise.line):
        rest -= (amplitude[:, None] * np.exp(2j * np.pi * frequency * time)).real
    assert np.abs(rest[noise.good]).max() < 1e-12
    noisy, flat, loose = noise.bad
    sd = np.sqrt(noise.variance)
    assert np.diff(data[noisy]).std() > 12 * sd[noisy] and not data[flat].any()
    assert data[loose].std() == pytest.approx(sd[loose], rel=0.3)
    others = np.flatnonzero(noise.good)
    assert np.abs(np.corrcoef(twin[others], twin[loose])[-1, :-1]).max() < 0.4
    assert np.abs(np.corrcoef(before[others], before[loose])[-1, :-1]).max() > 0.6


@pytest.mark.parametrize(
    ("modality", "kind", "low", "high"),
    [("eeg", "eeg", 3e-6, 3e-5), ("meg", "mag", 1e-13, 2e-12), ("meg", "grad", 2e-12, 5e-11)],
)
def test_levels_are_those_of_real_recordings(modality, kind, low, high):
    settings = Settings()
    head = make_head(settings, "01")
    info = sensor_info(settings, modality, head)
    noise = make_noise(settings, modality, "01", head, info)
    data = noise.draw(20_000, settings.sfreq, np.random.default_rng(0))
    rows = np.array(info.get_channel_types()) == kind
    assert low < data[rows].std() < high
    np.testing.assert_allclose(data.var(1), noise.variance, rtol=0.35)
    # Neighbours share activity; independent sensor noise would leave nothing.
    correlation = np.abs(np.corrcoef(data[rows]) - np.eye(rows.sum()))
    assert correlation.max(1).mean() > 0.5
    before = data.copy()
    artefacts = noise.add_artefacts(data, settings.sfreq, np.random.default_rng(1))
    added, peaks = data - before - artefacts.drift, artefacts.peaks
    good = np.flatnonzero(rows & noise.good)
    blinking = good[np.abs(noise.blink[good]).argmax()]
    window = np.round(peaks[0] * settings.sfreq).astype(int) + np.arange(-5, 6)
    assert np.abs(added[blinking, window]).max() > 3 * np.sqrt(noise.variance[blinking])
    assert noise.line_freqs.tolist() == [50.0, 100.0]
