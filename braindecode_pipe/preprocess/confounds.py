"""fMRIPrep's confounds table: regressors, motion, volumes before the steady state."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.preprocess.quality import framewise_displacement
from braindecode_pipe.recipe import BoldSection

_MOTION = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
_ENDINGS = ("desc-confounds_timeseries.tsv", "desc-confounds_regressors.tsv")


def confounds_file(path: Path) -> Path | None:
    """The confounds table beside an image, None when there is none."""
    run = re.split(r"_space-|_res-|_desc-|_bold", path.name)[0]
    for ending in _ENDINGS:
        if (file := path.with_name(f"{run}_{ending}")).is_file():
            return file
    return None


def read_confounds(path: Path, declared: int, n_times: int) -> pd.DataFrame | None:
    """The confounds of an image with ``declared`` volumes, of which ``n_times`` are there.

    None when there is no table.

    Raises
    ------
    DataError : another number of rows than volumes
    """
    file = confounds_file(path)
    if file is None:
        return None
    table = pd.read_csv(file, sep="\t", na_values=["n/a"], encoding="utf-8-sig")
    if len(table) != declared:
        raise DataError(
            "the confounds do not fit the recording",
            file=file,
            expected=f"{declared} rows, one per volume",
            found=f"{len(table)} rows",
        )
    return table.iloc[:n_times]


def regressors(table: pd.DataFrame | None, section: BoldSection, path: Path) -> np.ndarray | None:
    """The columns that the recipe names, (n_times, n_confounds), dummy scans left out.

    A derivative has no value in the first row; there it takes the mean of its column, which adds
    nothing to the regression.

    Raises
    ------
    MissingFileError : confounds named, no table
    DataError : a column that is not there, or not finite after its first row
    """
    if not section.confounds:
        return None
    if table is None:
        raise MissingFileError(
            "the confounds table is not there",
            file=path.parent,
            expected=f"*_{_ENDINGS[0]} beside the image",
            found="nothing",
            remedy="leave preprocess.bold.confounds empty, or read fMRIPrep's output: "
            'plan.derivatives = "fmriprep"',
        )
    for name in section.confounds:
        if name not in table:
            near = difflib.get_close_matches(name, list(table.columns), n=3)
            raise DataError(
                "a confound is not in the table",
                file=confounds_file(path),
                expected=name,
                found=", ".join(near or list(table.columns)[:8]),
                remedy="correct preprocess.bold.confounds",
            )
    values = table[section.confounds].to_numpy(float)
    wrong = [name for name, column in zip(section.confounds, values[1:].T)
             if not np.isfinite(column).all()]  # fmt: skip
    if wrong:
        raise DataError(
            "confounds are not finite",
            file=confounds_file(path),
            expected="numbers in every row but the first",
            found=", ".join(wrong),
        )
    values[0] = np.where(np.isfinite(values[0]), values[0], values[1:].mean(axis=0))
    return values[section.dummy_scans :]


def steady_volumes(table: pd.DataFrame | None, n_times: int, steps: list[str]) -> np.ndarray:
    """(n_times,) bool: False where fMRIPrep found a volume before the steady state."""
    good = np.ones(n_times, bool)
    if table is None:
        return good
    for name in table.columns:
        if str(name).startswith("non_steady_state_outlier"):
            good &= ~(table[name].to_numpy(float) > 0)
    if not good.all():
        steps.append(f"{int((~good).sum())} volumes before the steady state are not good")
    return good


def motion_displacement(table: pd.DataFrame | None) -> np.ndarray | None:
    """(n_times,) framewise displacement [mm] when the table has the six motion parameters."""
    if table is None or not set(_MOTION) <= set(table.columns):
        return None
    return framewise_displacement(table[_MOTION].to_numpy(float))
