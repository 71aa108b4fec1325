"""The probe for run, session and time of run; the controls beside a decoder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from braindecode_pipe import evaluate
from braindecode_pipe.evaluate.probe import _weights, identities, probe
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.store import open_store, read_file, read_table, store_attrs, write_store


def test_weights_are_those_of_ridge_in_the_space_of_features():
    rng = np.random.default_rng(0)
    train, test = rng.normal(2, 3, (12, 4)), rng.normal(2, 3, (5, 4))
    y = rng.normal(size=12)
    centre, spread = train.mean(0), train.std(0)
    a, b = (train - centre) / spread, (test - centre) / spread
    penalty = np.trace(a @ a.T) / 12
    expected = b @ np.linalg.solve(a.T @ a + penalty * np.eye(4), a.T @ y)
    assert _weights(train, test) @ y == pytest.approx(expected)


def test_probe_agrees_with_a_naive_loop():
    rng = np.random.default_rng(1)
    label, group = rng.integers(0, 3, 40), np.arange(40) // 4
    values = rng.normal(size=(40, 6)) + label[:, None] * np.linspace(0, 0.5, 6)
    found = probe(values, label, group, 20, np.random.default_rng(5))
    # The same parts: they are the first thing that is drawn after the shuffled labels.
    again = np.random.default_rng(5)
    shuffled = [again.permutation(label) for _ in range(20)]
    part = again.permutation(np.arange(10) % 5)[group]
    for labels, hits in ((label, found.hit), (shuffled[7], found.null_hit[7])):
        for test in range(40):
            rows = np.flatnonzero(part != part[test])
            weights = _weights(values[rows], values[test : test + 1])[0]
            score = [sum(weights * ((labels[rows] == k) / np.mean(labels[rows] == k) - 1))
                     for k in range(3)]  # fmt: skip
            assert hits[test] == (np.argmax(score) == labels[test])
    assert found.hit.mean() > 0.45


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e6])
def test_probe_does_not_depend_on_the_unit(scale):
    rng = np.random.default_rng(2)
    values, label = rng.normal(size=(30, 3)), np.arange(30) % 2
    hits = [probe(s * values, label, np.arange(30), 0, np.random.default_rng(0)).hit
            for s in (1.0, scale)]  # fmt: skip
    np.testing.assert_array_equal(*hits)


def test_constant_predictions_tell_nothing():
    found = probe(np.ones((30, 3)), np.arange(30) % 3, np.arange(30))
    assert found.hit == pytest.approx(np.full(30, 1 / 3))


def test_p_of_the_probe_is_uniform_where_predictions_tell_nothing():
    rng = np.random.default_rng(3)
    p = []
    for _ in range(200):
        found = probe(rng.normal(size=(24, 3)), np.arange(24) % 2, np.arange(24), 39, rng)
        p.append((1 + (found.null_hit.mean(1) >= found.hit.mean()).sum()) / 40)
    p = np.array(p)
    for level in (0.05, 0.25, 0.5):
        assert np.mean(p <= level) <= level + 4 * np.sqrt(level * (1 - level) / len(p))
    assert np.mean(p <= 0.5) > 0.3


def test_thirds_of_a_run(small_study):
    plan = small_study(n_stimuli=6, n_runs=1, repeats=3, n_subjects=1, by="stimulus").plan
    table = identities(plan)
    assert list(table["third_of_run"]) == ["1"] * 6 + ["2"] * 6 + ["3"] * 6


def records(out):
    return json.loads(read_file(out, "metrics.json"))


def rewritten(path, change, noise=None):
    dataset = open_store(path).load()
    dataset["prediction"].values[:] = change(dataset)
    groups = {"": dataset}
    if noise is not None:
        other = dataset.copy(deep=True)
        other["prediction"].values[:] = noise(dataset)
        groups["noise"] = other
    write_store(path, groups)


@pytest.mark.parametrize("drifts", [False, True])
def test_f44_predictions_that_know_the_block(small_study, tmp_path, drifts):
    """A decoder of nothing but slow drifts: its predictions tell the run and the time in it."""
    study = small_study(n_stimuli=8, n_runs=3, repeats=4, n_subjects=1, by="stimulus")
    events = study.plan.events.set_index("event")
    rng = np.random.default_rng(4)

    def drift(dataset):
        own = events.loc[[str(e) for e in dataset["event"].values]]
        values = rng.normal(size=dataset["prediction"].shape)
        if drifts:
            values[:, 0] += 6.0 * own["run"].to_numpy(float)
            values[:, 1] += own["onset"].to_numpy(float) / 5
        return values

    paths = study.predict("ridge", 0.0)
    for path in paths:
        rewritten(path, drift)
    section = EvaluateSection(bootstrap=100, permutations=99)
    out = tmp_path / "evaluation.zarr"
    evaluate.run(section, "objects", study.plan, paths, study.embedding(), out)
    probes = {r["metric"]: r for r in records(out) if r["control"] == "probe"}
    assert set(probes) == {"probe_run", "probe_third_of_run"}  # one session: nothing to tell
    assert all(r["decoder"] == "probe of ridge" and r["chance"] == pytest.approx(1 / 3)
               for r in probes.values())  # fmt: skip
    for record in probes.values():
        low, high = record["ci_low"], record["ci_high"]
        assert low <= record["value"] <= high
        if drifts:
            assert record["value"] > 0.6 and record["p_value"] == 0.01 and low > 1 / 3
        else:
            assert record["value"] < 0.55 and record["p_value"] > 0.01


def test_a_decoder_on_noise_stands_beside_it(small_study, tmp_path):
    study = small_study(n_stimuli=8, n_runs=2, repeats=4, n_subjects=1, by="stimulus")
    rng = np.random.default_rng(5)
    paths = study.predict("ridge", 2.0)
    for path in paths:
        rewritten(path, lambda d: d["prediction"].values.copy(),
                  noise=lambda d: rng.normal(size=d["prediction"].shape))  # fmt: skip
    outs = {}
    for controls in (["noise"], []):
        section = EvaluateSection(bootstrap=100, permutations=99, controls=controls)
        outs[bool(controls)] = tmp_path / f"{len(controls)}.zarr"
        evaluate.run(section, "objects", study.plan, paths, study.embedding(), outs[bool(controls)])
    found = {(r["decoder"], r["metric"]): r for r in records(outs[True])}
    own, noise = found["ridge", "pair_accuracy"], found["ridge on noise", "pair_accuracy"]
    assert (own["control"], noise["control"]) == ("", "noise")
    assert own["value"] > 0.9 and noise["ci_low"] < 0.5 < noise["ci_high"]
    assert noise["n_queries"] == own["n_queries"]
    assert found["prior", "pair_accuracy"]["control"] == "prior"
    # A control is no decoder: it is in no table of queries, no ledger and no verdict.
    assert set(read_table(outs[True], "items")["decoder"]) == {"ridge"}
    assert [s["decoder"] for s in store_attrs(outs[True])["scored"]] == ["ridge"]
    assert store_attrs(outs[True])["verdict"] == store_attrs(outs[False])["verdict"]
    assert {r["control"] for r in records(outs[False])} == {"", "prior"}


def test_f42_a_decoder_that_noise_serves_as_well_is_no_evidence(small_study, tmp_path):
    """Predictions that do not depend on the input: the scores are those of the decoder on noise."""
    study = small_study(n_stimuli=8, n_runs=2, repeats=4, n_subjects=1, by="stimulus")
    paths = study.predict("ridge", 2.0)
    for path in paths:
        same = lambda d: d["prediction"].values.copy()  # noqa: E731
        rewritten(path, same, noise=same)
    verdicts = []
    for number, controls in enumerate((["noise"], [])):
        section = EvaluateSection(bootstrap=100, permutations=99, controls=controls)
        out = tmp_path / f"{number}.zarr"
        evaluate.run(section, "objects", study.plan, paths, study.embedding(), out)
        verdicts.append(store_attrs(out)["verdict"])
    assert [v["evidence"] for v in verdicts] == ["no evidence", "evidence"]
    assert "the same decoder given noise" in verdicts[0]["text"]
