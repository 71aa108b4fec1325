"""Formulas against naive loops; planted faults found; nothing depends on the unit."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.errors import UnitError
from braindecode_pipe.preprocess import quality

SFREQ = 200


def test_local_amplitude_equals_the_loop(make_eeg):
    data = make_eeg(n_times=1234)
    expected = [
        np.median([np.std(row[k * SFREQ : (k + 1) * SFREQ]) for k in range(1234 // SFREQ)])
        for row in data
    ]
    np.testing.assert_allclose(quality.local_amplitude(data, SFREQ), expected, rtol=1e-12)


@pytest.mark.parametrize("n_times", [2, 150, 399])
def test_local_amplitude_of_short_recordings(n_times):
    data = np.random.default_rng(0).normal(size=(2, n_times))
    n = min(n_times, SFREQ)
    np.testing.assert_allclose(
        quality.local_amplitude(data, SFREQ), data[:, :n].std(axis=1), rtol=1e-12
    )


def test_local_amplitude_ignores_offset_and_one_artifact(make_eeg):
    data = make_eeg(n_times=20 * SFREQ)
    spoiled = data + 0.5
    spoiled[:, 300:310] += 1e-2
    plain, other = quality.local_amplitude(data, SFREQ), quality.local_amplitude(spoiled, SFREQ)
    np.testing.assert_allclose(other, plain, rtol=0.15)


@pytest.mark.parametrize("factor", [1e-13, 1e6])
def test_robust_scale_is_invariant_to_the_unit(factor, make_eeg):
    row = make_eeg(1)[0]
    scaled, median, spread = quality.robust_scale(row)
    other, other_median, other_spread = quality.robust_scale(row * factor)
    np.testing.assert_allclose(other, scaled, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose([other_median, other_spread], np.array([median, spread]) * factor)


def test_robust_scale_equals_its_formula_and_looks_at_good_samples_only():
    rng = np.random.default_rng(1)
    row = rng.normal(3, 2, 1000)
    good = np.ones(1000, bool)
    good[:100] = False
    spoiled = row.copy()
    spoiled[:100] = 1e9
    low, median, high = np.percentile(row[100:], [25, 50, 75])
    for candidate in (row, spoiled):
        scaled, center, spread = quality.robust_scale(candidate, good)
        assert (center, spread) == (median, high - low)
        np.testing.assert_array_equal(scaled[100:], (row[100:] - median) / (high - low))


def test_robust_scale_of_a_flat_row_is_zero():
    scaled, center, spread = quality.robust_scale(np.full(50, 7.0))
    assert not scaled.any() and (center, spread) == (7.0, 0.0)


@pytest.mark.parametrize("factor", [1e-13, 1.0, 1e6])
def test_f15_planted_bad_channels_are_found(factor, make_eeg):
    data = make_eeg(64, 6000, seed=3)
    data[5] = data[5, 0]
    data[11] = np.clip(data[11], None, np.quantile(data[11], 0.9))
    data[20] *= 50
    data[33] = data[32]
    names = [f"E{i}" for i in range(64)]
    bad = quality.find_bad_channels(data * factor, names, ["eeg"] * 64, SFREQ)
    assert set(bad) == {"E5", "E11", "E20", "E33"}
    assert bad["E5"].startswith("flat")
    assert bad["E11"].startswith("clipped")
    assert "x the median amplitude" in bad["E20"]
    assert bad["E33"] == "copy of E32"


def test_f15_false_positives_on_correlated_noise(make_eeg):
    found = total = 0
    for seed in range(10):
        data = make_eeg(64, 4000, seed=seed)
        found += len(quality.find_bad_channels(data, list(range(64)), ["eeg"] * 64, SFREQ))
        total += 64
    assert found / total <= 0.05


def test_the_largest_sample_alone_is_not_clipping():
    data = np.random.default_rng(0).normal(size=(1, 60))
    assert quality.find_bad_channels(data, ["a"], ["eeg"], 30) == {}


def test_types_are_judged_apart(make_eeg):
    data = make_eeg(20, 4000)
    data[10:] *= 1e-7
    types = ["eeg"] * 10 + ["mag"] * 10
    assert quality.find_bad_channels(data, list(range(20)), types, SFREQ) == {}


@pytest.mark.parametrize(
    ("kind", "typical", "factor", "guess"),
    [
        ("eeg", 20e-6, 1e6, "1e-6"),
        ("eeg", 20e-6, 1e3, "1e-3"),
        ("seeg", 50e-6, 1e6, "1e-6"),
        ("mag", 2e-13, 1e15, "1e-15"),
        ("grad", 5e-12, 1e15, "1e-15"),
    ],
)
def test_f18_wrong_units_raise_with_the_guessed_factor(kind, typical, factor, guess):
    good = np.full(4, typical)
    quality.check_units(good, [kind] * 4)
    with pytest.raises(UnitError) as error:
        quality.check_units(good * factor, [kind] * 4, "here.fif")
    text = str(error.value)
    assert f"{kind} amplitudes cannot be in" in text
    assert f"fits after multiplication by {guess}" in text
    assert "here.fif" in text


def test_f18_flat_channels_have_no_say():
    quality.check_units(np.array([0.0, 0.0, 2e-5]), ["eeg"] * 3)
    quality.check_units(np.zeros(3), ["eeg"] * 3)


def test_f18_positions_in_millimetres_are_told():
    position = np.random.default_rng(0).normal(size=(20, 3))
    position *= 0.095 / np.linalg.norm(position, axis=1, keepdims=True)
    assert quality.radius_problem(position, ["eeg"] * 20) == ""
    assert "fits after multiplication by 1e-3" in quality.radius_problem(
        position * 1000, ["eeg"] * 20
    )
    assert quality.radius_problem(np.full((20, 3), np.nan), ["eeg"] * 20) == ""


def test_spectrum_integrates_to_the_variance_and_shows_the_line():
    rng = np.random.default_rng(0)
    t = np.arange(20000) / SFREQ
    data = rng.normal(size=(2, 20000)) + np.array([[0.0], [1.0]]) * np.sin(2 * np.pi * 50 * t)
    freqs, density = quality.spectrum(data, SFREQ)
    assert freqs[1] == pytest.approx(0.5)
    np.testing.assert_allclose(density.sum(axis=1) * freqs[1], data.var(axis=1), rtol=0.05)
    assert freqs[density[1].argmax()] == 50
    assert density[1, 100] > 30 * density[0, 100]


def test_tsnr_equals_the_loop():
    rng = np.random.default_rng(0)
    data = rng.normal(100, 5, (7, 60))
    data[3] = 12.0
    expected = [np.mean(row) / np.std(row) if np.std(row) else 0.0 for row in data]
    np.testing.assert_allclose(quality.tsnr(data), expected)


def test_framewise_displacement_equals_power_2012():
    motion = np.random.default_rng(0).normal(size=(30, 6)) * [1, 1, 1, 0.01, 0.01, 0.01]
    found = quality.framewise_displacement(motion)
    assert np.isnan(found[0])
    for t in range(1, 30):
        change = [abs(motion[t, k] - motion[t - 1, k]) for k in range(6)]
        assert found[t] == pytest.approx(sum(change[:3]) + 50 * sum(change[3:]))
