"""Decoders beside each other and along time; how far predictions could agree with targets."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe import evaluate
from braindecode_pipe.evaluate.contrasts import compare_decoders, time_clusters, windows_of
from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.evaluate.reliability import prediction_ceiling
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.store import list_groups, read_file, read_table


def items_of(ranks: dict[str, np.ndarray], n_candidates=11) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame({"event": [f"e{i}" for i in range(len(r))], "decoder": name, "rank": r,
                          "stimulus": [f"s{i % 8}" for i in range(len(r))], "subject": "01",
                          "recording": "r", "n_candidates": n_candidates})
            for name, r in ranks.items()
        ],
        ignore_index=True,
    )  # fmt: skip


def test_every_pair_is_compared_and_corrected():
    rng = np.random.default_rng(0)
    base = rng.integers(3, 10, 40).astype(float)
    items = items_of({"a": base, "b": base + 1, "c": base + rng.choice([-1.0, 1.0], 40)})
    table = compare_decoders(items, ["a", "b", "c"], EvaluateSection(permutations=500))
    assert list(zip(table["a"], table["b"])) == [("a", "b"), ("a", "c"), ("b", "c")]
    # One rank among eleven candidates is a tenth of the pairs.
    assert table["difference"][0] == pytest.approx(0.1)
    assert table["p_value"][0] == pytest.approx(1 / 501)
    assert table["p_value"][1] > 0.05
    p = np.sort(table["p_value"])
    assert sorted(table["q_value"]) == pytest.approx(
        np.minimum.accumulate((p * 3 / np.arange(1, 4))[::-1])[::-1]
    )


def test_other_queries_are_not_compared():
    items = items_of({"a": np.ones(9), "b": np.ones(9)})
    items = items.drop(index=items.index[-1])
    assert compare_decoders(items, ["a", "b"], EvaluateSection()).empty


def piece(base, begin, end, role="piece"):
    label = f"{base}.t{begin:g}to{end:g}" if role == "piece" else base
    nothing = np.empty(0)
    return FoldPrediction(
        label, 0, nothing, nothing, nothing, None, None, "simulated", "e", "object", base, role,
        None, (begin, end),
    )  # fmt: skip


def test_windows_are_the_pieces_of_a_decoder():
    found = [piece("conv", 0.0, 1.0, "decoder"), piece("conv", 0.25, 0.5), piece("conv", -0.1, 0.0),
             piece("conv", 0.25, 0.5), piece("ridge", 0.0, 0.1)]  # fmt: skip
    assert windows_of(found) == {
        "conv": [(-0.1, 0.0, "conv.t-0.1to0"), (0.25, 0.5, "conv.t0.25to0.5")]
    }


def test_times_above_chance_form_a_cluster():
    rng = np.random.default_rng(1)
    found = [piece("conv", t / 10, (t + 1) / 10) for t in range(8)]
    ranks = {
        part.decoder: np.clip(rng.integers(1, 12, 64) - (5 if t in (3, 4, 5) else 0), 1, 11)
        for t, part in enumerate(found)
    }
    table = time_clusters(found, items_of(ranks), EvaluateSection(permutations=500))
    best = table.sort_values("p_value").iloc[0]
    assert (best["start"], best["stop"]) == pytest.approx((0.3, 0.6))
    assert best["p_value"] < 0.05 and (best["unit"], best["n_units"]) == ("stimulus", 8)


def test_ceiling_of_predictions(small_study):
    """Signal of variance 1, noise of variance v, n repetitions: R = n / (n + v)."""
    study = small_study(n_stimuli=200, n_runs=1, repeats=4, n_subjects=1, by="stimulus", n_folds=2)
    rng = np.random.default_rng(2)
    plan = study.plan
    own = plan.events.iloc[plan.rows(0, "test")]
    truth = {s: rng.normal(size=20) for s in study.names}
    values = np.stack([truth[s] for s in own["stimulus_object"]])
    values = values + np.sqrt(2.0) * rng.normal(size=values.shape)
    part = FoldPrediction("ridge", 0, own["event"].to_numpy(), own["stimulus_object"].to_numpy(),
                          values, None, None, "simulated", "e", "object")  # fmt: skip
    (row,) = prediction_ceiling("ridge", [part], [truth], plan).to_dict("records")
    assert (row["n_repetitions"], row["n_stimuli"]) == (4, 100)
    assert row["ceiling"] == pytest.approx(np.sqrt(4 / 6), abs=0.03)
    # Here predictions hold all of the target and nothing else: they reach their ceiling.
    assert row["correlation"] == pytest.approx(row["ceiling"], abs=0.03)
    once = own.drop_duplicates("stimulus_object")
    asked = (once[name].to_numpy() for name in ("event", "stimulus_object"))
    single = FoldPrediction(
        "ridge", 0, *asked, values[: len(once)], None, None, "simulated", "e", "object"
    )
    assert prediction_ceiling("ridge", [single], [truth], plan).empty


def test_the_stage_writes_them(small_study, tmp_path):
    study = small_study(n_stimuli=8, n_runs=2, repeats=4, n_subjects=1, by="stimulus")
    paths = study.predict("good", 3.0) + study.predict("poor", 0.0)
    out = tmp_path / "evaluation.zarr"
    section = EvaluateSection(bootstrap=100, permutations=99, controls=[])
    evaluate.run(section, "objects", study.plan, paths, study.embedding(), out)
    assert {"comparisons", "ceiling"} <= set(list_groups(out))
    (row,) = read_table(out, "comparisons").to_dict("records")
    assert (row["a"], row["b"]) == ("good", "poor")
    assert row["ci_low"] > 0 and row["p_value"] == row["q_value"] == 0.01
    (record,) = [r for r in json.loads(read_file(out, "metrics.json"))
                 if r["metric"] == "paired_difference"]  # fmt: skip
    assert record["decoder"] == "good - poor" and record["value"] == pytest.approx(
        row["difference"]
    )
    table = read_table(out, "ceiling")
    good = table[table["decoder"] == "good"]
    assert len(table) == 4 and (good["n_repetitions"] == 8).all()
    assert good["ceiling"].min() > 0.8
