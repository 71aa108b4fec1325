"""Faults that are planted in a data set, one at a time, and must be found and told."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import mne
import nibabel
import numpy as np
import pytest
import scipy.io
from rich.console import Console

from braindecode_pipe.cli import main
from braindecode_pipe.errors import MissingFileError
from braindecode_pipe.inspect import diagnose, diagnosis_table

NAMES = ("Fp1", "Fp2", "Cz", "Pz", "Oz", "O1")
STEM = "sub-01/eeg/sub-01_task-x_run-1"


def write_brainvision(path: Path, data: np.ndarray, names, sfreq: float = 100.0) -> None:
    """A BrainVision recording of (n_channels, n_times) microvolts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.name.removesuffix(".vhdr")
    channels = "".join(f"Ch{i + 1}={name},,1,µV\n" for i, name in enumerate(names))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem}.eeg\nMarkerFile={stem}.vmrk\nDataFormat=BINARY\n"
        f"DataOrientation=MULTIPLEXED\nNumberOfChannels={len(data)}\n"
        f"DataPoints={data.shape[1]}\nSamplingInterval={1e6 / sfreq}\n"
        f"[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n{channels}",
        encoding="utf-8",
    )
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
        f"DataFile={stem}.eeg\n[Marker Infos]\n"
    )
    path.with_suffix(".eeg").write_bytes(np.asarray(data.T, "<f4").tobytes())


def write_run(root: Path, subject: str = "01", run: str = "1", names=NAMES, sfreq=100.0) -> None:
    stem = f"sub-{subject}/eeg/sub-{subject}_task-x_run-{run}"
    data = np.random.default_rng([int(subject), int(run)]).normal(0, 10, (len(names), 2000))
    write_brainvision(root / f"{stem}_eeg.vhdr", data, names, sfreq)
    (root / f"{stem}_channels.tsv").write_text(
        "name\ttype\tunits\n" + "".join(f"{name}\tEEG\tuV\n" for name in names)
    )
    rows = "".join(f"{i + 1}.0\t0.5\t{'ab'[i % 2]}\n" for i in range(int(1500 / sfreq)))
    (root / f"{stem}_events.tsv").write_text("onset\tduration\ttrial_type\n" + rows)
    sidecar = {"SamplingFrequency": sfreq, "EEGChannelCount": len(names),
               "RecordingDuration": 2000 / sfreq, "PowerLineFrequency": 50}  # fmt: skip
    (root / f"{stem}_eeg.json").write_text(json.dumps(sidecar))


@pytest.fixture
def whole(tmp_path) -> Path:
    """A BIDS data set of one person and two runs in which nothing is wrong."""
    root = tmp_path / "bids"
    for run in ("1", "2"):
        write_run(root, run=run)
    places = mne.channels.make_standard_montage("colin27_1020").get_positions()["ch_pos"]
    rows = ["\t".join([name, *(f"{v:.5f}" for v in places[name])]) for name in NAMES]
    folder = root / "sub-01" / "eeg"
    (folder / "sub-01_electrodes.tsv").write_text("name\tx\ty\tz\n" + "\n".join(rows) + "\n")
    (folder / "sub-01_coordsystem.json").write_text(
        json.dumps({"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "m"})
    )
    (root / "README").write_text("Simulated noise.")
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\n")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    return root


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def annex(path: Path, unlocked: bool = False) -> None:
    path.unlink()
    if unlocked:
        path.write_text("/annex/objects/MD5E-s48000--0.eeg\n")
    else:
        path.symlink_to("../../.git/annex/objects/aa/bb/MD5E-s48000--0/MD5E-s48000--0")


def to_cp1252(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("uV", "µV")
    path.write_bytes(text.encode("cp1252"))


# name -> (what is done to the data set, file with the fault, severity, text, repair)
PLANTED = {
    "positions n/a": (
        lambda root: edit_positions(root, lambda cells: [cells[0], "n/a", "n/a", "n/a"]),
        "sub-01/eeg/sub-01_electrodes.tsv", "warning", "all 6 positions are n/a", "",
    ),
    "one place": (
        lambda root: edit_positions(root, lambda cells: [cells[0], "0.01", "0.02", "0.03"]),
        "sub-01/eeg/sub-01_electrodes.tsv", "error", "all 6 positions are equal", "drop-positions",
    ),
    "millimetres": (
        lambda root: edit_positions(
            root, lambda cells: [cells[0], *(f"{float(c) * 1000:.3f}" for c in cells[1:])]
        ),
        "sub-01/eeg/sub-01_electrodes.tsv", "error", "m from the origin when read in m; they look "
        "like mm", "drop-positions",
    ),
    "decimal comma": (
        lambda root: edit(root / f"{STEM}_events.tsv", "0.5", "0,5"),
        f"{STEM}_events.tsv", "error", "decimal commas in column duration, e.g. '0,5' in line 2",
        "decimal-comma",
    ),
    "negative duration": (
        lambda root: edit(root / f"{STEM}_events.tsv", "3.0\t0.5", "3.0\t-0.5"),
        f"{STEM}_events.tsv", "error", "2 negative durations, first in line 4",
        "negative-durations",
    ),
    "markers missing": (
        lambda root: (root / f"{STEM}_eeg.vmrk").unlink(),
        f"{STEM}_eeg.vhdr", "error", "the marker file sub-01_task-x_run-1_eeg.vmrk is not", "",
    ),
    "samples missing": (
        lambda root: (root / f"{STEM}_eeg.eeg").unlink(),
        f"{STEM}_eeg.vhdr", "error", "data file that a BrainVision header names is not there", "",
    ),
    "repeated channels": (
        lambda root: edit(root / f"{STEM}_eeg.vhdr", "Ch2=Fp2", "Ch2=Fp1"),
        f"{STEM}_eeg.vhdr", "error", "channel names repeat: Fp1 x 2", "unique-names",
    ),
    "annex link": (
        lambda root: annex(root / f"{STEM}_eeg.eeg"),
        f"{STEM}_eeg.eeg", "error", "a placeholder of git-annex", "",
    ),
    "annex pointer": (
        lambda root: annex(root / f"{STEM}_eeg.eeg", unlocked=True),
        f"{STEM}_eeg.eeg", "error", "a placeholder of git-annex", "",
    ),
    "truncated": (
        lambda root: cut(root / f"{STEM}_eeg.eeg"),
        f"{STEM}_eeg.vhdr", "error", "cut short: 1791 samples (43000 bytes", "",
    ),
    "unknown type": (
        lambda root: (root / f"{STEM}_eeg.mat").write_bytes(b"x" * 2000),
        f"{STEM}_eeg.mat", "warning", "nothing reads files of type .mat", "",
    ),
    "cp1252": (
        lambda root: to_cp1252(root / f"{STEM}_channels.tsv"),
        f"{STEM}_channels.tsv", "error", "not UTF-8, as BIDS asks for, but cp1252",
        "text-encoding",
    ),
    "utf-16": (
        lambda root: (root / f"{STEM}_events.tsv").write_text(
            (root / f"{STEM}_events.tsv").read_text(), encoding="utf-16"
        ),
        f"{STEM}_events.tsv", "error", "but utf-16", "text-encoding",
    ),
    "byte-order mark": (
        lambda root: (root / f"{STEM}_events.tsv").write_bytes(
            codecs.BOM_UTF8 + (root / f"{STEM}_events.tsv").read_bytes()
        ),
        f"{STEM}_events.tsv", "note", "begins with a byte-order mark", "",
    ),
    "CRLF": (
        lambda root: edit_bytes(root / f"{STEM}_events.tsv", b"\n", b"\r\n"),
        f"{STEM}_events.tsv", "note", "lines end with CRLF", "",
    ),
    "two columns of one name": (
        lambda root: edit(root / f"{STEM}_events.tsv", "duration", "onset"),
        f"{STEM}_events.tsv", "error", "columns stand twice: onset", "",
    ),
    "cells": (
        lambda root: edit(root / f"{STEM}_events.tsv", "3.0\t0.5\ta", "3.0\t0.5"),
        f"{STEM}_events.tsv", "error", "2 rows with another number of cells than the header, first "
        "in line 4: 2 for 3", "",
    ),
    "volts": (
        lambda root: edit_bytes(root / f"{STEM}_eeg.vhdr", ",1,µV".encode(), b",1,V"),
        f"{STEM}_eeg.vhdr", "error", "eeg amplitudes cannot be in V: ", "",
    ),
    "events outside": (
        lambda root: edit(root / f"{STEM}_events.tsv", "5.0\t", "5000.0\t"),
        f"{STEM}_events.tsv", "error", "2 of 15 events lie outside the recording of 20.00 s, e.g. "
        "at 15000 s (milliseconds?)", "",
    ),
    "onset": (
        lambda root: edit(root / f"{STEM}_events.tsv", "3.0\t", "n/a\t"),
        f"{STEM}_events.tsv", "error", "2 onsets are no numbers, first 'n/a' in line 4", "",
    ),
    "participant missing": (
        lambda root: edit(root / "participants.tsv", "sub-01\t30", "sub-01\t30\nsub-07\t31"),
        "participants.tsv", "warning", "sub-07: listed and without a folder", "",
    ),
    "participant not listed": (
        lambda root: write_run(root, subject="02"),
        "participants.tsv", "warning", "sub-02: with a folder and not listed", "",
    ),
    "participant unsafe": (
        lambda root: edit(root / "participants.tsv", "sub-01\t30", "sub-01\t30\n../sub-09\t1"),
        "participants.tsv", "error", "'../sub-09' is no label of a participant", "",
    ),
    "sidecar rate": (
        lambda root: edit(root / f"{STEM}_eeg.json", '"SamplingFrequency": 100.0',
                          '"SamplingFrequency": 250.0'),
        f"{STEM}_eeg.json".replace("json", "vhdr"), "error", "SamplingFrequency is 250 Hz in the "
        "sidecar, 100 Hz in the header", "",
    ),
    "sidecar length": (
        lambda root: edit(root / f"{STEM}_eeg.json", '"RecordingDuration": 20.0',
                          '"RecordingDuration": 10.0'),
        f"{STEM}_eeg.vhdr", "warning", "the recording lasts 20 s", "",
    ),
    "sidecar channels": (
        lambda root: edit(root / f"{STEM}_eeg.json", '"EEGChannelCount": 6',
                          '"EEGChannelCount": 64'),
        f"{STEM}_eeg.vhdr", "warning", "the sidecar counts 64 channels, the header 6", "",
    ),
    "sidecar broken": (
        lambda root: (root / f"{STEM}_eeg.json").write_text("{"),
        f"{STEM}_eeg.json", "error", "no JSON: ", "",
    ),
    "channels differ": (
        lambda root: edit(root / f"{STEM}_channels.tsv", "Cz", "C3"),
        f"{STEM}_channels.tsv", "warning", "1 of them not in the header (C3); 1 of the header not "
        "here (Cz)", "",
    ),
    "rates differ": (
        lambda root: write_run(root, run="3", sfreq=50.0),
        "sub-01/eeg/sub-01_task-x_run-3_eeg.vhdr", "warning", "50 Hz, while "
        "sub-01_task-x_run-1_eeg.vhdr has 100 Hz", "",
    ),
    "channel order": (
        lambda root: write_run(root, run="3", names=NAMES[::-1]),
        "sub-01/eeg/sub-01_task-x_run-3_eeg.vhdr", "note", "channels stand in another order", "",
    ),
    "channel sets": (
        lambda root: write_run(root, run="3", names=NAMES[:-1]),
        "sub-01/eeg/sub-01_task-x_run-3_eeg.vhdr", "warning", "1 channels are not in both", "",
    ),
    "README": (lambda root: (root / "README").unlink(), "README", "note", "there is no README", ""),
    "description": (
        lambda root: (root / "dataset_description.json").unlink(),
        "dataset_description.json", "warning", "not there", "",
    ),
    "version": (
        lambda root: edit(root / "dataset_description.json", "BIDSVersion", "Version"),
        "dataset_description.json", "warning", "BIDSVersion missing", "",
    ),
    "scans": (
        lambda root: (root / "sub-01/sub-01_scans.tsv").write_text(
            "filename\neeg/nothing_eeg.vhdr\n../../secret.vhdr\n"
        ),
        "sub-01/sub-01_scans.tsv", "error", "a path that leaves the data set: '../../secret", "",
    ),
    "empty file": (
        lambda root: (root / f"{STEM}_events.tsv").write_text(""),
        f"{STEM}_events.tsv", "error", "an empty file", "",
    ),
}  # fmt: skip


def edit_positions(root: Path, change) -> None:
    path = root / "sub-01/eeg/sub-01_electrodes.tsv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *("\t".join(change(row.split("\t"))) for row in rows)]) + "\n")


def edit_bytes(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def test_nothing_is_found_where_nothing_is_wrong(whole):
    assert diagnose(whole) == []
    assert diagnose(whole, subjects=["sub-01"]) == []


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_planted_fault_is_found(name, whole):
    plant, file, severity, text, repair = PLANTED[name]
    plant(whole)
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    found = diagnose(whole)
    mine = [f for f in found if f.file == file and f.severity == severity and text in f.what]
    assert mine, found
    assert mine[0].repair == repair
    if severity != "note":
        assert mine[0].remedy
    assert {p: p.read_bytes() for p in before} == before, "nothing is written"


def test_epoched_eeglab_is_told(whole):
    n, trials = 100, 6
    epochs = np.zeros(trials, dtype=[("event", object), ("eventtype", object),
                                     ("eventlatency", object)])  # fmt: skip
    events = np.zeros(trials, dtype=[("type", object), ("latency", object), ("epoch", object)])
    for i in range(trials):
        epochs[i], events[i] = (float(i + 1), "go", 0.0), ("go", float(i * n + 1), float(i + 1))
    places = np.zeros(4, dtype=[("labels", object)])
    places["labels"] = list(NAMES[:4])
    eeg = {
        "setname": "x", "nbchan": 4.0, "pnts": float(n), "trials": float(trials), "srate": 100.0,
        "xmin": 0.0, "xmax": 0.99, "chanlocs": places, "event": events, "epoch": epochs,
        "data": np.random.default_rng(0).normal(0, 10, (4, n, trials)).astype(np.float32),
        "ref": "common", "icawinv": [], "icaweights": [],
    }  # fmt: skip
    path = whole / "sub-01/eeg/sub-01_task-y_eeg.set"
    scipy.io.savemat(path, {"EEG": eeg}, appendmat=False, oned_as="row")
    found = [fault for fault in diagnose(whole) if fault.file.endswith(".set")]
    assert [fault.code for fault in found] == ["epoched"]
    assert found[0].severity == "note" and "continuous" in found[0].remedy


@pytest.mark.parametrize(
    ("t_r", "unit", "stated", "text"),
    [
        (2.0, "sec", 2.5, "RepetitionTime is 2.5 s in the sidecar, 2 s in the header"),
        (2000.0, "sec", None, "the repetition time is 2000 s (milliseconds?)"),
        (0.0, "sec", None, "the repetition time is 0 s"),
    ],
)
def test_f24_repetition_times(t_r, unit, stated, text, whole):
    path = whole / "sub-01/func/sub-01_task-x_bold.nii"
    path.parent.mkdir()
    image = nibabel.Nifti1Image(np.zeros((3, 3, 3, 10), np.float32), np.eye(4))
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = t_r
    nibabel.save(image, path)
    if stated is not None:
        path.with_suffix(".json").write_text(json.dumps({"RepetitionTime": stated}))
    assert any(text in fault.what and fault.severity == "error" for fault in diagnose(whole))
    path.write_bytes(path.read_bytes()[:900])
    assert any("cut short: 900 of" in fault.what for fault in diagnose(whole))


def test_many_files_with_one_fault_are_told_together(whole):
    for run in range(3, 9):
        write_run(whole, run=str(run))
        edit(whole / f"sub-01/eeg/sub-01_task-x_run-{run}_events.tsv", "0.5", "0,5")
    found = diagnose(whole)
    assert sum(fault.repair == "decimal-comma" for fault in found) == 6
    console = Console(width=200)
    with console.capture() as capture:
        console.print(diagnosis_table(found))
    shown = capture.get()
    assert "and 3 more" in shown and "6 errors" in shown
    assert 'repairs = ["decimal-comma"]' in shown.splitlines()[-1]


def test_check_exits_with_2_only_for_errors(whole, capsys):
    assert main(["check", str(whole), "--quiet"]) == 0
    assert "No fault found." in capsys.readouterr().out
    edit(whole / "participants.tsv", "sub-01\t30", "sub-01\t30\nsub-07\t31")
    assert main(["check", str(whole), "--quiet"]) == 0
    assert "1 warning" in capsys.readouterr().out
    edit(whole / f"{STEM}_events.tsv", "3.0\t0.5", "3.0\t-0.5")
    assert main(["check", str(whole), "--quiet"]) == 2
    shown = capsys.readouterr().out
    assert "negative durations" in shown and '  repairs = ["negative-durations"]' in shown


def test_a_data_set_without_events_can_be_checked(whole, capsys):
    for file in whole.rglob("*_events.tsv"):
        file.unlink()
    assert main(["check", str(whole), "--quiet"]) == 0
    assert "no recording has events" in capsys.readouterr().out


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match="the data folder does not exist"):
        diagnose(tmp_path / "none")


@pytest.mark.data
@pytest.mark.parametrize("name", ["muse-n170", "haxby2001-slice", "n400-words", "story-parcels"])
def test_real_data_sets_have_no_error(name, shared_data):
    assert [f for f in diagnose(shared_data / name) if f.severity != "note"] == []


@pytest.mark.data
def test_the_number_format_of_tiny_bids_is_wrong(shared_data):
    """Its header says 16-bit integers; the sidecar's length fits floats of 32 bits."""
    whats = [fault.what for fault in diagnose(shared_data / "formats" / "tiny_bids")]
    assert any("RecordingDuration is 0.9998 s" in what and "lasts 2 s" in what for what in whats)
    assert any("eeg amplitudes cannot be in V" in what for what in whats)
