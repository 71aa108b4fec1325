"""Parts of networks against naive loops, and what may not change their output."""

import math

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.blocks import (
    ResidualBlock,
    SpatialAttention,
    SubjectLayer,
    TimePool,
    fourier_features,
)


def test_fourier_features_match_the_double_loop():
    position = torch.tensor([[0.3, 0.8]], dtype=torch.float64)
    waves = range(3)
    phases = [2 * math.pi * (k * (0.3 + 0.2) + m * (0.8 + 0.2)) / 1.4 for k in waves for m in waves]
    expected = [math.cos(p) for p in phases] + [math.sin(p) for p in phases]
    found = fourier_features(position, 18)[0]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))


def test_fourier_features_have_period_of_the_layout_with_its_margins():
    position = torch.rand(5, 2, dtype=torch.float64)
    moved = fourier_features(position + 1.4, 32)
    assert torch.allclose(fourier_features(position, 32), moved)
    assert not torch.allclose(fourier_features(position + 0.7, 32), moved)


@pytest.mark.parametrize("n_features", [0, 3, 10, 2047])
def test_fourier_features_need_twice_a_square(n_features):
    with pytest.raises(ModelError, match="twice a square"):
        fourier_features(torch.rand(1, 2), n_features)


def make_attention(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return SpatialAttention(6, n_fourier=32, dropout=dropout).double()


def test_attention_matches_the_naive_loop():
    attention, x = make_attention(), torch.randn(2, 5, 7, dtype=torch.float64)
    positions = torch.rand(5, 2, dtype=torch.float64)
    features = fourier_features(positions, 32)
    expected = torch.zeros(2, 6, 7, dtype=torch.float64)
    for o in range(6):
        scores = [math.exp(float(attention.heads[o].detach() @ features[c])) for c in range(5)]
        for c in range(5):
            expected[:, o] += scores[c] / sum(scores) * x[:, c]
    assert torch.allclose(attention(x, positions), expected)


def test_attention_weights_sum_to_one_and_equal_places_weigh_the_same():
    positions = torch.rand(4, 2, dtype=torch.float64)
    positions[1] = positions[3]
    weights = make_attention().weights(positions, torch.ones(2, 4, dtype=torch.bool))
    assert torch.allclose(weights.sum(-1), torch.ones(2, 6, dtype=torch.float64))
    assert torch.equal(weights[..., 1], weights[..., 3])


def test_padding_and_missing_positions_change_nothing():
    attention, x = make_attention(), torch.randn(3, 4, 5, dtype=torch.float64)
    positions = torch.rand(3, 4, 2, dtype=torch.float64)
    expected = attention(x, positions)
    padded = torch.cat([x, 1e6 * torch.ones(3, 2, 5, dtype=torch.float64)], 1)
    places = torch.cat([positions, torch.rand(3, 2, 2, dtype=torch.float64)], 1)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 3)
    assert torch.allclose(attention(padded, places, mask), expected)
    places[:, 4:] = math.nan
    assert torch.allclose(attention(padded, places), expected)


def test_each_item_uses_its_own_layout():
    attention, x = make_attention(), torch.randn(3, 4, 5, dtype=torch.float64)
    positions = torch.rand(3, 4, 2, dtype=torch.float64)
    positions[2] = positions[0]
    together = attention(x, positions)
    for i in range(3):
        assert torch.allclose(together[i : i + 1], attention(x[i : i + 1], positions[i]))


def test_disc_leaves_sensors_out_in_training_only():
    attention = make_attention(dropout=0.3)
    positions, mask = torch.rand(40, 2, dtype=torch.float64), torch.ones(1, 40, dtype=torch.bool)
    torch.manual_seed(3)
    weights = attention.train().weights(positions, mask)
    out = weights[0, 0] == 0
    assert 0 < int(out.sum()) < 40
    assert torch.allclose(weights.sum(-1), torch.ones(1, 6, dtype=torch.float64))
    spread = torch.cdist(positions[out], positions[out]).max()
    assert spread <= 0.6
    assert int((attention.eval().weights(positions, mask) == 0).sum()) == 0


def test_disc_over_all_sensors_is_no_nan():
    attention = make_attention(dropout=2.0).train()
    x, positions = torch.randn(2, 3, 4, dtype=torch.float64), torch.rand(3, 2).double()
    expected = attention.eval()(x, positions)
    assert torch.equal(attention.train()(x, positions), expected)


def test_item_without_sensors_gives_zero_and_finite_gradients():
    attention, x = make_attention(), torch.randn(2, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[True] * 3, [False] * 3])
    out = attention(x, torch.rand(3, 2).double(), mask)
    out.sum().backward()
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert torch.isfinite(attention.heads.grad).all()


def test_subject_layer_takes_the_matrix_of_each_person():
    layer, x = SubjectLayer(4, 3), torch.randn(5, 4, 6)
    subject = torch.tensor([0, 2, 1, 2, 0])
    found = layer(x, subject)
    for i, s in enumerate(subject):
        assert torch.allclose(found[i], layer.matrices[s].T @ x[i], atol=1e-6)


def test_residual_comes_before_the_gate_and_only_where_widths_agree():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 20)
    block = ResidualBlock(8, 8, dilation=4, glu=True).eval()
    inner = torch.nn.functional.gelu(block.norm(block.conv(x))) + x
    assert torch.equal(block(x), torch.nn.functional.glu(block.gate(inner), dim=1))
    wider = ResidualBlock(8, 12).eval()
    assert torch.equal(wider(x), torch.nn.functional.gelu(wider.norm(wider.conv(x))))


def test_time_pool_kinds():
    x = torch.randn(2, 3, 12)
    assert TimePool("none")(x) is x
    assert torch.equal(TimePool("mean")(x), x.mean(-1))
    steps = TimePool("steps", n_steps=4)(x)
    assert torch.allclose(steps, x.reshape(2, 3, 4, 3).mean(-1), atol=1e-6)
    affine = TimePool("affine", n_times=12)
    expected = (x * affine.affine.weight[0]).sum(-1) + affine.affine.bias
    assert torch.allclose(affine(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("max",), "unknown way"), (("affine",), "needs a length"), (("steps",), "needs a length")],
)
def test_time_pool_refuses(arguments, message):
    with pytest.raises(ModelError, match=message):
        TimePool(*arguments)
