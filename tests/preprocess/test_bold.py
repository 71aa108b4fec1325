"""fMRI to stores: damaged and contradictory files refused, the same numbers as Nilearn."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
from nilearn.image import smooth_img
from nilearn.signal import clean

from braindecode_pipe.errors import (
    BraindecodePipeError,
    DataError,
    MissingFileError,
    TruncatedRecordingError,
    UnitError,
    UnsafePathError,
)
from braindecode_pipe.preprocess import input_files
from braindecode_pipe.preprocess.masks import compute_mask
from braindecode_pipe.preprocess.volumes import Volumes, open_series
from braindecode_pipe.recipe import PreprocessSection
from braindecode_pipe.store import open_signal, open_store, store_hash

RAW = {"detrend": False, "standardize": False}


def load(path, skip=0, allow_truncated=False):
    """All volumes (x, y, z, time), read slab by slab, the first volumes of the slabs, the note."""
    with Volumes(path, path.with_name("a.zarr"), skip, allow_truncated) as volumes:
        pieces = [(start, volumes.scaled(raw)) for start, raw in volumes.slabs()]
        values = np.concatenate([piece for _, piece in pieces]).T
        shape = (*volumes.shape, volumes.n_times)
        return values.reshape(shape, order="F"), [start for start, _ in pieces], volumes.note


@pytest.fixture
def study(tmp_path, make_bold, write_bold, run_stage):
    """``study(t_r=..., sidecar=..., bold={...})`` -> (root, qc) of the store of one series."""

    def call(data=None, out="out.zarr", bold=None, allow_truncated=False, **how):
        values = make_bold()[0] if data is None else data
        name = write_bold(tmp_path / "data", values, **how)
        path = run_stage(tmp_path / "data", name, tmp_path / out, "bold", allow_truncated,
                         bold=bold or {})  # fmt: skip
        return open_store(path), open_store(path, "qc")

    return call


def test_voxels_of_the_mask_in_order_with_names_and_places(study, make_bold, bold_affine):
    data, brain = make_bold()
    root, qc = study(bold=RAW)
    np.testing.assert_array_equal(root["signal"].values, data[brain])
    ijk = np.argwhere(brain)
    assert list(root["sensor"].values) == ["{:03d}-{:03d}-{:03d}".format(*row) for row in ijk]
    np.testing.assert_array_equal(root["ijk"].values, ijk)
    expected = nibabel.affines.apply_affine(bold_affine, ijk) / 1000
    np.testing.assert_allclose(root["position"].values, expected)
    assert root.attrs["t_r"] == 2 and root.attrs["sfreq"] == 0.5
    assert root.attrs["grid_shape"] == [6, 7, 5] and root.attrs["position_frame"] == "scanner"
    np.testing.assert_array_equal(root["time"].values, 2.0 * np.arange(40))
    assert qc.attrs["mask_coverage"] == pytest.approx(brain.mean())


def test_cleaning_equals_nilearn_on_all_voxels_at_once(study, make_bold, monkeypatch):
    from braindecode_pipe.preprocess import scratch

    data, brain = make_bold()
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 7 * 40 * 8)
    root, _ = study(bold={"high_pass": 0.02})
    expected = clean(
        data[brain].T.astype(float), detrend=True, standardize="zscore_sample", filter="cosine",
        high_pass=0.02, t_r=2.0,
    ).T  # fmt: skip
    np.testing.assert_allclose(root["signal"].values, expected, atol=1e-6)
    assert "high-pass 0.02 Hz (cosine drift terms)" in root.attrs["steps"]


def test_smoothing_equals_nilearn(study, make_bold, bold_affine):
    data, brain = make_bold()
    root, _ = study(bold={**RAW, "smoothing_fwhm": 6.0})
    image = nibabel.Nifti1Image(data.astype(float), bold_affine)
    expected = smooth_img(image, 6.0).get_fdata()[brain]
    np.testing.assert_allclose(root["signal"].values, expected, rtol=1e-5)


def test_dummy_scans_shift_the_first_time(study, make_bold):
    data, brain = make_bold()
    data[..., :3] += 500
    root, _ = study(data, bold={**RAW, "dummy_scans": 3})
    np.testing.assert_array_equal(root["signal"].values, data[brain][:, 3:])
    assert root.attrs["first_time"] == 6.0 and root["time"].values[0] == 6.0
    with pytest.raises(DataError, match="too short(.|\n)*41 volumes(.|\n)*40"):
        study(bold={"dummy_scans": 39})


def test_quality_is_measured_before_cleaning(study, make_bold):
    data, brain = make_bold()
    _, qc = study()
    series = data[brain].astype(float)
    np.testing.assert_allclose(qc["tsnr"].values, series.mean(1) / series.std(1), rtol=1e-5)
    np.testing.assert_allclose(qc["global_signal"].values, series.mean(0), rtol=1e-5)
    assert qc["carpet"].shape == (60, 40)


def test_slabs_are_the_volumes_whatever_their_size(tmp_path, make_bold, write_bold, monkeypatch):
    from braindecode_pipe.preprocess import volumes

    data, _ = make_bold()
    path = tmp_path / write_bold(tmp_path, data)
    for slab in (1, 210 * 8 * 7, 1 << 26):
        monkeypatch.setattr(volumes, "_SLAB", slab)
        values, starts, _ = load(path)
        assert len(starts) == {1: 40, 210 * 8 * 7: 6, 1 << 26: 1}[slab]
        np.testing.assert_array_equal(values, data)
        np.testing.assert_array_equal(load(path, skip=3)[0], data[..., 3:])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_scaled_and_big_endian_images_equal_nibabel(tmp_path, suffix, make_bold, bold_affine):
    data, _ = make_bold()
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(data * 0.37 + 5, bold_affine, header)
    path = tmp_path / f"a{suffix}"
    nibabel.save(image, path)
    assert nibabel.load(path).header.endianness == ">"
    np.testing.assert_allclose(load(path)[0], nibabel.load(path).get_fdata(), rtol=1e-12)


def test_f08_a_flipped_byte_raises_or_changes_nothing(tmp_path, make_bold, write_bold):
    path = tmp_path / write_bold(tmp_path, make_bold()[0])
    expected = load(path)[0]
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    raised = 0
    for position in [*rng.integers(10, len(content), 100), len(content) - 5]:
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found = load(path)[0]
        except DataError as error:
            assert str(path) in str(error)
            raised += 1
        else:
            np.testing.assert_array_equal(found, expected)
    # The gzip header holds a file name, whose bytes no check value covers.
    assert raised >= 99


def test_f13_truncated_images(study, tmp_path, make_bold):
    data, brain = make_bold()
    study()
    for name in (
        "sub-01/func/sub-01_task-x_run-1_bold.nii.gz",
        "sub-01/func/sub-01_task-x_bold.nii",
    ):
        study(name=name)
        path = tmp_path / "data" / name
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * 0.6)])
        with pytest.raises(TruncatedRecordingError, match="40 volumes|closing check value"):
            load(path)
        found, _, note = load(path, allow_truncated=True)
        n_times = found.shape[3]
        assert 15 < n_times < 30 and f"{n_times} of 40 volumes" in note
        np.testing.assert_array_equal(found, data[..., :n_times])


def test_f13_the_prefix_is_stored_and_said(tmp_path, make_bold, write_bold, run_stage):
    data, brain = make_bold()
    name = write_bold(tmp_path, data, name="sub-01/func/sub-01_task-x_bold.nii")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: 352 + 210 * 2 * 25 + 7])
    with pytest.raises(TruncatedRecordingError, match="40 volumes(.|\n)*25 volumes"):
        run_stage(tmp_path, name, tmp_path / "a.zarr", "bold")
    out = run_stage(tmp_path, name, tmp_path / "a.zarr", "bold", True, bold=RAW)
    root = open_store(out)
    np.testing.assert_array_equal(root["signal"].values, data[brain][:, :25])
    assert root.attrs["steps"][0] == "truncated: 25 of 40 volumes; the prefix is used"


def test_f31_a_header_that_claims_too_much_allocates_nothing(tmp_path, make_bold, write_bold):
    path = tmp_path / write_bold(tmp_path, make_bold()[0])
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(TruncatedRecordingError, match="at least one volume of 54000000000000"):
        open_series(path)


def test_f31_gzip_streams_are_unpacked_piece_by_piece(tmp_path):
    from braindecode_pipe.preprocess.volumes import read_to_end

    content = bytes(20_000_000) + np.random.default_rng(0).bytes(3_000_000)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content) + gzip.compress(b"more") + bytes(512))
    pieces = list(read_to_end(path))
    assert b"".join(pieces) == content + b"more"
    assert max(map(len, pieces)) <= 2**20
    packed = gzip.compress(content)
    path.write_bytes(packed[:-9])
    assert len(b"".join(read_to_end(path, complain=False))) >= len(content) - 300


def test_f14_voxels_that_are_not_finite_alter_no_other(study, make_bold, tmp_path, bold_affine):
    data, brain = make_bold()
    spoiled = data.astype(np.float32)
    spoiled[2, 2, 2, 5] = np.nan
    spoiled[3, 3, 2] = 900.0
    mask = nibabel.Nifti1Image(brain.astype(np.uint8), bold_affine)
    (tmp_path / "data" / "masks").mkdir(parents=True)
    nibabel.save(mask, tmp_path / "data" / "masks" / "sub-01_mask.nii.gz")
    settings = {"mask": "masks/sub-{subject}_mask.nii.gz"}
    clean_root, _ = study(bold=settings, out="a.zarr")
    root, qc = study(spoiled, bold=settings, out="b.zarr")
    names = list(root["sensor"].values)
    bad = [names.index("002-002-002"), names.index("003-003-002")]
    assert list(np.flatnonzero(~root["sensor_good"].values)) == sorted(bad)
    assert not root["signal"].values[bad].any()
    rest = np.setdiff1d(np.arange(len(names)), bad)
    assert qc["nan_share"].values[names.index("002-002-002")] == np.float32(1 / 40)
    assert not qc["nan_share"].values[rest].any()
    np.testing.assert_array_equal(root["signal"].values[rest], clean_root["signal"].values[rest])
    assert "2 of 60 voxels are constant or not finite" in qc.attrs["warnings"]
    row = {"datatype": "bold", "path": "sub-01/func/sub-01_task-x_run-1_bold.nii.gz",
           "subject": "01", "session": "", "task": "x", "run": "1"}  # fmt: skip
    section = PreprocessSection(bold=settings)
    assert [p.name for p in input_files(section, row, tmp_path / "data")] == ["sub-01_mask.nii.gz"]


@pytest.mark.parametrize("fault", ["shift", "flip", "shape"])
def test_f23_a_mask_on_another_grid_is_refused(fault, study, tmp_path, make_bold, bold_affine):
    _, brain = make_bold()
    affine = bold_affine.copy()
    if fault == "shift":
        affine[0, 3] += 0.01
    elif fault == "flip":
        affine[0, 0] *= -1
    else:
        brain = brain[:, :, :4]
    (tmp_path / "data").mkdir()
    nibabel.save(
        nibabel.Nifti1Image(brain.astype(np.uint8), affine), tmp_path / "data" / "m.nii.gz"
    )
    with pytest.raises(DataError, match="the mask is not on the grid") as error:
        study(bold={"mask": "m.nii.gz"})
    assert ("left and right are exchanged" in str(error.value)) == (fault == "flip")
    assert "m.nii.gz" in str(error.value)


def test_f23_a_difference_below_the_tolerance_passes(study, tmp_path, make_bold, bold_affine):
    _, brain = make_bold()
    (tmp_path / "data").mkdir()
    image = nibabel.Nifti1Image(brain.astype(np.uint8)[..., None], bold_affine + 1e-4)
    nibabel.save(image, tmp_path / "data" / "m.nii.gz")
    root, _ = study(bold={**RAW, "mask": "m.nii.gz"})
    assert root.sizes["sensor"] == brain.sum()


def test_masks_that_are_missing_empty_or_outside(study, tmp_path, bold_affine):
    with pytest.raises(MissingFileError, match="the mask is not there"):
        study(bold={"mask": "sub-{subject}/no.nii.gz"})
    with pytest.raises(UnsafePathError):
        study(bold={"mask": "../m.nii.gz"})
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((6, 7, 5), np.uint8), bold_affine),
        tmp_path / "data" / "m.nii.gz",
    )
    with pytest.raises(DataError, match="the mask is empty"):
        study(bold={"mask": "m.nii.gz"})


def test_computed_mask_equals_its_rule():
    rng = np.random.default_rng(0)
    mean = np.concatenate([rng.uniform(0, 20, 300), rng.uniform(500, 1000, 300)]).reshape(20, 30, 1)
    varying = np.ones(mean.shape, bool)
    varying[15, 3] = False
    low, high = np.percentile(mean, [2, 98])
    expected = (mean > low + 0.1 * (high - low)) & varying
    np.testing.assert_array_equal(compute_mask(mean, varying), expected)
    np.testing.assert_array_equal(compute_mask(mean * 1e-13, varying), expected)
    np.testing.assert_array_equal(compute_mask(np.zeros(mean.shape), varying), varying)
    assert not compute_mask(np.full(mean.shape, np.nan), ~(varying | True)).any()


@pytest.mark.parametrize(
    ("how", "given", "t_r"),
    [
        ({"t_r": 2.0}, None, 2.0),
        ({"t_r": 2000.0, "unit": "msec"}, None, 2.0),
        ({"t_r": 2.0, "sidecar": {"RepetitionTime": 2.01}}, None, 2.01),
        ({"t_r": 1.0, "unit": "unknown", "sidecar": {"RepetitionTime": 2.5}}, None, 2.5),
        ({"t_r": 0.0, "sidecar": {"RepetitionTime": 2.5}}, None, 2.5),
        ({"t_r": 0.0}, 3.0, 3.0),
    ],
)
def test_f24_repetition_time_from_where_it_is(how, given, t_r, study):
    root, _ = study(bold={"t_r": given}, **how)
    assert root.attrs["t_r"] == t_r and root["time"].values[1] == t_r


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"t_r": 0.0}, DataError, "no repetition time(.|\n)*preprocess.bold.t_r"),
        ({"t_r": 1.0, "unit": "unknown"}, DataError, "no repetition time"),
        ({"t_r": 0.0, "sidecar": {"RepetitionTime": 0}}, DataError, "no repetition time"),
        ({"t_r": 2.0, "sidecar": {"RepetitionTime": 2.5}}, DataError,
         "disagree(.|\n)*header 2 s, sidecar 2.5 s"),
        ({"t_r": 2000.0}, UnitError, "in the header cannot be in seconds(.|\n)*1e-3"),
        ({"t_r": 0.0, "sidecar": {"RepetitionTime": 2500}}, UnitError, "in the sidecar"),
        ({"t_r": 0.05}, UnitError, "0.1 to 20 s(.|\n)*0.05"),
    ],
)  # fmt: skip
def test_f24_repetition_times_that_cannot_be(how, error, text, study):
    with pytest.raises(error, match=text):
        study(**how)


def test_not_a_series(tmp_path, run_stage, bold_affine):
    path = tmp_path / "sub-01_bold.nii.gz"
    with pytest.raises(MissingFileError, match="the image is not there"):
        run_stage(tmp_path, path.name, tmp_path / "a.zarr", "bold")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), bold_affine), path)
    with pytest.raises(DataError, match="not a series of volumes(.|\n)*4 dimensions"):
        run_stage(tmp_path, path.name, tmp_path / "a.zarr", "bold")
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match="the image cannot be opened"):
        run_stage(tmp_path, path.name, tmp_path / "a.zarr", "bold")


def test_f46_equal_work_gives_equal_bytes(tmp_path, make_bold, write_bold, run_stage):
    stores = []
    for folder in ("one", "two"):
        name = write_bold(tmp_path / folder, make_bold()[0])
        stores.append(run_stage(tmp_path / folder, name, tmp_path / f"{folder}.zarr", "bold"))
    assert store_hash(stores[0]) == store_hash(stores[1])


def test_every_error_is_one_of_ours(tmp_path, run_stage):
    with pytest.raises(BraindecodePipeError, match="unknown datatype(.|\n)*pet"):
        run_stage(tmp_path, "a.nii", tmp_path / "a.zarr", "pet")


def test_signals_read_back_through_the_store(study, tmp_path):
    root, _ = study()
    signal = open_signal(tmp_path / "out.zarr")
    np.testing.assert_array_equal(signal.read(3, 9), root["signal"].values[:, 3:9])
