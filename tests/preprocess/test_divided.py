"""Divided recordings, what scalers see, gaps, and the two engines of EEG and MEG."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import DataError, LeakageError, RecipeError
from braindecode_pipe.preprocess import run
from braindecode_pipe.recipe import PreprocessSection
from braindecode_pipe.store import open_store

PLAIN = {
    "detect_bads": False, "bads": "keep", "l_freq": None, "h_freq": None, "sfreq": None,
    "scaler": "none", "clamp": None,
}  # fmt: skip

TESTED = [(30.0, 45.0), (70.0, 72.0)]
EXTENTS = ((0.0, 30.0), (45.0, 70.0), (72.0, 100.0))


def spoil(data: np.ndarray) -> np.ndarray:
    """Other samples in the test windows, one of them a copied channel and much stronger."""
    rng = np.random.default_rng(5)
    spoiled = data.copy()
    for start, stop in TESTED:
        part = slice(int(start * 200), int(stop * 200))
        spoiled[:, part] = 1e-3 * rng.normal(size=spoiled[:, part].shape)
        spoiled[3, part] = spoiled[4, part]
        spoiled[7, part] = 0
    return spoiled


@pytest.fixture
def divided(tmp_path, channel_names, write_brainvision, row):
    """``divided(data, extents, **emeg)`` -> root of the store, fitted inside ``extents``."""

    def call(data, extents=EXTENTS, name="out", **emeg):
        write_brainvision(tmp_path / name, data, channel_names)
        section = PreprocessSection(emeg={"h_freq": 40.0, "sfreq": 100.0, **emeg})
        out = tmp_path / f"{name}.zarr"
        run(section, row("rec.vhdr"), tmp_path / name, out, allow_truncated=False,
            data_origin="simulated", fit_extents=extents)  # fmt: skip
        return open_store(out)

    return call


@pytest.mark.parametrize("engine", ["fast", "mne"])
@pytest.mark.parametrize("scaler", ["robust", "standard"])
def test_f36_no_test_sample_changes_what_is_fitted(divided, make_eeg, engine, scaler):
    data = make_eeg(n_times=20_000)
    data[11] *= 40
    settings = {"engine": engine, "scaler": scaler, "l_freq": 0.5, "montage": "standard_1020",
                "reject_amplitude": {"eeg": 3e-4}}  # fmt: skip
    a, b = divided(data, name="a", **settings), divided(spoil(data), name="b", **settings)
    for name in ("offset", "gain", "sensor_good"):
        np.testing.assert_array_equal(a[name].values, b[name].values)
    assert a.attrs["scaler"] == b.attrs["scaler"]
    assert a.attrs["scaler"]["scope"] == "per_recording" and "T8" in str(a.attrs["steps"])
    assert 7000 < a.attrs["scaler"]["n_samples"] <= 8300
    assert "fitted on 83.0 s outside of the test windows" in a.attrs["steps"]
    # Without a division the test samples count.
    c = divided(spoil(data), None, name="c", **settings)
    assert (c["gain"].values != a["gain"].values).all()
    # What is fitted is close to a fit on the recording itself, where nothing was spoiled.
    d = divided(data, None, name="d", **settings)
    np.testing.assert_allclose(a["gain"].values, d["gain"].values, rtol=0.1)


def test_f36_too_little_outside_of_the_test_windows(divided, make_eeg, tmp_path):
    data, short = make_eeg(n_times=20_000), ((3.0, 6.0), (50.0, 56.0))
    with pytest.raises(LeakageError, match=r"10 s or more(.|\n)*scaler(.|\n)*9 s(.|\n)*train_only"):
        divided(data, short)
    with pytest.raises(LeakageError, match="found: 0 s"):
        divided(data, ())
    for scope in ("train_only", "causal"):
        root = divided(data, short, name=scope, scaler_scope=scope, scaler_window_s=10.0)
        assert root.attrs["scaler"]["scope"] == scope
        qc = open_store(tmp_path / f"{scope}.zarr", "qc")
        assert any("bad channels were not looked for" in text for text in qc.attrs["warnings"])


def test_scaler_for_the_training_windows_leaves_units(divided, make_eeg):
    data = make_eeg(n_times=20_000)
    scaled = divided(data, None, name="a", scaler_scope="train_only", clamp=0.1)
    plain = divided(data, None, name="b", scaler="none", clamp=0.1)
    np.testing.assert_array_equal(scaled["signal"].values, plain["signal"].values)
    assert set(scaled["unit"].values) == {"V"} and (scaled["gain"].values == 1).all()
    assert scaled.attrs["scaler"] == {"kind": "robust", "scope": "train_only", "n_samples": 0}


def test_causal_scaler_marks_its_first_window(divided, make_eeg):
    data = make_eeg(n_times=20_000) * np.linspace(1, 3, 20_000)
    root = divided(data, None, scaler_scope="causal", scaler_window_s=20.0, clamp=None, l_freq=1.0)
    assert list(np.flatnonzero(~root["time_good"].values)) == list(range(2000))
    assert root.attrs["scaler"]["window_s"] == 20 and root.attrs["scaler"]["scope"] == "causal"
    assert set(root["unit"].values) == {"a.u."}
    values = root["signal"].values
    early, late = values[:, 2000:4000].std(axis=1), values[:, 8000:].std(axis=1)
    np.testing.assert_allclose(late / early, 1, atol=0.25)


@pytest.mark.parametrize("engine", ["fast", "mne"])
def test_f14_interpolated_over_time(study, make_eeg, engine):
    data = make_eeg()
    broken = data.copy()
    broken[3, 1000:1005] = np.nan
    broken[8, 2000] = np.inf
    broken[9] = np.nan
    settings = {**PLAIN, "l_freq": 1.0, "h_freq": 30.0, "engine": engine, "reference": "average"}
    with pytest.raises(DataError, match='preprocess.emeg.nan = "interpolate" or "mark-bad"'):
        study(broken, **settings)
    root, qc = study(broken, **settings, nan="interpolate", out="a.zarr")
    filled = data.copy()
    filled[3, 1000:1005] = np.interp(np.arange(1000, 1005), [999, 1005], data[3, [999, 1005]])
    filled[8, 2000] = (data[8, 1999] + data[8, 2001]) / 2
    filled[9] = 0
    # The file's float32 microvolts are the difference.
    clean, _ = study(filled, **settings, nan="interpolate", out="b.zarr")
    others = np.delete(np.arange(19), 9)
    assert not root["sensor_good"].values[9] and root["sensor_good"].values[others].all()
    bad = np.flatnonzero(~root["time_good"].values)
    assert set(range(1000, 1005)) <= set(bad) and 2000 in bad and len(bad) <= 8
    assert any("interpolated over time" in text and "F3: 5 of 4000" in text
               for text in root.attrs["steps"])  # fmt: skip
    assert qc["bad_reason"].values[9].startswith("not finite: 4000 of 4000")
    if engine == "fast":
        # The average reference sees channel 9 as bad there and as good here.
        settings["reference"] = ""
        root, _ = study(broken, **settings, nan="interpolate", out="c.zarr")
        clean, _ = study(filled, **settings, out="d.zarr")
        np.testing.assert_allclose(
            root["signal"].values[others], clean["signal"].values[others], atol=1e-10
        )


def test_engines_agree_and_say_what_resampled(study, make_eeg):
    data = make_eeg(n_times=12_000)
    settings = {"notch": [50.0], "l_freq": 1.0, "h_freq": 30.0, "sfreq": 120.0, "scaler": "none"}
    fast, _ = study(data, **settings, out="a.zarr")
    reference, _ = study(data, **settings, engine="mne", out="b.zarr")
    inner = slice(600, -600)
    error = fast["signal"].values[:, inner] - reference["signal"].values[:, inner]
    assert error.std() < 2e-3 * reference["signal"].values[:, inner].std()
    for root, engine in ((fast, "fast"), (reference, "mne")):
        assert root.attrs["engine"] == engine and "exact ratio 3/5" in root.attrs["resampler"]
        # Band-pass (3.3 s), and ten output samples of the resampling; no notch above the low-pass.
        assert root.attrs["filter_half_length_s"] == pytest.approx(1.65 + 10 / 120, abs=0.02)


def test_all_kernels_count_in_the_half_length(study, make_eeg):
    root, _ = study(make_eeg(n_times=12_000), notch=[20.0], l_freq=1.0, h_freq=30.0, sfreq=100.0)
    assert root.attrs["filter_half_length_s"] == pytest.approx(3.3 + 1.65 + 0.1, abs=0.03)


def test_lines_too_near_are_a_recipe_error(study):
    with pytest.raises(RecipeError, match=r"no filter has these(.|\n)*notch at .20.0, 20.5. Hz"):
        study(notch=[20.0, 20.5], h_freq=22.0)


def test_neuromag_types_in_one_pass(tmp_path, run_stage):
    info = mne.channels.read_meg_canonical_info("neuromag")
    info = mne.pick_info(info, np.r_[0:306])
    with info._unlock():
        info["sfreq"] = 500.0
    rng = np.random.default_rng(0)
    types = np.array(info.get_channel_types())
    data = rng.normal(size=(306, 10_000)) * np.where(types == "grad", 5e-12, 2e-13)[:, None]
    data[100] *= 40
    mne.io.RawArray(data, info, verbose="error").save(tmp_path / "a_raw.fif", verbose="error")
    out = run_stage(tmp_path, "a_raw.fif", tmp_path / "a.zarr", "meg",
                    emeg={"l_freq": 1.0, "bads": "keep"})  # fmt: skip
    root, qc = open_store(out), open_store(out, "qc")
    assert root.sizes["sensor"] == 306
    assert list(np.flatnonzero(~root["sensor_good"].values)) == [100]
    assert "x the median amplitude of its type" in str(qc["bad_reason"].values[100])
    quartiles = np.quantile(root["signal"].values, [0.25, 0.5, 0.75], axis=1)
    np.testing.assert_allclose(quartiles[2] - quartiles[0], 1, atol=1e-3)
    np.testing.assert_allclose(quartiles[1], 0, atol=1e-3)
    assert np.isfinite(qc["psd_after"].values).all()
