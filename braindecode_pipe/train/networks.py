"""Networks inside :class:`~braindecode_pipe.train.decoder.BrainDecoder`: build, feed, fit, ask."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from braindecode_pipe.errors import BraindecodePipeError, ModelError, RecipeError
from braindecode_pipe.fitting import loop
from braindecode_pipe.fitting.examples import predict as predict_rows
from braindecode_pipe.fitting.feeding import Feeder
from braindecode_pipe.fitting.views import kept
from braindecode_pipe.networks.blocks import SubjectLayer, fourier_size
from braindecode_pipe.networks.compact import Atm, EegNet, Nice
from braindecode_pipe.networks.convolution import ConvEncoder, ImageEncoder
from braindecode_pipe.networks.voxels import SubjectMixer, VoxelMLP
from braindecode_pipe.recipe import AugmentSection
from braindecode_pipe.train.settings import family

NETWORKS: dict[str, type[torch.nn.Module]] = {
    "mlp": VoxelMLP,
    "mixer": SubjectMixer,
    "conv": ConvEncoder,
    "conv-image": ImageEncoder,
    "nice": Nice,
    "atm": Atm,
    "eegnet": EegNet,
}
# Set from the data, so a recipe cannot give them.
_FROM_DATA = {
    "n_in", "n_out", "n_subjects", "n_times", "n_steps", "n_sensors", "n_voxels", "n_tokens",
}  # fmt: skip
TWO_HEADS = "clip+mse"


@dataclass(frozen=True)
class Sizes:
    """What a network has to fit.

    Attributes
    ----------
    n_sensors, n_times : of a window
    n_out : features of the target, per step
    n_steps : steps of the target
    masks : (n_subjects, n_sensors) bool
    n_axes : of the positions, 2 or 3
    """

    n_sensors: int
    n_times: int
    n_out: int
    n_steps: int
    masks: np.ndarray
    n_axes: int = 2

    def arguments(self, kind: str) -> dict[str, Any]:
        """All arguments of constructors that come from the data."""
        last = [1 + int(np.flatnonzero(mask).max(initial=0)) for mask in self.masks]
        return {
            "n_in": self.n_sensors * self.n_times,
            "n_out": self.n_out * (self.n_steps if family(kind) == "flat" else 1),
            "n_subjects": len(self.masks),
            "n_sensors": self.n_sensors,
            "n_times": self.n_times,
            "n_steps": self.n_steps,
            "n_tokens": self.n_steps,
            "n_voxels": [n * self.n_times for n in last],
        }


def build(
    kind: str, sizes: Sizes, arguments: Mapping[str, Any], seed: int, loss: str = "clip"
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A network with the weights that ``seed`` gives it, and all arguments of its constructor.

    Parameters
    ----------
    kind : name of one of ``NETWORKS``
    sizes : Sizes
    arguments : from the recipe, passed through the constructor's signature
    seed : int
    loss : decides, where the recipe does not, whether a network has a second head

    Raises
    ------
    RecipeError
        When the constructor has no such argument or cannot do with its value, or when the network
        would answer something else than the target is. Names ``[train.network.<kind>]``.
    """
    parameters = inspect.signature(NETWORKS[kind]).parameters
    known = set(parameters) - _FROM_DATA
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise RecipeError(
            f"unknown setting of the network {kind}: {', '.join(unknown)}",
            expected=", ".join(sorted(known)),
            found=", ".join(f"{name} = {arguments[name]!r}" for name in unknown),
            remedy=f"correct [train.network.{kind}]",
        )
    if sizes.n_steps > 1 and not {"n_steps", "n_tokens", "n_in"} & set(parameters):
        raise RecipeError(
            f"the network {kind} answers one vector per window",
            expected="an embedding without steps, or the decoder conv, mixer or mlp",
            found=f"{sizes.n_steps} steps",
            remedy='give the table of [embed] pooling = "mean", or choose another decoder',
        )
    full = {k: v for k, v in sizes.arguments(kind).items() if k in parameters}
    full |= _defaults(parameters, sizes, loss) | arguments
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = NETWORKS[kind](**full)
            _check_answer(kind, network, sizes, loss)
        except (BraindecodePipeError, TypeError, ValueError, RuntimeError) as error:
            raise _named(kind, error) from error
    return network, full


def _defaults(
    parameters: Mapping[str, inspect.Parameter], sizes: Sizes, loss: str
) -> dict[str, Any]:
    """Values in place of those of a constructor, where targets, layout or loss ask for others."""
    found: dict[str, Any] = {}
    if "n_steps" in parameters and "pool" in parameters:
        found["pool"] = "steps" if sizes.n_steps > 1 else "affine"
    if "two_heads" in parameters:
        found["two_heads"] = loss == TWO_HEADS
    if "n_fourier" in parameters and sizes.n_axes != 2:
        found["n_fourier"] = fourier_size(parameters["n_fourier"].default, sizes.n_axes)
    return found


def _check_answer(kind: str, network: torch.nn.Module, sizes: Sizes, loss: str) -> None:
    """Ask the network once, so that a wrong setting is an error before the training."""
    x, mask = np.zeros((1, sizes.n_sensors, sizes.n_times)), sizes.masks[:1]
    inputs = Inputs(
        kind, x, np.zeros_like(x), np.ones_like(x), np.zeros(1, np.int64),
        np.full((1, sizes.n_sensors, sizes.n_axes), 0.5, np.float32), mask,
    )  # fmt: skip
    network.eval()
    with torch.no_grad():
        answer = tuple(network(*inputs(np.arange(1))).shape)
    network.train()
    expected = split_steps(kind, np.zeros((1, sizes.n_out * sizes.n_steps)), sizes.n_steps).shape
    two = (1, 2, *expected[1:])
    if answer != expected and not (loss == TWO_HEADS and answer == two):
        raise RecipeError(
            "the network would answer something else than the target is",
            expected=f"{expected[1:]} for each window",
            found=f"{answer[1:]}",
            remedy=f'two heads go with loss = "{TWO_HEADS}" only: set two_heads = false'
            if answer == two
            else f"pool fits targets of {sizes.n_steps} step(s): leave it out",
        )


def _named(kind: str, error: Exception) -> RecipeError:
    where = f"[train.network.{kind}]"
    if isinstance(error, BraindecodePipeError):
        return RecipeError(error.message, file=where, expected=error.expected, found=error.found,
                           remedy=error.remedy)  # fmt: skip
    return RecipeError(
        f"the network {kind} cannot be built",
        file=where,
        expected=f"settings that {NETWORKS[kind].__name__} can do with",
        found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        remedy=f"correct {where}",
    )


def knows_people(network: torch.nn.Module) -> bool:
    """Whether some of the weights belong to a person, who must then have been trained on."""
    kinds = (SubjectLayer, SubjectMixer, torch.nn.Embedding)
    return any(isinstance(layer, kinds) for layer in network.modules())


def refuse_strangers(
    network: torch.nn.Module, trained: np.ndarray, who: np.ndarray, names: Iterable[str] | None
) -> None:
    """Refuse people without training rows where the network has weights for each person.

    Parameters
    ----------
    trained : (n_subjects,) bool
    who : (n,) number of the person of each window
    names : of the people, if known

    Raises
    ------
    ModelError
        Naming them.
    """
    strangers = np.unique(who[~trained[who]])
    if len(strangers) and knows_people(network):
        called = list(names or map(str, range(len(trained))))
        raise ModelError(
            "a network with weights for each person is asked about somebody it never saw",
            expected="training windows of everybody who is validated on or tested",
            found="none of " + ", ".join(called[w] for w in strangers[:5]),
            remedy="[train.network.conv] subject_layer = false, another decoder without weights "
            "per person, or a [split] that trains on everybody",
        )


@dataclass(frozen=True)
class Inputs:
    """Windows as the network takes them.

    Attributes
    ----------
    kind : name of the network
    X : (n, n_sensors, n_times), an array or a view that reads when indexed; fewer sensors than
        ``masks`` has are padded
    mean, scale : (n_subjects, n_sensors, 1), or (n_subjects, n_features) for flat networks
    subjects : (n,) int64
    positions, masks : (n_subjects, n_sensors, n_axes) and (n_subjects, n_sensors)
    device : where the network is
    """

    kind: str
    X: Any
    mean: np.ndarray
    scale: np.ndarray
    subjects: np.ndarray
    positions: np.ndarray
    masks: np.ndarray
    device: torch.device = torch.device("cpu")

    def __call__(self, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Arguments of the network for some rows."""
        return self.arguments(self.scaled(np.array(self.X[rows]), rows), rows)

    def scaled(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Windows of some rows with each sensor at mean 0 and s.d. 1; float32 ones in place."""
        who, how = self.subjects[rows], family(self.kind)
        short = self.masks.shape[1] - x.shape[1]
        if short > 0:
            x = np.pad(x, ((0, 0), (0, short), (0, 0)))
        mean, scale = self.mean, self.scale
        if how != "sensors":
            mean, scale = (v.reshape(len(v), *x.shape[1:]) for v in (mean, scale))
        present = self.masks[..., None]
        own = np.zeros_like(who) if how == "flat" else who
        # What is missing is no number: its values never reach the network.
        if x.dtype != np.float32:
            x = (np.where(present[who], x, 0) - mean[own]) / scale[own]
            return (x * present[who] if how == "sensors" else x).astype(np.float32)
        mean, inverse = mean.astype(np.float32), (1 / scale).astype(np.float32)
        # One window at a time stays in the cache from step to step.
        for window, person, k in zip(x, who, own):
            if not self.masks[person].all():
                window[~self.masks[person]] = 0
            window -= mean[k]
            window *= inverse[k]
            if how == "sensors":
                window[~self.masks[person]] = 0
        return x

    def arguments(self, x: np.ndarray, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Arguments of the network for scaled windows of some rows."""
        who, how = self.subjects[rows], family(self.kind)
        arguments: tuple[np.ndarray, ...] = (x if how == "sensors" else x.reshape(len(x), -1),)
        if how == "sensors":
            arguments += (self.positions[who], self.masks[who])
        if how != "flat":
            arguments += (who,)
        return tuple(torch.from_numpy(a).to(self.device) for a in arguments)


def split_steps(kind: str, Y: np.ndarray, n_steps: int) -> np.ndarray:
    """``(n, n_steps * n_features)``, step by step, in the shape that the network answers.

    ``(n, n_features, n_steps)``; for ``mixer`` ``(n, n_steps, n_features)``; flat without steps
    and for ``mlp``.
    """
    if n_steps == 1 or family(kind) == "flat":
        return Y
    steps = Y.reshape(len(Y), n_steps, -1)
    return steps if family(kind) == "person" else np.ascontiguousarray(steps.swapaxes(1, 2))


def join_steps(kind: str, estimates: np.ndarray) -> np.ndarray:
    """Inverse of :func:`split_steps`."""
    if estimates.ndim == 3 and family(kind) == "sensors":
        estimates = estimates.swapaxes(1, 2)
    return estimates.reshape(len(estimates), -1)


def loop_settings(settings: Mapping[str, Any], validated: bool) -> dict[str, Any]:
    """The settings of the loop among those of a decoder.

    Without validation rows nothing ends the training before its last epoch: ``schedule="auto"``
    then lets the learning rate fall to zero along a cosine.
    """
    names = {field.name for field in fields(loop.Settings)}
    found = {name: value for name, value in settings.items() if name in names}
    if found["schedule"] == "auto":
        found["schedule"] = "constant" if validated else "cosine"
    found["loss_options"] = {
        "logit_scale": settings["logit_scale"],
        "learn_scale": settings["learn_scale"],
        "weight": settings["loss_weight"],
    }
    return found


def train(
    network: torch.nn.Module,
    inputs: Inputs,
    targets: np.ndarray,
    stimuli: np.ndarray,
    validation: np.ndarray,
    settings: Mapping[str, Any],
    **observers: Any,
) -> loop.Fit:
    """Fit by the one loop; ``validation`` marks the rows that only stop it early.

    Parameters
    ----------
    settings : those of a decoder, see :func:`loop_settings`; ``augment`` is for training rows
    **observers : ``folder``, ``on_epoch`` and ``on_batch`` of :func:`~fitting.loop.fit`
    """
    Y, ids = torch.from_numpy(targets), torch.from_numpy(stimuli)
    own = loop_settings(settings, bool(validation.any()))
    augment = AugmentSection.model_validate(settings["augment"] or {})
    if not augment.shift_s:
        inputs = replace(inputs, X=kept(inputs.X))
    fed = Feeder(
        inputs, Y, ids, np.flatnonzero(~validation), augment=augment, seed=settings["seed"]
    )
    held = Feeder(inputs, Y, ids, np.flatnonzero(validation)) if validation.any() else None
    return loop.fit(network, fed, held, **observers, **own)


def predict(network: torch.nn.Module, inputs: Inputs) -> np.ndarray:
    """Estimates ``(n, n_steps * n_features)`` of all rows; of two heads, those of the first."""
    found = predict_rows(network, inputs, len(inputs.X))
    if getattr(network, "regression", None) is not None:
        found = found[:, 0]
    return join_steps(inputs.kind, found)
