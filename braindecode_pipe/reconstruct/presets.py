"""How a paper compares pictures: sizes, interpolation, normalisation, networks, as constants.

Sources: the public code of MindEye2 (evaluation notebook; its stored warning shows torchvision
0.16 or older, where tensors are resized without antialiasing) and of NeuroPictor, which differs in
the bicubic resize of what CLIP sees. Numbers under different presets are not comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.evaluate.reconstruction import Metric

Mode = Literal["bilinear", "bicubic"]
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
PIXELS, GREY, LITE = "pixels", "grey", "efficientnet-lite0"


@dataclass(frozen=True)
class View:
    """What a network sees of a picture: its size, how it got there, and the normalisation."""

    side: int
    mode: Mode = "bilinear"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Comparison:
    """One metric: the network, the node of it that is read, and the view."""

    metric: Metric
    network: str
    node: str
    view: View


@dataclass(frozen=True)
class Preset:
    """All comparisons of a paper.

    Attributes
    ----------
    name : str
    side : pictures and targets are first brought to this square [pixels]
    antialias : whether resizing averages where it shrinks
    comparisons : tuple of Comparison
    """

    name: str
    side: int
    antialias: bool
    comparisons: tuple[Comparison, ...]

    def record(self) -> dict[str, Any]:
        """All settings, for the output."""
        return asdict(self)


def _field(clip_mode: Mode, name: str) -> Preset:
    def of(metric: str, kind: Any, network: str, node: str, view: View) -> Comparison:
        return Comparison(Metric(metric, kind, f"{network} {node}".strip()), network, node, view)

    return Preset(
        name,
        256,
        False,
        (
            of("PixCorr", "correlation", PIXELS, "", View(425)),
            of("SSIM", "ssim", GREY, "", View(425)),
            of("AlexNet(2)", "two-way", "alexnet", "features.4", View(256, "bilinear", *_IMAGENET)),
            of("AlexNet(5)", "two-way", "alexnet", "features.11",
               View(256, "bilinear", *_IMAGENET)),
            of("Inception", "two-way", "inception_v3", "avgpool",
               View(342, "bilinear", *_IMAGENET)),
            of("CLIP", "two-way", "clip-vit-large-patch14", "image_embeds",
               View(224, clip_mode, *_CLIP)),
            of("EffNet-B", "distance", "efficientnet_b1", "avgpool",
               View(255, "bilinear", *_IMAGENET)),
            of("SwAV", "distance", "swav_resnet50", "avgpool", View(224, "bilinear", *_IMAGENET)),
        ),
    )  # fmt: skip


def _offline() -> Preset:
    """The eight metrics with EfficientNet-Lite0 in the place of all six networks."""
    view = View(224, "bilinear", *_LITE)
    nodes = {
        "AlexNet(2)": "blocks.2",
        "AlexNet(5)": "blocks.4",
        "Inception": "head",
        "CLIP": "logits",
        "EffNet-B": "head",
        "SwAV": "blocks.15",
    }
    kept, replaced = [], []
    for comparison in _field("bilinear", "").comparisons:
        metric = comparison.metric
        if metric.name not in nodes:
            kept.append(comparison)
            continue
        node = nodes[metric.name]
        name = f"Lite0 {node} {'distance' if metric.kind == 'distance' else 'two-way'}"
        replaced.append(
            Comparison(Metric(name, metric.kind, f"{LITE} {node}", metric.name), LITE, node, view)
        )
    return Preset("offline", 256, False, (*kept, *replaced))


PRESETS: Mapping[str, Preset] = {
    "mindeye2": _field("bilinear", "mindeye2"),
    "neuropictor": _field("bicubic", "neuropictor"),
    "offline": _offline(),
}


def preset_of(name: str) -> Preset:
    """The preset of that name.

    Raises
    ------
    RecipeError
        There is none.
    """
    if name not in PRESETS:
        raise RecipeError("no such preset of metrics", expected=", ".join(PRESETS), found=name)
    return PRESETS[name]
