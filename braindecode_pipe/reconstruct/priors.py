"""A diffusion prior made from the training embeddings, and embeddings drawn from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from braindecode_pipe.fitting.loop import fit
from braindecode_pipe.fitting.selfsupervised import OWN, Unlabelled
from braindecode_pipe.networks.prior import DiffusionPrior

_BATCH = 64


def fit_prior(
    embeddings: np.ndarray, *, steps: int, seed: int, device: str = "cpu", least: float = 0.2
) -> DiffusionPrior:
    """A prior that maps a disturbed embedding to the one that it may have been.

    What a decoder predicts of its own training events says little about what it predicts of
    others. So the condition is the true embedding itself, disturbed as a prediction is:
    ``a e + sqrt(1 - a^2) n`` in standard deviations, ``a`` uniform between ``least`` and 1 for
    each example. (MindEye2 trains its prior on predictions of the training events.)

    Parameters
    ----------
    embeddings : (n, features) of the training stimuli
    steps : batches
    """
    clean = torch.from_numpy(np.asarray(embeddings, np.float32))
    mean, scale = clean.mean(0), clean.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * clean.abs().amax(0), scale, torch.ones(()))
    draw = np.random.default_rng([seed, 1])

    def examples(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        target = clean[rows]
        share = least + (1 - least) * draw.random((len(rows), 1))
        noise = draw.standard_normal(target.shape)
        standard = ((target - mean) / scale).numpy()
        disturbed = share * standard + np.sqrt(1 - share**2) * noise
        condition = torch.from_numpy(disturbed.astype(np.float32)) * scale + mean
        return condition.to(device), target.to(device)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = DiffusionPrior(clean.shape[1])
    prior.set_statistics(clean, clean)
    fit(
        prior.to(device), Unlabelled(len(clean), examples), loss=OWN, lr=1e-3, weight_decay=0.01,
        batch_size=_BATCH, epochs=max(1, round(steps * _BATCH / len(clean))), schedule="cosine",
        seed=seed,
    )  # fmt: skip
    return prior


def draw_embeddings(
    prior: DiffusionPrior,
    predictions: np.ndarray,
    seeds: Sequence[int],
    *,
    samples: int,
    steps: int,
    guidance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Of ``samples`` embeddings per row the one most like the prediction, and its number.

    Likeness is the cosine after the training mean was taken off; the target is never looked at.
    """
    mean = prior.target_mean.cpu().numpy()
    condition = torch.from_numpy(np.asarray(predictions, np.float32)).to(prior.target_mean.device)
    drawn = np.stack(
        [
            prior.sample(
                condition, seeds=[s + 7919 * k for s in seeds], steps=steps, guidance=guidance
            ).cpu().numpy()
            for k in range(samples)
        ]
    )  # fmt: skip
    theirs, ours = drawn - mean, predictions - mean
    norms = np.linalg.norm(theirs, axis=-1) * np.linalg.norm(ours, axis=-1)
    likeness = (theirs * ours).sum(-1) / np.where(norms > 0, norms, 1.0)
    chosen = likeness.argmax(axis=0)
    return drawn[chosen, np.arange(len(ours))].astype(np.float64), chosen
