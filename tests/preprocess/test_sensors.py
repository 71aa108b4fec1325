"""Stores back to the objects of mne and nibabel."""

from __future__ import annotations

import json

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


# --- round trips of real geometry ----------------------------------------------------------------

KEEP = {**GENTLE, "montage": "", "reject_amplitude": {}, "scaler": "none"}


@pytest.mark.data
def test_a_meg_recording_comes_back_with_its_coils(shared_data, tmp_path, run_stage):
    root = shared_data / "formats/mne-io/tests/data"
    out = run_stage(root, "test_ctf_comp_raw.fif", tmp_path / "a.zarr", "meg", emeg=KEEP)
    raw, before = to_raw(out), mne.io.read_raw_fif(root / "test_ctf_comp_raw.fif", verbose="error")
    before.load_data().pick(raw.ch_names)
    scale = before.get_data().std()
    np.testing.assert_allclose(raw.get_data() / scale, before.get_data() / scale, atol=1e-5)
    for ours, theirs in zip(raw.info["chs"], before.info["chs"]):
        np.testing.assert_allclose(ours["loc"], theirs["loc"])
        assert (ours["coil_type"], ours["unit"]) == (theirs["coil_type"], theirs["unit"])
    np.testing.assert_allclose(raw.info["dev_head_t"]["trans"], before.info["dev_head_t"]["trans"])
    assert len(raw.info["comps"]) == len(before.info["comps"])
    assert len(raw.info["dig"]) == len(before.info["dig"])
    assert open_store(out).attrs["position_frame"] == "head"


def write_ieeg(write_edf, root, data, names, system="MNI305", unit="mm", scale=1e3, position=None):
    """A BIDS recording of intracranial EEG with positions [m]; its path below ``root``."""
    folder = root / "sub-01" / "ieeg"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    position = rng.uniform(-0.06, 0.06, (len(names), 3)) if position is None else position
    stem = "sub-01_task-x_run-1"
    write_edf(folder / f"{stem}_ieeg.edf", data, names)
    rows = [f"{n}\tSEEG\tuV\t{'bad' if n == names[1] else 'good'}" for n in names]
    (folder / f"{stem}_channels.tsv").write_text(
        "name\ttype\tunits\tstatus\n" + "\n".join(rows) + "\n"
    )
    space = folder / f"sub-01_space-{system}_"
    rows = ["\t".join([n, *(f"{v * scale:.9f}" for v in p), "1"]) for n, p in zip(names, position)]
    (folder / f"{space.name}electrodes.tsv").write_text(
        "name\tx\ty\tz\tsize\n" + "\n".join(rows) + "\n"
    )
    (folder / f"{space.name}coordsystem.json").write_text(
        json.dumps({"iEEGCoordinateSystem": system, "iEEGCoordinateUnits": unit})
    )
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    return f"sub-01/ieeg/{stem}_ieeg.edf", position


@pytest.mark.parametrize(
    ("system", "unit", "scale", "frame"),
    [("MNI305", "mm", 1e3, "mni_tal"), ("ACPC", "cm", 1e2, "ras"), ("ScanRAS", "m", 1, "ras")],
)
def test_intracranial_positions_keep_their_frame(
    system, unit, scale, frame, tmp_path, make_eeg, channel_names, run_stage, write_edf
):
    data = make_eeg()
    name, position = write_ieeg(write_edf, tmp_path, data, channel_names, system, unit, scale)
    out = run_stage(tmp_path, name, tmp_path / "a.zarr", "ieeg", emeg=KEEP)
    store = open_store(out)
    assert store.attrs["position_frame"] == frame
    np.testing.assert_allclose(store["position"].values, position, atol=1e-7)
    raw = to_raw(out)
    assert raw.info["bads"] == [channel_names[1]]
    assert set(raw.get_channel_types()) == {"seeg"}
    assert raw.get_montage().get_positions()["coord_frame"] == frame
    np.testing.assert_allclose(raw.get_data(), data, atol=3e-8)


@pytest.mark.parametrize("wrong", ["unit", "one place"])
def test_f16_impossible_positions_are_left_out(
    wrong, tmp_path, make_eeg, channel_names, run_stage, write_edf
):
    place = np.full((19, 3), 0.01) if wrong == "one place" else None
    scale = 1e3 if wrong == "unit" else 1.0
    name, _ = write_ieeg(
        write_edf, tmp_path, make_eeg(), channel_names, "ACPC", "m", scale=scale, position=place
    )
    out = run_stage(tmp_path, name, tmp_path / "a.zarr", "ieeg", emeg=KEEP)
    said = " ".join(open_store(out, "qc").attrs["warnings"])
    expected = "fits after multiplication by 0.001" if wrong == "unit" else "lie at one place"
    assert "positions left out" in said and expected in said
    assert np.isnan(open_store(out)["position"].values).all()


def test_a_montage_annotations_and_first_sample_come_back(
    tmp_path, make_eeg, channel_names, run_stage
):
    info = mne.create_info(channel_names, 200.0, "eeg")
    raw = mne.io.RawArray(make_eeg(), info, first_samp=1000, verbose="error")
    raw.set_montage(mne.channels.make_standard_montage("colin27_1020"))
    raw.set_meas_date(0)
    raw.set_annotations(mne.Annotations([7.0], [1.0], ["BAD_jump"], orig_time=0))
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    out = run_stage(tmp_path, "a_raw.fif", tmp_path / "a.zarr", emeg=KEEP)
    again = to_raw(out)
    # Stores count from the first sample, which was at 5 s.
    np.testing.assert_allclose(again.annotations.onset, [2.0])
    np.testing.assert_allclose(again.annotations.duration, [1.0])
    ours, theirs = again.get_montage().get_positions(), raw.get_montage().get_positions()
    assert ours["coord_frame"] == theirs["coord_frame"] == "head"
    for name in channel_names:
        np.testing.assert_allclose(ours["ch_pos"][name], theirs["ch_pos"][name], atol=1e-7)
    np.testing.assert_allclose(ours["nasion"], theirs["nasion"], atol=1e-7)
    events = pd.DataFrame({"onset": [3.0], "trial_type": ["face"]})
    epoch = to_epochs(out, events, tmin=0.0, tmax=0.1).get_data()[0]
    np.testing.assert_allclose(epoch, raw.get_data()[:, 600:621], atol=1e-9)


def test_averages_come_back_as_epochs(tmp_path, make_eeg, channel_names, run_stage):
    data = make_eeg(n_times=300).reshape(19, 3, 100).transpose(1, 0, 2)
    info = mne.create_info(channel_names, 100.0, "eeg")
    averages = [mne.EvokedArray(d, info, -0.2, f"c{i}") for i, d in enumerate(data)]
    mne.write_evokeds(tmp_path / "a-ave.fif", averages, verbose="error")
    out = run_stage(tmp_path, "a-ave.fif", tmp_path / "a.zarr", "epochs", emeg=KEEP)
    epochs = to_epochs(out)
    np.testing.assert_allclose(epochs.get_data(), data, atol=1e-9)
    assert epochs.tmin == pytest.approx(-0.2)
