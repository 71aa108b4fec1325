"""Where a place of the brain is: functional gradients and geometric harmonics."""

from __future__ import annotations

import numpy as np

from braindecode_pipe.errors import DataError, PositionError


def functional_gradients(affinity: np.ndarray, n: int = 30, alpha: float = 0.5) -> np.ndarray:
    """The first ``n`` coordinates of a diffusion map, scaled over all diffusion times.

    ``W' = D^-alpha W D^-alpha``, ``P = D'^-1 W'``; gradient ``k`` is right eigenvector ``k`` of
    ``P`` times ``lambda_k / (1 - lambda_k)``, the constant one left out (Coifman and Lafon 2006,
    section 3.4; Margulies et al. 2016, methods, for ``alpha = 0.5``). Eigenvectors have unit length
    under the stationary distribution of ``P``. Each gradient has its largest entry (in absolute
    value) above 0, which fixes the sign.

    Parameters
    ----------
    affinity : (n_places, n_places), symmetric and >= 0, such as similarities of connectivity
    n : int, below ``n_places``; 30 in Brain Harmony
    alpha : float in [0, 1], how far the density of places is divided out

    Returns
    -------
    (n_places, n) float64, by falling eigenvalue

    Raises
    ------
    DataError
        When the affinity is not such a matrix, or places fall into groups that nothing joins.
    """
    from scipy.linalg import eigh
    from scipy.sparse.csgraph import connected_components

    weights = np.asarray(affinity, float)
    size = len(weights)
    square = weights.shape == (size, size) and np.isfinite(weights).all() and 0 < n < size
    if (
        not square
        or weights.min() < 0
        or not np.allclose(weights, weights.T, atol=1e-10 * np.abs(weights).max())
    ):
        raise DataError(
            "no affinity between places",
            expected=f"a symmetric, finite matrix >= 0 of more than {n} places",
            found=str(weights.shape),
            remedy="use similarities, and cut negative ones to 0",
        )
    groups = connected_components(weights > 0, directed=False)[0]
    if groups > 1:
        raise DataError(
            "places fall into groups that nothing joins, so no gradient runs through them all",
            expected="one group",
            found=f"{groups} groups",
            remedy="keep more of the weak affinities",
        )
    weights = (weights + weights.T) / 2
    degree = weights.sum(1) ** -alpha
    weights = weights * degree[:, None] * degree
    root = np.sqrt(weights.sum(1))
    # P is similar to a symmetric matrix, whose eigenvectors are found exactly and in order.
    symmetric = weights / root[:, None] / root
    values, vectors = eigh(symmetric, subset_by_index=[size - 1 - n, size - 1])
    values, vectors = values[-2::-1], vectors[:, -2::-1]
    vectors = vectors / root[:, None] * np.sqrt((root**2).sum())
    return _signed(vectors * (values / (1 - values)))


def geometric_harmonics(vertices: np.ndarray, faces: np.ndarray, n: int = 200) -> np.ndarray:
    """The first ``n`` Laplacian eigenvectors of a triangle mesh, the constant one left out.

    ``S phi = lambda M phi`` with cotangent weights ``S_ij = -(cot a_ij + cot b_ij) / 2`` and a
    third of the areas of its triangles as mass ``M_ii`` of a vertex. Harmonics are scaled to
    ``sum_i M_ii phi_i^2 = sum_i M_ii``, so they have no unit, and do not depend on the unit of the
    vertices. Signs as in :func:`functional_gradients`. A mesh of several pieces (two hemispheres)
    has as many constants; all but one of them come first.

    Parameters
    ----------
    vertices : (n_vertices, 3)
    faces : (n_faces, 3) int
    n : int; 200 in Brain Harmony

    Returns
    -------
    (n_vertices, n) float64, by rising eigenvalue

    Raises
    ------
    PositionError
        When the mesh has no area, or vertices without triangles, or fewer than ``n + 2``.
    """
    stiffness, mass = _cotangents(np.asarray(vertices, float), np.asarray(faces), n)
    return _harmonics(stiffness, mass, n)


def centroid_harmonics(centroids: np.ndarray, n: int = 200, n_neighbours: int = 10) -> np.ndarray:
    """The first ``n`` eigenvectors of the Laplacian of a graph of parcels, for want of a mesh.

    Edges join each parcel with its nearest neighbours (either way), with weight
    ``exp(-d^2 / s^2)``, ``s`` the median length of the edges; masses are equal. Neighbours are
    taken in space, so parcels face to face across a sulcus are joined: harmonics of the mesh,
    averaged over parcels, are better where there is one.

    Parameters
    ----------
    centroids : (n_parcels, 3), in any unit
    n, n_neighbours : int, below ``n_parcels``

    Returns
    -------
    (n_parcels, n) float64
    """
    from scipy.sparse import coo_array, diags_array
    from scipy.spatial import cKDTree

    centroids = np.asarray(centroids, float)
    size = len(centroids)
    if centroids.shape != (size, 3) or not np.isfinite(centroids).all() or size < n + 2:
        raise PositionError(
            "centroids of parcels",
            expected=f"at least {n + 2} finite positions (x, y, z)",
            found=str(centroids.shape),
        )
    n_neighbours = min(n_neighbours, size - 1)
    distance, near = cKDTree(centroids).query(centroids, n_neighbours + 1)
    rows = np.repeat(np.arange(size), n_neighbours + 1)
    length, near = distance.ravel(), near.ravel()
    rows, near, length = (part[rows != near] for part in (rows, near, length))
    scale = np.median(length)
    if not scale > 0:
        raise PositionError("parcels share a centroid", expected="different", found="equal")
    weights = coo_array((np.exp(-((length / scale) ** 2)), (rows, near)), shape=(size, size))
    weights = weights.tocsr().maximum(weights.T.tocsr())
    stiffness = (diags_array(np.asarray(weights.sum(1)).ravel()) - weights).tocsc()
    return _harmonics(stiffness, np.full(size, 1 / size), n)


def parcel_means(values: np.ndarray, parcel: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Means ``(n_parcels, n)`` of ``(n_vertices, n)`` over the vertices of each parcel.

    Raises
    ------
    DataError
        When a parcel has no vertex.
    """
    missing = np.setdiff1d(labels, parcel)
    if len(missing):
        raise DataError(
            "parcels without a vertex", expected="at least one", found=f"parcel {missing[0]}"
        )
    return np.stack([values[parcel == label].mean(0) for label in labels])


def _cotangents(vertices: np.ndarray, faces: np.ndarray, n: int):
    """Stiffness (sparse, positive semi-definite) and lumped mass of a mesh."""
    from scipy.sparse import coo_array

    size = len(vertices)
    corners = vertices[faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    mass = np.bincount(faces.ravel(), np.repeat(area / 6, 3), minlength=size)
    if not (area > 0).all() or not (mass > 0).all() or size < n + 2:
        raise PositionError(
            "no mesh to take harmonics of",
            expected=f"at least {n + 2} vertices, all in triangles that have an area",
            found=f"{size} vertices, {np.sum(~(mass > 0))} without area; "
            f"{np.sum(~(area > 0))} of {len(faces)} triangles without area",
        )
    rows, columns, weights = [], [], []
    for corner in range(3):
        i, j = faces[:, (corner + 1) % 3], faces[:, (corner + 2) % 3]
        here = vertices[faces[:, corner]]
        cotangent = ((vertices[i] - here) * (vertices[j] - here)).sum(1) / area / 2
        for a, b, sign in ((i, j, -1), (j, i, -1), (i, i, 1), (j, j, 1)):
            rows.append(a), columns.append(b), weights.append(sign * cotangent)
    index = (np.concatenate(rows), np.concatenate(columns))
    return coo_array((np.concatenate(weights), index), shape=(size, size)).tocsc(), mass


def _harmonics(stiffness, mass: np.ndarray, n: int) -> np.ndarray:
    """Eigenvectors 1 to ``n`` of ``S phi = lambda M phi``."""
    from scipy.linalg import eigh
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh

    # With y = sqrt(M) phi the problem is symmetric, and without the unit of the positions.
    root = np.sqrt(mass / mass.mean())
    scale = stiffness.diagonal().mean()
    inverse = diags_array(1 / root)
    scaled = (inverse @ stiffness @ inverse / scale).tocsc()
    if len(mass) <= max(1000, 3 * n):
        vectors = eigh(scaled.toarray(), subset_by_index=[0, n])[1]
    else:
        # A little below 0: there the matrix can be factorised, and the smallest come first.
        start = np.random.default_rng(0).standard_normal(len(mass))
        values, vectors = eigsh(scaled, k=n + 1, sigma=-1 / len(mass), v0=start)
        vectors = vectors[:, np.argsort(values)]
    vectors = vectors / np.linalg.norm(vectors, axis=0) * np.sqrt(len(mass))
    return _signed(vectors[:, 1:] / root[:, None])


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Columns whose largest entry in absolute value is positive; of equal ones, the first."""
    size = np.abs(vectors)
    largest = (size >= (1 - 1e-9) * size.max(0)).argmax(0)
    return vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
