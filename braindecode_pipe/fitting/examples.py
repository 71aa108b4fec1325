"""What a network is fitted to, in batches, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting.losses import clip_scores


class Examples(Protocol):
    """What the loop is fed with.

    An object may also have

    * ``mates(rows) -> (n,) int``: inputs are mixed only within equal numbers (one person, one
      layout of sensors);
    * ``order(rng) -> (n,) int``, a permutation: the order of an epoch that suits its stores;
    * ``ahead(epoch, batches)``, a context that gives the batches of an epoch one after another,
      each valid until the next is asked for; what it gives may hang on the number of the epoch.
    """

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> tuple[tuple[Any, ...], Tensor, Tensor]:
        """Arguments of the network, targets ``(n, ...)``, stimuli ``(n,)`` int64 of some rows.

        The tensors among the arguments have a row for each of ``rows``; the first is the signal.
        """
        ...


def batches(
    n: int,
    size: int,
    rng: np.random.Generator | None = None,
    shuffle: Callable[[np.random.Generator], np.ndarray] | None = None,
    smallest: int = 2,
) -> list[np.ndarray]:
    """Rows ``0 .. n - 1`` in batches of ``size``, shuffled by ``rng`` or by ``shuffle(rng)``.

    A last batch of fewer than ``smallest`` rows goes to the batch before it: batch norm and a
    contrastive loss need two, and each of several processes needs one.
    """
    if rng is None:
        order = np.arange(n)
    else:
        order = rng.permutation(n) if shuffle is None else shuffle(rng)
    cuts = list(range(size, n, size))
    if cuts and n - cuts[-1] < smallest:
        cuts.pop()
    return np.split(order, cuts)


@contextmanager
def fed(
    examples: Examples, epoch: int, rows: Sequence[np.ndarray]
) -> Iterator[Iterator[tuple[tuple[Any, ...], Tensor, Tensor]]]:
    """Batches of ``rows`` one after another, read ahead by examples that can."""
    if hasattr(examples, "ahead"):
        with examples.ahead(epoch, rows) as batches_of_epoch:
            yield batches_of_epoch
    else:
        yield map(examples.batch, rows)


def mix_inputs(arguments: Sequence[Any], mates: np.ndarray) -> tuple[tuple[Any, ...], Any]:
    """Inputs mixed in pairs: share ``Beta(0.15, 0.15)``, for half of the rows (MindEye2).

    Parameters
    ----------
    arguments : of the network; the first is mixed
    mates : (n,) int, rows are mixed within equal numbers

    Returns
    -------
    arguments : with the mixed input
    (partner, share) : (n,) tensors
    """
    n = len(mates)
    draw = torch.rand(n)
    partner = np.arange(n)
    for group in np.unique(mates):
        own = np.flatnonzero(mates == group)
        partner[own] = own[np.argsort(draw[own].numpy(), kind="stable")]
    share = torch.distributions.Beta(0.15, 0.15).sample((n,))
    share = torch.where(torch.rand(n) < 0.5, share, torch.ones(n))
    x = arguments[0]
    shape = (-1, *[1] * (x.ndim - 1))
    weight = share.to(x).view(shape)
    partner = torch.from_numpy(partner)
    mixed = weight * x + (1 - weight) * x[partner.to(x.device)]
    return (mixed, *arguments[1:]), (partner.to(x.device), share.to(x.device))


@torch.no_grad()
def evaluate(
    network: nn.Module,
    examples: Examples,
    loss: Callable[..., Tensor],
    batch_size: int,
    estimate: Callable[[Sequence[Any]], Tensor] | None = None,
) -> tuple[float, float]:
    """Loss and top-1 retrieval of ``examples``, dropout off.

    The contrastive loss takes batches of ``batch_size`` in the order of the rows. Candidates of
    the retrieval are the different stimuli of ``examples``, one each; a tie for the first place
    counts as the chance of winning it. Of two heads the first is the one that retrieves.
    ``estimate`` is how the network is asked, where not by a plain call. A loss with ``retrieves``
    False compares with no target: there is no retrieval, and NaN stands for it.
    """
    network.eval()
    total, estimates, targets, stimuli = 0.0, [], [], []
    for rows in batches(len(examples), batch_size):
        arguments, target, which = examples.batch(rows)
        answer = network(*arguments) if estimate is None else estimate(arguments)
        total += float(loss(answer, target, which)) * len(rows)
        if not getattr(loss, "retrieves", True):
            continue
        estimates.append(retrieving(answer, target.ndim).flatten(1).cpu())
        targets.append(target.flatten(1).cpu())
        stimuli.append(which.cpu())
    if not estimates:
        return total / len(examples), float("nan")
    which = torch.cat(stimuli).numpy()
    ids, first, truth = np.unique(which, return_index=True, return_inverse=True)
    scores = clip_scores(torch.cat(estimates), torch.cat(targets)[first]).numpy()
    own = np.take_along_axis(scores, truth[:, None], 1)
    greater, equal = (scores > own).sum(1), (scores == own).sum(1)
    return total / len(examples), float(np.where(greater == 0, 1 / equal, 0.0).mean())


def retrieving(estimates: Tensor, n_axes: int) -> Tensor:
    """The estimates that retrieve: those of the first head where there are two."""
    return estimates[:, 0] if estimates.ndim == n_axes + 1 else estimates


@torch.no_grad()
def predict(network: nn.Module, arguments_of: Callable[[np.ndarray], Sequence[Any]], n: int,
            batch_size: int = 256) -> np.ndarray:  # fmt: skip
    """Estimates ``(n, n_features[, n_times])`` float32 of rows ``0 .. n - 1``, dropout off."""
    network.eval()
    parts = [
        network(*arguments_of(rows)).cpu().numpy()
        for rows in np.split(np.arange(n), range(batch_size, n, batch_size))
        if len(rows)
    ]
    if not parts:
        raise ModelError("nothing to predict", expected="at least one window", found="0")
    return np.concatenate(parts).astype(np.float32, copy=False)
