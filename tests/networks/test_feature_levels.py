"""Levels of a convolutional network as tokens, and back."""

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.feature_levels import (
    VGG16_LEVELS,
    Level,
    fold_levels,
    unfold_levels,
)


def test_the_levels_of_vgg16_make_7190_tokens_of_512():
    assert [level.side for level in VGG16_LEVELS] == [56, 55, 28, 14, 7]
    assert sum(level.n_tokens for level in VGG16_LEVELS) == 7190
    maps = [torch.empty(1, v.channels, v.size, v.size, device="meta") for v in VGG16_LEVELS]
    assert unfold_levels(maps).shape == (1, 7190, 512)


@pytest.mark.parametrize(
    "level", [Level(3, 8, 2, 2), Level(6, 7, 2, 1), Level(12, 5), Level(24, 6, 1, 1)]
)
def test_fold_undoes_unfold_exactly(level):
    torch.manual_seed(0)
    levels = (level, Level(12, 3))
    maps = [torch.randn(2, v.channels, v.size, v.size) for v in levels]
    tokens = unfold_levels(maps, levels, 24)
    assert tokens.shape == (2, level.n_tokens + 9, 24)
    for found, expected in zip(fold_levels(tokens, levels), maps):
        assert torch.equal(found, expected)


def test_a_token_is_a_square_with_all_its_channels():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    tokens = unfold_levels([x], [Level(2, 4, 2, 1)], 16)
    assert torch.equal(tokens[0, 4], x[0, :, 1:3, 1:3].flatten().repeat(2))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="map of level 0"):
        unfold_levels([torch.zeros(1, 3, 4, 5)], [Level(3, 4)], 3)
    with pytest.raises(ModelError, match="repeated to the width"):
        unfold_levels([torch.zeros(1, 3, 4, 4)], [Level(3, 4)], 4)
    with pytest.raises(ModelError, match="tokens of levels"):
        fold_levels(torch.zeros(1, 15, 3), [Level(3, 4)])
