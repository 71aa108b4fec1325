"""Checkpoints: arrays as safetensors, everything else as JSON. Nothing that can run code.

A checkpoint is two files, as bytes, for ``store.write_store(files=...)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import ModelError

ARRAYS, CONFIG = "model.safetensors", "model.json"


def checkpoint_files(
    arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> dict[str, bytes]:
    """The two files of a checkpoint.

    Parameters
    ----------
    arrays : name -> array
        Weights and buffers of a network (see :func:`state_arrays`), or of a linear model.
    config : JSON values
        What is needed to build the model again.

    Returns
    -------
    ``{"model.safetensors": bytes, "model.json": bytes}``; equal input gives equal bytes
    """
    from safetensors.numpy import save

    # Sorted names fix the order of bytes; safetensors wants C-contiguous arrays.
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    text = json.dumps(config, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return {ARRAYS: save(ordered), CONFIG: text.encode()}


def load_checkpoint(read: Callable[[str], bytes]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and config of a checkpoint.

    Parameters
    ----------
    read : callable, name of a file -> its bytes
        For a store: ``functools.partial(store.read_file, path)``.

    Raises
    ------
    ModelError
        When one of the files does not hold what it should.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(read(ARRAYS))
    except SafetensorError as error:
        raise ModelError(
            "checkpoint cannot be read",
            file=ARRAYS,
            expected="safetensors",
            found=str(error),
            remedy="run the stage train again",
        ) from error
    try:
        config = json.loads(read(CONFIG))
    except ValueError as error:
        raise ModelError(
            "checkpoint cannot be read",
            file=CONFIG,
            expected="JSON",
            found=str(error),
            remedy="run the stage train again",
        ) from error
    return arrays, config


def read_folder(folder: str | Path) -> Callable[[str], bytes]:
    """A ``read`` for :func:`load_checkpoint` when the two files lie in a plain folder."""
    return lambda name: (Path(folder) / name).read_bytes()


def state_arrays(network: Any) -> dict[str, np.ndarray]:
    """Weights and buffers of a torch module as numpy arrays."""
    return {k: v.detach().cpu().numpy() for k, v in network.state_dict().items()}


def restore_state(network: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Put arrays of :func:`state_arrays` back into a torch module; names and shapes must fit.

    Raises
    ------
    ModelError
        When names or shapes differ.
    """
    import torch

    state = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelError(
            "checkpoint of another network",
            expected=f"the arrays of {type(network).__name__} with these arguments",
            found=str(error),
            remedy="build the network from model.json beside the arrays",
        ) from error
