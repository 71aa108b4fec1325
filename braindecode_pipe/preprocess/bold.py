"""fMRI to signal stores: volumes through a mask, or parcels that are already extracted.

Memory holds a slab of volumes, or a block of voxels, never the series.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import DataError, UnitError
from braindecode_pipe.preprocess import volumes
from braindecode_pipe.preprocess.cleaning import Measured, process
from braindecode_pipe.preprocess.confounds import (
    confounds_file,
    motion_displacement,
    read_confounds,
    regressors,
    steady_volumes,
)
from braindecode_pipe.preprocess.masks import find_mask, mask_file
from braindecode_pipe.preprocess.parcels import atlases, parcel_positions, read_timeseries
from braindecode_pipe.preprocess.scratch import Scratch, write_along
from braindecode_pipe.preprocess.sensors import voxel_name
from braindecode_pipe.preprocess.sidecars import entities, merged_json
from braindecode_pipe.recipe import BoldSection
from braindecode_pipe.schema import SCHEMA_VERSION, sensor_coords, signal_dataset
from braindecode_pipe.store import StoreWriter, safe_join

_T_R_RANGE = (0.1, 20.0)
_TIME_UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def run_volumes(
    section: BoldSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
    events: pd.DataFrame | None = None,
    fit_extents: tuple[tuple[float, float], ...] | None = None,
) -> None:
    """Write the signal store of one series of volumes; a sensor is a voxel of the mask.

    Voxels are named by their grid indices (``012-003-000``), so that the voxels of several runs
    can be matched where their masks differ. Voxels that are constant or not finite are stored as
    zeros and marked in ``sensor_good``.

    Parameters
    ----------
    section : BoldSection
    recording : dict
        Row of ``StudyPlan.recordings``.
    data, out : Path
        Root of the data set; path of the store.
    allow_truncated : bool
        Use the whole volumes of a file that is cut.
    data_origin : str
        ``recorded``, ``simulated`` or ``mixed``.
    events : DataFrame, optional
        The recording's rows of ``StudyPlan.events``.
    fit_extents : (start, stop) [s] pairs, optional
        What fits may see; None: all of the recording.

    Raises
    ------
    MissingFileError : no image, or no mask where one is named
    TruncatedRecordingError : fewer volumes than declared
    UnitError : a repetition time that must be in milliseconds
    DataError : damaged stream; repetition time absent or contradictory; mask on another grid;
        confounds that do not fit
    """
    path = safe_join(data, recording["path"])
    steps: list[str] = []
    notes: list[str] = []
    image = volumes.open_series(path)
    t_r = repetition_time(image, merged_json(path, data, "bold"), section.t_r, path)
    summary = volumes.scan(image, path, section.dummy_scans, allow_truncated)
    if summary.note:
        steps.append(summary.note)
        notes.append(summary.note)
    mask = find_mask(section, recording, data, path, image, summary, steps)
    good = summary.varying[mask]
    if not good.all():
        notes.append(f"{int((~good).sum())} of {len(good)} voxels are constant or not finite")
    confounds = read_confounds(path, image.shape[3], summary.n_times)
    chosen = regressors(confounds, section, path)
    n_times = summary.n_times - section.dummy_scans
    with Scratch(out, (n_times, len(good)), np.float32) as series:
        _extract(section, image, path, mask, good, series, steps)
        measured = process(series, good, section, chosen, t_r, steps)
        time_good = steady_volumes(confounds, summary.n_times, steps)[section.dummy_scans :]
        ijk = np.argwhere(mask)
        affine = np.asarray(image.affine, float)
        position = (ijk @ affine[:3, :3].T + affine[:3, 3]) / 1000
        coords = sensor_coords(voxel_name(ijk), "voxel", "a.u.", position, good=good,
                               ijk=ijk.astype(np.int64))  # fmt: skip
        attrs = {
            **_attrs(recording, data_origin, steps, t_r, section.dummy_scans * t_r),
            "position_frame": entities(path.name).get("space", "scanner"),
            "affine": affine.tolist(),
            "grid_shape": [int(n) for n in image.shape[:3]],
        }
        qc = _qc(measured, coords, attrs, notes)
        qc.attrs["mask_coverage"] = float(mask.mean())
        displacement = motion_displacement(confounds)
        if displacement is not None:
            qc["framewise_displacement"] = ("time", displacement[section.dummy_scans :])
        _write(out, series, coords, attrs, qc, time_good)


def run_parcels(
    section: BoldSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
    events: pd.DataFrame | None = None,
    fit_extents: tuple[tuple[float, float], ...] | None = None,
) -> None:
    """Write the signal store of a table of parcel time series (one row per volume, TSV).

    Positions are the centroids of the labels of ``atlas-<name>_dseg.nii.gz`` at the root of the
    data set, when it has as many labels as the table has columns, in the order of the labels.
    Parameters and errors: see :func:`run_volumes`.
    """
    path = safe_join(data, recording["path"])
    steps: list[str] = []
    notes: list[str] = []
    table = read_timeseries(path)
    sidecar = merged_json(path, data, "timeseries")
    if "RepetitionTime" not in sidecar and sidecar.get("SamplingFrequency"):
        sidecar["RepetitionTime"] = 1.0 / float(sidecar["SamplingFrequency"])
    t_r = repetition_time(None, sidecar, section.t_r, path)
    raw = table.to_numpy(np.float32)[section.dummy_scans :]
    if len(raw) < 2:
        raise DataError(
            "the series is too short", file=path,
            expected=f"at least {section.dummy_scans + 2} rows", found=str(len(table)),
        )  # fmt: skip
    if section.dummy_scans:
        steps.append(f"dropped {section.dummy_scans} dummy scans")
    good = raw.max(axis=0) > raw.min(axis=0)
    if not good.all():
        notes.append(f"{int((~good).sum())} of {len(good)} parcels are constant")
    names = [str(name) for name in table.columns]
    position = parcel_positions(path, data, len(names), notes)
    coords = sensor_coords(names, "parcel", "a.u.", position, good=good)
    with Scratch(out, raw.shape, np.float32) as series:
        series.write(0, 0, raw)
        measured = process(series, good, section, None, t_r, steps)
        attrs = {
            **_attrs(recording, data_origin, steps, t_r, section.dummy_scans * t_r),
            "position_frame": entities(path.name).get("space", "unknown"),
        }
        _write(out, series, coords, attrs, _qc(measured, coords, attrs, notes))


def side_files(
    section: BoldSection, recording: dict[str, Any], path: Path, data: Path
) -> list[Path]:
    """Mask and atlas files that a recording depends on, whether they are there or not."""
    if recording["datatype"] == "parcels":
        return atlases(path, data)
    found = mask_file(section, recording, data, path)
    table = confounds_file(path)
    return [file for file in (found, table) if file is not None]


def repetition_time(image: Any, sidecar: dict[str, Any], given: float | None, path: Path) -> float:
    """Repetition time [s] from the header and the sidecar, which must agree to 1 %.

    Parameters
    ----------
    image : nibabel image, or None for a table; a header counts when it names its unit of time
    sidecar : dict with ``RepetitionTime`` [s], perhaps
    given : float [s], of the recipe, for recordings that have neither
    path : Path, for the messages

    Raises
    ------
    UnitError : outside 0.1 to 20 s
    DataError : absent or 0 everywhere; contradictory
    """
    found: dict[str, float] = {}
    if image is not None:
        unit = _TIME_UNITS.get(image.header.get_xyzt_units()[1])
        if unit is not None:
            found["header"] = float(image.header.get_zooms()[3]) * unit
    value = sidecar.get("RepetitionTime")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found["sidecar"] = float(value)
    if given is not None:
        found["recipe"] = given
    found = {source: t_r for source, t_r in found.items() if np.isfinite(t_r) and t_r > 0}
    if not found:
        raise DataError(
            "no repetition time",
            file=path,
            expected="a time above 0 in the image's header or RepetitionTime in the JSON sidecar",
            found=f"sidecar: {value!r}" + ("" if image is None else
                  f", header: {image.header.get_zooms()[3]:g} "
                  f"{image.header.get_xyzt_units()[1]}"),
            remedy="set preprocess.bold.t_r [s]",
        )  # fmt: skip
    low, high = _T_R_RANGE
    for source, t_r in found.items():
        if not low <= t_r <= high:
            guess = " (fits after multiplication by 1e-3)" if low <= t_r / 1000 <= high else ""
            raise UnitError(
                f"the repetition time in the {source} cannot be in seconds",
                file=path,
                expected=f"{low:g} to {high:g} s",
                found=f"{t_r:g}{guess}",
                remedy="correct it there",
            )
    t_r = found.get("sidecar", next(iter(found.values())))
    if any(abs(other - t_r) > 0.01 * t_r for other in found.values()):
        raise DataError(
            "repetition times disagree",
            file=path,
            expected="the same time everywhere, to 1 %",
            found=", ".join(f"{source} {value:g} s" for source, value in found.items()),
            remedy="correct the sidecar, or the header",
        )
    return t_r


def _extract(
    section: BoldSection,
    image: Any,
    path: Path,
    mask: np.ndarray,
    good: np.ndarray,
    series: Scratch,
    steps: list[str],
) -> None:
    """Second pass: the voxels of the mask to ``series`` (time, voxel), without dummy scans."""
    import nibabel
    from nilearn.image import smooth_img

    for start, slab in volumes.slabs(image, path, complain=False):
        if section.smoothing_fwhm is not None:
            smoothed = smooth_img(nibabel.Nifti1Image(slab, image.affine), section.smoothing_fwhm)
            slab = np.asarray(smoothed.dataobj)
        values = slab[mask].T[max(0, section.dummy_scans - start) :]
        series.write(max(0, start - section.dummy_scans), 0, np.where(good, values, 0.0))
    if section.smoothing_fwhm is not None:
        steps.append(f"smoothed with {section.smoothing_fwhm:g} mm (full width at half maximum)")
    if section.dummy_scans:
        steps.append(f"dropped {section.dummy_scans} dummy scans")


def _attrs(
    recording: dict[str, Any], data_origin: str, steps: list[str], t_r: float, first_time: float
) -> dict[str, Any]:
    names = ("recording", "subject", "session", "task", "run", "datatype", "content_hash")
    return {
        **{name: str(recording[name]) for name in names},
        "data_origin": data_origin,
        "steps": steps,
        "sfreq": 1.0 / t_r,
        "t_r": t_r,
        "first_time": first_time,
    }


def _qc(
    measured: Measured, coords: dict[str, Any], attrs: dict[str, Any], notes: list[str]
) -> xr.Dataset:
    """tSNR, mean, carpet (z-scored, evenly chosen sensors) and global signal before cleaning."""
    names = coords["sensor"][1]
    n_times = len(measured.global_signal)
    return xr.Dataset(
        {
            "tsnr": ("sensor", measured.tsnr.astype(np.float32)),
            "mean": ("sensor", measured.mean.astype(np.float32)),
            "carpet": (("sensor_subset", "time"), measured.carpet),
            "global_signal": ("time", measured.global_signal),
        },
        coords={
            "sensor": ("sensor", names),
            "sensor_subset": ("sensor_subset", names[measured.chosen]),
            "time": ("time", attrs["first_time"] + attrs["t_r"] * np.arange(n_times)),
        },
        attrs={
            "schema_version": SCHEMA_VERSION,
            "kind": "qc",
            "steps": attrs["steps"],
            "warnings": notes,
            "n_bad": int((~coords["sensor_good"][1]).sum()),
        },
    )


def _write(
    out: Path,
    series: Scratch,
    coords: dict[str, Any],
    attrs: dict[str, Any],
    qc: xr.Dataset,
    time_good: np.ndarray | None = None,
) -> None:
    """Write ``series`` (time, sensor) as the signal (sensor, time) of a store, chunk by chunk."""
    n_times, n_sensors = series.shape
    dataset = signal_dataset(
        np.broadcast_to(np.float32(0), (n_sensors, n_times)), coords,
        attrs["first_time"] + attrs["t_r"] * np.arange(n_times), attrs, time_good,
    )  # fmt: skip
    with StoreWriter(out, {"": dataset, "qc": qc}) as writer:
        write_along(writer, "signal", "time", n_times, lambda part: series.read(part).T)
