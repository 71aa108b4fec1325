"""Time series of parcels that are already extracted, and where the parcels lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.preprocess.sidecars import entities
from braindecode_pipe.preprocess.volumes import read_to_end


def read_timeseries(path: Path) -> pd.DataFrame:
    """A table with one row per volume and one numeric column per parcel.

    Raises
    ------
    MissingFileError : no file
    DataError : no table, names that repeat, or cells that are no finite numbers
    """
    if not path.is_file():
        raise MissingFileError("the time series are not there", file=path, expected="a TSV table")
    with path.open(encoding="utf-8-sig") as stream:
        header = stream.readline().rstrip("\r\n").split("\t")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            "parcel names repeat", file=path, expected="unique names", found=", ".join(twice)
        )
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a"], encoding="utf-8-sig", dtype=float)
    except ValueError as error:
        raise DataError(
            "the time series cannot be read",
            file=path,
            expected="a header line and numbers, separated by tabs",
            found=str(error),
        ) from error
    wrong = ~np.isfinite(table.to_numpy())
    if wrong.any() or not len(table):
        row, column = np.argwhere(wrong)[0] if wrong.any() else (0, 0)
        raise DataError(
            "the time series are not finite",
            file=path,
            expected="a finite number in every cell",
            found=f"{int(wrong.sum())} cells are not, first in row {row + 2}, "
            f"column {table.columns[column]}"
            if wrong.any()
            else "no row",
            remedy="a table that is cut in its last row has to be copied again",
        )
    return table


def atlases(path: Path, data: Path) -> list[Path]:
    """Label images at the root of the data set that the recording may be named after."""
    own = entities(path.name)
    wanted = {own.get("seg"), own.get("atlas")} - {None}
    return [
        file
        for file in sorted(data.glob("atlas-*_dseg.nii.gz"))
        if not wanted or entities(file.name).get("atlas") in wanted
    ]


def parcel_positions(path: Path, data: Path, n_parcels: int, notes: list[str]) -> np.ndarray | None:
    """Centroids [m] of an atlas' labels, (n_parcels, 3), in the order of the label numbers.

    None, with a note, when there is no atlas or when its labels are not as many as the parcels.
    """
    import nibabel

    found = atlases(path, data)
    if len(found) != 1:
        notes.append(f"no positions: {len(found)} atlas images fit")
        return None
    for _ in read_to_end(found[0]):
        pass
    image = nibabel.load(found[0])
    labels = np.rint(np.asarray(image.dataobj, float)).astype(int)
    numbers = np.unique(labels[labels > 0])
    if len(numbers) != n_parcels:
        notes.append(
            f"no positions: {found[0].name} has {len(numbers)} labels for {n_parcels} parcels"
        )
        return None
    ijk = np.argwhere(labels > 0)
    which = np.searchsorted(numbers, labels[labels > 0])
    count = np.bincount(which)
    centroid = np.column_stack([np.bincount(which, ijk[:, axis]) / count for axis in range(3)])
    affine = np.asarray(image.affine, float)
    return (centroid @ affine[:3, :3].T + affine[:3, 3]) / 1000
