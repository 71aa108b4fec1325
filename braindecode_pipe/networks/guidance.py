"""Pictures (or any latents) drawn towards what a model of a brain region predicts to drive it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.prior import signal_share


def guided_sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    activation: Callable[[Tensor], Tensor] | None = None,
    *,
    scale: float = 0.0,
    steps: int = 20,
) -> Tensor:
    """DDIM samples whose predicted activation is pushed up by its gradient (BrainDiVE).

    With the clean estimate ``x0 = denoise(x_t, t)`` and its noise ``e``, guidance takes
    ``e - sqrt(1 - abar_t) scale grad_x a(x0)`` in the place of ``e``: the gradient goes through
    the estimate of the clean picture, as the encoder was never shown noisy ones (Luo et al. 2023;
    classifier guidance of Dhariwal and Nichol 2021, eq. 14). Scale 0 is the unguided sample,
    bit for bit. Untested with real weights.

    Parameters
    ----------
    denoise : noisy latents (n, ...) and times (n,) in 0 to 1 -> clean latents, for the cosine
        schedule :func:`~braindecode_pipe.networks.prior.signal_share`
    start : (n, ...) noise
    activation : clean latents -> (n,) predicted activation, differentiable
    scale : 0 or more
    steps : evaluations of ``denoise``

    Raises
    ------
    ModelError
        A scale without anything that it scales; an activation without gradient.
    """
    if scale and activation is None:
        raise ModelError("there is nothing to guide by", expected="a differentiable activation",
                         found=f"scale = {scale:g} alone")  # fmt: skip
    x = start
    times = torch.linspace(1, 0, steps + 1, device=start.device)
    for now, then in zip(times[:-1], times[1:]):
        here, there = signal_share(now).clamp(0, 1), signal_share(then).clamp(0, 1)
        at = now.expand(len(x))
        # Where nothing is left of the signal, noise cannot be turned back into a clean estimate.
        pushed = scale != 0 and float(here) > 1e-4
        clean, push = _push(denoise, activation, x, at) if pushed else (denoise(x, at), None)
        noise = (x - here.sqrt() * clean) / (1 - here).sqrt()
        if push is not None:
            noise = noise - (1 - here).sqrt() * scale * push
            clean = (x - (1 - here).sqrt() * noise) / here.sqrt()
        x = (there.sqrt() * clean + (1 - there).sqrt() * noise).detach()
    return x


def _push(
    denoise: Callable[[Tensor, Tensor], Tensor], activation: Callable[[Tensor], Tensor] | None,
    x: Tensor, at: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The clean estimate, and the gradient of its activation for the noisy latents."""
    if activation is None:
        raise ModelError("there is nothing to guide by", expected="an activation", found="none")
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        clean = denoise(x, at)
        value = activation(clean).sum()
        if not value.requires_grad:
            raise ModelError("this activation has no gradient", expected="torch operations only",
                             found="a value that hangs on no latent")  # fmt: skip
        [push] = torch.autograd.grad(value, x)
    return clean.detach(), push
