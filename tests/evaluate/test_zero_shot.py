"""Leave-two-out decoding: outcomes against a loop over all maps, exact p, both prompt sets."""

from __future__ import annotations

import json
from itertools import combinations, permutations

import numpy as np
import pytest
import xarray as xr

from braindecode_pipe.errors import DataError, SchemaError
from braindecode_pipe.evaluate import run_zero_shot
from braindecode_pipe.evaluate.pairs import (
    PairWeights,
    category_maps,
    event_outcomes,
    pair_outcomes,
)
from braindecode_pipe.recipe import EvaluateSection, ZeroShotSection
from braindecode_pipe.schema import embedding_dataset
from braindecode_pipe.store import open_store, read_file, read_table, store_attrs, write_store

NAMES = ["cat", "face", "house", "shoe", "bottle"]


def planted_weights(vectors, n_events=4, noise=0.3, seed=0):
    """Weights of a decoder whose prediction of a left-out category lies near its embedding."""
    rng = np.random.default_rng(seed)
    n = len(vectors)
    rows = []
    for pair, (a, b) in enumerate(combinations(range(n), 2)):
        others = [c for c in range(n) if c not in (a, b)]
        for true in (a, b):
            for event in range(n_events):
                weights = np.zeros(n)
                found = np.linalg.lstsq(vectors[others].T, vectors[true], rcond=None)[0]
                weights[others] = found + noise * rng.standard_normal(len(others))
                rows.append((pair, f"{true}:{event}", true, a, b, weights))
    pair, event, true, a, b, weights = zip(*rows)
    return xr.Dataset(
        {"weights": (("row", "category"), np.array(weights, np.float32))},
        coords={
            "category": ("category", np.array(NAMES[:n], object)),
            "event": ("row", np.array(event, object)),
            **{
                name: ("row", np.array(values, np.int64))
                for name, values in (("pair", pair), ("true", true), ("a", a), ("b", b))
            },
        },
        attrs={"schema_version": "1", "kind": "table", "data_origin": "recorded"},
    )


def as_pair_weights(dataset):
    pairs = sorted(set(zip(dataset["a"].values.tolist(), dataset["b"].values.tolist())))
    _, event = np.unique(dataset["event"].values.astype(str), return_inverse=True)
    other = np.where(dataset["true"] == dataset["a"], dataset["b"], dataset["a"])
    return PairWeights(
        dataset["weights"].values.astype(float), dataset["pair"].values, event,
        dataset["true"].values, other, np.array(pairs),
    )  # fmt: skip


def cosine(a, b):
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / length if length else 0.0


def naive_outcomes(dataset, vectors, mapping):
    """Pairs and events under one map, prediction by prediction."""
    E = vectors[list(mapping)]
    predictions = dataset["weights"].values.astype(float) @ E
    true, a, b, pair = (dataset[k].values for k in ("true", "a", "b", "pair"))
    right, events = [], []
    for number in range(pair.max() + 1):
        i, j = a[pair == number][0], b[pair == number][0]
        p_i = predictions[(pair == number) & (true == i)].mean(axis=0)
        p_j = predictions[(pair == number) & (true == j)].mean(axis=0)
        margin = cosine(p_i, E[i]) + cosine(p_j, E[j]) - cosine(p_i, E[j]) - cosine(p_j, E[i])
        right.append(0.5 if abs(margin) < 1e-12 else float(margin > 0))
    for p, t, i, j in zip(predictions, true, a, b):
        margin = cosine(p, E[t]) - cosine(p, E[j if t == i else i])
        events.append(0.5 if abs(margin) < 1e-12 else float(margin > 0))
    return right, events


@pytest.mark.parametrize("seed", range(3))
def test_outcomes_equal_a_loop_over_all_maps(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((5, 12))
    vectors[3] = vectors[1]
    dataset = planted_weights(vectors, noise=1.0, seed=seed)
    weights, gram = as_pair_weights(dataset), vectors @ vectors.T
    maps, exact = category_maps(5, 0)
    assert exact
    np.testing.assert_array_equal(maps[0], np.arange(5))
    by_map = pair_outcomes(weights.side_means()[0], weights.pairs, gram, maps)
    events = event_outcomes(weights, gram, maps)
    for mapping in list(permutations(range(5)))[::7]:
        (row,) = np.flatnonzero((maps == mapping).all(axis=1))
        right, single = naive_outcomes(dataset, vectors, mapping)
        np.testing.assert_array_equal(by_map[row], right)
        np.testing.assert_array_equal(events[row], single)


def test_embeddings_that_tell_nothing_apart_tie():
    """Identical prompts, and one-hot vectors (a left-out category is like no other one)."""
    dataset = planted_weights(np.random.default_rng(0).standard_normal((5, 3)))
    weights = as_pair_weights(dataset)
    maps, _ = category_maps(5, 0)
    for vectors in (np.ones((5, 4)), np.eye(5)):
        gram = vectors @ vectors.T
        by_map = pair_outcomes(weights.side_means()[0], weights.pairs, gram, maps)
        np.testing.assert_array_equal(by_map, 0.5)


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_scale_of_embeddings_and_weights_changes_nothing(scale):
    vectors = np.random.default_rng(0).standard_normal((5, 6))
    weights = as_pair_weights(planted_weights(vectors, noise=1.0))
    maps, _ = category_maps(5, 0)
    first = pair_outcomes(weights.side_means()[0], weights.pairs, vectors @ vectors.T, maps)
    means, scaled = scale * weights.side_means()[0], scale * vectors
    second = pair_outcomes(means, weights.pairs, scaled @ scaled.T, maps)
    np.testing.assert_array_equal(first, second)


def test_side_means_weigh_events():
    weights = as_pair_weights(planted_weights(np.random.default_rng(0).standard_normal((5, 3))))
    counts = np.random.default_rng(1).integers(0, 3, (4, 20)).astype(float)
    found = weights.side_means(counts)
    for unit, pair in enumerate(weights.pairs):
        for side, category in enumerate(pair):
            rows = np.flatnonzero((weights.unit == unit) & (weights.true == category))
            times = counts[2, weights.event[rows]].astype(int)
            expected = np.repeat(weights.weights[rows], times, axis=0).mean(axis=0)
            np.testing.assert_allclose(found[2, unit, side], expected)


def test_many_categories_are_sampled():
    maps, exact = category_maps(8, 0)
    assert not exact
    assert maps.shape == (5041, 8)
    np.testing.assert_array_equal(maps[0], np.arange(8))
    np.testing.assert_array_equal(np.sort(maps, axis=1)[::500], np.tile(np.arange(8), (11, 1)))
    assert category_maps(7, 0)[0].shape == (5040, 7)


def study_stores(folder, noise, n=5, origin="recorded"):
    """Weights and two prompt sets: ``good`` is what was planted, ``other`` has nothing to do."""
    rng = np.random.default_rng(0)
    # Few dimensions, so that the others can make up the one that is left out.
    vectors = {"good": rng.standard_normal((n, 2)), "other": rng.standard_normal((n, 64))}
    weights = planted_weights(vectors["good"], noise=noise)
    weights.attrs["data_origin"] = origin
    write_store(folder / "weights.zarr", {"": weights})
    paths = {}
    for name, values in vectors.items():
        order = rng.permutation(n)
        attrs = {"labels": [NAMES[i] for i in order], "data_origin": "recorded"}
        dataset = embedding_dataset(values[order], [f"id{i}" for i in order], attrs)
        paths[name] = folder / f"{name}.zarr"
        write_store(paths[name], {"": dataset})
    zero_shot = ZeroShotSection(target="object", categories=NAMES[:n], embeddings=["good", "other"])
    return zero_shot, folder / "weights.zarr", paths


def test_stage_finds_the_planted_prompts(tmp_path):
    zero_shot, weights, paths = study_stores(tmp_path, noise=0.05)
    out = tmp_path / "out.zarr"
    run_zero_shot(EvaluateSection(bootstrap=100), zero_shot, weights, paths, out)
    records = {
        (r["metric"], r["prompt_set"]): r for r in json.loads(read_file(out, "metrics.json"))
    }
    assert len(records) == 4
    good, other = records["pair_accuracy", "good"], records["pair_accuracy", "other"]
    assert good["value"] > 0.9
    assert good["ci_low"] <= good["value"] <= good["ci_high"]
    assert good["n_queries"] == 10
    assert good["chance"] == 0.5
    assert "all 120 maps" in good["null"]
    assert good["p_value"] < 0.1 < other["p_value"]
    assert records["event_pair_accuracy", "good"]["n_queries"] == 80
    null = open_store(out, "null")["null"]
    assert null.dims == ("prompt_set", "permutation")
    values = null.sel(prompt_set="good").values
    assert good["p_value"] == pytest.approx(np.mean(values >= good["value"] - 1e-12))
    pairs = read_table(out, "pairs")
    assert len(pairs) == 20
    assert list(pairs["n"].unique()) == [8]
    own = pairs[pairs["prompt_set"] == "good"]
    assert own["accuracy"].mean() == pytest.approx(good["value"])
    assert (own["category_a"].iloc[0], own["category_b"].iloc[0]) == ("cat", "face")
    attrs = store_attrs(out)
    assert "prompts good" in attrs["verdict"]["text"]
    assert "prompts other" in attrs["verdict"]["text"]
    assert [s["decoder"] for s in attrs["scored"]] == [
        "ridge, prompts good",
        "ridge, prompts other",
    ]
    assert "test_hash" not in attrs


def test_stage_with_a_plan_has_a_test_hash(tmp_path, small_study):
    plan = small_study().plan
    zero_shot, weights, paths = study_stores(tmp_path, noise=0.05)
    dataset = open_store(weights).load()
    events = plan.events["event"].to_numpy()[: dataset.sizes["row"] % 20 + 20]
    names = np.resize(events, dataset.sizes["row"]).astype(object)
    write_store(weights, {"": dataset.assign_coords(event=("row", names))})
    out = tmp_path / "out.zarr"
    section = EvaluateSection(bootstrap=0)
    run_zero_shot(section, zero_shot, weights, paths, out, plan=plan)
    assert len(store_attrs(out)["test_hash"]) == 64


def test_null_maps_average_to_chance():
    """Over all maps of any embedding, half of the pairs are right."""
    rng = np.random.default_rng(0)
    weights = as_pair_weights(planted_weights(rng.standard_normal((5, 6))))
    maps, _ = category_maps(5, 0)
    vectors = rng.standard_normal((5, 20))
    by_map = pair_outcomes(weights.side_means()[0], weights.pairs, vectors @ vectors.T, maps)
    assert by_map.mean() == pytest.approx(0.5, abs=0.1)


def test_simulated_and_unfounded(tmp_path):
    zero_shot, weights, paths = study_stores(tmp_path, noise=100.0, origin="simulated")
    out = tmp_path / "out.zarr"
    run_zero_shot(EvaluateSection(bootstrap=0), zero_shot, weights, paths, out)
    says = store_attrs(out)["verdict"]
    assert says["evidence"] == "no evidence"
    assert says["text"].startswith("Partly simulated data: No evidence that two categories")


def test_what_cannot_be_scored(tmp_path):
    zero_shot, weights, paths = study_stores(tmp_path, noise=0.1)
    section, out = EvaluateSection(bootstrap=0), tmp_path / "out.zarr"
    with pytest.raises(SchemaError, match="no zero-shot weights"):
        run_zero_shot(section, zero_shot, paths["good"], paths, out)
    few = open_store(paths["other"]).load()
    few.attrs["labels"] = ["x", *few.attrs["labels"][1:]]
    write_store(paths["other"], {"": few})
    with pytest.raises(DataError, match="the prompt set 'other' lacks categories"):
        run_zero_shot(section, zero_shot, weights, paths, out)
    dataset = open_store(weights).load()
    dataset["weights"][0, 0] = np.nan
    write_store(weights, {"": dataset})
    with pytest.raises(DataError, match="NaN or infinity in zero-shot weights"):
        run_zero_shot(section, zero_shot, weights, paths, out)


def test_all_maps_of_seven_categories_are_fast():
    import time

    rng = np.random.default_rng(0)
    n, pairs = 7, list(combinations(range(7), 2))
    rows = [(u, t) for u, (a, b) in enumerate(pairs) for t in (a, b) for _ in range(12)]
    unit, true = np.array(rows).T
    ab = np.array(pairs)[unit]
    other = np.where(true == ab[:, 0], ab[:, 1], ab[:, 0])
    weights = PairWeights(
        rng.random((len(rows), n)), unit, np.arange(len(rows)), true, other, np.array(pairs)
    )
    vectors = rng.standard_normal((n, 384))
    maps, _ = category_maps(n, 0)
    start = time.process_time()
    pair_outcomes(weights.side_means()[0], weights.pairs, vectors @ vectors.T, maps)
    event_outcomes(weights, vectors @ vectors.T, maps)
    assert time.process_time() - start < 5
