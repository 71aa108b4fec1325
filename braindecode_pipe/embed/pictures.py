"""Pictures and frames of videos, read safely as 8-bit RGB.

Videos are what Pillow decodes by itself: animated GIF, PNG, WebP, TIFF, or a folder with one
picture per frame, in the order of their names. Films of other formats are cut into such a folder
beforehand (``ffmpeg -i film.mp4 frames/%06d.png``): no decoder of films is a dependency.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from braindecode_pipe.embed.interface import Item
from braindecode_pipe.errors import StimulusError

if TYPE_CHECKING:
    from PIL import Image

MOST_FRAMES = 20_000
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")


def read_image(item: Item) -> Image.Image:
    """The picture of an item as 8-bit RGB, the right way up.

    EXIF rotation is applied; CMYK, palette and grey pictures are converted; 16-bit grey is scaled
    to 8 bit (Pillow alone clips it); transparent pixels are laid over white.

    Parameters
    ----------
    item : Item
        Its value is a path or a PIL image.

    Raises
    ------
    StimulusError
        The file is missing, cannot be decoded to its end, has several frames, or has more pixels
        than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    from PIL import Image, ImageOps

    if isinstance(item.value, Image.Image):
        return _to_rgb(ImageOps.exif_transpose(item.value), item)
    path = Path(item.value)
    if not path.is_file():
        raise StimulusError(
            f"{item.name}: the picture is missing", file=path, expected="a file", found="nothing"
        )
    with _opened(path, item.name) as picture:
        frames = _n_frames(picture)
        if frames > 1:
            raise StimulusError(
                f"{item.name}: the picture has several frames",
                file=path,
                expected="one frame",
                found=f"{frames} frames",
                remedy="save the frame that was shown as PNG; or [plan.stimuli.<target>] kind = "
                '"video"',
            )
        picture.load()
        return _to_rgb(ImageOps.exif_transpose(picture), item)


def read_frames(
    item: Item, n_frames: int, fps: float = 0.0
) -> tuple[list[Image.Image], np.ndarray]:
    """Frames of a video, evenly spaced, and their times.

    Of ``n`` frames those with the numbers ``floor((k + 1/2) n / n_frames)`` are taken, each once.

    Parameters
    ----------
    item : Item
        Its value is a path (animated file, or folder of pictures) or a list of PIL images.
    n_frames : int
        At most so many frames.
    fps : float
        Rate of a folder or list [Hz]; 0 where it is not known. Animated files carry their times.

    Returns
    -------
    frames : list of RGB pictures
    times : (len(frames),) middle of each frame [s] from the beginning; NaN where not known

    Raises
    ------
    StimulusError
        Missing, without frames, or a frame that :func:`read_image` refuses.
    """
    if isinstance(item.value, list):
        chosen = _spread(len(item.value), n_frames)
        found = [read_image(Item(item.name, item.value[k])) for k in chosen]
        return found, _folder_times(chosen, fps)
    path = Path(item.value)
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES)
        if not files:
            raise StimulusError(
                f"{item.name}: a video without frames", file=path,
                expected="pictures, one per frame", found="none",
            )  # fmt: skip
        chosen = _spread(len(files), n_frames)
        return [read_image(Item(item.name, files[k])) for k in chosen], _folder_times(chosen, fps)
    if not path.is_file():
        raise StimulusError(
            f"{item.name}: the video is missing", file=path,
            expected="an animated picture or a folder of frames", found="nothing",
        )  # fmt: skip
    frames, middles, begin = [], [], 0.0
    with _opened(path, item.name) as film:
        n = _n_frames(film)
        if n > MOST_FRAMES:
            raise StimulusError(
                f"{item.name}: the video has too many frames", file=path,
                expected=f"at most {MOST_FRAMES}", found=str(n), remedy="cut it into pieces",
            )  # fmt: skip
        chosen = set(_spread(n, n_frames))
        for number in range(n):
            film.seek(number)
            film.load()
            length = float(film.info.get("duration") or 0) / 1000
            if number in chosen:
                frames.append(_to_rgb(film.copy(), item))
                middles.append(begin + length / 2)
            begin += length
    return frames, np.asarray(middles if begin > 0 else [np.nan] * len(frames))


def _spread(n: int, n_frames: int) -> list[int]:
    taken = min(n, n_frames)
    return [(2 * k + 1) * n // (2 * taken) for k in range(taken)]


def _folder_times(chosen: list[int], fps: float) -> np.ndarray:
    return (np.asarray(chosen) + 0.5) / fps if fps > 0 else np.full(len(chosen), np.nan)


def _n_frames(picture: Image.Image) -> int:
    # Phones write JPEG with a preview as second frame (MPO): the first is the picture.
    return 1 if picture.format == "MPO" else int(getattr(picture, "n_frames", 1))


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Image.Image]:
    """An opened picture file; whatever Pillow has against it becomes a StimulusError."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Damaged metadata is no damage of the picture.
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            with Image.open(path) as picture:
                yield picture
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise StimulusError(
            f"{name}: the picture has too many pixels",
            file=path,
            expected=f"at most {Image.MAX_IMAGE_PIXELS} pixels",
            found=str(error).split(", could")[0],
            remedy="scale the picture down",
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise StimulusError(
            f"{name}: the picture cannot be decoded",
            file=path,
            expected="a whole picture file (PNG, JPEG, ...)",
            found=str(error) or type(error).__name__,
        ) from error


def _to_rgb(picture: Image.Image, item: Item) -> Image.Image:
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.asarray(picture)
        # Mode I holds 16-bit PNGs of older Pillow versions; real 32-bit and float have no white.
        if picture.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise StimulusError(
                f"{item.name}: the picture has no known white level",
                expected="8 or 16 bits per sample",
                found=f"mode {picture.mode}, values {values.min():g} to {values.max():g}",
                remedy="save it as 8-bit PNG",
            )
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")
