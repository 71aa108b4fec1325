"""Sensors of several recordings brought together, and their layout in the plane or in space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, PositionError

# Nearly all EEG and MEG sensors lie within 120 degrees of the vertex; the few below use the margin
# that the Fourier features leave around the unit square.
POLAR_EDGE = 2 * np.pi / 3
RADIUS_MAX = 0.7
CIRCLE = 0.35
# Edge of the cube that a head and its helmet fill [m], and the part of it that may stick out.
CUBE_EDGE, CUBE_MARGIN = 0.3, 0.2


def common_sensors(
    tables: Mapping[str, pd.DataFrame],
) -> tuple[pd.DataFrame, dict[str, np.ndarray | None]]:
    """Sensors that all recordings of one person have, by name, in the order of the first.

    Parameters
    ----------
    tables : recording -> table with the columns ``sensor`` and whatever describes a sensor

    Returns
    -------
    table : DataFrame, rows of the first recording
    index : recording -> positions of these sensors in it, None where it has just these

    Raises
    ------
    DataError
        When no sensor is common to all.
    """
    names = {recording: [str(s) for s in table["sensor"]] for recording, table in tables.items()}
    first = next(iter(names))
    shared = set(names[first]).intersection(*map(set, names.values()))
    if not shared:
        raise DataError(
            "recordings of one person have no sensor in common",
            expected="at least one name in all of them",
            found="; ".join(f"{r}: {', '.join(n[:4])} ..." for r, n in list(names.items())[:4]),
            remedy="rename channels, or give the mask of the person in [preprocess.bold]",
        )
    keep = [name for name in names[first] if name in shared]
    index: dict[str, np.ndarray | None] = {}
    for recording, own in names.items():
        if own == keep:
            index[recording] = None
        else:
            place = {name: i for i, name in enumerate(own)}
            index[recording] = np.array([place[name] for name in keep])
    rows = [i for i, name in enumerate(names[first]) if name in shared]
    return tables[first].iloc[rows].reset_index(drop=True), index


def plane_layout(position: np.ndarray) -> np.ndarray:
    """Sensor positions in the plane, for spatial attention.

    Azimuthal equidistant projection as seen from the origin of the frame: a sensor at polar angle
    ``theta`` from the z axis (the vertex) and azimuth ``phi`` lies at
    ``0.5 + theta / (2 THETA) (cos phi, sin phi)``, ``THETA`` = 120 degrees. The scale is fixed,
    so that one place on the head is one place in the plane for every montage.

    A sensor without position gets NaN, and attention leaves it out. When no sensor has a position
    they are put on a circle in their order: positions then say no more than which sensor it is.

    Parameters
    ----------
    position : (n_sensors, 3), any unit

    Returns
    -------
    (n_sensors, 2) float32, within [-0.2, 1.2]
    """
    position = np.asarray(position, float)
    known = np.isfinite(position).all(1)
    if not known.any():
        return _circle(len(position))
    x, y, z = position.T
    angle = np.arctan2(y, x)
    radius = np.minimum(np.arctan2(np.hypot(x, y), z) / (2 * POLAR_EDGE), RADIUS_MAX)
    return _polar(radius, angle)


def space_layout(position: np.ndarray) -> np.ndarray:
    """Sensor positions in the unit cube, for spatial attention in three dimensions.

    ``0.5 + p / EDGE``, ``EDGE`` = 0.3 m, with ``p`` from the origin of the recording's frame. One
    scale and one origin serve all axes, people and devices, so that a place in the head has the
    same coordinates under electrodes, coils and voxels, and nothing is fitted to anybody's sensors
    (frames differ by some centimetres: between the ears for heads, the anterior commissure for
    templates).

    A sensor without position gets NaN, and attention leaves it out. When no sensor has a position
    they are put on a circle in their order, in the plane through the middle of the cube: positions
    then say no more than which sensor it is.

    Parameters
    ----------
    position : (n_sensors, 3) [m]

    Returns
    -------
    (n_sensors, 3) float32, within [-0.2, 1.2]

    Raises
    ------
    PositionError
        When a sensor lies outside: Fourier features would take it for another place.
    """
    position = np.asarray(position, float)
    known = np.isfinite(position).all(1)
    if not known.any():
        flat = _circle(len(position))
        return np.concatenate([flat, np.full((len(flat), 1), 0.5, np.float32)], axis=1)
    out = np.where(known[:, None], 0.5 + position / CUBE_EDGE, np.nan)
    furthest = np.abs(out[known] - 0.5).max()
    if furthest > 0.5 + CUBE_MARGIN:
        raise PositionError(
            "sensors lie outside of the cube that a head fills",
            expected=f"at most {CUBE_EDGE * (0.5 + CUBE_MARGIN):g} m from the origin along an axis",
            found=f"{furthest * CUBE_EDGE:.3g} m",
            remedy='[train] layout = "plane", or positions in metres in a frame of the head',
        )
    return out.astype(np.float32)


def _circle(n: int) -> np.ndarray:
    return _polar(np.full(n, CIRCLE), 2 * np.pi * np.arange(n) / max(n, 1))


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    flat = [0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)]
    return np.stack(flat, axis=1).astype(np.float32)


def stack_positions(
    tables: Iterable[pd.DataFrame], layout: Literal["plane", "space"] = "plane"
) -> np.ndarray:
    """Layouts of several people ``(n_subjects, n_sensors, 2 or 3)`` float32, padded with NaN."""
    place = {"plane": plane_layout, "space": space_layout}[layout]
    own = [place(sensor_positions(table)) for table in tables]
    out = np.full((len(own), max(map(len, own)), own[0].shape[1]), np.nan, np.float32)
    for i, positions in enumerate(own):
        out[i, : len(positions)] = positions
    return out


def sensor_positions(sensors: pd.DataFrame) -> np.ndarray:
    """Columns ``x, y, z`` of a sensor table as ``(n_sensors, 3)``, NaN where they are absent."""
    columns: list[Any] = [
        sensors[axis].to_numpy(float) if axis in sensors else np.full(len(sensors), np.nan)
        for axis in "xyz"
    ]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Alignment:
    """Sensors of several recordings and people as axes of one array.

    Attributes
    ----------
    tables : subject -> sensors, in the order of the array; people in order of appearance
    index : recording -> positions of these sensors in it, None where it has just these
    bad : recording -> (n_own,) bool, sensors that are marked bad there
    masks : (n_subjects, n_sensors) bool, False where a person with fewer sensors is padded
    positions : (n_subjects, n_sensors, 2), see :func:`plane_layout`; NaN where padded
    """

    tables: dict[str, pd.DataFrame]
    index: dict[str, np.ndarray | None]
    bad: dict[str, np.ndarray]
    masks: np.ndarray
    positions: np.ndarray


def align_sensors(signals: Mapping[str, Any], subject_of: Mapping[str, str]) -> Alignment:
    """Align recordings: common sensors within a person, padding and masks across people.

    Parameters
    ----------
    signals : recording -> Signal
    subject_of : recording -> person
    """
    tables: dict[str, pd.DataFrame] = {}
    index: dict[str, np.ndarray | None] = {}
    for subject in dict.fromkeys(subject_of[name] for name in signals):
        own = {n: s.sensors for n, s in signals.items() if subject_of[n] == subject}
        tables[subject], found = common_sensors(own)
        index.update(found)
    bad = {}
    for name, signal in signals.items():
        marked = ~signal.sensors["sensor_good"].to_numpy(bool)
        bad[name] = marked if index[name] is None else marked[index[name]]
    shape = len(tables), max(len(table) for table in tables.values())
    masks = np.zeros(shape, bool)
    for i, table in enumerate(tables.values()):
        masks[i, : len(table)] = True
    return Alignment(tables, index, bad, masks, stack_positions(tables.values()))
