"""Memory does not grow with the recording, and results do not depend on the size of the blocks."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import mne
import nibabel
import numpy as np
import pytest
from scipy.signal import resample_poly

from braindecode_pipe.preprocess import filtering, reading, scratch, volumes
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.store import layout, open_store

EMEG = {
    "montage": "biosemi64", "reference": "average", "notch": [50.0], "l_freq": 0.5, "h_freq": 20.0,
    "reject_amplitude": {"eeg": 3e-4}, "sfreq": 50.0,
}  # fmt: skip
# Runs one recording in a process of its own; prints the growth of its peak memory [MB].
PROGRAM = """
import json, re, sys
import mne.channels, mne.filter, scipy.ndimage, scipy.signal
from braindecode_pipe.preprocess import emeg, run
from braindecode_pipe.recipe import PreprocessSection
from pathlib import Path

def peak():  # ru_maxrss would include the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

row = dict.fromkeys(["session", "task", "run"], "") | {"recording": "rec", "subject": "01",
    "datatype": "eeg", "path": "rec.vhdr", "content_hash": "0" * 64}
before = peak()
run(PreprocessSection(emeg=json.loads(sys.argv[3])), row, Path(sys.argv[1]), Path(sys.argv[2]),
    allow_truncated=False, data_origin="simulated")
print(peak() - before)
"""


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 1 MiB everywhere, so that small recordings are cut into many."""
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 2**20)
    monkeypatch.setattr(filtering, "BLOCK_BYTES", 2**20)
    # Reserves 32 MiB that nobody touches: no memory, though tracemalloc counts it.
    monkeypatch.setattr(filtering, "_keep_freed_memory", lambda: None)
    monkeypatch.setattr(volumes, "_SLAB", 2**20)
    monkeypatch.setattr(layout, "MAX_CHUNK_BYTES", 2**20)


@pytest.fixture
def long_recording(tmp_path, write_brainvision):
    """``long_recording(minutes)`` -> folder with a recording of 64 channels at 250 Hz."""
    names = mne.channels.make_standard_montage("biosemi64").ch_names

    def write(minutes: int):
        folder = tmp_path / f"{minutes}-minutes"
        rng = np.random.default_rng(minutes)
        maps = rng.normal(size=(64, 6))
        piece = 250 * 60
        write_brainvision(folder, np.zeros((64, 1)), names, sfreq=250.0)
        with (folder / "rec.eeg").open("wb") as file:
            for _ in range(minutes):
                data = 10 * (maps @ rng.normal(size=(6, piece)) + rng.normal(size=(64, piece)))
                file.write(data.T.astype("<f4").tobytes())
        return folder

    return write


def traced_peak(function) -> float:
    """Peak of what Python and numpy allocate during a call [MB]."""
    gc.collect()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_eeg_memory_is_the_same_for_four_times_the_length(
    long_recording, tmp_path, run_stage, small_blocks
):
    peaks = []
    for minutes in (1, 1, 4):  # the first one for what is imported and cached once
        folder, out = long_recording(minutes), tmp_path / "out.zarr"
        peaks.append(traced_peak(lambda f=folder, o=out: run_stage(f, "rec.vhdr", o, emeg=EMEG)))
    whole = 64 * 4 * 60 * 250 * 8 / 2**20
    assert peaks[2] < whole / 4
    assert peaks[2] < 1.25 * peaks[1]
    # The reference keeps its samples in a file.
    for minutes in (1, 4):
        folder, settings = long_recording(minutes), {**EMEG, "engine": "mne"}
        peaks.append(
            traced_peak(lambda f=folder, s=settings: run_stage(f, "rec.vhdr", out, emeg=s))
        )
    assert peaks[4] < whole / 4
    assert peaks[4] < 1.25 * peaks[3]


def test_bold_memory_is_the_same_for_four_times_the_length(
    tmp_path, run_stage, bold_affine, small_blocks
):
    rng = np.random.default_rng(0)
    peaks = []
    for n_times in (80, 80, 320):
        data = (1000 + 10 * rng.normal(size=(24, 24, 20, n_times))).astype(np.int16)
        image = nibabel.Nifti1Image(data, bold_affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = 2.0
        nibabel.save(image, tmp_path / "sub-01_bold.nii.gz")
        del data, image

        def stage():
            run_stage(tmp_path, "sub-01_bold.nii.gz", tmp_path / "out.zarr", "bold",
                      bold={"high_pass": 0.01})  # fmt: skip

        peaks.append(traced_peak(stage))
    whole = 24 * 24 * 20 * 320 * 4 / 2**20
    assert peaks[2] < whole
    assert peaks[2] < 1.25 * peaks[1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux' VmHWM")
def test_resident_memory_of_a_long_recording(long_recording, tmp_path):
    grown = []
    for minutes in (60, 120):  # 230 and 461 MB as float32, in two and four equal blocks
        folder = long_recording(minutes)
        command = [sys.executable, "-c", PROGRAM, folder, tmp_path / "out.zarr", json.dumps(EMEG)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        grown.append(float(done.stdout))
    assert grown[1] < 1.25 * grown[0]
    assert grown[1] < 250


def test_blocks_give_what_whole_arrays_give(tmp_path, make_eeg, run_stage, monkeypatch):
    names = mne.channels.make_standard_montage("biosemi32").ch_names
    data = make_eeg(32, 12000)
    data[9] *= 60
    data[:, 6000:6400] = 0
    data[5, 9000:9020] += 2e-3
    info = mne.create_info(names, 200.0, "eeg")
    raw = mne.io.RawArray(data, info, first_samp=777, verbose="error").set_montage("biosemi32")
    raw.set_annotations(mne.Annotations([30.0, 10.0], [2.0, 0.5], ["BAD_ACQ_SKIP", "BAD_jaw"]))
    raw.save(tmp_path / "a_raw.fif", fmt="double", verbose="error")
    settings = {**EMEG, "notch": [20.0], "clamp": 5.0, "sfreq": 60.0, "reject_margin_s": 0.1}
    stores = []
    for i, block in enumerate((1, 2**19, 2**24)):
        monkeypatch.setattr(scratch, "BLOCK_BYTES", block)
        monkeypatch.setattr(filtering, "BLOCK_BYTES", block)
        for engine in ("fast", "mne"):
            stores.append(run_stage(tmp_path, "a_raw.fif", tmp_path / f"{i}-{engine}.zarr",
                                    emeg={**settings, "engine": engine}))  # fmt: skip

    # The same steps on the whole array.
    raw = mne.io.read_raw(tmp_path / "a_raw.fif", preload=True, verbose="error")
    assert raw.first_samp == 777
    raw.info["bads"] = [names[9]]
    raw.interpolate_bads(verbose="error").set_eeg_reference("average", verbose="error")
    raw.notch_filter([20.0], picks="all", verbose="error")
    raw.filter(0.5, 20.0, picks="all", verbose="error")
    over = (np.abs(raw.get_data()) > 3e-4).any(axis=0)
    bad = np.convolve(over, np.ones(41), mode="same") > 0.5
    bad[6000:6400] = bad[2000:2100] = True
    ratio = Fraction(60, 200)
    values = resample_poly(raw.get_data(), ratio.numerator, ratio.denominator, axis=1,
                           padtype="line")  # fmt: skip
    times = np.arange(values.shape[1]) / 60
    at = np.arange(12000) / 200
    good = np.array([not bad[np.abs(at - t) <= 0.5 / 60 + 1e-9].any() for t in times])
    low, middle, high = np.percentile(values[:, good], [25, 50, 75], axis=1)
    expected = np.clip((values - middle[:, None]) / (high - low)[:, None], -5, 5)

    assert 0.8 < good.mean() < 0.97
    for path in stores:
        root = open_store(path)
        np.testing.assert_array_equal(root["time_good"].values, good)
        found, gain = root["signal"].values, root["gain"].values
        if "mne" in path.name:
            np.testing.assert_allclose(found, expected, atol=1e-6)
            np.testing.assert_allclose(gain, high - low, rtol=1e-6)
        else:
            # At the ends and the break all filters see one padding, in MNE each its own.
            inner = np.r_[400:1400, 2400:3200]
            error = found[:, inner] - expected[:, inner]
            assert error.std() < 2e-3 * expected[:, inner].std()
            np.testing.assert_allclose(gain, high - low, rtol=5e-3)
    for path in stores[2::2]:
        np.testing.assert_allclose(
            open_store(path)["signal"].values, open_store(stores[0])["signal"].values, atol=1e-4
        )
    for path in stores:
        root = open_store(path)
        saved = json.loads(root.attrs["info"])
        assert (saved["highpass"], saved["lowpass"]) == (0.5, 20.0)


@pytest.mark.parametrize("block", [1, 10_000, 2**24])
def test_epochs_are_copied_as_mne_loads_them(tmp_path, make_eeg, channel_names, block, monkeypatch):
    monkeypatch.setattr(scratch, "BLOCK_BYTES", block)
    data = make_eeg(n_times=25 * 40).reshape(19, 25, 40).transpose(1, 0, 2)
    info = mne.create_info(channel_names, 100.0, "eeg")
    path = tmp_path / "a-epo.fif"
    mne.EpochsArray(data, info, verbose="error").save(path, verbose="error")
    epochs, _ = reading.read_epochs(path, tmp_path)
    assert not epochs.preload
    with Scratch(tmp_path / "a.zarr", (3, 25 * 40)) as samples:
        assert reading.copy_epochs(epochs, [1, 4, 18], samples, path, tmp_path) == []
        found = samples.read().reshape(3, 25, 40).transpose(1, 0, 2)
    expected = mne.read_epochs(path, verbose="error").get_data(picks=[1, 4, 18])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.data
@pytest.mark.parametrize("name", ["test_uneven_samp.edf", "test_stim_channel.edf", "test.bdf"])
def test_rates_that_differ_are_read_as_mne_loads_them(shared_data, tmp_path, name, monkeypatch):
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 20_000)
    path = shared_data / "formats" / "mne-io" / "edf" / "tests" / "data" / name
    raw = mne.io.read_raw(path, verbose="error")
    picks = list(range(len(raw.ch_names)))
    with Scratch(tmp_path / "a.zarr", (len(picks), raw.n_times)) as samples:
        reading.copy_raw(raw, picks, samples, path, path.parent)
        found = samples.read()
    whole = mne.io.read_raw(path, preload=True, verbose="error")
    np.testing.assert_array_equal(found, whole.get_data())
