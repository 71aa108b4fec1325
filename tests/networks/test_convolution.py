"""The convolutional encoder: its published size, and what may not change its output."""

import pytest
import torch

from braindecode_pipe.networks.convolution import ConvEncoder


def count(module):
    return sum(p.numel() for p in module.parameters())


def narrow(**arguments):
    torch.manual_seed(0)
    return ConvEncoder(
        5, 2, **{"n_virtual": 8, "hidden": 12, "depth": 4, "n_fourier": 32, **arguments}
    )


def test_published_number_of_parameters():
    network = ConvEncoder(1024, 27)
    assert count(network) == 9_565_054
    assert count(network.attention) == 552_960
    assert count(network.initial) == 73_170
    assert count(network.subjects) == 27 * 72_900
    assert count(network.blocks) == 6_108_800
    assert count(network.head) == 861_824
    assert [b.conv.dilation[0] for b in network.blocks] == [1, 2, 4, 8, 16] * 2
    assert [b.gate is not None for b in network.blocks] == [False, True] * 5
    assert [b.residual for b in network.blocks] == [False] + [True] * 9


def test_published_shape_keeps_time():
    network = ConvEncoder(1024, 27).eval()
    with torch.no_grad():
        out = network(torch.randn(1, 208, 36), torch.rand(208, 2), subject=torch.tensor([26]))
    assert out.shape == (1, 1024, 36)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({}, (3, 5, 30)),
        ({"pool": "mean"}, (3, 5)),
        ({"pool": "affine", "n_times": 30}, (3, 5)),
        ({"pool": "steps", "n_steps": 6}, (3, 5, 6)),
    ],
)
def test_output_shapes(arguments, shape):
    out = narrow(**arguments)(torch.randn(3, 7, 30), torch.rand(7, 2))
    assert out.shape == shape


def test_order_of_sensors_changes_nothing():
    network = narrow(pool="mean").eval()
    x, positions = torch.randn(3, 19, 40), torch.rand(19, 2)
    order = torch.randperm(19)
    with torch.no_grad():
        expected = network(x, positions)
        found = network(x[:, order], positions[order])
    assert (found - expected).abs().max() < 1e-6


def test_montages_of_different_size_batch_together():
    network = narrow(pool="mean").eval()
    x, positions = torch.randn(2, 64, 40), torch.rand(2, 64, 2)
    mask = torch.ones(2, 64, dtype=torch.bool)
    mask[0, 19:] = False
    subject = torch.tensor([0, 1])
    with torch.no_grad():
        together = network(x, positions, mask, subject)
        alone = network(x[:1, :19], positions[0, :19], None, subject[:1])
    assert (together[:1] - alone).abs().max() < 1e-6


def test_people_are_told_apart_by_their_layer_only():
    x, positions, subject = torch.randn(2, 7, 30), torch.rand(7, 2), torch.tensor([0, 1])
    x[1] = x[0]
    with_layer, without = (
        narrow(pool="mean").eval(),
        narrow(pool="mean", subject_layer=False).eval(),
    )
    with torch.no_grad():
        apart = with_layer(x, positions, None, subject)
        same = without(x, positions, None, subject)
    assert not torch.allclose(apart[0], apart[1])
    assert torch.allclose(same[0], same[1])


def test_ablations_take_their_parameters_away():
    full = count(narrow())
    assert full - count(narrow(initial=False)) == 8 * 8 + 8
    assert full - count(narrow(subject_layer=False)) == 2 * 8 * 8
    assert full - count(narrow(glu=False)) == 2 * (12 * 24 * 3 + 24)
    assert full - count(narrow(head=False)) == (12 * 24 + 24) + (24 * 5 + 5) - (12 * 5 + 5)
