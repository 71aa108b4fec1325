"""How good a decoder is inside its training rows: the score by which decoders are chosen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import ModelError
from braindecode_pipe.train.linear import merge_groups

INNER_FOLDS = 12


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity of rows ``(n, m)``; 0 where a row has no length."""
    units = []
    for rows in (np.asarray(a, np.float64), np.asarray(b, np.float64)):
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        units.append(rows / np.where(length > 0, length, 1))
    return units[0] @ units[1].T


def identification_accuracy(
    predictions: np.ndarray, candidates: np.ndarray, truth: np.ndarray
) -> float:
    """Share of predictions nearest, by cosine, to their own candidate.

    A tie for the first place counts as the chance of winning it.

    Parameters
    ----------
    predictions : (n, n_features)
    candidates : (m, n_features)
    truth : (n,) int, position of the own candidate
    """
    scores = cosine(predictions, candidates)
    own = np.take_along_axis(scores, np.asarray(truth)[:, None], 1)
    greater, equal = (scores > own).sum(1), (scores == own).sum(1)
    return float(np.where(greater == 0, 1 / equal, 0.0).mean())


def inner_score(
    decoder: Any,
    X: Any,
    Y: np.ndarray,
    groups: np.ndarray,
    stimuli: np.ndarray,
    validation: np.ndarray,
    *,
    keep: Callable[[str, Callable[[Path | None], float]], float] | None = None,
    **layout: Any,
) -> float:
    """Identification accuracy inside the training rows, every group left out in turn.

    A fresh copy of ``decoder`` is fitted without a group, everything that it chooses included,
    and identifies the stimuli of that group among all stimuli of the training rows. More than 12
    groups are dealt into 12. Validation rows are never left out: they go on telling networks when
    to stop, and linear decoders train on them.

    Parameters
    ----------
    decoder : BrainDecoder, not changed
    X : (n, n_sensors, n_times)
    Y : (n, n_features)
    groups, stimuli : (n,)
    validation : (n,) bool
    keep : callable, optional
        Gets a name for each group left out, and a function that fits in a folder (or None) and
        counts hits; gives what it counts, or counted before: ``Course.keep``.
    **layout
        ``subjects``, ``positions`` and ``masks`` of ``BrainDecoder.fit``.

    Returns
    -------
    float in 0 .. 1, the mean over rows

    Raises
    ------
    ModelError
        When the training rows cannot be divided.
    """
    from sklearn.base import clone

    rows = np.flatnonzero(~validation)
    if len(rows) < 4:
        raise ModelError(
            "too few training events to choose a decoder",
            expected="at least 4",
            found=str(len(rows)),
        )
    folds = np.full(len(Y), -1)
    folds[rows] = merge_groups(groups[rows], INNER_FOLDS)
    _, first, truth = np.unique(stimuli, return_index=True, return_inverse=True)
    subjects = layout.get("subjects")
    take = getattr(X, "subset", X.__getitem__)
    keep = keep or (lambda name, make: make(None))

    def hits_of(fold: int, folder: Path | None) -> float:
        own, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        kept = dict(layout) if subjects is None else {**layout, "subjects": subjects[rest]}
        fitted = clone(decoder).fit(
            take(rest),
            Y[rest],
            groups[rest],
            stimuli=stimuli[rest],
            validation=validation[rest],
            folder=folder,
            **kept,
        )
        predictions = fitted.predict(take(own), None if subjects is None else subjects[own])
        return len(own) * identification_accuracy(predictions, Y[first], truth[own])

    numbers = np.unique(folds[rows])
    return sum(keep(f"inner-{n}", partial(hits_of, n)) for n in numbers) / len(rows)
