"""The normaliser of embeddings: fitted on training stimuli, applied to targets and candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from braindecode_pipe.schema import SCHEMA_VERSION
from braindecode_pipe.splits import content_hash

# Deviations below this share of the largest value of a feature are rounding, not variance.
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Normalizer:
    """``components (embedding - mean) / scale``; without components the features themselves.

    Attributes
    ----------
    mean : (n_features,)
    scale : (n_outputs,)
    components : (n_outputs, n_features) orthonormal rows, or None
    seen : ids of the stimuli that it was fitted on, sorted
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray | None = None
    seen: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, kind: str, embeddings: np.ndarray, stimuli: Sequence[str] = (), components: int = 0
    ) -> Normalizer:
        """Fit ``none``, ``center``, ``zscore`` or ``whiten``.

        ``whiten`` is PCA whitening: with ``X - mean = U S V'`` over ``n`` rows, ``components`` are
        the first rows of ``V'`` and ``scale = S / sqrt(n)``, so that the outputs of the training
        stimuli are uncorrelated with variance 1. Directions without variance are left out, at
        least one of as many as there are stimuli. The largest entry of a component is positive.
        A feature that does not vary keeps its scale.

        Parameters
        ----------
        kind : str
        embeddings : (n_stimuli, n_features), one row per training stimulus
        stimuli : (n_stimuli,) their ids
        components : most components that are kept; 0: all
        """
        seen = tuple(sorted(map(str, stimuli)))
        n_stimuli, n_features = embeddings.shape
        mean = np.zeros(n_features) if kind == "none" else embeddings.mean(0)
        scale = np.ones(n_features)
        if kind == "zscore":
            sd = embeddings.std(0)
            scale = np.where(sd > _SMALLEST * np.abs(embeddings).max(0), sd, 1.0)
        if kind != "whiten":
            return cls(mean, scale, None, seen)
        _, size, rows = np.linalg.svd(embeddings - mean, full_matrices=False)
        largest = np.linalg.norm(embeddings, 2) if size.max(initial=0.0) > 0 else 1.0
        kept = int((size > _SMALLEST * largest).sum())
        kept = max(1, min(kept, n_stimuli - 1, components or kept))
        rows, size = rows[:kept], size[:kept]
        sign = np.sign(rows[np.arange(kept), np.abs(rows).argmax(1)])
        scale = np.where(size > 0, size / np.sqrt(n_stimuli), 1.0)
        return cls(mean, scale, rows * sign[:, None], seen)

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """(n, n_features) -> (n, n_outputs)."""
        centred = embeddings - self.mean
        return (centred if self.components is None else centred @ self.components.T) / self.scale

    def hash(self) -> str:
        """SHA-256 of the ids of the stimuli that it was fitted on."""
        return content_hash(list(self.seen))

    def to_dataset(self) -> xr.Dataset:
        """As the group ``normalizer`` of a prediction store."""
        variables = {
            "mean": ("feature", self.mean),
            "scale": ("feature" if self.components is None else "component", self.scale),
            "stimulus": ("fitted", np.asarray(self.seen, object)),
        }
        if self.components is not None:
            variables["components"] = (("component", "feature"), self.components)
        attrs = {"schema_version": SCHEMA_VERSION, "kind": "table", "fit_stimuli": self.hash()}
        return xr.Dataset(variables, attrs=attrs)

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Normalizer:
        """Inverse of :meth:`to_dataset`."""
        return cls(
            np.asarray(dataset["mean"].values, float),
            np.asarray(dataset["scale"].values, float),
            np.asarray(dataset["components"].values, float) if "components" in dataset else None,
            tuple(map(str, dataset["stimulus"].values)) if "stimulus" in dataset else (),
        )
