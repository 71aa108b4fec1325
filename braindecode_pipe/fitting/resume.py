"""Everything that a fit needs to go on, bit for bit, where it was stopped.

A checkpoint is one safetensors file: arrays (weights, moments of the optimiser, best weights,
states of the random generators), and JSON in its header (position, log, settings). It is written
aside and renamed, the last two are kept, and a checksum over the arrays tells a damaged one.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from braindecode_pipe.errors import CorruptStoreError, ModelError

KEPT = 2
_PREFIX, _SUFFIX = "checkpoint-", ".safetensors"


@dataclass
class Position:
    """Where a fit is.

    Attributes
    ----------
    epoch : the epoch that is under way, from 1
    batch : batches of it that are done
    total : sum over those batches of loss times examples
    generator : state of the numpy generator before this epoch's order was drawn
    log : records of the epochs that are done
    best_score, best_epoch : None and 0 before the first validation
    step : optimiser steps in all
    """

    epoch: int
    batch: int
    total: float
    generator: dict[str, Any]
    log: list[dict[str, float]]
    best_score: tuple[float, float] | None
    best_epoch: int
    step: int


class Checkpoints:
    """Checkpoints of one fit in a folder.

    Parameters
    ----------
    folder : path, made when something is saved
    settings : JSON values
        What the fit depends on; a checkpoint of other settings is refused.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings, sort_keys=True))

    def save(
        self,
        position: Position,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        best: Mapping[str, Tensor] | None,
        generators: Mapping[str, Tensor],
    ) -> Path:
        """Write a checkpoint by temporary file and rename, then delete all but the last two."""
        from safetensors.torch import save

        arrays = {
            f"{name}/{key}": value
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        for number, state in optimizer.state_dict()["state"].items():
            arrays |= {f"optimizer/{number}/{key}": v for key, v in state.items()}
        arrays |= {f"best/{key}": value for key, value in (best or {}).items()}
        arrays |= {f"generator/{key}": value for key, value in generators.items()}
        arrays = {k: v.detach().cpu().contiguous().clone() for k, v in sorted(arrays.items())}
        content = {**vars(position), "settings": self.settings, "checksum": _checksum(arrays)}
        data = save(arrays, {"fit": json.dumps(content, sort_keys=True)})
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{_PREFIX}{position.step:010d}{_SUFFIX}"
        aside = target.with_suffix(".tmp")
        with aside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(target)
        for old in self.files()[:-KEPT]:
            old.unlink()
        return target

    def files(self) -> list[Path]:
        """The checkpoints that are there, oldest first."""
        return sorted(self.folder.glob(f"{_PREFIX}*{_SUFFIX}"))

    def write_log(self, log: list[dict[str, float]]) -> None:
        """Write ``log.jsonl`` beside the checkpoints, a line per epoch."""
        lines = "".join(json.dumps(record, sort_keys=True) + "\n" for record in log)
        aside = self.folder / "log.jsonl.tmp"
        aside.write_text(lines, encoding="utf-8")
        aside.replace(self.folder / "log.jsonl")

    def load(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> tuple[Position, dict[str, Tensor] | None, dict[str, Tensor]] | None:
        """Put the newest sound checkpoint back.

        A damaged one is passed over with a warning.

        Returns
        -------
        position, best weights, states of generators; None where there is no checkpoint

        Raises
        ------
        ModelError
            When the checkpoint belongs to a fit with other settings.
        CorruptStoreError
            When there are checkpoints and none is sound.
        """
        files = self.files()
        for path in reversed(files):
            try:
                arrays, content = _read(path)
            except (OSError, ValueError, KeyError) as error:
                warnings.warn(
                    f"{path.name} is damaged ({error}); the checkpoint before it is taken",
                    stacklevel=2,
                )
                continue
            if content.pop("settings") != self.settings:
                raise ModelError(
                    "the checkpoint belongs to another fit",
                    file=path,
                    expected="the settings of this fit",
                    found="other settings",
                    remedy="delete the folder to begin anew",
                )
            content.pop("checksum")
            for name, module in modules.items():
                module.load_state_dict(_part(arrays, name))
            _restore_optimizer(optimizer, _part(arrays, "optimizer"))
            score = content.pop("best_score")
            position = Position(**content, best_score=None if score is None else tuple(score))
            return position, _part(arrays, "best") or None, _part(arrays, "generator")
        if files:
            raise CorruptStoreError(
                "no checkpoint can be read",
                file=self.folder,
                expected="a safetensors file whose checksum is right",
                found=f"{len(files)} damaged",
                remedy="delete the folder to begin anew",
            )
        return None


def _part(arrays: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"{name}/"
    return {key[len(start) :]: v for key, v in arrays.items() if key.startswith(start)}


def _restore_optimizer(optimizer: torch.optim.Optimizer, arrays: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        number, name = key.split("/", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _checksum(arrays: Mapping[str, Tensor]) -> int:
    import google_crc32c

    crc = google_crc32c.Checksum()
    for name, value in arrays.items():
        crc.update(name.encode())
        crc.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return int.from_bytes(crc.digest(), "big")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Arrays and header of a checkpoint; ValueError when it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            content = json.loads((stream.metadata() or {})["fit"])
            arrays = {name: stream.get_tensor(name) for name in sorted(stream.keys())}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if _checksum(arrays) != content["checksum"]:
        raise ValueError("its checksum is wrong")
    return arrays, content


def generator_states(rank: int) -> dict[str, Tensor]:
    """States of torch's global generators in this process."""
    states = {f"cpu/{rank}": torch.get_rng_state()}
    if torch.cuda.is_available():
        states[f"cuda/{rank}"] = torch.cuda.get_rng_state()
    return states


def set_generator_states(states: Mapping[str, Tensor], rank: int) -> None:
    """Inverse of :func:`generator_states`."""
    torch.set_rng_state(states[f"cpu/{rank}"])
    if torch.cuda.is_available() and f"cuda/{rank}" in states:
        torch.cuda.set_rng_state(states[f"cuda/{rank}"])


def numpy_state(rng: np.random.Generator) -> dict[str, Any]:
    """State of a numpy generator as JSON values."""
    return dict(rng.bit_generator.state)
