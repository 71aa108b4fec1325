"""Which voxels of a series are brain, and images that must lie on its grid."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.preprocess.volumes import Volumes, read_to_end, summarise
from braindecode_pipe.recipe import BoldSection
from braindecode_pipe.store import safe_join

_AFFINE_TOLERANCE_MM = 1e-3
_MASK_FRACTION = 0.1


def named_file(name: str, recording: dict[str, Any], data: Path) -> Path:
    """A path of the recipe below the data folder; ``{subject}`` and the like are filled in."""
    for entity in ("subject", "session", "task", "run"):
        name = name.replace(f"{{{entity}}}", str(recording[entity]))
    return safe_join(data, name)


def mask_file(
    section: BoldSection, recording: dict[str, Any], data: Path, path: Path
) -> Path | None:
    """The mask image that a recording names or has beside it; None when it is to be computed."""
    if section.mask:
        return named_file(section.mask, recording, data)
    beside = path.with_name(path.name.replace("desc-preproc_bold", "desc-brain_mask"))
    return beside if beside != path and beside.is_file() else None


def find_mask(
    section: BoldSection,
    recording: dict[str, Any],
    data: Path,
    volumes: Volumes,
    steps: list[str],
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """The named mask, fMRIPrep's beside the image, or one computed from the mean image.

    Only the last of these reads the series.

    Parameters
    ----------
    counts : (n_times,) bool, optional
        Volumes that a computed mask may be from.

    Returns
    -------
    (x, y, z) bool

    Raises
    ------
    MissingFileError : a named mask that is not there
    DataError : another grid than the recording's (1e-3 mm), or no voxel in it
    """
    path = volumes.path
    file = mask_file(section, recording, data, path)
    if file is None:
        summary = summarise(volumes, counts)
        mask = compute_mask(summary.mean, summary.varying)
        source = f"computed, mean above {_MASK_FRACTION:.0%} of its robust range"
    else:
        mask = read_mask(file, volumes.image, section.resample, steps)
        source = relative_name(file, data)
    if not mask.any():
        raise DataError(
            "the mask is empty", file=file or path, expected="voxels", found="none",
            remedy="set preprocess.bold.mask",
        )  # fmt: skip
    steps.append(f"{int(mask.sum())} of {mask.size} voxels: {source}")
    return mask


def read_mask(file: Path, image: Any, resample: bool, steps: list[str]) -> np.ndarray:
    """(x, y, z) bool of a mask image on the grid of ``image``; see :func:`on_grid`."""
    mask = on_grid(file, "mask", image, resample, steps)
    if len(mask.shape) != 3:
        raise DataError(
            "the mask is not one volume", file=file, expected="three dimensions",
            found=f"shape {mask.shape}",
        )  # fmt: skip
    values = np.asarray(mask.dataobj, float)
    return np.isfinite(values) & (values != 0)


def relative_name(file: Path, data: Path) -> str:
    """A file's path below the data folder, or its name."""
    return file.relative_to(data).as_posix() if file.is_relative_to(data) else file.name


def compute_mask(mean: np.ndarray, varying: np.ndarray) -> np.ndarray:
    """Voxels that vary and whose mean exceeds ``p2 + 0.1 (p98 - p2)`` of the mean image.

    FSL FEAT's brain/background threshold. Nothing is eroded and nothing is opened, so that it
    also holds for single slices and coarse grids, and a voxel too many does no harm.

    Parameters
    ----------
    mean : (x, y, z), NaN where a sample is not finite
    varying : (x, y, z) bool

    Returns
    -------
    (x, y, z) bool
    """
    low, high = np.nanpercentile(mean, [2, 98]) if np.isfinite(mean).any() else (0.0, 0.0)
    with np.errstate(invalid="ignore"):
        mask = varying & (mean > low + _MASK_FRACTION * (high - low))
    # Data that were centred already have no mean to go by.
    return mask if mask.any() else varying


def on_grid(
    file: Path, what: str, image: Any, resample: bool, steps: list[str], *, smooth: bool = False
) -> Any:
    """An image of the recipe on the grid of a recording (first three dimensions).

    Parameters
    ----------
    file : Path
    what : str
        "mask" or "atlas", for the messages.
    image : nibabel image of the recording
    resample : bool
        Bring another grid to the recording's, by ``nilearn.image.resample_to_img``: nearest
        neighbour, or continuous interpolation with ``smooth``.
    steps : list of str
        A resampling is added.

    Raises
    ------
    MissingFileError : no file
    DataError : a file that cannot be read; without ``resample`` another shape, an affine that
        differs by more than 1e-3 (mm), left and right exchanged
    """
    import nibabel

    if not file.is_file():
        raise MissingFileError(
            f"the {what} is not there", file=file, expected="an image",
            remedy=f"correct preprocess.bold.{what} (a path below the data folder)",
        )  # fmt: skip
    for _ in read_to_end(file):
        pass
    try:
        found = nibabel.load(file)
        affine, shape = np.asarray(found.affine, float), tuple(found.shape)
    except Exception as error:  # nibabel has no common error
        raise DataError(
            f"the {what} cannot be read",
            file=file,
            expected="a NIfTI image",
            found=f"{type(error).__name__}: {error}",
        ) from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if shape != tuple(found.shape):
        values = np.asarray(found.dataobj).reshape(shape)
        found = nibabel.Nifti1Image(values, affine, dtype=values.dtype)
    difference = float(np.abs(affine - image.affine).max())
    if shape[:3] == image.shape[:3] and difference <= _AFFINE_TOLERANCE_MM:
        return found
    if resample:
        return _resampled(found, what, image, steps, smooth)
    flipped = np.sign(np.linalg.det(affine)) != np.sign(np.linalg.det(image.affine))
    name = image.get_filename()
    raise DataError(
        f"the {what} is not on the grid of the recording",
        file=file,
        expected=f"shape {image.shape[:3]}, affine {np.round(image.affine, 4).tolist()}"
        + (f" of {Path(name).name}" if name else ""),
        found=f"shape {shape}, affine {np.round(affine, 4).tolist()}"
        + (" (left and right are exchanged)" if flipped else ""),
        remedy="set preprocess.bold.resample = true, or give one on this grid; "
        "nothing is resampled silently",
    )


def _resampled(found: Any, what: str, image: Any, steps: list[str], smooth: bool) -> Any:
    import nibabel
    from nilearn.image import resample_to_img

    values = np.asarray(found.dataobj)
    # Labels may be stored as floats; nearest neighbours of floats stay what they are.
    source = nibabel.Nifti1Image(values.astype(np.float32 if smooth else np.float64), found.affine)
    target = nibabel.Nifti1Image(np.zeros(image.shape[:3], np.uint8), image.affine)
    kind = "continuous" if smooth else "nearest"
    with warnings.catch_warnings():
        # Maps may hold zeros and ones; they are weights all the same.
        warnings.filterwarnings("ignore", message="Resampling binary images")
        result = resample_to_img(
            source, target, interpolation=kind, force_resample=True, copy_header=True
        )
    steps.append(
        f"{what} resampled to the grid of the recording ({kind}, nilearn.image.resample_to_img)"
    )
    return result
