"""From volumes to sensors: voxels of a mask, means of labels, weights of maps, vertices.

A sampler turns a slab of volumes (n, n_voxels) into values of its sensors (n, n_sensors).
:func:`extract` sends a series through one, in one pass where the voxels do not depend on others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.volumes import Volumes

Scale = Callable[[np.ndarray, type], np.ndarray]


class Sampler(Protocol):
    """What :func:`extract` needs of a sampler.

    Attributes
    ----------
    n_sensors : int
    joins : bool, whether a sensor has several voxels, so that one that is not finite spoils it
    dtype : of the values: float32 holds what single voxels have, means need float64
    """

    n_sensors: int
    joins: bool
    dtype: type

    def exclude(self, voxels: np.ndarray) -> None:
        """Leave voxels (n_voxels,) bool out of every sensor."""

    def sample(self, raw: np.ndarray, scale: Scale) -> np.ndarray:
        """(n, n_sensors) from values as stored (n, n_voxels), to be scaled by ``scale``."""


class VoxelSampler:
    """Voxels of a mask (x, y, z), in the order of ``np.argwhere``."""

    joins, dtype = False, np.float32

    def __init__(self, mask: np.ndarray) -> None:
        self.ijk = np.argwhere(mask)
        self._index = flat_index(self.ijk, mask.shape)
        self.n_sensors = len(self._index)

    def exclude(self, voxels: np.ndarray) -> None:
        """Nothing: voxels do not mix."""

    def sample(self, raw: np.ndarray, scale: Scale) -> np.ndarray:
        """See :class:`Sampler`."""
        return scale(raw.take(self._index, axis=1), np.float32)


def flat_index(ijk: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positions in the file's order of voxels (n, 3)."""
    return np.ravel_multi_index(tuple(ijk.T), shape, order="F")


def extract(
    volumes: Volumes,
    sampler: Sampler,
    series: Scratch,
    smoothing_fwhm: float | None,
    steps: list[str],
    outside: np.ndarray | None = None,
) -> int:
    """Send a series through a sampler to ``series`` (time, sensor), whose length is set.

    Where voxels mix (smoothing, parcels, vertices), those that are not finite in any volume are
    left out: the pass is repeated without them.

    Parameters
    ----------
    outside : (n_voxels,) bool, optional
        Voxels in the order of the file that belong to no sensor; smoothing does see them.

    Returns
    -------
    int, number of voxels that were left out because they are not finite
    """
    mixes = (sampler.joins or smoothing_fwhm is not None) and volumes.may_be_nan
    excluded = np.zeros(volumes.n_voxels, bool)
    outside = excluded if outside is None else outside
    if outside.any():
        sampler.exclude(outside)
    while True:
        smoother = None
        if smoothing_fwhm is not None:
            smoother = Smoother(volumes, smoothing_fwhm, excluded)
        fresh = np.zeros(volumes.n_voxels, bool)
        for start, raw in volumes.slabs():
            if mixes:
                fresh |= ~np.isfinite(raw).all(axis=0)
            if smoother is None:
                values = sampler.sample(raw, volumes.scaled)
            else:
                values = sampler.sample(smoother(raw), _as_it_is)
            series.write(start, 0, values)
        known = excluded if smoother is not None else excluded | outside
        if not (fresh & ~known).any():
            break
        excluded = excluded | fresh
        sampler.exclude(excluded | outside)
    series.shape = (volumes.n_times, series.shape[1])
    if smoothing_fwhm is not None:
        steps.append(
            f"smoothed with {smoothing_fwhm:g} mm (full width at half maximum)"
            + (", without voxels that are not finite" if excluded.any() else "")
        )
    return int(excluded.sum())


def _as_it_is(values: np.ndarray, dtype: type) -> np.ndarray:
    return values.astype(dtype, copy=False)


class Smoother:
    """Gaussian smoothing of volumes as by ``nilearn.image.smooth_img``, without some voxels.

    With ``w`` 0 at the voxels left out and 1 elsewhere, ``S`` the filter and ``x`` the volume,

        y = S(w x) * S(1) / S(w)

    which is Nilearn's result where no voxel is left out nearby (Knutsson and Westin 1993,
    "Normalized and differential convolution"). Nilearn itself takes zeros for them.
    """

    def __init__(self, volumes: Volumes, fwhm: float, excluded: np.ndarray) -> None:
        self._volumes, self._fwhm, self._excluded = volumes, fwhm, excluded
        self._factor: np.ndarray | None = None
        if excluded.any():
            whole, kept = self._filter(np.stack([np.ones(len(excluded)), ~excluded]).astype(float))
            self._factor = np.divide(whole, kept, out=np.zeros_like(whole), where=kept > 0)

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """(n, n_voxels) float64 of values as stored."""
        values = self._volumes.scaled(raw)
        if self._volumes.may_be_nan:
            values[~np.isfinite(values)] = 0.0
            values[:, self._excluded] = 0.0
        values = self._filter(values)
        if self._factor is not None:
            values *= self._factor
            values[:, self._excluded] = np.nan
        return values

    def _filter(self, values: np.ndarray) -> np.ndarray:
        import nibabel
        from nilearn.image import smooth_img

        shape = (*self._volumes.shape, len(values))
        image: Any = nibabel.Nifti1Image(
            values.T.reshape(shape, order="F"), self._volumes.image.affine
        )
        smoothed = np.asarray(smooth_img(image, self._fwhm).dataobj)
        return smoothed.reshape(len(values.T), len(values), order="F").T
