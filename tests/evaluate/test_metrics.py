"""Metrics against naive loops; chance, candidate numbers and priors made visible."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.errors import InputError
from braindecode_pipe.evaluate.metrics import Queries, headline_metric, metrics_for
from braindecode_pipe.evaluate.retrieval import placements
from braindecode_pipe.evaluate.scoring import check_comparable, score
from braindecode_pipe.evaluate.verdict import format_p, verdict
from braindecode_pipe.recipe import EvaluateSection


def make_queries(scores, truth, fold=None, subject=None, run=None, category=None):
    """Queries whose candidates are all columns of ``scores`` (n, m); groups are the runs."""
    n, m = scores.shape
    zero = np.zeros(n, np.int64)
    fold, subject, run = (zero if a is None else a for a in (fold, subject, run))
    groups = run + (run.max() + 1) * subject
    _, groups = np.unique(groups, return_inverse=True)
    width = np.tile(np.arange(m), (n, 1))
    greater, ties = placements(scores.astype(np.float32), width)
    same = chance = None
    if category is not None:
        best = scores == scores.max(axis=1, keepdims=True)
        best = best / best.sum(axis=1, keepdims=True)
        same = np.stack([best[:, category == category[c]].sum(axis=1) for c in range(m)], axis=1)
        chance = np.array([(category == category[t]).mean() for t in truth])
    return Queries(
        truth, groups, np.tile(np.arange(m), (groups.max() + 1, 1)), greater, ties,
        np.full(n, m), fold, subject, run,
        scores[:, 1] - scores[:, 0] if m == 2 else None, same, chance,
    )  # fmt: skip


def values(queries, top_k=(1, 5, 10), closed=True, **settings):
    """Metric name -> record over everybody."""
    section = EvaluateSection(**{"bootstrap": 50, "permutations": 50, **settings})
    metrics = metrics_for(queries, top_k, closed)
    records, null = score(
        queries, metrics, section, together=False, subjects=["a", "b"], describe={"decoder": "x"}
    )
    return {r["metric"]: r for r in records if r["subject"] == "all"}, null


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_naive_loops(seed):
    rng = np.random.default_rng(seed)
    n, m = 60, 9
    scores = rng.integers(0, 5, (n, m)).astype(float)
    truth = rng.integers(0, m, n)
    category = np.arange(m) % 3
    found, _ = values(make_queries(scores, truth, category=category))
    top = {k: [] for k in (1, 5)}
    rank, wins, cat, mrr = [], [], [], []
    for s, t in zip(scores, truth):
        above = sum(x > s[t] for x in s)
        equal = sum(x == s[t] for x in s)
        for k in top:
            top[k].append(min(max((k - above) / equal, 0), 1))
        rank.append(above + (equal + 1) / 2)
        mrr.append(np.mean([1 / (above + i) for i in range(1, equal + 1)]))
        wins.append(np.mean([(s[t] > x) + 0.5 * (s[t] == x) for i, x in enumerate(s) if i != t]))
        winners = [i for i in range(m) if s[i] == max(s)]
        cat.append(np.mean([category[i] == category[t] for i in winners]))
    by_class = [[i for i in range(n) if truth[i] == c] for c in range(m) if (truth == c).any()]
    expected = {
        "identification_accuracy": np.mean(top[1]),
        "top1": np.mean(top[1]),
        "top5": np.mean(top[5]),
        "balanced_accuracy": np.mean([np.mean([top[1][i] for i in c]) for c in by_class]),
        "balanced_top5": np.mean([np.mean([top[5][i] for i in c]) for c in by_class]),
        "category_accuracy": np.mean(cat),
        "mrr": np.mean(mrr),
        "mean_rank": np.mean(rank),
        "median_rank": np.median(rank),
        "normalized_rank": np.mean([(r - 1) / (m - 1) for r in rank]),
        "pair_accuracy": np.mean(wins),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value), name


def test_chance_is_what_guessing_scores():
    """The analytic chance of every metric against random scores, within 4 standard errors."""
    rng = np.random.default_rng(0)
    n, m = 4000, 12
    truth = rng.choice(m, n, p=np.arange(1, m + 1) / np.arange(1, m + 1).sum())
    category = np.array([0] * 8 + [1] * 4)
    queries = make_queries(rng.standard_normal((n, m)), truth, category=category)
    found, null = values(queries, permutations=200)
    for name, record in found.items():
        # The median of a fair sample of ranks 1..12 is 6 or 7, each as likely as the other.
        tolerance = 0.5 if name == "median_rank" else 4 * 0.5 / n**0.5
        assert record["value"] == pytest.approx(record["chance"], abs=tolerance), name
        assert null[name].mean() == pytest.approx(record["chance"], abs=tolerance), name


def test_chance_of_two_candidates_with_auc():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    queries = make_queries(rng.standard_normal((400, 2)) + [0, 3], truth, fold=np.arange(400) % 4)
    found, null = values(queries, permutations=200)
    assert found["auc"]["chance"] == 0.5
    assert null["auc"].mean() == pytest.approx(0.5, abs=4 * 0.03 / 200**0.5)
    # A bias towards one class moves accuracy towards its share and leaves AUC alone.
    assert found["auc"]["value"] == pytest.approx(0.5, abs=0.12)


def test_auc_is_found_within_fold_and_person():
    """Every person and fold has an offset of its own, far larger than the effect."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 800)
    fold, subject = np.arange(800) % 4, np.arange(800) // 400
    decision = 1.5 * truth + rng.standard_normal(800) + 100 * fold - 1000 * subject
    scores = np.stack([np.zeros(800), decision], axis=1)
    found, _ = values(make_queries(scores, truth, fold=fold, subject=subject))
    assert found["auc"]["value"] == pytest.approx(0.855, abs=0.04)
    assert found["auc"]["p_value"] < 0.05
    assert found["top1"]["value"] == pytest.approx(0.5, abs=0.1)


def test_f37_null_lies_at_analytic_chance_for_biased_predictions():
    """A decoder that prefers one class: the null keeps labels within runs and centres on chance."""
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.permutation(8) for _ in range(12)])
    scores = rng.standard_normal((96, 8)) + np.linspace(0, 2, 8)
    queries = make_queries(scores, truth, run=np.repeat(np.arange(12), 8))
    found, null = values(queries, permutations=200, top_k=[1, 5])
    for name in ("top1", "balanced_accuracy", "top5", "pair_accuracy"):
        error = null[name].std() / 200**0.5
        assert null[name].mean() == pytest.approx(found[name]["chance"], abs=4 * error)


def test_planted_signal_is_significant_and_its_shuffle_is_not():
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.permutation(8) for _ in range(12)])
    run = np.repeat(np.arange(12), 8)
    scores = rng.standard_normal((96, 8)) + 1.5 * np.eye(8)[truth]
    found, _ = values(make_queries(scores, truth, run=run), permutations=500)
    assert found["top1"]["p_value"] == 1 / 501
    assert found["median_rank"]["p_value"] == 1 / 501
    assert found["top1"]["ci_low"] > found["top1"]["chance"]
    shuffled = rng.permuted(truth.reshape(12, 8), axis=1).ravel()
    found, _ = values(make_queries(scores, shuffled, run=run), permutations=500)
    assert found["top1"]["p_value"] > 0.05


def test_f39_every_score_carries_its_candidates_and_chance():
    rng = np.random.default_rng(0)
    words = rng.standard_normal((1000, 16))
    top10, pair = [], []
    for m in (50, 200, 1000):
        truth = rng.integers(0, m, 500)
        predictions = words[truth] + 2 * rng.standard_normal((500, 16))
        cosine = predictions @ (words[:m] / np.linalg.norm(words[:m], axis=1, keepdims=True)).T
        found, _ = values(make_queries(cosine, truth), closed=False)
        assert found["top10"]["n_candidates"] == found["top10"]["n_candidates_min"] == m
        assert found["top10"]["chance"] == pytest.approx(10 / m)
        assert found["top10"]["n_queries"] == 500
        top10.append(found["top10"])
        pair.append(found["pair_accuracy"]["value"])
    assert top10[0]["value"] > top10[1]["value"] + 0.1 > top10[2]["value"] + 0.3
    assert max(pair) - min(pair) < 0.05
    with pytest.raises(InputError, match=r"different numbers of candidates(.|\n)*1000, 200, 50"):
        check_comparable(top10)
    check_comparable([top10[0], dict(top10[0], value=0.1)])
    with pytest.raises(InputError, match="different metrics"):
        check_comparable([top10[0], dict(top10[0], metric="top1")])


def test_f41_a_prior_scores_micro_and_not_macro():
    """Zipf's words: knowing only how often each occurs looks like decoding, until averaged."""
    rng = np.random.default_rng(0)
    m = 200
    share = 1 / np.arange(1, m + 1)
    truth = np.r_[np.arange(m), rng.choice(m, 2000, p=share / share.sum())]
    scores = np.tile(share, (len(truth), 1))
    found, _ = values(make_queries(scores, truth))
    assert found["top10"]["value"] > 0.35
    assert found["balanced_top10"]["value"] == pytest.approx(10 / m)
    # Its labels may be exchanged at will: whatever it knows, it is not about the single query.
    assert found["top10"]["p_value"] == 1.0


def test_top_k_needs_more_candidates_than_k():
    rng = np.random.default_rng(0)
    queries = make_queries(rng.standard_normal((20, 5)), rng.integers(0, 5, 20))
    names = [m.name for m in metrics_for(queries, [1, 4, 5, 10], closed=False)]
    assert "top4" in names
    assert not {"top5", "top10", "identification_accuracy", "auc"} & set(names)


def test_one_record_per_person_where_there_are_several():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 80)
    subject = np.repeat([0, 1], 40)
    scores = rng.standard_normal((80, 4)) + 3 * np.eye(4)[truth] * subject[:, None]
    queries = make_queries(scores, truth, subject=subject)
    section = EvaluateSection(bootstrap=50, permutations=50)
    metrics = metrics_for(queries, [1], False)
    records, _ = score(
        queries, metrics, section, together=False, subjects=["a", "b"], describe={"decoder": "x"}
    )
    top1 = {r["subject"]: r for r in records if r["metric"] == "top1"}
    assert set(top1) == {"all", "a", "b"}
    assert top1["b"]["value"] > top1["all"]["value"] > top1["a"]["value"]
    assert top1["a"]["n_queries"] == 40
    assert top1["b"]["p_value"] == 1 / 51
    alone, _ = score(
        queries.take(np.arange(40)), metrics, section, together=False, subjects=["a", "b"],
        describe={"decoder": "x"},
    )  # fmt: skip
    assert {r["subject"] for r in alone} == {"all"}


@pytest.mark.parametrize("unit", ["run", "subject", "stimulus"])
def test_no_interval_from_a_single_unit(unit):
    rng = np.random.default_rng(0)
    truth = np.zeros(20, int) if unit == "stimulus" else rng.integers(0, 4, 20)
    queries = make_queries(rng.standard_normal((20, 4)), truth)
    found, _ = values(queries, bootstrap_unit=unit)
    assert np.isnan(found["top1"]["ci_low"])
    assert found["top1"]["bootstrap_unit"] == unit


def test_no_p_value_where_nothing_can_be_exchanged():
    rng = np.random.default_rng(0)
    queries = make_queries(rng.standard_normal((4, 4)), np.arange(4), run=np.arange(4))
    found, null = values(queries)
    assert np.isnan(found["top1"]["p_value"])
    assert found["top1"]["null"] == "none: no two stimuli can be exchanged"
    assert len(null["top1"]) == 0
    found, _ = values(make_queries(rng.standard_normal((4, 4)), np.arange(4)), permutations=0)
    assert found["top1"]["null"] == "none"


def test_same_seed_same_numbers():
    rng = np.random.default_rng(0)
    queries = make_queries(rng.standard_normal((40, 4)), rng.integers(0, 4, 40))
    first, second, third = (values(queries, seed=s)[0] for s in (0, 0, 1))
    assert first == second
    assert first["pair_accuracy"]["ci_low"] != third["pair_accuracy"]["ci_low"]


def test_headline_is_fixed_by_the_number_of_candidates():
    names = ["identification_accuracy", "top1", "pair_accuracy", "auc"]
    assert headline_metric(2, names) == "auc"
    assert headline_metric(2, names[:3]) == "identification_accuracy"
    assert headline_metric(8, names) == "identification_accuracy"
    assert headline_metric(50, ["top1", "pair_accuracy"]) == "top1"
    assert headline_metric(51, names) == "pair_accuracy"


def record(**changes):
    return {
        "metric": "identification_accuracy", "value": 0.78, "ci_low": 0.701, "ci_high": 0.86,
        "ci_level": 0.95, "chance": 0.125, "p_value": 1 / 2001, "n_queries": 96,
        "n_candidates": 8, "n_candidates_min": 8, "decoder": "ridge", "subject": "all",
        "data_origin": "recorded", **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "n_subjects", "evidence", "text"),
    [
        ({}, 1, "evidence",
         "Which of 8 stimuli was shown is identified in 78 % of 96 queries "
         "(95 % CI 70 to 86 %, chance 12.5 %, p = .0005, 1 person)."),
        ({"data_origin": "simulated"}, 3, "evidence",
         "Simulated data: Which of 8 stimuli was shown is identified in 78 % of 96 queries "
         "(95 % CI 70 to 86 %, chance 12.5 %, p = .0005, 3 people)."),
        ({"p_value": 0.4, "ci_low": float("nan")}, 1, "no evidence",
         "No evidence that it can be identified which of 8 stimuli was shown: 78 % of 96 queries "
         "(chance 12.5 %, p = .4, 1 person)."),
        ({"p_value": float("nan")}, 1, None,
         "Which of 8 stimuli was shown is identified in 78 % of 96 queries "
         "(95 % CI 70 to 86 %, chance 12.5 %, 1 person). "
         "Not tested against a null distribution."),
        ({"metric": "auc", "value": 0.69, "ci_low": 0.6, "ci_high": 0.75, "chance": 0.5,
          "n_candidates": 2, "n_candidates_min": 2}, 2, "evidence",
         "“face” and “house” are told apart with AUC .69 over 96 queries "
         "(95 % CI .60 to .75, chance .50, p = .0005, 2 people)."),
        ({"metric": "pair_accuracy", "n_candidates": 300, "n_candidates_min": 290}, 1, "evidence",
         "The right one of up to 300 stimuli scores above a random other one in 78 % of "
         "comparisons over 96 queries (95 % CI 70 to 86 %, chance 12.5 %, p = .0005, 1 person)."),
    ],
)  # fmt: skip
def test_verdict(changes, n_subjects, evidence, text):
    says = verdict([record(**changes)], "ridge", ["face", "house"], n_subjects)
    assert says["text"] == text
    assert says["evidence"] == evidence


def test_p_values_as_printed():
    printed = [format_p(p) for p in (1.0, 0.4, 0.05, 0.00049975, 1 / 5040, 1e-6)]
    assert printed == ["1", ".4", ".05", ".0005", ".0002", "1.0e-06"]


def test_f41_the_class_prior_is_no_evidence_of_decoding():
    decoder = record(value=0.44)
    says = verdict([decoder, record(decoder="prior", value=0.447)], "ridge", [], 1)
    assert says["evidence"] == "no evidence"
    assert says["text"].startswith("No evidence") and "without brain data 45 %" in says["text"]
    says = verdict([decoder, record(decoder="prior", value=0.40)], "ridge", [], 1)
    assert says["evidence"] == "evidence" and "without brain data" not in says["text"]
