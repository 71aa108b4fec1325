"""Filters in one pass: naive sums, MNE's chain, and no drift over an hour."""

from __future__ import annotations

import mne
import numpy as np
import pytest
from scipy.signal import firwin

from braindecode_pipe.preprocess import filtering
from braindecode_pipe.preprocess.filtering import Branch, Kernel, band_pass, notches, ratio_of


class ArraySource:
    """An array, or a function of sample numbers, as a source."""

    def __init__(self, values, n_times=None, breaks=(), sfreq=1000.0, kind="eeg"):
        self._values = values
        self.n_times = values.shape[1] if n_times is None else n_times
        self.breaks = list(breaks)
        n = len(values(0, 1)) if callable(values) else len(values)
        self.info = mne.create_info(n, sfreq, kind)

    def read(self, start, stop):
        assert 0 <= start < stop <= self.n_times
        return self._values(start, stop) if callable(self._values) else self._values[:, start:stop]


def run(source, kernel, pieces=None, offset=None, observe=None, matrix=None):
    n_in = len(source.info["chs"])
    offset = np.zeros(n_in) if offset is None else offset
    n_rows = n_in if matrix is None else len(matrix)
    result = np.full((n_rows, kernel.n_out(source.n_times)), np.nan)

    def write(rows, start, values):
        part = result[rows, start : start + values.shape[1]]
        assert np.isnan(part).all()
        part[:] = values

    pieces = [(0, source.n_times)] if pieces is None else pieces
    filtering.run_pieces(source, pieces, [Branch(kernel, write, matrix)], offset, observe)
    return result


def naive(x, kernel, piece, offset):
    """One output sample after the other, by its definition."""
    start, stop = piece
    inside = x[:, start:stop] - offset[:, None]
    n, reach = inside.shape[1], kernel.half

    def padded(i):
        if 0 <= i < n:
            return inside[:, i]
        if -n < i < 0 and i >= -reach:
            return 2 * inside[:, 0] - inside[:, -i]
        if n <= i < 2 * n - 1 and i < n + reach:
            return 2 * inside[:, -1] - inside[:, 2 * n - 2 - i]
        return np.zeros(len(x))

    signal = np.stack([padded(i) for i in range(-reach, n + reach)], axis=1)
    h = np.ones(1)
    for taps in kernel.taps:
        h = np.convolve(h, taps)
    filtered = np.stack([np.convolve(row, h, mode="full") for row in signal])
    first = reach + len(h) // 2  # of the sample `start`
    result = []
    fastest = max(kernel.up, kernel.down)
    g = np.ones(1)
    if kernel.up != kernel.down:
        g = kernel.up * firwin(20 * fastest + 1, 1 / fastest, window=("kaiser", 5.0))
    half = len(g) // 2
    for k in range(kernel.n_out(start), kernel.n_out(stop)):
        total = np.zeros(len(x))
        for i in range(-(-(k * kernel.down - half) // kernel.up),
                       (k * kernel.down + half) // kernel.up + 1):  # fmt: skip
            at = first + i - start
            if 0 <= at < filtered.shape[1]:
                total += g[half + k * kernel.down - i * kernel.up] * filtered[:, at]
        result.append(total)
    return np.array(result).reshape(-1, len(x)).T


@pytest.mark.parametrize("block", [1, 2**14, 2**27])
@pytest.mark.parametrize(
    ("sfreq", "up", "down", "l_freq", "h_freq"),
    [(500, 1, 1, 2.0, 40.0), (250, 12, 25, 3.0, 45.0), (200, 3, 10, None, 20.0)],
)
def test_every_sample_is_its_definition_also_at_edges_and_breaks(
    block, sfreq, up, down, l_freq, h_freq, monkeypatch
):
    monkeypatch.setattr(filtering, "BLOCK_BYTES", block)
    x = np.random.default_rng(0).normal(size=(5, 3001)) + 3
    kernel = Kernel(notches(sfreq, [15.0]) + band_pass(sfreq, l_freq, h_freq), up, down)
    # Short and long pieces, one of a single sample, a gap, and a cut without one.
    pieces = [(0, 1203), (1203, 1204), (1210, 1290), (1307, 3001)]
    offset = np.full(5, 3.0)
    found = run(ArraySource(x, sfreq=sfreq), kernel, pieces, offset)
    left = np.ones(found.shape[1], bool)
    for start, stop in pieces:
        part = slice(kernel.n_out(start), kernel.n_out(stop))
        left[part] = False
        expected = naive(x, kernel, (start, stop), offset)
        np.testing.assert_allclose(found[:, part], expected, rtol=0, atol=3e-4 * x.std())
    assert np.isnan(found[:, left]).all() and np.isfinite(found[:, ~left]).all()


def test_padding_is_that_of_mne():
    x = np.random.default_rng(0).normal(size=(3, 5000))
    (taps,) = band_pass(500.0, 1.0, 30.0)
    found = run(ArraySource(x), Kernel((taps,)))
    expected = mne.filter.filter_data(x, 500.0, 1.0, 30.0, verbose="error")
    np.testing.assert_allclose(found, expected, atol=5e-6)


@pytest.mark.parametrize(
    ("sfreq", "target", "h_freq"),
    [(1000.0, 120.0, 40.0), (1024.0, 120.0, 40.0), (600.0, 250.0, 90.0), (512.0, 100.0, None),
     (500.0, 128.0, None)],
)  # fmt: skip
def test_accuracy_against_the_chain_of_mne(sfreq, target, h_freq):
    rng = np.random.default_rng(0)
    n = int(60 * sfreq)
    white = np.fft.rfft(rng.normal(size=(4, n)))
    freqs = np.fft.rfftfreq(n, 1 / sfreq)
    x = np.fft.irfft(white / np.maximum(freqs, 0.2), n)
    x = 2e-5 * x / x.std() + 3e-5 * np.sin(2 * np.pi * 50 * np.arange(n) / sfreq)
    lines = [50.0 * k for k in range(1, int((sfreq / 2 - 2) // 50) + 1)]
    up, down = ratio_of(target, sfreq, 60.0)
    kernel = Kernel(notches(sfreq, lines[:1]) + band_pass(sfreq, 0.5, h_freq), up, down)
    found = run(ArraySource(x, sfreq=sfreq), kernel)
    raw = mne.io.RawArray(x, mne.create_info(4, sfreq, "eeg"), verbose="error")
    raw.notch_filter(lines[:1], picks="all", verbose="error")
    raw.filter(0.5, h_freq, picks="all", verbose="error")
    raw.resample(target, method="polyphase", verbose="error")
    expected = raw.get_data()
    assert found.shape == expected.shape
    inner = slice(int(8 * target), -int(8 * target))
    spectrum = np.fft.rfft(np.stack([found, expected])[:, :, inner] * np.hanning(
        expected[:, inner].shape[1]))  # fmt: skip
    band = np.fft.rfftfreq(expected[:, inner].shape[1], 1 / target)
    band = (band > 1.0) & (band < min(h_freq or np.inf, 0.42 * target))
    error, total = spectrum[0] - spectrum[1], spectrum[1]
    assert np.linalg.norm(error[:, band]) < 2e-3 * np.linalg.norm(total[:, band])
    assert np.linalg.norm(error) < 2e-3 * np.linalg.norm(total)


@pytest.mark.parametrize(
    ("sfreq", "target"), [(1000.0, 120.0), (1200.5, 120.0), (678.1699829, 120.0), (512.0, 100.0)]
)
def test_no_lag_over_an_hour(sfreq, target, monkeypatch):
    monkeypatch.setattr(filtering, "BLOCK_BYTES", 2**21)
    n_times = int(3600 * sfreq)

    def wave(start, stop):
        return np.cos(2 * np.pi * (10.0 / sfreq) * np.arange(start, stop))[None]

    up, down = ratio_of(target, sfreq, 3600.0)
    kernel = Kernel(band_pass(sfreq, 1.0, 40.0), up, down)
    times, phase = [], []

    def write(rows, start, values):
        k = np.arange(start, start + values.shape[1])
        for first in range(0, len(k) - 1199, 1200):
            t = k[first : first + 1200] / target
            part = values[0, first : first + 1200] * np.hanning(1200)
            phase.append(np.angle(part @ np.exp(-2j * np.pi * 10.0 * t)))
            times.append(t[0])

    source = ArraySource(wave, n_times, sfreq=sfreq)
    filtering.run_pieces(source, [(0, n_times)], [Branch(kernel, write)], np.zeros(1))
    lag_ms = 1000 * np.array(phase)[5:-5] / (2 * np.pi * 10)
    assert np.ptp(times) > 3400 and np.abs(lag_ms).max() < 0.01


def test_ratios_are_exact_where_rates_are():
    expected = {(1000.0, 120.0): (3, 25), (1024.0, 120.0): (15, 128), (600.0, 250.0): (5, 12),
                (512.0, 100.0): (25, 128), (500.0, 128.0): (32, 125), (1200.5, 120.0): (240, 2401),
                (500.0, 500.0): (1, 1), (500.0, 600.0): (1, 1), (500.0, None): (1, 1)}  # fmt: skip
    for (sfreq, target), ratio in expected.items():
        assert ratio_of(target, sfreq, 3600.0) == ratio
    up, down = ratio_of(120.0, 678.1699829, 3600.0)
    # Nearer than two microseconds over an hour.
    assert abs(up / down * 678.1699829 / 120 - 1) * 3600 < 2e-6 and down <= 100_000


def test_a_channel_far_from_zero_loses_nothing():
    rng = np.random.default_rng(0)
    x = 1e-6 * rng.normal(size=(2, 20_000))
    kernel = Kernel(band_pass(1000.0, 1.0, 40.0), 3, 25)
    plain = run(ArraySource(x), kernel)
    far = run(ArraySource(x + 0.2), kernel, offset=np.full(2, 0.2))
    np.testing.assert_allclose(far, plain, rtol=0, atol=1e-5 * plain.std())


def test_rows_do_not_know_each_other():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(11, 5000))
    kernel = Kernel(band_pass(500.0, 1.0, 40.0), 12, 25)
    whole = run(ArraySource(x), kernel)
    other = x.copy()
    other[3] = 1e6 * rng.normal(size=5000)
    spoiled = run(ArraySource(other), kernel)
    rows = np.delete(np.arange(11), 3)
    np.testing.assert_array_equal(spoiled[rows], whole[rows])
    # Nor do the bits of a row depend on how many there are.
    for n in (1, 2, 6):
        np.testing.assert_array_equal(run(ArraySource(x[:n]), kernel), whole[:n])


def test_combined_rows_and_two_kernels_in_one_pass():
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(6, 9000)), rng.normal(size=(2, 6)).astype(np.float32)
    kernels = [Kernel(band_pass(500.0, 2.0, 40.0), 12, 25), Kernel((np.ones(41) / 41,), 12, 25)]
    results = [np.zeros((n, kernels[0].n_out(9000))) for n in (6, 2)]

    def writer(result):
        def write(rows, start, values):
            result[rows, start : start + values.shape[1]] = values

        return write

    branches = [Branch(kernels[0], writer(results[0])),
                Branch(kernels[1], writer(results[1]), matrix)]  # fmt: skip
    filtering.run_pieces(ArraySource(x), [(0, 4000), (4000, 9000)], branches, np.zeros(6))
    pieces = [(0, 4000), (4000, 9000)]
    np.testing.assert_allclose(results[0], run(ArraySource(x), kernels[0], pieces), atol=1e-5)
    expected = run(ArraySource(matrix @ x), kernels[1], pieces)
    np.testing.assert_allclose(results[1], expected, atol=1e-5)


def test_every_sample_is_observed_once_in_order(monkeypatch):
    monkeypatch.setattr(filtering, "BLOCK_BYTES", 1)
    x = np.random.default_rng(0).normal(size=(3, 20_000)).astype(np.float32)
    pieces, seen = [(10, 7000), (7000, 7003), (8000, 20_000)], []
    run(ArraySource(x), Kernel(band_pass(500.0, 2.0, 40.0)), pieces,
        observe=lambda start, values: seen.append((start, values.copy())))  # fmt: skip
    assert len(seen) > 10
    at = np.concatenate([start + np.arange(v.shape[1]) for start, v in seen])
    expected = np.concatenate([np.arange(*piece) for piece in pieces])
    np.testing.assert_array_equal(at, expected)
    np.testing.assert_array_equal(np.concatenate([v for _, v in seen], axis=1), x[:, expected])
