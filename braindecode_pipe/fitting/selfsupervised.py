"""Networks that state their own loss, in the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting.losses import Objective

OWN = "own"


class SelfSupervised(Protocol):
    """A network whose answer is what its loss is made of.

    Terms are given per example and combined after their mean over the batch, so that a loss which
    is no mean over examples (``exp(-r)`` of a mean correlation, a sum divided by a count) is that
    of the whole batch however many processes share it.
    """

    terms: tuple[str, ...]

    def __call__(self, *arguments: Any) -> Tensor:
        """Terms ``(n, n_terms)`` of the examples of a batch."""
        ...

    def combine(self, means: Tensor) -> Tensor:
        """The loss of the mean terms ``(n_terms,)`` of a batch."""
        ...


class OwnLoss(nn.Module):
    """The loss that a network states itself, in the place of an objective."""

    retrieves = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not (hasattr(network, "combine") and hasattr(network, "terms")):
            raise ModelError(
                "this network has no loss of its own",
                expected="a method combine(means) and names of terms",
                found=type(network).__name__,
                remedy="name another loss",
            )
        self.combine = network.combine

    def mixes(self, progress: float) -> bool:
        """Inputs are never mixed."""
        return False

    def forward(
        self,
        estimates: Tensor,
        targets: Tensor | None = None,
        stimuli: Tensor | None = None,
        *,
        progress: float = 1.0,
        mix: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Loss of the terms ``(n, n_terms)`` of a batch; nothing else is looked at."""
        return self.combine(estimates.mean(0))


class Wanted(Protocol):
    """What of the settings of a fit says what it makes small."""

    loss: str
    loss_options: Mapping[str, Any]
    monitor: str


def objective_of(network: nn.Module, settings: Wanted) -> nn.Module:
    """What a fit makes small: ``loss = "own"`` is that of the network, others see ``Objective``.

    Raises
    ------
    ModelError
        The loss is unknown, or its options are; the network has none of its own, or is to be
        judged by a retrieval without targets.
    """
    if settings.loss != OWN:
        return Objective(settings.loss, **settings.loss_options)
    if settings.loss_options or settings.monitor != "loss":
        raise ModelError(
            "the network's own loss has no options and retrieves nothing",
            expected='no loss_options, and monitor = "loss"',
            found=", ".join(settings.loss_options) or f"monitor = {settings.monitor!r}",
        )
    return OwnLoss(network)


class Unlabelled:
    """Examples for a loss of the network's own: arguments and no targets.

    Parameters
    ----------
    n : int, examples
    arguments : callable
        Gives the arguments of the network for some rows ``(k,) int``; the tensors among them have
        a row for each.
    """

    def __init__(self, n: int, arguments: Callable[[np.ndarray], tuple[Any, ...]]) -> None:
        self.n, self.arguments = n, arguments

    def __len__(self) -> int:
        return self.n

    def batch(self, rows: np.ndarray) -> tuple[tuple[Any, ...], Tensor, Tensor]:
        """Arguments, targets without columns, and the rows themselves."""
        arguments = self.arguments(rows)
        device = next((a.device for a in arguments if isinstance(a, Tensor)), "cpu")
        number = torch.as_tensor(np.asarray(rows), dtype=torch.int64, device=device)
        return arguments, torch.zeros(len(rows), 0, device=device), number
