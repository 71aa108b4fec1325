"""Recordings that their readers open without a word, and should not."""

from __future__ import annotations

import json

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import DataError, MissingFileError, TruncatedRecordingError
from braindecode_pipe.formats import check_declared
from braindecode_pipe.preprocess.reading import read_epochs, read_raw
from braindecode_pipe.preprocess.sidecars import merged_json


def cut(path, share=0.5, extra=0):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share) + extra])


def test_a_whole_recording_is_read(tmp_path, make_eeg, channel_names, write_brainvision):
    data = make_eeg()
    path = write_brainvision(tmp_path, data, channel_names, markers=[1, 4000, 4001])
    raw, messages = read_raw(path, tmp_path, allow_truncated=False)
    np.testing.assert_allclose(raw.get_data(), data, atol=1e-11)
    assert not [text for text in messages if "truncated" in text]


def test_f13_brainvision_shorter_than_its_markers(
    tmp_path, make_eeg, channel_names, write_brainvision
):
    path = write_brainvision(tmp_path, make_eeg(), channel_names, markers=[10, 3990])
    cut(path.with_suffix(".eeg"))
    with pytest.raises(TruncatedRecordingError, match="at least 3989 samples(.|\n)*2000 samples"):
        read_raw(path, tmp_path, allow_truncated=False)
    raw, messages = read_raw(path, tmp_path, allow_truncated=True)
    assert raw.n_times == 2000
    assert messages[0].startswith("truncated: 2000 samples")


def test_f13_brainvision_cut_inside_a_frame(tmp_path, make_eeg, channel_names, write_brainvision):
    path = write_brainvision(tmp_path, make_eeg(), channel_names)
    cut(path.with_suffix(".eeg"), extra=3)
    with pytest.raises(TruncatedRecordingError, match="at least 2001 samples"):
        read_raw(path, tmp_path, allow_truncated=False)


def test_f13_recording_shorter_than_its_sidecar_says(
    tmp_path, make_eeg, channel_names, write_brainvision
):
    folder = tmp_path / "sub-01" / "eeg"
    stem = "sub-01_task-x_eeg"
    path = write_brainvision(folder, make_eeg(), channel_names, stem)
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    sidecar = folder / f"{stem}.json"
    sidecar.write_text(json.dumps({"RecordingDuration": 20.0, "PowerLineFrequency": 50}))
    assert read_raw(path, tmp_path, allow_truncated=False)[0].n_times == 4000
    sidecar.write_text(json.dumps({"RecordingDuration": 40.0, "PowerLineFrequency": 50}))
    with pytest.raises(TruncatedRecordingError, match=r"40 s \(RecordingDuration\)(.|\n)*20 s"):
        read_raw(path, tmp_path, allow_truncated=False)
    assert "20 s of 40 s" in read_raw(path, tmp_path, allow_truncated=True)[1][0]


def test_f13_edf_shorter_than_its_header(tmp_path, make_eeg, channel_names, write_edf):
    path = write_edf(tmp_path / "a.edf", make_eeg(), channel_names)
    assert read_raw(path, tmp_path, allow_truncated=False)[0].n_times == 4000
    cut(path)
    with pytest.raises(TruncatedRecordingError, match="20 records of 7600 bytes(.|\n)*9.66"):
        read_raw(path, tmp_path, allow_truncated=False)
    raw, messages = read_raw(path, tmp_path, allow_truncated=True)
    assert 0 < raw.n_times < 2000
    assert "the prefix is used" in messages[0]


def test_f13_fif_cut_anywhere(tmp_path, make_eeg, channel_names):
    raw = mne.io.RawArray(make_eeg(), mne.create_info(channel_names, 200.0, "eeg"), verbose="error")
    path = tmp_path / "a_raw.fif"
    raw.save(path, buffer_size_sec=1, verbose="error")
    assert check_declared(path, allow_truncated=False) == ""
    content = path.read_bytes()
    for length in np.random.default_rng(0).integers(100, len(content) - 1, 40):
        path.write_bytes(content[:length])
        with pytest.raises(TruncatedRecordingError, match=f"{length} bytes"):
            read_raw(path, tmp_path, allow_truncated=True)


@pytest.mark.parametrize("form", ["brainvision", "edf"])
def test_f17_channel_names_that_repeat(
    form, tmp_path, make_eeg, channel_names, write_brainvision, write_edf
):
    names = [*channel_names[:-1], "Fp1"]
    if form == "edf":
        path = write_edf(tmp_path / "a.edf", make_eeg(), names)
    else:
        path = write_brainvision(tmp_path, make_eeg(), names)
    with pytest.raises(DataError, match="channel names repeat(.|\n)*Fp1 x 2"):
        read_raw(path, tmp_path, allow_truncated=False)


def test_f17_renaming_by_a_reader_is_refused(tmp_path, monkeypatch):
    import warnings

    path = tmp_path / "a.cnt"
    path.write_bytes(b"x")

    def renaming(*args, **kwargs):
        warnings.warn(
            "Channel names are not unique, found duplicates for: {'A'}. Applying running numbers",
            RuntimeWarning, stacklevel=1,
        )  # fmt: skip

    monkeypatch.setattr(mne.io, "read_raw", renaming)
    with pytest.raises(DataError, match=r"channel names repeat(.|\n)*\{'A'\}"):
        read_raw(path, tmp_path, allow_truncated=False)


def test_missing_files_are_named(tmp_path, make_eeg, channel_names, write_brainvision):
    path = write_brainvision(tmp_path, make_eeg(), channel_names)
    with pytest.raises(MissingFileError, match="the recording is not there"):
        read_raw(tmp_path / "no.vhdr", tmp_path, allow_truncated=False)
    path.with_suffix(".eeg").unlink()
    with pytest.raises(MissingFileError, match="data file that a BrainVision header names"):
        read_raw(path, tmp_path, allow_truncated=False)
    with pytest.raises(MissingFileError, match="no-epo.fif(.|\n)*a recording"):
        read_epochs(tmp_path / "no-epo.fif", tmp_path)


def test_unknown_formats_give_one_clear_error(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("nothing")
    with pytest.raises(DataError, match="a.xyz cannot be read as(.|\n)*Unsupported file type"):
        read_raw(path, tmp_path, allow_truncated=False)
    path = tmp_path / "a.edf"
    path.write_bytes(b"0" * 300)
    with pytest.raises(DataError, match=r"\.edf"):
        read_raw(path, tmp_path, allow_truncated=False)


def test_sidecars_are_inherited_and_the_nearest_wins(tmp_path):
    folder = tmp_path / "sub-01" / "func"
    folder.mkdir(parents=True)
    path = folder / "sub-01_task-x_run-1_bold.nii.gz"
    (tmp_path / "bold.json").write_text('{"a": 0, "b": 0, "c": 0}')
    (tmp_path / "task-x_bold.json").write_text('{"a": 1, "b": 1}')
    (tmp_path / "task-y_bold.json").write_text('{"a": 9}')
    (folder / "sub-01_task-x_run-1_bold.json").write_text('{"a": 2}')
    assert merged_json(path, tmp_path, "bold") == {"a": 2, "b": 1, "c": 0}
    (tmp_path / "task-x_bold.json").write_text("{")
    with pytest.raises(DataError, match="a sidecar cannot be read"):
        merged_json(path, tmp_path, "bold")
