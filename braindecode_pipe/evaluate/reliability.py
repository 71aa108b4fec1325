"""How far predictions could agree with their targets, given how they scatter over repetitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.evaluate.ceiling import correlation, split_half
from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_store

_SPLITS = 50
COLUMNS = ("decoder", "fold", "subject", "n_repetitions", "n_stimuli", "correlation", "ceiling")


def prediction_ceiling(
    decoder: str,
    parts: Sequence[FoldPrediction],
    targets: Sequence[dict[str, np.ndarray]],
    plan: StudyPlan,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlation of averaged predictions with their targets, beside its noise ceiling.

    Per fold and person: predictions of the repetitions of each stimulus; their mean is correlated
    with the embedding over stimuli, per feature, and so is bounded by ``sqrt(R)``, with ``R`` the
    split-half reliability of that mean (:func:`~braindecode_pipe.evaluate.ceiling.split_half`).
    Both are averaged over the features in which predictions and embeddings vary. It is the ceiling
    of this decoder's output: better decoders may have a higher one.

    Parameters
    ----------
    decoder : name in the result
    parts : prediction stores of one decoder
    targets : for each, stimulus -> embedding, normalised as in training
    plan : StudyPlan
    seed : of the halves

    Returns
    -------
    DataFrame
        decoder, fold, subject, n_repetitions, n_stimuli, correlation, ceiling; no row where fewer
        than three stimuli repeat. The first repetitions count, as many as every stimulus has.
    """
    people = dict(zip(plan.events["event"].astype(str), plan.events["subject"].astype(str)))
    rows = []
    for part, target in zip(parts, targets):
        who = np.array([people[e] for e in part.events])
        for person in sorted(set(who)):
            own: dict[str, list[int]] = {}
            for row in np.flatnonzero(who == person):
                own.setdefault(str(part.stimuli[row]), []).append(row)
            repeated = {s: r for s, r in own.items() if len(r) > 1 and s in target}
            if len(repeated) < 3:
                continue
            n = min(map(len, repeated.values()))
            index = np.array([r[:n] for r in repeated.values()]).T
            responses = np.asarray(part.values, float)[index]
            truth = np.stack([target[s] for s in repeated])
            varies = (np.ptp(truth, axis=0) > 0) & (np.ptp(responses, axis=1) > 0).all(axis=0)
            responses, truth = responses[..., varies], truth[:, varies]
            if not varies.any():
                continue
            ceiling = split_half(responses, _SPLITS, seed).high
            r = correlation(responses.mean(axis=0), truth)
            kept = np.isfinite(ceiling) & np.isfinite(r)
            if kept.any():
                values = (n, len(repeated), float(r[kept].mean()), float(ceiling[kept].mean()))
                fold = str(plan.folds["fold"].iloc[part.fold])
                rows.append((decoder, fold, person, *values))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def ceilings(
    parts: Mapping[str, Sequence[FoldPrediction]], embedding: Path, plan: StudyPlan, seed: int
) -> pd.DataFrame:
    """:func:`prediction_ceiling` of every decoder, with targets from an embedding store."""
    dataset = open_store(embedding)
    vectors = np.asarray(dataset["embedding"].values, float)
    vectors = vectors.reshape(len(vectors), -1)
    position = {str(s): i for i, s in enumerate(dataset["stimulus"].values)}

    def targets(part: FoldPrediction) -> dict[str, np.ndarray]:
        shown = [s for s in sorted(set(map(str, part.stimuli))) if s in position]
        own = vectors[[position[s] for s in shown]]
        return dict(zip(shown, own if part.normalizer is None else part.normalizer(own)))

    tables = [
        prediction_ceiling(decoder, own, [targets(part) for part in own], plan, seed)
        for decoder, own in parts.items()
    ]
    return pd.concat(tables, ignore_index=True)
