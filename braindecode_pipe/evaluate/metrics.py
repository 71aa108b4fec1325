"""The metrics, and the records of ``metrics.json``.

``metrics.json`` is a public format: a flat list of records with these fields.

=================  ==============================================================================
metric             a name from the table below
value              its value
ci_low, ci_high    bootstrap interval (percentile); null where there is none
ci_level           e.g. 0.95
chance             expected value of guessing, analytic
p_value            permutation p; null where none was computed
n_queries          queries scored (pairs of categories for zero-shot)
n_candidates       candidates per query; the largest number where folds differ
n_candidates_min   the smallest number where folds differ
n_folds            folds the queries come from
decoder            ridge, ...; ``selected``: chosen per fold; ``prior``: training frequency alone
embedding, target  table of ``[embed]`` and target of ``[plan.stimuli]``
split              what was held out: run, session, subject, stimulus, category, time, or
                   ``category pairs`` (zero-shot)
subject            ``all`` or one person
data_origin        recorded, simulated or mixed
null               which null distribution the p-value is from
bootstrap_unit     what was drawn with replacement: event, stimulus, run, subject
prompt_set         zero-shot only: the table of ``[embed]`` with the prompts
=================  ==============================================================================

=======================  ========================================================================
identification_accuracy  share of queries whose true class scores best, among classes that training
                         has shown (equal to ``top1``)
top1, top5, top10        share of queries whose true stimulus is among the best k (micro average)
balanced_accuracy,       the same, averaged within each true stimulus first (macro average)
balanced_top5, ...
category_accuracy        share of queries whose best candidate has the category of the true one
median_rank              median mid-rank, 1 is best
normalized_rank          mean of (rank - 1) / (n_candidates - 1), 0 is best
pair_accuracy            share of comparisons of the true stimulus with one other that it wins,
                         ``1 - normalized_rank``
event_pair_accuracy      zero-shot only: ``pair_accuracy`` of single test events
auc                      two candidates: area under the ROC curve of the difference of their
                         scores, within fold and person
=======================  ========================================================================

Ties count half everywhere, so that guessing scores chance. Metrics of unequal ``n_candidates``
must not be compared: :func:`check_comparable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from braindecode_pipe.errors import InputError
from braindecode_pipe.evaluate.retrieval import mid_rank, normalized_rank, top_k_probability
from braindecode_pipe.evaluate.statistics import (
    Reduction,
    exchange,
    interval,
    macro_mean,
    permutation_p,
    resample,
    stratified_auc,
    weighted_mean,
    weighted_median,
)
from braindecode_pipe.recipe import EvaluateSection


@dataclass(frozen=True)
class Queries:
    """All queries of one decoder, with the outcome for every stimulus that could have been true.

    Attributes
    ----------
    label : (n,) int
        Number of the true stimulus among the columns of the query's group.
    group : (n,) int
        Queries of one group may exchange their true stimuli under the null hypothesis.
    column_class : (n_groups, u) int
        Study-wide number of the stimulus in each column.
    greater, ties : (n, u) int
        As in ``Retrieval``, were the stimulus of that column the true one.
    n_candidates : (n,) int
    fold, subject, run : (n,) int codes
    decision : (n,) float, optional
        Score of the second candidate minus that of the first, where there are two.
    same_category : (n, u) float, optional
        Share of the best candidates that have the category of the column's stimulus.
    category_chance : (n,) float, optional
        Share of the candidates that have the true category.
    """

    label: np.ndarray
    group: np.ndarray
    column_class: np.ndarray
    greater: np.ndarray
    ties: np.ndarray
    n_candidates: np.ndarray
    fold: np.ndarray
    subject: np.ndarray
    run: np.ndarray
    decision: np.ndarray | None = None
    same_category: np.ndarray | None = None
    category_chance: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray) -> Queries:
        """The queries at ``rows``."""
        parts = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name != "column_class" and getattr(self, field.name) is not None
        }
        return replace(self, **parts)

    @property
    def stratum(self) -> np.ndarray:
        """(n,) int: the queries of one fold and one person share a number."""
        return self.fold * (int(self.subject.max(initial=0)) + 1) + self.subject

    def classes(self, label: np.ndarray) -> np.ndarray:
        """(b, n) study-wide numbers of the stimuli at ``label`` (b, n)."""
        return self.column_class[self.group, label]

    def outcome(self, label: np.ndarray) -> Outcome:
        """What would be seen if the true stimuli were those at ``label`` (b, n)."""
        rows = np.arange(len(self))
        return Outcome(
            self.classes(label),
            self.greater[rows, label],
            self.ties[rows, label],
            self.n_candidates,
            None if self.decision is None else self.decision[None],
            None if self.same_category is None else self.same_category[rows, label],
        )


@dataclass(frozen=True)
class Outcome:
    """True classes and ranks of ``b`` replicates of ``n`` queries, each (b, n) or (n,)."""

    classes: np.ndarray
    greater: np.ndarray
    ties: np.ndarray
    n_candidates: np.ndarray
    decision: np.ndarray | None
    same_category: np.ndarray | None


@dataclass(frozen=True)
class Metric:
    """A value per query, how it is averaged, and its chance value per query."""

    name: str
    value: Callable[[Outcome], np.ndarray]
    reduction: Reduction
    chance: Callable[[Queries], np.ndarray]
    larger_is_better: bool = True

    def of(self, queries: Queries, draw: Outcome, weights: np.ndarray) -> np.ndarray:
        """(b,) values of ``draw``, with weights (b, n) or (1, n)."""
        return self.reduction(self.value(draw), draw.classes, weights, queries.stratum)

    def by_chance(self, queries: Queries) -> float:
        """Expected value of guessing among the candidates."""
        classes = queries.classes(queries.label[None])
        guessed = self.chance(queries)[None]
        return float(self.reduction(guessed, classes, _ones(queries), queries.stratum)[0])


def metrics_for(queries: Queries, top_k: Sequence[int], closed: bool) -> list[Metric]:
    """The metrics that make sense for these queries, in the order in which they are printed.

    Parameters
    ----------
    queries : Queries
    top_k : numbers k; those below the smallest number of candidates are used
    closed : True where every candidate is a class that training has shown
    """
    share = lambda k: lambda o: top_k_probability(o.greater, o.ties, k)  # noqa: E731
    guess = lambda k: lambda q: k / q.n_candidates  # noqa: E731
    half = lambda q: np.full(len(q), 0.5)  # noqa: E731
    metrics = []
    if closed:
        metrics.append(Metric("identification_accuracy", share(1), weighted_mean, guess(1)))
    for k in sorted({k for k in top_k if k < queries.n_candidates.min()}):
        macro = "balanced_accuracy" if k == 1 else f"balanced_top{k}"
        metrics.append(Metric(f"top{k}", share(k), weighted_mean, guess(k)))
        metrics.append(Metric(macro, share(k), macro_mean, guess(k)))
    if queries.same_category is not None:
        metrics.append(
            Metric("category_accuracy", lambda o: o.same_category, weighted_mean,
                   lambda q: q.category_chance)
        )  # fmt: skip
    rank = lambda o: normalized_rank(o.greater, o.ties, o.n_candidates)  # noqa: E731
    metrics += [
        Metric("median_rank", lambda o: mid_rank(o.greater, o.ties), weighted_median,
               lambda q: (q.n_candidates + 1) / 2, larger_is_better=False),
        Metric("normalized_rank", rank, weighted_mean, half, larger_is_better=False),
        Metric("pair_accuracy", lambda o: 1 - rank(o), weighted_mean, half),
    ]  # fmt: skip
    if queries.decision is not None:
        # Equal scores everywhere: every pair is a tie, which is chance.
        metrics.append(
            Metric("auc", lambda o: o.decision, stratified_auc, lambda q: np.zeros(len(q)))
        )
    return metrics


def headline_metric(n_candidates: int, names: Iterable[str]) -> str:
    """The metric of the verdict, fixed by the number of candidates and not by the result.

    Two candidates: ``auc``; up to 50: the share identified; more: ``pair_accuracy``, which does
    not depend on how many there are.
    """
    names = list(names)
    order = ["identification_accuracy", "top1", "pair_accuracy"]
    if n_candidates == 2:
        order.insert(0, "auc")
    elif n_candidates > 50:
        order.insert(0, "pair_accuracy")
    return next(name for name in order if name in names)


def score(
    queries: Queries,
    metrics: Sequence[Metric],
    section: EvaluateSection,
    *,
    together: bool,
    subjects: Sequence[str],
    describe: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Records of all metrics, over everybody and per person, with intervals and p-values.

    Parameters
    ----------
    queries : Queries
    metrics : of :func:`metrics_for`
    section : EvaluateSection
    together : exchange stimuli (True) or labels of single queries (False) under the null
    subjects : names of the codes in ``queries.subject``
    describe : fields that all records share (decoder, embedding, ...)

    Returns
    -------
    records : list of dict
    null : metric name -> (permutations,) values over everybody
    """
    scopes = {"all": np.arange(len(queries))}
    if len(np.unique(queries.subject)) > 1:
        for code in np.unique(queries.subject):
            scopes[str(subjects[code])] = np.flatnonzero(queries.subject == code)
    parts = {name: queries.take(rows) for name, rows in scopes.items()}
    nulls = _null(queries, parts, scopes, metrics, section, together)
    records = []
    for number, (name, part) in enumerate(parts.items()):
        rng = np.random.default_rng([section.seed, 1, number])
        draws = _bootstrap(part, metrics, section, rng)
        observed = part.outcome(part.label[None])
        for metric in metrics:
            value = float(metric.of(part, observed, _ones(part))[0])
            if not np.isfinite(value):
                continue
            low, high = interval(draws[metric.name], section.ci)
            null = nulls[name][metric.name]
            records.append(
                {
                    "metric": metric.name,
                    "value": value,
                    "ci_low": low,
                    "ci_high": high,
                    "ci_level": section.ci,
                    "chance": metric.by_chance(part),
                    "p_value": permutation_p(value, null, metric.larger_is_better),
                    "n_queries": len(part),
                    "n_candidates": int(part.n_candidates.max()),
                    "n_candidates_min": int(part.n_candidates.min()),
                    "n_folds": len(np.unique(part.fold)),
                    "subject": name,
                    "null": _null_name(section, together, len(null)),
                    "bootstrap_unit": section.bootstrap_unit,
                    **describe,
                }
            )
    return records, nulls["all"]


def check_comparable(records: Sequence[Mapping[str, Any]]) -> None:
    """Raise :class:`InputError` when records of other metrics or candidate numbers are compared.

    The same embeddings score a top-10 of .63 among 50 candidates and of .10 among 1000.
    """
    for key, what in (("metric", "metrics"), ("n_candidates", "numbers of candidates"),
                      ("n_candidates_min", "numbers of candidates")):  # fmt: skip
        found = sorted({record.get(key) for record in records}, key=str)
        if len(found) > 1:
            raise InputError(
                f"results with different {what} cannot be compared",
                expected=f"one value of {key}",
                found=", ".join(map(str, found)),
                remedy="compare runs with the same [evaluate] candidates and [split]",
            )


def _null(
    queries: Queries,
    parts: Mapping[str, Queries],
    scopes: Mapping[str, np.ndarray],
    metrics: Sequence[Metric],
    section: EvaluateSection,
    together: bool,
) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, list[np.ndarray]]] = {
        name: {metric.name: [] for metric in metrics} for name in parts
    }
    if _exchangeable(queries):
        rng = np.random.default_rng([section.seed, 0])
        for label in exchange(queries.label, queries.group, section.permutations, rng, together):
            for name, part in parts.items():
                if not _exchangeable(part):
                    continue
                drawn = part.outcome(label[:, scopes[name]])
                for metric in metrics:
                    found[name][metric.name].append(metric.of(part, drawn, _ones(part)))
    return {
        name: {m: np.concatenate(v) if v else np.empty(0) for m, v in values.items()}
        for name, values in found.items()
    }


def _ones(queries: Queries) -> np.ndarray:
    return np.ones((1, len(queries)))


def _exchangeable(queries: Queries) -> bool:
    """Whether any group holds two different stimuli."""
    return any(
        len(np.unique(queries.label[queries.group == g])) > 1 for g in np.unique(queries.group)
    )


def _null_name(section: EvaluateSection, together: bool, n: int) -> str:
    if not section.permutations:
        return "none"
    if not n:
        return "none: no two stimuli can be exchanged"
    what = "stimuli within fold" if together else "stimuli within run"
    return f"evaluation-only permutation of {what}, N={n}"


def _bootstrap(
    queries: Queries,
    metrics: Sequence[Metric],
    section: EvaluateSection,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    observed = queries.outcome(queries.label[None])
    units = {
        "event": None,
        "stimulus": observed.classes[0],
        "run": queries.run,
        "subject": queries.subject,
    }[section.bootstrap_unit]
    draws: dict[str, list[np.ndarray]] = {metric.name: [] for metric in metrics}
    if len(queries) > 1 and (units is None or len(np.unique(units)) > 1):
        for weights in resample(len(queries), section.bootstrap, rng, units):
            for metric in metrics:
                draws[metric.name].append(metric.of(queries, observed, weights))
    return {name: np.concatenate(d) if d else np.empty(0) for name, d in draws.items()}
