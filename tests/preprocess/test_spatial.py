"""What combines channels, all the way to the store."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from braindecode_pipe.store import open_store

NAMES = mne.channels.make_standard_montage("biosemi32").ch_names
SETTINGS = {"montage": "biosemi32", "detect_bads": False, "scaler": "none", "sfreq": 100.0,
            "l_freq": 1.0, "h_freq": 40.0}  # fmt: skip


@pytest.fixture
def stage(tmp_path, write_brainvision, run_stage):
    """``stage(data, name, **emeg)`` -> root and quality of the store."""

    def call(data, name="out", names=NAMES, **emeg):
        write_brainvision(tmp_path / name, data, names, sfreq=250.0)
        out = run_stage(tmp_path / name, "rec.vhdr", tmp_path / f"{name}.zarr",
                        emeg={**SETTINGS, **emeg})  # fmt: skip
        return open_store(out), open_store(out, "qc")

    return call


def sources(n_times: int, seed: int = 0) -> np.ndarray:
    """Smooth maps of 1/f sources [V] at 32 electrodes, and a little noise."""
    rng = np.random.default_rng(seed)
    spectrum = 1 / np.maximum(np.fft.rfftfreq(n_times, 1 / 250), 1.0)
    courses = np.fft.irfft(np.fft.rfft(rng.normal(size=(8, n_times))) * spectrum, n_times)
    data = rng.normal(size=(32, 8)) @ (courses / courses.std(axis=1, keepdims=True))
    return 1e-5 * (data + 0.1 * rng.normal(size=(32, n_times)))


def test_the_average_reference_of_a_recording_is_one_for_each_type_of_electrode(stage):
    """Strips and shafts of one recording; both are referenced, each by its own contacts."""
    names = [f"G{i}" for i in range(1, 5)] + [f"LA{i}" for i in range(1, 4)]
    types = {name: "ecog" if name[0] == "G" else "seeg" for name in names}
    settings = {"channel_types": types, "montage": "", "sfreq": None, "l_freq": None,
                "h_freq": None, "clamp": None}  # fmt: skip
    data = sources(5000)[:7]
    plain, _ = stage(data, "plain", names, **settings)
    root, _ = stage(data, "average", names, reference="average", **settings)
    values, found = plain["signal"].values, root["signal"].values
    for rows in (slice(0, 4), slice(4, 7)):
        expected = values[rows] - values[rows].mean(axis=0)
        np.testing.assert_allclose(found[rows], expected, atol=1e-11)
    assert "for each of seeg, ecog" in str(root.attrs["steps"])


@pytest.mark.parametrize("engine", ["fast", "mne"])
def test_two_lines_are_removed_one_after_the_other(stage, engine):
    pytest.importorskip("braindecode_pipe.preprocess.lines")
    rng, data = np.random.default_rng(1), sources(30_000)
    t, maps = np.arange(30_000) / 250, rng.normal(size=(32, 2))
    # Two lines of partly the same pattern, far above the signal.
    maps[:, 1] = 0.7 * maps[:, 0] + 0.7 * maps[:, 1]
    waves = np.stack([np.sin(2 * np.pi * 20 * t), np.sin(2 * np.pi * 33 * t + 1)])
    settings = {"notch": [20.0, 33.0], "line_removal": "zapline", "reference": "average"}
    root, qc = stage(data + 1e-4 * maps @ waves, engine=engine, **settings)
    clean, _ = stage(data, "clean", engine=engine, reference="average")
    inner = slice(600, -600)
    found, expected = root["signal"].values[:, inner], clean["signal"].values[:, inner]
    # The lines were 7 to 10 times the signal.
    assert np.std(found - expected) < 0.25 * expected.std()
    density = np.abs(np.fft.rfft(np.stack([found, expected]) * np.hanning(found.shape[1]))) ** 2
    freqs = np.fft.rfftfreq(found.shape[1], 0.01)
    for line in (20, 33):
        at = np.abs(freqs - line) < 0.2
        assert density[0][:, at].sum() < 2 * density[1][:, at].sum()
    assert "Zapline at 20 Hz" in str(root.attrs["steps"])
    assert any(name.startswith("line") for name in map(str, qc.variables))


def test_engines_agree_on_everything_that_combines_channels(stage):
    for module in ("lines", "artifacts", "reference"):
        pytest.importorskip(f"braindecode_pipe.preprocess.{module}")
    data = sources(30_000)
    t = np.arange(30_000) / 250
    blinks = np.maximum(0, np.sin(2 * np.pi * 0.25 * t)) ** 40
    data[:8] += 2e-4 * np.linspace(1, 0.2, 8)[:, None] * blinks
    data += 2e-5 * np.random.default_rng(1).normal(size=(32, 1)) * np.sin(2 * np.pi * 50 * t)
    data[20] *= 50
    settings = {"detect_bads": True, "reference": "average", "notch": [50.0],
                "line_removal": "zapline", "ica": {"find": ["eog"], "n_components": 8}}  # fmt: skip
    stores = [stage(data, engine, engine=engine, **settings) for engine in ("fast", "mne")]
    inner = slice(600, -600)
    fast, reference = (root["signal"].values[:, inner] for root, _ in stores)
    assert np.std(fast - reference) < 2e-3 * reference.std()
    for root, qc in stores:
        assert "ICA (picard)" in str(root.attrs["steps"]) and qc["ica_excluded"].values.any()
        # The blinks were ten times the signal.
        assert np.abs(root["signal"].values[0, inner]).max() < 1.5e-4


def test_bipolar_channels_take_the_place_of_contacts(stage):
    pytest.importorskip("braindecode_pipe.preprocess.reference")
    names = [f"{shaft}{i}" for shaft in "AB" for i in range(1, 17)]
    data = sources(30_000)
    root, qc = stage(data, names=names, montage="", reference="bipolar",
                     bipolar_pairs=[["A1", "A2"], ["B3", "B4"]], l_freq=None, h_freq=None,
                     sfreq=None)  # fmt: skip
    assert list(root["sensor"].values) == ["A1-A2", "B3-B4"]
    expected = np.stack([data[0] - data[1], data[18] - data[19]])
    np.testing.assert_allclose(root["signal"].values, expected, atol=1e-10)
    assert list(qc["sensor"].values) == [*names, "A1-A2", "B3-B4"]


@pytest.mark.parametrize("kind", ["global", "local"])
def test_autoreject_marks_bad_pieces(stage, kind):
    pytest.importorskip("braindecode_pipe.preprocess.rejection")
    data = sources(30_000)
    data[:, 10_000:10_100] += 1e-3 * np.random.default_rng(0).normal(size=(32, 100))
    root, qc = stage(data, autoreject=kind, scaler="robust")
    good = root["time_good"].values
    assert not good[4000:4040].any() and good.mean() > 0.7
    assert len(qc["span_onset"]) >= 1 and any("over" in str(r) for r in qc["span_reason"].values)


def test_sss_comes_before_everything_that_filters(tmp_path, run_stage):
    pytest.importorskip("braindecode_pipe.preprocess.maxwell")
    info = mne.pick_info(mne.channels.read_meg_canonical_info("neuromag"), np.arange(306))
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.eye(4))
    with info._unlock():
        info["sfreq"] = 200.0
    types = np.array(info.get_channel_types())
    scale = np.where(types == "grad", 5e-12, 2e-13)[:, None]
    data = np.random.default_rng(0).normal(size=(306, 3000)) * scale
    data[100] *= 100
    raw = mne.io.RawArray(data, info, verbose="error")
    raw.save(tmp_path / "a_raw.fif", fmt="double", verbose="error")
    settings = {"l_freq": 1.0, "h_freq": 40.0, "sfreq": None, "scaler": "none",
                "maxwell": {"st_duration_s": 5.0, "origin": (0.0, 0.0, 0.04)}}  # fmt: skip
    out = run_stage(tmp_path, "a_raw.fif", tmp_path / "a.zarr", "meg", emeg=settings)
    root, qc = open_store(out), open_store(out, "qc")
    raw.info["bads"] = [raw.ch_names[100]]
    raw = mne.preprocessing.maxwell_filter(
        raw, origin=(0, 0, 0.04), st_duration=5.0, st_overlap=True, bad_condition="warning",
        verbose="error",
    )  # fmt: skip
    raw.filter(1.0, 40.0, verbose="error")
    expected = raw.get_data()
    error = root["signal"].values - expected
    np.testing.assert_array_less(error.std(axis=1), 1e-4 * expected.std(axis=1))
    assert root["sensor_good"].values.all()
    assert str(qc["bad_reason"].values[100]).endswith("(reconstructed)")
    assert "tSSS" in str(root.attrs["steps"])


def test_the_quality_group_has_the_contacts_and_the_pairs_made_of_them(stage):
    """Bipolar pairs are new sensors: before belongs to contacts, after and components to pairs."""
    data = sources(10_000)
    eog, contacts, alone = NAMES[0], NAMES[1:31], NAMES[31]
    blink = np.convolve(np.arange(10_000) % 700 == 350, np.hanning(60), "same")
    data[:4] += 1e-3 * blink * np.array([[1.0], [0.8], [0.5], [0.2]])
    pairs = [list(pair) for pair in zip(contacts[:-1], contacts[1:])]
    ica = {"method": "fastica", "find": ["eog"], "n_components": 6}
    settings = {"channel_types": {eog: "eog"}, "ica": ica, "picks": ["eeg"]}
    root, qc = stage(data, reference="bipolar", bipolar_pairs=pairs, **settings)
    made = [f"{a}-{b}" for a, b in pairs]
    assert root["sensor"].values.tolist() == made
    assert qc["sensor"].values.tolist() == [*contacts, alone, *made]
    old = np.arange(len(qc["sensor"])) < 31
    for name, rows in (("psd_before", old), ("psd_after", ~old), ("ica_map", ~old)):
        values = qc[name].transpose("sensor", ...).values
        assert np.array_equal(np.isfinite(values).all(axis=1), rows), name
        assert np.array_equal(np.isfinite(values).any(axis=1), rows), name
    told = ["in bipolar pairs"] * 30 + ["in no bipolar pair"] + [""] * 29
    assert qc["left_out"].values.tolist() == told and qc["ica_excluded"].values.any()
    place = qc["position"].values
    assert np.isfinite(place).all()
    np.testing.assert_allclose(place[31:], (place[:29] + place[1:30]) / 2, atol=1e-12)
    np.testing.assert_array_equal(place[31:], root["position"].values)


def test_a_dropped_sensor_keeps_its_place_in_the_quality_group(stage):
    data = sources(5000)
    data[7] *= 300
    root, qc = stage(data, detect_bads=True, bads="drop")
    plain, _ = stage(sources(5000), "plain")
    assert NAMES[7] not in root["sensor"].values and qc["sensor"].values.tolist() == NAMES
    np.testing.assert_array_equal(qc["position"].values, plain["position"].values)
    assert not any(qc["left_out"].values)
