"""The processes of a fit: one, or those that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn

from braindecode_pipe.errors import ModelError


@dataclass(frozen=True)
class World:
    """The processes that share a fit.

    Attributes
    ----------
    rank : number of this process
    size : how many there are
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The world of the process group that is set up, or this process alone."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def smallest(self) -> int:
        """Rows of the smallest batch that can be shared."""
        return max(2, self.size)

    def check_share(self, n: int, batch_size: int) -> None:
        """Refuse to share what does not suffice for all.

        Raises
        ------
        ModelError
            When there are more processes than examples, or than examples of a batch.
        """
        if min(n, batch_size) < self.size:
            raise ModelError(
                "there is less to share than processes",
                expected=f"at least {self.size} examples in all, and in a batch",
                found=f"{n}, batch_size = {batch_size}",
                remedy="start fewer processes, or raise batch_size",
            )

    def check_same(self, step: int, folder: object) -> None:
        """Refuse to go on where processes would go on from different places.

        Raises
        ------
        ModelError
            When the processes found different checkpoints.
        """
        steps = [] if self.size == 1 else self.gather(torch.tensor([step])).tolist()
        if len(set(steps)) > 1:
            raise ModelError(
                "processes found different checkpoints of the same fit",
                file=str(folder),
                expected="a folder that all of them see",
                found=f"steps {', '.join(map(str, steps))}",
                remedy="keep results on a disk that all machines share",
            )

    def own(self, rows: np.ndarray) -> np.ndarray:
        """Those rows of a batch that are this process's: contiguous parts, in order of rank."""
        return np.array_split(rows, self.size)[self.rank]

    def gather(self, values: Tensor) -> Tensor:
        """Rows of all processes, in order of rank; parts may differ in length. No gradient."""
        if self.size == 1:
            return values
        length = torch.tensor([len(values)], device=values.device)
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        distributed.all_gather(lengths, length)
        longest = int(max(lengths))
        padded = values.new_zeros((longest, *values.shape[1:]))
        padded[: len(values)] = values
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        return torch.cat([part[: int(n)] for part, n in zip(parts, lengths)])

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.size == 1:
            return
        own = [p for p in parameters if p.requires_grad]
        for p in own:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in own])
        distributed.all_reduce(flat)
        at = 0
        for p in own:
            p.grad.copy_(flat[at : at + p.numel()].view_as(p))
            at += p.numel()

    def same_start(self, network: nn.Module) -> None:
        """Give all processes the weights and buffers of the first."""
        if self.size > 1:
            for value in network.state_dict().values():
                distributed.broadcast(value, 0)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def launched() -> Iterator[World]:
    """The world that ``torchrun`` describes in the environment; one process without it.

    See :func:`backend` and :func:`take_device`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield World.current()
        return
    take_device()
    distributed.init_process_group(backend())
    try:
        yield World.current()
    finally:
        distributed.destroy_process_group()


def backend() -> str:
    """gloo for tensors on CPUs, states of generators among them, and nccl for those on GPUs."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def take_device() -> None:
    """Take the GPU of the local rank, where there are GPUs."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def best_device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
