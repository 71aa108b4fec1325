"""Networks inside :class:`~braindecode_pipe.train.decoder.BrainDecoder`: build, feed, fit, ask."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.fitting import loop
from braindecode_pipe.fitting.examples import predict as predict_rows
from braindecode_pipe.networks.convolution import ConvEncoder
from braindecode_pipe.networks.voxels import VoxelMLP

NETWORKS = {"mlp": VoxelMLP, "conv": ConvEncoder}
# Set from the data, so a recipe cannot give them.
_FROM_DATA = {"self", "n_in", "n_out", "n_subjects", "n_times", "n_steps"}


def build(
    kind: str, shape: tuple[int, int], n_out: int, n_steps: int, n_subjects: int,
    arguments: Mapping[str, Any], seed: int,
) -> tuple[torch.nn.Module, dict[str, Any]]:  # fmt: skip
    """A network with the weights that ``seed`` gives it, and all arguments of its constructor.

    Parameters
    ----------
    kind : {"mlp", "conv"}
    shape : (n_sensors, n_times) of a window
    n_out : features of the target, per step
    n_steps : steps of the target
    n_subjects : int
    arguments : from the recipe, passed through the constructor's signature

    Raises
    ------
    RecipeError
        When the constructor has no such argument.
    """
    known = set(inspect.signature(NETWORKS[kind].__init__).parameters) - _FROM_DATA
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise RecipeError(
            f"unknown setting of the network {kind}: {', '.join(unknown)}",
            expected=", ".join(sorted(known)),
            found=", ".join(f"{name} = {arguments[name]!r}" for name in unknown),
            remedy=f"correct [train.network.{kind}]",
        )
    if kind == "mlp":
        full = {"n_in": shape[0] * shape[1], "n_out": n_out * n_steps, **arguments}
    else:
        full = {
            "n_out": n_out,
            "n_subjects": n_subjects,
            "n_times": shape[1],
            "n_steps": n_steps,
            "pool": "steps" if n_steps > 1 else "affine",
            **arguments,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[kind](**full), full


@dataclass(frozen=True)
class Inputs:
    """Windows as the network takes them.

    Attributes
    ----------
    kind : "mlp" or "conv"
    X : (n, n_sensors, n_times), an array or a view that reads when indexed
    mean, scale : (n_features,) for mlp, (n_subjects, n_sensors, 1) for conv
    subjects : (n,) int64
    positions, masks : (n_subjects, n_sensors, 2) and (n_subjects, n_sensors), conv only
    """

    kind: str
    X: Any
    mean: np.ndarray
    scale: np.ndarray
    subjects: np.ndarray
    positions: np.ndarray | None
    masks: np.ndarray | None

    def __call__(self, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Arguments of the network for some rows."""
        x = np.asarray(self.X[rows], np.float64)
        if self.kind == "mlp":
            x = x.reshape(len(x), -1)
            return (torch.from_numpy(((x - self.mean) / self.scale).astype(np.float32)),)
        who = self.subjects[rows]
        x = (x - self.mean[who]) / self.scale[who] * self.masks[who][..., None]
        return (
            torch.from_numpy(x.astype(np.float32)),
            torch.from_numpy(self.positions[who]),
            torch.from_numpy(self.masks[who]),
            torch.from_numpy(who),
        )


@dataclass(frozen=True)
class TargetedInputs:
    """:class:`Inputs` with targets, for the training loop; rows are those of ``rows``."""

    inputs: Inputs
    targets: torch.Tensor
    stimuli: torch.Tensor
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> tuple[tuple[Any, ...], torch.Tensor, torch.Tensor]:
        """See :class:`~braindecode_pipe.fitting.examples.Examples`."""
        own = self.rows[rows]
        return self.inputs(own), self.targets[own], self.stimuli[own]


def sensor_moments(
    X: Any, rows: np.ndarray, subjects: np.ndarray, n_subjects: int, block: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per person and sensor ``(n_subjects, n_sensors, 1)``.

    Over the time of the windows in ``rows``, read in blocks; 0 and 1 for people without rows, and
    1 where a sensor is constant.
    """
    n_sensors = X.shape[1]
    count = np.zeros((n_subjects, 1))
    mean, square = np.zeros((2, n_subjects, n_sensors))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        x = np.asarray(X[part], np.float64)
        for who in np.unique(subjects[part]):
            own = x[subjects[part] == who].swapaxes(0, 1).reshape(n_sensors, -1)
            n_old, n_new = count[who, 0], own.shape[1]
            # Parallel form of the variance (Chan et al. 1983): sums of squares would cancel.
            step = own.mean(1) - mean[who]
            square[who] += own.var(1) * n_new + step**2 * n_old * n_new / (n_old + n_new)
            mean[who] += step * n_new / (n_old + n_new)
            count[who] += n_new
    sd = np.sqrt(square / np.maximum(count, 1))
    sd = np.where(sd > 1e-6 * np.abs(mean), sd, 1.0)
    return mean[..., None], sd[..., None]


def split_steps(Y: np.ndarray, n_steps: int) -> np.ndarray:
    """``(n, n_steps * n_features)`` step by step to ``(n, n_features, n_steps)``."""
    return np.ascontiguousarray(Y.reshape(len(Y), n_steps, -1).swapaxes(1, 2))


def join_steps(estimates: np.ndarray) -> np.ndarray:
    """``(n, n_features, n_steps)`` to ``(n, n_steps * n_features)``; flat ones stay."""
    if estimates.ndim == 2:
        return estimates
    return estimates.swapaxes(1, 2).reshape(len(estimates), -1)


def train(
    network: torch.nn.Module,
    inputs: Inputs,
    targets: np.ndarray,
    stimuli: np.ndarray,
    validation: np.ndarray,
    settings: Mapping[str, Any],
) -> loop.Fit:
    """Fit by the one loop; ``validation`` marks the rows that only stop it early.

    Without validation rows the learning rate falls to zero along a cosine, as nothing else ends
    the training.
    """
    Y, ids = torch.from_numpy(targets), torch.from_numpy(stimuli)
    parts = [
        TargetedInputs(inputs, Y, ids, np.flatnonzero(mask)) for mask in (~validation, validation)
    ]
    return loop.fit(
        network,
        parts[0],
        parts[1] if validation.any() else None,
        schedule="constant" if validation.any() else "cosine",
        **settings,
    )


def predict(network: torch.nn.Module, inputs: Inputs) -> np.ndarray:
    """Estimates ``(n, n_steps * n_features)`` of all rows."""
    return join_steps(predict_rows(network, inputs, len(inputs.X)))
