"""Formulas against naive loops; planted faults found; nothing depends on the unit."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from scipy.signal import welch

from braindecode_pipe.errors import UnitError
from braindecode_pipe.preprocess import quality, scaling
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.statistics import Statistics, plateau

SFREQ = 200


def measured(data: np.ndarray, window: int, block: int = 777, allowed=None):
    """Statistics of an array that comes in blocks."""
    runs = [(0, data.shape[1])] if allowed is None else allowed
    statistics = Statistics(len(data), window, runs)
    for start in range(0, data.shape[1], block):
        statistics.observe(start, data[:, start : start + block].copy())
    return statistics.finish()


def find_bad_channels(data, names, types, window):
    return quality.find_bad_channels(measured(data, window), names, types)


@pytest.mark.parametrize("block", [1, 77, 200, 201, 5000])
def test_amplitude_equals_the_loop_whatever_the_blocks(make_eeg, block):
    data = make_eeg(n_times=1234)
    expected = [
        np.median([np.std(row[k * SFREQ : (k + 1) * SFREQ]) for k in range(1234 // SFREQ)])
        for row in data
    ]
    found = measured(data, SFREQ, block)
    np.testing.assert_allclose(found.amplitude, expected, rtol=1e-12)
    assert found.n_samples == 1200 and not found.constant.any()


@pytest.mark.parametrize("n_times", [2, 150, 399])
def test_amplitude_of_short_recordings(n_times):
    data = np.random.default_rng(0).normal(size=(2, n_times))
    n = min(n_times, SFREQ)
    np.testing.assert_allclose(measured(data, SFREQ).amplitude, data[:, :n].std(axis=1), rtol=1e-12)


def test_amplitude_ignores_offset_and_one_artifact(make_eeg):
    data = make_eeg(n_times=20 * SFREQ)
    spoiled = data + 0.5
    spoiled[:, 300:310] += 1e-2
    plain, other = measured(data, SFREQ).amplitude, measured(spoiled, SFREQ).amplitude
    np.testing.assert_allclose(other, plain, rtol=0.15)


def test_f36_statistics_see_nothing_but_what_is_allowed(make_eeg):
    data = make_eeg(n_times=20 * SFREQ)
    allowed = [(100, 1300), (1500, 1650), (2000, 4000)]
    spoiled = data.copy()
    mask = np.ones(4000, bool)
    for start, stop in allowed:
        mask[start:stop] = False
    spoiled[:, mask] = 1e3
    a, b = measured(data, SFREQ, allowed=allowed), measured(spoiled, SFREQ, 60, allowed)
    for name in ("amplitude", "constant_share", "copy_of", "constant"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.n_samples == b.n_samples == 1200 + 2000
    expected = [
        np.median([row[k : k + 200].std() for s, e in allowed for k in range(s, e - 199, 200)])
        for row in data
    ]
    np.testing.assert_allclose(a.amplitude, expected, rtol=1e-12)
    # Short stretches everywhere: the windows become shorter.
    short = [(k, k + 60) for k in range(0, 4000, 100)]
    assert Statistics(19, SFREQ, short).window == 60
    assert Statistics(19, SFREQ, [*short, (4000, 4100)]).window == 50


def test_f14_samples_that_are_not_finite_are_found_and_put_to_zero(make_eeg):
    data = make_eeg(n_times=1000)
    data[3, [5, 6, 7, 500]] = np.nan
    data[7, 199:203] = [np.inf, -np.inf, np.nan, np.inf]
    found = measured(data, SFREQ, 201)
    assert found.not_finite == {3: [(5, 8), (500, 501)], 7: [(199, 203)]}
    values = data.copy()
    Statistics(19, SFREQ, [(0, 1000)]).observe(0, values)
    assert not values[[3, 7]].any() and np.array_equal(values[4:7], data[4:7])


def test_plateau_equals_the_loop():
    rng = np.random.default_rng(0)
    for _ in range(100):
        row = rng.integers(0, 2, 30)
        runs = "".join(map(str, row)).split("0")
        assert plateau(row, 1) == sum(len(run) for run in runs if len(run) > 2)


@contextmanager
def rows_of(values, folder):
    with Scratch(folder / "a.zarr", values.shape, np.float32) as rows:
        rows.write(0, 0, values)
        yield rows


@pytest.mark.parametrize("kind", ["robust", "standard"])
def test_scaler_equals_its_formula_and_looks_at_good_samples_only(tmp_path, kind):
    rng = np.random.default_rng(1)
    values = rng.normal(3, 2, (5, 1000)).astype(np.float32)
    good = np.ones(1000, bool)
    good[:100] = False
    expected = {
        "robust": (np.median(values[:, 100:], axis=1),
                   np.subtract(*np.percentile(values[:, 100:].astype(float), [75, 25], axis=1))),
        "standard": (values[:, 100:].mean(axis=1, dtype=float),
                     values[:, 100:].std(axis=1, dtype=float)),
    }[kind]  # fmt: skip
    spoiled = values.copy()
    spoiled[:, :100] = 1e9
    fits = []
    for candidate in (values, spoiled):
        with rows_of(candidate, tmp_path) as rows:
            fits.append(scaling.fit_scaling(rows, good, kind))
        np.testing.assert_allclose(fits[-1].offset[:, 0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(fits[-1].gain[:, 0], expected[1], rtol=1e-6)
        assert fits[-1].n_samples == 900 and fits[-1].seen == ((100, 1000),)
    np.testing.assert_array_equal(fits[0].gain, fits[1].gain)
    scaled = fits[0].apply(values.copy(), 0)
    np.testing.assert_allclose(
        scaled, (values - expected[0][:, None]) / expected[1][:, None], atol=1e-5
    )


@pytest.mark.parametrize("factor", [1e-13, 1e6])
@pytest.mark.parametrize("kind", ["robust", "standard"])
def test_scaler_is_invariant_to_the_unit(factor, kind, make_eeg, tmp_path):
    values = make_eeg(3)
    scaled = []
    for by in (1.0, factor):
        with rows_of(values * by, tmp_path) as rows:
            fit = scaling.fit_scaling(rows, np.ones(4000, bool), kind)
        scaled.append(fit.apply((values * by).astype(np.float32), 0))
    np.testing.assert_allclose(scaled[1], scaled[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["robust", "standard"])
def test_scaled_flat_row_is_zero(kind, tmp_path):
    values = np.full((2, 50), 7.0, np.float32)
    with rows_of(values, tmp_path) as rows:
        fit = scaling.fit_scaling(rows, np.ones(50, bool), kind)
    assert not fit.gain.any() and (fit.offset == 7).all() and not fit.apply(values, 0).any()


def test_quantiles_equal_those_of_numpy():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 10, 999, 5000, 70_001):
        values = rng.normal(size=(4, n)).astype(np.float32)
        values[1] = np.round(values[1])
        values[2] = 1.5
        values[3] = np.sort(values[3])
        found = scaling.quantiles(values, [0.25, 0.5, 0.75])
        expected = np.quantile(values.astype(float), [0.25, 0.5, 0.75], axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["robust", "standard"])
def test_causal_scaler_equals_the_loop_and_knows_no_future(kind, tmp_path):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(3, 900)) * np.linspace(1, 5, 900) + 4).astype(np.float32)
    good = rng.random(900) > 0.1
    good[300:420] = False

    def fit(data):
        with rows_of(data, tmp_path) as rows:
            found, settled = scaling.fit_causal(rows, good, kind, 100, 20)
            return found, settled, found.apply(data.copy(), 0)

    found, settled, scaled = fit(values)
    np.testing.assert_array_equal(np.flatnonzero(~settled), np.arange(100))
    kept = None
    for start in [0, *range(100, 900, 20)]:
        end = max(start, 100)
        past = np.arange(end - 100, end)[good[end - 100 : end]]
        stop = 100 if start == 0 else min(start + 20, 900)
        for i, row in enumerate(values.astype(float)):
            if len(past) > 1:
                low, center, high = np.quantile(row[past], [0.25, 0.5, 0.75])
                if kind == "standard":
                    center, low, high = row[past].mean(), 0, row[past].std()
                expected = (row[start:stop] - center) / (high - low)
                np.testing.assert_allclose(scaled[i, start:stop], expected, atol=1e-4)
        if len(past) < 2:
            step = list(found.starts).index(start)
            np.testing.assert_array_equal(found.gain[:, step], kept)
        kept = found.gain[:, list(found.starts).index(start)]
    assert any(not good[k - 100 : k].any() for k in found.starts[1:])
    for change in (160, 161, 500):
        other = values.copy()
        other[:, change:] = rng.normal(size=(3, 900 - change)) * 1e6
        np.testing.assert_array_equal(fit(other)[2][:, :change], scaled[:, :change])


@pytest.mark.parametrize("factor", [1e-13, 1.0, 1e6])
def test_f15_planted_bad_channels_are_found(factor, make_eeg):
    data = make_eeg(64, 6000, seed=3)
    data[5] = data[5, 0]
    data[11] = np.clip(data[11], None, np.quantile(data[11], 0.9))
    data[20] *= 50
    data[33] = data[32]
    names = [f"E{i}" for i in range(64)]
    bad = find_bad_channels(data * factor, names, ["eeg"] * 64, SFREQ)
    assert set(bad) == {"E5", "E11", "E20", "E33"}
    assert bad["E5"].startswith("flat")
    assert bad["E11"].startswith("clipped")
    assert "x the median amplitude" in bad["E20"]
    assert bad["E33"] == "copy of E32"


def test_f15_false_positives_on_correlated_noise(make_eeg):
    found = total = 0
    for seed in range(10):
        data = make_eeg(64, 4000, seed=seed)
        found += len(find_bad_channels(data, list(range(64)), ["eeg"] * 64, SFREQ))
        total += 64
    assert found / total <= 0.05


def test_the_largest_sample_alone_is_not_clipping():
    data = np.random.default_rng(0).normal(size=(1, 60))
    assert find_bad_channels(data, ["a"], ["eeg"], 30) == {}


def test_types_are_judged_apart(make_eeg):
    data = make_eeg(20, 4000)
    data[10:] *= 1e-7
    types = ["eeg"] * 10 + ["mag"] * 10
    assert find_bad_channels(data, list(range(20)), types, SFREQ) == {}


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


def spectrum(pieces, n):
    found = quality.Spectrum(n, SFREQ)
    for piece in pieces:
        found.add(piece)
    return found.freqs, found.density(2)


def test_spectrum_equals_welch_and_integrates_to_the_variance():
    rng = np.random.default_rng(0)
    t = np.arange(20000) / SFREQ
    data = rng.normal(size=(2, 20000)) + np.array([[0.0], [1.0]]) * np.sin(2 * np.pi * 50 * t)
    for n in (400, 401):
        pieces = quality.even_pieces([(0, 20000)], n, 1000)
        freqs, density = spectrum((data[:, a:b] for a, b in pieces), n)
        expected = welch(data, SFREQ, nperseg=n, noverlap=0)
        np.testing.assert_allclose(freqs, expected[0])
        np.testing.assert_allclose(density, expected[1], rtol=1e-9)
    freqs, density = spectrum([data[:, k : k + 400] for k in range(0, 20000, 400)], 400)
    assert freqs[1] == pytest.approx(0.5)
    np.testing.assert_allclose(density.sum(axis=1) * freqs[1], data.var(axis=1), rtol=0.05)
    assert freqs[density[1].argmax()] == 50
    assert density[1, 100] > 30 * density[0, 100]


def test_even_pieces_lie_inside_and_spread():
    runs = [(0, 95), (100, 120), (200, 1000)]
    pieces = quality.even_pieces(runs, 30, 5)
    assert pieces[0] == (0, 30) and len(pieces) == 5 and pieces[-1] == (950, 980)
    assert all(any(a <= s and e <= b for a, b in runs) for s, e in pieces)
    assert quality.even_pieces([(0, 10), (20, 45)], 30, 5) == [(20, 45)]
    assert quality.even_pieces([], 30, 5) == []


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
