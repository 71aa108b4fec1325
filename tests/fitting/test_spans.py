"""Times of events to samples and back: dummy scans, scrubbed volumes, recordings with holes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.delay import estimate_delay
from braindecode_pipe.fitting.lag import bold_lag
from braindecode_pipe.fitting.spans import sample_at, time_of
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import WindowSection
from braindecode_pipe.schema import sensor_coords, signal_dataset
from braindecode_pipe.store import open_signal, write_store

T_R, DUMMIES, N_SCANS = 1.5, 4, 220


class Clock:
    """What the mapping looks at, and nothing else."""

    def __init__(self, first_time, sfreq, n_times):
        self.first_time, self.sfreq, self.n_times = first_time, sfreq, n_times
        self.times = first_time + np.arange(n_times) / sfreq


@settings(max_examples=100, deadline=None)
@given(
    t_r=st.floats(0.001, 4.0), dummies=st.integers(0, 20), n=st.integers(1, 3000),
    data=st.data(),
)  # fmt: skip
def test_f25_every_sample_comes_back(t_r, dummies, n, data):
    signal = Clock(dummies * t_r, 1 / t_r, n)
    sample = data.draw(st.integers(-5, n + 5))
    assert sample_at(signal, time_of(signal, sample)) == sample
    scan = sample + dummies  # of the file, dummy scans among them
    assert sample_at(signal, scan * t_r) == sample
    assert sample_at(signal, (scan + 0.49) * t_r) == sample
    assert sample_at(signal, (scan + 0.51) * t_r) == sample + 1


@pytest.fixture
def scanned(make_signal):
    """A run without its dummy scans; ``sample_mask`` (of the file's scans) leaves out others."""
    rng = np.random.default_rng(0)
    scrubbed = np.array([20, 21, 90, 150])
    sample_mask = np.setdiff1d(np.arange(DUMMIES, N_SCANS), scrubbed)
    onset = np.arange(8) * 36.0 + 21.0
    scans = np.arange(N_SCANS) * T_R
    shown = ((scans[:, None] >= onset + 4.5) & (scans[:, None] < onset + 22.5)).any(1)
    data = rng.normal(size=(20, N_SCANS)) + 3 * shown
    spoiled = data.copy()
    spoiled[:, scrubbed] = 1e4
    good = np.isin(np.arange(DUMMIES, N_SCANS), sample_mask)
    signals = [
        make_signal(name, values[:, DUMMIES:], 1 / T_R, first_time=DUMMIES * T_R, time_good=good)
        for name, values in (("a", data), ("b", spoiled))
    ]
    return signals, data, onset, sample_mask


def test_f25_windows_are_the_scans_of_the_file(scanned):
    (signal, _), data, _, sample_mask = scanned
    onset = np.arange(N_SCANS - 3) * T_R
    events = pd.DataFrame(
        {"event": [f"a:{k}" for k in range(len(onset))], "recording": "a", "subject": "01",
         "onset": onset, "duration": 3 * T_R}
    )  # fmt: skip
    windows = Windows({"a": signal}, events, WindowSection())
    usable = [k for k in range(len(onset)) if set(range(k, k + 3)) <= set(sample_mask)]
    assert windows.rows().tolist() == usable
    found = windows.read(windows.rows())
    for row, scan in zip(found, usable):
        assert np.array_equal(row, data[:, scan : scan + 3].astype(np.float32))
    assert windows.dropped["window leaves the recording"] == DUMMIES
    assert sum(windows.dropped.values()) == len(onset) - len(usable)
    assert np.array_equal(np.flatnonzero(signal.time_good) + DUMMIES, sample_mask)


def test_f25_scrubbed_scans_move_no_delay_and_no_lag(scanned):
    (signal, spoiled), _, onset, _ = scanned
    delays, lags = [], []
    for name, own in (("a", signal), ("b", spoiled)):
        events = pd.DataFrame(
            {"event": [f"{k}" for k in range(8)], "recording": name, "subject": "01",
             "onset": onset, "duration": 18.0}
        )  # fmt: skip
        delays.append(estimate_delay({name: own}, events, 12.0))
        lags.append(bold_lag(own, onset - own.first_time, np.full(8, 18.0)))
    assert delays[0].delay == delays[1].delay == 4.5
    assert np.array_equal(delays[0].correlation, delays[1].correlation)
    assert np.array_equal(lags[0].curve, lags[1].curve) and 4.0 <= lags[0].lag <= 5.0


def test_f25_a_time_axis_with_holes_is_refused(tmp_path):
    times = np.delete(np.arange(100) * T_R, [40, 41, 42])
    dataset = signal_dataset(
        np.zeros((2, 97), np.float32), sensor_coords(["a", "b"], "voxel", "a.u."), times,
        {"data_origin": "simulated", "sfreq": 1 / T_R},
    )  # fmt: skip
    write_store(tmp_path / "x.zarr", {"": dataset})
    with pytest.raises(DataError, match="samples are missing from the time axis"):
        sample_at(open_signal(tmp_path / "x.zarr"), 3.0)
