"""Maps of a convolutional network as tokens of one width, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from braindecode_pipe.errors import ModelError


@dataclass(frozen=True)
class Level:
    """One map ``(channels, size, size)``, cut into squares of ``patch`` every ``stride`` pixels."""

    channels: int
    size: int
    patch: int = 1
    stride: int = 1

    @property
    def side(self) -> int:
        """Tokens along one side."""
        return (self.size - self.patch) // self.stride + 1

    @property
    def n_tokens(self) -> int:
        return self.side**2

    @property
    def n_features(self) -> int:
        """Of a token, before it is repeated."""
        return self.channels * self.patch**2


# Modules 5, 12, 22, 32 and 42 of VGG16 with batch norm for pictures of 112 pixels (Brain-IT).
VGG16_LEVELS = (
    Level(64, 112, patch=2, stride=2),
    Level(128, 56, patch=2, stride=1),
    Level(256, 28),
    Level(512, 14),
    Level(512, 7),
)


def unfold_levels(
    maps: Sequence[Tensor], levels: Sequence[Level] = VGG16_LEVELS, width: int = 512
) -> Tensor:
    """Tokens of all levels, one level after the other; features repeated to ``width``.

    Parameters
    ----------
    maps : (batch, channels, size, size) per level
    levels : sequence of Level
    width : int, a multiple of the features of every level

    Returns
    -------
    (batch, n_tokens, width); 7,190 tokens of 512 for the levels of Brain-IT (arXiv 2510.25976)
    """
    _check(maps, levels, width)
    tokens = [
        functional.unfold(x, level.patch, stride=level.stride)
        .transpose(1, 2)
        .repeat(1, 1, width // level.n_features)
        for x, level in zip(maps, levels)
    ]
    return torch.cat(tokens, 1)


def fold_levels(tokens: Tensor, levels: Sequence[Level] = VGG16_LEVELS) -> list[Tensor]:
    """Maps of tokens: the mean over copies of a feature and over squares that share a pixel.

    Exact for what :func:`unfold_levels` gave where a feature is repeated, and a pixel shared, 1, 2
    or 4 times, as in the levels of Brain-IT.

    Parameters
    ----------
    tokens : (batch, n_tokens, width)

    Returns
    -------
    list of (batch, channels, size, size)
    """
    total = sum(level.n_tokens for level in levels)
    if tokens.shape[1] != total:
        raise ModelError("tokens of levels", expected=str(total), found=str(tokens.shape[1]))
    maps = []
    for part, level in zip(tokens.split([level.n_tokens for level in levels], 1), levels):
        values = part.unflatten(2, (-1, level.n_features)).mean(2).transpose(1, 2)
        size, patch, stride = (level.size, level.size), level.patch, level.stride
        sums = functional.fold(values, size, patch, stride=stride)
        copies = functional.fold(torch.ones_like(values), size, patch, stride=stride)
        maps.append(sums / copies)
    return maps


def _check(maps: Sequence[Tensor], levels: Sequence[Level], width: int) -> None:
    for number, level in enumerate(levels):
        expected = (level.channels, level.size, level.size)
        found = tuple(maps[number].shape[1:]) if number < len(maps) else None
        if found != expected or len(maps) != len(levels):
            raise ModelError(
                f"map of level {number} of {len(levels)}",
                expected=str(expected),
                found=f"{found}; {len(maps)} maps",
            )
        if width % level.n_features:
            raise ModelError(
                "features of a level are repeated to the width of a token",
                expected=f"a multiple of {level.n_features}",
                found=str(width),
            )
