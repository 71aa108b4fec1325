"""The perceptron for patterns."""

import pytest
import torch

from braindecode_pipe.networks.voxels import VoxelMLP


@pytest.mark.parametrize("depth", [0, 2])
def test_shape_and_number_of_parameters(depth):
    network = VoxelMLP(30, 4, hidden=16, depth=depth)
    assert network(torch.randn(5, 30)).shape == (5, 4)
    expected = (30 * 16 + 16) + depth * (32 + 16 * 16 + 16) + (32 + 16 * 4 + 4)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_dropout_acts_in_training_only():
    network, x = VoxelMLP(30, 4, hidden=16), torch.randn(5, 30)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_learns_what_no_linear_map_can():
    torch.manual_seed(0)
    x = torch.randint(0, 2, (256, 2)).float() * 2 - 1
    y = (x[:, :1] * x[:, 1:]).contiguous()
    network = VoxelMLP(2, 1, hidden=32, dropout=0.0, input_dropout=0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(150):
        loss = torch.nn.functional.mse_loss(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
