"""The metrics, and the format of ``metrics.json``.

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
control            "" for a decoder; ``prior``; ``noise``: the decoder was given noise in place
                   of the test windows; ``probe``: what its predictions tell of the recording
embedding, target  table of ``[embed]`` and target of ``[plan.stimuli]``
split              what was held out: run, session, subject, stimulus, category, time, or
                   ``category pairs`` (zero-shot)
subject            ``all`` or one person
data_origin        recorded, simulated or mixed
null               which null distribution the p-value is from
bootstrap_unit     what was drawn with replacement: event, stimulus, run, subject
protocol           preset of ``[evaluate] protocol``; "" where the recipe's keys make it
candidates         test, all, prototypes, frequent; ``sampled from`` one of them for n-way metrics
aggregate          none, repetitions, subjects
n_averaged         trials in a query; the largest number where queries differ
n_averaged_min     the smallest number where queries differ
direction          ``query``: predictions look for candidates; ``candidate``: stimuli look for the
                   response that they evoked, among those of one fold and person
draws              n-way metrics only: draws of distractors behind the next three, else null
draws_mean         mean score of those draws (``value`` is the limit of ever more draws)
draws_low,         interval of the scores of single draws, at ``ci_level``
draws_high
leaks              names of leaks between training and test that were found and allowed; else []
prompt_set         zero-shot only: the table of ``[embed]`` with the prompts
base_decoder       of a further seed, of ``<decoder>.seeds`` and of a piece: the decoder's own name
seed               of a further seed: the number
n_seeds, sd,       of ``<decoder>.seeds``, whose value is the mean over the seeds: how many there
value_min,         are, standard deviation of a sample, and range
value_max
window_begin,      of a piece of the window (``sliding_s``): where it lies [s], and its centre
window_end,
window_centre
p_value_curve      of a piece: p against the best of all pieces in each permutation
=================  ==============================================================================

=======================  ========================================================================
identification_accuracy  share of queries whose true class scores best, among classes that training
                         has shown (equal to ``top1``)
top1, top5, top10        share of queries whose true stimulus is among the best k (micro average)
balanced_accuracy,       the same, averaged within each true stimulus first (macro average)
balanced_top5, ...
category_accuracy        share of queries whose best candidate has the category of the true one
category_map             mean average precision, all candidates of the true category being right
mrr                      mean of 1 / rank
mean_rank                mean mid-rank, 1 is best
median_rank              median mid-rank, 1 is best
normalized_rank          mean of (rank - 1) / (n_candidates - 1), 0 is best
pair_accuracy            share of comparisons of the true stimulus with one other that it wins,
                         ``1 - normalized_rank``
event_pair_accuracy      zero-shot only: ``pair_accuracy`` of single test events
top1_of_300, ...         top-k among so many candidates, the others being sampled
paired_difference        mean difference of ``pair_accuracy`` between two decoders on the same
                         queries (``decoder`` is ``a - b``), with the further field ``q_value``:
                         false discovery rate over all pairs
probe_run,               balanced accuracy of a linear probe for run, session and third of the run,
probe_session,           given the predictions of one fold and person (n_candidates: labels)
probe_third_of_run
auc                      two candidates: area under the ROC curve of the difference of their
                         scores, within fold and person
=======================  ========================================================================

A name with ``backward_`` before it is of the direction ``candidate``. Ties count half everywhere
(rank metrics are averaged over all orders of ties), so that guessing scores chance. Metrics of
unequal ``n_candidates``, candidates or averaging must not be compared:
:func:`braindecode_pipe.evaluate.scoring.check_comparable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from braindecode_pipe.evaluate.ranking import by_number, k_way, reciprocal
from braindecode_pipe.evaluate.retrieval import mid_rank, normalized_rank, top_k_probability
from braindecode_pipe.evaluate.statistics import (
    Reduction,
    macro_mean,
    stratified_auc,
    weighted_mean,
    weighted_median,
)


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
    precision : (n, u) float, optional
        Average precision, all candidates of the category of the column's stimulus being right.
    precision_chance : (n,) float, optional
        Its expectation for a random order.
    pool_greater, pool_ties : (n, k, d) int, optional
        As ``greater`` and ``ties``, within the pool of each ``n_way`` and draw; 0 ties where the
        pool does not hold the query's candidate.
    n_averaged : (n,) int, optional
        Trials in every query; default 1.
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
    precision: np.ndarray | None = None
    precision_chance: np.ndarray | None = None
    pool_greater: np.ndarray | None = None
    pool_ties: np.ndarray | None = None
    n_averaged: np.ndarray | None = None

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
            None if self.precision is None else self.precision[rows, label],
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
    precision: np.ndarray | None = None


@dataclass(frozen=True)
class Metric:
    """A value per query, how it is averaged, and its chance value per query.

    ``n_way`` and ``top`` are set where the value is that of ``n_way`` sampled candidates.
    """

    name: str
    value: Callable[[Outcome], np.ndarray]
    reduction: Reduction
    chance: Callable[[Queries], np.ndarray]
    larger_is_better: bool = True
    n_way: int = 0
    top: int = 0

    def of(self, queries: Queries, draw: Outcome, weights: np.ndarray) -> np.ndarray:
        """(b,) values of ``draw``, with weights (b, n) or (1, n)."""
        return self.reduction(self.value(draw), draw.classes, weights, queries.stratum)

    def by_chance(self, queries: Queries) -> float:
        """Expected value of guessing among the candidates."""
        classes = queries.classes(queries.label[None])
        guessed, once = self.chance(queries)[None], np.ones((1, len(queries)))
        return float(self.reduction(guessed, classes, once, queries.stratum)[0])


def metrics_for(
    queries: Queries,
    top_k: Sequence[int],
    closed: bool,
    n_way: Sequence[int] = (),
    prefix: str = "",
) -> list[Metric]:
    """The metrics that make sense for these queries, in the order in which they are printed.

    Parameters
    ----------
    queries : Queries
    top_k : numbers k; those below the smallest number of candidates are used
    closed : True where every candidate is a class that training has shown
    n_way : numbers of sampled candidates; those up to the smallest number of candidates are used
    prefix : of all names
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
    if queries.precision is not None:
        metrics.append(
            Metric("category_map", lambda o: o.precision, weighted_mean,
                   lambda q: q.precision_chance)
        )  # fmt: skip
    rank = lambda o: normalized_rank(o.greater, o.ties, o.n_candidates)  # noqa: E731
    middle = lambda q: (q.n_candidates + 1) / 2  # noqa: E731
    mrr = lambda o: by_number(reciprocal, o.greater, o.ties, o.n_candidates)  # noqa: E731
    metrics += [
        Metric("mrr", mrr, weighted_mean,
               lambda q: (np.cumsum(reciprocal(m := q.n_candidates.max())) / np.arange(1, m + 1))[
                   q.n_candidates - 1]),
        Metric("mean_rank", lambda o: mid_rank(o.greater, o.ties), weighted_mean, middle,
               larger_is_better=False),
        Metric("median_rank", lambda o: mid_rank(o.greater, o.ties), weighted_median, middle,
               larger_is_better=False),
        Metric("normalized_rank", rank, weighted_mean, half, larger_is_better=False),
        Metric("pair_accuracy", lambda o: 1 - rank(o), weighted_mean, half),
    ]  # fmt: skip
    for k in (k for k in n_way if k <= queries.n_candidates.min()):
        for top in (top for top in top_k if top < k):
            metrics.append(_sampled(k, top))
    if queries.decision is not None:
        # Equal scores everywhere: every pair is a tie, which is chance.
        metrics.append(
            Metric("auc", lambda o: o.decision, stratified_auc, lambda q: np.zeros(len(q)))
        )
    return [replace(metric, name=prefix + metric.name) for metric in metrics]


def _sampled(k: int, top: int) -> Metric:
    """Share of queries among the best ``top`` of ``k`` sampled candidates, over all samples."""
    table = lru_cache(lambda m: k_way(m, k, top))
    return Metric(
        f"top{top}_of_{k}",
        lambda o: by_number(table, o.greater, o.ties, o.n_candidates),
        weighted_mean,
        lambda q: np.full(len(q), top / k),
        n_way=k,
        top=top,
    )


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
