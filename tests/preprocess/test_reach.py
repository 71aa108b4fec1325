"""How far a sample is felt after preprocessing: against impulses, and against what stores say."""

from __future__ import annotations

import math

import mne
import numpy as np
import pytest

from braindecode_pipe.preprocess.reach import (
    butterworth_reach,
    fir_half_length,
    notch_half_length,
    reach,
)
from braindecode_pipe.recipe import PreprocessSection

EEG = {"datatype": "eeg", "sfreq": 100.0}


def of(recording, **sections):
    return reach(PreprocessSection.model_validate(sections), recording)


def felt(signal, at, sfreq):
    """Furthest sample [s] from an impulse that is more than rounding."""
    there = np.flatnonzero(np.abs(signal) > 1e-9 * np.abs(signal).max())
    return np.abs(there - at).max() / sfreq


@pytest.mark.parametrize("edges", [(0.5, None), (None, 30.0), (0.5, 40.0), (1.0, 30.0)])
def test_band_pass_is_felt_exactly_so_far(edges):
    impulse = np.zeros(4001)
    impulse[2000] = 1.0
    out = mne.filter.filter_data(impulse, 100.0, *edges, verbose="error")
    half = fir_half_length(100.0, *edges)
    assert half * 0.9 <= felt(out, 2000, 100.0) <= half + 1e-9


def test_half_a_hertz_takes_661_taps_as_known():
    assert fir_half_length(100.0, 0.5, None) == pytest.approx(3.3)
    assert of(EEG, emeg={"l_freq": 0.5, "h_freq": None, "sfreq": None}).total == pytest.approx(3.3)


@pytest.mark.parametrize("lines", [[50.0], [50.0, 100.0]])
def test_notch_is_felt_so_far(lines):
    impulse = np.zeros(10001)
    impulse[5000] = 1.0
    out = mne.filter.notch_filter(impulse, 250.0, lines, verbose="error")
    half = notch_half_length(250.0, 50.0)
    assert half * 0.9 <= felt(out, 5000, 250.0) <= half + 1e-9


def test_filters_in_a_row_add_up_and_resampling_counts():
    plain = of({"datatype": "meg", "sfreq": 1000.0}, emeg={"sfreq": None})
    lines = of({"datatype": "meg", "sfreq": 1000.0}, emeg={"sfreq": None, "notch": [50.0]})
    assert lines.filters == pytest.approx(plain.filters + notch_half_length(1000.0, 50.0))
    slow = of({"datatype": "meg", "sfreq": 1000.0}, emeg={"sfreq": 100.0})
    assert slow.filters == pytest.approx(plain.filters + 0.1)
    assert plain.memory == 0


def test_what_remembers_is_counted_apart():
    causal = of(EEG, emeg={"scaler_scope": "causal", "scaler_window_s": 30.0})
    assert causal.memory == 30.0 and causal.total == causal.filters + 30.0
    assert of(EEG, emeg={"scaler_scope": "causal", "scaler": "none"}).memory == 0
    assert of(EEG, emeg={"maxwell": {"st_duration_s": 10.0}}).memory == 20.0
    assert of({"datatype": "epochs", "sfreq": 100.0}).total == 0


def test_bold():
    bold = {"datatype": "bold", "sfreq": 0.5}
    assert of(bold, bold={"high_pass": 0.01, "detrend": True}).total == 0  # regressions
    assert math.isinf(of(bold, bold={"responses": "lss"}).total)
    half = of(bold, bold={"low_pass": 0.1}).total
    from nilearn.signal import butterworth

    impulse = np.zeros((801, 1))
    impulse[400] = 1.0
    out = butterworth(impulse, 0.5, low_pass=0.1)[:, 0]
    n = round(half * 0.5)
    inside = (out[400 - n : 401 + n] ** 2).sum() / (out**2).sum()
    assert 1 - 2e-6 <= inside < 1 and 10 < half < 100
    assert butterworth_reach(0.5, 0.3) == 0 and butterworth_reach(math.nan, 0.1) == 100.0
