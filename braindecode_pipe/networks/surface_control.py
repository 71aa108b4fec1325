"""Two ways from the latent of a surface image into a frozen generator (NeuroPictor).

The high level takes the place of the text tokens; the low level is added to the features of a copy
of the generator's encoder, whose answers reach the frozen generator through convolutions that are
zero at first. So training begins from the generator as it is. Facts: Huo et al. 2024 and its public
code. Shown on toy generators; untested with real weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class HighLevelTokens(nn.Module):
    """Tokens that stand in the place of a text's: (n, 257, width) -> (n, 77, width).

    Convolutions over tokens with kernel 1 (257, 128, 77), a linear map, layer norm; with
    ``personal`` a second branch beside it that ends in a zero-initialised convolution, for the
    stage that is fitted on one person.
    """

    def __init__(
        self, tokens: int = 257, width: int = 1024, inner: int = 128, outputs: int = 77,
        personal: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shared = nn.Sequential(
            nn.Conv1d(tokens, inner, 1), nn.Conv1d(inner, outputs, 1), nn.Linear(width, width),
            nn.LayerNorm(width),
        )  # fmt: skip
        self.personal = None
        if personal:
            self.personal = nn.Sequential(
                nn.Conv1d(tokens, inner, 1), nn.SiLU(), zero(nn.Conv1d(inner, outputs, 1))
            )

    def forward(self, latent: Tensor) -> Tensor:
        tokens = self.shared(latent)
        return tokens if self.personal is None else tokens + self.personal(latent)


class LowLevelMap(nn.Module):
    """What is added to the first features of the control: (n, 257, width) -> (n, channels, s, s).

    Convolutions over tokens with kernel 1 (257, 514, channels), a linear map to s x s, SiLU and a
    zero-initialised convolution; 320 channels at 64 x 64 in the paper.
    """

    def __init__(
        self, tokens: int = 257, width: int = 1024, channels: int = 320, side: int = 64
    ) -> None:
        super().__init__()
        self.side = side
        self.mix = nn.Sequential(
            nn.Conv1d(tokens, 2 * tokens, 1), nn.Conv1d(2 * tokens, channels, 1),
            nn.Linear(width, side * side), nn.SiLU(),
        )  # fmt: skip
        self.last = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, latent: Tensor) -> Tensor:
        return self.last(self.mix(latent).unflatten(2, (self.side, self.side)))


class ZeroOutputs(nn.Module):
    """Answers of the control, each through a 1 x 1 convolution that is zero at first."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(zero(nn.Conv2d(c, c, 1)) for c in channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, features)]


def mask_tokens(tokens: Tensor, empty: Tensor, share: float = 0.05) -> Tensor:
    """Tokens of a random ``share`` of the examples replaced by those of the empty prompt.

    Drawn from torch's global generator: (n, k, width) and (k, width) -> (n, k, width).
    """
    masked = torch.rand(len(tokens), 1, 1) < share
    return torch.where(masked.to(tokens.device), empty, tokens)


def guided_noise(
    predict: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, empty: Tensor, control: Tensor,
    scale: float,
) -> Tensor:  # fmt: skip
    """``u + scale (c - u)`` where both keep the low-level control.

    Parameters
    ----------
    predict : tokens (n, k, width) and control (n, ...) -> predicted noise
    empty : (k, width), tokens of the empty prompt
    """
    free = predict(empty.expand_as(tokens), control)
    return free + scale * (predict(tokens, control) - free)
