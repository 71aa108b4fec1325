"""Learning curves for TensorBoard, where a writer of its files is installed."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from braindecode_pipe.errors import InputError

_WRITERS = ("torch.utils.tensorboard", "tensorboardX")
_NAMES = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "validation_top1": "retrieval/validation top-1",
}


def writer_class() -> Any:
    """``SummaryWriter`` of torch, or of tensorboardX.

    Raises
    ------
    InputError
        When neither can be imported.
    """
    for name in _WRITERS:
        try:
            return importlib.import_module(name).SummaryWriter
        except ImportError:
            continue
    raise InputError(
        "TensorBoard's files cannot be written",
        expected="the package tensorboard, or tensorboardX",
        found="neither",
        remedy="pip install 'braindecode-pipe[tensorboard]'",
    )


class Curves:
    """The curves of one fit in a folder: a point per epoch, there to be seen at once."""

    def __init__(self, folder: str | Path) -> None:
        self._writer = writer_class()(str(folder))

    def add(self, record: dict[str, float]) -> None:
        """Losses and validation score of an epoch, as far as they were measured."""
        for name, tag in _NAMES.items():
            if math.isfinite(record[name]):
                self._writer.add_scalar(tag, record[name], int(record["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
