"""Convolutions that take a signal of one sensor down to a few steps, and back up.

The encoder and decoder of SEANet as neural codecs use them (Tagliasacchi et al. 2020, arXiv
2009.02095; Zeghidour et al. 2021, arXiv 2107.03312; Defossez et al. 2022, arXiv 2210.13438, section
3.1), without causality. Activations lie as ``(rows, n_times, n_channels)`` in memory, so that
convolutions are matrix products without copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, elu, linear, pad

from braindecode_pipe.errors import ModelError

# Rows that go through the network at a time without gradients: their activations fit the caches.
ROWS = 32


class _Normed(nn.Module):
    """Weights as direction times length: ``w = g v / |v|`` along the first axis (1602.07868)."""

    def __init__(self, shape: tuple[int, int, int], n_out: int, fan_in: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(fan_in)
        self.direction = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        length = self.direction.detach().norm(dim=(1, 2), keepdim=True)
        self.length = nn.Parameter(length)
        self.bias = nn.Parameter(torch.empty(n_out).uniform_(-bound, bound))
        self._folded: Tensor | None = None

    def weight(self) -> Tensor:
        """What the layer multiplies with."""
        if self._folded is not None:
            return self._folded
        size = self.direction.norm(dim=(1, 2), keepdim=True)
        return self._laid(self.direction * (self.length / size))

    def _laid(self, weight: Tensor) -> Tensor:
        return weight


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Weights are computed once for as long as this lasts. Without gradients only."""
    layers = [layer for layer in network.modules() if isinstance(layer, _Normed)]
    try:
        for layer in layers:
            weight = layer.weight()
            if torch.is_autocast_enabled(weight.device.type):
                weight = weight.to(torch.get_autocast_dtype(weight.device.type))
            layer._folded = weight
        yield
    finally:
        for layer in layers:
            layer._folded = None


def _reflected(x: Tensor, left: int, right: int) -> Tensor:
    """``x (rows, n_times, n_channels)`` with its mirror image before and behind."""
    n = x.shape[1]
    parts = [x[:, 1 : left + 1].flip(1), x, x[:, n - 1 - right : n - 1].flip(1)]
    return torch.cat(parts, dim=1)


class _Convolution(_Normed):
    """Convolution of odd width that keeps the length; ends are mirrored."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__((n_out, n_in, kernel), n_out, n_in * kernel)
        self.reach = kernel // 2

    def _laid(self, weight: Tensor) -> Tensor:
        if not self.reach:
            return weight[:, :, 0]
        return weight[:, :, None].contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor, active: bool = False) -> Tensor:
        """Of ``elu(x)`` with ``active``."""
        if not self.reach:
            return linear(elu(x) if active else x, self.weight(), self.bias)
        x = _reflected(x, self.reach, self.reach)
        x = elu(x, inplace=True) if active else x
        out = conv2d(x.transpose(1, 2)[:, :, None], self.weight(), self.bias)
        return out[:, :, 0].transpose(1, 2)


class _Down(_Normed):
    """Convolution of width ``2 r`` in steps of ``r``: products with blocks of ``r`` samples.

    A step is the first half of the kernel on one block and the second half on the next, so one
    matrix product with both halves does it.
    """

    def __init__(self, n_in: int, n_out: int, ratio: int) -> None:
        super().__init__((n_out, n_in, 2 * ratio), n_out, n_in * 2 * ratio)
        self.ratio = ratio

    def _laid(self, weight: Tensor) -> Tensor:
        n_out, n_in, _ = weight.shape
        halves = weight.view(n_out, n_in, 2, self.ratio).permute(2, 0, 3, 1)
        return halves.reshape(2 * n_out, self.ratio * n_in)

    def forward(self, x: Tensor) -> Tensor:
        right = self.ratio // 2
        x = elu(_reflected(x, self.ratio - right, right), inplace=True)
        blocks = x.reshape(len(x), -1, self.ratio * x.shape[2])
        bias = pad(self.bias, (0, len(self.bias)))
        first, second = linear(blocks, self.weight(), bias).chunk(2, dim=-1)
        return first[:, :-1] + second[:, 1:]


class _Up(_Normed):
    """Transposed convolution of width ``2 r`` in steps of ``r``; the mirror image of ``_Down``."""

    def __init__(self, n_in: int, n_out: int, ratio: int) -> None:
        super().__init__((n_in, n_out, 2 * ratio), n_out, n_out * 2 * ratio)
        self.ratio = ratio

    def _laid(self, weight: Tensor) -> Tensor:
        n_in, n_out, _ = weight.shape
        return weight.permute(2, 1, 0).reshape(2 * self.ratio * n_out, n_in)

    def forward(self, x: Tensor) -> Tensor:
        rows, steps, _ = x.shape
        first, second = linear(elu(x), self.weight()).chunk(2, dim=-1)
        blocks = pad(first, (0, 0, 0, 1)) + pad(second, (0, 0, 1, 0))
        out = blocks.view(rows, (steps + 1) * self.ratio, -1)
        start = self.ratio - self.ratio // 2
        return out[:, start : start + steps * self.ratio] + self.bias.to(out.dtype)


class _Residual(nn.Module):
    """``S x + B elu(A elu(x))``: a convolution of width 3 to half of the channels, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = _Convolution(width, width // 2, 3)
        self.widen = _Convolution(width // 2, width, 1)
        self.shortcut = _Convolution(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = elu(self.narrow(x, active=True), inplace=True)
        return self.shortcut(x).add_(self.widen(hidden))


class _Recurrent(nn.LSTM):
    """``x + lstm(x)`` of two layers."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        # The recurrence runs with time first; products want rows first.
        return (x + super().forward(x)[0]).contiguous()


def _in_blocks(
    network: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...], rows: int
) -> Tensor:
    """``network`` over the rows of ``x``, a few at a time where no gradient needs them all."""
    if torch.is_grad_enabled():
        return network(x)
    out = None
    for start in range(0, len(x), rows):
        part = network(x[start : start + rows])
        if out is None:
            out = part.new_empty(len(x), *shape)
        out[start : start + rows] = part
    return x.new_zeros(0, *shape) if out is None else out


class SeaNetEncoder(nn.Module):
    """Signals of single sensors to steps of features.

    Convolution -> for each ratio, last to first: residual block, convolution in steps of the ratio
    to twice the channels -> two recurrent layers -> convolution. 2,045,632 parameters with 32
    filters, ratios 8, 4, 2, kernel 5 and width 256.

    Parameters
    ----------
    width : int, features of a step
    n_filters : int, channels before the first ratio
    ratios : the product is the number of samples per step
    kernel : int, odd, of the first and the last convolution
    """

    def __init__(
        self,
        width: int = 256,
        n_filters: int = 32,
        ratios: Sequence[int] = (8, 4, 2),
        kernel: int = 5,
    ) -> None:
        super().__init__()
        _check(n_filters, kernel)
        self.hop = math.prod(ratios)
        channels, stages = n_filters, []
        for ratio in reversed(ratios):
            stages += [_Residual(channels), _Down(channels, 2 * channels, ratio)]
            channels *= 2
        self.first = _Convolution(1, n_filters, kernel)
        self.stages = nn.Sequential(*stages)
        self.recurrent = _Recurrent(channels)
        self.last = _Convolution(channels, width, kernel)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, n_times)`` to ``(rows, n_times / hop, width)``."""
        return _in_blocks(self._whole, x, (x.shape[1] // self.hop, self.width), ROWS)

    def _whole(self, x: Tensor) -> Tensor:
        x = self.stages(self.first(x[:, :, None]))
        return self.last(self.recurrent(x), active=True)


class SeaNetDecoder(nn.Module):
    """Steps of features to signals: :class:`SeaNetEncoder` in the opposite order.

    2,045,346 parameters with the settings above.
    """

    def __init__(
        self,
        width: int = 256,
        n_filters: int = 32,
        ratios: Sequence[int] = (8, 4, 2),
        kernel: int = 5,
    ) -> None:
        super().__init__()
        _check(n_filters, kernel)
        self.hop = math.prod(ratios)
        channels = n_filters * 2 ** len(ratios)
        self.first = _Convolution(width, channels, kernel)
        self.recurrent = _Recurrent(channels)
        stages = []
        for ratio in ratios:
            stages += [_Up(channels, channels // 2, ratio), _Residual(channels // 2)]
            channels //= 2
        self.stages = nn.Sequential(*stages)
        self.last = _Convolution(n_filters, 1, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, n_steps, width)`` to ``(rows, n_steps * hop)``."""
        return _in_blocks(self._whole, x, (x.shape[1] * self.hop,), ROWS)

    def _whole(self, x: Tensor) -> Tensor:
        x = self.stages(self.recurrent(self.first(x)))
        return self.last(x, active=True)[:, :, 0]


def _check(n_filters: int, kernel: int) -> None:
    if n_filters % 2 or kernel % 2 == 0:
        raise ModelError(
            "these convolutions cannot be built",
            expected="an even n_filters and an odd kernel",
            found=f"n_filters = {n_filters}, kernel = {kernel}",
        )
