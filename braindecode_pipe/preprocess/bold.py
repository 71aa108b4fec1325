"""fMRI to stores: volumes through a mask, an atlas or a mesh; surfaces; tables of parcels.

Memory holds a slab of volumes, or a block of sensors, never the series.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import DataError, RecipeError
from braindecode_pipe.preprocess.bold_sensors import Extents, Job, Sensors, choose_sensors
from braindecode_pipe.preprocess.cleaning import Cleaner, Measured, process
from braindecode_pipe.preprocess.confounds import (
    MOTION,
    Confounds,
    confounds_files,
    find_confounds,
)
from braindecode_pipe.preprocess.labels import names_file
from braindecode_pipe.preprocess.masks import mask_file, named_file
from braindecode_pipe.preprocess.parcels import atlases, parcel_positions, read_timeseries
from braindecode_pipe.preprocess.records import seen_by_fits
from braindecode_pipe.preprocess.regression import fitted_volumes
from braindecode_pipe.preprocess.repetition import header_time, repetition_time
from braindecode_pipe.preprocess.sampling import extract
from braindecode_pipe.preprocess.scratch import Scratch, write_along
from braindecode_pipe.preprocess.sidecars import entities, merged_json
from braindecode_pipe.preprocess.surfaces import hemispheres, read_cifti, read_gifti
from braindecode_pipe.preprocess.volumes import Volumes
from braindecode_pipe.recipe import BoldSection
from braindecode_pipe.schema import (
    SCHEMA_VERSION,
    response_dataset,
    sensor_coords,
    signal_dataset,
)
from braindecode_pipe.store import StoreWriter, safe_join

_GIFTI, _CIFTI = ".func.gii", ".dtseries.nii"


def run_volumes(
    section: BoldSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
    events: pd.DataFrame | None = None,
    fit_extents: Extents | None = None,
) -> None:
    """Write the store of one series of volumes or of surfaces.

    A sensor is a voxel of the mask, named by its grid indices (``012-003-000``) so that the voxels
    of several runs can be matched where their masks differ; or a parcel of an atlas; or a vertex
    (``L-00012``). Sensors that are constant or not finite are stored as zeros and marked in
    ``sensor_good``.

    Sample ``i`` is volume ``i + dummy_scans`` of the image, at ``(i + dummy_scans) * t_r``
    seconds: volumes that are scrubbed are marked in ``time_good`` and left out of every fit, but
    they are not cut out, so that events and stimuli keep their place.

    Parameters
    ----------
    section : BoldSection
    recording : dict
        Row of ``StudyPlan.recordings``; ``path`` ends in .nii, .nii.gz, .func.gii (either
        hemisphere) or .dtseries.nii.
    data, out : Path
        Root of the data set; path of the store.
    allow_truncated : bool
        Use the whole volumes of a file that is cut.
    data_origin : str
        ``recorded``, ``simulated`` or ``mixed``.
    events : DataFrame, optional
        The recording's rows of ``StudyPlan.events``; needed where ``responses`` are betas.
    fit_extents : (start, stop) [s] pairs, optional
        What fits (a computed mask, trend, drift, confounds, z-scores) may see; None: all of the
        recording.

    Raises
    ------
    MissingFileError : no image, or no mask or atlas where one is named
    TruncatedRecordingError : fewer volumes than declared
    UnitError : a repetition time that must be in milliseconds
    DataError : damaged stream; repetition time absent or contradictory; mask or atlas on another
        grid; confounds that do not fit; volumes to vertices outside MNI space
    LeakageError : what the recipe asks for would teach the training part what is tested on
    RecipeError : parcels without an atlas
    """
    path = safe_join(data, recording["path"])
    job = Job(section, recording, path, data, out, data_origin, events, fit_extents)
    if path.name.endswith((_GIFTI, _CIFTI)):
        _run_surface(job)
        return
    with Volumes(path, out, section.dummy_scans, allow_truncated) as volumes:
        sidecar = merged_json(path, data, "bold")
        t_r = repetition_time(header_time(volumes.image), sidecar, section.t_r, path)
        confounds = find_confounds(section, path, volumes.declared)
        sensors = choose_sensors(job, volumes, job.seen(volumes.n_times, t_r))
        sampler = sensors.sampler
        if sampler is None:
            raise RecipeError("no way from volumes to sensors", found=section.sensors)
        shape = (volumes.n_times, sampler.n_sensors)
        with Scratch(out, shape, sampler.dtype) as series:
            n_left_out = extract(
                volumes, sampler, series, section.smoothing_fwhm, job.steps, sensors.outside
            )
            if n_left_out:
                job.notes.append(f"{n_left_out} voxels are not finite and left out")
            if volumes.note:
                job.steps.insert(0, volumes.note)
                job.notes.insert(0, volumes.note)
            _finish(job, series, sensors, confounds.cut(volumes.n_times), t_r)


def _run_surface(job: Job) -> None:
    """A GIfTI or CIFTI series: its sensors are what they are."""
    section, path = job.section, job.path
    read = read_gifti if path.name.endswith(_GIFTI) else read_cifti
    found = read(path, section.dummy_scans)
    header = None if found.t_r is None else (found.t_r, "sec")
    t_r = repetition_time(header, merged_json(path, job.data, "bold"), section.t_r, path)
    if found.n_times < 2:
        raise _too_short(job, found.declared, "volumes")
    if section.smoothing_fwhm is not None:
        job.notes.append("smoothing_fwhm is for volumes: surfaces are not smoothed")
    confounds = find_confounds(section, path, found.declared)
    with Scratch(job.out, (found.n_times, len(found.names)), np.float32) as series:
        found.copy_to(series)
        sensors = Sensors(found.coords, {"position_frame": found.frame})
        _finish(job, series, sensors, confounds, t_r)


def run_parcels(
    section: BoldSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
    events: pd.DataFrame | None = None,
    fit_extents: Extents | None = None,
) -> None:
    """Write the store of a table of parcel time series (one row per volume, TSV).

    Positions are the centroids of the labels of ``atlas-<name>_dseg.nii.gz`` at the root of the
    data set, when it has as many labels as the table has columns, in the order of the labels.
    Such a table has its confounds removed, or not, by whoever made it; none are removed here.
    Parameters and errors: see :func:`run_volumes`.
    """
    path = safe_join(data, recording["path"])
    job = Job(section, recording, path, data, out, data_origin, events, fit_extents)
    table = read_timeseries(path)
    sidecar = merged_json(path, data, "timeseries")
    if "RepetitionTime" not in sidecar and sidecar.get("SamplingFrequency"):
        sidecar["RepetitionTime"] = 1.0 / float(sidecar["SamplingFrequency"])
    t_r = repetition_time(None, sidecar, section.t_r, path)
    raw = table.to_numpy(float)[section.dummy_scans :]
    if len(raw) < 2:
        raise _too_short(job, len(table), "rows")
    if section.confounds or section.confounds_strategy:
        job.notes.append("confounds are for images: none are removed from a table of parcels")
    names = [str(name) for name in table.columns]
    position = parcel_positions(path, data, len(names), job.notes)

    def coords(good: np.ndarray) -> dict[str, Any]:
        return sensor_coords(names, "parcel", "a.u.", position, good=good)

    frame = entities(path.name).get("space", "unknown")
    with Scratch(out, raw.shape, np.float64) as series:
        series.write(0, 0, raw)
        sensors = Sensors(coords, {"position_frame": frame})
        _finish(job, series, sensors, Confounds.none(len(raw)), t_r)


def side_files(
    section: BoldSection, recording: dict[str, Any], path: Path, data: Path
) -> list[Path]:
    """Files that a recording depends on, whether they are there or not."""
    if recording["datatype"] == "parcels":
        return atlases(path, data)
    files = confounds_files(path)
    if path.name.endswith(_GIFTI):
        return [*files, *hemispheres(path, missing=True).values()]
    if path.name.endswith(_CIFTI):
        return files
    mask = mask_file(section, recording, data, path)
    if mask is not None and (section.sensors == "voxels" or section.mask):
        files.append(mask)
    if section.sensors == "parcels" and section.atlas:
        atlas = named_file(section.atlas, recording, data)
        files += [atlas, *filter(None, [names_file(atlas)])]
    return files


def _too_short(job: Job, n: int, what: str) -> DataError:
    skip = job.section.dummy_scans
    return DataError(
        "the series is too short", file=job.path,
        expected=f"at least {skip + 2} {what} ({skip} of them dummy scans)", found=str(n),
    )  # fmt: skip


def _finish(job: Job, series: Scratch, sensors: Sensors, confounds: Confounds, t_r: float) -> None:
    """Clean a series (time, sensor), measure its quality and write the store."""
    section, first_time = job.section, job.first_time(t_r)
    if section.dummy_scans:
        job.steps.append(f"dropped {section.dummy_scans} dummy scans")
    job.steps += confounds.describe()
    divided = job.fit_extents is not None
    fitted = fitted_volumes(confounds.time_good, first_time, t_r, job.fit_extents)
    cleaner = Cleaner(
        section, t_r, confounds.values, confounds.time_good, fitted, divided, job.path
    )
    measured = process(series, cleaner)
    if not measured.good.all():
        n_bad = int((~measured.good).sum())
        kind = "sensors" if sensors.sampler is None else section.sensors
        job.notes.append(f"{n_bad} of {len(measured.good)} {kind} are constant or not finite")
    if divided and confounds.values is not None and cleaner.works:
        job.notes.append(
            "fMRIPrep made the confounds from the whole recording, of which a part is tested on"
        )
    job.steps += cleaner.describe(confounds.names)
    attrs = {**_attrs(job, t_r), **sensors.attrs}
    if section.responses != "series":
        _write_responses(job, series, sensors, confounds, measured, attrs)
        return
    coords = sensors.coords(measured.good)
    qc = _qc(measured, confounds, coords, attrs, job.notes)
    sensors.finish(qc)
    n_times, n_sensors = series.shape
    dataset = signal_dataset(
        np.broadcast_to(np.float32(0), (n_sensors, n_times)), coords,
        first_time + t_r * np.arange(n_times), attrs, confounds.time_good,
    )  # fmt: skip
    with StoreWriter(job.out, {"": dataset, "qc": qc, **sensors.groups}) as writer:
        write_along(writer, "signal", "time", n_times, lambda part: series.read(part).T)


def _write_responses(
    job: Job,
    series: Scratch,
    sensors: Sensors,
    confounds: Confounds,
    measured: Measured,
    attrs: dict[str, Any],
) -> None:
    """One beta per event, from the series as it was measured."""
    from braindecode_pipe.preprocess import betas

    if job.events is None:
        raise RecipeError(
            "single-trial responses need the events of the recording",
            expected="events", found="none", remedy='preprocess.bold.responses = "series"',
        )  # fmt: skip
    with betas.run(
        series, measured.good, job.section, job.events, confounds.values, confounds.time_good,
        attrs["t_r"], attrs["first_time"], job.out, job.steps, fit_extents=job.fit_extents,
    ) as found:  # fmt: skip
        coords = sensors.coords(found.sensor_good)
        attrs = {**attrs, "steps": job.steps}
        qc = _qc(measured, confounds, coords, attrs, job.notes)
        for name, (dims, values) in found.qc.items():
            qc[name] = (dims, values)
        sensors.finish(qc)
        shape = (len(found.events), len(measured.good))
        dataset = response_dataset(
            np.broadcast_to(np.float32(0), shape), coords, list(found.events), attrs
        ).assign_coords(event_good=("event", np.asarray(found.event_good, bool)))
        with StoreWriter(job.out, {"": dataset, "qc": qc, **sensors.groups}) as writer:
            write_along(writer, "response", "event", shape[0], found.values.read)


def _attrs(job: Job, t_r: float) -> dict[str, Any]:
    names = ("recording", "subject", "session", "task", "run", "datatype", "content_hash")
    return {
        **{name: str(job.recording[name]) for name in names},
        "data_origin": job.data_origin,
        "steps": job.steps,
        "sfreq": 1.0 / t_r,
        "t_r": t_r,
        "first_time": job.first_time(t_r),
        **seen_by_fits(job.fit_extents),
    }


def _qc(
    measured: Measured,
    confounds: Confounds,
    coords: dict[str, Any],
    attrs: dict[str, Any],
    notes: list[str],
) -> xr.Dataset:
    """Quality before cleaning: tSNR, mean, carpet, global signal, DVARS, motion, NaN."""
    names = coords["sensor"][1]
    n_times = len(measured.global_signal)
    qc = xr.Dataset(
        {
            "tsnr": ("sensor", measured.tsnr.astype(np.float32)),
            "mean": ("sensor", measured.mean.astype(np.float32)),
            "nan_share": ("sensor", measured.nan_share.astype(np.float32)),
            "carpet": (("sensor_subset", "time"), measured.carpet),
            "global_signal": ("time", measured.global_signal),
            "dvars": ("time", measured.dvars),
            "time_good": ("time", confounds.time_good),
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
    if confounds.displacement is not None:
        qc["framewise_displacement"] = ("time", confounds.displacement)
    if confounds.motion is not None:
        qc["motion"] = (("time", "motion_parameter"), confounds.motion)
        qc = qc.assign_coords(motion_parameter=("motion_parameter", list(MOTION)))
    return qc
