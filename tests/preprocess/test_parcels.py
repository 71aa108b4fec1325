"""Parcel time series to stores."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from nilearn.signal import clean

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.store import open_store


@pytest.fixture
def parcels(tmp_path, run_stage):
    """``parcels(values, atlas=True, sidecar={...})`` -> path of the store."""

    def call(values, atlas=True, sidecar=None, header=None, **bold):
        folder = tmp_path / "data"
        name = "sub-01/func/sub-01_task-x_seg-Box_timeseries.tsv"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        header = header or [f"p{i}" for i in range(values.shape[1])]
        lines = ["\t".join(header), *("\t".join(map(repr, map(float, row))) for row in values)]
        (folder / name).write_text("\n".join(lines) + "\n")
        meta = {"RepetitionTime": 1.5} if sidecar is None else sidecar
        (folder / name.replace(".tsv", ".json")).write_text(json.dumps(meta))
        if atlas:
            labels = np.zeros((6, 4, 4), np.int16)
            labels[0:2, 1, 1], labels[4, 2, 1:3], labels[5, 3, 3] = 1, 5, 9
            image = nibabel.Nifti1Image(labels, np.diag([2.0, 2.0, 2.0, 1.0]))
            nibabel.save(image, folder / "atlas-Box_dseg.nii.gz")
        return run_stage(folder, name, tmp_path / "p.zarr", "parcels", bold=bold)

    return call


def test_parcels_are_cleaned_and_placed(parcels):
    values = np.random.default_rng(0).normal(5, 2, (50, 3))
    root = open_store(parcels(values, dummy_scans=2))
    expected = clean(values[2:], detrend=True, standardize="zscore_sample", filter=False, t_r=1.5).T
    np.testing.assert_allclose(root["signal"].values, expected, atol=1e-5)
    np.testing.assert_allclose(
        root["position"].values,
        [[0.001, 0.002, 0.002], [0.008, 0.004, 0.003], [0.01, 0.006, 0.006]],
    )
    assert set(root["kind"].values) == {"parcel"} and root.attrs["t_r"] == 1.5
    assert root["time"].values[0] == 3.0


def test_parcels_without_an_atlas_or_repetition_time(parcels):
    values = np.random.default_rng(0).normal(size=(20, 4))
    out = parcels(values, sidecar={"SamplingFrequency": 0.5})
    assert open_store(out).attrs["t_r"] == 2.0
    assert np.isnan(open_store(out)["position"].values).all()
    assert "3 labels for 4 parcels" in open_store(out, "qc").attrs["warnings"][0]
    with pytest.raises(DataError, match="no repetition time(.|\n)*preprocess.bold.t_r"):
        parcels(values, sidecar={})
    assert open_store(parcels(values, sidecar={}, t_r=1.1)).attrs["t_r"] == 1.1


def test_parcel_tables_that_cannot_be(parcels, tmp_path, run_stage):
    values = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(DataError, match="parcel names repeat(.|\n)*a"):
        parcels(values, header=["a", "b", "a"])
    values[4, 1] = np.nan
    with pytest.raises(DataError, match="1 cells are not, first in row 6, column p1"):
        parcels(values)
    values[4, 1] = 0
    values[:, 2] = 3.0
    root = open_store(parcels(values))
    assert list(root["sensor_good"].values) == [True, True, False]
    assert not root["signal"].values[2].any()
    with pytest.raises(MissingFileError, match="time series are not there"):
        run_stage(tmp_path, "no_timeseries.tsv", tmp_path / "a.zarr", "parcels")
