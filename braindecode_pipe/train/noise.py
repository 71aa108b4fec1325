"""What a fitted decoder predicts where there is no brain: windows of noise in place of the test."""

from __future__ import annotations

import numpy as np

from braindecode_pipe.train.decoder import BrainDecoder
from braindecode_pipe.train.folds import Fold

_MOMENTS_OF = 256
_BLOCK_BYTES = 1 << 26


def noise_predictions(model: BrainDecoder, data: Fold, seed: int) -> np.ndarray:
    """Predictions ``(n_test, n_features)`` of white Gaussian noise, one window per test window.

    Every sensor has the mean and the standard deviation, over time, of up to 256 training windows;
    sensors that a person lacks are zero, as in that person's windows.

    Parameters
    ----------
    model : fitted decoder
    data : Fold
    seed : of the noise
    """
    rng = np.random.default_rng([seed, 12])
    rows = data.fit[np.linspace(0, len(data.fit) - 1, min(len(data.fit), _MOMENTS_OF)).astype(int)]
    shown = np.asarray(data.read(rows), np.float64)
    there = data.windows.masks[data.windows.subject_index(rows)].astype(float)[:, :, None]
    count = np.maximum(there.sum(axis=0), 1) * shown.shape[2]
    mean = (shown * there).sum(axis=(0, 2), keepdims=True)[0] / count
    spread = np.sqrt((((shown - mean) * there) ** 2).sum(axis=(0, 2), keepdims=True)[0] / count)
    who = data.windows.subject_index(data.test)
    size = max(1, _BLOCK_BYTES // (8 * shown.shape[1] * shown.shape[2]))
    found = []
    for start in range(0, len(who), size):
        people = who[start : start + size]
        noise = mean + spread * rng.standard_normal((len(people), *shown.shape[1:]))
        noise *= data.windows.masks[people][:, :, None]
        found.append(np.asarray(model.predict(noise.astype(np.float32), people)))
    return np.concatenate(found)
