"""Pairs of stimuli whose embeddings are nearly the same: what a split should keep together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

THRESHOLD = 0.98
MOST_PAIRS = 10_000
_BLOCK = 1024


def near_duplicates(
    vectors: np.ndarray, stimuli: Sequence[str], threshold: float = THRESHOLD
) -> tuple[pd.DataFrame, int]:
    """Pairs of stimuli with a cosine over ``threshold``, the nearest first.

    Beside the cosine stands the one after the mean over all stimuli is taken off: where all
    vectors point into one direction, as in many language models, only that one tells pairs apart.
    Rows without length have cosine 0 to all.

    Parameters
    ----------
    vectors : (n, n_features)
    stimuli : (n,) ids
    threshold : float

    Returns
    -------
    pairs : table first, second, cosine, centred; at most ``MOST_PAIRS`` rows
    n : how many pairs there are in all
    """
    plain, centred = _unit(vectors), _unit(vectors - vectors.mean(0, dtype=np.float64))
    rows: list[np.ndarray] = []
    total = 0
    for start in range(0, len(plain), _BLOCK):
        cosine = plain[start : start + _BLOCK] @ plain[start:].T
        # Each pair once, none of a stimulus with itself.
        first, second = np.nonzero(np.triu(cosine > threshold, 1))
        total += len(first)
        found = np.stack([first + start, second + start, cosine[first, second]], 1)
        rows = [_nearest(np.concatenate([*rows, found]))]
    pairs = rows[0] if rows else np.empty((0, 3))
    first, second = pairs[:, 0].astype(int), pairs[:, 1].astype(int)
    table = pd.DataFrame(
        {
            "first": [str(stimuli[i]) for i in first],
            "second": [str(stimuli[i]) for i in second],
            "cosine": pairs[:, 2].astype(float),
            "centred": np.einsum("ij,ij->i", centred[first], centred[second]).astype(float),
        }
    )
    return table, total


def _nearest(pairs: np.ndarray) -> np.ndarray:
    return pairs[np.argsort(-pairs[:, 2], kind="stable")[:MOST_PAIRS]]


def _unit(vectors: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, size, out=np.zeros(vectors.shape, np.float32), where=size > 0)
