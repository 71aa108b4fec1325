"""Ranks against naive loops, ties, duplicates, zero vectors, bad numbers."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score
from threadpoolctl import threadpool_limits

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate import counting
from braindecode_pipe.evaluate.candidates import CandidateSet, unit_rows
from braindecode_pipe.evaluate.retrieval import (
    best_candidates,
    mid_rank,
    placements,
    retrieve,
    top_k_probability,
)


def ids(n):
    return [f"s{i}" for i in range(n)]


def naive_retrieval(predictions, candidates, true):
    """Greater, ties (self included) and score per query, one cosine at a time."""
    rows = []
    for p, t in zip(predictions, true):
        scores = []
        for c in candidates:
            length = np.linalg.norm(p) * np.linalg.norm(c)
            scores.append(p @ c / length if length else 0.0)
        rows.append(
            (
                sum(s > scores[t] + 1e-6 for s in scores),
                sum(abs(s - scores[t]) <= 1e-6 for s in scores),
                scores[t],
            )
        )
    return np.array(rows).T


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [None, 1, 7])
def test_equals_a_naive_loop(seed, block):
    rng = np.random.default_rng(seed)
    candidates = rng.standard_normal((13, 6))
    candidates[5] = candidates[2]
    candidates[9] = 3 * candidates[7]
    candidates[11] = 0
    predictions = rng.standard_normal((40, 6))
    predictions[3] = 0
    true = rng.integers(0, 13, 40)
    found = retrieve(predictions, candidates, [f"s{t}" for t in true], ids(13), block=block)
    greater, ties, score = naive_retrieval(predictions, candidates, true)
    np.testing.assert_array_equal(found.greater, greater)
    np.testing.assert_array_equal(found.ties, ties)
    np.testing.assert_allclose(found.score, score, atol=1e-6)
    np.testing.assert_allclose(found.rank, 1 + greater + (ties - 1) / 2)
    assert found.ties[3] == 13
    assert found.rank[3] == 7


def test_top_k_is_the_mean_over_all_orders_of_the_ties():
    rng = np.random.default_rng(0)
    scores = np.array([3.0, 2.0, 2.0, 2.0, 1.0])
    hits = np.zeros((5, 6))
    n = 20000
    for _ in range(n):
        order = np.lexsort((rng.random(5), -scores))
        place = np.argsort(order)
        for k in range(1, 6):
            hits[:, k] += place < k
    greater, ties = placements(scores[None], np.arange(5)[None])
    for k in range(1, 6):
        expected = top_k_probability(greater[0], ties[0], k)
        np.testing.assert_allclose(hits[:, k] / n, expected, atol=0.015)
    np.testing.assert_array_equal(mid_rank(greater, ties)[0], [1, 3, 3, 3, 5])


def test_best_candidates_break_ties_by_order():
    scores = np.array([[0.5, 0.9, 0.5, 0.9], [0.0, 0.0, 0.0, 0.0]], np.float32)
    best, values = best_candidates(scores, 3)
    np.testing.assert_array_equal(best, [[1, 3, 0], [0, 1, 2]])
    np.testing.assert_array_equal(values, np.float32([[0.9, 0.9, 0.5], [0, 0, 0]]))


def test_placements_by_sorting_equal_placements_by_comparison():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (30, 20)).astype(np.float32)
    columns = rng.integers(0, 20, (30, 12))
    whole = placements(scores, columns)
    for start in range(0, 12, 4):
        part = placements(scores, columns[:, start : start + 4])
        np.testing.assert_array_equal(whole[0][:, start : start + 4], part[0])
        np.testing.assert_array_equal(whole[1][:, start : start + 4], part[1])


@pytest.mark.parametrize("n_features", [1, 3, 384, 1000])
def test_f40_constant_embedding_scores_exactly_chance(n_features):
    rng = np.random.default_rng(0)
    m = 37
    constant = np.tile(rng.standard_normal(n_features), (m, 1))
    predictions = rng.standard_normal((200, n_features))
    true = rng.choice(ids(m), 200)
    found = retrieve(predictions, constant, true, ids(m))
    for k in (1, 5, 10):
        np.testing.assert_array_equal(found.top_k(k), k / m)
    np.testing.assert_array_equal(found.rank, (m + 1) / 2)
    np.testing.assert_array_equal(found.normalized_rank, 0.5)


def test_f40_collapsed_model_scores_exactly_chance():
    """The same prediction for every query: chance over stimuli that are shown equally often."""
    rng = np.random.default_rng(0)
    m = 20
    candidates = rng.standard_normal((m, 8))
    found = retrieve(np.tile(rng.standard_normal(8), (m, 1)), candidates, ids(m), ids(m))
    for k in (1, 5, 10):
        assert found.top_k(k).mean() == pytest.approx(k / m, abs=1e-12)
    assert found.normalized_rank.mean() == pytest.approx(0.5, abs=1e-12)


def test_f40_constant_prediction_of_one_hot_candidates():
    found = retrieve(np.ones((8, 8)), np.eye(8), ids(8), ids(8))
    np.testing.assert_array_equal(found.top_k(1), 1 / 8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_f40_numbers_that_are_not_finite_are_refused_by_row(value):
    predictions, candidates = np.ones((4, 2)), np.eye(2)
    predictions[2, 1] = value
    with pytest.raises(DataError, match=r"NaN or infinity in predictions(.|\n)*1 such rows: 2"):
        retrieve(predictions, candidates, ["s0"] * 4, ids(2), block=1)
    candidates[1, 0] = value
    with pytest.raises(DataError, match=r"NaN or infinity in candidates(.|\n)*1 such rows: 1"):
        retrieve(np.ones((4, 2)), candidates, ["s0"] * 4, ids(2))


def test_f38_duplicates_are_one_candidate():
    """Many instances of few words: accuracy must not depend on how often a word is a candidate."""
    rng = np.random.default_rng(0)
    words = rng.standard_normal((20, 8))
    instance = rng.integers(0, 20, 300)
    instance[:20] = np.arange(20)
    predictions = words[instance] + 2 * rng.standard_normal((300, 8))
    names = [f"w{i}" for i in instance]
    repeated = retrieve(predictions, words[instance], names, names)
    unique = retrieve(predictions, words, names, [f"w{i}" for i in range(20)])
    assert repeated.n_candidates == unique.n_candidates == 20
    np.testing.assert_array_equal(repeated.rank, unique.rank)
    # The same instances under ids of their own are other candidates, and another score.
    apart = retrieve(predictions, words[instance], ids(300), ids(300))
    assert apart.n_candidates == 300
    assert apart.top_k(10).mean() < unique.top_k(10).mean() - 0.2


def test_one_id_with_two_embeddings():
    with pytest.raises(DataError, match="one candidate id has two embeddings"):
        retrieve(np.eye(2), np.eye(2), ["a", "a"], ["a", "a"])


def test_true_stimulus_that_is_no_candidate():
    with pytest.raises(DataError, match=r"not among the candidates(.|\n)*1 missing: x"):
        retrieve(np.eye(2), np.eye(2), ["s0", "x"], ids(2))


@pytest.mark.parametrize(
    ("predictions", "candidates", "true", "names", "message"),
    [
        (np.ones((2, 3)), np.eye(2), ["s0"] * 2, ["s0", "s1"], "different numbers of features"),
        (np.ones((2, 2)), np.eye(2), ["s0"], ["s0", "s1"], "true stimuli differ in number"),
        (np.ones((2, 2)), np.eye(2), ["s0"] * 2, ["s0"], "their ids differ in number"),
        (np.ones(2), np.eye(2), ["s0"] * 2, ["s0", "s1"], "predictions must be a matrix"),
        (np.ones((2, 0)), np.ones((2, 0)), ["s0"] * 2, ["s0", "s1"], "must be a matrix"),
    ],
)
def test_shapes_that_do_not_fit(predictions, candidates, true, names, message):
    with pytest.raises(DataError, match=message):
        retrieve(predictions, candidates, true, names)


@pytest.mark.parametrize("scale", [1e-300, 1e-13, 1e6, 1e300])
def test_scale_changes_nothing(scale):
    rng = np.random.default_rng(0)
    predictions, candidates = rng.standard_normal((50, 4)), rng.standard_normal((9, 4))
    true = rng.choice(ids(9), 50)
    first = retrieve(predictions, candidates, true, ids(9))
    second = retrieve(scale * predictions, scale * candidates, true, ids(9))
    np.testing.assert_array_equal(first.rank, second.rank)


def test_order_of_candidates_and_queries_changes_nothing():
    rng = np.random.default_rng(0)
    predictions, candidates = rng.standard_normal((50, 4)), rng.standard_normal((30, 4))
    true = rng.choice(ids(30), 50)
    first = retrieve(predictions, candidates, true, ids(30))
    c, q = rng.permutation(30), rng.permutation(50)
    second = retrieve(predictions[q], candidates[c], true[q], np.array(ids(30))[c])
    np.testing.assert_array_equal(first.rank[q], second.rank)
    np.testing.assert_array_equal(first.top_ids[q], second.top_ids)


def test_top_k_equals_scikit_learn():
    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((40, 8))
    true = rng.integers(0, 40, 300)
    predictions = candidates[true] + 2 * rng.standard_normal((300, 8))
    found = retrieve(predictions, candidates, [f"s{t}" for t in true], ids(40))
    scores = CandidateSet(candidates, ids(40)).scores(predictions)
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(true, scores, k=k, labels=np.arange(40))
        assert found.top_k(k).mean() == pytest.approx(expected)


def test_planted_signal_is_found_and_shuffled_is_not():
    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((100, 16))
    true = rng.integers(0, 100, 400)
    predictions = candidates[true] + rng.standard_normal((400, 16))
    names = np.array(ids(100))
    assert retrieve(predictions, candidates, names[true], names).top_k(1).mean() > 0.5
    shuffled = retrieve(predictions, candidates, names[rng.permutation(true)], names)
    assert abs(shuffled.normalized_rank.mean() - 0.5) < 4 / np.sqrt(12 * 400)


@pytest.mark.parametrize("kind", ["random", "copies", "collapsed", "integers", "zeros"])
@pytest.mark.parametrize("n_features", [3, 768])
def test_f40_tiles_give_the_ranks_of_all_scores_in_float64(kind, n_features, monkeypatch):
    """Whatever the tile: ranks, ties and lists of all scores, to the last bit."""
    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((500, n_features))
    predictions = candidates[rng.integers(0, 500, 90)] + rng.standard_normal((90, n_features))
    if kind == "copies":
        candidates = candidates[rng.integers(0, 60, 500)]
    elif kind == "collapsed":
        candidates = candidates[:1] + 1e-6 * candidates
    elif kind == "integers":
        candidates, predictions = np.sign(np.round(candidates)), np.round(predictions)
    elif kind == "zeros":
        predictions[::2], candidates[::3] = 0, 0
    true = rng.integers(0, 500, 90)
    scores = CandidateSet(candidates, ids(500)).scores(predictions)
    greater, ties = placements(scores, true[:, None])
    best, best_scores = best_candidates(scores, 5)
    for tile, block in ((2000, None), (37, 17), (500, 1)):
        monkeypatch.setattr(counting, "_TILE_CANDIDATES", tile)
        found = retrieve(predictions, candidates, [f"s{t}" for t in true], ids(500), block=block)
        np.testing.assert_array_equal(found.greater, greater[:, 0])
        np.testing.assert_array_equal(found.ties, ties[:, 0])
        np.testing.assert_array_equal(found.score, scores[np.arange(90), true])
        np.testing.assert_array_equal(found.top_ids, np.array(ids(500), object)[best])
        np.testing.assert_array_equal(found.top_scores, best_scores)


def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    candidates, predictions = rng.standard_normal((300, 8)), rng.standard_normal((200, 8))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(retrieve(predictions, candidates, ["s0"] * 200, ids(300), block=20))
    np.testing.assert_array_equal(found[0].rank, found[1].rank)
    np.testing.assert_array_equal(found[0].top_ids, found[1].top_ids)


def test_f40_numbers_that_are_not_finite_are_refused_in_threads_too():
    predictions = np.ones((100, 2))
    predictions[[70, 45, 99]] = np.nan
    with (
        threadpool_limits(2),
        pytest.raises(DataError, match=r"in predictions(.|\n)*1 such rows: 45"),
    ):
        retrieve(predictions, np.eye(2), ["s0"] * 100, ids(2), block=10)


def test_float32_products_stay_within_the_bound():
    rng = np.random.default_rng(0)
    for n_features in (2, 64, 768, 4096):
        for offset in (0.0, 3.0):
            a = unit_rows(rng.standard_normal((400, n_features)) + offset)
            b = unit_rows(rng.standard_normal((400, n_features)) + offset)
            error = np.abs(a @ b.T - a.astype(float) @ b.T.astype(float)).max()
            assert error < 0.5 * counting.rounding_bound(n_features)


def test_memory_is_bounded_by_the_block():
    rng = np.random.default_rng(0)
    predictions = rng.standard_normal((8000, 16), np.float32)
    candidates = rng.standard_normal((6000, 16), np.float32)
    names = ids(6000)
    with threadpool_limits(1):
        tracemalloc.start()
        retrieve(predictions, candidates, names[:1] * 8000, names, block=500)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # All scores would be 192 MB; a tile of 2000 x 500 with its comparisons is 6 MB.
    assert peak < 30e6


def test_no_queries():
    found = retrieve(np.ones((0, 2)), np.eye(2), [], ids(2))
    assert found.rank.shape == (0,)
    assert found.top_ids.shape == (0, 2)
