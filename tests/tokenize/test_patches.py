"""Repetition times, parcels and surface patches."""

import gzip
from importlib.resources import files

import numpy as np
import pytest

from braindecode_pipe.errors import DataError, PositionError
from braindecode_pipe.tokenize.patches import (
    PatchIndex,
    downsample,
    icosahedral_patches,
    parcel_series,
)


def test_downsampling_by_hand():
    x = np.arange(14, dtype=np.float32).reshape(2, 7)
    series, t_r = downsample(x, 0.735, 3)
    assert series.tolist() == [[1, 4], [8, 11]] and t_r == pytest.approx(2.205)
    assert series.dtype == np.float32
    assert downsample(x, 0.735, 3, "every")[0].tolist() == [[0, 3], [7, 10]]
    assert np.array_equal(downsample(x, 0.735, 1)[0], x)


@pytest.mark.parametrize(("factor", "how"), [(0, "mean"), (8, "mean"), (2, "median")])
def test_downsampling_that_cannot_be_is_refused(factor, how):
    with pytest.raises(DataError, match="cannot be down-sampled"):
        downsample(np.zeros((2, 7)), 1.0, factor, how)


def test_parcels_are_means_of_good_sensors_and_keep_their_place():
    rng = np.random.default_rng(0)
    x, parcel = rng.standard_normal((6, 4)), np.array([7, 0, 2, 7, 2, 7])
    good = np.array([True, True, True, False, True, True])
    x[3] = np.nan
    found = parcel_series(x, parcel, good=good, labels=np.array([9, 7, 2]))
    assert found.labels.tolist() == [2, 7, 9] and found.mask.tolist() == [True, True, False]
    assert np.allclose(found.values[0], (x[2] + x[4]) / 2)
    assert np.allclose(found.values[1], (x[0] + x[5]) / 2) and not found.values[2].any()
    assert parcel_series(x[[0, 2]], parcel[[0, 2]]).labels.tolist() == [2, 7]
    batch = parcel_series(np.stack([x, 2 * x]), parcel, good=good)
    assert np.allclose(batch.values[1], 2 * found.values[:2])


def test_parcels_that_cannot_be_averaged_are_refused():
    x = np.ones((2, 3, 4))
    x[1, 2, 0] = np.nan
    with pytest.raises(DataError, match=r"parcel 5(.|\n)*mark the sensor bad"):
        parcel_series(x, np.array([1, 1, 5]))
    with pytest.raises(DataError, match="labels of sensors"):
        parcel_series(x, np.array([1, 5]))
    with pytest.raises(DataError, match="labels of sensors"):
        parcel_series(x, np.array([1.0, 1.0, 5.0]))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_patches_of_an_icosahedron_are_even_and_near_their_centres(level, icosphere):
    sphere = 100 * icosphere(4)[0]
    labels = icosahedral_patches(sphere, level)
    n = 10 * 4**level + 2
    counts = np.bincount(labels)
    assert len(counts) == n and np.array_equal(labels[:n], np.arange(n))
    distance = np.linalg.norm(sphere[:, None] - sphere[None, :n], axis=2)
    own = distance[np.arange(len(sphere)), labels]
    assert np.allclose(own, distance.min(1), atol=1e-3)
    # Ties go to the first centre whatever the noise of the coordinates.
    noise = 1 + 1e-9 * np.random.default_rng(0).standard_normal(sphere.shape)
    assert np.array_equal(icosahedral_patches(sphere * noise, level), labels)


def test_fsaverage5_has_the_vertices_of_coarser_levels_first():
    nibabel = pytest.importorskip("nibabel")
    path = files("nilearn") / "datasets" / "data" / "fsaverage5" / "sphere_left.gii.gz"
    image = nibabel.GiftiImage.from_bytes(gzip.decompress(path.read_bytes()))
    sphere = image.agg_data("pointset")
    assert len(sphere) == 10 * 4**5 + 2
    for level in range(5):
        counts = np.bincount(icosahedral_patches(sphere, level))
        assert len(counts) == 10 * 4**level + 2
        print(
            f"\nlevel {level}: {len(counts)} patches of {counts.min()} to {counts.max()} vertices"
        )
        # One level up, a vertex on an edge goes to one of its two ends, so patches have 1 to 7.
        assert counts.max() <= (1.7 * counts.min() if level < 4 else 7)


def test_what_is_no_nested_sphere_is_refused(icosphere):
    sphere = icosphere(3)[0]
    with pytest.raises(PositionError, match="no coarser icosahedron"):
        icosahedral_patches(sphere[::-1], 1)
    folded = sphere * (1 + 0.3 * sphere[:, :1])
    for bad in (folded, sphere[:30], sphere[:, :2], np.where(sphere > 2, 0, np.nan)):
        with pytest.raises(PositionError, match="no sphere to divide"):
            icosahedral_patches(bad, 1)


def test_gathering_pads_small_patches_with_zeros():
    patches = PatchIndex.of(np.array([1, 0, -1, 1, 1]))
    assert patches.mask.tolist() == [[True, False, False], [True] * 3]
    found = patches.gather(np.array([[10.0, 20.0, 30.0, 40.0, np.nan]]))
    assert np.array_equal(found, [[[20, 0, 0], [10, 40, np.nan]]], equal_nan=True)
