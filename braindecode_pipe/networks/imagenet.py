"""Networks whose features compare pictures: AlexNet, ResNet-50 and EfficientNet-B1.

Names of modules are those of the checkpoints that torchvision publishes, so that these load with
all their keys; classifiers are left out. ``nodes(x, wanted)`` gives what a metric reads, by name
of the node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AlexNet(nn.Module):
    """The convolutions of AlexNet (Krizhevsky 2014): 2,469,696 parameters.

    Nodes are ``features.0`` to ``features.12``; ``features.4`` and ``features.11`` are the second
    and the fifth layer after their ReLU.
    """

    ignored = ("classifier.",)

    def __init__(self) -> None:
        super().__init__()
        self.features: nn.Module = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip

    def nodes(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """(n, 3, h, w) -> node -> (n, ...)."""
        found = {}
        for number, layer in enumerate(self.features):
            x = layer(x)
            if f"features.{number}" in wanted:
                found[f"features.{number}"] = x
        return found


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride), 1 x 1, plus the input."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """ResNet-50 (He et al. 2016, stride in the 3 x 3) up to ``avgpool``: 23,508,032 parameters.

    SwAV's released network has these names too; its projection head is left out.
    """

    ignored = ("fc.", "projection_head.", "prototypes.")

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for number, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
            blocks = []
            for k in range(depth):
                blocks.append(Bottleneck(inputs, width, 2 if k == 0 and number > 1 else 1))
                inputs = 4 * width
            setattr(self, f"layer{number}", nn.Sequential(*blocks))

    def nodes(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """(n, 3, h, w) -> ``avgpool`` (n, 2048)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return {"avgpool": x.mean((2, 3))}


# EfficientNet-B1: (expansion, kernel, stride, output channels, depth), depths of B0 times 1.1.
_B1 = (
    (1, 3, 1, 16, 2), (6, 3, 2, 24, 3), (6, 5, 2, 40, 3), (6, 3, 2, 80, 4), (6, 5, 1, 112, 4),
    (6, 5, 2, 192, 5), (6, 3, 1, 320, 2),
)  # fmt: skip


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.SiLU()] if active else []))


class Squeeze(nn.Module):
    """Squeeze and excitation: channels weighted by what all of them are in the mean."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(weight)


class MobileBlock(nn.Module):
    """Expand, convolve per channel, weigh channels, project; plus the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = [_convolution(inputs, inner, 1)] if expansion > 1 else []
        layers += [
            _convolution(inner, inner, kernel, stride, groups=inner),
            Squeeze(inner, max(1, inputs // 4)),
            _convolution(inner, outputs, 1, active=False),
        ]
        self.block = nn.Sequential(*layers)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + y if self.skips else y


class EfficientNetB1(nn.Module):
    """EfficientNet-B1 (Tan and Le 2019) up to ``avgpool``: 6,513,184 parameters."""

    ignored = ("classifier.",)

    def __init__(self) -> None:
        super().__init__()
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        stages["0"] = _convolution(3, 32, 3, 2)
        inputs = 32
        for number, (expansion, kernel, stride, outputs, depth) in enumerate(_B1, 1):
            blocks = []
            for k in range(depth):
                blocks.append(MobileBlock(inputs, outputs, kernel, 1 if k else stride, expansion))
                inputs = outputs
            stages[str(number)] = nn.Sequential(*blocks)
        stages[str(len(_B1) + 1)] = _convolution(inputs, 1280, 1)
        self.features = nn.Sequential(stages)

    def nodes(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """(n, 3, h, w) -> ``avgpool`` (n, 1280)."""
        return {"avgpool": self.features(x).mean((2, 3))}
