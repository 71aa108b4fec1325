"""fMRIPrep's confounds table: regressors, scrubbed volumes, motion."""

from __future__ import annotations

import difflib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, MissingFileError, RecipeError
from braindecode_pipe.preprocess.quality import framewise_displacement
from braindecode_pipe.recipe import BoldSection

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
_ENDINGS = ("desc-confounds_timeseries.tsv", "desc-confounds_regressors.tsv")
# Entities that an image has beyond those of its run.
_IMAGE = r"_hemi-|_space-|_res-|_den-|_desc-|_bold"


@dataclass(frozen=True)
class Confounds:
    """What fMRIPrep says about the volumes of a recording, dummy scans left out.

    Attributes
    ----------
    values : (n_times, n_confounds) regressors that the recipe asks for, or None
    names : of these
    time_good : (n_times,) bool, False where volumes are scrubbed or before the steady state
    motion : (n_times, 6) [mm, rad], or None
    displacement : (n_times,) framewise displacement [mm], NaN for the first volume, or None
    """

    values: np.ndarray | None
    names: list[str]
    time_good: np.ndarray
    motion: np.ndarray | None
    displacement: np.ndarray | None

    @classmethod
    def none(cls, n_times: int) -> Confounds:
        """Those of a recording without a table."""
        return cls(None, [], np.ones(n_times, bool), None, None)

    def cut(self, n_times: int) -> Confounds:
        """Those of the first volumes, for a recording that is cut."""
        parts = (None if part is None else part[:n_times]
                 for part in (self.values, self.motion, self.displacement))  # fmt: skip
        values, motion, displacement = parts
        return Confounds(values, self.names, self.time_good[:n_times], motion, displacement)

    def describe(self) -> list[str]:
        """A line for the steps where volumes are not good."""
        if self.time_good.all():
            return []
        n_bad = int((~self.time_good).sum())
        return [
            f"{n_bad} of {len(self.time_good)} volumes are not good: scrubbed, or before the "
            "steady state; they keep their place in time"
        ]


def confounds_file(path: Path) -> Path | None:
    """The confounds table beside an image, None when there is none."""
    run = re.split(_IMAGE, path.name)[0]
    for ending in _ENDINGS:
        if (file := path.with_name(f"{run}_{ending}")).is_file():
            return file
    return None


def confounds_files(path: Path) -> list[Path]:
    """The confounds table and its JSON sidecar, where they are."""
    table = confounds_file(path)
    return [] if table is None else [table, table.with_suffix(".json")]


def find_confounds(section: BoldSection, path: Path, declared: int) -> Confounds:
    """The confounds of an image with ``declared`` volumes, without those of its dummy scans.

    Volumes stay where they are: sample ``i`` of a store is volume ``i + dummy_scans`` of the
    image, whatever is scrubbed, so that events keep their place. The ``sample_mask`` of
    ``nilearn.interfaces.fmriprep.load_confounds`` is
    ``np.flatnonzero(time_good) + dummy_scans``.

    Raises
    ------
    MissingFileError : confounds asked for, no table
    DataError : another number of rows than volumes; a column that is not there, or not finite
        after its first row; a strategy that the table cannot serve
    RecipeError : options that load_confounds does not have
    """
    kept = slice(section.dummy_scans, declared)
    table = _read_table(path, declared)
    if table is None:
        if section.confounds or section.confounds_strategy:
            raise MissingFileError(
                "the confounds table is not there",
                file=path.parent,
                expected=f"*_{_ENDINGS[0]} beside the image",
                found="nothing",
                remedy="leave preprocess.bold.confounds empty, or read fMRIPrep's output: "
                'plan.derivatives = "fmriprep"',
            )
        return Confounds.none(max(0, declared - section.dummy_scans))
    good = _steady(table)
    chosen = [_columns(table, section.confounds, path)]
    if section.confounds_strategy:
        frame, sample_mask = _by_strategy(section, path)
        chosen.append(frame)
        kept_by_strategy = np.zeros(declared, bool)
        kept_by_strategy[np.arange(declared) if sample_mask is None else sample_mask] = True
        good &= kept_by_strategy
    both = pd.concat(chosen, axis=1)
    both = both.loc[:, ~both.columns.duplicated()]
    good = good[kept]
    if len(good) and not good.any():
        raise DataError(
            "every volume is scrubbed", file=confounds_file(path), expected="good volumes",
            found=f"0 of {len(good)}", remedy="raise fd_threshold in preprocess.bold."
            "confounds_options, or exclude the recording",
        )  # fmt: skip
    motion = table[list(MOTION)].to_numpy(float) if set(MOTION) <= set(table.columns) else None
    displacement = None
    if "framewise_displacement" in table:
        displacement = table["framewise_displacement"].to_numpy(float)[kept]
    elif motion is not None:
        displacement = framewise_displacement(motion)[kept]
    return Confounds(
        both.to_numpy(float)[kept] if both.shape[1] else None,
        [str(name) for name in both.columns],
        good,
        None if motion is None else motion[kept],
        displacement,
    )


def _read_table(path: Path, declared: int) -> pd.DataFrame | None:
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
    return table


def _columns(table: pd.DataFrame, names: list[str], path: Path) -> pd.DataFrame:
    """Columns by name. A derivative has no value in the first row; it takes that of the second."""
    for name in names:
        if name not in table:
            near = difflib.get_close_matches(name, list(table.columns), n=3)
            raise DataError(
                "a confound is not in the table",
                file=confounds_file(path),
                expected=name,
                found=", ".join(near or list(table.columns)[:8]),
                remedy="correct preprocess.bold.confounds",
            )
    chosen = table[names].apply(pd.to_numeric, errors="coerce").astype(float)
    if len(chosen) > 1:
        chosen.iloc[0] = chosen.iloc[0].where(np.isfinite(chosen.iloc[0]), chosen.iloc[1])
    _refuse_gaps(chosen, path)
    return chosen


def _refuse_gaps(chosen: pd.DataFrame, path: Path) -> None:
    wrong = [str(name) for name in chosen if not np.isfinite(chosen[name].to_numpy(float)).all()]
    if wrong:
        raise DataError(
            "confounds are not finite",
            file=confounds_file(path),
            expected="numbers in every row but the first",
            found=", ".join(wrong),
        )


def _steady(table: pd.DataFrame) -> np.ndarray:
    """(n_rows,) bool: False where fMRIPrep found a volume before the steady state."""
    good = np.ones(len(table), bool)
    for name in table.columns:
        if str(name).startswith("non_steady_state_outlier"):
            good &= ~(table[name].to_numpy(float) > 0)
    return good


def _by_strategy(section: BoldSection, path: Path) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Nilearn's choice of regressors and the volumes that it keeps."""
    from nilearn.interfaces.fmriprep import load_confounds

    name = path.name
    if name.endswith(".nii") and not name.endswith(".dtseries.nii"):
        # Nilearn goes by names only, and knows no uncompressed volumes.
        name += ".gz"
    images: str | list[str] = str(path.with_name(name))
    if "_hemi-L_" in name:
        images = [images, str(path.with_name(name.replace("_hemi-L_", "_hemi-R_")))]
    try:
        with warnings.catch_warnings():
            # What it warns of is checked here: nothing left, a strategy named without need.
            warnings.simplefilter("ignore")
            frame, sample_mask = load_confounds(
                images, strategy=tuple(section.confounds_strategy), demean=False,
                **section.confounds_options,
            )  # fmt: skip
    except TypeError as error:
        raise RecipeError(
            "an option of preprocess.bold.confounds_options that Nilearn does not have",
            expected="arguments of nilearn.interfaces.fmriprep.load_confounds",
            found=str(error),
        ) from error
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise DataError(
            "the strategy for confounds cannot be followed",
            file=confounds_file(path),
            expected=" + ".join(section.confounds_strategy),
            found=" ".join(str(error).split()),
            remedy="correct preprocess.bold.confounds_strategy or confounds_options",
        ) from error
    frame = frame[sorted(frame.columns)]
    _refuse_gaps(frame, path)
    return frame, sample_mask
