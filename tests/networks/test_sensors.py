"""Sensors as networks see them: positions, kinds, scales."""

import numpy as np
import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.sensors import (
    RMSNorm,
    SensorEncoder,
    kind_codes,
    normalize_positions,
    normalize_signal,
    sensor_geometry,
    usable_sensors,
)

KINDS = torch.tensor([0, 0, 0, 1, 2, 2])


def places(n=6):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, 3)))


def test_positions_by_the_formula_eeg_and_meg_apart():
    p = places()
    out = normalize_positions(p, KINDS)
    for group in ([0, 1, 2], [3, 4, 5]):
        centred = p[group] - p[group].mean(0)
        expected = centred / np.sqrt(3 * float((centred**2).sum(1).mean()))
        assert torch.allclose(out[group], expected)
        assert float(3 * (out[group] ** 2).sum(1).mean()) == pytest.approx(1)


@pytest.mark.parametrize("unit", [1e-13, 1e6])
def test_positions_have_no_unit_and_no_origin(unit):
    p = places()
    assert torch.allclose(
        normalize_positions(unit * (p + 5), KINDS), normalize_positions(p, KINDS), atol=1e-9
    )
    small = normalize_positions((1e-25 * p).float(), KINDS)
    assert torch.allclose(small, normalize_positions(p, KINDS).float(), atol=1e-4)


def test_missing_and_masked_positions_count_for_nothing():
    p = places()
    alone = normalize_positions(p[[0, 1, 3, 4, 5]], KINDS[[0, 1, 3, 4, 5]])
    missing = p.clone()
    missing[2, 1] = torch.nan
    mask = torch.tensor([True, True, False, True, True, True])
    for out in (normalize_positions(missing, KINDS), normalize_positions(p, KINDS, mask)):
        assert torch.allclose(out[[0, 1, 3, 4, 5]], alone)
        assert torch.isnan(out[2]).all()


def test_sensors_in_one_place_are_at_zero():
    out = normalize_positions(torch.full((2, 3), 0.07), torch.tensor([0, 1]))
    assert out.tolist() == [[0.0] * 3] * 2


def test_geometry_falls_back_to_the_centre_and_to_no_orientation():
    p, o = places(), 3.0 * places()
    p[1], o[0], o[2] = torch.nan, torch.nan, 0.0
    out = sensor_geometry(p, o, KINDS)
    assert torch.isfinite(out).all()
    assert out[1, :3].tolist() == [0.0] * 3
    assert out[0, 3:].tolist() == out[2, 3:].tolist() == [0.0] * 3
    assert torch.allclose(out[3:, 3:].norm(dim=1), torch.ones(3).double())


def test_kinds_have_numbers_and_others_are_refused():
    assert kind_codes(["eeg", "mag", "grad", "seeg", "ecog", "dbs"]).tolist() == [0, 1, 2, 0, 0, 0]
    with pytest.raises(ModelError, match="cannot be told"):
        kind_codes(["eeg", "ref_meg"])


def test_flat_and_broken_sensors_are_not_usable():
    x = torch.randn(2, 4, 9)
    x[0, 1], x[1, 2, 3], x[1, 3, 0] = 7.0, torch.nan, torch.inf
    assert usable_sensors(x).tolist() == [[True, False, True, True], [True, True, False, False]]


def test_signals_by_the_formula_kind_by_kind():
    x = torch.randn(2, 6, 40, dtype=torch.float64)
    out = normalize_signal(x, KINDS)
    for rows in ([0, 1, 2], [4, 5]):
        part = x[:, rows] - x[:, rows].mean(1, keepdim=True)
        expected = part / part.std((1, 2), correction=0, keepdim=True)
        assert torch.allclose(out[:, rows], expected)
    lone = x[:, 3] - x[:, 3].mean(1, keepdim=True)
    assert torch.allclose(out[:, 3], lone / lone.std(1, correction=0, keepdim=True))


@pytest.mark.parametrize("unit", [1e-13, 1e6])
def test_signals_have_no_unit(unit):
    x = torch.randn(3, 6, 40)
    assert torch.allclose(normalize_signal(unit * x, KINDS), normalize_signal(x, KINDS), atol=1e-5)


def test_signals_that_are_not_usable_become_zero_and_touch_no_other():
    x = torch.randn(3, 6, 40)
    broken = x.clone()
    broken[:, 1], broken[:, 4, 2] = 5.0, torch.nan
    mask = torch.tensor([True, False, True, True, False, True])
    out = normalize_signal(broken, KINDS)
    assert torch.equal(out, normalize_signal(x, KINDS, mask.expand(3, -1)))
    assert out[:, [1, 4]].abs().max() == 0


def test_parameters_of_the_paper():
    assert sum(p.numel() for p in SensorEncoder(256).parameters()) == 560_512


def test_embeddings_tell_position_orientation_and_kind_apart():
    torch.manual_seed(0)
    encoder = SensorEncoder(16)
    geometry = torch.randn(1, 6)
    base = encoder(geometry, torch.tensor([0]))
    assert torch.allclose(base.square().mean(-1), torch.ones(1), atol=0.05)
    assert not torch.allclose(base, encoder(geometry, torch.tensor([1])), atol=1e-3)
    for axis in (0, 5):
        moved = geometry.clone()
        moved[0, axis] += 1
        assert not torch.allclose(base, encoder(moved, torch.tensor([0])), atol=1e-5)


def test_root_mean_square_norm_by_hand():
    norm = RMSNorm(2, eps=0.0)
    norm.weight.data = torch.tensor([1.0, 2.0])
    assert torch.allclose(norm(torch.tensor([3.0, 4.0])), torch.tensor([3.0, 8.0]) / 12.5**0.5)
