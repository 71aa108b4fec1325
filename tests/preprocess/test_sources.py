"""Recordings as blocks: FIF buffers equal MNE's reading, bridges hide what they cover."""

from __future__ import annotations

import mne
import numpy as np
import pytest
from scipy.signal import resample_poly

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess import scratch
from braindecode_pipe.preprocess.blocks import breaks_of, fill, pieces_of
from braindecode_pipe.preprocess.excerpts import choose, excerpt
from braindecode_pipe.preprocess.fif import FifSamples
from braindecode_pipe.preprocess.sources import bridge_gaps, bridge_spans, level, open_source


class ArraySource:
    def __init__(self, values, sfreq=200.0, breaks=()):
        self.values, self.n_times, self.breaks = values, values.shape[1], list(breaks)
        self.info = mne.create_info(len(values), sfreq, "eeg")

    def read(self, start, stop):
        return self.values[:, start:stop]


def filled(source, start, stop, offset=None):
    n = len(source.info["chs"])
    out = np.empty((n, stop - start), np.float32)
    fill(source, out, start, stop, np.zeros(n) if offset is None else offset)
    return out


def neuromag(n_times, sfreq=200.0):
    """A few gradiometers, magnetometers and EEG channels with calibrations of their own."""
    info = mne.create_info(["g1", "m1", "e1", "g2", "s1", "e2"], sfreq,
                           ["grad", "mag", "eeg", "grad", "stim", "eeg"])  # fmt: skip
    for channel, cal, factor in zip(info["chs"], [3.2e-11, 1.6e-12, 1e-6, 2.5e-11, 1, 1e-6],
                                    [1, 2, 0.5, 1, 1, 1]):  # fmt: skip
        channel["cal"], channel["range"] = cal, factor
    scale = np.array([1e-9, 1e-10, 1e-3, 1e-9, 1, 1e-3])[:, None]
    data = np.random.default_rng(0).normal(size=(6, n_times)) * scale
    data[4] = np.arange(n_times) % 5
    return mne.io.RawArray(data, info, first_samp=1234, verbose="error")


@pytest.mark.parametrize("picks", [[0, 1, 2, 3, 5], [2, 5], [1, 2, 3], [5, 0]])
@pytest.mark.parametrize("fmt", ["single", "double", "int", "short"])
def test_fif_buffers_equal_the_reading_of_mne(tmp_path, fmt, picks, monkeypatch):
    raw = neuromag(2345)
    raw.save(tmp_path / "a_raw.fif", fmt=fmt, buffer_size_sec=0.7, verbose="error")
    raw = mne.io.read_raw_fif(tmp_path / "a_raw.fif", verbose="error")
    reader = FifSamples.of(raw, picks)
    assert reader is not None
    expected = raw.get_data(picks)
    rng = np.random.default_rng(0)
    with open_source(raw, picks, mne.pick_info(raw.info, picks), tmp_path / "a_raw.fif", tmp_path,
                     tmp_path / "a.zarr", []) as source:  # fmt: skip
        some = np.sort(rng.integers(0, 2345, (40, 2)))
        for start, stop in [(0, 2345), (139, 140), (140, 141), *some]:
            if start < stop:
                np.testing.assert_allclose(
                    filled(source, start, stop), expected[:, start:stop], rtol=2e-7, atol=0
                )
                np.testing.assert_array_equal(source.read(start, stop), expected[:, start:stop])
    reader.close()


def test_split_files_and_what_mne_has_to_read(tmp_path):
    rng = np.random.default_rng(0)
    info = mne.create_info(40, 500.0, "mag")
    data = 1e-12 * rng.normal(size=(40, 40_000))
    mne.io.RawArray(data, info, verbose="error").save(
        tmp_path / "a_raw.fif", split_size="2MB", buffer_size_sec=1, verbose="error"
    )
    raw = mne.io.read_raw_fif(tmp_path / "a_raw.fif", verbose="error")
    assert len(raw.filenames) > 2
    reader = FifSamples.of(raw, list(range(40)))
    out = np.empty((40, 40_000), np.float32)
    reader.fill(out, 0, 40_000, np.zeros(40))
    np.testing.assert_array_equal(out, raw.get_data().astype(np.float32))
    reader.close()
    # A file that ends early, a compressed one, one with an active projection, another format.
    last = raw.filenames[-1]
    last.write_bytes(last.read_bytes()[:-50_000])
    assert FifSamples.of(raw, [0]) is None
    small = neuromag(1000)
    small.save(tmp_path / "b_raw.fif.gz", verbose="error")
    packed = mne.io.read_raw_fif(tmp_path / "b_raw.fif.gz", verbose="error")
    assert FifSamples.of(packed, [0]) is None
    assert FifSamples.of(small, [0]) is None


def test_skips_are_breaks_and_zero(tmp_path):
    raw = neuromag(3000)
    raw.set_annotations(mne.Annotations([5.0], [4.0], ["BAD_ACQ_SKIP"]))
    raw.save(tmp_path / "a_raw.fif", buffer_size_sec=1.0, verbose="error")
    raw = mne.io.read_raw_fif(tmp_path / "a_raw.fif", verbose="error")
    assert any(entry is None for entry in raw._raw_extras[0]["ent"])
    with open_source(raw, [0, 2], mne.pick_info(raw.info, [0, 2]), tmp_path / "a_raw.fif", tmp_path,
                     tmp_path / "a.zarr", []) as source:  # fmt: skip
        assert source.breaks == [(1000, 1800)]
        expected = raw.get_data([0, 2])
        assert not expected[:, 1000:1800].any() and expected[:, :1000].all()
        np.testing.assert_allclose(filled(source, 0, 3000), expected, rtol=2e-7)
        offset = np.array([1e-9, 1e-3])
        np.testing.assert_allclose(
            filled(source, 900, 1900, offset), expected[:, 900:1900] - offset[:, None], rtol=1e-5,
            atol=1e-15,
        )  # fmt: skip


def test_far_from_zero_the_difference_is_exact(tmp_path):
    info = mne.create_info(["a"], 200.0, "eeg")
    stored = (0.2 + 1e-6 * np.random.default_rng(0).normal(size=(1, 1000))).astype(np.float32)
    mne.io.RawArray(stored, info, verbose="error").save(tmp_path / "a_raw.fif", verbose="error")
    raw = mne.io.read_raw_fif(tmp_path / "a_raw.fif", verbose="error")
    reader = FifSamples.of(raw, [0])
    out = np.empty((1, 1000), np.float32)
    center = np.float32(0.2)
    reader.fill(out, 0, 1000, np.array([float(center)]))
    np.testing.assert_array_equal(out, (stored.astype(float) - float(center)).astype(np.float32))
    reader.close()


def test_breaks_and_pieces():
    annotations = mne.Annotations(
        [1.0, 2.0, 2.5, 4.0, 6.0, 0.0, 7.0], [0.5, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0],
        ["BAD_ACQ_SKIP", "bad_acq_skip", "BAD_ACQ_SKIP", "EDGE boundary", "BAD_jaw", "New Segment/",
         "boundary"],
    )  # fmt: skip
    breaks = breaks_of(annotations, 10.0, 100)
    assert breaks == [(10, 15), (20, 35), (40, 40), (70, 70)]
    pieces = [(0, 10), (15, 20), (35, 40), (40, 70), (70, 100)]
    assert pieces_of(100, breaks) == pieces
    mask = np.ones(100, bool)
    mask[[5, 50, 51, 99]] = False
    assert pieces_of(100, breaks, mask) == [
        (0, 5), (6, 10), (15, 20), (35, 40), (40, 50), (52, 70), (70, 99)
    ]  # fmt: skip
    assert pieces_of(10, [(0, 10)]) == [] and pieces_of(10, [(0, 3), (9, 20)]) == [(3, 9)]


@pytest.mark.parametrize("block", [1, 2**24])
def test_bridges_hide_what_they_cover(block, monkeypatch):
    monkeypatch.setattr(scratch, "BLOCK_BYTES", block)
    x = np.random.default_rng(0).normal(size=(3, 100))
    hidden = x.copy()
    hidden[:, :10] = hidden[:, 40:60] = hidden[:, 95:] = np.nan
    bridged = bridge_gaps(ArraySource(hidden), [(10, 40), (60, 95)])
    values = bridged.read(0, 100)
    for i in range(3):
        np.testing.assert_allclose(values[i, :10], x[i, 10])
        np.testing.assert_allclose(values[i, 39:61], np.linspace(x[i, 39], x[i, 60], 22))
        np.testing.assert_allclose(values[i, 95:], x[i, 94])
    np.testing.assert_array_equal(values[:, 10:40], x[:, 10:40])
    for start, stop in [(0, 100), (5, 7), (38, 45), (59, 62), (90, 100)]:
        np.testing.assert_allclose(
            filled(bridged, start, stop, np.ones(3)), values[:, start:stop] - 1, atol=1e-6
        )
        np.testing.assert_array_equal(bridged.read(start, stop), values[:, start:stop])


def test_spans_of_one_channel_are_interpolated_and_no_other_changes():
    x = np.random.default_rng(0).normal(size=(3, 100))
    broken = x.copy()
    broken[1, :5] = broken[1, 20:30] = broken[1, 99] = np.nan
    values = bridge_spans(ArraySource(broken), {1: [(0, 5), (20, 30), (99, 100)]}).read(0, 100)
    np.testing.assert_array_equal(values[[0, 2]], x[[0, 2]])
    known = np.isfinite(broken[1])
    expected = np.interp(np.arange(100), np.flatnonzero(known), x[1, known])
    np.testing.assert_allclose(values[1], expected)


def test_level_sees_the_pieces_only():
    x = np.random.default_rng(0).normal(3, 1, size=(2, 5000))
    x[1] = np.nan
    spoiled = x.copy()
    spoiled[:, 2000:3000] = 1e9
    pieces = [(0, 2000), (3000, 5000)]
    found = level(ArraySource(x), pieces)
    np.testing.assert_array_equal(found, level(ArraySource(spoiled), pieces))
    assert abs(found[0] - 3) < 0.3 and found[1] == 0
    assert not level(ArraySource(x), []).any()


def test_excerpt_equals_the_filtered_recording():
    x = 1e-5 * np.random.default_rng(0).normal(size=(3, 40_000)) + 0.1
    matrix = np.array([[1.0, -1, 0], [0, 0.5, 0.5]])
    info = mne.create_info(["a-b", "m"], 200.0, "eeg")
    raw = excerpt(ArraySource(x), matrix, 1.0, 20.0, 50.0, None, info=info)
    expected = mne.filter.filter_data(x, 200.0, 1.0, 20.0, verbose="error")
    expected = resample_poly(expected, 1, 4, axis=1)
    np.testing.assert_allclose(raw.get_data()[:, 500:-500], (matrix @ expected)[:, 500:-500],
                               atol=2e-3 * 1e-5)  # fmt: skip
    assert raw.ch_names == ["a-b", "m"] and raw.info["sfreq"] == 50
    assert (raw.info["highpass"], raw.info["lowpass"]) == (1.0, 20.0)
    short = excerpt(ArraySource(x), None, 1.0, 20.0, 50.0, 70.0)
    assert 45 <= short.times[-1] <= 70
    assert list(short.annotations.description) == ["EDGE boundary"]
    # Pieces at both ends of the recording, filtered with their surroundings.
    np.testing.assert_allclose(short.get_data()[:, :1400], excerpt(
        ArraySource(x), None, 1.0, 20.0, 50.0, None).get_data()[:, :1400], atol=1e-10)  # fmt: skip


def test_f36_excerpt_sees_nothing_but_what_is_allowed():
    x = np.random.default_rng(0).normal(size=(3, 40_000))
    mask = np.zeros(40_000, bool)
    mask[1000:9000] = mask[9500:9550] = mask[12_000:31_000] = True
    spoiled = x.copy()
    spoiled[:, ~mask] = 1e6
    raws = [
        excerpt(ArraySource(data, breaks=[(5000, 5100)]), None, 1.0, 20.0, 50.0, 60.0, mask)
        for data in (x, spoiled)
    ]
    np.testing.assert_array_equal(raws[0].get_data(), raws[1].get_data())
    assert 30 < raws[0].times[-1] <= 60
    with pytest.raises(DataError, match="nothing is left to fit on"):
        excerpt(ArraySource(x), None, 1.0, 20.0, 50.0, 60.0, np.zeros(40_000, bool))


def test_pieces_of_an_excerpt_are_spread_evenly():
    assert choose([(0, 50), (60, 90)], 100, 10) == [(0, 50), (60, 90)]
    assert choose([(0, 1000)], 300, 100) == [(0, 100), (400, 500), (900, 1000)]
    assert choose([(0, 1000)], 900, 100) == [(0, 500), (600, 1000)]
    assert choose([(0, 1000)], 50, 100) == [(0, 50)]
    rng = np.random.default_rng(0)
    for _ in range(50):
        edges = np.sort(rng.choice(5000, 8, replace=False)).reshape(4, 2)
        runs = [tuple(map(int, edge)) for edge in edges]
        pieces = choose(runs, 700, 60)
        assert sum(b - a for a, b in pieces) <= 700
        assert all(any(s <= a < b <= e for s, e in runs) for a, b in pieces)
        assert all(p[1] <= q[0] for p, q in zip(pieces, pieces[1:]))
