"""The encoding model of voxels."""

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.voxel_encoding import VoxelEncoding


def small():
    torch.manual_seed(0)
    return VoxelEncoding([6, 5], [4, 3], n_voxels=[7, 9], width=8, channels=4)


def test_equals_the_formula():
    network = small()
    features = torch.randn(2, 4, 6), torch.randn(2, 3, 5)
    voxels, subject = torch.tensor([[1, 6, 0], [8, 8, 2]]), torch.tensor([0, 1])
    found = network(voxels, subject, *features)
    for row in range(2):
        for column in range(3):
            e = network.people[int(subject[row])][voxels[row, column]]
            seen = []
            for level, x in zip(network.levels, features):
                s = level.features(x[row])
                weights = ((s + level.position) @ level.query(e)).softmax(0)
                seen.append(weights @ s)
            expected = e @ network.mlp(torch.cat(seen))
            assert torch.allclose(found[row, column], expected, atol=1e-6)


@pytest.mark.parametrize(("people", "n"), [([], 0), ([30, 20], 50)])
def test_a_voxel_costs_256_numbers(people, n):
    sizes = {}
    with torch.device("meta"):
        for key, voxels in (("body", []), ("all", people)):
            network = VoxelEncoding([1024] * 5, [261] * 5, n_voxels=voxels)
            sizes[key] = sum(p.numel() for p in network.parameters())
    level = 2 * 1024 + 1024 * 128 + 128 + 261 * 128 + 256 * 128
    assert sizes["body"] == 5 * level + (640 * 256 + 256) + (256 * 256 + 256)
    assert sizes["all"] - sizes["body"] == 256 * n


def test_missing_blocks_are_refused():
    with pytest.raises(ModelError, match="blocks of image features"):
        small()(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0]), torch.randn(1, 4, 6))
    with pytest.raises(ModelError, match="blocks of features"):
        VoxelEncoding([6, 5], [4])
