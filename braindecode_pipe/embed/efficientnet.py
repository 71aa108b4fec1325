"""EfficientNet-Lite0: no squeeze-and-excitation, ReLU6 in place of swish.

Source: Tan and Le 2019; the Lite variants of ``tensorflow/tpu``. Convolutions pad as TensorFlow's
"SAME" does, unevenly where stride and size ask for it. Module names are those of the released
checkpoint, so that it loads with ``strict=True``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

# (repeats, kernel, stride of the first, expansion, output channels)
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding: output size ``ceil(input / stride)``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(x, padding))


class InvertedResidual(nn.Module):
    """Expand, convolve per channel, project; plus the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion > 1
        self.skips = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """The network up to its 1000 ImageNet logits (4.65 million parameters)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, _STEM, 3, 2, bias=False)
        self._bn0 = _norm(_STEM)
        blocks, inputs = [], _STEM
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for repeat in range(repeats):
                first = repeat == 0
                blocks.append(
                    InvertedResidual(inputs, outputs, kernel, stride if first else 1, expansion)
                )
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(inputs, _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, 1000)

    @property
    def depth(self) -> int:
        """Number of the last layer: 0 is the stem, then the blocks, then the head."""
        return len(self._blocks) + 1

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Every layer averaged over space: (n, 3, 224, 224) -> ``depth + 1`` times (n, channels).

        The last one, 1280 wide, is what the classifier reads.
        """
        x = F.relu6(self._bn0(self._conv_stem(x)))
        pooled = [x.mean((2, 3))]
        for block in self._blocks:
            x = block(x)
            pooled.append(x.mean((2, 3)))
        x = F.relu6(self._bn1(self._conv_head(x)))
        pooled.append(x.mean((2, 3)))
        return pooled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 1000) in the order of ILSVRC-2012."""
        return self._fc(self.features(x)[-1])
