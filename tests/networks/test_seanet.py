"""Convolutions as matrix products against torch's own convolutions."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv1d, conv_transpose1d, elu, pad

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks import seanet
from braindecode_pipe.networks.seanet import SeaNetDecoder, SeaNetEncoder, folded

SMALL = {"width": 6, "n_filters": 4, "ratios": (3, 2), "kernel": 5}


def weight(layer):
    """``g v / |v|`` over all axes but the first, as weight norm is defined."""
    v = layer.direction
    return layer.length * v / v.flatten(1).norm(dim=1)[:, None, None]


def mirrored(x, left, right):
    return pad(x, (left, right), mode="reflect")


def same(layer, x):
    reach = layer.direction.shape[2] // 2
    return conv1d(mirrored(x, reach, reach), weight(layer), layer.bias)


def residual(block, x):
    inner = same(block.widen, elu(same(block.narrow, elu(x))))
    return same(block.shortcut, x) + inner


def down(layer, x):
    ratio = layer.ratio
    x = mirrored(elu(x), ratio - ratio // 2, ratio // 2)
    return conv1d(x, weight(layer), layer.bias, stride=ratio)


def up(layer, x):
    ratio = layer.ratio
    out = conv_transpose1d(elu(x), weight(layer), layer.bias, stride=ratio)
    return out[:, :, ratio - ratio // 2 : out.shape[2] - ratio // 2]


def recurrent(layer, x):
    x = x.transpose(1, 2)
    lstm = nn.LSTM(x.shape[2], x.shape[2], 2, batch_first=True)
    lstm.load_state_dict(layer.state_dict())
    return (lstm(x)[0] + x).transpose(1, 2)


def naive_encoder(network, x):
    x = same(network.first, x[:, None])
    for number, stage in enumerate(network.stages):
        x = down(stage, x) if number % 2 else residual(stage, x)
    return same(network.last, elu(recurrent(network.recurrent, x))).transpose(1, 2)


def naive_decoder(network, x):
    x = recurrent(network.recurrent, same(network.first, x.transpose(1, 2)))
    for number, stage in enumerate(network.stages):
        x = residual(stage, x) if number % 2 else up(stage, x)
    return same(network.last, elu(x))[:, 0]


@pytest.mark.parametrize("ratios", [(3, 2), (2, 4), (5,)])
def test_equal_to_plain_convolutions(ratios):
    torch.manual_seed(0)
    settings = {**SMALL, "ratios": ratios}
    encoder, decoder = SeaNetEncoder(**settings), SeaNetDecoder(**settings)
    for layer in (*encoder.modules(), *decoder.modules()):
        if isinstance(layer, seanet._Normed):
            layer.length.data.mul_(torch.rand_like(layer.length) + 0.5)
    x = torch.randn(3, encoder.hop * 4)
    features = encoder(x)
    assert features.shape == (3, 4, 6)
    assert torch.allclose(features, naive_encoder(encoder, x), atol=1e-5)
    signals = decoder(features)
    assert signals.shape == x.shape
    assert torch.allclose(signals, naive_decoder(decoder, features), atol=1e-5)


def test_parameters_of_the_paper():
    assert sum(p.numel() for p in SeaNetEncoder().parameters()) == 2_045_632
    assert sum(p.numel() for p in SeaNetDecoder().parameters()) == 2_045_346


def test_blocks_and_folded_weights_change_nothing(monkeypatch):
    torch.manual_seed(0)
    encoder, decoder = SeaNetEncoder(**SMALL), SeaNetDecoder(**SMALL)
    x = torch.randn(7, 24)
    whole = decoder(encoder(x)).detach()
    monkeypatch.setattr(seanet, "ROWS", 3)
    with torch.no_grad(), folded(encoder), folded(decoder):
        parts = decoder(encoder(x))
        assert decoder(encoder(x[:0])).shape == (0, 24)
    assert torch.allclose(parts, whole, atol=1e-6)
    assert all(m._folded is None for m in encoder.modules() if isinstance(m, seanet._Normed))


def test_rows_do_not_know_each_other():
    torch.manual_seed(0)
    encoder = SeaNetEncoder(**SMALL).eval()
    x = torch.randn(5, 24)
    assert torch.allclose(encoder(x)[2:3], encoder(x[2:3]), atol=1e-6)


def test_gradients_reach_every_weight():
    network = nn.Sequential(SeaNetEncoder(**SMALL), SeaNetDecoder(**SMALL))
    network(torch.randn(2, 24)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())


def test_odd_filters_are_refused():
    with pytest.raises(ModelError, match="cannot be built"):
        SeaNetEncoder(n_filters=5)
