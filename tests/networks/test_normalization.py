"""Batch norm over processes is tested with the loop; here, blocks that are computed twice."""

import pytest
import torch
from torch import nn

from braindecode_pipe.networks.convolution import ConvEncoder, ImageEncoder
from braindecode_pipe.networks.normalization import BatchNorm1d, batch_statistics
from braindecode_pipe.networks.quantizer import ResidualQuantizer

NARROW = {"n_virtual": 8, "hidden": 12, "depth": 4, "n_fourier": 32, "dropout": 0.3}


@pytest.mark.parametrize("kind", [ConvEncoder, ImageEncoder])
def test_recomputed_blocks_change_nothing_but_the_memory(kind):
    x, positions = torch.randn(6, 7, 30), torch.rand(7, 2)
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = kind(5, 2, n_times=30, pool="affine", recompute=recompute, **NARROW)
        out = network(x, positions)
        out.square().sum().backward()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        results.append((out.detach(), gradients, dict(network.named_buffers())))
    for a, b in zip(results[0][1:], results[1][1:]):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(results[0][0], results[1][0])


def test_recomputed_blocks_keep_fewer_activations():
    def kept(recompute):
        network = ConvEncoder(5, 2, pool="mean", recompute=recompute, **{**NARROW, "dropout": 0.0})
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(6, 7, 200), torch.rand(7, 2))
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


def test_names_of_layers_that_look_at_the_whole_batch():
    network = nn.Sequential(nn.Linear(3, 3), BatchNorm1d(3), nn.LayerNorm(3), nn.BatchNorm2d(3))
    assert batch_statistics(network) == ["1", "3"]
    assert batch_statistics(nn.Sequential(nn.Linear(3, 3), ResidualQuantizer(3))) == ["1"]
