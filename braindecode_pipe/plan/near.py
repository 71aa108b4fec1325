"""Pictures that look nearly the same, found without a model: they stay together in a split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import StimulusError

_SIDE = 32


def near_groups(paths: Sequence[Path], ids: Sequence[str], threshold: float) -> list[str]:
    """Group of each picture: the smallest id among those that it is chained to by likeness.

    Two pictures are alike when the correlation of their grey 32 x 32 thumbnails is at least
    ``threshold``. Flat pictures, which have no correlation, are alike when they have one grey.

    Parameters
    ----------
    paths, ids : of length n_pictures
    threshold : in (0, 1]

    Raises
    ------
    StimulusError : a picture that cannot be decoded
    """
    thumbnails = np.stack([_thumbnail(path) for path in paths])
    centred = thumbnails - thumbnails.mean(1, keepdims=True)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = size[:, 0] == 0
    unit = np.divide(centred, size, out=np.zeros_like(centred), where=size > 0)
    group = np.arange(len(paths))

    def root(k: int) -> int:
        while group[k] != k:
            group[k] = group[group[k]]
            k = int(group[k])
        return k

    for row in range(len(paths)):
        alike = unit[row + 1 :] @ unit[row] >= threshold
        if flat[row]:
            alike = flat[row + 1 :] & (thumbnails[row + 1 :, 0] == thumbnails[row, 0])
        for other in np.flatnonzero(alike) + row + 1:
            group[root(int(other))] = root(row)
    roots = [root(k) for k in range(len(paths))]
    smallest: dict[int, str] = {}
    for k, name in zip(roots, ids):
        smallest[k] = min(smallest.get(k, name), name)
    return [smallest[k] for k in roots]


def _thumbnail(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            with Image.open(path) as picture:
                layer = ImageOps.exif_transpose(picture).convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        grey = Image.alpha_composite(white, layer).convert("L")
        small = grey.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, OSError, SyntaxError,
            ValueError, EOFError) as error:  # fmt: skip
        raise StimulusError(
            "a picture cannot be decoded", file=path, expected="a whole picture file",
            found=str(error) or type(error).__name__,
        ) from error  # fmt: skip
    return np.asarray(small, np.float32).ravel()
