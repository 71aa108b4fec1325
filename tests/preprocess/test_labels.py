"""Parcels of label images and maps: Nilearn's numbers, names, coverage, grids that differ."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from nilearn.image import resample_to_img
from nilearn.maskers import NiftiLabelsMasker, NiftiMapsMasker

from braindecode_pipe.errors import DataError, MissingFileError, RecipeError, SchemaError
from braindecode_pipe.preprocess import input_files
from braindecode_pipe.preprocess.labels import parcel_names
from braindecode_pipe.preprocess.sensors import to_img
from braindecode_pipe.recipe import PreprocessSection
from braindecode_pipe.store import open_signal, open_store, verify_store

RAW = {"detrend": False, "standardize": False}


@pytest.fixture
def labels(make_bold):
    """(6, 7, 5) labels 3, 7, 12 in the box, 20 outside of it."""
    _, brain = make_bold()
    values = np.zeros(brain.shape, np.int16)
    values[1:3, 1:6, 1:4], values[3, 1:6, 1:4], values[4, 2, 1:4] = 12, 3, 7
    values[0, 0, 0:2] = 20
    return values


@pytest.fixture
def parcellate(tmp_path, make_bold, write_bold, run_stage, bold_affine):
    """``parcellate(values, affine=..., bold={...})`` -> root, qc and the image's path."""

    def call(values_of_atlas, data=None, affine=None, names=None, **bold):
        values = make_bold()[0] if data is None else data
        name = write_bold(tmp_path, values)
        image = nibabel.Nifti1Image(values_of_atlas, bold_affine if affine is None else affine)
        nibabel.save(image, tmp_path / "atlas-X_dseg.nii.gz")
        if names is not None:
            (tmp_path / "atlas-X_dseg.tsv").write_text(names)
        settings = {"sensors": "parcels", "atlas": "atlas-X_dseg.nii.gz", **bold}
        out = run_stage(tmp_path, name, tmp_path / "a.zarr", "bold", bold=settings)
        return open_store(out).load(), open_store(out, "qc").load(), str(tmp_path / name)

    return call


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_means_equal_nilearn(parcellate, labels, make_bold, bold_affine, dtype):
    data = make_bold()[0].astype(dtype)
    root, qc, path = parcellate(labels, data, **RAW)
    assert list(root["sensor"].values) == ["parcel-0003", "parcel-0007", "parcel-0012",
                                           "parcel-0020"]  # fmt: skip
    np.testing.assert_array_equal(root["label"].values, [3, 7, 12, 20])
    assert set(root["kind"].values) == {"parcel"} and root.attrs["atlas"] == "atlas-X_dseg.nii.gz"
    masker = NiftiLabelsMasker(nibabel.Nifti1Image(labels, bold_affine), standardize=None)
    image = nibabel.Nifti1Image(data.astype(float), bold_affine)
    expected = masker.fit_transform(image)
    np.testing.assert_allclose(root["signal"].values, expected.T, rtol=1e-6)
    np.testing.assert_allclose(qc["coverage"].values, 1)
    ijk = np.argwhere(labels == 7).mean(axis=0)
    place = nibabel.affines.apply_affine(bold_affine, ijk) / 1000
    np.testing.assert_allclose(root["position"].values[1], place)


def test_cleaned_means_equal_nilearn_to_rounding(parcellate, labels, make_bold, bold_affine):
    data = make_bold()[0]
    root, _, _ = parcellate(labels)
    masker = NiftiLabelsMasker(
        nibabel.Nifti1Image(labels, bold_affine), standardize="zscore_sample", detrend=True, t_r=2.0
    )
    expected = masker.fit_transform(nibabel.Nifti1Image(data.astype(float), bold_affine))
    np.testing.assert_allclose(root["signal"].values, expected.T, atol=1e-6)


def test_smoothed_means_equal_nilearn(parcellate, labels, make_bold, bold_affine):
    root, _, _ = parcellate(labels, smoothing_fwhm=6.0, **RAW)
    masker = NiftiLabelsMasker(
        nibabel.Nifti1Image(labels, bold_affine), smoothing_fwhm=6.0, standardize=None
    )
    expected = masker.fit_transform(nibabel.Nifti1Image(make_bold()[0].astype(float), bold_affine))
    np.testing.assert_allclose(root["signal"].values, expected.T, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [None, 5.0])
def test_f14_a_voxel_that_is_not_finite_does_not_touch_its_parcel(
    parcellate, labels, make_bold, smoothing
):
    data = make_bold()[0].astype(np.float32)
    data[3, 2, 2, 11] = np.nan
    data[0, 0, 0:2, 4] = np.inf
    root, qc, _ = parcellate(labels, data, smoothing_fwhm=smoothing, **RAW)
    assert list(root["sensor_good"].values) == [True, True, True, False]
    there = labels == 3
    there[3, 2, 2] = False
    if smoothing is None:
        np.testing.assert_allclose(root["signal"].values[0], data[there].mean(axis=0), rtol=1e-6)
    assert np.isfinite(root["signal"].values).all() and not root["signal"].values[3].any()
    np.testing.assert_allclose(qc["coverage"].values, [14 / 15, 1, 1, 0], rtol=1e-6)
    assert qc.attrs["lost_labels"] == ["parcel-0020"]
    assert "1 of 4 parcels have no voxel with signal: parcel-0020" in qc.attrs["warnings"]
    assert "3 voxels are not finite and left out" in qc.attrs["warnings"]


def test_coverage_by_mask_and_signal(parcellate, labels, make_bold, bold_affine, tmp_path):
    data = make_bold()[0]
    data[1, 1:6, 1:4] = 0  # half of parcel 12 lies outside the field of view
    mask = np.ones(labels.shape, np.uint8)
    mask[3, 3:] = mask[0] = 0
    nibabel.save(nibabel.Nifti1Image(mask, bold_affine), tmp_path / "m.nii")
    root, qc, _ = parcellate(labels, data, mask="m.nii", **RAW)
    np.testing.assert_allclose(qc["coverage"].values, [2 / 5, 1, 0.5, 0], rtol=1e-6)
    here = (labels == 3) & (mask > 0)
    np.testing.assert_allclose(root["signal"].values[0], data[here].mean(axis=0), rtol=1e-6)
    assert root.sizes["sensor"] == 4 and not root["sensor_good"].values[3]


def test_maps_equal_nilearn(parcellate, make_bold, bold_affine, tmp_path):
    data, brain = make_bold()
    rng = np.random.default_rng(0)
    maps = np.where(brain[..., None], rng.uniform(size=(*brain.shape, 4)), 0).astype(np.float32)
    root, qc, _ = parcellate(maps, **RAW)
    masker = NiftiMapsMasker(nibabel.Nifti1Image(maps, bold_affine), standardize=None)
    expected = masker.fit_transform(nibabel.Nifti1Image(data.astype(float), bold_affine))
    np.testing.assert_allclose(root["signal"].values, expected.T, rtol=1e-4)
    assert list(root["sensor"].values)[0] == "parcel-0001"
    np.testing.assert_allclose(qc["coverage"].values, 1, rtol=1e-6)
    spoiled = data.astype(np.float32)
    spoiled[2, 2, 2, 3] = np.nan
    root, qc, _ = parcellate(maps, spoiled, **RAW)
    kept = brain.copy()
    kept[2, 2, 2] = False
    expected = np.linalg.lstsq(maps[kept].astype(float), data[kept].astype(float), rcond=None)[0]
    np.testing.assert_allclose(root["signal"].values, expected, rtol=1e-4)
    assert (qc["coverage"].values < 1).all()
    with pytest.raises(SchemaError, match="NiftiMapsMasker.inverse_transform"):
        to_img(np.zeros(4), open_signal(tmp_path / "a.zarr"))


@pytest.mark.parametrize("fault", ["shift", "flip", "shape"])
def test_f23_an_atlas_on_another_grid_is_refused(fault, parcellate, labels, bold_affine):
    affine = bold_affine.copy()
    if fault == "shift":
        affine[1, 3] += 0.01
    elif fault == "flip":
        affine[0, 0] *= -1
    else:
        labels = labels[:, :, :4]
    with pytest.raises(DataError, match="the atlas is not on the grid") as error:
        parcellate(labels, affine=affine)
    text = str(error.value)
    assert ("left and right are exchanged" in text) == (fault == "flip")
    assert "atlas-X_dseg.nii.gz" in text and "of sub-01_task-x_run-1_bold.nii.gz" in text
    assert "preprocess.bold.resample = true" in text


@pytest.mark.filterwarnings("ignore:Resampling binary images")
@pytest.mark.parametrize("kind", ["labels", "maps"])
def test_f23_with_resample_it_is_brought_to_the_grid(
    kind, parcellate, labels, make_bold, bold_affine
):
    fine = bold_affine.copy()
    fine[:3, :3] /= 2
    atlas = labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    if kind == "maps":
        atlas = np.stack([atlas == 12, atlas == 3], axis=3).astype(np.float32)
    root, qc, path = parcellate(atlas, affine=fine, resample=True, **RAW)
    source = nibabel.Nifti1Image(atlas.astype(float), fine)
    how = "nearest" if kind == "labels" else "continuous"
    on_grid = resample_to_img(source, path, interpolation=how, force_resample=True,
                              copy_header=True)  # fmt: skip
    masker = (NiftiLabelsMasker if kind == "labels" else NiftiMapsMasker)(
        on_grid, standardize=None
    )  # fmt: skip
    expected = masker.fit_transform(nibabel.Nifti1Image(make_bold()[0].astype(float), bold_affine))
    np.testing.assert_allclose(root["signal"].values, expected.T, rtol=1e-4)
    assert f"atlas resampled to the grid of the recording ({how}" in root.attrs["steps"][0]


def test_labels_that_resampling_loses_are_listed(parcellate, labels, bold_affine):
    fine = bold_affine.copy()
    fine[:3, :3] /= 3
    atlas = labels.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    atlas[10, 10, 10] = 99  # one small voxel, nearest to none of the recording's centres
    with_names = "index\tname\n3\tV1\n7\tV2\n12\tMT\n20\tEye\n99\tTiny\n"
    root, qc, _ = parcellate(atlas, affine=fine, resample=True, names=with_names)
    assert list(root["sensor"].values) == ["V1", "V2", "MT", "Eye", "Tiny"]
    assert qc.attrs["lost_labels"] == ["Tiny"] and not root["sensor_good"].values[4]
    assert np.isnan(root["position"].values[4]).all()


def test_f23_masks_are_resampled_too(tmp_path, make_bold, write_bold, run_stage, bold_affine):
    _, brain = make_bold()
    fine = bold_affine.copy()
    fine[:3, :3] /= 2
    mask = brain.repeat(2, 0).repeat(2, 1).repeat(2, 2).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, fine), tmp_path / "m.nii.gz")
    name = write_bold(tmp_path, make_bold()[0])
    out = run_stage(tmp_path, name, tmp_path / "a.zarr", "bold",
                    bold={"mask": "m.nii.gz", "resample": True})  # fmt: skip
    root = open_store(out)
    assert "mask resampled to the grid of the recording (nearest" in root.attrs["steps"][0]
    found = np.zeros(brain.shape, bool)
    found[tuple(root["ijk"].values.T)] = True
    expected = resample_to_img(
        nibabel.Nifti1Image(mask.astype(float), fine), str(tmp_path / name),
        interpolation="nearest", force_resample=True, copy_header=True,
    )  # fmt: skip
    np.testing.assert_array_equal(found, expected.get_fdata() > 0)


def test_parcels_back_to_an_image(parcellate, labels, bold_affine, tmp_path):
    root, _, _ = parcellate(labels)
    assert verify_store(tmp_path / "a.zarr") == []
    signal = open_signal(tmp_path / "a.zarr")
    image = to_img(np.array([1.0, 2.0, 3.0, 4.0]), signal)
    expected = np.select([labels == 3, labels == 7, labels == 12, labels == 20], [1, 2, 3, 4])
    np.testing.assert_array_equal(image.get_fdata(), expected)
    np.testing.assert_array_equal(image.affine, bold_affine)
    series = to_img(signal.read(0, 40), signal)
    masker = NiftiLabelsMasker(nibabel.Nifti1Image(labels, bold_affine), standardize=None)
    again = masker.fit_transform(series)
    np.testing.assert_allclose(again.T, root["signal"].values, atol=1e-6)
    with pytest.raises(SchemaError, match="one value per parcel(.|\n)*3 values, 4 sensors"):
        to_img(np.zeros(3), signal)


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (".tsv", "index\tname\tcolor\n7\tV2\tred\n3\tV1\tblue\n0\tbackground\t\n"),
        (".csv", "value,region\n3,V1\n7,V2\n"),
        (".txt", "# FreeSurfer\n0  Unknown 0 0 0 0\n3  V1  120 18 134 0\n7  V2  196 58 250 0\n"),
        ("_labels.txt", "3 V1\n7 V2\n"),
        (".lut", "3\tV1\t10\t20\t30\t0\n7\tV2\t1\t2\t3\t0\n"),
    ],
)
def test_names_beside_the_atlas(tmp_path, ending, text):
    (tmp_path / f"a{ending}").write_text(text)
    assert parcel_names(tmp_path / "a.nii.gz", np.array([3, 7, 9])) == ["V1", "V2", "parcel-0009"]


def test_names_that_repeat_or_fit_nothing(tmp_path):
    file = tmp_path / "a.nii"
    (tmp_path / "a.tsv").write_text("index\tname\n3\tV1\n7\tV1\n")
    assert parcel_names(file, np.array([3, 7])) == ["V1-0003", "V1-0007"]
    with pytest.raises(DataError, match="names beside the atlas are those of no label"):
        parcel_names(file, np.array([4, 5]))


def test_atlases_that_cannot_be(parcellate, labels, tmp_path, run_stage):
    with pytest.raises(RecipeError, match="parcels without an atlas"):
        parcellate(labels, atlas="")
    with pytest.raises(MissingFileError, match="the atlas is not there"):
        parcellate(labels, atlas="no.nii.gz")
    with pytest.raises(DataError, match="the atlas is empty"):
        parcellate(np.zeros_like(labels))
    with pytest.raises(DataError, match="labels of the atlas are no whole numbers(.|\n)*1.5"):
        parcellate(labels * 0.5)
    section = PreprocessSection(bold={"sensors": "parcels", "atlas": "atlas-X_dseg.nii.gz"})
    row = {"datatype": "bold", "path": "sub-01/func/sub-01_task-x_run-1_bold.nii.gz",
           "subject": "01", "session": "", "task": "x", "run": "1"}  # fmt: skip
    (tmp_path / "atlas-X_dseg.tsv").write_text("index\tname\n")
    names = [file.name for file in input_files(section, row, tmp_path)]
    assert names == ["atlas-X_dseg.nii.gz", "atlas-X_dseg.tsv"]
