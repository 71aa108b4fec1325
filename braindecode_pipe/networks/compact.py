"""Small encoders of EEG and MEG windows with a fixed set of sensors: EEGNet, NICE, ATM.

Their spatial convolutions have one weight per sensor, so that all recordings must share their
sensors: a missing one is masked (zero), another montage is refused. With ``n_virtual`` the
attention over positions of Defossez et al. stands before them and any montage will do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.blocks import SpatialAttention
from braindecode_pipe.networks.normalization import BatchNorm2d


class _Sensors(nn.Module):
    """Windows with the sensors that the network has weights for."""

    def __init__(self, n_sensors: int, n_virtual: int, n_fourier: int) -> None:
        super().__init__()
        self.n_sensors = n_sensors
        self.attention = SpatialAttention(n_virtual, n_fourier) if n_virtual else None
        self.n_out = n_virtual or n_sensors

    def forward(self, x: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.attention is not None:
            if positions is None:
                raise ModelError(
                    "attention over positions without positions",
                    expected="positions (batch, n_sensors, 2)",
                    found="None",
                )
            return self.attention(x, positions, mask)
        if x.shape[1] != self.n_sensors:
            raise ModelError(
                "windows with other sensors than the network has weights for",
                expected=f"{self.n_sensors} sensors",
                found=str(x.shape[1]),
                remedy="give the network n_virtual, so that any montage will do",
            )
        return x if mask is None else x * mask[..., None]


def _too_short(least: int, n_times: int, remedy: str) -> ModelError:
    return ModelError(
        "the window is too short for this network",
        expected=f"at least {least} samples",
        found=str(n_times),
        remedy=f"use longer windows, or give {remedy}",
    )


class _Projection(nn.Module):
    """Linear, then a residual Linear behind a GELU, then LayerNorm (NICE's projection)."""

    def __init__(self, n_in: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, n_out)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(n_out, n_out), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.norm(x + self.second(x))


class _TemporalSpatial(nn.Module):
    """Convolution over time, average pool, convolution over sensors, 1x1 convolution."""

    def __init__(
        self, n_sensors: int, width: int, kernel: int, pool: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, (1, kernel)),
            nn.AvgPool2d((1, pool), (1, stride)),
            BatchNorm2d(width),
            nn.ELU(),
            nn.Conv2d(width, width, (n_sensors, 1)),
            BatchNorm2d(width),
            nn.ELU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 1),
        )
        self._reach = kernel - 1 + pool
        self._stride = stride

    def n_steps(self, n_times: int) -> int:
        """Steps in time that come out for ``n_times`` samples."""
        steps = (n_times - self._reach) // self._stride + 1
        if steps < 1:
            raise _too_short(self._reach, n_times, "a smaller kernel or pool")
        return steps

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n_sensors, n_times)`` to ``(batch, n_steps * width)``."""
        return self.layers(x[:, None])[:, :, 0].transpose(1, 2).flatten(1)


class Nice(nn.Module):
    """Encoder of NICE (Song et al. 2024, arXiv 2308.13234, section 3.2).

    Convolution 1 x 25 -> average pool 51, stride 5 -> convolution over the sensors -> projection.
    With 63 sensors, 250 samples and 768 features: 103,680 + 1,698,816 parameters.

    Parameters
    ----------
    n_out, n_sensors, n_times : int
    width, kernel, pool, stride : int
    dropout : float
    n_virtual, n_fourier : int
        Attention over positions before the rest; 0: none, as in the paper.
    """

    def __init__(
        self,
        n_out: int,
        *,
        n_sensors: int,
        n_times: int,
        width: int = 40,
        kernel: int = 25,
        pool: int = 51,
        stride: int = 5,
        dropout: float = 0.5,
        n_virtual: int = 0,
        n_fourier: int = 288,
    ) -> None:
        super().__init__()
        self.sensors = _Sensors(n_sensors, n_virtual, n_fourier)
        self.encoder = _TemporalSpatial(self.sensors.n_out, width, kernel, pool, stride, dropout)
        self.projection = _Projection(width * self.encoder.n_steps(n_times), n_out, dropout)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        subject: Tensor | None = None,
    ) -> Tensor:
        """``(batch, n_sensors, n_times)`` to ``(batch, n_out)``; ``subject`` is not looked at."""
        return self.projection(self.encoder(self.sensors(x, positions, mask)))


class Atm(nn.Module):
    """Encoder of ATM (Li et al. 2024, arXiv 2403.07721, section 3.1).

    A sensor's window is a token; one learned token per person beside them -> transformer layer
    over the tokens -> :class:`Nice`. Heads have the width
    ``n_times // n_heads``, so that 250 samples go with 4 heads, as in the authors' code.

    Parameters
    ----------
    n_out, n_subjects, n_sensors, n_times : int
    n_heads, feedforward, width, kernel, pool, stride : int
    dropout : float, of the transformer layer
    conv_dropout : float, of the convolutions and the projection
    n_virtual, n_fourier : see :class:`Nice`
    """

    def __init__(
        self,
        n_out: int,
        n_subjects: int = 1,
        *,
        n_sensors: int,
        n_times: int,
        n_heads: int = 4,
        feedforward: int = 256,
        dropout: float = 0.25,
        width: int = 40,
        kernel: int = 25,
        pool: int = 51,
        stride: int = 5,
        conv_dropout: float = 0.5,
        n_virtual: int = 0,
        n_fourier: int = 288,
    ) -> None:
        super().__init__()
        self.sensors = _Sensors(n_sensors, n_virtual, n_fourier)
        self.embed = nn.Linear(n_times, n_times)
        self.person = nn.Embedding(n_subjects, n_times)
        self.n_heads, head = n_heads, n_times // n_heads
        if head < 1:
            raise ModelError(
                "more heads than samples", expected=f"n_heads <= {n_times}", found=str(n_heads)
            )
        self.query, self.key, self.value = (nn.Linear(n_times, head * n_heads) for _ in range(3))
        self.out = nn.Linear(head * n_heads, n_times)
        self.norms = nn.ModuleList(nn.LayerNorm(n_times) for _ in range(3))
        self.feedforward = nn.Sequential(
            nn.Linear(n_times, feedforward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, n_times),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)
        self.convolutions = Nice(
            n_out, n_sensors=self.sensors.n_out, n_times=n_times, width=width, kernel=kernel,
            pool=pool, stride=stride, dropout=conv_dropout,
        )  # fmt: skip

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        subject: Tensor | None = None,
    ) -> Tensor:
        """``(batch, n_sensors, n_times)`` and ``(batch,)`` int64 to ``(batch, n_out)``."""
        x = self.sensors(x, positions, mask)
        if subject is None:
            subject = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        x = torch.cat([self.dropout(self.embed(x)), self.person(subject)[:, None]], dim=1)
        x = self.norms[0](x + self.dropout(self._attend(x, mask)))
        x = self.norms[2](self.norms[1](x + self.feedforward(x)))
        return self.convolutions(x[:, :-1])

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Self-attention of the tokens; sensors that are missing are not looked at."""
        batch, n_tokens = x.shape[:2]
        q, k, v = (
            layer(x).view(batch, n_tokens, self.n_heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = None
        if mask is not None and self.sensors.attention is None:
            person = torch.ones(batch, 1, dtype=torch.bool, device=x.device)
            seen = torch.cat([mask, person], dim=1)[:, None, None]
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(out.transpose(1, 2).flatten(2))


def _same(kernel: int) -> nn.Module:
    """Zeros at both ends, so that a convolution over time keeps the length; kernels may be even."""
    return nn.ZeroPad2d(((kernel - 1) // 2, kernel // 2, 0, 0))


class EegNet(nn.Module):
    """EEGNet (Lawhern et al. 2018, J. Neural Eng. 15:056013, table 2) with a linear head.

    Convolution over half a second -> depthwise convolution over sensors -> average pool -> a
    separable convolution -> average pool -> linear. The paper's max-norm constraints are left out.

    Parameters
    ----------
    n_out, n_sensors, n_times : int
    n_filters, multiplier : int
        ``F1`` and ``D`` of the paper; ``F2 = F1 D``.
    kernel : int
        Samples of the first convolution: half of the sampling rate.
    pools : (int, int)
    dropout : float
    n_virtual, n_fourier : see :class:`Nice`
    """

    def __init__(
        self,
        n_out: int,
        *,
        n_sensors: int,
        n_times: int,
        n_filters: int = 8,
        multiplier: int = 2,
        kernel: int = 64,
        pools: tuple[int, int] = (4, 8),
        dropout: float = 0.5,
        n_virtual: int = 0,
        n_fourier: int = 288,
    ) -> None:
        super().__init__()
        self.sensors = _Sensors(n_sensors, n_virtual, n_fourier)
        width = n_filters * multiplier
        n_steps = n_times // pools[0] // pools[1]
        if n_steps < 1:
            raise _too_short(pools[0] * pools[1], n_times, "smaller pools")
        self.layers = nn.Sequential(
            _same(kernel),
            nn.Conv2d(1, n_filters, (1, kernel), bias=False),
            BatchNorm2d(n_filters),
            nn.Conv2d(n_filters, width, (self.sensors.n_out, 1), groups=n_filters, bias=False),
            BatchNorm2d(width),
            nn.ELU(),
            nn.AvgPool2d((1, pools[0])),
            nn.Dropout(dropout),
            _same(16),
            nn.Conv2d(width, width, (1, 16), groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            BatchNorm2d(width),
            nn.ELU(),
            nn.AvgPool2d((1, pools[1])),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(width * n_steps, n_out)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        subject: Tensor | None = None,
    ) -> Tensor:
        """``(batch, n_sensors, n_times)`` to ``(batch, n_out)``; ``subject`` is not looked at."""
        return self.head(self.layers(self.sensors(x, positions, mask)[:, None]).flatten(1))
