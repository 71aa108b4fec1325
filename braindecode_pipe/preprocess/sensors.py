"""Between the field's objects and sensors: mne Info and back, images and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import SchemaError
from braindecode_pipe.schema import SENSOR_KINDS, sensor_coords
from braindecode_pipe.store import open_store

if TYPE_CHECKING:
    import mne
    import nibabel

# What an Info keeps in a store. Everything else could name a person, a machine or a day.
_KEPT = {
    "sfreq", "highpass", "lowpass", "line_freq", "chs", "ch_names", "nchan", "bads", "projs",
    "comps", "dig", "dev_head_t", "ctf_head_t", "dev_ctf_t", "custom_ref_applied",
}  # fmt: skip
_UNITS = {"mag": "T", "grad": "T/m", "ref_meg": "T"}
_FRAMES = {
    "FIFFV_COORD_HEAD": "head",
    "FIFFV_COORD_DEVICE": "device",
    "FIFFV_COORD_MRI": "mri",
    "FIFFV_MNE_COORD_MNI_TAL": "mni_tal",
    "FIFFV_MNE_COORD_RAS": "ras",
    "FIFFV_MNE_COORD_MRI_VOXEL": "mri_voxel",
}
_INTRACRANIAL_MAX = 0.5


def info_to_json(info: mne.Info, sfreq: float, **filters: float) -> str:
    """An ``mne.Info`` as JSON text, at the rate ``sfreq`` [Hz], without dates, people and hosts.

    ``filters`` are ``highpass`` and ``lowpass`` [Hz] where they differ from those of ``info``.
    """
    fields = {**info.to_json_dict(), **filters}
    for key in set(fields) - _KEPT:
        fields[key] = [] if isinstance(fields[key], list) else None
    fields["sfreq"] = float(sfreq)
    fields["lowpass"] = min(float(fields["lowpass"]), sfreq / 2)
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def info_from_json(text: str) -> mne.Info:
    """Inverse of :func:`info_to_json`."""
    import mne

    return mne.Info.from_json_dict(json.loads(text))


def sensor_geometry(info: mne.Info) -> tuple[np.ndarray, np.ndarray, str]:
    """Positions and orientations of the channels of an Info.

    MEG coils lie in the device frame and are brought to the head frame when the Info knows the way.

    Returns
    -------
    position : (n_channels, 3) [m], NaN where unknown
    orientation : (n_channels, 3), the normal of a MEG coil, zeros for electrodes
    frame : "head", "device", "mni_tal", ... or "unknown" where channels differ
    """
    from mne.io.constants import FIFF

    names = {int(getattr(FIFF, key)): frame for key, frame in _FRAMES.items()}
    loc = np.array([ch["loc"][:12] for ch in info["chs"]], float).reshape(-1, 12)
    position = loc[:, :3].copy()
    magnetic = np.array([int(ch["kind"]) in (FIFF.FIFFV_MEG_CH, FIFF.FIFFV_REF_MEG_CH)
                         for ch in info["chs"]], bool)  # fmt: skip
    orientation = np.where(magnetic[:, None], loc[:, 9:12], 0.0)
    frames = np.array([names.get(int(ch["coord_frame"]), "unknown") for ch in info["chs"]])
    if info["dev_head_t"] is not None:
        device = frames == "device"
        matrix = info["dev_head_t"]["trans"]
        position[device] = position[device] @ matrix[:3, :3].T + matrix[:3, 3]
        orientation[device] = orientation[device] @ matrix[:3, :3].T
        frames[device] = "head"
    unknown = ~np.isfinite(position).all(axis=1) | (loc[:, :3] == 0).all(axis=1)
    position[unknown] = np.nan
    orientation[~np.isfinite(orientation).all(axis=1)] = 0.0
    found = set(frames[~unknown])
    return position, orientation, found.pop() if len(found) == 1 else "unknown"


def restore_frame(info: mne.Info, system: str, datatype: str) -> str:
    """Give positions the frame that BIDS states, where MNE called it the head without knowing.

    Without fiducials ``set_montage`` takes the transform from any frame to the head for the
    identity. Positions of intracranial electrodes then stay what they were, in MNI or scanner
    coordinates, and must say so; in place.

    Parameters
    ----------
    info : Info that mne-bids read
    system : ``iEEGCoordinateSystem`` or ``EEGCoordinateSystem``
    datatype : "ieeg" or "eeg"

    Returns
    -------
    str, a warning where the frame stays a guess, else ""
    """
    from mne.io.constants import FIFF

    points = info["dig"] or []
    if not points or any(int(p["kind"]) == FIFF.FIFFV_POINT_CARDINAL for p in points):
        return ""
    if datatype == "eeg":
        return f"no fiducials: positions in {system or 'an unnamed system'} are taken as head"
    known = {frame: int(getattr(FIFF, key)) for key, frame in _FRAMES.items()}
    frame = "ras" if system in ("ACPC", "ScanRAS") else "unknown"
    if system in ("Talairach", "fsaverage") or system.startswith("MNI"):
        frame = "mni_tal"
    code = known.get(frame, int(FIFF.FIFFV_COORD_UNKNOWN))
    for channel in info["chs"]:
        if np.isfinite(channel["loc"][:3]).all():
            channel["coord_frame"] = code
    for point in points:
        point["coord_frame"] = code
    return ""


def drop_impossible(info: mne.Info) -> str:
    """Leave out positions of electrodes that cannot be; in place.

    Those that are all one place, and intracranial ones farther than half a metre from the origin.

    Returns
    -------
    str, what was wrong, with the factor that would make metres of them; "" for nothing
    """
    types = np.array(info.get_channel_types())
    electrodes = np.isin(types, ("eeg", "seeg", "ecog", "dbs"))
    position = np.array([ch["loc"][:3] for ch in info["chs"]], float)
    placed = np.isfinite(position).all(axis=1) & (position != 0).any(axis=1)
    at = np.flatnonzero(electrodes & placed)
    if len(at) < 2:
        return ""
    problem = ""
    if (position[at] == position[at[0]]).all():
        problem = f"positions left out: all {len(at)} electrodes lie at one place"
    distance = float(np.median(np.linalg.norm(position[at], axis=1)))
    inside = np.isin(types[at], ("seeg", "ecog", "dbs")).all()
    if inside and distance > _INTRACRANIAL_MAX:
        factor = next((f for f in (1e-2, 1e-3) if distance * f <= 0.15), None)
        guess = "" if factor is None else f" (fits after multiplication by {factor:g})"
        problem = f"positions left out: electrodes lie {distance:.3g} m from the origin{guess}"
    if problem:
        for i in at:
            info["chs"][i]["loc"][:3] = np.nan
        with info._unlock():
            info["dig"] = None
    return problem


def channel_coords(
    info: mne.Info,
    good: np.ndarray,
    offset: np.ndarray,
    gain: np.ndarray,
    scaled: bool,
) -> tuple[dict[str, Any], str]:
    """Sensor coordinates of the channels of an Info, and the frame of their positions.

    ``value [unit of mne] = stored * gain + offset`` undoes the scaler of the recording.
    """
    types = info.get_channel_types()
    unknown = sorted(set(types) - set(SENSOR_KINDS))
    if unknown:
        raise SchemaError(
            "these channels are no sensors of the brain",
            expected=" | ".join(SENSOR_KINDS),
            found=", ".join(unknown),
            remedy="leave them out of preprocess.emeg.picks",
        )
    position, orientation, frame = sensor_geometry(info)
    units = ["a.u." if scaled else _UNITS.get(kind, "V") for kind in types]
    coords = sensor_coords(
        list(info["ch_names"]), types, units, position, orientation, good, offset=offset, gain=gain
    )
    return coords, frame


def to_raw(path: str | Path) -> mne.io.RawArray:
    """A signal store of EEG, MEG or iEEG as ``mne.io.RawArray`` in SI units.

    Bad sensors are in ``info["bads"]``, spans that are not good are annotated ``BAD_span``.
    What the clamp cut off does not come back.

    Raises
    ------
    SchemaError : a store without an Info (voxels, parcels) or of responses
    """
    import mne

    store = open_store(path)
    info = _info_of(store, path, "signal")
    values = _unscaled(store["signal"].values, store, axis=0)
    raw = mne.io.RawArray(values, info, verbose="error")
    good = store["time_good"].values
    edges = np.flatnonzero(np.diff(np.concatenate([[0], ~good, [0]]).astype(int)))
    starts, stops = edges[::2], edges[1::2]
    sfreq = info["sfreq"]
    raw.set_annotations(
        mne.Annotations(starts / sfreq, (stops - starts) / sfreq, ["BAD_span"] * len(starts))
    )
    return raw


def to_epochs(
    path: str | Path,
    events: pd.DataFrame | None = None,
    tmin: float = -0.2,
    tmax: float = 0.5,
) -> mne.BaseEpochs:
    """Epochs of a response store, or of a signal store and a table of events.

    Parameters
    ----------
    path : path of a store
    events : DataFrame, optional
        ``onset`` [s] and ``trial_type`` for a signal store; for a response store any table with
        one row per event, which becomes the metadata.
    tmin, tmax : float [s], around an onset; only for a signal store

    Raises
    ------
    SchemaError : no Info in the store, a signal store without ``events``, or another row count
    """
    import mne

    store = open_store(path)
    if store.attrs["kind"] == "signal":
        if events is None:
            raise SchemaError(
                "a signal store has no epochs of its own", expected="a table of events",
                found="None", remedy="pass events with the columns onset and trial_type",
            )  # fmt: skip
        raw = to_raw(path)
        labels = sorted(set(map(str, events["trial_type"])))
        codes = {label: number for number, label in enumerate(labels, start=1)}
        samples = np.rint(
            (events["onset"].to_numpy(float) - store.attrs["first_time"]) * raw.info["sfreq"]
        ).astype(int)
        triples = np.column_stack(
            [samples, np.zeros_like(samples), [codes[str(t)] for t in events["trial_type"]]]
        )
        return mne.Epochs(
            raw, triples, codes, tmin, tmax, baseline=None, preload=True,
            metadata=events.reset_index(drop=True), verbose="error",
        )  # fmt: skip
    info = _info_of(store, path, "response")
    if events is not None and len(events) != store.sizes["event"]:
        raise SchemaError(
            "the table has another number of events", expected=str(store.sizes["event"]),
            found=str(len(events)),
        )  # fmt: skip
    values = _unscaled(store["response"].values, store, axis=1)
    metadata = None if events is None else events.reset_index(drop=True)
    return mne.EpochsArray(
        values, info, tmin=float(store["time"].values[0]), metadata=metadata, verbose="error"
    )


def to_img(values: np.ndarray, signal: Any) -> nibabel.Nifti1Image:
    """Values per voxel, or per parcel of a label image, as an image on the grid of the recording.

    Parameters
    ----------
    values : (n_sensors,) or (n_sensors, n_times)
    signal : Signal
        A reader (``store.open_signal``) of the store that the voxels are from.

    Returns
    -------
    Nifti1Image float32 (x, y, z[, n_times]); 0 outside the voxels, or labels
    """
    import nibabel

    if "label" in signal.sensors:
        from braindecode_pipe.preprocess.images import parcels_to_img

        return parcels_to_img(values, signal)
    values = np.asarray(values, np.float32)
    if "affine" not in signal.attrs or len(values) != len(signal.sensors):
        raise SchemaError(
            "these values cannot be put on a grid",
            file=signal.path,
            expected="one value per voxel of a store with an affine",
            found=f"{len(values)} values, {len(signal.sensors)} sensors",
        )
    ijk = np.array([list(map(int, name.split("-"))) for name in signal.sensors["sensor"]])
    grid = np.zeros((*signal.attrs["grid_shape"], *values.shape[1:]), np.float32)
    grid[tuple(ijk.T)] = values
    return nibabel.Nifti1Image(grid, np.asarray(signal.attrs["affine"], float))


def voxel_name(ijk: np.ndarray) -> list[str]:
    """Names of voxels from their grid indices (n_voxels, 3): ``012-003-000``."""
    text = [f"{i:03d}" for i in range(int(ijk.max(initial=0)) + 1)]
    return [f"{text[i]}-{text[j]}-{text[k]}" for i, j, k in ijk.tolist()]


def _unscaled(values: np.ndarray, store: Any, axis: int) -> np.ndarray:
    shape = [1] * values.ndim
    shape[axis] = -1
    gain, offset = store["gain"].values.reshape(shape), store["offset"].values.reshape(shape)
    return values.astype(float) * gain + offset


def _info_of(store: Any, path: str | Path, kind: str) -> mne.Info:
    if store.attrs["kind"] != kind or "info" not in store.attrs:
        raise SchemaError(
            "this store cannot become an object of mne",
            file=path,
            expected=f"a {kind} store of EEG, MEG or iEEG",
            found=f"kind {store.attrs['kind']}, "
            + ("with an Info" if "info" in store.attrs else "without an Info"),
        )
    info = info_from_json(store.attrs["info"])
    info["bads"] = [
        str(name) for name, good in zip(store["sensor"].values, store["sensor_good"].values)
        if not good
    ]  # fmt: skip
    return info
