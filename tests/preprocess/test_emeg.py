"""EEG and MEG to stores: planted faults and signals, and the same numbers as MNE."""

from __future__ import annotations

import json

import mne
import numpy as np
import pandas as pd
import pytest
from scipy.signal import resample_poly

from braindecode_pipe.errors import DataError, RecipeError, UnitError
from braindecode_pipe.preprocess import input_files
from braindecode_pipe.preprocess.filtering import ratio_of
from braindecode_pipe.preprocess.steps import good_times
from braindecode_pipe.preprocess.stepwise import resample
from braindecode_pipe.recipe import PreprocessSection
from braindecode_pipe.store import open_signal, open_store, store_hash, verify_store

PLAIN = {
    "detect_bads": False, "bads": "keep", "l_freq": None, "h_freq": None, "sfreq": None,
    "scaler": "none", "clamp": None,
}  # fmt: skip


def test_nothing_asked_for_gives_the_recording(study, make_eeg, channel_names):
    root, qc = study(**PLAIN)
    np.testing.assert_allclose(root["signal"].values, make_eeg(), atol=1e-10)
    assert list(root["sensor"].values) == channel_names
    assert set(root["unit"].values) == {"V"} and set(root["kind"].values) == {"eeg"}
    assert root.attrs["sfreq"] == 200 and root.attrs["first_time"] == 0
    np.testing.assert_allclose(root["time"].values, np.arange(4000) / 200)
    assert root["time_good"].values.all() and root["sensor_good"].values.all()
    assert root.attrs["data_origin"] == "simulated" and root.attrs["content_hash"] == "0" * 64
    assert qc.attrs["kind"] == "qc" and qc.attrs["good_share"] == 1
    assert set(qc["unit"].values) == {"V"} and set(qc["kind"].values) == {"eeg"}
    assert (abs(np.log10(qc["amplitude"].values / 20e-6)) < 0.3).all()


def test_filters_equal_the_calls_of_mne(study, make_eeg, channel_names):
    root, _ = study(**{**PLAIN, "notch": [50.0], "l_freq": 1.0, "h_freq": 30.0})
    raw = mne.io.RawArray(make_eeg(), mne.create_info(channel_names, 200.0, "eeg"), verbose="error")
    raw.filter(1.0, 30.0, verbose="error")
    np.testing.assert_allclose(root["signal"].values, raw.get_data(), atol=1e-10)
    taps = mne.filter.create_filter(None, 200.0, 1.0, 30.0, verbose="error")
    assert root.attrs["filter_half_length_s"] == pytest.approx((len(taps) - 1) / 2 / 200)


def test_planted_line_noise_and_its_harmonic_are_removed(study, make_eeg):
    data = make_eeg(n_times=8000)
    t = np.arange(8000) / 200
    line = 1e-5 * (np.sin(2 * np.pi * 30 * t) + 0.5 * np.sin(2 * np.pi * 60 * t))
    kept, _ = study(data + line, **PLAIN, out="kept.zarr")
    root, qc = study(data + line, **{**PLAIN, "notch": [30.0]}, out="notched.zarr")
    freqs = qc["freq"].values
    before, after = qc["psd_before"].values, qc["psd_after"].values
    for line_freq in (30, 60):
        at = int(np.flatnonzero(freqs == line_freq)[0])
        assert (before[:, at] > 20 * before[:, at + 8]).all()
        assert (after[:, at] < 3 * after[:, at + 8]).all()
    # 10 Hz is not touched.
    ten = int(np.flatnonzero(freqs == 10)[0])
    np.testing.assert_allclose(after[:, ten], before[:, ten], rtol=0.02)
    assert "notch at 30, 60, 90 Hz" in root.attrs["steps"]
    assert not np.allclose(kept["signal"].values, root["signal"].values)


def test_notch_stops_above_the_low_pass(study):
    root, _ = study(**{**PLAIN, "notch": [20.0], "h_freq": 30.0})
    assert "notch at 20 Hz" in root.attrs["steps"]


def test_low_pass_at_nyquist_is_left_out_and_said(study):
    _, qc = study(**{**PLAIN, "h_freq": 100.0})
    assert any("not below 100 Hz (Nyquist)" in text for text in qc.attrs["warnings"])


def test_filters_do_not_run_across_breaks(tmp_path, make_eeg, channel_names, run_stage):
    data = make_eeg(n_times=6000)
    paths = []
    for name, jump in (("a", 0.0), ("b", 5e-4)):
        values = data.copy()
        values[:, 3000:] += jump
        values[:, 2900:3000] = 0
        raw = mne.io.RawArray(values, mne.create_info(channel_names, 200.0, "eeg"), verbose="error")
        raw.set_annotations(mne.Annotations([14.5], [0.5], ["BAD_ACQ_SKIP"]))
        raw.save(tmp_path / f"{name}_raw.fif", verbose="error")
        paths.append(run_stage(tmp_path, f"{name}_raw.fif", tmp_path / f"{name}.zarr",
                               emeg={**PLAIN, "l_freq": 1.0, "h_freq": 30.0}))  # fmt: skip
    a, b = (open_store(path) for path in paths)
    # The jump is 5e-4; what is subtracted before the samples become float32 differs.
    np.testing.assert_allclose(
        a["signal"].values[:, :2900], b["signal"].values[:, :2900], rtol=0, atol=2e-10
    )
    good = a["time_good"].values
    assert not good[2900:3000].any() and good[:2899].all() and good[3001:].all()


def test_f14_nan_raises_and_names_the_channel(study, make_eeg):
    data = make_eeg()
    data[3, 1000:1005] = np.nan
    with pytest.raises(DataError, match="not finite(.|\n)*F3: 5 of 4000 samples, first at 1000"):
        study(data)


@pytest.mark.parametrize("engine", ["fast", "mne"])
@pytest.mark.parametrize("bads", ["keep", "drop"])
def test_f14_nan_in_one_channel_alters_no_other(bads, engine, study, make_eeg, channel_names):
    data = make_eeg()
    settings = {"nan": "mark-bad", "bads": bads, "reference": "average", "engine": engine}
    data[3] = np.nan
    spoiled, qc = study(data, **settings, out="spoiled.zarr")
    names = [name for name in channel_names if name != "F3"]
    data = make_eeg()
    data[3] = 1e-5
    clean, _ = study(data, **settings, out="clean.zarr")
    clean = clean.isel(sensor=[list(clean["sensor"].values).index(n) for n in names])
    left = spoiled.isel(sensor=[list(spoiled["sensor"].values).index(n) for n in names])
    np.testing.assert_array_equal(left["signal"].values, clean["signal"].values)
    assert np.isfinite(spoiled["signal"].values).all()
    reasons = dict(zip(qc["sensor"].values, qc["bad_reason"].values))
    assert reasons["F3"].startswith("not finite: 4000 of 4000")
    if bads == "keep":
        assert list(spoiled["sensor"].values[~spoiled["sensor_good"].values]) == ["F3"]
    else:
        assert "F3" not in spoiled["sensor"].values


def test_f15_flat_channel_without_positions_stays_bad_and_zero(study, make_eeg):
    data = make_eeg()
    data[7] = 1e-5
    root, qc = study(data)
    assert not root["sensor_good"].values[7] and root["sensor_good"].values.sum() == 18
    assert not root["signal"].values[7].any()
    assert str(qc["bad_reason"].values[7]).startswith("flat")
    assert any("bad and not interpolated" in text for text in qc.attrs["warnings"])


def test_planted_bad_channel_is_interpolated_when_places_are_known(study, channel_names):
    montage = mne.channels.make_standard_montage("biosemi64")
    place = np.array([montage.get_positions()["ch_pos"][name] for name in channel_names])
    rng = np.random.default_rng(0)
    smooth = 20e-6 * (place / 0.1) @ rng.normal(size=(3, 4000))
    spoiled = smooth.copy()
    spoiled[9] = 50 * 20e-6 * rng.normal(size=4000)
    root, qc = study(spoiled, **{**PLAIN, "montage": "biosemi64", "detect_bads": True,
                                 "bads": "interpolate"})  # fmt: skip
    assert root["sensor_good"].values.all()
    assert "interpolated bad channels: Cz" in root.attrs["steps"]
    assert str(qc["bad_reason"].values[9]).endswith("(interpolated)")
    assert np.corrcoef(root["signal"].values[9], smooth[9])[0, 1] > 0.9
    others = np.delete(np.arange(19), 9)
    np.testing.assert_allclose(root["signal"].values[others], spoiled[others], atol=1e-10)


def test_f15_dropping_every_channel_is_an_error(study):
    with pytest.raises(DataError, match="every channel is bad"):
        study(np.full((19, 4000), 1e-5), bads="drop")


def test_f16_positions_missing_or_from_a_montage(study, channel_names):
    root, qc = study(**PLAIN, out="a.zarr")
    assert np.isnan(root["position"].values).all() and root.attrs["position_frame"] == "unknown"
    assert any("19 sensors without position" in text for text in qc.attrs["warnings"])
    root, qc = study(**{**PLAIN, "montage": "standard_1020"}, out="b.zarr")
    radius = np.linalg.norm(root["position"].values, axis=1)
    assert ((radius > 0.07) & (radius < 0.15)).all() and root.attrs["position_frame"] == "head"
    with pytest.raises(RecipeError, match="unknown montage(.|\n)*biosemi64(.|\n)*standard_2020"):
        study(**{**PLAIN, "montage": "standard_2020"})


def test_f16_impossible_positions_are_left_out(tmp_path, make_eeg, channel_names, run_stage):
    info = mne.create_info(channel_names, 200.0, "eeg")
    montage = mne.channels.make_standard_montage("biosemi64")
    raw = mne.io.RawArray(make_eeg(), info, verbose="error").set_montage(montage)
    for channel in raw.info["chs"]:
        channel["loc"][:3] *= 1000
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    out = run_stage(tmp_path, "a_raw.fif", tmp_path / "a.zarr", emeg=PLAIN)
    assert np.isnan(open_store(out)["position"].values).all()
    warnings = open_store(out, "qc").attrs["warnings"]
    assert any("fits after multiplication by 1e-3" in text for text in warnings)
    out = run_stage(tmp_path, "a_raw.fif", tmp_path / "b.zarr",
                    emeg={**PLAIN, "montage": "standard_1020"})  # fmt: skip
    assert (np.linalg.norm(open_store(out)["position"].values, axis=1) < 0.15).all()


def test_f18_microvolts_taken_for_volts(study, make_eeg):
    with pytest.raises(UnitError, match="eeg amplitudes cannot be in V(.|\n)*1e-6"):
        study(make_eeg() * 1e6)


def test_average_reference_leaves_bad_channels_out(study, make_eeg):
    data = make_eeg()
    data[4] *= 50
    root, _ = study(data, **{**PLAIN, "detect_bads": True, "reference": "average"})
    good = np.delete(np.arange(19), 4)
    np.testing.assert_allclose(
        root["signal"].values[good], data[good] - data[good].mean(axis=0), atol=1e-10
    )


def test_rejected_spans_with_margin_and_their_share(study, make_eeg):
    data = make_eeg()
    data[2, 1000:1010] = 4e-4
    root, qc = study(data, **{**PLAIN, "reject_amplitude": {"eeg": 2e-4}, "reject_margin_s": 0.1})
    bad = np.flatnonzero(~root["time_good"].values)
    np.testing.assert_array_equal(bad, np.arange(980, 1030))
    assert qc.attrs["good_share"] == pytest.approx(1 - 50 / 4000)
    with pytest.raises(RecipeError, match="unknown channel type(.|\n)*eegg"):
        study(data, reject_amplitude={"eegg": 1e-4})


def test_rejection_counts_all_channels_when_all_are_bad(study, make_eeg):
    data = np.clip(make_eeg(), -1e-5, 1e-5)
    root, qc = study(data, **{**PLAIN, "detect_bads": True, "reject_amplitude": {"eeg": 5e-6}})
    assert not root["sensor_good"].values.any()
    assert qc.attrs["good_share"] < 0.1


def test_good_times_equals_the_loop():
    rng = np.random.default_rng(0)
    bad = rng.random(1000) < 0.02
    times = np.arange(469) / 120.0
    expected = [
        not any(bad[k] for k in range(1000) if abs(k / 256 - t) <= 0.5 / 120 + 1e-12) for t in times
    ]
    np.testing.assert_array_equal(good_times(bad, 256.0, times, 120.0), expected)


@pytest.mark.parametrize("sfreq", [256.0, 1017.25, 600.615, 678.1699829])
def test_resampling_does_not_drift(sfreq):
    n = int(120 * sfreq) + 12
    (up, down), rate = ratio_of(120.0, sfreq, 120.0), 120.0
    wave = np.sin(2 * np.pi * 7 * np.arange(n) / sfreq)
    found = resample(wave, up, down)
    expected = np.sin(2 * np.pi * 7 * np.arange(len(found)) / rate)
    inner = slice(240, -240)
    # 1e-3 of a 7 Hz wave is 23 us.
    assert np.abs(found - expected)[inner].max() < 2e-3


def test_resampling_never_goes_up_and_equals_scipy(study, make_eeg):
    root, qc = study(**{**PLAIN, "sfreq": 300.0}, out="a.zarr")
    assert root.attrs["sfreq"] == 200 and any("rate kept" in w for w in qc.attrs["warnings"])
    root, _ = study(**{**PLAIN, "sfreq": 120.0}, out="b.zarr")
    expected = resample_poly(make_eeg(), 3, 5, axis=1, padtype="line")
    inner = slice(20, -20)
    error = root["signal"].values[:, inner] - expected[:, inner]
    # Images of the spectrum that scipy leaves at -60 dB are left out.
    assert error.std() < 1e-3 * expected.std()
    assert root.attrs["sfreq"] == 120 and root.sizes["time"] == 2400
    root, _ = study(**{**PLAIN, "sfreq": 120.0, "engine": "mne"}, out="c.zarr")
    np.testing.assert_allclose(root["signal"].values, expected, atol=1e-10)


def test_scaler_and_clamp_are_their_formula(study, make_eeg):
    data = make_eeg()
    data[0, 500] = 0.01
    settings = {**PLAIN, "scaler": "robust", "clamp": 3.0, "reject_amplitude": {"eeg": 1e-3}}
    root, _ = study(data, **settings)
    good = root["time_good"].values
    assert list(np.flatnonzero(~good)) == [500]
    low, median, high = np.percentile(data[:, good], [25, 50, 75], axis=1)
    expected = np.clip((data - median[:, None]) / (high - low)[:, None], -3, 3)
    np.testing.assert_allclose(root["signal"].values, expected, atol=1e-4)
    assert set(root["unit"].values) == {"a.u."}


def test_picks_by_type_and_by_name(study, channel_names):
    root, _ = study(**{**PLAIN, "picks": ["Cz", "O1"]})
    assert list(root["sensor"].values) == ["Cz", "O1"]
    with pytest.raises(DataError, match="none of the picked channels(.|\n)*mag(.|\n)*eeg"):
        study(picks=["mag"])


def test_edges_that_cross_are_a_recipe_error(study):
    with pytest.raises(RecipeError, match="high-pass edge above"):
        study(**{**PLAIN, "l_freq": 30.0, "h_freq": 10.0})


def test_f46_equal_work_gives_equal_bytes_anywhere(
    tmp_path, make_eeg, channel_names, write_brainvision, run_stage
):
    stores = []
    for folder in ("one", "two"):
        write_brainvision(tmp_path / folder, make_eeg(), channel_names)
        stores.append(run_stage(tmp_path / folder, "rec.vhdr", tmp_path / f"{folder}.zarr"))
    assert store_hash(stores[0]) == store_hash(stores[1])
    one, two = ({p.relative_to(s): p.read_bytes() for p in s.rglob("*") if p.is_file()}
                for s in stores)  # fmt: skip
    assert one == two
    assert verify_store(stores[0]) == []


def test_no_person_day_or_host_in_a_store(tmp_path, make_eeg, channel_names, run_stage):
    raw = mne.io.RawArray(make_eeg(), mne.create_info(channel_names, 200.0, "eeg"), verbose="error")
    raw.set_meas_date(1_234_567_890)
    raw.info["subject_info"] = {"his_id": "Erika Mustermann", "birthday": pd.Timestamp(
        "1964-08-12").date()}  # fmt: skip
    raw.info["experimenter"], raw.info["description"] = "Dr Who", "room 101"
    raw.set_annotations(mne.Annotations([5.0], [1.0], ["BAD_span"], raw.info["meas_date"]))
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    out = run_stage(tmp_path, "a_raw.fif", tmp_path / "a.zarr", emeg=PLAIN)
    everything = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    for secret in (
        b"Mustermann",
        b"1964",
        b"Dr Who",
        b"room 101",
        b"2009-02",
        str(tmp_path).encode(),
    ):
        assert secret not in everything
    json.loads(open_store(out).attrs["info"])
    assert list(np.flatnonzero(~open_store(out)["time_good"].values)[[0, -1]]) == [1000, 1199]


def test_meg_positions_are_brought_to_the_head(tmp_path, run_stage):
    info = mne.channels.read_meg_canonical_info("neuromag")
    info = mne.pick_info(info, np.r_[0:24, 303:306])
    trans = np.eye(4)
    trans[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    trans[:3, 3] = [0.0, 0.01, 0.04]
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
    rng = np.random.default_rng(0)
    scale = [5e-12 if kind == "grad" else 2e-13 for kind in info.get_channel_types()]
    data = rng.normal(size=(27, 2000)) * np.array(scale)[:, None]
    with info._unlock():
        info["sfreq"] = 200.0
    mne.io.RawArray(data, info, verbose="error").save(tmp_path / "a_raw.fif", verbose="error")
    out = run_stage(tmp_path, "a_raw.fif", tmp_path / "a.zarr", "meg", emeg=PLAIN)
    root = open_store(out)
    loc = np.array([channel["loc"] for channel in info["chs"]])
    for found, row in zip(root["position"].values, loc):
        np.testing.assert_allclose(found, mne.transforms.apply_trans(trans, row[:3]), atol=1e-6)
    np.testing.assert_allclose(
        root["orientation"].values, loc[:, 9:12] @ trans[:3, :3].T, atol=1e-6
    )
    assert root.attrs["position_frame"] == "head"
    assert set(zip(root["kind"].values, root["unit"].values)) == {("grad", "T/m"), ("mag", "T")}


def test_bids_sidecars_give_types_and_bad_channels(
    tmp_path, make_eeg, channel_names, write_brainvision, run_stage
):
    folder = tmp_path / "sub-01" / "eeg"
    write_brainvision(folder, make_eeg(), channel_names, "sub-01_task-x_eeg")
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    (folder / "sub-01_task-x_eeg.json").write_text('{"PowerLineFrequency": 50}')
    lines = ["name\ttype\tunits\tstatus"]
    for name in channel_names:
        kind = "EOG" if name == "Fp1" else "EEG"
        lines.append(f"{name}\t{kind}\tµV\t{'bad' if name == 'Pz' else 'good'}")
    (folder / "sub-01_task-x_channels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    events = folder / "sub-01_task-x_events.tsv"
    events.write_text("onset\tduration\ttrial_type\n2.0\t0.5\tBAD_movement\n4.0\t0\tface\n")
    name = "sub-01/eeg/sub-01_task-x_eeg.vhdr"
    out = run_stage(tmp_path, name, tmp_path / "out.zarr", emeg=PLAIN)
    root, qc = open_store(out), open_store(out, "qc")
    assert "Fp1" not in root["sensor"].values and root.sizes["sensor"] == 18
    assert list(root["sensor"].values[~root["sensor_good"].values]) == ["Pz"]
    assert "marked as bad in the data set" in qc["bad_reason"].values
    bad = np.flatnonzero(~root["time_good"].values)
    assert (bad[0], bad[-1]) == (400, 499)
    row = {"datatype": "eeg", "path": name}
    assert input_files(PreprocessSection(), row, tmp_path) == [events.resolve()]
    assert not any(str(tmp_path) in text for text in qc.attrs["warnings"])


def test_epochs_become_a_response_store(tmp_path, make_eeg, channel_names, run_stage):
    data = make_eeg(n_times=30 * 200).reshape(19, 30, 200).transpose(1, 0, 2)
    data[4, 2, 50] = 1e-3
    info = mne.create_info(channel_names, 100.0, "eeg")
    mne.EpochsArray(data, info, tmin=-0.5, verbose="error").save(
        tmp_path / "a-epo.fif", verbose="error"
    )
    settings = {**PLAIN, "l_freq": 0.1, "reject_amplitude": {"eeg": 5e-4}, "sfreq": 50.0}
    out = run_stage(tmp_path, "a-epo.fif", tmp_path / "a.zarr", "epochs", emeg=settings)
    root = open_store(out)
    assert root["response"].dims == ("event", "sensor", "time")
    assert root.sizes["event"] == 30 and root.sizes["time"] == 100
    assert list(root["event"].values[[0, 29]]) == ["a-epo:00000", "a-epo:00029"]
    assert root["time"].values[0] == pytest.approx(-0.5)
    assert list(np.flatnonzero(~root["event_good"].values)) == [4]
    expected = resample_poly(data, 1, 2, axis=-1, padtype="line")
    np.testing.assert_allclose(root["response"].values, expected, atol=1e-10)
    assert "no filter: the recording comes already epoched" in root.attrs["steps"]
    assert open_signal(out).kind == "response"
