"""Inception v3 (Szegedy et al. 2016) up to its average pooling, by torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SEVEN_WIDE: dict[str, Any] = {"kernel_size": (1, 7), "padding": (0, 3)}
_SEVEN_HIGH: dict[str, Any] = {"kernel_size": (7, 1), "padding": (3, 0)}
_THREE_WIDE: dict[str, Any] = {"kernel_size": (1, 3), "padding": (0, 1)}
_THREE_HIGH: dict[str, Any] = {"kernel_size": (3, 1), "padding": (1, 0)}


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel_size: Any = 1, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, bias=False, **options)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _pooled(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1)


class InceptionA(nn.Module):
    """Windows of 1, 3 and 5 side by side."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64)
        self.branch5x5_1 = BasicConv2d(inputs, 48)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.branch_pool = BasicConv2d(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_pooled(x))], 1)


class InceptionB(nn.Module):
    """Half the size, by strides and by pooling."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """Windows of 7, as rows and columns."""

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 192)
        self.branch7x7_1 = BasicConv2d(inputs, inner)
        self.branch7x7_2 = BasicConv2d(inner, inner, **_SEVEN_WIDE)
        self.branch7x7_3 = BasicConv2d(inner, 192, **_SEVEN_HIGH)
        self.branch7x7dbl_1 = BasicConv2d(inputs, inner)
        self.branch7x7dbl_2 = BasicConv2d(inner, inner, **_SEVEN_HIGH)
        self.branch7x7dbl_3 = BasicConv2d(inner, inner, **_SEVEN_WIDE)
        self.branch7x7dbl_4 = BasicConv2d(inner, inner, **_SEVEN_HIGH)
        self.branch7x7dbl_5 = BasicConv2d(inner, 192, **_SEVEN_WIDE)
        self.branch_pool = BasicConv2d(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_pooled(x))], 1)


class InceptionD(nn.Module):
    """Half the size again."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(inputs, 192)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(inputs, 192)
        self.branch7x7x3_2 = BasicConv2d(192, 192, **_SEVEN_WIDE)
        self.branch7x7x3_3 = BasicConv2d(192, 192, **_SEVEN_HIGH)
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    """Rows and columns of 3 that end side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 320)
        self.branch3x3_1 = BasicConv2d(inputs, 384)
        self.branch3x3_2a = BasicConv2d(384, 384, **_THREE_WIDE)
        self.branch3x3_2b = BasicConv2d(384, 384, **_THREE_HIGH)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, **_THREE_WIDE)
        self.branch3x3dbl_3b = BasicConv2d(384, 384, **_THREE_HIGH)
        self.branch_pool = BasicConv2d(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(single), self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double),
                self.branch_pool(_pooled(x)),
            ],
            1,
        )  # fmt: skip


class InceptionV3(nn.Module):
    """Inception v3 up to ``avgpool``: 21,785,568 parameters, without auxiliary classifier.

    torchvision's released network moves inputs from ImageNet's normalisation to values of mean
    and deviation .5 before its first layer; so does this one.
    """

    ignored = ("fc.", "AuxLogits.")

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c = InceptionA(192, 32), InceptionA(256, 64)
        self.Mixed_5d, self.Mixed_6a = InceptionA(288, 64), InceptionB(288)
        self.Mixed_6b, self.Mixed_6c = InceptionC(768, 128), InceptionC(768, 160)
        self.Mixed_6d, self.Mixed_6e = InceptionC(768, 160), InceptionC(768, 192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b, self.Mixed_7c = InceptionE(1280), InceptionE(2048)

    def nodes(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """(n, 3, h, w), a side of 75 pixels or more -> ``avgpool`` (n, 2048)."""
        scale = x.new_tensor([0.229, 0.224, 0.225])[:, None, None] / 0.5
        shift = (x.new_tensor([0.485, 0.456, 0.406])[:, None, None] - 0.5) / 0.5
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x * scale + shift)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(self, f"Mixed_{name}")(x)
        return {"avgpool": x.mean((2, 3))}
