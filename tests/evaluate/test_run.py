"""The stage: prediction stores in, evaluation store out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from braindecode_pipe.errors import DataError, LeakageError, SchemaError, SplitError
from braindecode_pipe.evaluate import hash_test_items, retrieve, run
from braindecode_pipe.schema import prediction_dataset, table_to_dataset
from braindecode_pipe.store import (
    list_groups,
    open_store,
    read_file,
    read_table,
    store_attrs,
    store_hash,
    write_store,
)

FIELDS = {
    "metric", "value", "ci_low", "ci_high", "ci_level", "chance", "p_value", "n_queries",
    "n_candidates", "n_candidates_min", "n_folds", "decoder", "embedding", "target", "split",
    "subject", "data_origin", "null", "bootstrap_unit", "protocol", "candidates", "aggregate",
    "n_averaged", "n_averaged_min", "direction", "draws", "draws_mean", "draws_low", "draws_high",
    "leaks", "control",
}  # fmt: skip


def records(out):
    return json.loads(read_file(out, "metrics.json"))


def one(out, decoder, metric, subject="all"):
    (found,) = [
        r for r in records(out)
        if (r["decoder"], r["metric"], r["subject"]) == (decoder, metric, subject)
    ]  # fmt: skip
    return found


def rewrite(path, change=lambda dataset: dataset, **groups):
    """The same prediction store with its root changed and groups added."""
    root = change(open_store(path).load())
    write_store(path, {"": root, **groups})


def test_everything_that_is_promised_is_there(small_study, quick, tmp_path):
    study = small_study(n_subjects=2)
    paths = study.predict("ridge", 3.0, 0.6) + study.predict("mlp", 1.0, 0.4)
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, paths, study.embedding(), out, split="run")
    for record in records(out):
        further = {"q_value"} if record["metric"] == "paired_difference" else set()
        assert set(record) == FIELDS | further
    first = one(out, "ridge", "identification_accuracy")
    assert first["split"] == "run"
    assert first["null"] == "evaluation-only permutation of stimuli within run, N=200"
    assert first["n_queries"] == 48
    assert first["n_candidates"] == 6
    assert first["n_folds"] == 8
    assert first["chance"] == pytest.approx(1 / 6)
    assert first["p_value"] == pytest.approx(1 / 201)
    assert {r["subject"] for r in records(out)} == {"all", "01", "02"}
    told = {"ridge", "mlp", "selected", "prior", "ridge - mlp"}
    assert {r["decoder"] for r in records(out)} == told
    assert list_groups(out) == ["", "comparisons", "confusion", "items", "null"]
    null = open_store(out, "null")["null"]
    assert null.dims == ("decoder", "metric", "permutation")
    top1 = null.sel(metric="top1").values
    assert top1.shape == (4, 200)
    np.testing.assert_allclose(top1[3], 1 / 6, rtol=1e-6)
    attrs = store_attrs(out)
    assert attrs["kind"] == "table"
    assert attrs["verdict"]["decoder"] == "selected"
    assert attrs["verdict"]["evidence"] == "evidence"
    assert attrs["verdict"]["n_subjects"] == 2
    assert [s["decoder"] for s in attrs["scored"]] == ["ridge", "mlp", "selected"]
    assert set(attrs["scored"][0]) == {
        "decoder", "metric", "value", "n", "n_candidates", "candidates", "aggregate"
    }  # fmt: skip


def test_items_equal_retrieval_of_every_fold(small_study, quick, tmp_path):
    study = small_study()
    paths = study.predict("ridge", 1.0)
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, paths, study.embedding(), out)
    items = read_table(out, "items")
    assert list(items["decoder"].unique()) == ["ridge"]
    for path in paths:
        part = open_store(path)
        own = items[items["fold"] == part.attrs["fold"]]
        assert list(own["event"]) == list(part["event"].values)
        found = retrieve(
            part["prediction"].values, study.vectors, part["stimulus"].values, study.names
        )
        np.testing.assert_array_equal(own["rank"], found.rank)
        np.testing.assert_allclose(own["score_true"], found.score)
        for k in range(5):
            assert list(own[f"top{k + 1}"]) == list(found.top_ids[:, k])
            np.testing.assert_allclose(own[f"score{k + 1}"], found.top_scores[:, k])
    assert one(out, "ridge", "top1")["value"] == pytest.approx((items["rank"] == 1).mean())
    assert list(own["recording"].unique()) == ["sub-01_run-4"]
    confusion = open_store(out, "confusion")["confusion"]
    assert list(confusion["true"].values) == [f"label {n}" for n in study.names]
    counts = confusion.sel(decoder="ridge").values
    np.testing.assert_array_equal(counts.sum(axis=1), 4)
    assert np.trace(counts) == (items["rank"] == 1).sum()


def test_selected_takes_the_best_inner_score_of_each_fold(small_study, quick, tmp_path):
    study = small_study()
    good, bad = study.predict("good", 6.0, 0.0), study.predict("bad", -6.0, 0.5)
    for path in good[:2]:
        rewrite(path, lambda d: d.assign_attrs(inner_score=0.9))
    rewrite(good[2], lambda d: d.assign_attrs(inner_score=0.5))
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, good + bad, study.embedding(), out)
    chosen = store_attrs(out)["selected"]
    assert list(chosen.values()) == ["good", "good", "good", "bad"]
    items = read_table(out, "items")
    for fold, decoder in chosen.items():
        ranks = items[items["fold"] == fold].groupby("decoder")["rank"].apply(list)
        assert ranks["selected"] == ranks[decoder]
    # The order in which decoders are listed breaks ties: fold 2 goes to "bad" when it comes first.
    run(quick(), "objects", study.plan, bad + good, study.embedding(), out)
    assert list(store_attrs(out)["selected"].values()) == ["good", "good", "bad", "bad"]


def test_nothing_is_selected_where_a_score_is_missing(small_study, quick, tmp_path):
    study = small_study()
    paths = study.predict("ridge", 1.0, 0.5) + study.predict("mlp", 1.0)
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, paths, study.embedding(), out)
    assert store_attrs(out)["selected"] == {}
    assert store_attrs(out)["verdict"]["decoder"] == "ridge"
    assert "selected" not in {r["decoder"] for r in records(out)}


def test_candidates_go_through_the_normalizer(small_study, quick, tmp_path):
    """Predictions in the normalised space: ranks equal those of transformed candidates."""
    study = small_study()
    study.vectors = study.rng.normal(5, 2, (6, 4)).astype(np.float32)
    mean, scale = study.vectors.mean(axis=0), study.vectors.std(axis=0)
    raw = study.vectors
    study.vectors = (raw - mean) / scale
    paths = study.predict("ridge", 2.0)
    import xarray as xr

    group = xr.Dataset(
        {"mean": ("feature", mean), "scale": ("feature", scale)},
        attrs={"schema_version": "1", "kind": "table"},
    )
    expected = tmp_path / "expected.zarr"
    run(quick(), "objects", study.plan, paths, study.embedding(), expected)
    study.vectors = raw
    for path in paths:
        rewrite(path, normalizer=group)
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, paths, study.embedding(), out)
    first, second = read_table(expected, "items"), read_table(out, "items")
    assert list(first["rank"]) == list(second["rank"])
    np.testing.assert_allclose(first["score_true"], second["score_true"], atol=1e-5)


def test_f36_a_normaliser_that_saw_the_test_is_refused(small_study, quick, tmp_path):
    from braindecode_pipe.errors import LeakageError
    from braindecode_pipe.fitting.normalizer import Normalizer

    study = small_study(by="stimulus", n_stimuli=12, categories=True)
    paths = study.predict("ridge", 3.0)
    stimuli = sorted(set(study.plan.stimuli["stimulus"]))
    everything = Normalizer.fit("center", study.vectors, stimuli)
    rewrite(paths[0], normalizer=everything.to_dataset())
    with pytest.raises(LeakageError, match="the normaliser of the embedding saw stimuli"):
        run(quick(), "objects", study.plan, paths, study.embedding(), tmp_path / "out.zarr")


def test_stimuli_that_training_never_showed(small_study, quick, tmp_path):
    study = small_study(by="stimulus", n_stimuli=12, categories=True)
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, study.predict("ridge", 3.0), study.embedding(), out)
    found = one(out, "ridge", "top1")
    assert found["split"] == "stimulus"
    assert found["n_candidates"] == 4
    assert found["null"] == "evaluation-only permutation of stimuli within fold, N=200"
    names = {r["metric"] for r in records(out)}
    assert "identification_accuracy" not in names
    assert "category_accuracy" in names
    assert one(out, "prior", "top1")["value"] == 0.25
    run(
        quick(candidates="all"), "objects", study.plan,
        [tmp_path / f"ridge_{i}.zarr" for i in range(3)], study.embedding(), out,
    )  # fmt: skip
    assert one(out, "ridge", "top1")["n_candidates"] == 12
    # Candidates that training showed often attract a decoder of frequencies, and are all wrong.
    assert one(out, "prior", "top1")["value"] == 0.0


def test_f41_prior_is_in_every_table(small_study, quick, tmp_path):
    """Run 1 shows one stimulus far more often: guessing it is above uniform chance."""
    study = small_study(n_stimuli=3, repeats=6)
    events = study.plan.events
    rare = np.flatnonzero((events["stimulus_object"] == "s001").to_numpy())
    events.loc[rare[::2], "stimulus_object"] = "s000"
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, study.predict("ridge", 2.0), study.embedding(), out)
    prior = one(out, "prior", "top1")
    assert prior["value"] > prior["chance"] + 0.1
    assert prior["p_value"] == 1.0
    assert one(out, "prior", "balanced_accuracy")["value"] == pytest.approx(1 / 3)
    assert {r["metric"] for r in records(out) if r["decoder"] == "prior"} == {
        r["metric"] for r in records(out) if r["decoder"] == "ridge"
    }


def test_two_classes_get_auc(small_study, quick, tmp_path):
    study = small_study(n_subjects=2, n_stimuli=2, repeats=10)
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, study.predict("ridge", 1.0), study.embedding(), out)
    says = store_attrs(out)["verdict"]
    assert says["metric"] == "auc"
    assert says["text"].startswith("“label s000” and “label s001” are told apart with AUC .")
    assert one(out, "ridge", "auc", "02")["n_queries"] == 80


def test_f40_decoder_that_predicts_one_thing(small_study, quick, tmp_path):
    study = small_study(by="stimulus", n_stimuli=12)
    paths = study.predict("ridge", 0.0)
    for path in paths:
        rewrite(path, lambda d: d.assign(prediction=d["prediction"] * 0 + 1))
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, paths, study.embedding(), out)
    for metric in ("top1", "balanced_accuracy", "pair_accuracy", "median_rank"):
        found = one(out, "ridge", metric)
        assert found["value"] == pytest.approx(found["chance"], abs=1e-12)
        assert found["p_value"] == 1.0
    assert store_attrs(out)["verdict"]["evidence"] == "no evidence"


def test_nothing_to_find_is_said_plainly(small_study, quick, tmp_path):
    study = small_study(n_runs=8)
    out = tmp_path / "out.zarr"
    run(quick(), "objects", study.plan, study.predict("ridge", 0.0), study.embedding(), out)
    assert store_attrs(out)["verdict"]["text"].startswith("No evidence that ")


def test_simulated_data_is_said_first(small_study, quick, tmp_path):
    study = small_study()
    out = tmp_path / "out.zarr"
    paths = study.predict("ridge", 3.0, origin="simulated")
    run(quick(), "objects", study.plan, paths, study.embedding(), out)
    assert store_attrs(out)["verdict"]["text"].startswith("Simulated data: Which of 6 stimuli")
    assert {r["data_origin"] for r in records(out)} == {"simulated"}
    paths[0] = study.predict("ridge", 3.0)[0]
    for path in paths[1:]:
        rewrite(path, lambda d: d.assign_attrs(data_origin="simulated"))
    run(quick(), "objects", study.plan, paths, study.embedding(), out)
    assert store_attrs(out)["data_origin"] == "mixed"


def test_equal_work_gives_equal_bytes(small_study, quick, tmp_path):
    study = small_study()
    paths, embedding = study.predict("ridge", 1.0), study.embedding()
    for name in ("a", "b"):
        run(quick(), "objects", study.plan, paths, embedding, tmp_path / f"{name}.zarr")
    assert store_hash(tmp_path / "a.zarr") == store_hash(tmp_path / "b.zarr")


def test_no_bootstrap_and_no_permutations(small_study, quick, tmp_path):
    study = small_study()
    out = tmp_path / "out.zarr"
    section = quick(bootstrap=0, permutations=0)
    run(section, "objects", study.plan, study.predict("ridge", 3.0), study.embedding(), out)
    found = one(out, "ridge", "top1")
    assert (found["ci_low"], found["ci_high"], found["p_value"]) == (None, None, None)
    assert found["null"] == "none"
    assert "null" not in list_groups(out)
    assert store_attrs(out)["verdict"]["evidence"] is None


def test_test_hash_is_about_items_and_nothing_else(small_study, tmp_path):
    plan = small_study().plan
    first = hash_test_items(plan, "object")
    order = np.random.default_rng(0).permutation(len(plan.events))
    renamed = replace(
        plan,
        events=plan.events.iloc[order].replace({"recording": {"sub-01_run-1": "other"}}),
        recordings=plan.recordings.replace({"recording": {"sub-01_run-1": "other"}}),
        role=plan.role[:, order],
    )
    assert hash_test_items(renamed, "object") == first
    events = plan.events.copy()
    events.loc[0, "onset"] += 0.001
    assert hash_test_items(replace(plan, events=events), "object") != first
    assert hash_test_items(replace(plan, role=plan.role[1:]), "object") != first
    content = plan.recordings.replace({"content_hash": {"hash-sub-01_run-1": "changed"}})
    assert hash_test_items(replace(plan, recordings=content), "object") != first


def test_what_cannot_be_evaluated(small_study, quick, tmp_path):
    study = small_study()
    paths, embedding, out = study.predict("ridge", 1.0), study.embedding(), tmp_path / "out.zarr"

    def attempt(expected, message, paths=paths, plan=study.plan, embedding=embedding):
        with pytest.raises(expected, match=message):
            run(quick(), "objects", plan, paths, embedding, out)
        assert not out.exists()

    attempt(DataError, "there are no predictions of table 'objects'", paths=[])
    attempt(DataError, r"do not belong together(.|\n)*a second time", paths=[paths[0], paths[0]])
    attempt(SchemaError, "no prediction that can be evaluated", paths=[embedding])
    few = replace(study.plan, stimuli=study.plan.stimuli.iloc[:1])
    attempt(SplitError, "nothing to choose from", plan=few)
    gone = replace(study.plan, folds=study.plan.folds.iloc[1:])
    attempt(DataError, "a fold that the plan does not have", plan=gone)
    part = open_store(paths[0]).load()
    changed = tmp_path / "changed.zarr"
    write_store(changed, {"": part.assign_attrs(embedding="words")})
    attempt(DataError, r"do not belong together(.|\n)*table 'words'", paths=[changed])
    write_store(changed, {"": part.assign(prediction=part["prediction"] * np.float32(np.nan))})
    attempt(DataError, r"NaN or infinity in the predictions of ridge(.|\n)*6 of 6", paths=[changed])
    for name in ("fit_scope", "input_scope"):
        other = part.assign_attrs({name: study.plan.scope(1).hash()})
        write_store(changed, {"": other})
        attempt(LeakageError, "fitted on something else than the training", paths=[changed])
    write_store(changed, {"": part.assign_coords(event=part["event"] + "x")})
    attempt(DataError, "events that the plan does not have", paths=[changed])
    fewer = prediction_dataset(
        part["prediction"].values[:, :4], list(part["event"].values), list(part["stimulus"].values),
        part.attrs,
    )  # fmt: skip
    write_store(changed, {"": fewer})
    attempt(DataError, r"different numbers of features(.|\n)*6 \(candidates\)", paths=[changed])
    few = open_store(embedding).load().isel(stimulus=slice(1, None))
    write_store(changed, {"": few})
    attempt(DataError, r"have no embedding(.|\n)*1 missing, e.g. s000", embedding=changed)


def test_tables_are_tables(small_study, quick, tmp_path):
    """Items have one row per query and decoder, and no missing text."""
    study = small_study(n_stimuli=3)
    out = tmp_path / "out.zarr"
    paths = study.predict("a", 1.0, 0.1) + study.predict("b", 1.0, 0.2)
    run(quick(), "objects", study.plan, paths, study.embedding(), out)
    items = read_table(out, "items")
    assert len(items) == 3 * 12
    assert (items["top4"] == "").all()
    assert items["score4"].isna().all()
    assert items[["rank", "score_true", "n_candidates"]].notna().all().all()
    assert "columns" in table_to_dataset(items, "item").attrs


@pytest.mark.slow
def test_f37_null_studies_have_uniform_p(small_study, quick, tmp_path):
    """Whole evaluations of noise: p of the verdict over 60 studies."""
    p = []
    for seed in range(60):
        study = small_study(seed=seed)
        out = tmp_path / f"out{seed}.zarr"
        run(quick(), "objects", study.plan, study.predict("ridge", 0.0), study.embedding(), out)
        p.append(one(out, "ridge", "pair_accuracy")["p_value"])
    assert stats.kstest(p, "uniform").pvalue > 0.01
