"""Spheres with known harmonics, in FreeSurfer's order of vertices."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def icosphere():
    """``icosphere(level)`` gives vertices and faces."""
    return _icosphere


def _icosphere(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a subdivided icosahedron; new vertices come last."""
    golden = (1 + 5**0.5) / 2
    pairs = [(a, b) for a in (-1, 1) for b in (-golden, golden)]
    vertices = [(0, a, b) for a, b in pairs]
    vertices += [(a, b, 0) for a, b in pairs] + [(b, 0, a) for a, b in pairs]
    vertices = np.array(vertices, float)
    near = np.linalg.norm(vertices[:, None] - vertices, axis=2) < 2.1
    faces = np.array(
        [
            (i, j, k)
            for i in range(12)
            for j in range(i + 1, 12)
            for k in range(j + 1, 12)
            if near[i, j] and near[j, k] and near[i, k]
        ]
    )
    for _ in range(level):
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
        edges, which = np.unique(edges, axis=0, return_inverse=True)
        middle = len(vertices) + which.reshape(3, -1).T
        vertices = np.concatenate([vertices, vertices[edges].mean(1)])
        a, b, c = faces.T
        ab, bc, ca = middle.T
        corners = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = np.concatenate([np.stack(corner, 1) for corner in corners])
        vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True), faces
