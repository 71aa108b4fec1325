"""Seeds are rows and a summary, pieces are a curve, and neither is ever selected."""

from __future__ import annotations

import json

import numpy as np
import pytest

from braindecode_pipe.errors import DataError
from braindecode_pipe.evaluate import run
from braindecode_pipe.evaluate.statistics import permutation_p
from braindecode_pipe.store import open_store, read_file, read_table, store_attrs, write_store

PIECES = [(0.0, 0.2), (0.1, 0.3), (0.2, 0.4)]


def labelled(paths, base, role, seed=None, window=(0.0, 0.4)):
    for path in paths:
        dataset = open_store(path).load()
        extra = {"base_decoder": base, "role": role, "seed": seed, "window": list(window)}
        dataset.attrs |= extra
        write_store(path, {"": dataset})
    return paths


@pytest.fixture
def predictions(small_study):
    """A linear decoder, a network with three seeds, and three pieces of the window."""

    def make(pieces_strength=(0.0, 3.0, 0.3), inner=None):
        study = small_study()
        paths = labelled(study.predict("ridge", 0.6, inner), "ridge", "decoder")
        paths += labelled(study.predict("conv", 1.0, inner and 0.9), "conv", "decoder", 0)
        for number, strength in ((1, 0.8), (2, 1.3)):
            paths += labelled(study.predict(f"conv.s{number}", strength), "conv", "seed", number)
        for piece, strength in zip(PIECES, pieces_strength):
            label = f"conv.t{piece[0]:g}to{piece[1]:g}"
            paths += labelled(study.predict(label, strength), "conv", "piece", 0, piece)
        return study, paths

    return make


def scored(study, paths, section, out):
    run(section, "objects", study.plan, paths, study.embedding(), out)
    return json.loads(read_file(out, "metrics.json"))


def one(records, decoder, metric="identification_accuracy"):
    (found,) = [r for r in records if (r["decoder"], r["metric"], r["subject"]) == (
        decoder, metric, "all")]  # fmt: skip
    return found


def test_seeds_are_rows_and_a_summary(predictions, quick, tmp_path):
    study, paths = predictions()
    records = scored(study, paths, quick(), tmp_path / "out.zarr")
    for metric in ("identification_accuracy", "median_rank"):
        values = [one(records, d, metric)["value"] for d in ("conv", "conv.s1", "conv.s2")]
        found = one(records, "conv.seeds", metric)
        assert found["value"] == pytest.approx(np.mean(values))
        assert found["sd"] == pytest.approx(np.std(values, ddof=1)) and found["sd"] > 0
        assert (found["value_min"], found["value_max"]) == (min(values), max(values))
        assert found["n_seeds"] == 3 and found["base_decoder"] == "conv"
        assert found["p_value"] is None and found["ci_low"] is None
        assert found["chance"] == one(records, "conv", metric)["chance"]
    assert one(records, "conv.s2")["seed"] == 2 and one(records, "conv.s2")["p_value"] < 0.05
    assert not [r for r in records if r["decoder"] == "ridge.seeds"]
    assert {"conv", "conv.s1", "conv.s2"} < set(
        read_table(tmp_path / "out.zarr", "items")["decoder"]
    )


def test_pieces_are_a_curve_whose_p_holds_for_all_of_it(predictions, quick, tmp_path):
    study, paths = predictions()
    out = tmp_path / "out.zarr"
    records = scored(study, paths, quick(permutations=400), out)
    labels = ["conv.t0to0.2", "conv.t0.1to0.3", "conv.t0.2to0.4"]
    curve = [one(records, label) for label in labels]
    assert [(r["window_begin"], r["window_end"], r["window_centre"]) for r in curve] == [
        (0.0, 0.2, 0.1), (0.1, 0.3, 0.2), (0.2, 0.4, 0.3)
    ]  # fmt: skip
    assert curve[1]["value"] == max(r["value"] for r in curve)
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] and r["chance"] == 1 / 6 for r in curve)
    assert all(r["p_value_curve"] >= r["p_value"] for r in curve)
    assert curve[1]["p_value_curve"] < 0.05 < curve[0]["p_value_curve"]
    # A curve of one point has the p of that point.
    alone = scored(study, paths[:-8], quick(permutations=400), tmp_path / "alone.zarr")
    point = one(alone, labels[0])
    assert point["p_value_curve"] == point["p_value"] == curve[0]["p_value"]
    # The queries of pieces are kept nowhere, their scores in the ledger.
    assert not set(labels) & set(read_table(out, "items")["decoder"])
    assert not set(labels) & {str(d) for d in open_store(out, "null")["decoder"].values}
    assert {entry["decoder"] for entry in store_attrs(out)["scored"]} >= set(labels)


def test_the_null_of_the_curve_is_the_best_of_each_permutation(predictions, quick, tmp_path):
    """Against the nulls of the same predictions, each scored as a decoder of its own."""
    study, paths = predictions()
    section = quick(permutations=300)
    records = scored(study, paths, section, tmp_path / "out.zarr")
    own = [p for p in paths if ".t" in p.name]
    labelled(own, "conv", "decoder", 0)
    run(section, "objects", study.plan, own, study.embedding(), tmp_path / "own.zarr")
    null = open_store(tmp_path / "own.zarr", "null")
    for metric, best in (("identification_accuracy", np.max), ("median_rank", np.min)):
        rows = null["null"].sel(metric=metric).values[:3].astype(float)
        for label in ("conv.t0to0.2", "conv.t0.1to0.3"):
            found = one(records, label, metric)
            larger = metric != "median_rank"
            expected = permutation_p(found["value"], best(rows, axis=0), larger)
            assert found["p_value_curve"] == pytest.approx(expected, abs=0.02)


def test_pieces_and_further_seeds_are_never_selected(predictions, quick, tmp_path):
    study, paths = predictions(inner=0.1)
    out = tmp_path / "out.zarr"
    records = scored(study, paths, quick(), out)
    assert set(store_attrs(out)["selected"].values()) == {"conv"}
    assert store_attrs(out)["verdict"]["decoder"] == "selected"
    assert one(records, "selected")["value"] == one(records, "conv")["value"]


def test_the_verdict_is_that_of_the_first_decoder_whatever_else_there_is(
    predictions, quick, tmp_path
):
    study, paths = predictions()
    run(quick(), "objects", study.plan, paths[:8], study.embedding(), tmp_path / "few.zarr")
    run(quick(), "objects", study.plan, paths[::-1], study.embedding(), tmp_path / "all.zarr")
    few, everything = (store_attrs(tmp_path / f"{n}.zarr")["verdict"] for n in ("few", "all"))
    assert few["decoder"] == "ridge" and everything["decoder"] == "conv"


def test_pieces_alone_are_no_result(predictions, quick, tmp_path):
    study, paths = predictions()
    with pytest.raises(DataError, match="a decoder that reads the whole window"):
        scored(study, [p for p in paths if ".t" in p.name], quick(), tmp_path / "out.zarr")
