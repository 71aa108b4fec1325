"""Parcels of an atlas: label images and maps on the grid of a recording, and their names."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess.masks import on_grid
from braindecode_pipe.preprocess.sampling import Scale
from braindecode_pipe.preprocess.volumes import read_to_end

_NAME_COLUMNS = ("name", "label", "region", "roi", "names", "labels")
_NUMBER_COLUMNS = ("index", "value", "id", "label_id", "number", "label")
# FreeSurfer's look-up table, and tables without a header: number, name, perhaps a colour.
_LUT_LINE = re.compile(r"\s*(-?\d+)[\s,]+(\S+)(?:[\s,]+\d+){0,4}\s*$")


@dataclass(frozen=True)
class Parcels:
    """What the sensors of an atlas are.

    Attributes
    ----------
    numbers : (n_parcels,) label values, or the numbers of the maps from 1
    names : (n_parcels,) names, unique
    position : (n_parcels, 3) centroids [m]
    size : (n_parcels,) voxels (or sum of the weights) on the grid of the recording
    """

    numbers: np.ndarray
    names: list[str]
    position: np.ndarray
    size: np.ndarray


class LabelSampler:
    """Means over the voxels of each label, as ``nilearn.maskers.NiftiLabelsMasker`` has them.

    Parameters
    ----------
    labels : (x, y, z) int, 0 for the background
    numbers : (n_parcels,) labels that are sensors; those without a voxel give zeros
    """

    joins, dtype = True, np.float64

    def __init__(self, labels: np.ndarray, numbers: np.ndarray) -> None:
        flat = labels.reshape(-1, order="F")
        used = np.isin(flat, numbers)
        self._size = np.bincount(np.searchsorted(numbers, flat[used]), minlength=len(numbers))
        self._flat, self._numbers, self.n_sensors = flat, numbers, len(numbers)
        self._choose(used)

    def _choose(self, used: np.ndarray) -> None:
        voxels = np.flatnonzero(used)
        which = np.searchsorted(self._numbers, self._flat[voxels])
        order = np.argsort(which, kind="stable")
        self._index, which = voxels[order], which[order]
        self.count = np.bincount(which, minlength=self.n_sensors)
        self._there = np.flatnonzero(self.count)
        self._starts = np.searchsorted(which, self._there)
        self._which = which
        self._least: np.ndarray | None = None
        self._most: np.ndarray | None = None

    def exclude(self, voxels: np.ndarray) -> None:
        """Leave voxels out of every mean."""
        self._choose(np.isin(self._flat, self._numbers) & ~voxels)

    def sample(self, raw: np.ndarray, scale: Scale) -> np.ndarray:
        """See :class:`Sampler`."""
        means = np.zeros((len(raw), self.n_sensors))
        if not len(self._there):
            return means
        chosen = raw.take(self._index, axis=1)
        self._note(chosen)
        with np.errstate(invalid="ignore"):
            total = np.add.reduceat(chosen, self._starts, axis=1, dtype=float)
            means[:, self._there] = scale(total / self.count[self._there], np.float64)
        return means

    def _note(self, chosen: np.ndarray) -> None:
        least, most = chosen.min(axis=0), chosen.max(axis=0)
        self._least = least if self._least is None else np.minimum(self._least, least)
        self._most = most if self._most is None else np.maximum(self._most, most)

    def coverage(self) -> np.ndarray:
        """(n_parcels,) share of the voxels of each label that are in the mask, finite, varying."""
        if self._least is None or self._most is None:
            return np.zeros(self.n_sensors)
        varying = np.bincount(
            self._which[self._most > self._least], minlength=self.n_sensors
        )  # fmt: skip
        return varying / np.maximum(self._size, 1)


class MapSampler:
    """Least-squares weights of overlapping maps, as ``nilearn.maskers.NiftiMapsMasker`` has them.

    ``argmin_s || x - M s ||`` over the voxels where any map is not zero, ``M`` (n_voxels, n_maps).

    Parameters
    ----------
    maps : (x, y, z, n_maps)
    """

    joins, dtype = True, np.float64

    def __init__(self, maps: np.ndarray) -> None:
        flat = maps.reshape(-1, maps.shape[3], order="F")
        used = (flat != 0).any(axis=1)
        self._total = np.abs(flat).sum(axis=0, dtype=float)
        self._flat, self.n_sensors = flat, flat.shape[1]
        self._choose(np.flatnonzero(used))

    def _choose(self, index: np.ndarray) -> None:
        self._index = index
        self._maps = np.ascontiguousarray(self._flat[index], float)
        self._inverse = np.linalg.pinv(self._maps.T @ self._maps, hermitian=True)
        self._varying: np.ndarray | None = None
        self._first: np.ndarray | None = None

    def exclude(self, voxels: np.ndarray) -> None:
        """Leave voxels out of the least squares."""
        self._choose(np.flatnonzero((self._flat != 0).any(axis=1) & ~voxels))

    def sample(self, raw: np.ndarray, scale: Scale) -> np.ndarray:
        """See :class:`Sampler`."""
        chosen = raw.take(self._index, axis=1)
        if self._first is None or self._varying is None:
            self._first = chosen[0].copy()
            self._varying = np.zeros(len(self._index), bool)
        self._varying |= (chosen != self._first).any(axis=0)
        with np.errstate(invalid="ignore"):
            return scale(chosen, np.float64) @ self._maps @ self._inverse

    def coverage(self) -> np.ndarray:
        """(n_maps,) share of each map's absolute weights on voxels that are finite and vary."""
        if self._varying is None:
            return np.zeros(self.n_sensors)
        seen = np.abs(self._maps[self._varying]).sum(axis=0)
        return np.divide(seen, self._total, out=np.zeros_like(seen), where=self._total > 0)


def read_atlas(
    file: Path, image: Any, resample: bool, steps: list[str]
) -> tuple[np.ndarray, Parcels]:
    """An atlas on the grid of a recording.

    Returns
    -------
    values : (x, y, z) int32 labels, or (x, y, z, n_maps) float32
    parcels : Parcels, all of the file, also those that the grid loses

    Raises
    ------
    MissingFileError : no file
    DataError : another grid (see :func:`~braindecode_pipe.preprocess.masks.on_grid`); labels that
        are no whole numbers; no label
    """
    import nibabel

    is_maps = file.is_file() and len(_squeezed(nibabel.load(file).shape)) == 4
    found = on_grid(file, "atlas", image, resample, steps, smooth=is_maps)
    values = np.asarray(found.dataobj)
    if is_maps:
        maps = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
        weights = np.abs(maps).reshape(-1, maps.shape[3], order="F")
        size = weights.sum(axis=0, dtype=float)
        numbers = np.arange(1, maps.shape[3] + 1)
        centre = _centroids(weights, size, maps.shape[:3], image.affine)
        return maps, Parcels(numbers, parcel_names(file, numbers), centre, size)
    labels = _whole(values, file)
    original = _whole(np.asarray(nibabel.load(file).dataobj), file)
    numbers = np.unique(original[original != 0])
    if not len(numbers):
        raise DataError("the atlas is empty", file=file, expected="labels above 0", found="none")
    flat = labels.reshape(-1, order="F")
    inside = np.flatnonzero(np.isin(flat, numbers))
    which = np.searchsorted(numbers, flat[inside])
    size = np.bincount(which, minlength=len(numbers)).astype(float)
    ijk = np.column_stack(np.unravel_index(inside, labels.shape, order="F"))
    total = np.column_stack([np.bincount(which, a, minlength=len(numbers)) for a in ijk.T])
    centre = _placed(total, size, image.affine)
    return labels, Parcels(numbers, parcel_names(file, numbers), centre, size)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _whole(values: np.ndarray, file: Path) -> np.ndarray:
    """Labels as int32, (x, y, z)."""
    labels = np.nan_to_num(values.astype(float), posinf=0.5, neginf=0.5)
    labels = labels.reshape(_squeezed(values.shape))
    whole = np.rint(labels)
    if np.abs(whole - labels).max(initial=0.0) > 1e-3 or np.abs(whole).max(initial=0.0) > 2**31 - 1:
        raise DataError(
            "the labels of the atlas are no whole numbers",
            file=file,
            expected="one whole number per voxel, 0 for the background",
            found=f"{labels[np.abs(whole - labels) > 1e-3][:3].tolist()}",
            remedy="maps with weights need four dimensions",
        )
    return whole.astype(np.int32)


def _centroids(
    weights: np.ndarray, size: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    ijk = np.column_stack(np.unravel_index(np.arange(len(weights)), shape, order="F"))
    return _placed(weights.T.astype(float) @ ijk, size, affine)


def _placed(total: np.ndarray, size: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centroids [m] from sums of grid indices; NaN for what has no size."""
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = total / size[:, None]
    affine = np.asarray(affine, float)
    return (centre @ affine[:3, :3].T + affine[:3, 3]) / 1000


def names_file(file: Path) -> Path | None:
    """The table of names beside an atlas: the same name with .tsv, .csv, .txt, .lut or .json."""
    base = file.name.removesuffix(".gz").removesuffix(".nii")
    for ending in (".tsv", ".csv", ".txt", ".lut", "_labels.txt", "_lut.txt", "_LUT.txt"):
        if (table := file.with_name(base + ending)).is_file():
            return table
    return None


def parcel_names(file: Path, numbers: np.ndarray) -> list[str]:
    """Names of labels from the table beside their image; ``parcel-0007`` where there is none.

    A table has columns like ``index`` and ``name`` (BIDS' ``dseg.tsv``), or lines of a number and
    a name (FreeSurfer's look-up tables). Names that repeat get the number behind them.

    Raises
    ------
    DataError : a table that cannot be read, or without a name for any label
    """
    table = names_file(file)
    if table is None:
        return [f"parcel-{number:04d}" for number in numbers]
    text = b"".join(read_to_end(table)).decode("utf-8-sig", errors="replace")
    known = _named(text, table.suffix)
    if not known.keys() & set(map(int, numbers)):
        raise DataError(
            "the names beside the atlas are those of no label",
            file=table,
            expected="columns index and name, or lines of a number and a name",
            found=f"{len(known)} names for labels {sorted(known)[:3]}",
        )
    names = [known.get(int(number), f"parcel-{number:04d}") for number in numbers]
    return [
        name if names.count(name) == 1 else f"{name}-{number:04d}"
        for name, number in zip(names, numbers)
    ]


def _named(text: str, suffix: str) -> dict[int, str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return {}
    separator = "\t" if "\t" in lines[0] or suffix == ".tsv" else ","
    rows = list(csv.reader(lines, delimiter=separator))
    header = [cell.strip().lower() for cell in rows[0]]
    number = next((header.index(c) for c in _NUMBER_COLUMNS if c in header), None)
    name = next((header.index(c) for c in _NAME_COLUMNS if c in header), None)
    found: dict[int, str] = {}
    if number is not None and name is not None and number != name:
        for row in rows[1:]:
            cell = row[number].strip() if len(row) > max(number, name) else ""
            if re.fullmatch(r"-?\d+(\.0*)?", cell) and row[name].strip():
                found[int(float(cell))] = row[name].strip()
        return found
    for line in lines:
        if match := _LUT_LINE.match(line):
            found[int(match[1])] = match[2]
    return found
