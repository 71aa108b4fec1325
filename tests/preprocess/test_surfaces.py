"""Surfaces: GIfTI and CIFTI series, and volumes projected to fsaverage5."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from nibabel import cifti2, gifti
from nilearn.datasets import load_fsaverage
from nilearn.signal import clean
from nilearn.surface import vol_to_surf

from braindecode_pipe.errors import (
    DataError,
    MissingFileError,
    RecipeError,
    SchemaError,
    TruncatedRecordingError,
)
from braindecode_pipe.plan.recordings import find_recordings
from braindecode_pipe.preprocess import input_files
from braindecode_pipe.preprocess.images import vertices_to_surface
from braindecode_pipe.preprocess.surfaces import projection
from braindecode_pipe.recipe import PlanSection, PreprocessSection
from braindecode_pipe.store import open_signal, open_store, verify_store

BASE = "derivatives/fmriprep/sub-01/func/sub-01_task-x_run-1"
GIFTI = f"{BASE}_hemi-L_space-fsaverage5_bold.func.gii"
CIFTI = f"{BASE}_space-fsLR_den-91k_bold.dtseries.nii"
RAW = {"detrend": False, "standardize": False}


@pytest.fixture
def write_gifti(tmp_path, confounds_table):
    """``write(n_vertices, n_times)`` -> {"L": (vertex, time), "R": ...} of a pair of files."""

    def write(n_vertices=30, n_times=60, right_times=None, name=GIFTI):
        rng = np.random.default_rng(0)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        data = {}
        for side, n in (("L", n_times), ("R", right_times or n_times)):
            values = (1000 + 10 * rng.normal(size=(n_vertices, n))).astype(np.float32)
            arrays = [
                gifti.GiftiDataArray(volume, intent="NIFTI_INTENT_TIME_SERIES",
                                     datatype="NIFTI_TYPE_FLOAT32")
                for volume in values.T
            ]  # fmt: skip
            path = tmp_path / name.replace("hemi-L", f"hemi-{side}")
            nibabel.save(gifti.GiftiImage(darrays=arrays), path)
            path.with_name(path.name.replace(".func.gii", ".json")).write_text(
                json.dumps({"RepetitionTime": 2.0})
            )
            data[side] = values
        table, metadata = confounds_table(n_times)
        file = tmp_path / f"{BASE}_desc-confounds_timeseries.tsv"
        table.to_csv(file, sep="\t", index=False, na_rep="n/a")
        file.with_suffix(".json").write_text(json.dumps(metadata))
        return data

    return write


def test_gifti_hemispheres_become_one_recording(write_gifti, tmp_path, run_stage):
    data = write_gifti()
    bold = {"confounds_strategy": ["motion", "scrub"], "detrend": False,
            "confounds_options": {"motion": "basic", "scrub": 0}}  # fmt: skip
    out = run_stage(tmp_path, GIFTI, tmp_path / "a.zarr", "bold", bold=bold)
    assert verify_store(out) == []
    root, qc = open_store(out), open_store(out, "qc")
    assert root.sizes["sensor"] == 60 and root.attrs["t_r"] == 2
    assert list(root["sensor"].values[[0, 29, 30, 59]]) == ["L-00000", "L-00029", "R-00000",
                                                            "R-00029"]  # fmt: skip
    assert set(root["kind"].values) == {"vertex"}
    assert list(root["hemisphere"].values) == ["L"] * 30 + ["R"] * 30
    assert np.isnan(root["position"].values).all()  # no mesh of 30 vertices ships
    good = root["time_good"].values
    assert not good[[0, 1, 20, 30]].any() and good.sum() == 56
    file = tmp_path / f"{BASE}_desc-confounds_timeseries.tsv"
    table = np.loadtxt(file, dtype=str, delimiter="\t")
    motion = table[1:, :6].astype(float)
    values = np.vstack([data["L"], data["R"]]).T.astype(float)
    expected = clean(values, detrend=False, standardize="zscore_sample", confounds=motion,
                     sample_mask=good, filter=False).T  # fmt: skip
    np.testing.assert_allclose(root["signal"].values[:, good], expected, atol=1e-5)
    assert qc["carpet"].shape == (60, 60) and "motion" in qc
    row = {"datatype": "bold", "path": GIFTI, "subject": "01", "session": "", "task": "x",
           "run": "1"}  # fmt: skip
    names = [f.name for f in input_files(PreprocessSection(bold=bold), row, tmp_path)]
    assert len(names) == 4 and any("hemi-R" in name for name in names)


def test_gifti_that_cannot_be(write_gifti, tmp_path, run_stage):
    def attempt(name=GIFTI, **bold):
        return run_stage(tmp_path, name, tmp_path / "a.zarr", "bold", bold=bold)

    write_gifti(right_times=59)
    with pytest.raises(DataError, match="hemispheres differ in length(.|\n)*60 and 59"):
        attempt()
    write_gifti()
    with pytest.raises(DataError, match="too short(.|\n)*61 volumes"):
        attempt(dummy_scans=59)
    path = tmp_path / GIFTI
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="surface series cannot be read"):
        attempt()
    # The arrays are packed with zlib, whose check value is part of them.
    raised = 0
    rng = np.random.default_rng(0)
    for _ in range(30):
        at = int(content.index(b"<Data>", rng.integers(len(content) // 2)) + 8 + rng.integers(60))
        flipped = bytearray(content)
        flipped[at] = ord("A") if flipped[at] != ord("A") else ord("B")
        path.write_bytes(flipped)
        try:
            attempt(**RAW)
        except DataError:
            raised += 1
    assert raised >= 29
    path.write_bytes(content)
    path.with_name(path.name.replace("hemi-L", "hemi-R")).unlink()
    with pytest.raises(MissingFileError, match="one hemisphere is not there(.|\n)*hemi-R"):
        attempt()
    other = path.rename(path.with_name("sub-01_bold.func.gii"))
    with pytest.raises(DataError, match="without its hemisphere"):
        attempt(str(other.relative_to(tmp_path)))


def test_fsaverage5_has_positions_and_goes_back_to_nilearn(write_gifti, tmp_path, run_stage):
    data = write_gifti(10242, 4)
    out = run_stage(tmp_path, GIFTI, tmp_path / "a.zarr", "bold", bold=RAW)
    signal = open_signal(out)
    pial = load_fsaverage("fsaverage5")["pial"]
    place = signal.sensors[["x", "y", "z"]].to_numpy()
    np.testing.assert_allclose(place[10242:], pial.parts["right"].coordinates / 1000, rtol=1e-6)
    assert place[:10242, 0].mean() < -0.02 and np.abs(place).max() < 0.12
    assert signal.attrs["position_frame"] == "fsaverage5"
    image = vertices_to_surface(signal.read(0, 4), signal)
    np.testing.assert_array_equal(image.data.parts["left"], data["L"])
    np.testing.assert_array_equal(image.data.parts["right"], data["R"])
    with pytest.raises(SchemaError, match="cannot be put on a mesh(.|\n)*3 values"):
        vertices_to_surface(np.zeros(3), signal)


@pytest.fixture
def write_cifti(tmp_path):
    """``write(n_times)`` -> (time, grayordinate) of a file with two cortices and a thalamus."""

    def write(n_times=50, t_r=2.0, name=CIFTI):
        left = cifti2.BrainModelAxis.from_surface(np.array([0, 2, 5]), 10, "CortexLeft")
        right = cifti2.BrainModelAxis.from_surface(np.array([1, 9]), 10, "CortexRight")
        volume = np.zeros((5, 6, 4), bool)
        volume[1, 2, 3] = volume[4, 5, 0] = True
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = [-4, -6, -2]
        thalamus = cifti2.BrainModelAxis.from_mask(volume, "THALAMUS_LEFT", affine)
        times = cifti2.SeriesAxis(0, t_r, n_times, unit="SECOND")
        data = (500 + np.random.default_rng(0).normal(size=(n_times, 7))).astype(np.float32)
        image = cifti2.Cifti2Image(data, header=(times, left + right + thalamus))
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, tmp_path / name)
        return data

    return write


def test_cifti_vertices_and_voxels(write_cifti, tmp_path, run_stage):
    data = write_cifti()
    out = run_stage(tmp_path, CIFTI, tmp_path / "a.zarr", "bold", bold={**RAW, "dummy_scans": 2})
    root = open_store(out)
    np.testing.assert_array_equal(root["signal"].values, data[2:].T)
    assert root.attrs["t_r"] == 2 and root.attrs["first_time"] == 4
    assert list(root["sensor"].values) == ["L-00000", "L-00002", "L-00005", "R-00001", "R-00009",
                                           "001-002-003", "004-005-000"]  # fmt: skip
    assert list(root["kind"].values) == ["vertex"] * 5 + ["voxel"] * 2
    assert list(root["hemisphere"].values) == ["L"] * 3 + ["R"] * 2 + ["L"] * 2
    assert list(root["roi"].values) == ["CORTEX_LEFT"] * 3 + ["CORTEX_RIGHT"] * 2 + [
        "THALAMUS_LEFT"] * 2  # fmt: skip
    np.testing.assert_allclose(root["position"].values[5:], [[-0.002, -0.002, 0.004],
                                                             [0.004, 0.004, -0.002]])  # fmt: skip
    assert np.isnan(root["position"].values[:5]).all()
    assert root.attrs["position_frame"] == "fsLR" and verify_store(out) == []


def test_f13_cifti_that_is_cut_or_no_series(write_cifti, tmp_path, run_stage):
    write_cifti()
    path = tmp_path / CIFTI
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TruncatedRecordingError, match="shorter than declared"):
        run_stage(tmp_path, CIFTI, tmp_path / "a.zarr", "bold")
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="CIFTI series cannot be read"):
        run_stage(tmp_path, CIFTI, tmp_path / "a.zarr", "bold")


def test_f24_repetition_time_of_surfaces(write_cifti, tmp_path, run_stage):
    write_cifti(t_r=2.0)
    (tmp_path / CIFTI.replace(".dtseries.nii", ".json")).write_text('{"RepetitionTime": 2.5}')
    with pytest.raises(DataError, match="repetition times disagree(.|\n)*2 s, sidecar 2.5 s"):
        run_stage(tmp_path, CIFTI, tmp_path / "a.zarr", "bold")


@pytest.fixture
def mni_volumes(tmp_path):
    """A smooth series in MNI space, 4 mm, that covers the brain but for its top."""
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [90, -126, -72]
    rng = np.random.default_rng(0)
    data = 1000 + 50 * rng.normal(size=(46, 55, 34, 3)).astype(np.float32)
    name = "sub-01/func/sub-01_task-x_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    (tmp_path / name).parent.mkdir(parents=True)

    def write(values=data, as_name=name):
        image = nibabel.Nifti1Image(values, affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = 2.0
        nibabel.save(image, tmp_path / as_name)
        return as_name, image

    return write


@pytest.fixture(scope="module")
def meshes():
    mesh = load_fsaverage("fsaverage5")
    return {side: (mesh["pial"].parts[side], mesh["white_matter"].parts[side])
            for side in ("left", "right")}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_volumes_to_vertices_equal_nilearn(mni_volumes, meshes, tmp_path, run_stage):
    name, image = mni_volumes()
    bold = {"sensors": "vertices", **RAW}
    root = open_store(run_stage(tmp_path, name, tmp_path / "a.zarr", "bold", bold=bold)).load()
    expected = np.concatenate(
        [vol_to_surf(image, outer, inner_mesh=inner) for outer, inner in meshes.values()]
    )
    good = root["sensor_good"].values
    np.testing.assert_array_equal(good, np.isfinite(expected).all(axis=1))
    assert 0.8 < good.mean() < 1
    np.testing.assert_allclose(root["signal"].values[good], expected[good], rtol=1e-5)
    assert not root["signal"].values[~good].any()
    assert root["sensor"].values[10242] == "R-00000" and root.attrs["surface"] == "fsaverage5"
    assert "projected to fsaverage5" in root.attrs["steps"][0]
    signal = open_signal(tmp_path / "a.zarr")
    parts = vertices_to_surface(signal.read(0, 3), signal).data.parts
    assert parts["left"].shape == (10242, 3)
    # One voxel that is not finite: the vertices around it are means of the rest.
    values = np.asarray(image.dataobj).copy()
    place = root["position"].values
    near = np.linalg.norm(place - [-0.04, -0.02, 0.01], axis=1).argmin()
    at = np.round(np.linalg.inv(image.affine) @ [*(1000 * place[near]), 1])[:3]
    values[(*at.astype(int), 1)] = np.nan
    name, _ = mni_volumes(values)
    spoiled = open_store(run_stage(tmp_path, name, tmp_path / "b.zarr", "bold", bold=bold)).load()
    assert np.isfinite(spoiled["signal"].values).all()
    changed = np.flatnonzero((spoiled["signal"] != root["signal"]).any("time"))
    distance = np.linalg.norm(place[changed] - place[near], axis=1)
    assert 0 < len(changed) < 200 and distance.max() < 0.02


def test_only_mni_space_can_be_projected(mni_volumes, tmp_path, run_stage):
    name, _ = mni_volumes(as_name="sub-01/func/sub-01_task-x_space-T1w_desc-preproc_bold.nii.gz")
    with pytest.raises(DataError, match="only in MNI space(.|\n)*space-T1w"):
        run_stage(tmp_path, name, tmp_path / "a.zarr", "bold", bold={"sensors": "vertices"})
    name, _ = mni_volumes()
    with pytest.raises(RecipeError, match="a mesh that is not at hand(.|\n)*fsaverage5"):
        run_stage(tmp_path, name, tmp_path / "a.zarr", "bold",
                  bold={"sensors": "vertices", "surface": "fsaverage7"})  # fmt: skip


def test_projection_rows_are_means_of_linear_fields():
    rng = np.random.default_rng(0)
    inner = rng.uniform(2, 7, size=(40, 3))
    outer = inner + rng.uniform(-1, 1, size=(40, 3))
    matrix = projection(outer, inner, np.eye(4), (10, 10, 10))
    ijk = np.stack(np.unravel_index(np.arange(1000), (10, 10, 10), order="F"), axis=1)
    np.testing.assert_allclose(matrix @ (ijk @ [1, -2, 3]), (outer + inner) / 2 @ [1, -2, 3])
    assert projection(outer + 100, inner + 100, np.eye(4), (10, 10, 10)).nnz == 0


def test_surfaces_are_found_where_a_run_has_no_volumes(
    write_gifti, write_cifti, tmp_path, make_bold, write_fmriprep
):
    write_gifti()
    section = PlanSection(derivatives="fmriprep")
    found = find_recordings(section, tmp_path)
    assert list(found["path"]) == [GIFTI] and list(found["problem"]) == [""]
    assert (found["n_sensors"][0], found["n_times"][0], found["sfreq"][0]) == (60, 60, 0.5)
    before = found["content_hash"][0]
    right = tmp_path / GIFTI.replace("hemi-L", "hemi-R")
    right.write_bytes(right.read_bytes() + b"\n")
    assert find_recordings(section, tmp_path)["content_hash"][0] != before
    write_cifti()
    with pytest.raises(DataError, match="one run is there in several spaces"):
        find_recordings(section, tmp_path)
    named = find_recordings(PlanSection(files=[f"{BASE}*dtseries.nii"]), tmp_path)
    assert (named["n_sensors"][0], named["n_times"][0], named["sfreq"][0]) == (7, 50, 0.5)
    data, brain = make_bold(60)
    write_fmriprep(tmp_path, data, brain)
    assert [path.split("_")[-1] for path in find_recordings(section, tmp_path)["path"]] == [
        "bold.nii.gz"
    ]
