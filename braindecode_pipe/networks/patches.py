"""Patches of equal duration from series of any repetition time (Brain Harmony)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from braindecode_pipe.errors import ModelError

Interpolation = Literal["bicubic", "linear"]

# 48 volumes of the UK Biobank, in seconds.
DURATION_S, T_R_S = 35.28, 0.735


def patch_length(t_r: float, duration: float = DURATION_S) -> int:
    """Samples of a patch: ``round(duration / t_r)``.

    Parameters
    ----------
    t_r, duration : float [s]

    Raises
    ------
    ModelError
        When a patch would hold no sample, or a time is not positive and finite.
    """
    length = round(duration / t_r) if 0 < t_r < math.inf and 0 < duration < math.inf else 0
    if length < 1:
        raise ModelError(
            "a patch without samples",
            expected="a repetition time > 0 and at most about the duration of a patch",
            found=f"t_r = {t_r} s, duration = {duration} s",
            remedy="give t_r in seconds",
        )
    return length


@lru_cache(maxsize=64)
def resize_matrix(n_from: int, n_to: int, how: Interpolation = "bicubic") -> Tensor:
    """The matrix ``B`` that interpolates ``n_from`` samples at ``n_to`` points of the same span.

    Sample ``k`` of ``n`` stands for the middle of part ``k`` of ``n`` equal parts. ``bicubic`` is
    the cubic convolution with ``a = -0.5`` (Keys 1981) in one dimension, ``linear`` a triangle;
    with fewer samples than before the filter is stretched by their ratio, and it is cut at the
    edges. Rows add up to 1. The stretch is needed: a filter that is not stretched picks one sample
    of three, and tokens of kernels resampled for it are a third as long.

    Returns
    -------
    (n_to, n_from) float64
    """
    if how not in ("bicubic", "linear"):
        raise ModelError("unknown interpolation", expected="bicubic | linear", found=repr(how))
    mode = "bilinear" if how == "linear" else how
    unit = torch.eye(n_from, dtype=torch.float64)[None, None]
    # Along the second axis nothing changes its length, so nothing is interpolated.
    size = (n_to, n_from)
    return functional.interpolate(unit, size, mode=mode, align_corners=False, antialias=True)[0, 0]


@lru_cache(maxsize=64)
def _kernel_map(n_from: int, n_to: int, how: Interpolation) -> Tensor:
    return torch.linalg.pinv(resize_matrix(n_from, n_to, how).T)


def resample_kernel(kernel: Tensor, n_to: int, how: Interpolation = "bicubic") -> Tensor:
    """Kernels for patches of another length: ``w' = (B^T)^+ w``.

    Among all kernels it is the one for which ``<B x, w'>`` is nearest to ``<x, w>`` over white
    ``x`` (Beyer et al. 2023, arXiv 2212.08013, section 3.4); with more samples than before they are
    equal for every ``x``. The same length gives the same kernel, bit for bit.

    Parameters
    ----------
    kernel : (..., n_from)
    n_to : int
    how : how signals are thought to be resampled, see :func:`resize_matrix`

    Returns
    -------
    (..., n_to)
    """
    n_from = kernel.shape[-1]
    if n_to == n_from:
        return kernel
    return kernel @ _kernel_map(n_from, n_to, how).to(kernel).T


def split_patches(
    x: Tensor, t_r: float, duration: float = DURATION_S, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Series in patches of :func:`patch_length` samples; patch ``k`` starts ``k * duration`` in.

    Starts are rounded to samples one by one, so patch ``k`` is the same time, to half a sample, at
    every repetition time. Where ``duration / t_r`` is no whole number, neighbours share a sample or
    leave one out; patches end to end would drift (at 2.5 s by 0.28 s per patch). What comes after
    the last whole patch is left out.

    Parameters
    ----------
    x : (batch, n_places, n_times)
    t_r, duration : float [s]
    mask : (batch, n_times) or (batch, n_places, n_times) bool, True = keep, optional

    Returns
    -------
    patches : (batch, n_places, n_patches, length), 0 where a patch is not kept
    keep : (batch, n_places, n_patches) bool, True where every sample is kept
    """
    length, n_times = patch_length(t_r, duration), x.shape[-1]
    if n_times < length:
        raise ModelError(
            "a series shorter than one patch",
            expected=f"at least {length} samples",
            found=str(n_times),
            remedy="use longer recordings, or a shorter duration of patches",
        )
    starts = [round(k * duration / t_r) for k in range(int(n_times * t_r / duration) + 2)]
    starts = torch.tensor([s for s in starts if s + length <= n_times], device=x.device)
    index = starts[:, None] + torch.arange(length, device=x.device)
    patches = x[..., index]
    if mask is None:
        return patches, torch.ones(patches.shape[:-1], dtype=torch.bool, device=x.device)
    mask = mask[:, None] if mask.ndim == 2 else mask
    keep = mask.expand(x.shape)[..., index].all(-1)
    # What is not kept may be NaN, and 0 * NaN is NaN.
    return torch.where(keep[..., None], patches, 0.0), keep


class PatchEmbedding(nn.Module):
    """A linear map of patches of a fixed duration, for any repetition time.

    Kernels belong to ``length = round(duration / t_r)`` samples; for another repetition time they
    are resampled by :func:`resample_kernel`, so the same signal gives nearly the same token.

    Parameters
    ----------
    width : int
        Of a token; 768 in the paper.
    t_r : float [s]
        Repetition time that the kernels belong to.
    duration : float [s]
        Of a patch.
    interpolation : {"bicubic", "linear"}
    """

    def __init__(
        self,
        width: int,
        *,
        t_r: float = T_R_S,
        duration: float = DURATION_S,
        interpolation: Interpolation = "bicubic",
    ) -> None:
        super().__init__()
        self.duration, self.interpolation = duration, interpolation
        length = patch_length(t_r, duration)
        resize_matrix(length, length, interpolation)
        self.kernel = nn.Parameter(torch.randn(width, length) / math.sqrt(length))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, t_r: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens of a batch of series with one repetition time.

        Parameters
        ----------
        x : (batch, n_places, n_times), places being parcels, vertices or voxels
        t_r : float [s]
        mask : (batch, n_times) or (batch, n_places, n_times) bool, True = keep, optional

        Returns
        -------
        tokens : (batch, n_places, n_patches, width), 0 where not kept
        keep : (batch, n_places, n_patches) bool
        """
        patches, keep = split_patches(x, t_r, self.duration, mask)
        kernel = resample_kernel(self.kernel, patches.shape[-1], self.interpolation)
        tokens = functional.linear(patches, kernel, self.bias)
        return torch.where(keep[..., None], tokens, 0.0), keep


class PatchPositions(nn.Module):
    """Where and when a patch is: a linear map of the place, and waves of the number of the patch.

    Brain Harmony describes a place by 30 functional gradients and 200 geometric harmonics
    (``tokenize.geometry``). How place and time are joined is inferred: their sum, with the fixed
    sines and cosines of Vaswani et al. 2017, section 3.5, for time. Patch ``k`` is the same time at
    every repetition time, see :func:`split_patches`.

    Parameters
    ----------
    n_features : int, numbers that describe a place
    width : int, even
    """

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ModelError("waves come in pairs", expected="an even width", found=str(width))
        self.place, self.width = nn.Linear(n_features, width), width

    def forward(self, places: Tensor, n_patches: int) -> Tensor:
        """``(..., n_places, n_features)`` to ``(..., n_places, n_patches, width)``."""
        index = torch.arange(self.width // 2, dtype=places.dtype, device=places.device)
        rate = torch.exp(-math.log(10_000.0) * 2 * index / self.width)
        number = torch.arange(n_patches, dtype=places.dtype, device=places.device)
        phase = number[:, None] * rate
        return self.place(places)[..., None, :] + torch.cat([phase.sin(), phase.cos()], -1)


class VolumePatchEmbedding(nn.Module):
    """A linear map of the cubes of a volume, for the structural tokens of a T1 image.

    A volume of 160 x 192 x 160 in cubes of 16 makes the 1,200 tokens of Brain Harmony; that size
    is inferred from the number.

    Parameters
    ----------
    edge : int [voxels], of a cube
    width : int
    """

    def __init__(self, edge: int, width: int) -> None:
        super().__init__()
        self.edge, self.linear = edge, nn.Linear(edge**3, width)

    def forward(self, volume: Tensor) -> Tensor:
        """``(batch, x, y, z)`` to ``(batch, n_cubes, width)``, the last axis fastest."""
        if any(n % self.edge for n in volume.shape[1:]) or volume.ndim != 4:
            raise ModelError(
                "a volume that cubes do not fill",
                expected=f"three edges that are multiples of {self.edge} voxels",
                found=str(tuple(volume.shape[1:])),
                remedy="pad or crop the volume",
            )
        cubes = volume
        for axis in (1, 3, 5):
            cubes = cubes.unflatten(axis, (-1, self.edge))
        cubes = cubes.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
        return self.linear(cubes)


class VertexPatchEmbedding(nn.Module):
    """A linear map of the values of the vertices of surface patches.

    Parameters
    ----------
    n_vertices : int
        Of the largest patch; smaller ones are padded with zeros (``tokenize.surface``).
    width : int
    """

    def __init__(self, n_vertices: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_vertices, width)

    def forward(self, patches: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens of patterns over the surface.

        Parameters
        ----------
        patches : (batch, n_patches, n_vertices)
        mask : (n_patches, n_vertices) or (batch, n_patches, n_vertices) bool, True = keep, optional

        Returns
        -------
        tokens : (batch, n_patches, width), 0 where a patch has no vertex
        keep : (batch, n_patches) bool
        """
        if mask is None:
            mask = torch.ones_like(patches, dtype=torch.bool)
        mask = mask.expand(patches.shape)
        keep = mask.any(-1)
        tokens = self.linear(torch.where(mask, patches, 0.0))
        return torch.where(keep[..., None], tokens, 0.0), keep
