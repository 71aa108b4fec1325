"""Functional gradients and geometric harmonics, on shapes whose answers are known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from braindecode_pipe.errors import DataError, PositionError
from braindecode_pipe.tokenize import geometry
from braindecode_pipe.tokenize.geometry import (
    centroid_harmonics,
    functional_gradients,
    geometric_harmonics,
    parcel_means,
)


def affinity(places):
    return np.exp(-((places[:, None] - places[None]) ** 2) / 0.02)


def test_gradients_are_eigenvectors_of_the_walk():
    weights = affinity(np.random.default_rng(0).random(40))
    gradients = functional_gradients(weights, 5)
    degree = weights.sum(1)
    kernel = weights / np.sqrt(np.outer(degree, degree))
    walk = kernel / kernel.sum(1, keepdims=True)
    moved = walk @ gradients
    values = (moved * gradients).sum(0) / (gradients**2).sum(0)
    assert np.allclose(moved, values * gradients, atol=1e-9 * np.abs(gradients).max())
    every = np.sort(np.linalg.eigvals(walk).real)[::-1]
    assert np.allclose(values, every[1:6])
    share = kernel.sum(1) / kernel.sum()
    assert np.allclose((share[:, None] * gradients**2).sum(0), (values / (1 - values)) ** 2)


def test_the_first_gradient_is_the_hidden_order_of_places():
    hidden = np.random.default_rng(0).random(60)
    first = functional_gradients(affinity(hidden), 1)[:, 0]
    assert abs(spearmanr(first, hidden)[0]) > 0.999


def test_gradients_follow_their_places_and_not_the_unit_of_the_affinity():
    weights = affinity(np.random.default_rng(0).random(40))
    expected, order = functional_gradients(weights, 4), np.random.default_rng(1).permutation(40)
    moved = functional_gradients(weights[np.ix_(order, order)], 4)
    assert np.allclose(moved, expected[order], atol=1e-8)
    for scale in (1e-13, 1e6):
        assert np.allclose(functional_gradients(scale * weights, 4), expected, atol=1e-8)


def test_affinities_that_have_no_gradients_are_refused():
    good = affinity(np.random.default_rng(0).random(10))
    asymmetric = good.copy()
    asymmetric[0, 1] = 2
    for bad in (good[:5], -good, asymmetric, np.where(good > 2, 0, np.nan)):
        with pytest.raises(DataError, match="no affinity between places"):
            functional_gradients(bad, 3)
    with pytest.raises(DataError, match="no affinity between places"):
        functional_gradients(good, 10)
    with pytest.raises(DataError, match=r"nothing joins(.|\n)*2 groups"):
        functional_gradients(np.kron(np.eye(2), np.ones((5, 5))), 3)


@pytest.mark.parametrize("dense", [True, False])
def test_harmonics_of_a_sphere_are_spherical(dense, monkeypatch, icosphere):
    vertices, faces = icosphere(3)
    if not dense:
        vertices, faces = icosphere(4)
    assert (len(vertices) <= 1000) == dense
    harmonics = geometric_harmonics(vertices, faces, 15)
    # Degrees 1 to 3 have 3 + 5 + 7 of them; those of degree 1 are x, y and z.
    fitted = np.linalg.lstsq(vertices, harmonics[:, :3], rcond=None)[0]
    assert np.abs(vertices @ fitted - harmonics[:, :3]).max() < 0.01
    stiffness, mass = geometry._cotangents(vertices, faces, 15)
    energy = ((stiffness @ harmonics) * harmonics).sum(0) / mass.sum()
    expected = np.repeat([2, 6, 12], [3, 5, 7])
    assert np.allclose(energy, expected, rtol=0.02)
    gram = (mass[:, None] * harmonics).T @ harmonics / mass.sum()
    assert np.allclose(gram, np.eye(15), atol=1e-6)
    assert np.allclose(mass @ harmonics / mass.sum(), 0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_harmonics_do_not_depend_on_the_unit(scale, icosphere):
    vertices, faces = icosphere(2)
    vertices = vertices * [1.0, 1.3, 1.7]
    expected = geometric_harmonics(vertices, faces, 6)
    assert np.allclose(geometric_harmonics(scale * vertices, faces, 6), expected, atol=1e-6)
    assert np.allclose(
        centroid_harmonics(scale * vertices, 6), centroid_harmonics(vertices, 6), atol=1e-6
    )


def test_harmonics_of_centroids_along_a_rod_are_cosines():
    rod = np.stack([np.arange(60.0), np.zeros(60), np.zeros(60)], 1)
    found = centroid_harmonics(rod, 3, n_neighbours=2)
    # Inner parcels have a neighbour on both sides; the ends have two on one side.
    for k in range(3):
        wave = np.cos(np.pi * (k + 1) * (np.arange(60) + 0.5) / 60)
        assert abs(np.corrcoef(wave, found[:, k])[0, 1]) > 0.99


def test_400_parcels_have_30_gradients_and_200_harmonics():
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((400, 3))
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    near = np.exp(-np.square(centroids[:, None] - centroids).sum(2))
    places = [functional_gradients(near, 30), centroid_harmonics(centroids, 200)]
    joined = np.concatenate(places, 1)
    assert joined.shape == (400, 230) and np.isfinite(joined).all()
    assert np.linalg.matrix_rank(places[1]) == 200


def test_meshes_without_harmonics_are_refused(icosphere):
    vertices, faces = icosphere(1)
    with pytest.raises(PositionError, match="no mesh to take harmonics of"):
        geometric_harmonics(vertices, faces, 41)
    with pytest.raises(PositionError, match="1 without area"):
        geometric_harmonics(np.concatenate([vertices, [[2, 2, 2]]]), faces, 4)
    with pytest.raises(PositionError, match="1 of 81 triangles without area"):
        geometric_harmonics(vertices, np.concatenate([faces, [[0, 0, 1]]]), 4)
    with pytest.raises(PositionError, match="centroids of parcels"):
        centroid_harmonics(vertices, 41)
    with pytest.raises(PositionError, match="share a centroid"):
        centroid_harmonics(np.zeros((10, 3)), 2)


def test_means_over_parcels():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]])
    found = parcel_means(values, np.array([4, 1, 4]), np.array([1, 4]))
    assert found.tolist() == [[3, 4], [3, 1]]
    with pytest.raises(DataError, match="parcel 9"):
        parcel_means(values, np.array([4, 1, 4]), np.array([1, 9]))
