"""Series of parcels, surface patches and other repetition times: what becomes a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from braindecode_pipe.errors import DataError, PositionError


def downsample(
    x: np.ndarray, t_r: float, factor: int, how: Literal["mean", "every"] = "mean"
) -> tuple[np.ndarray, float]:
    """The same series at ``factor`` times the repetition time (Brain Harmony: 1 to 4).

    ``mean`` averages ``factor`` samples that follow each other, which keeps fast noise from folding
    into slow activity and keeps the middle of a sample in its place; ``every`` takes each
    ``factor``-th, as a scanner with that repetition time would, half a new sample early. Samples
    after the last whole group are left out.

    Parameters
    ----------
    x : (..., n_times)
    t_r : float [s]
    factor : int >= 1

    Returns
    -------
    series : (..., n_times // factor), t_r : float [s]
    """
    n = x.shape[-1] // factor if factor >= 1 else 0
    if n < 1 or how not in ("mean", "every"):
        raise DataError(
            "a series cannot be down-sampled like this",
            expected=f'a factor from 1 to {x.shape[-1]}, "mean" or "every"',
            found=f"{factor}, {how!r}",
        )
    groups = x[..., : n * factor].reshape(*x.shape[:-1], n, factor)
    series = groups.mean(-1) if how == "mean" else groups[..., 0].copy()
    return series.astype(x.dtype, copy=False), t_r * factor


@dataclass(frozen=True)
class Parcels:
    """Values of parcels, in rising order of their labels.

    Attributes
    ----------
    labels : (n_parcels,) int64, without 0
    values : (..., n_parcels, n_times), 0 where a parcel has no sensor
    mask : (n_parcels,) bool, False where a parcel has no good sensor
    """

    labels: np.ndarray
    values: np.ndarray
    mask: np.ndarray


def parcel_series(
    x: np.ndarray,
    parcel: np.ndarray,
    *,
    good: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Parcels:
    """Mean series of the good sensors of each parcel of any atlas.

    Parameters
    ----------
    x : (..., n_sensors, n_times), sensors being voxels or vertices
    parcel : (n_sensors,) int, 0 outside of the atlas
    good : (n_sensors,) bool, optional
    labels : (n_parcels,) int, optional
        Parcels of the atlas; default: those that occur. Give them, so that a parcel outside of a
        field of view keeps its place.

    Raises
    ------
    DataError
        When shapes disagree, or a good sensor is not finite.
    """
    parcel = np.asarray(parcel)
    good = np.ones(len(parcel), bool) if good is None else np.asarray(good, bool)
    n_sensors = x.shape[-2] if x.ndim > 1 else 0
    if parcel.shape != (n_sensors,) or good.shape != (n_sensors,) or parcel.dtype.kind not in "iu":
        raise DataError(
            "labels of sensors",
            expected=f"a whole number and a mark for each of {n_sensors} sensors",
            found=f"{parcel.shape} {parcel.dtype}, marks {good.shape}",
        )
    labels = np.unique(parcel) if labels is None else np.unique(labels)
    labels = labels[labels != 0].astype(np.int64)
    out = np.zeros((*x.shape[:-2], len(labels), x.shape[-1]), x.dtype)
    mask = np.zeros(len(labels), bool)
    for row, label in enumerate(labels):
        own = (parcel == label) & good
        if own.any():
            out[..., row, :] = x[..., own, :].mean(-2)
            mask[row] = True
    if not np.isfinite(out).all():
        raise DataError(
            "a good sensor of a parcel is not finite",
            expected="finite values",
            found=f"parcel {labels[~np.isfinite(out).all(-1).reshape(-1, len(labels)).all(0)][0]}",
            remedy="mark the sensor bad",
        )
    return Parcels(labels, out, mask)


def icosahedral_patches(sphere: np.ndarray, level: int) -> np.ndarray:
    """Which vertex of a coarser icosahedron each vertex of a sphere is nearest to.

    Subdivision ``l`` has ``10 * 4^l + 2`` vertices (12, 42, 162, 642, 2562, 10242). In FreeSurfer's
    spheres (fsaverage5 is level 5) the vertices of every coarser level come first, which is what
    makes them the centres. Half-way between centres the first one wins; distances are compared to
    1e-6 of the radius, so noise in the coordinates decides nothing.

    Parameters
    ----------
    sphere : (n_vertices, 3) in any unit, centred at 0
    level : int >= 0, below that of the sphere

    Returns
    -------
    (n_vertices,) int64, from 0
    """
    from scipy.spatial import cKDTree

    sphere = np.asarray(sphere, float)
    n_centres = 10 * 4**level + 2 if level >= 0 else 0
    radius = np.linalg.norm(sphere, axis=-1)
    flat = sphere.ndim == 2 and sphere.shape[-1] == 3 and np.isfinite(radius).all()
    if not flat or not 0 < n_centres <= len(sphere) or np.ptp(radius) > 0.01 * radius.mean():
        raise PositionError(
            "no sphere to divide into patches",
            expected=f"at least {n_centres} vertices at one distance from 0",
            found=f"{sphere.shape}, distances {radius.min():.4g} to {radius.max():.4g}"
            if radius.size
            else str(sphere.shape),
            remedy="give the vertices of a sphere (sphere.reg), not of the folded surface",
        )
    unit = sphere / radius[:, None]
    spacing = cKDTree(unit[:n_centres]).query(unit[:n_centres], 2)[0][:, 1]
    if spacing.max() > 1.5 * spacing.min():
        raise PositionError(
            "the first vertices of this sphere are no coarser icosahedron",
            expected=f"{n_centres} vertices at even distances",
            found=f"nearest ones {spacing.min():.3g} to {spacing.max():.3g} of the radius apart",
            remedy="use a sphere in FreeSurfer's order, such as fsaverage5",
        )
    out = np.empty(len(unit), np.int64)
    for start in range(0, len(unit), 2048):
        cosines = unit[start : start + 2048] @ unit[:n_centres].T
        # Cosines of near directions are flat, distances are not.
        distance = np.sqrt(np.maximum(2 - 2 * cosines, 0))
        near = distance <= distance.min(1, keepdims=True) + 1e-6
        out[start : start + 2048] = near.argmax(1)
    return out


@dataclass(frozen=True)
class PatchIndex:
    """Which vertices make each patch.

    Attributes
    ----------
    index : (n_patches, size) int64, padded with 0
    mask : (n_patches, size) bool, True = a vertex
    """

    index: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray) -> PatchIndex:
        """From the patch, from 0, of each vertex; negative: in none."""
        labels = np.asarray(labels)
        rows = [np.flatnonzero(labels == patch) for patch in range(int(labels.max(initial=-1)) + 1)]
        size = max(map(len, rows), default=0)
        index = np.zeros((len(rows), size), np.int64)
        mask = np.zeros((len(rows), size), bool)
        for patch, own in enumerate(rows):
            index[patch, : len(own)], mask[patch, : len(own)] = own, True
        return cls(index, mask)

    def gather(self, x: np.ndarray) -> np.ndarray:
        """``(..., n_vertices)`` to ``(..., n_patches, size)``, 0 where there is no vertex."""
        return np.where(self.mask, x[..., self.index], np.zeros((), x.dtype))
