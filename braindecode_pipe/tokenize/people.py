"""Networks that people share, fitted to all of them, and to one more with the body frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.loop import Fit, fit
from braindecode_pipe.networks.brain_tokens import BrainInteraction
from braindecode_pipe.networks.people import VoxelTables, learn_only
from braindecode_pipe.networks.voxel_encoding import VoxelEncoding
from braindecode_pipe.tokenize.clusters import Assignment, Clusters


@dataclass(frozen=True)
class Responses:
    """What one person's voxels answered to stimuli.

    Attributes
    ----------
    values : (n_events, n_voxels) float32
    stimuli : (n_events,) int64, rows of the features of stimuli
    person : int, number in the network
    """

    values: np.ndarray
    stimuli: np.ndarray
    person: int

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.stimuli.shape != (len(self.values),):
            raise DataError(
                f"responses of person {self.person}",
                expected="(n_events, n_voxels), and a stimulus for each event",
                found=f"{self.values.shape} and {self.stimuli.shape}",
            )
        if not np.isfinite(self.values).all():
            raise DataError(
                f"responses of person {self.person} are not finite",
                expected="finite values",
                found=f"{np.sum(~np.isfinite(self.values).all(0))} voxels with others",
                remedy="leave these voxels out",
            )


class _People:
    """Events of several people in a row."""

    def __init__(self, people: Sequence[Responses], device: torch.device | str) -> None:
        self.people, self.device = tuple(people), device
        self.of = np.repeat(np.arange(len(people)), [len(p.values) for p in people])
        self.row = np.concatenate([np.arange(len(p.values)) for p in people])
        self.stimuli = np.concatenate([p.stimuli for p in people]).astype(np.int64)
        self.person = np.array([p.person for p in people], np.int64)

    def __len__(self) -> int:
        return len(self.of)

    def mates(self, rows: np.ndarray) -> np.ndarray:
        """Inputs are mixed within a person only."""
        return self.of[rows]

    def _there(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.to(self.device) for x in tensors)


class ImagesToVoxels(_People):
    """Examples of :class:`VoxelEncoding`: responses of voxels that are drawn for every event.

    Parameters
    ----------
    people : sequence of Responses
    features : tensor (n_stimuli, n_tokens, n_features) per block
    n_drawn : int
        Voxels per event, with replacement; 5,000 in Brain-IT.
    fixed : bool
        For validation: the same voxels every time, evenly spaced.
    device : where the network is
    """

    def __init__(
        self,
        people: Sequence[Responses],
        features: Sequence[Tensor],
        *,
        n_drawn: int = 5000,
        fixed: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(people, device)
        self.features, self.n_drawn, self.fixed = tuple(features), n_drawn, fixed

    def batch(self, rows: np.ndarray) -> tuple[tuple[Any, ...], Tensor, Tensor]:
        """Voxels, persons and features; responses; stimuli."""
        of, event = self.of[rows], self.row[rows]
        sizes = np.array([p.values.shape[1] for p in self.people])[of]
        if self.fixed:
            share = np.arange(self.n_drawn) / self.n_drawn
        else:
            # The loop keeps the state of torch's generator, so a resumed fit draws the same.
            share = torch.rand(len(rows), self.n_drawn, dtype=torch.float64).numpy()
        voxels = (share * sizes[:, None]).astype(np.int64)
        values = np.empty(voxels.shape, np.float32)
        for number in np.unique(of):
            own = of == number
            values[own] = self.people[number].values[event[own, None], voxels[own]]
        stimuli = torch.from_numpy(self.stimuli[rows])
        subject = torch.from_numpy(self.person[of])
        features = (x[stimuli] for x in self.features)
        arguments = (torch.from_numpy(voxels), subject, *features)
        return self._there(*arguments), *self._there(torch.from_numpy(values), stimuli)


class VoxelsToTokens(_People):
    """Examples of :class:`BrainInteraction`: patterns of voxels, and the tokens of a stimulus.

    Parameters
    ----------
    people : sequence of Responses
    targets : (n_stimuli, n_tokens, n_out)
    device : where the network is
    """

    def __init__(
        self,
        people: Sequence[Responses],
        targets: Tensor,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(people, device)
        self.targets = targets

    def batch(self, rows: np.ndarray) -> tuple[tuple[Any, ...], Tensor, Tensor]:
        """Patterns, padded to the largest of the batch, and persons; targets; stimuli."""
        of, event = self.of[rows], self.row[rows]
        width = max(self.people[number].values.shape[1] for number in np.unique(of))
        patterns = np.zeros((len(rows), width), np.float32)
        for number in np.unique(of):
            own, values = of == number, self.people[number].values
            patterns[own, : values.shape[1]] = values[event[own]]
        stimuli = torch.from_numpy(self.stimuli[rows])
        subject = torch.from_numpy(self.person[of])
        arguments = self._there(torch.from_numpy(patterns), subject)
        return arguments, *self._there(self.targets[stimuli], stimuli)


def fit_encoding(
    network: VoxelEncoding,
    train: ImagesToVoxels,
    validation: ImagesToVoxels | None = None,
    **settings: Any,
) -> Fit:
    """Fit an encoding model in place, with ``MSE - 0.1 cosine`` over the drawn voxels of an event.

    Brain-IT uses Adam with amsgrad, a rate of 1e-3, batches of 32 and 30 epochs; this is the house
    loop with AdamW, without amsgrad. Which way its cosine runs is not said; ours runs over voxels.

    Parameters
    ----------
    settings : of ``fitting.loop.fit``
    """
    _check_voxels(network.people, train, validation)
    return fit(network, train, validation, **(_ENCODING | settings))


def fit_decoding(
    network: BrainInteraction,
    train: VoxelsToTokens,
    validation: VoxelsToTokens | None = None,
    **settings: Any,
) -> Fit:
    """Fit a decoder of brain tokens in place, with squared error of the target tokens.

    Brain-IT: AdamW with a rate of 5e-4 and batches of 128, at most 75 epochs, 15 of them warm-up.

    Parameters
    ----------
    settings : of ``fitting.loop.fit``
    """
    _check_voxels(network.tokens.people, train, validation)
    return fit(network, train, validation, **(_DECODING | settings))


_ENCODING = {"loss": "mse-cosine", "lr": 1e-3, "batch_size": 32, "epochs": 30}
_DECODING = {"loss": "mse", "lr": 5e-4, "batch_size": 128, "epochs": 75, "warmup": 0.2}


def encode_person(
    network: VoxelEncoding,
    train: ImagesToVoxels,
    n_voxels: int,
    validation: ImagesToVoxels | None = None,
    **settings: Any,
) -> tuple[int, Fit]:
    """Add a person to an encoding model: only the embeddings of its voxels are learned.

    Parameters
    ----------
    train, validation : events of the new person; its number is that of the next in ``network``
    n_voxels : int

    Returns
    -------
    number of the person, and what the fit was
    """
    _only(len(network.people), train, validation)
    person = network.people.add(n_voxels)
    learn_only(network, network.people, [person])
    return person, fit_encoding(network, train, validation, **settings)


def decode_person(
    network: BrainInteraction,
    train: VoxelsToTokens,
    assignment: Assignment,
    clusters: Clusters,
    validation: VoxelsToTokens | None = None,
    **settings: Any,
) -> tuple[int, Fit]:
    """Add a person to a decoder: only the embeddings of its voxels are learned.

    Each voxel takes the cluster of its nearest reference voxel, and starts at that voxel's
    embedding in the decoder (Brain-IT, which takes 50 epochs; its three synthetic draws for every
    real one are left to the caller).

    Parameters
    ----------
    train, validation : events of the new person; its number is that of the next in ``network``
    assignment : of ``Clusters.assign``
    clusters : the subjects in the order of the people of ``network``
    settings : of ``fitting.loop.fit``

    Returns
    -------
    number of the person, and what the fit was
    """
    people = network.tokens.people
    known = [len(people[i]) for i in range(min(len(people), len(clusters.subjects)))]
    expected = [len(labels) for labels in clusters.labels]
    if known != expected:
        raise DataError(
            "the decoder does not hold the people of the clusters",
            expected=f"people of {expected} voxels",
            found=f"people of {known} voxels",
        )
    _only(len(people), train, validation)
    tables = [people[i].detach().cpu().numpy() for i in range(len(clusters.subjects))]
    start = torch.from_numpy(assignment.start(tables)).to(people[0])
    person = network.tokens.add_person(torch.from_numpy(assignment.labels), start)
    learn_only(network, people, [person])
    settings = {"epochs": 50, "warmup": 0.0} | settings
    return person, fit_decoding(network, train, validation, **settings)


def _check_voxels(tables: VoxelTables, *examples: _People | None) -> None:
    for one in (p for e in examples if e is not None for p in e.people):
        found = one.values.shape[1]
        if len(tables[one.person]) != found:
            raise DataError(
                f"voxels of person {one.person}",
                expected=f"the {len(tables[one.person])} of the network",
                found=str(found),
            )


def _only(person: int, *examples: _People | None) -> None:
    found = sorted({int(n) for e in examples if e is not None for n in e.person} - {person})
    if found:
        raise DataError(
            "events of others in the fit of a new person",
            expected=f"person {person} only",
            found=f"persons {', '.join(map(str, found))}",
        )
