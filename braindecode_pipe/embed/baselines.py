"""Pictures and labels without a model: pixels, oriented gradients, Gabor energy, colour, one-hot.

The baselines that stand beside every network in a report.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from braindecode_pipe.embed.interface import (
    EmbeddingModel,
    Item,
    check_no_layer,
    check_pooling,
    text_of,
)
from braindecode_pipe.embed.pictures import read_image


class OneHotModel(EmbeddingModel):
    """Identity over the different labels, in their order of first appearance.

    No label is nearer to one than to another: the target of plain classification.
    """

    reads = "text"

    def __init__(self, *, layer: Any = None, pooling: str = "") -> None:
        check_no_layer(layer, "one-hot")
        check_pooling(pooling, ("",), "one-hot")

    def fingerprint(self) -> dict[str, Any]:
        return {"model": "one-hot"}

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        labels = [text_of(item) for item in items]
        column = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        return np.eye(len(column), dtype=np.float32)[[column[label] for label in labels]]

    def probes(self) -> list[Item]:
        # Its features are the labels of the table itself.
        return []


class PictureBaseline(EmbeddingModel):
    """Base of the features of one picture that need no weights."""

    reads = "image"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "pillow")
    name: ClassVar[str]

    def __init__(self, *, layer: Any = None, pooling: str = "", size: int = 32) -> None:
        check_no_layer(layer, self.name)
        check_pooling(pooling, ("",), self.name)
        self.size = size

    def fingerprint(self) -> dict[str, Any]:
        return {"model": self.name, "processor": {"size": self.size, "resample": "bilinear"}}

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        return np.stack([self.vector(self._pixels(item)) for item in items]).astype(np.float32)

    def _pixels(self, item: Item) -> np.ndarray:
        from PIL import Image

        picture = read_image(item).resize((self.size,) * 2, Image.Resampling.BILINEAR)
        return np.asarray(picture, np.float32) / 255

    @abstractmethod
    def vector(self, rgb: np.ndarray) -> np.ndarray:
        """Features of a picture ``(size, size, 3)`` in [0, 1]."""


class PixelsModel(PictureBaseline):
    """Grey values in [0, 1] of the whole picture at ``size`` x ``size``: the plain baseline."""

    name = "pixels"

    def _pixels(self, item: Item) -> np.ndarray:
        from PIL import Image

        grey = read_image(item).convert("L").resize((self.size,) * 2, Image.Resampling.BILINEAR)
        return np.asarray(grey, np.float32) / 255

    def vector(self, rgb: np.ndarray) -> np.ndarray:
        return rgb.ravel()


class HogModel(PictureBaseline):
    """Histograms of oriented gradients (:func:`oriented_gradients`) at 64 x 64 pixels."""

    name = "hog"

    def __init__(self, *, size: int = 64, **settings: Any) -> None:
        super().__init__(size=size, **settings)

    def vector(self, rgb: np.ndarray) -> np.ndarray:
        return oriented_gradients(luminance(rgb))


class GaborModel(PictureBaseline):
    """Gabor energy (:func:`gabor_energy`) at 64 x 64 pixels: a model of V1's complex cells."""

    name = "gabor"

    def __init__(self, *, size: int = 64, **settings: Any) -> None:
        super().__init__(size=size, **settings)

    def vector(self, rgb: np.ndarray) -> np.ndarray:
        return gabor_energy(luminance(rgb))


class ColourModel(PictureBaseline):
    """Share of pixels in 4 x 4 x 4 equal boxes of RGB, and mean and deviation of each channel."""

    name = "colour"

    def vector(self, rgb: np.ndarray) -> np.ndarray:
        flat = rgb.reshape(-1, 3)
        box = np.minimum((flat * 4).astype(int), 3) @ [16, 4, 1]
        shares = np.bincount(box, minlength=64) / len(flat)
        return np.concatenate([shares, flat.mean(0), flat.std(0)])


def luminance(rgb: np.ndarray) -> np.ndarray:
    """``0.299 R + 0.587 G + 0.114 B`` (ITU-R BT.601): (..., 3) -> (...)."""
    return rgb @ np.array([0.299, 0.587, 0.114], rgb.dtype)


def oriented_gradients(grey: np.ndarray, cell: int = 8, n_bins: int = 9) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs 2005, R-HOG with 2 x 2 blocks, L2 norm).

    Gradients are differences of the two neighbours. Each pixel votes with its magnitude for the
    two nearest of ``n_bins`` unsigned orientations, in its cell of ``cell`` x ``cell`` pixels.
    Blocks of 2 x 2 cells overlap by one cell and are scaled to unit length; a block without
    gradient stays zero, so the scale of the picture drops out.

    Parameters
    ----------
    grey : (height, width), multiples of ``cell``

    Returns
    -------
    ((height / cell - 1) * (width / cell - 1) * 4 * n_bins,)
    """
    padded = np.pad(grey.astype(float), 1, mode="edge")
    dx = padded[1:-1, 2:] - padded[1:-1, :-2]
    dy = padded[2:, 1:-1] - padded[:-2, 1:-1]
    magnitude = np.hypot(dx, dy)
    position = np.mod(np.arctan2(dy, dx), np.pi) / np.pi * n_bins - 0.5
    low = np.floor(position).astype(int)
    share = position - low
    rows, columns = (n // cell for n in grey.shape)
    y, x = np.indices(grey.shape) // cell
    cells = np.zeros((rows, columns, n_bins))
    np.add.at(cells, (y, x, low % n_bins), magnitude * (1 - share))
    np.add.at(cells, (y, x, (low + 1) % n_bins), magnitude * share)
    corners = (cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:])
    blocks = np.concatenate(corners, axis=2)
    norm = np.linalg.norm(blocks, axis=2, keepdims=True)
    return np.divide(blocks, norm, out=np.zeros_like(blocks), where=norm > 0).ravel()


@lru_cache(maxsize=4)
def gabor_bank(size: int, n_orientations: int = 8, n_scales: int = 4) -> np.ndarray:
    """Gabor filters in the frequency plane: (n_scales * n_orientations, size, size).

    Gaussians around ``f_s = 2^-s / 4`` cycles per pixel, ``s = 1 ... n_scales``, with a standard
    deviation of ``f_s / 3``, without the mean (the value at frequency 0 is set to 0).
    """
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    bank = []
    for scale in range(1, n_scales + 1):
        centre = 2.0**-scale / 4
        for k in range(n_orientations):
            angle = np.pi * k / n_orientations
            away = (fx - centre * np.cos(angle)) ** 2 + (fy - centre * np.sin(angle)) ** 2
            bank.append(np.exp(-away / (2 * (centre / 3) ** 2)))
    bank = np.stack(bank)
    bank[:, 0, 0] = 0
    return bank


def gabor_energy(grey: np.ndarray, grid: int = 8) -> np.ndarray:
    """Magnitude of the responses to :func:`gabor_bank`, averaged in ``grid`` x ``grid`` parts.

    ``E_k = mean over a part of |ifft2(fft2(grey) * G_k)|``: quadrature pairs of simple cells, as in
    Kay et al. (2008). A flat picture gives zeros.

    Parameters
    ----------
    grey : (size, size), size a multiple of ``grid``

    Returns
    -------
    (n_filters * grid * grid,)
    """
    size = len(grey)
    centred = grey.astype(float) - grey.mean()
    energy = np.abs(np.fft.ifft2(np.fft.fft2(centred) * gabor_bank(size)))
    parts = energy.reshape(len(energy), grid, size // grid, grid, size // grid)
    return parts.mean((2, 4)).ravel()
