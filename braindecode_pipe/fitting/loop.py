"""The training loop. There is one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting import resume
from braindecode_pipe.fitting.examples import Examples, batches, evaluate, fed, mix_inputs
from braindecode_pipe.fitting.selfsupervised import objective_of
from braindecode_pipe.fitting.world import World
from braindecode_pipe.networks.normalization import batch_statistics


@dataclass(frozen=True)
class Settings:
    """How a fit goes.

    Attributes
    ----------
    loss, loss_options : see :func:`~braindecode_pipe.fitting.selfsupervised.objective_of`
    lr, weight_decay : of AdamW
    batch_size : examples of a batch, over all processes
    micro_batch : examples that pass through the network at a time; 0: the whole batch
    epochs, patience : int
    seed : int
    schedule : ``cosine`` lets the rate fall to 0 over all epochs, step by step
    warmup : share of all steps over which the rate rises from 0
    clip_norm : the gradient is shortened to this length; 0: never
    precision : ``bf16`` computes products in bfloat16; weights, losses and sums stay float32
    monitor : validation loss, or top-1 retrieval among the validation stimuli (ties by loss)
    """

    loss: str = "clip"
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 3e-4
    weight_decay: float = 0.0
    batch_size: int = 128
    micro_batch: int = 0
    epochs: int = 50
    patience: int = 10
    seed: int = 0
    schedule: Literal["cosine", "constant"] = "constant"
    warmup: float = 0.0
    clip_norm: float = 0.0
    precision: Literal["float32", "bf16"] = "float32"
    monitor: Literal["loss", "retrieval"] = "loss"

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of optimiser step ``step``, from 0, of ``n_steps``."""
        rising = self.warmup * n_steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return self.lr
        done = (step - rising) / max(1, n_steps - rising)
        return self.lr * (1 + math.cos(math.pi * done)) / 2


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


def fit(
    network: nn.Module,
    train: Examples,
    validation: Examples | None = None,
    *,
    folder: str | Path | None = None,
    save_every_s: float = 60.0,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_batch: Callable[[int, int, float], None] | None = None,
    **settings: Any,
) -> Fit:
    """Train ``network`` in place and leave the best weights in it.

    AdamW. With validation examples, training stops when the monitored value has not got better
    for ``patience`` epochs, and the weights of the best epoch are put back; without, all epochs
    are done and the last weights stay. The seed rules the order of examples and everything that
    the network draws (dropout); on a CPU with a fixed number of threads the same seed gives the
    same bytes. The global random state of torch is put back at the end.

    Under ``torchrun`` each process takes its part of every batch, and the contrastive loss goes
    over the whole batch: estimates are gathered, every process computes the same loss, and the
    gradients of the parts are summed. A last batch with fewer examples than processes goes to the
    batch before it. ``micro_batch`` does the same in one process, with the
    memory of one small part (cached gradients, Gao et al. 2021, arXiv 2101.06983).

    Parameters
    ----------
    network : nn.Module, called with the arguments that ``Examples.batch`` gives
    train, validation : Examples
    folder : path, optional
        Checkpoints go there, and a fit that was stopped goes on from the newest, bit for bit.
        ``log.jsonl`` beside them holds a line per epoch.
    save_every_s : float [s], between checkpoints within an epoch; each epoch ends with one
    on_epoch : callable, optional
        Gets each record of the log.
    on_batch : callable, optional
        Gets number of the batch, batches of the epoch, and the mean loss so far.
    **settings : fields of :class:`Settings`

    Raises
    ------
    ModelError
        With fewer than two training examples, when the loss stops being finite, or when
        ``micro_batch`` would change what a layer computes.
    """
    if len(train) < 2:
        raise ModelError(
            "too few examples to train a network", expected="at least 2", found=str(len(train))
        )
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    # A fork of the generators keeps this fit from disturbing the caller, and the reverse.
    with torch.random.fork_rng(devices=devices):
        run = _Run(network, train, validation, Settings(**settings), folder, save_every_s)
        return run.all_epochs(on_epoch, on_batch)


class _Run:
    """One fit on its way."""

    def __init__(
        self,
        network: nn.Module,
        train: Examples,
        validation: Examples | None,
        settings: Settings,
        folder: str | Path | None,
        save_every_s: float,
    ) -> None:
        self.network, self.train, self.validation = network, train, validation
        self.settings, self.world = settings, World.current()
        self.save_every_s, self._saved = save_every_s, time.monotonic()
        _refuse_micro_batches(network, settings)
        self.world.check_share(len(train), settings.batch_size)
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        self.objective = objective_of(network, settings).to(device)
        self.parameters = [*network.parameters(), *self.objective.parameters()]
        self.optimizer = torch.optim.AdamW(
            [p for p in self.parameters if p.requires_grad],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
        )
        self.modules = {"network": network, "objective": self.objective}
        self.rng = np.random.default_rng(settings.seed)
        self.best: dict[str, Tensor] | None = None
        self.at = resume.Position(1, 0, 0.0, resume.numpy_state(self.rng), [], None, 0, 0)
        self.n_steps = settings.epochs * len(self._order())
        self.world.same_start(network)
        # Processes draw their own noise; without a network of their own they would be copies.
        torch.manual_seed(settings.seed + 1_000_003 * self.world.rank)
        self.folder = None if folder is None else Path(folder)
        self.checkpoints = None
        if self.folder is not None:
            key = {**asdict(settings), "n": len(train), "processes": self.world.size}
            key["feed"] = getattr(train, "facts", None)
            self.checkpoints = resume.Checkpoints(self.folder, key)
            self._go_on()

    def _go_on(self) -> None:
        found = self.checkpoints.load(self.modules, self.optimizer)
        self.world.check_same(-1 if found is None else found[0].step, self.folder)
        if found is None:
            return
        self.at, self.best, states = found
        self.rng.bit_generator.state = self.at.generator
        resume.set_generator_states(states, self.world.rank)

    def _order(self, rng: np.random.Generator | None = None) -> list[np.ndarray]:
        shuffle = getattr(self.train, "order", None)
        size = self.settings.batch_size
        return batches(len(self.train), size, rng, shuffle, self.world.smallest)

    def all_epochs(self, on_epoch: Any, on_batch: Any) -> Fit:
        """Train until the last epoch or until patience ends."""
        settings = self.settings
        while self.at.epoch <= settings.epochs and not self._out_of_patience():
            mean_loss = self._epoch(on_batch)
            record = self._record(mean_loss)
            self.at.log.append(record)
            self._keep_best(record)
            self.at.epoch, self.at.batch, self.at.total = self.at.epoch + 1, 0, 0.0
            self.at.generator = resume.numpy_state(self.rng)
            self._save()
            self._write_log()
            if on_epoch is not None:
                on_epoch(record)
        if self.best is not None:
            self.network.load_state_dict(self.best)
        self.network.eval()
        return Fit(self.at.log, self.at.best_epoch)

    def _out_of_patience(self) -> bool:
        done = self.at.epoch - 1
        return self.validation is not None and done - self.at.best_epoch >= self.settings.patience

    def _epoch(self, on_batch: Any) -> float:
        """What is left of one pass over ``train``; the mean loss per example of all of it."""
        self.network.train()
        order = self._order(self.rng)
        own = [self.world.own(rows) for rows in order[self.at.batch :]]
        with fed(self.train, self.at.epoch, own) as feed:
            self._batches(order, own, feed, on_batch)
        return self.at.total / len(self.train)

    def _batches(self, order: Any, own: Any, feed: Any, on_batch: Any) -> None:
        """A step for each batch of an epoch that is left."""
        for number, rows, batch in zip(range(self.at.batch, len(order)), own, feed):
            progress = self.at.step / max(1, self.n_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.rate(self.at.step, self.n_steps)
            self.optimizer.zero_grad(set_to_none=True)
            value = self._gradients(rows, batch, progress)
            if self.settings.clip_norm:
                nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
            self.optimizer.step()
            self.at.step += 1
            self.at.batch = number + 1
            self.at.total += value * len(order[number])
            if on_batch is not None:
                seen = sum(map(len, order[: number + 1]))
                on_batch(number + 1, len(order), self.at.total / seen)
            if self.at.batch < len(order):
                self._save(self.save_every_s)

    def _gradients(self, own: np.ndarray, batch: Any, progress: float) -> float:
        """Gradients of the loss of a whole batch, summed over processes; returns the loss."""
        arguments, targets, stimuli = batch
        mix = None
        if self.objective.mixes(progress):
            has_mates = hasattr(self.train, "mates")
            mates = self.train.mates(own) if has_mates else np.zeros(len(own), np.int64)
            arguments, mix = mix_inputs(arguments, mates)
        size = self.settings.micro_batch or len(own)
        if self.world.size == 1 and size >= len(own):
            estimates = self._estimate(arguments)
            value = self.objective(estimates, targets, stimuli, progress=progress, mix=mix)
            value.backward()
            return float(value.detach())
        parts = np.split(np.arange(len(own)), range(size, len(own), size))
        whole = len(parts) == 1
        kept, states = [], []
        with nullcontext() if whole else torch.no_grad():
            for part in parts:
                states.append(resume.generator_states(self.world.rank))
                kept.append(self._estimate(arguments if whole else _take(arguments, part)))
        estimates = torch.cat([e.detach() for e in kept])
        value, gradient = self._loss_of_all(estimates, targets, stimuli, progress, mix)
        if whole:
            kept[0].backward(gradient)
        else:
            after = resume.generator_states(self.world.rank)
            for part, state in zip(parts, states):
                # What the network draws must be what it drew when the estimates were kept.
                resume.set_generator_states(state, self.world.rank)
                self._estimate(_take(arguments, part)).backward(gradient[part])
            resume.set_generator_states(after, self.world.rank)
        self.world.sum_gradients(self.network.parameters())
        return value

    def _loss_of_all(
        self, estimates: Tensor, targets: Tensor, stimuli: Tensor, progress: float, mix: Any
    ) -> tuple[float, Tensor]:
        """Loss of the gathered batch, and its gradient for the estimates of this process.

        Every process computes the same loss, so that what the objective learns has the same
        gradient everywhere and is not summed.
        """
        world = self.world
        start = sum(len(part) for part in np.array_split(np.arange(self._n_all(estimates)),
                                                         world.size)[: world.rank])  # fmt: skip
        everyone = world.gather(estimates).requires_grad_()
        if mix is not None and world.size > 1:
            mix = (world.gather(mix[0] + start), world.gather(mix[1]))
        value = self.objective(
            everyone, world.gather(targets), world.gather(stimuli), progress=progress, mix=mix
        )
        value.backward()
        return float(value.detach()), everyone.grad[start : start + len(estimates)]

    def _n_all(self, estimates: Tensor) -> int:
        if self.world.size == 1:
            return len(estimates)
        return int(self.world.gather(torch.tensor([len(estimates)])).sum())

    def _estimate(self, arguments: Sequence[Any]) -> Tensor:
        with self._autocast():
            estimates = self.network(*arguments)
        return estimates.float() if estimates.dtype == torch.bfloat16 else estimates

    def _autocast(self) -> AbstractContextManager:
        if self.settings.precision == "float32":
            return nullcontext()
        device = next(self.network.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16)

    def _record(self, train_loss: float) -> dict[str, float]:
        """The line of the log of one epoch."""
        record = {"epoch": self.at.epoch, "train_loss": train_loss}
        scores = [float("nan")] * 2
        if self.validation is not None:
            scores = evaluate(
                self.network, self.validation, self.objective, self.settings.batch_size,
                self._estimate,
            )  # fmt: skip
            # Machines may differ in the last bits; all must decide alike when to stop.
            scores = self.world.gather(torch.tensor([scores], dtype=torch.float64))[0].tolist()
        record["validation_loss"], record["validation_top1"] = scores
        _check_finite(record, self.validation is not None)
        return record

    def _keep_best(self, record: dict[str, float]) -> None:
        if self.validation is None:
            self.at.best_epoch = self.at.epoch
            return
        top1 = record["validation_top1"] if self.settings.monitor == "retrieval" else 0.0
        score = (top1, -record["validation_loss"])
        if self.at.best_score is None or score > self.at.best_score:
            self.at.best_score, self.at.best_epoch = score, self.at.epoch
            self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def _save(self, not_within_s: float = 0.0) -> None:
        if self.checkpoints is None:
            return
        late = time.monotonic() - self._saved >= not_within_s
        if self.world.size > 1 and not_within_s:
            # The first process decides for all, as their clocks differ.
            late = bool(self.world.gather(torch.tensor([late]))[0])
        if not late:
            return
        states = resume.generator_states(self.world.rank)
        if self.world.size > 1:
            gathered = {
                kind: self.world.gather(state[None]) for kind, state in (
                    (key.split("/")[0], value) for key, value in states.items())
            }  # fmt: skip
            states = {
                f"{kind}/{rank}": state
                for kind, rows in gathered.items()
                for rank, state in enumerate(rows)
            }
        if self.world.rank == 0:
            self.checkpoints.save(self.at, self.modules, self.optimizer, self.best, states)
        self.world.wait()
        self._saved = time.monotonic()

    def _write_log(self) -> None:
        if self.checkpoints is not None and not self.world.rank:
            self.checkpoints.write_log(self.at.log)


def _refuse_micro_batches(network: nn.Module, settings: Settings) -> None:
    layers = batch_statistics(network) if settings.micro_batch else []
    if layers and settings.micro_batch < settings.batch_size:
        shown = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
        raise ModelError(
            "parts of a batch would each be normalised by themselves",
            expected="a network without batch statistics, or whole batches",
            found=f"micro_batch = {settings.micro_batch} with {shown}",
            remedy="set micro_batch = 0; recompute = true of the network saves memory instead",
        )


def _take(arguments: Sequence[Any], part: np.ndarray) -> list[Any]:
    index = torch.from_numpy(part)
    return [a[index] if isinstance(a, Tensor) else a for a in arguments]


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
