"""Networks of the image metrics have the structure of the published ones."""

from __future__ import annotations

import pytest
import torch

from braindecode_pipe.networks.imagenet import AlexNet, EfficientNetB1, ResNet50
from braindecode_pipe.networks.inception import InceptionV3

# (network, published count of parameters, those of the parts that are left out)
PUBLISHED = [
    (AlexNet, 61_100_840, 37_752_832 + 16_781_312 + 4_097_000),
    (ResNet50, 25_557_032, 2_049_000),
    (EfficientNetB1, 7_794_184, 1_281_000),
    (InceptionV3, 27_161_264, 3_326_696 + 2_049_000),
]


@pytest.mark.parametrize(("network", "whole", "left_out"), PUBLISHED)
def test_as_many_parameters_as_published(network, whole, left_out):
    assert sum(p.numel() for p in network().parameters()) == whole - left_out


def test_nodes_have_the_published_sizes():
    torch.set_num_threads(1)
    with torch.inference_mode():
        found = AlexNet().eval().nodes(torch.zeros(1, 3, 256, 256), ["features.4", "features.11"])
        assert {k: tuple(v.shape) for k, v in found.items()} == {
            "features.4": (1, 192, 31, 31),
            "features.11": (1, 256, 15, 15),
        }
        assert ResNet50().eval().nodes(torch.zeros(1, 3, 32, 32), [])["avgpool"].shape == (1, 2048)
        small = EfficientNetB1().eval().nodes(torch.zeros(1, 3, 32, 32), [])
        assert small["avgpool"].shape == (1, 1280)
