"""The stage on real recordings."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.errors import UnitError
from braindecode_pipe.store import open_store, verify_store

pytestmark = pytest.mark.data


def test_haxby_slice_keeps_the_brain_and_not_the_background(shared_data, tmp_path, run_stage):
    import nibabel

    name = "sub-01/func/sub-01_task-objectviewing_run-{:02d}_bold.nii.gz"
    data = shared_data / "haxby2001-slice"
    shared = None
    for run in (1, 2, 3):
        out = run_stage(data, name.format(run), tmp_path / f"{run}.zarr", "bold")
        assert verify_store(out) == []
        root = open_store(out)
        names = set(root["sensor"].values)
        shared = names if shared is None else shared & names
        assert root.attrs["t_r"] == 2.5 and root.sizes["time"] == 121
        assert root["sensor_good"].values.all() and 500 < root.sizes["sensor"] <= 530
        np.testing.assert_allclose(root["signal"].values.std(axis=1, ddof=1), 1, atol=1e-4)
    image = np.asarray(nibabel.load(data / name.format(1)).dataobj, float)
    varying = image.std(axis=3) > 0
    assert varying.sum() == 530
    # The runs can be matched by name, and nearly all of the brain is in all of them.
    assert len(shared) > 500


def test_haxby_lowres_with_its_masks(shared_data, tmp_path, run_stage):
    data = shared_data / "haxby2001-lowres"
    name = "sub-01/func/sub-01_task-objectviewing_run-01_bold.nii.gz"
    mask = "derivatives/masks/sub-{subject}/func/sub-{subject}_desc-brain_mask.nii.gz"
    named = open_store(run_stage(data, name, tmp_path / "a.zarr", "bold", bold={"mask": mask}))
    computed = open_store(run_stage(data, name, tmp_path / "b.zarr", "bold"))
    assert named.sizes["sensor"] == 129
    overlap = set(named["sensor"].values) & set(computed["sensor"].values)
    assert len(overlap) >= 0.8 * 129 and computed.sizes["sensor"] < 200


def test_muse_recording(shared_data, tmp_path, run_stage):
    out = run_stage(
        shared_data / "muse-n170", "sub-01/ses-01/eeg/sub-01_ses-01_task-n170_run-01_eeg.vhdr",
        tmp_path / "a.zarr", emeg={"l_freq": 1.0, "h_freq": 30, "reject_amplitude": {"eeg": 1e-4}},
    )  # fmt: skip
    root, qc = open_store(out), open_store(out, "qc")
    assert list(root["sensor"].values) == ["TP9", "AF7", "AF8", "TP10"]
    assert root.attrs["sfreq"] == 120 and root.attrs["position_frame"] == "head"
    assert root["sensor_good"].values.all() and 0.97 < qc.attrs["good_share"] < 1
    assert root["position"].values[0, 0] < -0.05 < 0.05 < root["position"].values[3, 0]


def test_muse_recording_that_is_saturated(shared_data, tmp_path, run_stage):
    out = run_stage(
        shared_data / "muse-n170", "sub-03/ses-03/eeg/sub-03_ses-03_task-n170_run-02_eeg.vhdr",
        tmp_path / "a.zarr", subject="03", emeg={"l_freq": 1.0, "reject_amplitude": {"eeg": 1e-4}},
    )  # fmt: skip
    qc = open_store(out, "qc")
    assert all(str(reason).startswith("clipped") for reason in qc["bad_reason"].values)
    assert qc.attrs["good_share"] < 0.05


def test_n400_epochs_with_positions_in_millimetres(shared_data, tmp_path, run_stage):
    data, name = shared_data / "n400-words", "sub-04_task-n400_epo.fif"
    root = open_store(run_stage(data, name, tmp_path / "a.zarr", "epochs"))
    assert dict(root.sizes) == {"event": 200, "sensor": 32, "time": 60, "axis": 3}
    assert root["event"].values[199] == "sub-04_task-n400_epo:00199"
    assert np.isnan(root["position"].values).all()
    out = run_stage(data, name, tmp_path / "b.zarr", "epochs", emeg={"montage": "biosemi32"})
    assert np.isfinite(open_store(out)["position"].values).all()


def test_story_parcels(shared_data, tmp_path, run_stage):
    name = "sub-01/func/sub-01_task-black_seg-Schaefer400_timeseries.tsv"
    root = open_store(
        run_stage(shared_data / "story-parcels", name, tmp_path / "a.zarr", "parcels")
    )
    assert root.sizes["sensor"] == 400 and root.sizes["time"] == 538
    place = root["position"].values
    assert np.isfinite(place).all() and np.abs(place).max() < 0.11
    # Schaefer numbers the left hemisphere first.
    assert (place[:200, 0] < 0.005).all() and (place[200:, 0] > -0.005).all()


def test_tiny_bids_holds_noise_of_the_full_range(shared_data, tmp_path, run_stage):
    with pytest.raises(UnitError, match="eeg amplitudes cannot be in V(.|\n)*0.00177"):
        run_stage(
            shared_data / "formats" / "tiny_bids",
            "sub-01/ses-eeg/eeg/sub-01_ses-eeg_task-rest_eeg.vhdr", tmp_path / "a.zarr",
        )  # fmt: skip
