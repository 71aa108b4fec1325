"""EEGNet, NICE and ATM: published sizes, masks, shapes, refusals."""

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.compact import Atm, EegNet, Nice


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_nice_has_the_published_number_of_parameters():
    network = Nice(768, n_sensors=63, n_times=250)
    assert (count(network.encoder), count(network.projection)) == (103_680, 1_698_816)
    assert network.encoder.n_steps(250) * 40 == 1440


def test_eegnet_has_the_published_number_of_parameters():
    # Lawhern et al. 2018, table 2: F1 (kernel + C D + 2 D + F2) + F2 (16 + 4), batch norms within.
    network = EegNet(4, n_sensors=64, n_times=128)
    assert count(network.layers) == 8 * 64 + 16 + 16 * 64 + 32 + 16 * 16 + 16 * 16 + 32
    assert network.head.in_features == 16 * (128 // 32)


def test_atm_heads_need_not_divide_the_window():
    network = Atm(32, 2, n_sensors=5, n_times=250)
    assert network.query.out_features == 4 * 62
    out = network(torch.randn(3, 5, 250), subject=torch.tensor([0, 1, 0]))
    assert out.shape == (3, 32)


@pytest.mark.parametrize("kind", [Nice, Atm, EegNet])
def test_masked_sensors_change_nothing(kind):
    torch.manual_seed(0)
    network = kind(6, n_sensors=9, n_times=200).eval()
    x, mask = torch.randn(4, 9, 200), torch.ones(4, 9, dtype=torch.bool)
    mask[:, 3] = False
    expected = network(x, mask=mask)
    x[:, 3] = 1e6
    if kind is Atm:  # a token of its own: its value is hidden from the others
        x[:, 3] = 0
    assert torch.allclose(network(x, mask=mask), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [Nice, Atm, EegNet])
def test_other_montages_are_refused_unless_positions_are_attended_to(kind):
    with pytest.raises(ModelError, match="other sensors"):
        kind(6, n_sensors=9, n_times=200)(torch.randn(2, 8, 200))
    network = kind(6, n_sensors=0, n_times=200, n_virtual=12, n_fourier=32).eval()
    x, positions = torch.randn(2, 19, 200), torch.rand(19, 2)
    order = torch.randperm(19)
    with torch.no_grad():
        difference = network(x, positions) - network(x[:, order], positions[order])
    assert difference.abs().max() < 1e-5
    with pytest.raises(ModelError, match="without positions"):
        network(x)


@pytest.mark.parametrize("kind", [Nice, Atm, EegNet])
def test_short_windows_are_refused(kind):
    with pytest.raises(ModelError, match="too short"):
        kind(6, n_sensors=9, n_times=20)


def test_atm_tells_people_apart():
    torch.manual_seed(0)
    network, x = Atm(8, 2, n_sensors=5, n_times=200).eval(), torch.randn(1, 5, 200)
    with torch.no_grad():
        first, second = (network(x, subject=torch.tensor([s])) for s in (0, 1))
    assert not torch.allclose(first, second)
