"""Zapline: planted line noise goes, everything else stays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import welch

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.preprocess.lines import (
    apply_zapline,
    fit_zapline,
    line_variables,
    smoothing_kernel,
)
from braindecode_pipe.preprocess.steps import Log

SFREQ = 500.0
LINE = 50.0


@pytest.fixture(scope="module")
def simulated():
    """Forward-modelled EEG (simulated) without and with a line of 50 Hz and its harmonics [V]."""
    from braindecode_pipe.simulate.forward import make_head, sensor_info
    from braindecode_pipe.simulate.noise import make_noise
    from braindecode_pipe.simulate.settings import Settings

    settings = Settings()
    head = make_head(settings, "01")
    info = sensor_info(settings, "eeg", head)
    noise = make_noise(settings, "eeg", "01", head, info)
    rng = np.random.default_rng(0)
    n_times = int(60 * SFREQ)
    clean = noise.draw(n_times, SFREQ, rng)
    time = np.arange(n_times) / SFREQ
    # One field of the mains with a phase of its own in every channel, waxing and waning.
    field = 10e-6 * rng.normal(size=(2, len(clean)))
    wax = 1 + 0.3 * np.sin(2 * np.pi * 0.05 * time)
    line = np.zeros_like(clean)
    for k, strength in ((1, 1.0), (2, 0.3), (3, 0.2)):
        wave = strength * wax * np.exp(2j * np.pi * k * LINE * time)
        line += field[0][:, None] * wave.real + field[1][:, None] * wave.imag
    return clean, line


def _density(data, sfreq=SFREQ):
    freqs, density = welch(data, sfreq, nperseg=int(2 * sfreq))
    return freqs, density


def _over_neighbours(data, freq, sfreq=SFREQ):
    """Power at ``freq`` over that 2 to 4 Hz beside it, median over channels."""
    freqs, density = _density(data, sfreq)
    at = density[:, np.argmin(abs(freqs - freq))]
    beside = (abs(freqs - freq) >= 2) & (abs(freqs - freq) <= 4)
    return float(np.median(at / density[:, beside].mean(axis=1)))


@pytest.mark.parametrize("period", [2.0, 3.0, 4.0, 5.0, 10.0, 16.6667, 20.0, 2.4, 24.414, 8.33])
def test_the_kernel_passes_no_harmonic(period):
    taps = smoothing_kernel(period)
    lags = np.arange(len(taps)) - len(taps) // 2
    np.testing.assert_allclose(taps, taps[::-1], atol=1e-15)
    assert taps.sum() == pytest.approx(1)
    for k in range(1, int(period / 2 + 1e-9) + 1):
        assert abs((taps * np.cos(2 * np.pi * k / period * lags)).sum()) < 1e-12
    assert len(taps) <= period + 3


def test_the_kernel_of_a_whole_period_is_a_box():
    np.testing.assert_allclose(smoothing_kernel(5.0), np.full(5, 0.2), atol=1e-12)
    np.testing.assert_allclose(smoothing_kernel(4.0), np.array([0.5, 1, 1, 1, 0.5]) / 4, atol=1e-12)


def test_planted_line_falls_to_its_neighbours_and_nothing_else_changes(simulated):
    clean, line = simulated
    log = Log()
    zapline = fit_zapline(clean + line, SFREQ, LINE, log)
    assert zapline.mixing.shape == (64, 2) and zapline.unmixing.shape == (2, 64)
    found = apply_zapline(zapline, clean + line)
    for k in (1, 2, 3):
        before, after = (_over_neighbours(x, k * LINE) for x in (clean + line, found))
        # Measured: 674, 121 and 65 before; 0.96, 0.96 and 0.97 after.
        assert before > 20
        assert 0.8 < after < 1.2
    # Elsewhere the spectrum is that of the recording without a line.
    freqs, density = _density(found)
    _, expected = _density(clean)
    off = np.min([abs(freqs - k * LINE) for k in (1, 2, 3, 4, 5)], axis=0) > 1
    ratio = density[:, off] / expected[:, off]
    # Measured: median 0.998; at least 0.97 below 30 Hz and 0.80 anywhere.
    assert abs(np.median(ratio) - 1) < 0.01
    assert ratio[:, freqs[off] < 30].min() > 0.95 and ratio.min() > 0.7
    residual = np.linalg.norm(found - clean) / np.linalg.norm(line)
    assert residual < 0.05  # measured: 0.035
    assert "2 of 64 components" in log.steps[0]


def test_without_a_line_nothing_is_removed(simulated):
    clean, _ = simulated
    log = Log()
    zapline = fit_zapline(clean, SFREQ, LINE, log)
    assert zapline.mixing.shape[1] == 0
    np.testing.assert_array_equal(apply_zapline(zapline, clean), clean)
    assert log.steps == ["Zapline at 50 Hz: nothing above the neighbouring frequencies"]


@pytest.mark.parametrize("sfreq", [250.0, 256.0, 1000.0])
@pytest.mark.parametrize("freq", [50.0, 60.0])
def test_periods_that_are_no_whole_number_of_samples(make_eeg, sfreq, freq):
    n_times = int(30 * sfreq)
    clean = make_eeg(12, n_times)
    time = np.arange(n_times) / sfreq
    rng = np.random.default_rng(1)
    line = 2e-5 * rng.normal(size=(12, 1)) * np.sin(2 * np.pi * freq * time)
    zapline = fit_zapline(clean + line, sfreq, freq, Log())
    assert zapline.mixing.shape[1] == 1
    found = apply_zapline(zapline, clean + line)
    assert _over_neighbours(clean + line, freq, sfreq) > 100
    assert _over_neighbours(found, freq, sfreq) < 2


def test_scale_free_and_rank_aware(simulated):
    clean, line = simulated
    data = (clean + line)[:32, :10000]
    data = data - data.mean(axis=0)
    first = fit_zapline(data, SFREQ, LINE, Log(), 2)
    scale = np.where(np.arange(32) % 2, 1e-13, 1e6)[:, None]
    second = fit_zapline(data * scale, SFREQ, LINE, Log(), 2)
    np.testing.assert_allclose(
        apply_zapline(second, data * scale) / scale, apply_zapline(first, data), atol=1e-9
    )


def test_bad_and_flat_channels_are_left_alone(simulated):
    clean, line = simulated
    data = clean + line
    data[3] *= 1000
    data[5] = 0
    good = np.arange(64) != 3
    zapline = fit_zapline(data, SFREQ, LINE, Log(), good=good)
    found = apply_zapline(zapline, data)
    np.testing.assert_array_equal(found[[3, 5]], data[[3, 5]])
    assert _over_neighbours(found[np.arange(64) > 5], LINE) < 1.3


def test_pieces_with_gaps(simulated):
    clean, line = simulated
    data = clean + line
    pieces = [data[:, :9000], data[:, 12000:21000], data[:, 25000:25010]]
    zapline = fit_zapline(pieces, SFREQ, LINE, Log())
    assert _over_neighbours(apply_zapline(zapline, data), LINE) < 1.3


def test_quality_variables_and_what_cannot_be(simulated):
    clean, line = simulated
    zapline = fit_zapline(clean + line, SFREQ, LINE, Log())
    variables = line_variables([zapline])
    assert variables["line_power_before"][1][0] > 20 > 2 > variables["line_power_after"][1][0]
    assert variables["line_components"][1].tolist() == [2]
    with pytest.raises(RecipeError, match="not below the Nyquist frequency(.|\n)*300 Hz"):
        fit_zapline(clean, SFREQ, 300.0, Log())
    log = Log()
    assert fit_zapline(clean[:, :10], SFREQ, LINE, log).mixing.shape[1] == 0
    assert log.warnings == ["no Zapline at 50 Hz: too few samples or channels"]
