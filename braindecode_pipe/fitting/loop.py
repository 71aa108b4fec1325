"""The training loop. There is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting.losses import LOSSES, clip_scores


class Examples(Protocol):
    """What the loop is fed with."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> tuple[tuple[Any, ...], Tensor, Tensor]:
        """Arguments of the network, targets ``(n, ...)``, stimuli ``(n,)`` int64 of some rows."""
        ...


@dataclass(frozen=True)
class Fit:
    """What a fit was.

    Attributes
    ----------
    log : one record per epoch: epoch, train_loss, validation_loss, validation_top1 (NaN where
        there is no validation)
    best_epoch : int, whose weights the network holds now
    """

    log: list[dict[str, float]]
    best_epoch: int


def batches(n: int, size: int, rng: np.random.Generator | None = None) -> list[np.ndarray]:
    """Rows ``0 .. n - 1`` in batches of ``size``, shuffled by ``rng``.

    A last batch of one row goes to the batch before it: batch norm and a contrastive loss need
    two.
    """
    order = np.arange(n) if rng is None else rng.permutation(n)
    cuts = list(range(size, n, size))
    if cuts and n - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)


def fit(
    network: nn.Module,
    train: Examples,
    validation: Examples | None = None,
    *,
    loss: Literal["clip", "mse"] = "clip",
    lr: float = 3e-4,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    epochs: int = 50,
    patience: int = 10,
    seed: int = 0,
    schedule: Literal["cosine", "constant"] = "constant",
    monitor: Literal["loss", "retrieval"] = "loss",
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Fit:
    """Train ``network`` in place and leave the best weights in it.

    AdamW. With validation examples, training stops when the monitored value has not got better
    for ``patience`` epochs, and the weights of the best epoch are put back; without, all epochs
    are done and the last weights stay. The seed rules the order of examples and everything that
    the network draws (dropout); on a CPU with a fixed number of threads the same seed gives the
    same bytes. The global random state of torch is put back at the end.

    Parameters
    ----------
    network : nn.Module, called with the arguments that ``Examples.batch`` gives
    train, validation : Examples
    loss : {"clip", "mse"}
    lr, weight_decay : of AdamW
    batch_size, epochs, patience : int
    seed : int
    schedule : {"cosine", "constant"}
        ``cosine`` lets the rate fall to 0 over all epochs, step by step.
    monitor : {"loss", "retrieval"}
        Validation loss, or top-1 retrieval among the validation stimuli (ties by loss).
    on_epoch : callable, optional
        Gets each record of the log.

    Raises
    ------
    ModelError
        With fewer than two training examples, or when the loss stops being finite.
    """
    if len(train) < 2:
        raise ModelError(
            "too few examples to train a network", expected="at least 2", found=str(len(train))
        )
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    rng = np.random.default_rng(seed)
    scheduler = None
    if schedule == "cosine":
        n_steps = epochs * len(batches(len(train), batch_size))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    log: list[dict[str, float]] = []
    best_score, best_epoch, best_state = None, 0, None
    # A fork of the generator keeps this fit from disturbing the caller, and the reverse.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(1, epochs + 1):
            order = batches(len(train), batch_size, rng)
            value = _train_epoch(network, train, LOSSES[loss], optimizer, scheduler, order)
            record = _record(epoch, value, network, validation, LOSSES[loss], batch_size)
            log.append(record)
            if on_epoch is not None:
                on_epoch(record)
            if validation is None:
                best_epoch = epoch
                continue
            score = (
                record["validation_top1"] * (monitor == "retrieval"),
                -record["validation_loss"],
            )
            if best_score is None or score > best_score:
                best_score, best_epoch = score, epoch
                best_state = {k: v.detach().clone() for k, v in network.state_dict().items()}
            elif epoch - best_epoch >= patience:
                break
    if best_state is not None:
        network.load_state_dict(best_state)
    network.eval()
    return Fit(log, best_epoch)


def _train_epoch(network, train, loss, optimizer, scheduler, order) -> float:
    """One pass over ``train`` in the given batches; the mean loss per example."""
    network.train()
    total = 0.0
    for rows in order:
        arguments, targets, stimuli = train.batch(rows)
        value = loss(network(*arguments), targets, stimuli)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        total += float(value.detach()) * len(rows)
    return total / len(train)


def _record(epoch, train_loss, network, validation, loss, batch_size) -> dict[str, float]:
    """The line of the log of one epoch."""
    record = {"epoch": epoch, "train_loss": train_loss}
    record["validation_loss"], record["validation_top1"] = (
        evaluate(network, validation, loss, batch_size)
        if validation is not None
        else (float("nan"), float("nan"))
    )
    _check_finite(record, validation is not None)
    return record


def _check_finite(record: dict[str, float], validated: bool) -> None:
    names = ("train_loss", "validation_loss") if validated else ("train_loss",)
    for name in names:
        if not np.isfinite(record[name]):
            raise ModelError(
                f"{name} is not finite in epoch {record['epoch']}",
                expected="a finite number",
                found=str(record[name]),
                remedy="use a smaller lr, and look at the scale of the signals (scaler, clamp)",
            )


@torch.no_grad()
def evaluate(
    network: nn.Module, examples: Examples, loss: Callable[..., Tensor], batch_size: int
) -> tuple[float, float]:
    """Loss and top-1 retrieval of ``examples``, dropout off.

    The contrastive loss takes batches of ``batch_size`` in the order of the rows. Candidates of
    the retrieval are the different stimuli of ``examples``, one each; a tie for the first place
    counts as the chance of winning it.
    """
    network.eval()
    total, estimates, targets, stimuli = 0.0, [], [], []
    for rows in batches(len(examples), batch_size):
        arguments, target, which = examples.batch(rows)
        estimate = network(*arguments)
        total += float(loss(estimate, target, which)) * len(rows)
        estimates.append(estimate.flatten(1))
        targets.append(target.flatten(1))
        stimuli.append(which)
    which = torch.cat(stimuli).numpy()
    ids, first, truth = np.unique(which, return_index=True, return_inverse=True)
    scores = clip_scores(torch.cat(estimates), torch.cat(targets)[first]).numpy()
    own = np.take_along_axis(scores, truth[:, None], 1)
    greater, equal = (scores > own).sum(1), (scores == own).sum(1)
    return total / len(examples), float(np.where(greater == 0, 1 / equal, 0.0).mean())


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
