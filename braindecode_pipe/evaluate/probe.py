"""Do predictions tell when they were recorded? A linear probe for run, session and time of run.

A decoder that lives on slow drifts, or on a stimulus that belongs to one block, predicts what also
tells the block apart. The probe asks a linear classifier for the run, the session and the third of
the run of every test event, given the decoder's prediction of it: at chance they say nothing about
the time, well above chance a score of retrieval may rest on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.evaluate.statistics import interval, macro_mean, permutation_p, resample
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.splits import StudyPlan

IDENTITIES = ("run", "session", "third_of_run")
_FEWEST, _PARTS = 5, 5
_MOST_PERMUTATIONS, _MOST_QUERIES, _BLOCK = 500, 2000, 2**22


@dataclass(frozen=True)
class Probed:
    """Answers of the probe: one row per query, ``null`` (n_permutations, n) for shuffled labels."""

    hit: np.ndarray
    label: np.ndarray
    null_hit: np.ndarray
    null_label: np.ndarray
    n_classes: int


def probe(
    values: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    n_permutations: int = 0,
    rng: np.random.Generator | None = None,
) -> Probed:
    """Whether a linear classifier finds ``label`` from ``values``, on queries it was not fitted on.

    Kernel ridge on class indicators divided by the class's share, ``f_k(x) ~ P(k | x) / P(k)``, so
    that no class wins by being frequent; the penalty is the mean eigenvalue of the centred kernel
    of the training part. Five parts, queries of one group (stimulus) in one part. The null fits
    anew to shuffled labels: the kernel stays, so this costs one product each.

    Parameters
    ----------
    values : (n, f) predictions of one decoder
    label : (n,) int codes
    group : (n,) queries of one group stay together
    n_permutations, rng : of the null

    Returns
    -------
    Probed
    """
    rng = np.random.default_rng(0) if rng is None else rng
    names, code = np.unique(label, return_inverse=True)
    drawn = np.stack([code, *(rng.permutation(code) for _ in range(n_permutations))])
    hit = np.zeros(drawn.shape)
    for test in _parts(group, rng):
        rows, tested = np.flatnonzero(~test), np.flatnonzero(test)
        if not len(rows) or not len(tested):
            continue
        weights = _weights(values[rows], values[tested])
        size = max(1, _BLOCK // (len(code) * len(names)))
        for start in range(0, len(drawn), size):
            labels = drawn[start : start + size]
            own = np.eye(len(names))[labels[:, rows]]
            share = own.mean(axis=1, keepdims=True)
            scores = weights @ (own / np.where(share > 0, share, np.inf) - (share > 0))
            slack = 1e-12 * np.abs(scores).max(axis=2, keepdims=True)
            scores = np.where(share > 0, scores, -np.inf)
            best = scores >= scores.max(axis=2, keepdims=True) - slack
            true = np.take_along_axis(best, labels[:, tested, None], axis=2)[..., 0]
            hit[start : start + size, tested] = true / best.sum(axis=2)
    return Probed(hit[0], code, hit[1:], drawn[1:], len(names))


def _parts(group: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Test masks of the parts; groups are dealt out at random."""
    names, code = np.unique(group, return_inverse=True)
    n = min(_PARTS, len(names))
    dealt = rng.permutation(np.arange(len(names)) % n)
    return [dealt[code] == part for part in range(n)]


def _weights(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(n_test, n_train): ``k(test, train) (K + mean eigenvalue)^-1``, centred on the training."""
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    train, test = (train - mean) / spread, (test - mean) / spread
    kernel = train @ train.T
    penalty = np.trace(kernel) / len(kernel)
    kernel[np.diag_indices_from(kernel)] += penalty if penalty > 0 else 1.0
    return np.linalg.solve(kernel, train @ test.T).T


def identities(plan: StudyPlan) -> pd.DataFrame:
    """Run, session and third of the run of every event of the plan, by event id."""
    events = plan.events
    place = events.groupby("recording")["onset"].rank(method="first", pct=True)
    third = np.minimum(np.ceil(3 * place).astype(int), 3)
    session = events["session"] if "session" in events else events["recording"]
    table = {"run": events["recording"], "session": session, "third_of_run": third}
    return pd.DataFrame(table).astype(str).set_index(events["event"].astype(str))


def probe_records(
    section: EvaluateSection,
    parts: Sequence[FoldPrediction],
    plan: StudyPlan,
    describe: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Records ``probe_run``, ``probe_session``, ``probe_third_of_run`` of one decoder.

    Predictions are compared within one fold and person: those of other folds come from other
    decoders. Single trials, whatever the protocol averages. Labels with fewer than 5 queries, and
    folds where one is left, are left out; an identity that nowhere has two has no record. Of more
    than 2000 queries of a fold and person so many are drawn.

    Parameters
    ----------
    parts : the prediction stores of one decoder, one per fold
    describe : fields that all records share

    Returns
    -------
    list of dict
        The value is the balanced accuracy (mean over labels within fold and person).
    """
    table = identities(plan)
    people = dict(zip(plan.events["event"].astype(str), plan.events["subject"].astype(str)))
    records = []
    for number, name in enumerate(IDENTITIES):
        rng = np.random.default_rng([section.seed, 11, number])
        n_permutations = min(section.permutations, _MOST_PERMUTATIONS)
        found = []
        for part in parts:
            who = np.array([people[e] for e in part.events])
            for person in sorted(set(who)):
                rows = np.flatnonzero(who == person)
                label = table.loc[part.events[rows], name].to_numpy(str)
                kinds, counts = np.unique(label, return_counts=True)
                kept = np.isin(label, kinds[counts >= _FEWEST])
                if len(set(label[kept])) < 2:
                    continue
                chosen = np.flatnonzero(kept)
                if len(chosen) > _MOST_QUERIES:
                    chosen = np.sort(rng.choice(chosen, _MOST_QUERIES, replace=False))
                rows, label = rows[chosen], label[chosen]
                stimuli = part.stimuli[rows]
                group = stimuli if len(set(stimuli)) >= _PARTS else np.arange(len(rows))
                values = np.asarray(part.values[rows], float)
                found.append(probe(values, label, group, n_permutations, rng))
        if found:
            records.append(_record(section, name, found, len(parts), rng) | describe)
    return records


def _record(
    section: EvaluateSection,
    name: str,
    found: Sequence[Probed],
    n_folds: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """One record over all folds and people, each of their labels counting the same."""
    first = np.cumsum([0, *(part.n_classes for part in found)])
    join = lambda name, shift: np.concatenate(  # noqa: E731
        [getattr(p, name) + (first[i] if shift else 0) for i, p in enumerate(found)], axis=-1
    )
    hit, label = join("hit", False)[None], join("label", True)[None]
    once, strata = np.ones_like(hit), np.zeros(hit.shape[1], np.int64)
    value = float(macro_mean(hit, label, once, strata)[0])
    null = np.empty(0)
    if len(found[0].null_hit):
        null = macro_mean(join("null_hit", False), join("null_label", True), once, strata)
    counts = resample(hit.shape[1], section.bootstrap, rng)
    draws = [macro_mean(hit, label, weights, strata) for weights in counts]
    low, high = interval(np.concatenate(draws) if draws else np.empty(0), section.ci)
    classes = np.array([part.n_classes for part in found])
    return {
        "metric": f"probe_{name}",
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "ci_level": section.ci,
        "chance": float(len(classes) / classes.sum()),
        "p_value": permutation_p(value, null),
        "n_queries": hit.shape[1],
        "n_candidates": int(classes.max()),
        "n_candidates_min": int(classes.min()),
        "n_folds": n_folds,
        "subject": "all",
        "null": f"refitted to labels shuffled within fold and person, N={len(null)}"
        if len(null) else "none",
        "bootstrap_unit": "event",
        "protocol": "",
        "candidates": name,
        "aggregate": "none",
        "n_averaged": 1,
        "n_averaged_min": 1,
        "direction": "query",
        **dict.fromkeys(("draws", "draws_mean", "draws_low", "draws_high")),
    }  # fmt: skip
