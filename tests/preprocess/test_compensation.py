"""Compensation and homogeneous field correction: the matrices are MNE's own calls."""

from __future__ import annotations

import shutil

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import DataError, RecipeError
from braindecode_pipe.preprocess.compensation import apply_compensation, apply_hfc
from braindecode_pipe.preprocess.sensors import info_from_json, info_to_json
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.store import open_store

CTF = "formats/mne-io/tests/data/test_ctf_comp_raw.fif"


@pytest.fixture
def ctf(shared_data):
    return mne.io.read_raw_fif(shared_data / CTF, preload=True, verbose="error").pick(
        ["mag", "ref_meg"]
    )


def _unit(info):
    return mne.io.RawArray(np.eye(len(info["chs"])), info.copy(), verbose="error")


@pytest.mark.parametrize("grade", [0, 1, 2, 3])
def test_gradient_compensation_is_linear_and_equals_mne(ctf, grade):
    log = Log()
    sensors = _unit(ctf.info)
    apply_compensation(sensors, grade, log)
    expected = ctf.copy().apply_gradient_compensation(grade, verbose="error").pick("mag")
    assert sensors.ch_names == expected.ch_names
    assert sensors.get_data().shape == (len(expected.ch_names), len(ctf.ch_names))
    np.testing.assert_allclose(
        sensors.get_data() @ ctf.get_data(), expected.get_data(), rtol=1e-9, atol=1e-22
    )
    assert sensors.compensation_grade == expected.compensation_grade
    info_from_json(info_to_json(sensors.info, 100.0))
    assert f"grade {grade} (recorded with 3)" in log.steps[0] and not log.warnings


@pytest.mark.data
@pytest.mark.parametrize("engine", ["fast", "mne"])
@pytest.mark.parametrize("grade", [0, 2])
def test_reference_channels_are_inputs_whatever_is_picked(
    ctf, grade, engine, shared_data, tmp_path, run_stage
):
    """20 sensors are picked; the references compensate them, and are no sensors of the store."""
    shutil.copy(shared_data / CTF, tmp_path / "x_raw.fif")
    picks = ctf.copy().pick("mag").ch_names[:20]
    plain = {"l_freq": None, "h_freq": None, "sfreq": None, "scaler": "none", "clamp": None}
    emeg = {**plain, "picks": picks, "compensation": grade, "engine": engine}
    out = run_stage(tmp_path, "x_raw.fif", tmp_path / "out.zarr", "meg", emeg=emeg)
    root, qc = open_store(out), open_store(out, "qc")
    assert root["sensor"].values.tolist() == picks and root["sensor_good"].values.all()
    expected = ctf.copy().apply_gradient_compensation(grade, verbose="error").get_data(picks)
    assert np.abs(root["signal"].values - expected).max() < 2e-6 * np.abs(expected).max()
    assert np.abs(ctf.get_data(picks) - expected).max() > 0.1 * np.abs(expected).max()
    # Reference magnetometers see far more than the gradiometers beside them, and are not bad.
    references = qc["kind"].values == "ref_meg"
    assert references.sum() == 29 and qc.attrs["n_bad"] == 0
    assert set(qc["left_out"].values[references]) == {"reference of the compensation"}


def test_a_bad_reference_channel_is_told(ctf):
    sensors, log = _unit(ctf.info), Log()
    name = sensors.ch_names[sensors.get_channel_types().index("ref_meg")]
    sensors.info["bads"] = [name]
    apply_compensation(sensors, 1, log)
    assert log.warnings == [f"bad reference channels in the compensation: {name}"]


def test_errors_of_compensation(ctf, make_eeg):
    with pytest.raises(RecipeError, match=r"no weights(.|\n)*0 \| 1 \| 2 \| 3"):
        apply_compensation(_unit(ctf.info), 7, Log())
    with pytest.raises(DataError, match="no gradient compensation(.|\n)*CTF"):
        apply_compensation(_unit(mne.create_info(3, 100.0, "mag")), 1, Log())
    with pytest.raises(DataError, match="0 reference channels"):
        apply_compensation(_unit(ctf.copy().pick("mag").info), 1, Log())


@pytest.fixture(scope="module")
def magnetometers():
    """102 magnetometers (geometry of a helmet) and one that is bad."""
    from braindecode_pipe.simulate.forward import make_head, sensor_info
    from braindecode_pipe.simulate.settings import Settings

    info = sensor_info(Settings(), "meg", make_head(Settings(), "01"))
    rows = [i for i, kind in enumerate(info.get_channel_types()) if kind == "mag"]
    info = mne.pick_info(info, rows)
    info["bads"] = [info.ch_names[5]]
    return info


@pytest.mark.parametrize("order", [1, 2])
def test_hfc_equals_mne_and_removes_a_homogeneous_field(magnetometers, order):
    rng = np.random.default_rng(0)
    orientation = np.array([ch["loc"][9:12] for ch in magnetometers["chs"]])
    far = 1e-11 * orientation @ rng.normal(size=(3, 500))
    noise = 1e-14 * rng.normal(size=(102, 500))
    log = Log()
    sensors = _unit(magnetometers)
    apply_hfc(sensors, order, log)
    raw = mne.io.RawArray(far + noise, magnetometers.copy(), verbose="error")
    projs = mne.preprocessing.compute_proj_hfc(raw.info, order=order, verbose="error")
    raw.add_proj(projs, verbose="error").apply_proj(verbose="error")
    found = sensors.get_data() @ (far + noise)
    np.testing.assert_allclose(found, raw.get_data(), rtol=1e-9, atol=1e-20)
    good = np.arange(102) != 5
    left = np.linalg.norm((sensors.get_data() @ far)[good]) / np.linalg.norm(far[good])
    print("far", left)
    assert left < 2e-3
    np.testing.assert_allclose(found[5], (far + noise)[5], rtol=1e-11)
    assert all(proj["active"] for proj in sensors.info["projs"])
    assert f"{order * (order + 2)} fields out of 101 channels" in log.steps[0]


def test_errors_of_hfc(magnetometers):
    few = mne.pick_info(magnetometers, np.arange(20))
    with pytest.raises(DataError, match="too few MEG channels(.|\n)*more than 30"):
        apply_hfc(_unit(few), 3, Log())
    with pytest.raises(DataError, match="no homogeneous field correction"):
        apply_hfc(_unit(mne.create_info(40, 100.0, "mag")), 1, Log())
