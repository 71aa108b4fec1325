"""A diffusion prior: brain embedding to image embedding, by denoising."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braindecode_pipe.errors import ModelError

_OFFSET = 0.008


def signal_share(time: Tensor) -> Tensor:
    """``abar(t) = cos^2((t + s) / (1 + s) pi / 2) / cos^2(s / (1 + s) pi / 2)``, ``s = .008``.

    The cosine schedule of Nichol and Dhariwal 2021 (eq. 17), over ``t`` from 0 (clean) to 1.
    """
    start = math.cos(_OFFSET / (1 + _OFFSET) * math.pi / 2) ** 2
    return torch.cos((time + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2 / start


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(self.norm(x))


class DiffusionPrior(nn.Module):
    """Image embeddings drawn given brain embeddings (Ramesh et al. 2022; MindEye2).

    With ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) n`` the network predicts ``x_0`` from ``x_t``,
    ``t`` and the condition; the loss is the mean squared error of ``x_0``. For a share ``drop`` of
    the examples the condition is a learned vector instead. Sampling is DDIM without added noise
    (Song et al. 2021), with classifier-free guidance on the prediction of ``x_0``:
    ``u + scale (c - u)`` (Ho and Salimans 2022): 0 is the unconditional sample, 1 the conditional.
    MindEye2 uses a transformer over 256 tokens in this place; this one is for single vectors.

    Parameters
    ----------
    width : features of the image embedding
    condition_width : features of the brain embedding
    hidden, depth : size of the residual network
    drop : share of conditions that training leaves out
    """

    terms = ("denoising",)

    def __init__(
        self,
        width: int,
        condition_width: int | None = None,
        hidden: int = 256,
        depth: int = 3,
        drop: float = 0.2,
    ) -> None:
        super().__init__()
        condition_width = condition_width or width
        self.drop, self.hidden = drop, hidden
        for name, size in (("target", width), ("condition", condition_width)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.nothing = nn.Parameter(torch.zeros(hidden))
        self.enter = nn.Linear(width, hidden)
        self.condition = nn.Linear(condition_width, hidden)
        self.time = nn.Sequential(nn.Linear(64, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(depth))
        self.leave = nn.Linear(hidden, width)

    def set_statistics(self, conditions: Tensor, targets: Tensor) -> None:
        """Take mean and deviation of every feature of the training part."""
        for name, values in (("condition", conditions), ("target", targets)):
            scale = values.std(0, correction=0)
            scale = torch.where(scale > 1e-6 * values.abs().amax(0), scale, 1.0)
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_scale").copy_(scale)

    def forward(self, condition: Tensor, target: Tensor) -> Tensor:
        """Terms (n, 1): squared error of the denoised embedding, at a random time each."""
        clean = (target - self.target_mean) / self.target_scale
        time = torch.rand(len(clean)).to(clean)
        share = signal_share(time)[:, None]
        noisy = share.sqrt() * clean + (1 - share).sqrt() * torch.randn(clean.shape).to(clean)
        kept = (torch.rand(len(clean), 1) >= self.drop).to(clean)
        error = self._denoise(noisy, time, self._given(condition, kept)) - clean
        return (error**2).mean(1, keepdim=True)

    def combine(self, means: Tensor) -> Tensor:
        """Loss of the mean terms of a batch."""
        return means[0]

    def _given(self, condition: Tensor, kept: Tensor | float = 1.0) -> Tensor:
        standard = (condition - self.condition_mean) / self.condition_scale
        return kept * self.condition(standard) + (1 - kept) * self.nothing

    def _denoise(self, noisy: Tensor, time: Tensor, given: Tensor) -> Tensor:
        rates = torch.exp(torch.linspace(0, math.log(1000), 32)).to(noisy)
        angles = time[:, None] * rates
        x = self.enter(noisy) + given + self.time(torch.cat([angles.sin(), angles.cos()], 1))
        for block in self.blocks:
            x = block(x)
        # The noisy vector itself is a good guess where there is little noise.
        return self.leave(F.gelu(x)) + signal_share(time).sqrt()[:, None] * noisy

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor | None,
        *,
        seeds: Sequence[int],
        steps: int = 20,
        guidance: float = 1.0,
    ) -> Tensor:
        """Image embeddings (n, width), one for each seed.

        Every row starts from noise of its own seed, so that it does not depend on the others.

        Parameters
        ----------
        condition : (n, condition_width), or None for samples without condition
        seeds : n of them
        steps : evaluations of the network
        guidance : 0 ignores the condition, 1 samples given it, more exaggerates it

        Raises
        ------
        ModelError
            Conditions that are not finite or have another width; fewer than one step.
        """
        self._check(condition, seeds, steps)
        device, width = self.target_mean.device, len(self.target_mean)
        noise = [torch.randn(width, generator=torch.Generator().manual_seed(s)) for s in seeds]
        x = torch.stack(noise).to(device)
        nothing = self.nothing.expand(len(x), -1)
        given = None if condition is None or guidance == 0 else self._given(condition)
        times = torch.linspace(1, 0, steps + 1, device=device)
        for now, then in zip(times[:-1], times[1:]):
            at = now.expand(len(x))
            clean = self._denoise(x, at, nothing if given is None else given)
            if given is not None and guidance != 1:
                free = self._denoise(x, at, nothing)
                clean = free + guidance * (clean - free)
            here, there = signal_share(now).clamp(0, 1), signal_share(then).clamp(0, 1)
            # At the first step there is no signal at all: what is there is the noise.
            left = (x - here.sqrt() * clean) / (1 - here).sqrt()
            x = there.sqrt() * clean + (1 - there).sqrt() * left
        return x * self.target_scale + self.target_mean

    def _check(self, condition: Tensor | None, seeds: Sequence[int], steps: int) -> None:
        if steps < 1:
            raise ModelError("too few steps to sample", expected="1 or more", found=str(steps))
        if condition is None:
            return
        expected = (len(seeds), len(self.condition_mean))
        if tuple(condition.shape) != expected or not bool(torch.isfinite(condition).all()):
            raise ModelError(
                "these embeddings cannot be a condition", expected=f"{expected}, finite",
                found=f"{tuple(condition.shape)}"
                + ("" if bool(torch.isfinite(condition).all()) else " with NaN or infinity"),
            )  # fmt: skip
