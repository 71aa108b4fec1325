"""The convolutional encoder: its published size, and what may not change its output."""

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.convolution import ConvEncoder, ImageEncoder


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
    assert count(network.front.attention) == 552_960
    assert count(network.front.initial) == 73_170
    assert count(network.front.subjects) == 27 * 72_900
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


def plain_front(network, x, positions, mask, subject):
    """The front end layer by layer, as the paper states it."""
    front = network.front
    y = front.attention(x, positions, mask)
    y = y if front.initial is None else front.initial(y)
    return y if front.subjects is None else front.subjects(y, subject)


@pytest.mark.parametrize(
    "arguments", [{}, {"initial": False}, {"subject_layer": False}, {"subject_embedding": 3}]
)
def test_folded_front_end_equals_layer_by_layer(arguments):
    network = narrow(spatial_dropout=0.0, **arguments).double()
    x, positions = torch.randn(6, 9, 20, dtype=torch.float64), torch.rand(6, 9, 2).double()
    positions[3], positions[4] = positions[0], positions[1]
    mask = torch.rand(6, 9) > 0.2
    mask[3] = mask[0]
    subject = torch.tensor([0, 1, 0, 0, 0, 1])
    found = network.front(x, positions, mask, subject)
    expected = plain_front(network, x, positions, mask, subject)
    assert torch.allclose(found[:, : expected.shape[1]], expected, atol=1e-12)
    gradients = []
    for out in (found[:, : expected.shape[1]], expected):
        network.zero_grad()
        out.square().sum().backward(retain_graph=True)
        gradients.append([p.grad.clone() for n, p in network.front.named_parameters()
                          if not n.startswith("embedding")])  # fmt: skip
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*gradients, strict=True))


def test_positions_in_space():
    network = narrow(n_fourier=2 * 3**3, pool="mean").eval()
    x, positions = torch.randn(2, 11, 30), torch.rand(11, 3)
    order = torch.randperm(11)
    with torch.no_grad():
        assert (network(x, positions) - network(x[:, order], positions[order])).abs().max() < 1e-6
        assert not torch.allclose(network(x, positions), network(x, positions.flip(1)))


@pytest.mark.parametrize(
    "arguments",
    [{"skip": False}, {"nonlinearity": "relu"}, {"subject_embedding": 64, "subject_layer": False},
     {"merger": False, "n_sensors": 7}, {"spatial_dropout": 0.0}, {"pool": "attention"}],
)  # fmt: skip
def test_further_ablations_run_and_learn(arguments):
    network = narrow(**arguments)
    out = network(torch.randn(3, 7, 30), torch.rand(7, 2), None, torch.tensor([0, 1, 1]))
    out.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_without_merger_the_number_of_sensors_must_be_known():
    with pytest.raises(ModelError, match="number of sensors is fixed"):
        narrow(merger=False)


def published_image_encoder(two_heads):
    return ImageEncoder(768, 4, n_times=181, two_heads=two_heads)


def test_published_number_of_parameters_for_pictures():
    network = published_image_encoder(two_heads=False)
    assert count(network) == 6_424_472
    assert count(published_image_encoder(two_heads=True)) == 7_998_104
    assert count(network.front.attention) == 552_960
    assert count(network.front.initial) == 73_170
    assert count(network.front.subjects) == 291_600
    assert [count(network.blocks[:2]), count(network.blocks[2:])] == [1_183_360, 1_231_360]
    assert count(network.widen) == 1_518_208
    assert count(network.pool) == 182
    assert count(network.contrastive) == 1_573_632
    assert [b.conv.dilation[0] for b in network.blocks] == [1, 2, 4, 8]


def test_affine_aggregation_with_equal_weights_is_the_mean():
    torch.manual_seed(0)
    settings = {"n_virtual": 8, "hidden": 12, "n_backbone": 16, "n_fourier": 32, "n_times": 30}
    affine = ImageEncoder(5, 2, pool="affine", **settings).eval()
    mean = ImageEncoder(5, 2, pool="mean", **settings).eval()
    mean.load_state_dict(affine.state_dict(), strict=False)
    torch.nn.init.constant_(affine.pool.affine.weight, 1 / 30)
    torch.nn.init.zeros_(affine.pool.affine.bias)
    x, positions = torch.randn(4, 7, 30), torch.rand(7, 2)
    with torch.no_grad():
        assert torch.allclose(affine(x, positions), mean(x, positions), atol=1e-6)
        assert affine(x, positions).shape == (4, 2, 5)
