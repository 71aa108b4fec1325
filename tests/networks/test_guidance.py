"""Guidance on a distribution whose denoiser is known; control that begins with nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.guidance import guided_sample
from braindecode_pipe.networks.prior import signal_share
from braindecode_pipe.networks.surface_control import (
    HighLevelTokens,
    LowLevelMap,
    ZeroOutputs,
    guided_noise,
    mask_tokens,
)

MEAN, SPREAD = torch.tensor([1.0, -2.0, 0.5]), 0.7
REGION = torch.tensor([0.6, 0.0, -0.8])


def gaussian(noisy, time):
    """``E[x_0 | x_t]`` of a normal distribution."""
    share = signal_share(time).clamp(0, 1)[:, None]
    gain = share.sqrt() * SPREAD**2 / (share * SPREAD**2 + 1 - share)
    return MEAN + gain * (noisy - share.sqrt() * MEAN)


def start(n=500):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0))


def activation(x):
    return x @ REGION


def test_unguided_samples_have_the_distribution():
    found = guided_sample(gaussian, start(), steps=50)
    assert (found.mean(0) - MEAN).abs().max() < 0.1
    assert (found.std(0) / SPREAD - 1).abs().max() < 0.12


def test_scale_0_is_the_unguided_sample_and_more_drives_the_region():
    free = guided_sample(gaussian, start(), steps=20)
    assert torch.equal(guided_sample(gaussian, start(), activation, scale=0.0, steps=20), free)
    driven = [
        activation(guided_sample(gaussian, start(), activation, scale=s, steps=20)).mean().item()
        for s in (0.0, 0.5, 1.0, 2.0)
    ]
    assert all(b > a + 0.05 for a, b in zip(driven, driven[1:]))
    # Tilting N(m, s^2) by exp(scale w x) moves its mean by scale s^2 w, along w only.
    moved = guided_sample(gaussian, start(), activation, scale=1.0, steps=100) - guided_sample(
        gaussian, start(), steps=100
    )
    across = torch.tensor([0.8, 0.0, 0.6])
    assert (moved @ across).abs().max() < 1e-3
    assert activation(moved).mean() == pytest.approx(SPREAD**2, rel=0.25)


def test_nothing_to_guide_by_is_told():
    with pytest.raises(ModelError, match="nothing to guide by"):
        guided_sample(gaussian, start(2), scale=1.0)
    with pytest.raises(ModelError, match="no gradient"):
        guided_sample(gaussian, start(2), lambda x: torch.zeros(len(x)), scale=1.0)


class ToyUNet(nn.Module):
    """One block down, tokens as a bias, one block up with the control's answer added."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.text = nn.Linear(6, 8)

    def forward(self, x, tokens, control=None):
        y = torch.tanh(self.first(x) + self.text(tokens.mean(1))[:, :, None, None])
        return self.last(y if control is None else y + control)


class Controlled(nn.Module):
    """A frozen generator with both ways in."""

    def __init__(self):
        super().__init__()
        self.unet = ToyUNet().requires_grad_(False)
        self.copy = copy.deepcopy(self.unet.first).requires_grad_(True)
        self.encoder = nn.Linear(6, 6)
        self.high = HighLevelTokens(5, 6, 4, 3, personal=True)
        self.low, self.out = LowLevelMap(5, 6, 8, 4), ZeroOutputs([8])

    def forward(self, x, surface):
        latent = self.encoder(surface)
        [control] = self.out([torch.tanh(self.copy(x) + self.low(latent))])
        return self.unet(x, self.high(latent), control)


def test_control_begins_with_nothing_and_gradients_spare_the_generator():
    torch.manual_seed(0)
    model = Controlled()
    x, surface = torch.randn(2, 4, 4, 4), torch.randn(2, 5, 6)
    plain = model.unet(x, model.high(model.encoder(surface)))
    assert torch.equal(model(x, surface), plain)
    shared = model.high.shared(model.encoder(surface))
    assert torch.equal(model.high(model.encoder(surface)), shared)
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        ((model(x, surface) - 1) ** 2).mean().backward()
        optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in model.unet.state_dict().items())
    for part in (model.encoder, model.copy, model.low, model.out, model.high):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    latent = model.encoder(surface)
    assert not torch.equal(model(x, surface), model.unet(x, model.high(latent)))


def test_the_published_shapes():
    latent = torch.zeros(1, 257, 64)
    assert HighLevelTokens(width=64)(latent).shape == (1, 77, 64)
    assert LowLevelMap(width=64)(latent).shape == (1, 320, 64, 64)


def test_five_per_cent_of_the_tokens_are_masked():
    torch.manual_seed(1)
    n = 4000
    found = mask_tokens(torch.ones(n, 2, 3), torch.zeros(2, 3))
    masked = (found == 0).all(dim=(1, 2))
    assert ((found == 0).any(dim=(1, 2)) == masked).all()
    # Within four standard deviations of a binomial with p = .05.
    assert abs(masked.float().mean().item() - 0.05) < 4 * (0.05 * 0.95 / n) ** 0.5


def test_both_branches_of_guidance_keep_the_control():
    seen = []

    def predict(tokens, control):
        seen.append(control)
        return tokens.sum((1, 2)) + control

    tokens, empty, control = torch.ones(2, 3, 4), torch.zeros(3, 4), torch.tensor([5.0, 6.0])
    found = guided_noise(predict, tokens, empty, control, 2.0)
    assert torch.equal(found, control + 2 * 12) and all(c is control for c in seen)
