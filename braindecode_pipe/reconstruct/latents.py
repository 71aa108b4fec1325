"""Predicted embeddings made ready for a generator, and the inputs that hold no brain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import DataError


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of every feature over the training stimuli."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, embeddings: np.ndarray) -> Statistics:
        """Of (n, features), each training stimulus once."""
        return cls(embeddings.mean(axis=0), embeddings.std(axis=0))


def renormalise(predictions: np.ndarray, training: Statistics) -> np.ndarray:
    """``(p - mean_p) / sd_p sd_train + mean_train``, feature by feature.

    Regression shrinks: predicted latents have too little variance for a generator, and are given
    that of the training stimuli (Ozcelik and VanRullen 2023; Benchetrit et al. 2024). ``mean_p``
    and ``sd_p`` are over the predictions that are generated together, so that a picture hangs on
    the set it is in, but on nothing of the targets. A feature that does not vary becomes the
    training mean.

    Parameters
    ----------
    predictions : (n, features), n >= 2

    Raises
    ------
    DataError
        Fewer than two rows, or a value that is not finite.
    """
    if len(predictions) < 2:
        raise DataError(
            "one prediction has no spread to renormalise", expected="at least two",
            found=str(len(predictions)), remedy="set reconstruct.renormalise = false",
        )  # fmt: skip
    bad = np.count_nonzero(~np.isfinite(predictions).all(axis=1))
    if bad:
        raise DataError(
            "an embedding is not finite", expected="numbers in every feature",
            found=f"NaN or infinity in {bad} of {len(predictions)} rows",
            remedy="look at the predictions of the stage train",
        )  # fmt: skip
    mean, scale = predictions.mean(axis=0), predictions.std(axis=0)
    varies = scale > 1e-6 * np.abs(predictions).max(axis=0)
    standard = np.where(varies, (predictions - mean) / np.where(varies, scale, 1.0), 0.0)
    return standard * training.scale + training.mean


def noise_input(n: int, training: Statistics, rng: np.random.Generator) -> np.ndarray:
    """Embeddings without any brain data: Gaussian, with the training stimuli's moments."""
    return training.mean + training.scale * rng.standard_normal((n, len(training.mean)))


def derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random permutation without a fixed point: no item keeps its own brain.

    Drawn by rejection, so that all of them are equally likely.

    Raises
    ------
    DataError
        Fewer than two items.
    """
    if n < 2:
        raise DataError("one item cannot be exchanged", expected="at least two", found=str(n))
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).all():
            return order
