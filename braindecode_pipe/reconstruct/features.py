"""Pictures to what the metrics compare: pixels, luminance, features of networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from braindecode_pipe.embed.packaged import EfficientNetLite0Model
from braindecode_pipe.errors import DataError, ModelError
from braindecode_pipe.evaluate.reconstruction import Pool, grey, score_matrix, score_own
from braindecode_pipe.reconstruct.presets import GREY, LITE, PIXELS, Comparison, Preset, View

_FILES = {
    "alexnet": ("imagenet", "AlexNet"),
    "inception_v3": ("inception", "InceptionV3"),
    "efficientnet_b1": ("imagenet", "EfficientNetB1"),
    "swav_resnet50": ("imagenet", "ResNet50"),
}
_CLIP = "clip-vit-large-patch14"
_CLIP_ID = "openai/clip-vit-large-patch14"


class Lite0:
    """The packaged EfficientNet-Lite0, read at any block."""

    def __init__(self) -> None:
        self.network = EfficientNetLite0Model().network()

    def nodes(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """``blocks.k`` (n, c, h, w), ``head`` (n, 1280), ``logits`` (n, 1000)."""
        net, found = self.network, {}
        x = F.relu6(net._bn0(net._conv_stem(x)))
        for number, block in enumerate(net._blocks):
            x = block(x)
            if f"blocks.{number}" in wanted:
                found[f"blocks.{number}"] = x
        head = F.relu6(net._bn1(net._conv_head(x))).mean((2, 3))
        return {**found, "head": head, "logits": net._fc(head)}


class Clip:
    """The image half of CLIP, by ``transformers``, from a folder or the local cache."""

    def __init__(self, source: Path | str) -> None:
        try:
            from transformers import CLIPVisionModelWithProjection

            self.network = CLIPVisionModelWithProjection.from_pretrained(
                str(source), local_files_only=True, use_safetensors=True
            ).eval()
        except (ImportError, OSError, ValueError) as error:
            raise ModelError(
                "CLIP cannot be loaded", file=source,
                expected="a folder of transformers with safetensors, and the library",
                found=str(error).splitlines()[0],
                remedy=f"braindecode-pipe fetch model:{_CLIP_ID} FOLDER/{_CLIP}",
            ) from error  # fmt: skip

    def nodes(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """``image_embeds`` (n, 768)."""
        return {"image_embeds": self.network(pixel_values=x).image_embeds}


class FeatureNetworks:
    """Networks of the metrics, each loaded when it is first needed.

    Parameters
    ----------
    folder : with ``alexnet.safetensors``, ``inception_v3.safetensors``,
        ``efficientnet_b1.safetensors``, ``swav_resnet50.safetensors`` (state dicts by torchvision's
        names, see :func:`convert`) and the folder ``clip-vit-large-patch14``; CLIP may be in the
        cache of the Hugging Face hub instead. None: the packaged network only.
    device : of torch
    """

    def __init__(self, folder: str | Path | None = None, device: str = "cpu") -> None:
        self.folder = None if not folder else Path(folder)
        self.device = device
        self._loaded: dict[str, Any] = {}
        if self.folder is not None and not self.folder.is_dir():
            raise ModelError(
                "the folder of the metrics' networks is missing",
                file=self.folder, expected="a folder", found="nothing",
            )  # fmt: skip

    def nodes(self, network: str, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """What a network makes of prepared pictures, by node."""
        if network not in self._loaded:
            self._loaded[network] = self._load(network)
        return self._loaded[network].nodes(x.to(self.device), wanted)

    def _load(self, network: str) -> Any:
        if network == LITE:
            loaded: Any = Lite0()
            loaded.network.to(self.device)
            return loaded
        if network == _CLIP:
            own = None if self.folder is None else self.folder / _CLIP
            loaded = Clip(own if own is not None and own.is_dir() else _CLIP_ID)
            loaded.network.to(self.device)
            return loaded
        if self.folder is None:
            raise ModelError(
                f"the metrics of this preset need the network {network}",
                expected="a folder of converted weights", found="none",
                remedy='name it with reconstruct.networks, or metrics = "offline" for the packaged '
                "stand-in",
            )  # fmt: skip
        return load_weights(network, self.folder / f"{network}.safetensors").to(self.device)


def make_network(name: str) -> Any:
    """A network of the metrics without its weights."""
    from importlib import import_module

    module, cls = _FILES[name]
    return getattr(import_module(f"braindecode_pipe.networks.{module}"), cls)()


def load_weights(name: str, file: Path) -> Any:
    """A network with the weights of a safetensors file, in evaluation mode.

    Raises
    ------
    ModelError
        No such file, damaged, or keys that do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise ModelError(
            f"the weights of {name} are missing", file=file, expected="a safetensors file",
            found="nothing", remedy="braindecode_pipe.reconstruct.features.convert makes it from "
            "torchvision's checkpoint",
        )  # fmt: skip
    network = make_network(name)
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"the weights of {name} cannot be read", file=file, expected="a safetensors file",
            found=str(error),
        ) from error  # fmt: skip
    weights = {k: v for k, v in weights.items() if not k.startswith(network.ignored)}
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ModelError(
            f"these are not the weights of {name}", file=file,
            expected="keys and shapes of torchvision's network",
            found=" ".join(str(error).split())[:300],
        ) from error  # fmt: skip
    return network.eval()


def convert(checkpoint: str | Path, name: str, folder: str | Path) -> Path:
    """Write ``folder/<name>.safetensors`` from a checkpoint of torchvision or of SwAV.

    The checkpoint is read by torch's weights-only loader, which runs nothing that is in it.
    """
    from safetensors.torch import save_file

    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = weights.get("state_dict", weights)
    weights = {k.removeprefix("module."): v.contiguous() for k, v in weights.items()}
    network = make_network(name)
    weights = {k: v for k, v in weights.items() if not k.startswith(network.ignored)}
    network.load_state_dict(weights, strict=True)
    file = Path(folder) / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, file)
    return file


def resized(pictures: Tensor, side: int, mode: str, antialias: bool) -> Tensor:
    """(n, 3, h, w) -> (n, 3, side, side); what has that size already stays as it is."""
    if pictures.shape[-2:] == (side, side):
        return pictures
    size = (side, side)
    done = F.interpolate(pictures, size, mode=mode, align_corners=False, antialias=antialias)
    # Cubic weights overshoot; pictures have no values beyond black and white.
    return done.clamp(0, 1) if mode == "bicubic" else done


def seen(pictures: Tensor, view: View, antialias: bool) -> Tensor:
    """What a network sees of square pictures (n, 3, side, side) in 0 to 1."""
    x = resized(pictures, view.side, view.mode, antialias)
    mean, std = (x.new_tensor(v)[:, None, None] for v in (view.mean, view.std))
    return (x - mean) / std


def describe(
    preset: Preset, pictures: np.ndarray, networks: FeatureNetworks, batch: int = 16
) -> dict[str, np.ndarray]:
    """Features of pictures, by name of the metric.

    Parameters
    ----------
    preset : Preset
    pictures : (n, height, width, 3) uint8
    networks : FeatureNetworks
    batch : pictures at a time

    Returns
    -------
    metric -> (n, n_features) float32; for SSIM (n, side, side)

    Raises
    ------
    DataError
        Another shape or type.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise DataError(
            "these are no pictures", expected="(n, height, width, 3) of 8 bits",
            found=f"{pictures.shape} of {pictures.dtype}",
        )  # fmt: skip
    parts: dict[str, list[np.ndarray]] = {c.metric.name: [] for c in preset.comparisons}
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            x = torch.from_numpy(pictures[start : start + batch]).permute(0, 3, 1, 2) / 255
            x = resized(x, preset.side, "bilinear", preset.antialias)
            for group in _together(preset.comparisons):
                found = _nodes(group, seen(x, group[0].view, preset.antialias), networks)
                for comparison in group:
                    parts[comparison.metric.name].append(found[comparison.node])
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _together(comparisons: Sequence[Comparison]) -> Iterator[list[Comparison]]:
    """Comparisons by network and view, which one pass serves."""
    groups: dict[Any, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault((comparison.network, comparison.view), []).append(comparison)
    yield from groups.values()


def _nodes(
    group: Sequence[Comparison], x: Tensor, networks: FeatureNetworks
) -> dict[str, np.ndarray]:
    network = group[0].network
    if network == PIXELS:
        return {"": x.flatten(1).numpy()}
    if network == GREY:
        return {"": grey(x.permute(0, 2, 3, 1).double().numpy()).astype(np.float32)}
    found = networks.nodes(network, x, [c.node for c in group])
    return {c.node: found[c.node].flatten(1).float().cpu().numpy() for c in group}


def score_pictures(
    preset: Preset,
    pictures: np.ndarray,
    targets: np.ndarray,
    networks: FeatureNetworks,
    controls: Mapping[str, np.ndarray] | None = None,
) -> Pool:
    """Every metric of pictures for every target, and of controls for their own.

    Parameters
    ----------
    pictures, targets : (n, height, width, 3) uint8
    controls : name -> pictures like ``pictures``
    """
    theirs = describe(preset, targets, networks)

    def scores(made: np.ndarray, score: Any) -> dict[str, np.ndarray]:
        features = describe(preset, made, networks)
        return {
            c.metric.name: score(c.metric, features[c.metric.name], theirs[c.metric.name])
            for c in preset.comparisons
        }

    others = {name: scores(made, score_own) for name, made in (controls or {}).items()}
    return Pool(scores(pictures, score_matrix), others)
