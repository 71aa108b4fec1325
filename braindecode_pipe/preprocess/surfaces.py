"""Surfaces: GIfTI and CIFTI series, and volumes in MNI space projected to a mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, MissingFileError, RecipeError
from braindecode_pipe.preprocess.sampling import Scale
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.sensors import voxel_name
from braindecode_pipe.preprocess.sidecars import entities, truncated
from braindecode_pipe.preprocess.volumes import Volumes
from braindecode_pipe.schema import sensor_coords

# The mesh that ships with nilearn, and its vertices per hemisphere.
SHIPPED = "fsaverage5"
_SHIPPED_VERTICES = 10242
_SIDES = {"L": "left", "R": "right"}
# Samples between the pial and the white surface, as in nilearn.surface.vol_to_surf.
_N_DEPTHS = 10
_MNI = ("MNI", "ICBM")


@dataclass(frozen=True)
class Series:
    """A series of vertices (and voxels), to be copied block by block.

    Attributes
    ----------
    n_times, declared : int, volumes after the dummy scans; in the file
    t_r : float [s] that the file states, or None
    frame : of the positions
    names, kind, hemisphere, roi : (n_sensors,) list of str
    position : (n_sensors, 3) [m], NaN where unknown
    blocks : gives (first sensor, values (n_times, n)) of consecutive sensors
    """

    n_times: int
    declared: int
    t_r: float | None
    frame: str
    names: list[str]
    kind: list[str]
    hemisphere: list[str]
    roi: list[str]
    position: np.ndarray
    blocks: Callable[[], Iterator[tuple[int, np.ndarray]]]

    def copy_to(self, series: Scratch) -> None:
        """Write the values to ``series`` (n_times, n_sensors)."""
        for start, values in self.blocks():
            series.write(0, start, values)

    def coords(self, good: np.ndarray) -> dict[str, Any]:
        """Sensor coordinates."""
        extra: dict[str, Any] = {"hemisphere": self.hemisphere}
        if any(self.roi):
            extra["roi"] = self.roi
        return sensor_coords(self.names, self.kind, "a.u.", self.position, good=good, **extra)


def vertex_name(hemisphere: str, vertices: np.ndarray) -> list[str]:
    """Names of vertices: ``L-00012``."""
    return [f"{hemisphere}-{vertex:05d}" for vertex in vertices]


def shipped_mesh(kind: str, hemisphere: str) -> np.ndarray:
    """(10242, 3) [mm] of fsaverage5 as it ships with nilearn; ``kind`` pial, white_matter, ..."""
    from nilearn.datasets import load_fsaverage

    mesh = load_fsaverage(SHIPPED)[kind].parts[_SIDES[hemisphere]]
    return np.asarray(mesh.coordinates, float)


def mesh_position(n_vertices: int, hemisphere: str, space: str) -> np.ndarray:
    """Positions [m] of the vertices of a hemisphere: fsaverage5's pial surface, else NaN."""
    if n_vertices != _SHIPPED_VERTICES or not space.startswith("fsaverage"):
        return np.full((n_vertices, 3), np.nan)
    return shipped_mesh("pial", hemisphere) / 1000


def hemispheres(path: Path, missing: bool = False) -> dict[str, Path]:
    """Both files of a GIfTI series, named by one of them, also ``missing`` ones where said so.

    Raises
    ------
    MissingFileError : the other hemisphere is not there
    DataError : a name without hemi-L or hemi-R
    """
    side = entities(path.name).get("hemi", "")
    if side not in _SIDES:
        raise DataError(
            "a surface without its hemisphere", file=path,
            expected="hemi-L or hemi-R in the file's name", found=path.name,
        )  # fmt: skip
    files = {s: path.with_name(path.name.replace(f"hemi-{side}", f"hemi-{s}")) for s in _SIDES}
    for file in files.values():
        if not missing and not file.is_file():
            raise MissingFileError(
                "one hemisphere is not there", file=file, expected="both hemi-L and hemi-R",
                found="one", remedy="copy the other one beside it",
            )  # fmt: skip
    return files


def read_gifti(path: Path, skip: int) -> Series:
    """Both hemispheres of ``*_hemi-L_..._bold.func.gii``, joined.

    nibabel unpacks a file as a whole, so that both hemispheres are in memory.

    Parameters
    ----------
    path : Path, of either hemisphere
    skip : int, dummy scans

    Raises
    ------
    MissingFileError, DataError
    """
    arrays = {side: _gifti_arrays(file) for side, file in hemispheres(path).items()}
    lengths = {len(found) for found in arrays.values()}
    if len(lengths) != 1:
        raise DataError(
            "the hemispheres differ in length", file=path, expected="equally many volumes",
            found=" and ".join(str(len(found)) for found in arrays.values()),
        )  # fmt: skip
    declared = lengths.pop()
    space = entities(path.name).get("space", "unknown")
    sizes = {side: len(found[0]) for side, found in arrays.items()}

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        at = 0
        for side, found in arrays.items():
            for columns in _columns(sizes[side], declared):
                yield at + columns.start, np.stack([array[columns] for array in found[skip:]])
            at += sizes[side]

    names = [name for side, n in sizes.items() for name in vertex_name(side, np.arange(n))]
    return Series(
        max(0, declared - skip), declared, None, space, names, ["vertex"] * len(names),
        [side for side, n in sizes.items() for _ in range(n)], [""] * len(names),
        np.vstack([mesh_position(n, side, space) for side, n in sizes.items()]), blocks,
    )  # fmt: skip


def _gifti_arrays(file: Path) -> list[np.ndarray]:
    import nibabel

    try:
        image = nibabel.load(file)
        arrays = [np.asarray(array.data).reshape(-1) for array in image.darrays]
        if len(image.darrays) == 1 and image.darrays[0].data.ndim == 2:
            arrays = list(np.asarray(image.darrays[0].data).T)
    except Exception as error:  # the XML parser, zlib and nibabel each have errors of their own
        raise DataError(
            "the surface series cannot be read",
            file=file,
            expected="a GIfTI file with one data array per volume",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            remedy="copy or download the file again",
        ) from error
    if not arrays or len({len(array) for array in arrays}) != 1 or not len(arrays[0]):
        raise DataError(
            "not a surface series", file=file, expected="data arrays of one length",
            found=f"{len(arrays)} arrays of {sorted({len(a) for a in arrays})} values",
        )  # fmt: skip
    return arrays


def _columns(n_columns: int, n_rows: int) -> list[slice]:
    from braindecode_pipe.preprocess import scratch

    return list(scratch.slices(n_columns, max(1, scratch.BLOCK_BYTES // (8 * max(1, n_rows)))))


def read_cifti(path: Path, skip: int) -> Series:
    """Cortex and subcortex of ``*_bold.dtseries.nii``, sensor block by sensor block.

    Vertices are named by hemisphere and number, voxels by their grid indices; ``roi`` is the
    structure of the brain model. The file has no check value; its length is compared.

    Raises
    ------
    DataError : no dense time series
    TruncatedRecordingError : fewer bytes than the header declares
    """
    import nibabel

    try:
        image = nibabel.load(path)
        times, brain = image.header.get_axis(0), image.header.get_axis(1)
        if not isinstance(times, nibabel.cifti2.SeriesAxis) or not isinstance(
            brain, nibabel.cifti2.BrainModelAxis
        ):
            raise TypeError("its axes are no series and brain models")
    except Exception as error:  # nibabel's readers have no common error
        raise DataError(
            "the CIFTI series cannot be read",
            file=path,
            expected="a dense time series (.dtseries.nii)",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
        ) from error
    declared, n_sensors = image.shape
    proxy = image.dataobj
    expected = int(proxy.offset) + declared * n_sensors * proxy.dtype.itemsize
    if path.stat().st_size < expected:
        raise truncated(path, f"{expected} bytes", f"{path.stat().st_size} bytes")

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for columns in _columns(n_sensors, declared):
            yield columns.start, np.asarray(proxy[:, columns])[skip:]

    t_r = float(times.step) if str(times.unit).upper() == "SECOND" else None
    space = entities(path.name).get("space", "unknown")
    roi = [str(name).removeprefix("CIFTI_STRUCTURE_") for name in brain.name]
    sides = ["L" if "LEFT" in name else "R" if "RIGHT" in name else "" for name in roi]
    surface = np.asarray(brain.surface_mask)
    names = np.empty(n_sensors, object)
    place = np.full((n_sensors, 3), np.nan)
    side_of = np.array(sides)
    for side in ("L", "R", ""):
        here = surface & (side_of == side)
        if here.any():
            vertices = np.asarray(brain.vertex)[here]
            structure = str(np.asarray(brain.name)[here][0])
            names[here] = vertex_name(side or "M", vertices)
            mesh = mesh_position(int(brain.nvertices[structure]), side or "L", space)
            place[here] = mesh[vertices]
    if (~surface).any():
        ijk = np.asarray(brain.voxel)[~surface]
        names[~surface] = voxel_name(ijk)
        affine = np.asarray(brain.affine, float)
        place[~surface] = (ijk @ affine[:3, :3].T + affine[:3, 3]) / 1000
    kind = ["vertex" if on else "voxel" for on in surface]
    return Series(max(0, declared - skip), declared, t_r, space, list(names), kind, sides, roi,
                  place, blocks)  # fmt: skip


class VertexSampler:
    """Volumes in MNI space to the vertices of fsaverage5, both hemispheres.

    The mean of trilinear interpolations at ten depths between the pial and the white surface:
    ``nilearn.surface.vol_to_surf(img, pial, inner_mesh=white)``, as one sparse matrix. Samples
    outside the image are left out, and so are voxels that are not finite.

    Parameters
    ----------
    volumes : Volumes
    space : str, of the recording
    mesh : str, "fsaverage5"

    Raises
    ------
    DataError : a space that is not MNI's, in which the mesh has no place
    RecipeError : a mesh that does not ship with nilearn
    """

    joins, dtype = True, np.float32

    def __init__(self, volumes: Volumes, space: str, mesh: str) -> None:
        if mesh != SHIPPED:
            raise RecipeError(
                "a mesh that is not at hand", expected=f'preprocess.bold.surface = "{SHIPPED}"',
                found=mesh, remedy="project with fMRIPrep, and read its *_bold.func.gii",
            )  # fmt: skip
        if not space.startswith(_MNI):
            raise DataError(
                "volumes can be projected to fsaverage5 only in MNI space",
                file=volumes.path,
                expected="space-MNI... in the file's name",
                found=f"space-{space}" if space else "no space: the scanner's",
                remedy='read fMRIPrep\'s MNI output (plan.derivatives), or sensors = "voxels"',
            )
        self._matrix = self._all = None
        inverse = np.linalg.inv(np.asarray(volumes.image.affine, float))
        pieces = [
            projection(shipped_mesh("pial", side), shipped_mesh("white_matter", side), inverse,
                       volumes.shape)
            for side in _SIDES
        ]  # fmt: skip
        from scipy.sparse import vstack

        self._all = vstack(pieces, format="csr")
        self.n_sensors = self._all.shape[0]
        self.exclude(np.zeros(volumes.n_voxels, bool))

    def exclude(self, voxels: np.ndarray) -> None:
        """Leave voxels out: the weights of the others add up to 1 again."""
        from scipy.sparse import diags

        self._index = np.unique(self._all.indices)
        self._index = self._index[~voxels[self._index]]
        matrix = self._all[:, self._index]
        total = np.asarray(matrix.sum(axis=1)).reshape(-1)
        share = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.5)
        # Without any voxel excluded the weights are as they were made.
        share[np.abs(total - 1) < 1e-9] = 1.0
        self._matrix = (diags(share) @ matrix).tocsr()
        self._lost = share == 0

    def sample(self, raw: np.ndarray, scale: Scale) -> np.ndarray:
        """See :class:`Sampler`; NaN for vertices that the image does not reach."""
        values = scale(raw.take(self._index, axis=1), np.float64)
        result = (self._matrix @ values.T).T
        result[:, self._lost] = np.nan
        return result

    def coords(self, good: np.ndarray) -> dict[str, Any]:
        """Sensor coordinates."""
        n = self.n_sensors // 2
        names = [name for side in _SIDES for name in vertex_name(side, np.arange(n))]
        place = np.vstack([shipped_mesh("pial", side) for side in _SIDES]) / 1000
        sides = [side for side in _SIDES for _ in range(n)]
        return sensor_coords(names, "vertex", "a.u.", place, good=good, hemisphere=sides)


def projection(
    outer: np.ndarray, inner: np.ndarray, inverse: np.ndarray, shape: tuple[int, ...]
) -> Any:
    """Sparse (n_vertices, n_voxels) of trilinear interpolation, averaged between two surfaces.

    Parameters
    ----------
    outer, inner : (n_vertices, 3) [mm]
    inverse : (4, 4), from mm to grid indices
    shape : (x, y, z); voxels are in Fortran order

    Returns
    -------
    scipy.sparse.csr_matrix; rows add up to 1, rows of vertices outside the image are empty
    """
    from scipy.sparse import coo_matrix

    depth = np.linspace(0, 1, _N_DEPTHS)[:, None, None]
    points = (outer * (1 - depth) + inner * depth) @ inverse[:3, :3].T + inverse[:3, 3]
    # Nilearn's rule: up to one voxel beyond the last centre is extrapolated.
    inside = ((points >= 0) & (points < np.array(shape))).all(axis=2)
    base = np.clip(np.floor(points), 0, np.maximum(np.array(shape) - 2, 0)).astype(int)
    part = points - base
    share = 1.0 / np.maximum(inside.sum(axis=0), 1)
    vertex = np.broadcast_to(np.arange(len(outer)), inside.shape)[inside]
    weights, rows, columns = [], [], []
    for corner in np.ndindex(2, 2, 2):
        at = np.minimum(base + np.array(corner), np.array(shape) - 1)
        weight = np.where(np.array(corner), part, 1 - part).prod(axis=2)
        weights.append((weight * share)[inside])
        rows.append(vertex)
        columns.append(np.ravel_multi_index(tuple(at[inside].T), shape, order="F"))
    matrix = coo_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))),
        shape=(len(outer), int(np.prod(shape))),
    )
    return matrix.tocsr()
