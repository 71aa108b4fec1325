"""Batch normalisation that goes over all processes of a fit, and blocks that are computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, distributed, nn

_AGAIN: ContextVar[bool] = ContextVar("again", default=False)


@contextmanager
def _again() -> Iterator[None]:
    token = _AGAIN.set(True)
    try:
        yield
    finally:
        _AGAIN.reset(token)


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)`` whose inner activations are forgotten and computed again for the gradient.

    Takes the memory of one block at a time instead of all, for a third more work. Noise is drawn
    as it was, and running statistics of our batch norms count a batch once.
    """
    from torch.utils.checkpoint import checkpoint

    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _again()))


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient of a sum goes to every process, so it is summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.contiguous().clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient


class _AllProcesses:
    """Batch norm over the batches of all processes together.

    In training and with a process group, mean and variance come from sums over all processes,
    through which gradients flow, so that two processes with half of a batch each compute what one
    process computes of the whole. ``torch.nn.SyncBatchNorm`` does this on GPUs only. In one
    process, and when not training, it is torch's own batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n_channels, ...)`` to the same shape."""
        alone = not (distributed.is_available() and distributed.is_initialized())
        if not self.training or (alone and not _AGAIN.get()):
            return super().forward(x)
        if alone or distributed.get_world_size() == 1:
            if not _AGAIN.get() or not self.track_running_stats:
                return super().forward(x)
            # The running statistics have counted this batch already: copies take it now.
            copies = self.running_mean.clone(), self.running_var.clone()
            return nn.functional.batch_norm(
                x, *copies, self.weight, self.bias, training=True, eps=self.eps
            )
        axes = [0, *range(2, x.ndim)]
        # Sums of half-precision numbers would lose what the variance is made of.
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        n_own = torch.full((1,), wide.numel() // wide.shape[1], dtype=wide.dtype, device=x.device)
        total = _Sum.apply(torch.cat([wide.sum(axes), n_own]))
        n = total[-1]
        mean = total[:-1] / n
        shape = (1, -1, *[1] * (x.ndim - 2))
        centred = wide - mean.view(shape)
        variance = _Sum.apply((centred**2).sum(axes)) / n
        if self.track_running_stats and not _AGAIN.get():
            with torch.no_grad():
                self.num_batches_tracked += 1
                rate = (
                    1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                )
                self.running_mean += rate * (mean - self.running_mean)
                self.running_var += rate * (variance * n / (n - 1) - self.running_var)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)


class BatchNorm1d(_AllProcesses, nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` over the batches of all processes: ``(batch, n[, n_times])``."""


class BatchNorm2d(_AllProcesses, nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` over the batches of all processes: ``(batch, n, height, width)``."""


def batch_statistics(network: nn.Module) -> list[str]:
    """Names of the layers whose output depends on the other rows of a batch.

    A layer of another kind says so by an attribute ``batch_statistics``.
    """
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, kinds) or getattr(layer, "batch_statistics", False)
    ]
