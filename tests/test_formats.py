"""Files of every vendor: each becomes a store, or one line says what it is and what to do.

``python tests/test_formats.py FOLDER`` prints the table of a folder.
"""

from __future__ import annotations

import gzip
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mne
import numpy as np
import pytest
import scipy.io

from braindecode_pipe import preprocess
from braindecode_pipe.errors import BraindecodePipeError, DataError, TruncatedRecordingError
from braindecode_pipe.formats import (
    check_declared,
    companion_files,
    declared,
    describe,
    open_epochs,
    open_raw,
)
from braindecode_pipe.plan import find_recordings
from braindecode_pipe.preprocess.reading import read_epochs, read_raw
from braindecode_pipe.recipe import PlanSection, PreprocessSection
from braindecode_pipe.store import open_store

PLAIN = {"sfreq": None, "l_freq": None, "h_freq": None, "detect_bads": False, "bads": "keep"}
SECTION = PreprocessSection(emeg=PLAIN)
# What becomes a store; of everything else in that folder one line says why not.
WHOLE = {
    "simulation.avr", "simulation.mul", "simulation_oldstyle.avr", "test.vhdr", "testv2.vhdr",
    "test_bin_raw.fif", "test_highpass.vhdr", "test_highpass_hz.vhdr", "test_lowpass_s.vhdr",
    "test_mixed_highpass.vhdr", "test_mixed_highpass_hz.vhdr", "test_mixed_lowpass.vhdr",
    "test_mixed_lowpass_s.vhdr", "test_old_layout_latin1_software_filter.vhdr",
    "test_old_layout_latin1_software_filter_longname.vhdr",
    "test_partially_disabled_hw_filter.vhdr", "test_units.vhdr", "exported4D_linux_raw.fif",
    "exported4D_solaris_raw.fif", "test_pdf_linux", "test_pdf_solaris", "test.bdf", "test.edf",
    "test_bdf_stim_channel.bdf", "test_edf_stim_channel.edf", "test_stim_channel.edf",
    "test_egi.raw", "test-epoch.raw", "test.sqd", "test_umd-raw.sqd", "test_nicolet_raw.data",
    "test-ave.fif.gz", "test_ctf_comp_raw.fif",
}  # fmt: skip


def results(root: Path, out: Path) -> Iterator[tuple[str, str, BraindecodePipeError | None]]:
    """(file, result in a few words, error) of every file below ``root``, through the stages."""
    for number, path in enumerate(sorted(p for p in root.rglob("*") if p.is_file())):
        name = path.relative_to(root).as_posix()
        try:
            row = find_recordings(PlanSection(files=[name]), root).to_dict("records")[0]
            store = out / f"{number}.zarr"
            preprocess.run(SECTION, row, root, store, allow_truncated=False, data_origin="recorded")
        except BraindecodePipeError as error:
            yield name, error.line.replace(f"{root}/", "").replace(f"{root.resolve()}/", ""), error
        else:
            found = open_store(store)
            sizes = ", ".join(f"{n} {s}" for s, n in found.sizes.items())
            yield name, f"{row['datatype']}: {sizes}", None


@pytest.mark.data
def test_every_file_becomes_a_store_or_one_line_says_why_not(shared_data, tmp_path):
    whole, lines = set(), {}
    for name, line, error in results(shared_data / "formats", tmp_path):
        if error is None:
            whole.add(name)
        else:
            assert "\n" not in line and Path(name).name in line, line
            assert error.file and error.expected and error.found, line
            lines[name] = line
    assert {Path(name).name for name in whole} == WHOLE
    said = {
        "test-cov.fif": "is a noise covariance, not a recording", "small-src.fif.gz": "a source",
        "test-proj.fif.gz": "is projections", "test-eve.fif": "is events", "test.label": "label",
        "trans-sample.fif": "is a coordinate transform", "test_raw.lout": "is a sensor layout",
        "test_mrk.sqd": "is a KIT marker measurement", "test_hs_linux": "head shape of a BTi/4D",
        "test_config_linux": "the configuration of a BTi/4D", "test_eeglab.mat": "data 72 x 2048",
        "duplicate_channel_labels.edf": "EEG F1-Ref x 2", "test_egi.txt": "is a text file",
        "test_uneven_samp.edf": "1.77 (fits after multiplication by 1e-6)",
        "test.vmrk": "give test.vhdr", "test_nicolet_raw.head": "give test_nicolet_raw.data",
    }  # fmt: skip
    for name, text in said.items():
        assert all(text in line for file, line in lines.items() if Path(file).name == name)


# --- companions and kinds ------------------------------------------------------------------------


@pytest.mark.data
def test_kit_markers_and_head_shape_are_found_beside_the_file(shared_data, tmp_path):
    folder = shared_data / "formats/mne-io/kit/tests/data"
    assert [file.name for file in companion_files(folder / "test.sqd")] == [
        "test_mrk.sqd", "test.elp", "test.hsp",
    ]  # fmt: skip
    raw = open_raw(folder / "test.sqd")
    assert raw.info["dev_head_t"] is not None and len(raw.info["dig"]) > 100
    shutil.copy(folder / "test.sqd", tmp_path / "alone.sqd")
    # Without markers MNE says that head and device are one; they are not known to be.
    assert open_raw(tmp_path / "alone.sqd").info["dev_head_t"] is None
    for name in ("test_mrk_pre.sqd", "test_mrk_post.sqd", "test.elp", "test.hsp"):
        shutil.copy(folder / name, tmp_path / name.replace("test", "alone"))
    both = companion_files(tmp_path / "alone.sqd")
    assert [file.name for file in both[:2]] == ["alone_mrk_pre.sqd", "alone_mrk_post.sqd"]
    averaged = open_raw(tmp_path / "alone.sqd").info["dev_head_t"]["trans"]
    assert np.isfinite(averaged).all() and not np.allclose(averaged, np.eye(4))


@pytest.mark.data
def test_kit_epochs_need_their_events(shared_data, tmp_path):
    folder = shared_data / "formats/mne-io/kit/tests/data"
    assert len(open_epochs(folder / "test-epoch.raw")) == 2
    shutil.copy(folder / "test-epoch.raw", tmp_path)
    with pytest.raises(DataError, match="expected: test-eve.txt beside the file"):
        read_epochs(tmp_path / "test-epoch.raw", tmp_path)


@pytest.mark.data
def test_bti_configuration_is_found_by_name_or_in_the_folder(shared_data, tmp_path):
    folder = shared_data / "formats/mne-io/bti/tests/data"
    named = open_raw(folder / "test_pdf_linux")
    for ours, theirs in (("c,rfDC", "pdf"), ("config", "config"), ("hs_file", "hs")):
        shutil.copy(folder / f"test_{theirs}_linux", tmp_path / ours)
    found = open_raw(tmp_path / "c,rfDC")
    assert found.ch_names == named.ch_names and found.n_times == named.n_times == 305
    assert describe(tmp_path / "config").form == ""


@pytest.mark.data
def test_averages_are_epochs_with_one_event_per_condition(shared_data):
    path = shared_data / "formats/mne-io/tests/data/test-ave.fif.gz"
    epochs, _ = read_epochs(path, path.parent)
    evoked = mne.read_evokeds(path, condition="Left visual", proj=False, verbose="error")
    assert list(epochs.event_id) == ["Left Auditory", "Right Auditory", "Left visual",
                                     "Right visual"]  # fmt: skip
    assert epochs.tmin == pytest.approx(evoked.tmin)
    np.testing.assert_allclose(epochs.get_data()[2], evoked.data)


def test_averages_that_differ_are_refused(tmp_path):
    info = mne.create_info(["Cz", "Pz"], 100.0, "eeg")
    path = tmp_path / "a-ave.fif"
    two = [mne.EvokedArray(np.ones((2, n)) * 1e-6, info, comment="a") for n in (10, 12)]
    mne.write_evokeds(path, two, verbose="error")
    with pytest.raises(DataError, match="averages of one file differ(.|\n)*2 x 12 in 'a'"):
        read_epochs(path, tmp_path)


def test_fif_of_eeg_is_no_meg(tmp_path):
    for kinds, datatype in ((["eeg", "eeg"], "eeg"), (["seeg", "misc"], "ieeg"), (["mag"], "meg")):
        info = mne.create_info([f"A{i}" for i in range(len(kinds))], 100.0, kinds)
        raw = mne.io.RawArray(np.zeros((len(kinds), 100)), info, verbose="error")
        raw.save(tmp_path / f"{datatype}_raw.fif", verbose="error")
    table = find_recordings(PlanSection(files=["*_raw.fif"]), tmp_path)
    assert list(table["datatype"]) == ["eeg", "ieeg", "meg"]


def test_placeholders_of_git_annex_are_named(tmp_path):
    dead = tmp_path / "a.edf"
    dead.symlink_to("../.git/annex/objects/xx/yy/SHA256E-s1--0.edf/SHA256E-s1--0.edf")
    pointer = tmp_path / "b.edf"
    pointer.write_text("/annex/objects/SHA256E-s1--0.edf\n")
    for path in (dead, pointer):
        with pytest.raises(DataError, match="a placeholder of git-annex(.|\n)*datalad get"):
            read_raw(path, tmp_path, allow_truncated=False)


# --- EEGLAB --------------------------------------------------------------------------------------


def write_set(path: Path, data: np.ndarray, trials: int = 1, fdt: bool = True) -> Path:
    """An EEGLAB data set of (n_channels, n_times * trials) microvolts at 100 Hz."""
    n_channels, n = len(data), data.shape[1] // trials
    locations = np.zeros(n_channels, dtype=[("labels", object)])
    locations["labels"] = [f"E{i + 1}" for i in range(n_channels)]
    events = np.zeros(trials, dtype=[("type", object), ("latency", object), ("epoch", object)])
    epochs = np.zeros(trials, dtype=[("event", object), ("eventtype", object),
                                     ("eventlatency", object)])  # fmt: skip
    for i in range(trials):
        events[i] = ("go" if i % 2 else "stop", float(i * n + 1), float(i + 1))
        epochs[i] = (float(i + 1), "go" if i % 2 else "stop", 0.0)
    held = data.astype(np.float32)
    shaped = held.reshape(n_channels, trials, n).transpose(0, 2, 1) if trials > 1 else held
    eeg = {
        "setname": "x", "nbchan": float(n_channels), "pnts": float(n), "trials": float(trials),
        "srate": 100.0, "xmin": 0.0, "xmax": (n - 1) / 100, "chanlocs": locations,
        "data": path.with_suffix(".fdt").name if fdt else shaped, "event": events,
        "epoch": epochs if trials > 1 else [], "ref": "common", "icawinv": [], "icaweights": [],
    }  # fmt: skip
    scipy.io.savemat(path, {"EEG": eeg}, appendmat=False, oned_as="row")
    if fdt:
        held.T.astype("<f4").tofile(path.with_suffix(".fdt"))
    return path


@pytest.fixture
def microvolts() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 10, (4, 1200))


@pytest.mark.parametrize("fdt", [True, False])
def test_eeglab_epochs_are_read_as_epochs(fdt, tmp_path, microvolts):
    path = write_set(tmp_path / "a.set", microvolts, trials=6, fdt=fdt)
    row = find_recordings(PlanSection(files=["a.set"]), tmp_path).to_dict("records")[0]
    assert (row["datatype"], row["n_times"], row["problem"]) == ("epochs", 1200, "")
    epochs, _ = read_epochs(path, tmp_path)
    assert sorted(epochs.event_id) == ["go", "stop"]
    held = microvolts.reshape(4, 6, 200).transpose(1, 0, 2) * 1e-6
    np.testing.assert_allclose(epochs.get_data(), held, atol=1e-11)
    with pytest.raises(DataError, match="a.set is EEGLAB epochs, not a continuous recording"):
        read_raw(path, tmp_path, allow_truncated=False)
    preprocess.run(
        SECTION, row, tmp_path, tmp_path / "a.zarr", allow_truncated=False, data_origin="simulated"
    )
    assert open_store(tmp_path / "a.zarr")["response"].shape == (6, 4, 200)


def test_eeglab_without_its_samples(tmp_path, microvolts):
    path = write_set(tmp_path / "a.set", microvolts)
    path.with_suffix(".fdt").unlink()
    with pytest.raises(DataError, match="an EEGLAB header names is not there(.|\n)*a.fdt"):
        read_raw(path, tmp_path, allow_truncated=False)


# --- cut files -----------------------------------------------------------------------------------


def ctf_sizes(path: Path, n_samples: int, n_channels: int, n_trials: int) -> Path:
    """The part of a CTF folder that says how long it is, and samples of that length."""
    path.mkdir()
    header = bytearray(1400)
    struct.pack_into(">ih", header, 1288, n_samples, n_channels)
    struct.pack_into(">h", header, 1312, n_trials)
    (path / f"{path.stem}.res4").write_bytes(header)
    (path / f"{path.stem}.meg4").write_bytes(
        b"MEG41CP\0" + bytes(4 * n_samples * n_channels * n_trials)
    )
    return path / f"{path.stem}.meg4"


def mff_blocks(path: Path, n_blocks: int = 3) -> Path:
    """Blocks of an EGI MFF signal file: the first with a header of its own, as EGI writes them."""
    path.mkdir()
    block = struct.pack("<3i", 1, 40, 800) + bytes(28) + bytes(800)
    more = struct.pack("<i", 0) + bytes(800)
    (path / "epochs.xml").write_text(f"<epoch><lastBlock>{n_blocks}</lastBlock></epoch>")
    (path / "signal1.bin").write_bytes(block + more * (n_blocks - 1))
    return path / "signal1.bin"


@pytest.mark.parametrize("make", [ctf_sizes, mff_blocks])
def test_folders_of_samples_are_compared_with_their_headers(make, tmp_path):
    arguments = (50, 4, 3) if make is ctf_sizes else ()
    folder = tmp_path / ("a.ds" if make is ctf_sizes else "a.mff")
    file = make(folder, *arguments)
    assert check_declared(folder, allow_truncated=False) == ""
    content = file.read_bytes()
    for length in np.random.default_rng(0).integers(9, len(content) - 1, 40):
        file.write_bytes(content[:length])
        with pytest.raises(TruncatedRecordingError, match=f"{file.name}"):
            check_declared(folder, allow_truncated=False)
    if make is ctf_sizes:
        file.write_bytes(content[: 8 + 4 * 4 * 120])
        assert declared(folder).n_times == 100, "two whole trials"


Maker = Callable[[Path, Path], tuple[Path, Path]]


def brainvision(root: Path, formats: Path) -> tuple[Path, Path]:
    for name in ("testv2.vhdr", "testv2.vmrk", "test.eeg"):
        shutil.copy(formats / "brainvision/tests/data" / name, root)
    return root / "testv2.vhdr", root / "test.eeg"


def edf(root: Path, formats: Path) -> tuple[Path, Path]:
    return (
        path := Path(shutil.copy(formats / "edf/tests/data/test_edf_stim_channel.edf", root))
    ), path


def bdf(root: Path, formats: Path) -> tuple[Path, Path]:
    return (
        path := Path(shutil.copy(formats / "edf/tests/data/test_bdf_stim_channel.bdf", root))
    ), path


def kit(root: Path, formats: Path) -> tuple[Path, Path]:
    return (path := Path(shutil.copy(formats / "kit/tests/data/test_umd-raw.sqd", root))), path


def egi(root: Path, formats: Path) -> tuple[Path, Path]:
    return (path := Path(shutil.copy(formats / "egi/tests/data/test_egi.raw", root))), path


def nicolet(root: Path, formats: Path) -> tuple[Path, Path]:
    for name in ("test_nicolet_raw.head", "test_nicolet_raw.data"):
        shutil.copy(formats / "nicolet/tests/data" / name, root)
    return root / "test_nicolet_raw.data", root / "test_nicolet_raw.data"


def bti(root: Path, formats: Path) -> tuple[Path, Path]:
    for name in ("test_pdf_linux", "test_config_linux", "test_hs_linux"):
        shutil.copy(formats / "bti/tests/data" / name, root)
    return root / "test_pdf_linux", root / "test_pdf_linux"


def fif_gz(root: Path, formats: Path) -> tuple[Path, Path]:
    info = mne.create_info(["Cz", "Pz"], 100.0, "eeg")
    values = np.random.default_rng(0).normal(0, 1e-5, (2, 2000))
    raw = mne.io.RawArray(values, info, verbose="error")
    raw.save(root / "a_raw.fif", buffer_size_sec=1, verbose="error")
    path = root / "a_raw.fif.gz"
    path.write_bytes(gzip.compress((root / "a_raw.fif").read_bytes(), mtime=0))
    return path, path


def eeglab_fdt(root: Path, formats: Path) -> tuple[Path, Path]:
    path = write_set(root / "a.set", np.random.default_rng(0).normal(0, 10, (4, 1200)))
    return path, path.with_suffix(".fdt")


def eeglab_set(root: Path, formats: Path) -> tuple[Path, Path]:
    path = write_set(root / "a.set", np.random.default_rng(0).normal(0, 10, (4, 1200)), fdt=False)
    return path, path


MAKERS: tuple[Maker, ...] = (
    brainvision, edf, bdf, kit, egi, nicolet, bti, fif_gz, eeglab_fdt, eeglab_set,
)  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_f13_a_cut_recording_is_never_silently_short(make, shared_data, tmp_path):
    path, samples = make(tmp_path, shared_data / "formats" / "mne-io")
    whole, _ = read_raw(path, tmp_path, allow_truncated=False)
    content, n_times = samples.read_bytes(), whole.n_times
    del whole
    samples.chmod(0o644)
    errors = set()
    for length in np.random.default_rng(1).integers(1, len(content) - 1, 40):
        samples.write_bytes(content[:length])
        with pytest.raises(DataError) as caught:
            read_raw(path, tmp_path, allow_truncated=False)
        errors.add(type(caught.value))
        assert "\n" not in caught.value.line
    assert TruncatedRecordingError in errors or make in (bti, eeglab_set)
    samples.write_bytes(content)
    assert read_raw(path, tmp_path, allow_truncated=False)[0].n_times == n_times


@pytest.mark.data
@pytest.mark.parametrize("make", [brainvision, nicolet, eeglab_fdt], ids=lambda make: make.__name__)
def test_f13_the_prefix_is_what_it_was_in_the_whole(make, shared_data, tmp_path):
    path, samples = make(tmp_path, shared_data / "formats" / "mne-io")
    whole = read_raw(path, tmp_path, allow_truncated=False)[0].get_data()
    content = samples.read_bytes()
    samples.chmod(0o644)
    samples.write_bytes(content[: int(0.7 * len(content)) + 1])
    raw, messages = read_raw(path, tmp_path, allow_truncated=True)
    assert messages[0].startswith("truncated: ") and "the prefix is used" in messages[0]
    assert 0.4 * whole.shape[1] < raw.n_times <= 0.7 * whole.shape[1]
    np.testing.assert_array_equal(raw.get_data(), whole[:, : raw.n_times])


def test_f13_a_part_of_a_split_recording_is_missing_or_cut(tmp_path):
    info = mne.create_info([f"A{i}" for i in range(40)], 1000.0, "eeg")
    raw = mne.io.RawArray(np.random.default_rng(0).normal(0, 1e-5, (40, 30000)), info,
                          verbose="error")  # fmt: skip
    path = tmp_path / "a_raw.fif"
    raw.save(path, split_size="2MB", verbose="error")
    second = tmp_path / "a_raw-1.fif"
    assert second in companion_or_parts(path)
    content = second.read_bytes()
    assert read_raw(path, tmp_path, allow_truncated=False)[0].n_times == 30000
    second.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError):
        read_raw(path, tmp_path, allow_truncated=False)
    second.unlink()
    with pytest.raises(DataError, match="a_raw-1.fif"):
        read_raw(path, tmp_path, allow_truncated=False)


def companion_or_parts(path: Path) -> list[Path]:
    from braindecode_pipe.plan.recordings import recording_files

    return recording_files(path, "eeg", path.parent)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for file, text, _ in results(Path(sys.argv[1]), Path(folder)):
            sys.stdout.write(f"{file}\t{text}\n")
