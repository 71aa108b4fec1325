"""The perceptron for patterns."""

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.voxels import SubjectMixer, VoxelMLP


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


def test_people_share_all_but_their_first_layer():
    network = SubjectMixer(6, n_voxels=[30, 20], hidden=16, depth=2, n_tokens=3, projector=8)
    more = SubjectMixer(6, n_voxels=[30, 20, 50], hidden=16, depth=2, n_tokens=3, projector=8)
    size = [sum(p.numel() for p in n.parameters()) for n in (network, more)]
    assert size[1] - size[0] == 50 * 16 + 16
    assert network(torch.randn(4, 30), torch.tensor([0, 1, 1, 0])).shape == (4, 3, 6)


def test_padding_and_batch_mates_change_nothing():
    torch.manual_seed(0)
    network = SubjectMixer(6, n_voxels=[30, 20], hidden=16, depth=1).eval()
    x, subject = torch.randn(4, 30), torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        together = network(x, subject)
        x[1, 20:] = 1e6
        assert torch.equal(network(x, subject), together)
        assert torch.allclose(network(x[2:3, :20], subject[2:3]), together[2:3], atol=1e-6)


def test_pattern_with_too_few_voxels_is_refused():
    network = SubjectMixer(6, n_voxels=[30, 20], hidden=16)
    with pytest.raises(ModelError, match="shorter than the person has voxels"):
        network(torch.randn(2, 20), torch.tensor([1, 0]))
