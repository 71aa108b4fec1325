"""Recordings that their readers open without a word, and should not."""

from __future__ import annotations

import json

import mne
import numpy as np
import pytest

from braindecode_pipe.errors import (
    DataError,
    MissingFileError,
    RecipeError,
    TruncatedRecordingError,
    UnsafePathError,
)
from braindecode_pipe.formats import check_declared
from braindecode_pipe.plan import find_recordings
from braindecode_pipe.preprocess import input_files
from braindecode_pipe.preprocess.reading import read_epochs, read_raw
from braindecode_pipe.preprocess.sidecars import (
    Companions,
    companions,
    merged_json,
    site_files,
)
from braindecode_pipe.recipe import PlanSection, PreprocessSection
from braindecode_pipe.recipe.models import MaxwellSection
from braindecode_pipe.store import open_store


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


# --- names, types, repairs -----------------------------------------------------------------------


def steps_of(store) -> list[str]:
    return list(open_store(store).attrs["steps"])


PLAIN = {"l_freq": None, "h_freq": None, "sfreq": None, "scaler": "none", "clamp": None,
         "detect_bads": False, "bads": "keep"}  # fmt: skip


def test_channels_are_renamed_and_given_types(
    tmp_path, make_eeg, channel_names, write_brainvision, run_stage
):
    write_brainvision(tmp_path, make_eeg(), channel_names)
    recipe = {"rename": {"Fp1": "EOG1"}, "channel_types": {"EOG1": "eog", "O2": "seeg"}}
    out = run_stage(tmp_path, "rec.vhdr", tmp_path / "a.zarr", emeg={**PLAIN, **recipe})
    store = open_store(out)
    assert "EOG1" not in store["sensor"].values and store.sizes["sensor"] == 18
    assert store["kind"].values[-1] == "seeg"
    assert "renamed: Fp1 -> EOG1" in steps_of(out)
    assert "types: EOG1 eog, O2 seeg" in steps_of(out)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"rename": {"XX": "A"}}, "preprocess.emeg.rename names channels(.|\n)*found: XX"),
        ({"channel_types": {"XX": "eog"}}, "emeg.channel_types names channels(.|\n)*found: XX"),
        ({"rename": {"Fp1": "Fp2"}}, "gives two channels one name(.|\n)*found: Fp2"),
        ({"channel_types": {"Fp1": "brain"}}, "a channel type that cannot be set(.|\n)*brain"),
    ],
)
def test_names_that_are_not_there(
    recipe, message, tmp_path, make_eeg, channel_names, write_brainvision, run_stage
):
    write_brainvision(tmp_path, make_eeg(), channel_names)
    with pytest.raises(RecipeError, match=message):
        run_stage(tmp_path, "rec.vhdr", tmp_path / "a.zarr", emeg={**PLAIN, **recipe})


@pytest.mark.parametrize("form", ["brainvision", "edf"])
def test_f17_repeated_names_are_numbered_when_asked_for(
    form, tmp_path, make_eeg, channel_names, write_brainvision, write_edf, run_stage
):
    names, data = [*channel_names[:-1], "Fp1"], make_eeg()
    if form == "edf":
        path = write_edf(tmp_path / "rec.edf", data, names)
    else:
        path = write_brainvision(tmp_path, data, names)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    emeg = {**PLAIN, "repairs": ["unique-names"]}
    out = run_stage(tmp_path, path.name, tmp_path / "out" / "a.zarr", emeg=emeg)
    found = list(open_store(out)["sensor"].values)
    assert found == ["Fp1-0", *channel_names[1:-1], "Fp1-1"]
    assert any(text.startswith("repaired: channel names that repeat") for text in steps_of(out))
    np.testing.assert_allclose(open_store(out)["signal"].values, data, atol=2e-8)
    assert {file: file.read_bytes() for file in before} == before, "the data set is untouched"
    table = find_recordings(PlanSection(files=[path.name]), tmp_path)
    assert table["problem"].iloc[0] == "" and table["n_sensors"].iloc[0] == 19


def write_bids(tmp_path, make_eeg, names, write_brainvision, encoding="utf-8", comma=False):
    """A BIDS recording whose tables are written in a way that BIDS does not know."""
    folder = tmp_path / "sub-01" / "eeg"
    path = write_brainvision(folder, make_eeg(), names, "sub-01_task-x_eeg")
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    rows = [f"{name}\tEEG\tµV\t{'bad' if name == 'Fz' else 'good'}" for name in names]
    (folder / "sub-01_task-x_channels.tsv").write_bytes(
        ("name\ttype\tunits\tstatus\n" + "\n".join(rows) + "\n").encode(encoding)
    )
    montage = mne.channels.make_standard_montage("colin27_1020").get_positions()["ch_pos"]
    rows = ["\t".join([name, *(f"{v:.6f}" for v in montage[name])]) for name in names]
    text = "name\tx\ty\tz\n" + "\n".join(rows) + "\n"
    (folder / "sub-01_electrodes.tsv").write_text(text.replace(".", ",") if comma else text)
    (folder / "sub-01_coordsystem.json").write_text(
        json.dumps({"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "m"})
    )
    events = "onset\tduration\ttrial_type\n1.0\t-1\tBAD_jump\n"
    (folder / "sub-01_task-x_events.tsv").write_text(events)
    return path, montage


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_f20_tables_are_read_as_they_were_meant_when_asked_for(
    encoding, tmp_path, make_eeg, channel_names, write_brainvision
):
    path, montage = write_bids(
        tmp_path, make_eeg, channel_names, write_brainvision, encoding, comma=True
    )
    with pytest.raises(DataError):
        read_raw(path, tmp_path, allow_truncated=False)
    repairs = ("text-encoding", "decimal-comma", "negative-durations")
    raw, messages = read_raw(path, tmp_path, False, repairs)
    assert raw.info["bads"] == ["Fz"]
    for channel in raw.info["chs"]:
        np.testing.assert_allclose(channel["loc"][:3], montage[channel["ch_name"]], atol=1e-6)
    said = [text for text in messages if text.startswith("repaired: ")]
    assert len(said) == 3 and any("decimal commas in x, y, z" in text for text in said)
    assert list(raw.annotations.duration) == [0.0]
    # The temporary copy is gone; the samples are read from the data set.
    assert raw.get_data(start=10, stop=20).shape == (19, 10)


def test_positions_can_be_dropped(tmp_path, make_eeg, channel_names, write_brainvision, run_stage):
    write_bids(tmp_path, make_eeg, channel_names, write_brainvision)
    for repairs, there in (([], True), (["drop-positions"], False)):
        emeg = {**PLAIN, "repairs": [*repairs, "negative-durations"]}
        out = run_stage(tmp_path, "sub-01/eeg/sub-01_task-x_eeg.vhdr",
                        tmp_path / f"{there}.zarr", emeg=emeg)  # fmt: skip
        assert np.isfinite(open_store(out)["position"].values).all() == there
        assert ("repaired: positions of all sensors are left out" in steps_of(out)) != there


# --- what cleaning MEG needs ---------------------------------------------------------------------


def test_companions_of_a_meg_recording(tmp_path):
    folder = tmp_path / "sub-01" / "ses-1" / "meg"
    folder.mkdir(parents=True)
    path = folder / "sub-01_ses-1_task-x_meg.fif"
    info = mne.create_info(["A"], 100.0, "mag")
    mne.io.RawArray(np.zeros((1, 100)), info, verbose="error").save(path, verbose="error")
    assert companions(path, tmp_path) == Companions()
    calibration = folder / "sub-01_ses-1_acq-calibration_meg.dat"
    cross_talk = folder / "sub-01_ses-1_acq-crosstalk_meg.fif"
    room = tmp_path / "sub-emptyroom" / "ses-20200101" / "meg" / "sub-emptyroom_meg.fif"
    room.parent.mkdir(parents=True)
    for file in (calibration, cross_talk, room):
        file.write_bytes(b"x")
    sidecar = path.with_suffix(".json")
    named = room.relative_to(tmp_path).as_posix()
    sidecar.write_text(json.dumps({"AssociatedEmptyRoom": f"bids::{named}"}))
    found = companions(path, tmp_path)
    assert found == Companions(calibration, cross_talk, room)
    assert companions(path, tmp_path, empty_room=False) == Companions(calibration, cross_talk)
    assert found.files == [calibration, cross_talk, room]
    sidecar.write_text(json.dumps({"AssociatedEmptyRoom": "sub-emptyroom/none_meg.fif"}))
    with pytest.raises(DataError, match="empty-room recording that a sidecar names is not there"):
        companions(path, tmp_path)
    sidecar.write_text(json.dumps({"AssociatedEmptyRoom": "../../secret_meg.fif"}))
    with pytest.raises(UnsafePathError):
        companions(path, tmp_path)


def test_a_loose_recording_has_no_companions(tmp_path):
    assert companions(tmp_path / "a_raw.fif", tmp_path) == Companions()


def test_site_files_of_the_recipe_and_of_bids(tmp_path):
    folder = tmp_path / "sub-01" / "meg"
    folder.mkdir(parents=True)
    path = folder / "sub-01_task-rest_meg.fif"
    path.write_bytes(b"x")
    assert site_files(MaxwellSection(), path, tmp_path) == Companions()
    # What is only needed for projections is not asked for.
    path.with_suffix(".json").write_text('{"AssociatedEmptyRoom": "sub-emptyroom/none_meg.fif"}')
    calibration = folder / "sub-01_acq-calibration_meg.dat"
    cross_talk = folder / "sub-01_acq-crosstalk_meg.fif"
    own = tmp_path / "own.dat"
    for file in (calibration, cross_talk, own):
        file.write_text("")
    assert site_files(MaxwellSection(), path, tmp_path) == Companions(calibration, cross_talk)
    named = MaxwellSection(calibration="own.dat")
    assert site_files(named, path, tmp_path) == Companions(own, cross_talk)
    with pytest.raises(MissingFileError, match="cross-talk file is not there"):
        site_files(MaxwellSection(cross_talk="none.fif"), path, tmp_path)

    def inputs(**emeg):
        section = PreprocessSection.model_validate({"emeg": emeg})
        recording = {"path": "sub-01/meg/sub-01_task-rest_meg.fif", "datatype": "meg"}
        return {file.name for file in input_files(section, recording, tmp_path)}

    beside = {calibration.name, cross_talk.name}
    assert inputs() == set()
    assert inputs(noisy=["maxwell"]) == inputs(maxwell={}) == beside
    assert inputs(maxwell={"calibration": "own.dat"}) == beside | {"own.dat"}
