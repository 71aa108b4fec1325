"""Series of fMRI among the files of a data set: volumes, and the surfaces that fMRIPrep writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import DataError

VOLUMES = (".nii.gz", ".nii")
GIFTI, CIFTI = ".func.gii", ".dtseries.nii"


def is_surface(name: str) -> bool:
    """Whether a file is a series of a surface, or its right half."""
    return name.endswith((GIFTI, CIFTI))


def run_of(name: str) -> str:
    """What the files of one run have in common in their names."""
    return re.split("_hemi-|_space-|_res-|_den-|_desc-|_bold", name)[0]


def recordings_among(names: list[str], in_derivatives: bool) -> set[str]:
    """Files of a folder ``func`` that stand for a recording of their own.

    In derivatives, volumes are those that are preprocessed. Both hemispheres of a surface are one
    recording, named by the left one; surfaces count where their run has no volumes, since fMRIPrep
    writes one run in several forms. The pattern of ``plan.files`` can name any of them.
    """
    volumes = {
        name
        for name in names
        if name.endswith(tuple(f"_bold{extension}" for extension in VOLUMES))
        and not is_surface(name)
        and (not in_derivatives or "desc-preproc" in name)
    }
    runs = {run_of(name) for name in volumes}
    surfaces = {
        name
        for name in names
        if name.endswith(f"_bold{CIFTI}") or (name.endswith(f"_bold{GIFTI}") and "_hemi-L_" in name)
    }
    return volumes | {name for name in surfaces if run_of(name) not in runs}


def parts(path: Path) -> list[Path]:
    """The files that make up a series: the other hemisphere comes second."""
    if path.name.endswith(GIFTI) and "_hemi-L_" in path.name:
        other = path.with_name(path.name.replace("_hemi-L_", "_hemi-R_"))
        return [path, *([other] if other.is_file() else [])]
    return [path]


def image_header(path: Path) -> tuple[int, int, float]:
    """Number of sensors, number of volumes and repetition time [s], 0 where it is not stated.

    Raises
    ------
    DataError : hemispheres of different lengths
    """
    import nibabel

    if path.name.endswith(GIFTI):
        arrays = [nibabel.load(part).darrays for part in parts(path)]
        shapes = [(len(own), own[0].dims[0]) if own[0].data.ndim == 1 else own[0].dims[::-1]
                  for own in arrays]  # fmt: skip
        if len({n for n, _ in shapes}) != 1:
            raise DataError(
                "the hemispheres differ in length", file=path, expected="equally many volumes",
                found=" and ".join(str(n) for n, _ in shapes),
            )  # fmt: skip
        return int(sum(n for _, n in shapes)), int(shapes[0][0]), 0.0
    image = nibabel.load(path)
    if path.name.endswith(CIFTI):
        axis = image.header.get_axis(0)
        step = float(axis.step) if str(axis.unit).upper() == "SECOND" else 0.0
        return int(image.shape[1]), int(image.shape[0]), step
    is_series = image.ndim == 4
    t_r = float(image.header.get_zooms()[3]) if is_series else 0.0
    return int(np.prod(image.shape[:3])), int(image.shape[3]) if is_series else 1, t_r
