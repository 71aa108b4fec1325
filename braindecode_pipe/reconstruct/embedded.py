"""Generators that need no download: made from the pictures of the training split alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.loop import fit
from braindecode_pipe.fitting.selfsupervised import OWN, Unlabelled
from braindecode_pipe.networks.pictures import LOW, PictureDecoder
from braindecode_pipe.reconstruct.interface import check_embedding
from braindecode_pipe.splits import FitScope, check_disjoint, content_hash

if TYPE_CHECKING:
    from PIL import Image

_BATCH = 16


@dataclass(frozen=True)
class TrainingPictures:
    """Pictures that a generator may be made from, and where they come from.

    Attributes
    ----------
    stimuli : (n,) their ids
    pictures : (n, side, side, 3) uint8
    embeddings : (n, features)
    scope : of the fold whose training part showed them
    tested : ids of the stimuli that the fold tests

    Raises
    ------
    LeakageError
        A picture is one of the tested.
    DataError
        Fewer than two, or lengths that differ.
    """

    stimuli: Sequence[str]
    pictures: np.ndarray
    embeddings: np.ndarray
    scope: FitScope
    tested: Sequence[str]

    def __post_init__(self) -> None:
        check_disjoint(self.stimuli, self.tested, "the generator of pictures")
        lengths = {len(self.stimuli), len(self.pictures), len(self.embeddings)}
        if len(lengths) > 1 or len(self.stimuli) < 2:
            raise DataError(
                "a generator cannot be made from these pictures",
                expected="at least two, with an embedding each",
                found=" / ".join(map(str, sorted(lengths))),
                remedy="split by stimulus, so that some pictures are never tested; or name a "
                "pretrained generator",
            )

    @property
    def facts(self) -> dict[str, Any]:
        """What a generator saw, for the output."""
        return {
            "n_pictures": len(self.stimuli),
            "fit_scope": self.scope.hash(),
            "fit_stimuli": content_hash(sorted(map(str, self.stimuli))),
        }


class EmbeddedGenerator:
    """A small convolutional decoder that the training loop fits on the training pictures.

    It computes the mean picture of an embedding, so that equal embeddings give equal pictures
    whatever the seed.

    Parameters
    ----------
    training : TrainingPictures
    steps : batches of 16 pictures that it is fitted on, up to a whole epoch
    seed, channels : of the fit
    device : of torch
    """

    def __init__(
        self,
        training: TrainingPictures,
        *,
        steps: int = 2000,
        seed: int = 0,
        channels: int = 48,
        device: str = "cpu",
    ) -> None:
        self.width = training.embeddings.shape[1]
        self.device = device
        targets = torch.from_numpy(training.pictures).permute(0, 3, 1, 2).float() / 255
        vectors = torch.from_numpy(np.asarray(training.embeddings, np.float32))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = PictureDecoder(self.width, training.pictures.shape[1], channels)
        network.set_statistics(vectors, targets)
        self.network = network.to(device)
        vectors, targets = vectors.to(device), targets.to(device)
        examples = Unlabelled(len(vectors), lambda rows: (vectors[rows], targets[rows]))
        self.log = fit(
            self.network, examples, loss=OWN, epochs=max(1, round(steps * _BATCH / len(vectors))),
            batch_size=_BATCH, lr=3e-3, weight_decay=0.01, schedule="cosine", seed=seed,
        ).log  # fmt: skip
        self.facts = {
            "generator": "embedded",
            "description": "convolutional decoder fitted on the training pictures",
            "steps": steps, "seed": seed, "stochastic": False, **training.facts,
        }  # fmt: skip

    def generate(
        self,
        embedding: np.ndarray,
        low_level: np.ndarray | None = None,
        *,
        seed: int | Sequence[int] = 0,
    ) -> list[Image.Image]:
        """See :class:`~braindecode_pipe.reconstruct.interface.Generator`; no seed is used."""
        vectors = check_embedding(embedding, self.width, "the embedded generator")
        low = None
        if low_level is not None:
            start = torch.from_numpy(np.asarray(low_level, np.float32)).permute(0, 3, 1, 2)
            low = F.adaptive_avg_pool2d(start, LOW).to(self.device)
        with torch.inference_mode():
            made = self.network.picture(torch.from_numpy(vectors).to(self.device), low)
        return as_images(made.permute(0, 2, 3, 1).cpu().numpy())


class NearestPictures:
    """The training picture whose embedding is most like the given one.

    Cosine of embeddings after the training mean was taken off. What it shows was never tested, so
    that a tested picture can only be approached.
    """

    def __init__(self, training: TrainingPictures) -> None:
        self.pictures, self.stimuli = training.pictures, list(training.stimuli)
        self.width = training.embeddings.shape[1]
        self.mean = training.embeddings.mean(axis=0)
        self.directions = _directions(training.embeddings - self.mean)
        self.facts = {
            "generator": "nearest",
            "description": "most similar training picture, by cosine",
            "stochastic": False, **training.facts,
        }  # fmt: skip

    def generate(
        self,
        embedding: np.ndarray,
        low_level: np.ndarray | None = None,
        *,
        seed: int | Sequence[int] = 0,
    ) -> list[Image.Image]:
        """See :class:`~braindecode_pipe.reconstruct.interface.Generator`; no seed is used.

        With ``low_level``, the correlation of the blurred pictures counts as much as the cosine.
        """
        from PIL import Image

        vectors = check_embedding(embedding, self.width, "the nearest training picture")
        likeness = _directions(vectors - self.mean) @ self.directions.T
        if low_level is not None:
            likeness = likeness + _blurred(low_level) @ _blurred(self.pictures / 255).T
        return [Image.fromarray(self.pictures[k]) for k in likeness.argmax(axis=1)]


def _directions(values: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norm > 0, norm, 1.0)


def _blurred(pictures: np.ndarray) -> np.ndarray:
    """Directions of the pictures at 8 x 8, their mean colour taken off."""
    x = torch.from_numpy(np.asarray(pictures, np.float32)).permute(0, 3, 1, 2)
    flat = F.adaptive_avg_pool2d(x, LOW).flatten(1).numpy()
    return _directions(flat - flat.mean(axis=1, keepdims=True))


def as_images(pictures: np.ndarray) -> list[Image.Image]:
    """(n, h, w, 3) in 0 to 1 -> PIL pictures of 8 bits."""
    from PIL import Image

    bytes_ = np.round(np.clip(pictures, 0, 1) * 255).astype(np.uint8)
    return [Image.fromarray(picture) for picture in bytes_]
