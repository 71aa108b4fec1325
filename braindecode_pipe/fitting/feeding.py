"""Training windows on their way to the loop: in what order, read ahead, augmented."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.augmenting import Draws, mix, spoil
from braindecode_pipe.fitting.views import IN_MEMORY_BYTES
from braindecode_pipe.recipe import AugmentSection
from braindecode_pipe.store import limit_maps

READ_AHEAD = 2
Batch = tuple[tuple[Any, ...], Tensor, Tensor]


class Inputs(Protocol):
    """Windows of all rows, and what makes arguments of a network of them.

    Attributes
    ----------
    X : (n, n_sensors, n_times), an array or a view such as
        :class:`~braindecode_pipe.fitting.views.WindowView`, with ``read`` and ``chunks``
    subjects : (n,) int, the person of each row
    masks : (n_subjects, n_sensors) bool, sensors that are there
    device : where arguments and targets go
    """

    X: Any
    subjects: np.ndarray
    masks: np.ndarray
    device: torch.device

    def scaled(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Windows of some rows with each sensor at mean 0 and s.d. 1; float32 ones in place."""
        ...

    def arguments(self, x: np.ndarray, rows: np.ndarray) -> tuple[Any, ...]:
        """Arguments of the network for scaled windows ``x`` of some rows."""
        ...


class Feeder:
    """Examples for the training loop, whose windows are read ahead and augmented.

    A thread reads the batches of an epoch, at most two ahead, into memory that is used again: a
    batch is valid until the next one is asked for. In order: the window is read, moved in time
    by up to ``augment.shift_s``; scaled by ``inputs``; mixed with another of the same person and
    batch, targets alike (``mixup``); noise is added and sensors are silenced. All of it hangs on
    (seed, epoch, row) and on the rows of the batch, so a fit that is resumed in mid-epoch sees the
    same windows.

    :meth:`batch` gives rows as they are. It is what validation asks for, so nothing but training
    is ever augmented.

    Parameters
    ----------
    inputs : Inputs
    targets : (n, ...) tensor
    stimuli : (n,) int64 tensor
    rows : (n_rows,) int
        The rows that are fed; the loop counts from 0 to ``n_rows - 1``.
    augment : AugmentSection, optional
    seed : int
    memory : int [bytes]
        Chunks of stores that are mapped at a time; see :func:`shuffled_by_chunks`.

    Raises
    ------
    DataError
        When windows are to be moved in time and ``inputs.X`` is not a view into stores.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: Tensor,
        stimuli: Tensor,
        rows: np.ndarray,
        *,
        augment: AugmentSection | None = None,
        seed: int = 0,
        memory: int = IN_MEMORY_BYTES,
    ) -> None:
        self.inputs, self.targets, self.stimuli, self.rows = inputs, targets, stimuli, rows
        self.augment, self.seed, self.memory = augment or AugmentSection(), int(seed), memory
        self._is_view = hasattr(inputs.X, "chunks")
        self._buffers: list[np.ndarray] = []
        if self.augment.shift_s and not self._is_view:
            raise DataError(
                "windows cannot be moved in time",
                expected="a view into the recordings (Windows.view)",
                found=type(inputs.X).__name__,
                remedy="give a view, or set [train.augment] shift_s = 0",
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def facts(self) -> dict[str, Any]:
        """What the windows of an epoch hang on, beside the rows: JSON, for a checkpoint."""
        return {**self.augment.model_dump(), "seed": self.seed, "memory": self.memory}

    def mates(self, rows: np.ndarray) -> np.ndarray:
        """Person of each row: inputs are mixed within one person only."""
        return self.inputs.subjects[self.rows[rows]]

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Order of the rows in an epoch."""
        if not self._is_view:
            return rng.permutation(len(self))
        number, size = self.inputs.X.chunks(self.rows)
        return shuffled_by_chunks(number, size, self.memory, rng)

    def batch(self, rows: np.ndarray) -> Batch:
        """See :class:`~braindecode_pipe.fitting.examples.Examples`; nothing is augmented."""
        own = self.rows[rows]
        x = self.inputs.scaled(np.array(self.inputs.X[own]), own)
        return self._batch(x, own, self.targets[own])

    @contextmanager
    def ahead(self, epoch: int, batches: Sequence[np.ndarray]) -> Iterator[Iterator[Batch]]:
        """The batches of (what is left of) an epoch, in order, from a thread that reads ahead.

        An error of the thread is raised where its batch is asked for. The thread ends with the
        ``with`` block, however that is left.
        """
        if self._is_view:
            limit_maps(self.memory)
        ready: queue.Queue = queue.Queue(READ_AHEAD)
        free: queue.Queue = queue.Queue()
        stop = threading.Event()
        for buffer in self._buffers_for(max(map(len, batches), default=0)):
            free.put(buffer)

        def read() -> None:
            try:
                for rows in batches:
                    buffer = free.get()
                    if stop.is_set():
                        return
                    ready.put((self._augmented(epoch, rows, buffer), buffer))
            except BaseException as error:  # noqa: BLE001 - the loop raises it
                ready.put((error, None))

        def given() -> Iterator[Batch]:
            for _ in batches:
                batch, buffer = ready.get()
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
                free.put(buffer)

        thread = threading.Thread(target=read, name="feeder", daemon=True)
        thread.start()
        try:
            yield given()
        finally:
            stop.set()
            while thread.is_alive():
                free.put(None)
                with suppress(queue.Empty):
                    ready.get_nowait()
                thread.join(0.01)

    def _buffers_for(self, n: int) -> list[np.ndarray]:
        """Memory for one batch in use, those that wait, and the one that is being read."""
        if not self._buffers or len(self._buffers[0]) < n:
            shape = (n, *self.inputs.X.shape[1:])
            dtype = self.inputs.X.dtype
            self._buffers = [np.empty(shape, dtype) for _ in range(READ_AHEAD + 2)]
        return self._buffers

    def _augmented(self, epoch: int, rows: np.ndarray, buffer: np.ndarray) -> Batch:
        inputs, augment, own = self.inputs, self.augment, self.rows[rows]
        draws = Draws(self.seed, epoch, rows)
        out = buffer[: len(rows)]
        if self._is_view:
            shift_s = draws.shifts(augment.shift_s) if augment.shift_s else None
            inputs.X.read(own, out, shift_s)
        else:
            np.take(inputs.X, own, axis=0, out=out, mode="clip")
        x, targets = inputs.scaled(out, own), self.targets[own]
        if augment.mixup:
            partner, share = draws.pairs(self.mates(rows), augment.mixup)
            mix(x, partner, share)
            weight = torch.from_numpy(share).to(targets).view(-1, *[1] * (targets.ndim - 1))
            targets = weight * targets + (1 - weight) * targets[torch.from_numpy(partner)]
        spoil(x, draws, augment, inputs.masks[inputs.subjects[own]])
        return self._batch(x, own, targets)

    def _batch(self, x: np.ndarray, own: np.ndarray, targets: Tensor) -> Batch:
        device, stimuli = self.inputs.device, self.stimuli[own]
        return self.inputs.arguments(x, own), targets.to(device), stimuli.to(device)


def shuffled_by_chunks(
    number: np.ndarray, size: np.ndarray, memory: int, rng: np.random.Generator
) -> np.ndarray:
    """Random order of rows that takes chunks of stores in turn where they exceed ``memory``.

    Where all chunks fit, every order is equally likely. Otherwise the chunks are shuffled and dealt
    into equal lots of at most half of ``memory`` (the other half is for windows that end in another
    chunk), and rows are shuffled within each lot. Every row comes once; each chunk is read in one
    lot. Which lot a row is in and its place there are random, so the mean over epochs is that of a
    full shuffle; but two rows of one chunk are always in the same lot, so they share a batch about
    as many times more often as there are lots.

    Parameters
    ----------
    number : (n,) int, the chunk of each row
    size : (n,) int, bytes of that chunk
    memory : bytes
    rng : generator

    Returns
    -------
    (n,) int, a permutation
    """
    shuffle = rng.permutation(len(number))
    _, first, chunk = np.unique(number, return_index=True, return_inverse=True)
    bytes_of = size[first]
    if bytes_of.sum() <= memory:
        return shuffle
    order = rng.permutation(len(first))
    n_lots = -(-2 * int(bytes_of.sum()) // memory)
    before = np.cumsum(bytes_of[order]) - bytes_of[order]
    lot = np.empty(len(first), np.int64)
    lot[order] = before * n_lots // bytes_of.sum()
    return shuffle[np.argsort(lot[chunk[shuffle]], kind="stable")]
