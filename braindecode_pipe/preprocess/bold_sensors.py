"""What the sensors of an fMRI recording are, by its recipe: voxels, parcels or vertices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.preprocess.labels import LabelSampler, MapSampler, read_atlas
from braindecode_pipe.preprocess.masks import find_mask, named_file, read_mask, relative_name
from braindecode_pipe.preprocess.regression import fitted_volumes
from braindecode_pipe.preprocess.sampling import Sampler, VoxelSampler
from braindecode_pipe.preprocess.sensors import voxel_name
from braindecode_pipe.preprocess.sidecars import entities
from braindecode_pipe.preprocess.surfaces import VertexSampler
from braindecode_pipe.preprocess.volumes import Volumes
from braindecode_pipe.recipe import BoldSection
from braindecode_pipe.schema import sensor_coords

Extents = tuple[tuple[float, float], ...]


@dataclass
class Job:
    """One recording on its way to a store."""

    section: BoldSection
    recording: dict[str, Any]
    path: Path
    data: Path
    out: Path
    data_origin: str
    events: pd.DataFrame | None
    fit_extents: Extents | None
    steps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def first_time(self, t_r: float) -> float:
        """Time [s] of the first volume that is kept."""
        return self.section.dummy_scans * t_r

    def seen(self, n_times: int, t_r: float) -> np.ndarray | None:
        """(n_times,) bool, volumes that a fit may see; None for all."""
        if self.fit_extents is None:
            return None
        good = np.ones(n_times, bool)
        return fitted_volumes(good, self.first_time(t_r), t_r, self.fit_extents)


def _nothing(qc: xr.Dataset) -> None:
    """Nothing to add."""


@dataclass
class Sensors:
    """What the columns of a series are, beside the series itself.

    Attributes
    ----------
    coords : gives the sensor coordinates, from which sensors are good
    attrs : of the store
    sampler : from volumes to these sensors; None where the series comes as it is
    outside : (n_voxels,) bool, voxels that belong to no sensor
    groups : further groups of the store
    finish : adds to the group ``qc`` what is known after the pass
    """

    coords: Callable[[np.ndarray], dict[str, Any]]
    attrs: dict[str, Any]
    sampler: Sampler | None = None
    outside: np.ndarray | None = None
    groups: dict[str, xr.Dataset] = field(default_factory=dict)
    finish: Callable[[xr.Dataset], None] = _nothing


def choose_sensors(job: Job, volumes: Volumes, counts: np.ndarray | None) -> Sensors:
    """The sensors that the recipe wants volumes to become."""
    section, image = job.section, volumes.image
    space = entities(job.path.name).get("space", "")
    frame = {"position_frame": space or "scanner"}
    if section.sensors == "voxels":
        mask = find_mask(section, job.recording, job.data, volumes, job.steps, counts)
        ijk = np.argwhere(mask)
        affine = np.asarray(image.affine, float)
        place = (ijk @ affine[:3, :3].T + affine[:3, 3]) / 1000

        def coords(good: np.ndarray) -> dict[str, Any]:
            return sensor_coords(voxel_name(ijk), "voxel", "a.u.", place, good=good,
                                 ijk=ijk.astype(np.int64))  # fmt: skip

        grid = {"affine": affine.tolist(), "grid_shape": [int(n) for n in image.shape[:3]]}

        def finish(qc: xr.Dataset) -> None:
            qc.attrs["mask_coverage"] = float(mask.mean())

        return Sensors(coords, {**frame, **grid}, VoxelSampler(mask), finish=finish)
    outside = None
    if section.mask:
        file = named_file(section.mask, job.recording, job.data)
        mask = read_mask(file, image, section.resample, job.steps)
        outside = ~mask.reshape(-1, order="F")
        job.steps.append(f"{int(mask.sum())} of {mask.size} voxels: "
                         f"{relative_name(file, job.data)}")  # fmt: skip
    if section.sensors == "vertices":
        mesh = VertexSampler(volumes, space, section.surface)
        job.steps.append(
            f"projected to {section.surface}: mean of trilinear interpolations between the pial "
            f"and the white surface, from {space} space"
        )
        return Sensors(mesh.coords, {**frame, "surface": section.surface}, mesh, outside)
    return _parcels(job, image, frame, outside)


def _parcels(job: Job, image: Any, frame: dict[str, Any], outside: np.ndarray | None) -> Sensors:
    """Parcels of the atlas of the recipe; those without a voxel stay, as sensors not good."""
    section = job.section
    if not section.atlas:
        raise RecipeError(
            "parcels without an atlas", expected="preprocess.bold.atlas",
            found='sensors = "parcels" and no atlas',
            remedy="name a label image (3-D) or maps (4-D) below the data folder",
        )  # fmt: skip
    file = named_file(section.atlas, job.recording, job.data)
    values, parcels = read_atlas(file, image, section.resample, job.steps)
    is_labels = values.ndim == 3
    sampler = LabelSampler(values, parcels.numbers) if is_labels else MapSampler(values)
    name = relative_name(file, job.data)
    job.steps.append(
        f"{len(parcels.names)} parcels: "
        + ("means over the labels of " if is_labels else "least squares with the maps of ")
        + name
    )

    def coords(good: np.ndarray) -> dict[str, Any]:
        return sensor_coords(parcels.names, "parcel", "a.u.", parcels.position, good=good,
                             label=parcels.numbers.astype(np.int64))  # fmt: skip

    def finish(qc: xr.Dataset) -> None:
        coverage = sampler.coverage()
        lost = [n for n, share in zip(parcels.names, coverage) if share == 0]
        qc["coverage"] = ("sensor", coverage.astype(np.float32))
        qc.attrs["lost_labels"] = lost
        if lost:
            shown = ", ".join(lost[:10]) + (f" and {len(lost) - 10} more" if lost[10:] else "")
            qc.attrs["warnings"] = [
                *qc.attrs["warnings"],
                f"{len(lost)} of {len(parcels.names)} parcels have no voxel with signal: {shown}",
            ]

    groups = {}
    if is_labels:
        grid = {"affine": np.asarray(image.affine, float).tolist(), "file": name}
        groups["atlas"] = xr.Dataset({"labels": (("i", "j", "k"), values)}, attrs=grid)
    return Sensors(coords, {**frame, "atlas": name}, sampler, outside, groups, finish)
