"""Runs side by side: the same items and candidates, or one clear refusal (F-39)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe.cli import main
from braindecode_pipe.errors import BraindecodePipeError, InputError, MissingFileError
from braindecode_pipe.evaluate import run as evaluate
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.report.comparison import common_items, compare_runs, holm
from braindecode_pipe.splits import StudyPlan


def as_run(folder: Path, inputs) -> Path:
    """The record that a run leaves beside the stores of a study."""
    stores = [("plan", "study", inputs.plan)]
    stores += [("evaluate", name, path) for name, path in inputs.evaluations.items()]
    units = [{"stage": s, "unit": u, "status": "done", "store": str(p.relative_to(folder))}
             for s, u, p in stores]  # fmt: skip
    (folder / "run.json").write_text(json.dumps({"units": units}))
    return folder


def evaluated(folder: Path, inputs, name: str, predictions=None, **settings) -> Path:
    """The same predictions under another protocol, as a run of its own."""
    out = folder / name
    (table,) = inputs.embeddings
    section = EvaluateSection(bootstrap=20, permutations=20, **settings)
    plan = StudyPlan.load(inputs.plan)
    found = predictions or inputs.predictions[table]
    evaluate(section, table, plan, found, inputs.embeddings[table], out / "e.zarr")
    (out / "plan.zarr").symlink_to(inputs.plan)
    units = [{"stage": stage, "unit": unit, "status": "cached", "store": store}
             for stage, unit, store in (("plan", "study", "plan.zarr"),
                                        ("evaluate", table, "e.zarr"))]  # fmt: skip
    (out / "run.json").write_text(json.dumps({"units": units}))
    return out


@pytest.fixture(scope="module")
def runs(make_study, tmp_path_factory):
    """Runs of one plan: ``strong`` is decoded by ridge, ``weak`` by predictions of noise."""
    folder = tmp_path_factory.mktemp("runs")
    small = {"n_runs": 2, "n_trials": 12, "draws": 20, "origin": "simulated"}
    inputs = make_study(folder / "strong", snr=1.5, **small)
    noise = make_study(folder / "weak", snr=0.0, **small)
    found = {"strong": as_run(folder / "strong", inputs), "weak": as_run(folder / "weak", noise)}
    found["all"] = evaluated(folder, inputs, "all", candidates="all")
    found["averaged"] = evaluated(folder, inputs, "averaged", aggregate="repetitions")
    (table,) = inputs.embeddings
    fewer = [p for p in inputs.predictions[table] if not p.stem.endswith("-0")]
    found["fewer"] = evaluated(folder, inputs, "fewer", fewer)
    return found


def test_differences_are_those_of_the_items(runs):
    (contest,) = compare_runs([runs["weak"], runs["strong"]], draws=200)
    by = {d.metric: d for d in contest.differences}
    weak, strong = (s.items for s in contest.systems)
    expected = np.mean([1 / strong["rank"].loc[i] - 1 / weak["rank"].loc[i] for i in weak.index])
    assert by["mrr"].result.difference == pytest.approx(expected)
    assert by["mrr"].result.ci_low > 0 and by["mrr"].p_holm < 0.05
    assert by["mrr"].result.n_items == len(weak) and by["mrr"].left_out == 0


def test_items_of_one_run_only_are_counted_and_left_out(runs):
    (contest,) = compare_runs([runs["strong"], runs["fewer"]], draws=20)
    strong, fewer = (s.items for s in contest.systems)
    result = contest.differences[0]
    assert result.left_out == len(strong) - len(fewer) > 0
    assert result.result.n_items == len(fewer) and result.result.difference == 0


@pytest.mark.parametrize(
    ("other", "words"),
    [("all", "chose among different candidates"), ("averaged", "average differently")],
)
def test_f39_other_candidates_are_refused(runs, other, words):
    with pytest.raises(InputError, match=words) as caught:
        compare_runs([runs["strong"], runs[other]])
    assert "strong" in str(caught.value) and other in str(caught.value)


def test_as_many_other_candidates_are_refused_too(runs):
    (contest,) = compare_runs([runs["strong"], runs["fewer"]], draws=20)
    strong, fewer = contest.systems
    common_items(fewer, strong)
    others = {fold: (size, "of other content") for fold, (size, _) in fewer.pools.items()}
    fewer.__dict__["pools"] = others
    with pytest.raises(InputError, match="as many others"):
        common_items(fewer, strong)


def test_holm_by_hand():
    # Sorted .01 .03 .04: times 3, 2, 1 is .03, .06, .04; the last may not be below the one before.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])


def test_command_writes_page_markdown_and_json(runs, tmp_path, capsys):
    folders = [str(runs[name]) for name in ("weak", "strong", "fewer")]
    assert main(["compare", *folders, "--out", str(tmp_path / "c")]) == 0
    html = (tmp_path / "c" / "compare.html").read_text()
    assert "strong is better than weak" in html and "SIMULATED DATA" in html
    assert "<script" not in html and "Content-Security-Policy" in html
    assert "**Paired differences**" in (tmp_path / "c" / "compare.md").read_text()
    records = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert {r["run"] for r in records} == {"strong", "fewer"} and len(records) == 6
    assert {r["reference"] for r in records} == {"weak"}
    capsys.readouterr()
    assert main(["compare", *folders[:1], str(runs["all"]), "--out", str(tmp_path / "d")]) == 2
    assert "chose among different candidates and cannot be compared" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("fault", ["missing", "damaged", "same", "alone", "unevaluated"])
def test_what_is_no_run_is_told(runs, tmp_path, fault):
    (tmp_path / "run").mkdir()
    folders = [runs["strong"], tmp_path / "run"]
    if fault == "damaged":
        (tmp_path / "run" / "run.json").write_text("[")
    if fault == "unevaluated":
        (tmp_path / "run" / "run.json").write_text('{"units": []}')
    folders = {"same": [runs["strong"]] * 2, "alone": [runs["strong"]]}.get(fault, folders)
    with pytest.raises(BraindecodePipeError) as caught:
        compare_runs(folders)
    assert isinstance(caught.value, MissingFileError if fault == "missing" else InputError)
