"""By what the input of a decoder is scaled: moments of its training windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from braindecode_pipe.train.settings import family


def input_moments(
    kind: str, X: Any, rows: np.ndarray, subjects: np.ndarray, masks: np.ndarray, block: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation by which a network's input is scaled, from ``rows`` alone.

    Per person and sensor over windows and time, ``(n_subjects, n_sensors, 1)``; for ``mixer`` per
    person and feature, and for ``mlp`` per feature over all people, ``(n_subjects or 1,
    n_features)``. 1 stands for the deviation of what is constant. Somebody without a row gets the
    mean over the others who have the same sensors, or, where nobody has, over all sensors of all.
    """
    how = family(kind)
    who = np.zeros_like(subjects) if how == "flat" else subjects
    n_people = 1 if how == "flat" else len(masks)
    n_sensors, n_times = X.shape[1], X.shape[2]
    width = n_sensors if how == "sensors" else n_sensors * n_times
    count = np.zeros((n_people, 1))
    mean, square = np.zeros((2, n_people, width))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        x = np.asarray(X[part], np.float64)
        for person in np.unique(who[part]):
            own = x[who[part] == person]
            own = own.swapaxes(0, 1) if how == "sensors" else own.reshape(len(own), -1).T
            own = own.reshape(width, -1)
            n_old, n_new = count[person, 0], own.shape[1]
            # Parallel form of the variance (Chan et al. 1983): sums of squares would cancel.
            step = own.mean(1) - mean[person]
            square[person] += own.var(1) * n_new + step**2 * n_old * n_new / (n_old + n_new)
            mean[person] += step * n_new / (n_old + n_new)
            count[person] += n_new
    sd = np.sqrt(square / np.maximum(count, 1))
    sd = np.where(sd > 1e-6 * np.abs(mean), sd, 1.0)
    if how != "sensors":
        return mean, sd
    _fill(mean, sd, count[:, 0] > 0, masks)
    return mean[..., None], sd[..., None]


def _fill(mean: np.ndarray, sd: np.ndarray, seen: np.ndarray, masks: np.ndarray) -> None:
    """Give those without a row what the others have."""
    for person in np.flatnonzero(~seen):
        alike = seen & (masks == masks[person]).all(1)
        for values in (mean, sd):
            if alike.any():
                values[person] = values[alike].mean(0)
            elif seen.any():
                values[person] = values[seen][masks[seen]].mean()
