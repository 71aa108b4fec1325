"""Corrupting what is tested changes nothing that training reads, where the gap is kept."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from braindecode_pipe import pipeline, preprocess
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.plan import build
from braindecode_pipe.preprocess.reach import reach
from braindecode_pipe.recipe import Recipe
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_signal, open_store

SFREQ, NAME = 100.0, "sub-01_task-words_eeg"
RECIPE = {
    "split": {"by": "time", "n_folds": 4, "test_folds": 1},
    "preprocess": {
        "emeg": {
            "l_freq": 0.5, "h_freq": 30.0, "sfreq": 50.0, "scaler": "none", "clamp": None,
            "detect_bads": False,
        }
    },
    "train": {"windows": {"tmin": 0.0, "tmax": 0.5}},
}  # fmt: skip


@pytest.fixture
def recording(make_recording, tmp_path):
    write, write_events = make_recording
    data = np.random.default_rng(0).normal(0, 10, (4, 9000))
    base = tmp_path / "bids" / "sub-01" / "eeg"
    write(base / f"{NAME}.vhdr", data, SFREQ)
    write_events(base / f"{NAME.replace('_eeg', '_events')}.tsv", 1 + 0.75 * np.arange(115),
                 ["cat", "dog", "car", "bus", "cow"] * 23)  # fmt: skip
    return data, tmp_path / "bids", lambda values: write(base / f"{NAME}.vhdr", values, SFREQ)


def windows_of(recipe, plan, data, out):
    row = plan.recordings.iloc[0].to_dict()
    preprocess.run(recipe.preprocess, row, data, out, allow_truncated=False,
                   data_origin="simulated")  # fmt: skip
    windows = Windows({NAME: open_signal(out)}, plan.events, recipe.train.windows)
    return windows.read(np.arange(len(windows)))


@pytest.mark.parametrize("kept", [True, False])
def test_f35_corrupting_the_test_part_leaves_training_windows_alone(recording, tmp_path, kept):
    data, bids, write = recording
    recipe = Recipe.model_validate(RECIPE)
    far = (lambda row: reach(recipe.preprocess, row).total) if kept else None
    plan = build(recipe.plan, recipe.split, bids, extent=(0.0, 0.5), reach=far).plan
    before = windows_of(recipe, plan, bids, tmp_path / "before.zarr")
    test = plan.role[0] == ROLES["test"]
    spoiled = data.copy()
    for onset in plan.events["onset"][test]:
        at = round(onset * SFREQ)
        spoiled[:, at : at + 50] += 300.0
    write(spoiled)
    after = windows_of(recipe, plan, bids, tmp_path / "after.zarr")
    train = plan.role[0] == ROLES["train"]
    change = np.abs(after - before)[train].max() / before[train].std()
    assert np.abs(after - before)[test].max() > before[train].std()
    # Filters by FFT leave rounding of their whole block behind: 1e-6 of what was changed.
    assert change < 1e-5 if kept else change > 0.1
    assert (plan.role[0] == ROLES["purged"]).sum() == (5 if kept else 0)


def test_f35_the_reach_is_part_of_the_plan_and_of_its_key(recording, tmp_path):
    from braindecode_pipe.pipeline.cache import FileHashes
    from braindecode_pipe.pipeline.stages import Stages

    _, bids, _ = recording
    stages = {}
    for low in (0.5, 1.0):
        settings = {**RECIPE["preprocess"]["emeg"], "l_freq": low}
        content = {**RECIPE, "preprocess": {"emeg": settings}}
        hashes = FileHashes(tmp_path / f"hashes-{low}.json")
        stages[low] = Stages(Recipe.model_validate(content), bids, tmp_path / "out", hashes)
    keys = {low: stage.plan().key for low, stage in stages.items()}
    assert keys[0.5] != keys[1.0]
    split = stages[0.5].recipe.split
    find = partial(build, stages[0.5].recipe.plan, split, bids, extent=(0.0, 0.5))
    attrs = find(reach=stages[0.5].reach).attrs
    assert attrs["filter_reach_s"] == {NAME: pytest.approx(3.3 + 0.2)}
    assert attrs["within_reach"] == {}
    by = split.model_copy(update={"by": "stimulus", "n_folds": 5})
    attrs = build(stages[0.5].recipe.plan, by, bids, extent=(0.0, 0.5),
                  reach=stages[0.5].reach).attrs  # fmt: skip
    assert list(attrs["within_reach"].values()) == [[92, 92]]


def test_f36_fits_see_everything_but_the_windows_that_are_tested(recording, tmp_path):
    """A fifth of the windows tested leaves the rest to fits: no filter carries a test sample in."""
    data, bids, write = recording
    data[2] = 0
    content = {
        **RECIPE,
        "plan": {"stimuli": {"word": {}}},
        "split": {"by": "stimulus", "n_folds": 5, "test_folds": 1},
        "preprocess": {"emeg": {"l_freq": 0.5, "h_freq": 30.0, "sfreq": 50.0, "bads": "keep"}},
    }
    recipe, fitted = Recipe.model_validate(content), []
    for k in range(2):
        write(data)
        result = pipeline.run(recipe, bids, tmp_path / f"out{k}", until="preprocess", quiet=True)
        assert not result.failed, [str(row.error) for row in result.failed]
        fitted.append(open_store(result.rows[-1].path))
        onset = read_test_onsets(result)
        for at in np.round(onset * SFREQ).astype(int):
            data[:, at : at + 50] = 300 * np.random.default_rng(1).normal(size=(4, 50))
    seen = np.array(fitted[0].attrs["fit_extents"])
    assert np.diff(seen, axis=1).sum() == pytest.approx(90 - 0.5 * len(onset), abs=1e-6)
    assert list(fitted[0]["sensor_good"].values) == [True, True, False, True]
    for name in ("offset", "gain", "sensor_good"):
        np.testing.assert_array_equal(fitted[0][name].values, fitted[1][name].values)
    assert (fitted[0]["signal"].values != fitted[1]["signal"].values).any()


def read_test_onsets(result) -> np.ndarray:
    plan = StudyPlan.load(result.rows[0].path)
    return plan.events["onset"].to_numpy(float)[plan.role[0] == ROLES["test"]]


@pytest.fixture
def copied(make_study, tmp_path):
    """Two runs of one person, of which the second holds the samples of the first."""
    data = make_study(tmp_path / "bids", subjects=("01",), runs=("1", "2"))
    one, two = (data / "sub-01" / "eeg" / f"sub-01_task-words_run-{r}_eeg.eeg" for r in "12")
    two.write_bytes(one.read_bytes())
    return data


def test_a_leak_stops_the_run_before_anything_is_trained(copied, words, tmp_path):
    from braindecode_pipe import pipeline
    from braindecode_pipe.errors import LeakageError

    recipe = words('plan.duplicates="allow"')
    findings = pipeline.audit_recipe(recipe, copied)
    assert {f.check for f in findings} >= {"recordings"}
    with pytest.raises(LeakageError, match="run-1_eeg = sub-01_task-words_run-2_eeg") as caught:
        pipeline.run(recipe, copied, tmp_path / "out", quiet=True, ledger=tmp_path / "ledger")
    assert "--allow-leak recordings" in str(caught.value)
    assert not (tmp_path / "out" / "preprocess").exists()


def test_an_allowed_leak_is_stamped_on_every_number(copied, words, tmp_path):
    import json

    from braindecode_pipe import pipeline
    from braindecode_pipe.audit import audit
    from braindecode_pipe.evaluate.ledger import read
    from braindecode_pipe.store import store_attrs

    out, ledger = tmp_path / "out", tmp_path / "ledger"
    recipe = words('plan.duplicates="allow"')
    allowed = sorted({f.check for f in pipeline.audit_recipe(recipe, copied)})
    result = pipeline.run(recipe, copied, out, quiet=True, ledger=ledger, allow_leaks=allowed)
    assert result.exit_code == 0
    records = json.loads((out / "metrics.json").read_text())
    assert records and all(r["leaks"] == allowed for r in records)
    (evaluation,) = (row.path for row in result.rows if row.stage == "evaluate")
    attrs = store_attrs(evaluation)
    assert attrs["verdict"]["text"].startswith("Training and test are not apart (")
    assert [entry["leaks"] for entry in read(ledger, attrs["test_hash"])] == [allowed]
    page = (out / "report.md").read_text()
    assert "Training and test are not apart" in page and "run-1_eeg = " in page
    assert all(f["allowed"] for f in json.loads((out / "run.json").read_text())["audit"])
    assert {f.check for f in audit(out) if f.severity == "error"} == set(allowed)


def test_the_command_audits_a_recipe_before_it_runs(copied, recipe_text, tmp_path, capsys):
    from braindecode_pipe.cli import main

    recipe = tmp_path / "words.toml"
    recipe.write_text(recipe_text)
    arguments = ["audit", str(recipe), "--set", 'plan.duplicates="allow"']
    assert main(arguments) == 2
    assert "--data DIR" in capsys.readouterr().err
    assert main([*arguments, "--data", str(copied)]) == 1
    assert "run-1_eeg = " in " ".join(capsys.readouterr().out.split())
    (copied / "sub-01" / "eeg" / "sub-01_task-words_run-2_eeg.eeg").write_bytes(
        np.random.default_rng(9).normal(0, 10, (2200, 4)).astype("<f4").tobytes()
    )
    assert main([*arguments, "--data", str(copied)]) == 0
    assert main(["run", str(recipe), "--data", str(copied), "--allow-leak", "luck"]) == 2
    assert "no such leak" in capsys.readouterr().err
