"""Stores back to the objects of mne and nibabel."""

from __future__ import annotations

import mne
import nibabel
import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import SchemaError
from braindecode_pipe.preprocess.sensors import to_epochs, to_img, to_raw
from braindecode_pipe.store import open_signal, open_store

GENTLE = {
    "detect_bads": False, "bads": "keep", "l_freq": None, "h_freq": None, "sfreq": None,
    "clamp": None, "montage": "standard_1020", "reject_amplitude": {"eeg": 3e-4},
}  # fmt: skip


@pytest.fixture
def signal_store(tmp_path, make_eeg, channel_names, write_brainvision, run_stage):
    data = make_eeg()
    data[3, 700:720] = 4e-4
    write_brainvision(tmp_path, data, channel_names)
    return data, run_stage(tmp_path, "rec.vhdr", tmp_path / "a.zarr", emeg=GENTLE)


def test_to_raw_gives_the_recording_back(signal_store, channel_names):
    data, path = signal_store
    raw = to_raw(path)
    assert raw.ch_names == channel_names and raw.info["sfreq"] == 200
    np.testing.assert_allclose(raw.get_data(), data, atol=1e-9)
    assert raw.get_montage() is not None
    np.testing.assert_allclose(
        [channel["loc"][:3] for channel in raw.info["chs"]], open_store(path)["position"].values
    )
    assert list(raw.annotations.description) == ["BAD_span"]
    np.testing.assert_allclose(raw.annotations.onset, [3.5])
    np.testing.assert_allclose(raw.annotations.duration, [0.1])
    assert raw.info["meas_date"] is None


def test_to_raw_knows_the_bad_channels(tmp_path, make_eeg, channel_names, write_brainvision,
                                       run_stage):  # fmt: skip
    data = make_eeg()
    data[4] *= 50
    write_brainvision(tmp_path, data, channel_names)
    raw = to_raw(run_stage(tmp_path, "rec.vhdr", tmp_path / "a.zarr"))
    assert raw.info["bads"] == ["Fz"]


def test_to_epochs_cuts_a_signal_at_the_onsets(signal_store):
    data, path = signal_store
    events = pd.DataFrame({"onset": [1.0, 10.0], "trial_type": ["face", "house"]})
    epochs = to_epochs(path, events, tmin=-0.1, tmax=0.2)
    assert list(epochs.metadata["trial_type"]) == ["face", "house"]
    np.testing.assert_allclose(epochs.get_data()[1], data[:, 1980:2041], atol=1e-9)
    with pytest.raises(SchemaError, match="a signal store has no epochs"):
        to_epochs(path)


def test_to_epochs_gives_epochs_back(tmp_path, make_eeg, channel_names, run_stage):
    data = make_eeg(n_times=3000).reshape(19, 30, 100).transpose(1, 0, 2)
    info = mne.create_info(channel_names, 100.0, "eeg")
    mne.EpochsArray(data, info, tmin=-0.2, verbose="error").save(
        tmp_path / "a-epo.fif", verbose="error"
    )
    out = run_stage(tmp_path, "a-epo.fif", tmp_path / "a.zarr", "epochs",
                    emeg={**GENTLE, "montage": ""})  # fmt: skip
    epochs = to_epochs(out, pd.DataFrame({"word": list("abcdefghijklmnopqrstuvwxyzABCD")}))
    np.testing.assert_allclose(epochs.get_data(), data, atol=1e-9)
    assert epochs.tmin == pytest.approx(-0.2) and epochs.metadata["word"].iloc[2] == "c"
    with pytest.raises(SchemaError, match="another number of events(.|\n)*30(.|\n)*2"):
        to_epochs(out, pd.DataFrame({"word": ["a", "b"]}))
    with pytest.raises(SchemaError, match="kind response, with an Info"):
        to_raw(out)


def test_to_img_gives_the_voxels_back(tmp_path, make_bold, write_bold, run_stage, bold_affine):
    data, brain = make_bold()
    name = write_bold(tmp_path, data)
    out = run_stage(tmp_path, name, tmp_path / "a.zarr", "bold",
                    bold={"detrend": False, "standardize": False})  # fmt: skip
    signal = open_signal(out)
    image = to_img(signal.read(0, signal.n_times), signal)
    assert isinstance(image, nibabel.Nifti1Image)
    np.testing.assert_array_equal(image.affine, bold_affine)
    np.testing.assert_array_equal(image.get_fdata(), np.where(brain[..., None], data, 0))
    one = to_img(np.arange(signal.n_sensors), signal)
    assert one.shape == brain.shape
    with pytest.raises(SchemaError, match="cannot be put on a grid(.|\n)*3 values"):
        to_img(np.zeros(3), signal)
    with pytest.raises(SchemaError, match="without an Info"):
        to_raw(out)
