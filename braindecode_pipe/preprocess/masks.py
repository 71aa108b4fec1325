"""Which voxels of a series are brain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.preprocess.volumes import Summary, read_to_end
from braindecode_pipe.recipe import BoldSection
from braindecode_pipe.store import safe_join

_AFFINE_TOLERANCE_MM = 1e-3
_MASK_FRACTION = 0.1


def mask_file(
    section: BoldSection, recording: dict[str, Any], data: Path, path: Path
) -> Path | None:
    """The mask image that a recording names or has beside it; None when it is to be computed."""
    if section.mask:
        relative = section.mask
        for name in ("subject", "session", "task", "run"):
            relative = relative.replace(f"{{{name}}}", str(recording[name]))
        return safe_join(data, relative)
    beside = path.with_name(path.name.replace("desc-preproc_bold", "desc-brain_mask"))
    return beside if beside != path and beside.is_file() else None


def find_mask(
    section: BoldSection,
    recording: dict[str, Any],
    data: Path,
    path: Path,
    image: Any,
    summary: Summary,
    steps: list[str],
) -> np.ndarray:
    """The named mask, fMRIPrep's beside the image, or one computed from the mean image.

    Returns
    -------
    (x, y, z) bool

    Raises
    ------
    MissingFileError : a named mask that is not there
    DataError : another grid than the recording's (1e-3 mm), or no voxel in it
    """
    import nibabel

    file = mask_file(section, recording, data, path)
    if file is None:
        mask = compute_mask(summary.mean, summary.varying)
        source = f"computed, mean above {_MASK_FRACTION:.0%} of its robust range"
    else:
        if not file.is_file():
            raise MissingFileError(
                "the mask is not there", file=file, expected="an image",
                remedy="correct preprocess.bold.mask (a path below the data folder)",
            )  # fmt: skip
        for _ in read_to_end(file):
            pass
        mask_image = nibabel.load(file)
        shape = mask_image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        _same_grid(mask_image.affine, shape, image, file)
        values = np.asarray(mask_image.dataobj, float).reshape(shape)
        mask = np.isfinite(values) & (values != 0)
        source = file.relative_to(data).as_posix() if file.is_relative_to(data) else file.name
    if not mask.any():
        raise DataError(
            "the mask is empty", file=file or path, expected="voxels", found="none",
            remedy="set preprocess.bold.mask",
        )  # fmt: skip
    steps.append(f"{int(mask.sum())} of {mask.size} voxels: {source}")
    return mask


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


def _same_grid(affine: np.ndarray, shape: tuple[int, ...], image: Any, file: Path) -> None:
    difference = float(np.abs(np.asarray(affine) - image.affine).max())
    if tuple(shape) == image.shape[:3] and difference <= _AFFINE_TOLERANCE_MM:
        return
    flipped = np.sign(affine[0, 0]) != np.sign(image.affine[0, 0])
    raise DataError(
        "the mask is not on the grid of the recording",
        file=file,
        expected=f"shape {image.shape[:3]}, affine {np.round(image.affine, 4).tolist()}",
        found=f"shape {tuple(shape)}, affine {np.round(affine, 4).tolist()}"
        + (" (left and right are exchanged)" if flipped else ""),
        remedy="resample the mask to the recording; nothing is resampled silently",
    )
