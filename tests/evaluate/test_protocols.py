"""Protocols of papers on small cases counted by hand, and what every number states."""

from __future__ import annotations

import json
import typing

import numpy as np
import pytest
from pydantic import ValidationError

from braindecode_pipe.errors import DataError, InputError, SplitError
from braindecode_pipe.evaluate import run
from braindecode_pipe.evaluate.protocols import PROTOCOLS, protocol_of
from braindecode_pipe.evaluate.ranking import k_way
from braindecode_pipe.evaluate.scoring import check_comparable
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.schema import ROLES
from braindecode_pipe.store import list_groups, open_store, read_file, read_table, store_attrs


def cosine(a, b):
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (
        b / np.linalg.norm(b, axis=1, keepdims=True)
    ).T


def places(scores, true):
    """Naive: candidates above the true one, for every query."""
    return np.array([sum(x > s[t] for x in s) for s, t in zip(scores, true)])


@pytest.fixture
def evaluate(small_study, tmp_path):
    """Factory: (study settings, section settings) -> records of ridge over everybody, and more."""

    def make(settings, strength=1.0, prepare=None, **section):
        study = small_study(**settings)
        # Dense vectors: ties of one-hot vectors would hide differences between protocols.
        study.vectors = study.rng.standard_normal((study.n_stimuli, 8)).astype(np.float32)
        if prepare:
            prepare(study)
        paths = study.predict("ridge", strength)
        out = tmp_path / "out.zarr"
        section = {"bootstrap": 50, "permutations": 50, "bootstrap_unit": "stimulus", **section}
        run(EvaluateSection(**section), "objects", study.plan, paths, study.embedding(), out)
        records = json.loads(read_file(out, "metrics.json"))
        own = {r["metric"]: r for r in records
               if r["decoder"] == "ridge" and r["subject"] == "all"}  # fmt: skip
        trials = [
            (open_store(p)["prediction"].values, list(open_store(p)["stimulus"].values),
             open_store(p).attrs["subject"])
            for p in paths
        ]  # fmt: skip
        return study, own, trials, out

    return make


def averaged(values, stimuli):
    """Mean prediction of every stimulus, in sorted order."""
    names = sorted(set(stimuli))
    means = [values[[s == n for s in stimuli]].mean(axis=0, dtype=float) for n in names]
    return np.array(means), names


def vectors_of(study, names):
    return study.vectors[[study.names.index(n) for n in names]].astype(float)


STIMULI = {"by": "stimulus", "n_stimuli": 24, "n_runs": 3}


def test_every_preset_is_a_name_of_the_recipe_and_states_its_source():
    names = typing.get_args(EvaluateSection.model_fields["protocol"].annotation)
    assert set(names) == {"", *PROTOCOLS}
    for name, preset in PROTOCOLS.items():
        assert preset.source and preset.score and preset.name == name
        found = protocol_of(EvaluateSection(protocol=name))
        assert set(found.top_k) == {1, 5, 10}
        assert found.n_way == preset.n_way


def test_defaults_of_the_recipe_are_those_of_a_protocol():
    assert protocol_of(EvaluateSection()) == type(PROTOCOLS["nice"])()


def test_a_preset_cannot_be_changed():
    with pytest.raises(ValidationError, match='protocol = "nice" fixes aggregate, n_way'):
        EvaluateSection(protocol="nice", aggregate="subjects", n_way=[2])
    assert EvaluateSection(protocol="nice", top_k=[3], n_way=[]).top_k == [3]


@pytest.mark.parametrize("preset", ["defossez", "benchetrit-large", "neuralbench"])
def test_single_trials_among_unique_test_stimuli(preset, evaluate):
    study, found, trials, _ = evaluate({**STIMULI, "n_subjects": 2}, protocol=preset)
    hits, wins = {1: [], 5: []}, []
    for values, stimuli, _ in trials:
        names = sorted(set(stimuli))
        place = places(cosine(values, vectors_of(study, names)), [names.index(s) for s in stimuli])
        for k in hits:
            hits[k] += list(place < k)
        wins += list(1 - place / (len(names) - 1))
    assert found["top1"]["n_queries"] == 2 * 24 * 3
    assert found["top1"]["value"] == pytest.approx(np.mean(hits[1]))
    assert found["top5"]["value"] == pytest.approx(np.mean(hits[5]))
    assert found["top5"]["chance"] == pytest.approx(5 / 8)
    assert found["pair_accuracy"]["value"] == pytest.approx(np.mean(wins))
    stated = {k: found["top5"][k] for k in ("protocol", "candidates", "aggregate", "direction")}
    assert stated == {
        "protocol": preset, "candidates": "test", "aggregate": "none", "direction": "query"
    }  # fmt: skip
    assert found["top5"]["n_candidates"] == 8
    assert found["top5"]["n_averaged"] == 1
    assert found["top5"]["draws"] is None


@pytest.mark.parametrize("preset", ["benchetrit-small", "brainflora"])
def test_f43_repetitions_are_averaged_and_it_is_said(preset, evaluate):
    study, found, trials, out = evaluate(STIMULI, protocol=preset)
    hits, single = [], []
    for values, stimuli, _ in trials:
        means, names = averaged(values, stimuli)
        hits += list(places(cosine(means, vectors_of(study, names)), range(8)) < 1)
        own = [names.index(s) for s in stimuli]
        single += list(places(cosine(values, vectors_of(study, names)), own) < 1)
    assert found["top1"]["n_queries"] == 24
    assert found["top1"]["value"] == pytest.approx(np.mean(hits))
    assert (found["top1"]["n_averaged"], found["top1"]["n_averaged_min"]) == (3, 3)
    assert found["top1"]["aggregate"] == "repetitions"
    assert found["top1"]["null"].startswith("evaluation-only permutation of stimuli within fold")
    curve = read_table(out, "averaging")
    own = curve[(curve["decoder"] == "ridge") & (curve["metric"] == "top1")]
    assert list(own["n_averaged"]) == [1, 2, 3]
    assert list(own["aggregate"]) == ["none", "repetitions", "repetitions"]
    assert own["value"].iloc[0] == pytest.approx(np.mean(single))
    assert own["value"].iloc[2] == pytest.approx(np.mean(hits))
    assert list(own["n_queries"]) == [72, 24, 24]
    assert set(read_table(out, "items")["n_averaged"]) == {3}


def test_averaging_more_repetitions_finds_more(evaluate):
    _, _, _, out = evaluate(
        {**STIMULI, "n_runs": 8}, strength=0.3, aggregate="repetitions", permutations=0
    )
    curve = read_table(out, "averaging")
    own = curve[(curve["decoder"] == "ridge") & (curve["metric"] == "pair_accuracy")]
    assert list(own["n_averaged"]) == [1, 2, 4, 8]
    assert own["value"].is_monotonic_increasing
    assert own["value"].iloc[3] > own["value"].iloc[0] + 0.1


@pytest.mark.parametrize("preset", ["atm", "brainflora"])
def test_k_way_with_sampled_distractors(preset, evaluate):
    study, found, trials, _ = evaluate(STIMULI, protocol=preset)
    place = []
    for values, stimuli, _ in trials:
        means, names = averaged(values, stimuli)
        place += list(places(cosine(means, vectors_of(study, names)), range(8)))
    for k in (2, 4):
        record = found[f"top1_of_{k}"]
        assert record["value"] == pytest.approx(np.mean(k_way(8, k, 1)[place]))
        assert record["chance"] == pytest.approx(1 / k)
        assert record["n_candidates"] == record["n_candidates_min"] == k
        assert record["candidates"] == "sampled from test"
        assert record["draws"] == 30
        assert record["draws_low"] <= record["draws_mean"] <= record["draws_high"]
        assert record["draws_mean"] == pytest.approx(record["value"], abs=0.08)
        assert record["p_value"] is not None and record["ci_low"] <= record["value"]
    assert found["top1_of_2"]["value"] == pytest.approx(found["pair_accuracy"]["value"])
    assert "top1_of_10" not in found, "a fold has eight candidates"


def pictures(study):
    """Three pictures of each of eight things; every fold tests one picture of each."""
    study.plan.stimuli["category"] = [f"thing {i % 8}" for i in range(24)]
    stimuli = study.plan.events["stimulus_object"].to_numpy()
    for fold in range(3):
        test = np.isin(stimuli, study.names[8 * fold : 8 * fold + 8])
        study.plan.role[fold] = np.where(test, ROLES["test"], ROLES["train"])


def test_nice_candidates_are_centres_of_other_pictures(evaluate):
    study, found, trials, out = evaluate(STIMULI, protocol="nice", prepare=pictures)
    hits = []
    for values, stimuli, _ in trials:
        means, names = averaged(values, stimuli)
        thing = [study.names.index(n) % 8 for n in names]
        others = [n for n in study.names if n not in names]
        centres = np.stack([
            vectors_of(study, [n for n in others if study.names.index(n) % 8 == t]).mean(axis=0)
            for t in range(8)
        ])  # fmt: skip
        hits += list(places(cosine(means, centres), thing) < 1)
    assert found["top1"]["value"] == pytest.approx(np.mean(hits))
    assert found["top1"]["n_candidates"] == 8
    assert found["top1"]["candidates"] == "prototypes"
    # Centres are of classes that training has shown: the pictures are new, the things are not.
    assert found["identification_accuracy"]["value"] == found["top1"]["value"]


def test_a_class_whose_pictures_are_all_tested_has_no_centre(evaluate):
    with pytest.raises(DataError, match=r"without a prototype(.|\n)*8 of 8 without, e.g. label"):
        evaluate(STIMULI, protocol="nice")


def test_mindeye2_draws_shared_pools_in_both_directions(evaluate, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(PROTOCOLS, "mindeye2", replace(PROTOCOLS["mindeye2"], n_way=(5,)))
    study, found, trials, _ = evaluate(
        {**STIMULI, "n_subjects": 2}, protocol="mindeye2", strength=2.0
    )
    forward, backward, draws = [], [], {"query": [], "candidate": []}
    for fold, (values, stimuli, _) in enumerate(trials):
        means, names = averaged(values, stimuli)
        scores = cosine(means, vectors_of(study, names))
        forward += list(places(scores, range(8)))
        backward += list(places(scores.T, range(8)))
        rng = np.random.default_rng([0, 4, fold])
        pools = [rng.permutation(8)[:5] for _ in range(30)]
        draws["query"].append([(places(scores[p][:, p], range(5)) < 1).mean() for p in pools])
        draws["candidate"].append([(places(scores.T[p][:, p], range(5)) < 1).mean() for p in pools])
    for name, place, direction in (
        ("top1_of_5", forward, "query"),
        ("backward_top1_of_5", backward, "candidate"),
    ):
        record = found[name]
        assert record["direction"] == direction
        assert record["value"] == pytest.approx(np.mean(k_way(8, 5, 1)[place]))
        expected = np.mean(draws[direction], axis=0)
        assert record["draws_mean"] == pytest.approx(expected.mean())
        low, high = np.quantile(expected, [0.025, 0.975])
        assert (record["draws_low"], record["draws_high"]) == pytest.approx((low, high))
        assert record["n_candidates"] == 5
    assert found["backward_top1"]["value"] == pytest.approx(np.mean(np.array(backward) < 1))
    assert found["backward_top1"]["n_queries"] == 48
    assert found["backward_top1"]["p_value"] <= 2 / 51


def test_mindeye2_needs_its_300_candidates(evaluate):
    with pytest.raises(DataError, match=r"for mindeye2(.|\n)*at least 300(.|\n)*found: 8"):
        evaluate(STIMULI, protocol="mindeye2")


def test_f40_both_directions_of_a_collapsed_decoder_are_at_chance(evaluate):
    _, found, _, _ = evaluate(STIMULI, strength=0.0, aggregate="repetitions", direction="both",
                              n_way=[4], pool="shared", prepare=collapse)  # fmt: skip
    for name, record in found.items():
        if name not in ("median_rank", "backward_median_rank"):
            assert record["value"] == pytest.approx(record["chance"], abs=1e-9), name
        if record["draws"]:
            assert record["draws_low"] == pytest.approx(record["draws_high"])
    assert found["backward_top1_of_4"]["draws_mean"] == pytest.approx(0.25)


def collapse(study):
    """All predictions alike."""
    study.rng = type("Constant", (), {"standard_normal": staticmethod(lambda s: np.ones(s))})()


def test_single_trials_have_no_backward_direction(evaluate):
    with pytest.raises(DataError, match=r"some have several(.|\n)*24 queries of 8 candidates"):
        evaluate(STIMULI, direction="both")


def test_most_frequent_stimuli(evaluate):
    def rare(study):
        events = study.plan.events
        for stimulus, other in (("s000", "s001"), ("s002", "s003")):
            where = np.flatnonzero((events["stimulus_object"] == stimulus).to_numpy())[:2]
            events.loc[where, "stimulus_object"] = other

    settings = {"n_runs": 3, "n_stimuli": 6, "repeats": 2}
    study, found, trials, out = evaluate(
        settings, prepare=rare, candidates="frequent", n_frequent=4
    )
    items = read_table(out, "items")
    n = 0
    for (_, stimuli, _), fold in zip(trials, study.plan.folds["fold"]):
        counts = {s: stimuli.count(s) for s in study.names}
        order = sorted(study.names, key=lambda s: -counts[s])
        kept = set(order[:4])
        own = items[items["fold"] == fold]
        assert set(own["stimulus"]) == kept
        assert set(own["n_candidates"]) == {4}
        n += sum(counts[s] for s in kept)
    assert found["top1"]["n_queries"] == n < 36
    assert found["top1"]["candidates"] == "frequent"


def test_people_are_averaged_where_a_fold_tests_several(small_study, tmp_path):
    from dataclasses import replace

    study = small_study(**STIMULI, n_subjects=3)
    study.vectors = study.rng.standard_normal((24, 8)).astype(np.float32)
    stimuli = study.plan.events["stimulus_object"].to_numpy()
    test = [np.isin(stimuli, study.names[8 * f : 8 * f + 8]) for f in range(3)]
    study.plan = replace(
        study.plan,
        folds=study.plan.folds.iloc[:3].assign(subject=""),
        role=np.where(test, ROLES["test"], ROLES["train"]).astype(np.int8),
    )
    paths = study.predict("ridge", 1.0)
    out = tmp_path / "out.zarr"
    section = EvaluateSection(
        aggregate="subjects", bootstrap=50, permutations=50, bootstrap_unit="stimulus"
    )
    run(section, "objects", study.plan, paths, study.embedding(), out)
    records = {r["metric"]: r for r in json.loads(read_file(out, "metrics.json"))
               if r["decoder"] == "ridge"}  # fmt: skip
    hits = []
    for path in paths:
        store = open_store(path)
        people = study.plan.events.set_index("event").loc[store["event"].values, "subject"]
        means = []
        for person in sorted(set(people)):
            own = (people == person).to_numpy()
            mean, names = averaged(
                store["prediction"].values[own], list(store["stimulus"].values[own])
            )
            means.append(mean)
        hits += list(places(cosine(np.mean(means, axis=0), vectors_of(study, names)), range(8)) < 1)
    assert records["top1"]["value"] == pytest.approx(np.mean(hits))
    assert records["top1"]["n_queries"] == 24
    assert records["top1"]["n_averaged"] == 9
    assert records["top1"]["subject"] == "all"
    assert store_attrs(out)["verdict"]["n_subjects"] == 3


def test_units_and_people_that_were_averaged_away(evaluate):
    with pytest.raises(InputError, match='"run" does not exist after averaging'):
        evaluate(STIMULI, aggregate="repetitions", bootstrap_unit="run")
    with pytest.raises(SplitError, match=r"nobody to average over(.|\n)*one person, 01"):
        evaluate({**STIMULI, "n_subjects": 2}, aggregate="subjects")


def test_f38_instances_and_concepts_are_both_printed_and_labelled(evaluate):
    """A picture among pictures, and its category: never one number without the other's name."""
    _, found, _, out = evaluate({**STIMULI, "categories": True})
    assert {"top1", "category_accuracy", "category_map"} <= set(found)
    assert found["category_accuracy"]["chance"] > found["top1"]["chance"]
    assert found["category_map"]["chance"] > 0.3
    assert "averaging" not in list_groups(out)
    assert store_attrs(out)["protocol"]["candidates"] == "test"


def test_f39_numbers_of_other_protocols_are_not_compared():
    record = {"metric": "top1", "n_candidates": 8, "n_candidates_min": 8, "candidates": "test",
              "aggregate": "none", "direction": "query"}  # fmt: skip
    check_comparable([record, record])
    for key, value, what in (
        ("candidates", "prototypes", "candidates"),
        ("aggregate", "repetitions", "averaging"),
        ("direction", "candidate", "directions"),
    ):
        with pytest.raises(InputError, match=f"different {what} cannot"):
            check_comparable([record, {**record, key: value}])


def test_f37_shifts_keep_the_order_of_stimuli(evaluate):
    from braindecode_pipe.evaluate.statistics import exchange

    label = np.array([0, 0, 1, 1, 2, 2, 0, 1])
    group = np.array([0] * 6 + [1] * 2)
    rng = np.random.default_rng(0)
    drawn = np.concatenate(list(exchange(label, group, 400, rng, False, True)))
    rolled = {tuple(np.roll(label[:6], i)) for i in range(6)}
    assert {tuple(row[:6]) for row in drawn} == rolled
    _, found, _, _ = evaluate({"n_runs": 4, "n_stimuli": 6}, strength=3.0, exchange="shift",
                              permutations=200)  # fmt: skip
    assert found["top1"]["null"] == "evaluation-only circular shift of stimuli within run, N=200"
    assert found["top1"]["p_value"] < 0.05


def test_f37_blocks_of_equal_stimuli_need_shifts():
    """Slow drifts and blocked stimuli: shuffled labels call it decoding, shifted ones do not."""
    from braindecode_pipe.evaluate.statistics import exchange, permutation_p

    rng = np.random.default_rng(0)
    p = {False: [], True: []}
    n, rows = 60, np.arange(60)
    for _ in range(150):
        label = np.roll(np.repeat(np.arange(3), 20), rng.integers(60))
        drift = np.stack([
            np.convolve(rng.standard_normal(2 * n), np.ones(15), "same")[:n] for _ in range(3)
        ], axis=1)  # fmt: skip
        right = (drift.argmax(axis=1)[:, None] == np.arange(3)).astype(float)
        for shift in p:
            null = np.concatenate([
                right[rows, d].mean(axis=1)
                for d in exchange(label, rows * 0, 99, rng, False, shift)
            ])  # fmt: skip
            p[shift].append(permutation_p(right[rows, label].mean(), null))
    assert (np.array(p[False]) <= 0.05).mean() > 0.15
    assert (np.array(p[True]) <= 0.05).mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 150)
