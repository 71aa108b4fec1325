"""From the sensors of a store back to Nilearn's images: parcels to volumes, vertices to meshes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.errors import SchemaError
from braindecode_pipe.preprocess.surfaces import SHIPPED
from braindecode_pipe.store import list_groups, open_store

if TYPE_CHECKING:
    import nibabel
    import nilearn.surface

_PARTS = {"left": "L", "right": "R"}


def parcels_to_img(values: np.ndarray, signal: Any) -> nibabel.Nifti1Image:
    """Values per parcel as an image on the grid of the recording, one value per label.

    Parameters
    ----------
    values : (n_sensors,) or (n_sensors, n_times)
    signal : Signal
        A reader (``store.open_signal``) of the store that the parcels are from.

    Returns
    -------
    Nifti1Image float32 (x, y, z[, n_times]); 0 outside the labels

    Raises
    ------
    SchemaError : another number of values; a store without its label image (maps, tables)
    """
    import nibabel

    values = np.asarray(values, np.float32)
    if "atlas" not in list_groups(signal.path) or len(values) != len(signal.sensors):
        raise SchemaError(
            "these values cannot be put on a grid",
            file=signal.path,
            expected="one value per parcel of a store with its label image",
            found=f"{len(values)} values, {len(signal.sensors)} sensors",
            remedy="for maps: nilearn.maskers.NiftiMapsMasker.inverse_transform",
        )
    atlas = open_store(signal.path, "atlas")
    labels, numbers = atlas["labels"].values, signal.sensors["label"].to_numpy()
    inside = np.isin(labels, numbers)
    grid = np.zeros((*labels.shape, *values.shape[1:]), np.float32)
    order = np.argsort(numbers)
    grid[inside] = values[order[np.searchsorted(numbers[order], labels[inside])]]
    return nibabel.Nifti1Image(grid, np.asarray(atlas.attrs["affine"], float))


def vertices_to_surface(values: np.ndarray, signal: Any) -> nilearn.surface.SurfaceImage:
    """Values per vertex as a ``nilearn.surface.SurfaceImage`` on fsaverage5's pial surface.

    Parameters
    ----------
    values : (n_sensors,) or (n_sensors, n_times)
    signal : Signal

    Returns
    -------
    SurfaceImage; NaN for vertices that are no sensors, sensors that are voxels are left out

    Raises
    ------
    SchemaError : another number of values, or vertices of another mesh
    """
    from nilearn.datasets import load_fsaverage
    from nilearn.surface import SurfaceImage

    values, sensors = np.asarray(values, np.float32), signal.sensors
    mesh = load_fsaverage(SHIPPED)["pial"]
    space = str(signal.attrs.get("surface", signal.attrs.get("position_frame", "")))
    if len(values) != len(sensors) or not space.startswith(SHIPPED):
        raise SchemaError(
            "these values cannot be put on a mesh",
            file=signal.path,
            expected=f"one value per vertex of {SHIPPED}",
            found=f"{len(values)} values, {len(sensors)} sensors of {space or 'no mesh'}",
        )
    data = {}
    for part, side in _PARTS.items():
        here = ((sensors["kind"] == "vertex") & (sensors["hemisphere"] == side)).to_numpy()
        vertices = [int(name.split("-")[1]) for name in sensors["sensor"][here]]
        full = np.full((mesh.parts[part].n_vertices, *values.shape[1:]), np.nan, np.float32)
        full[vertices] = values[here]
        data[part] = full
    return SurfaceImage(mesh, data)
