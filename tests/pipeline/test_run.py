"""The whole way on a small data set: what runs, why, and what is never touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.audit import audit
from braindecode_pipe.errors import RecipeError, StageError, StoreLockedError
from braindecode_pipe.evaluate.ledger import read as read_ledger
from braindecode_pipe.store import StoreLock, store_hash, verify_store, write_hook

STAGES = ("plan", "preprocess", "embed", "train", "evaluate", "report")


def statuses(result) -> dict[str, set[str]]:
    return {s: {row.status for row in result.rows if row.stage == s} for s in result.stages()}


def whys(result, stage: str) -> set[str]:
    return {row.why for row in result.rows if row.stage == stage}


def paths(result, stage: str) -> dict[str, Path]:
    return {row.unit: row.path for row in result.rows if row.stage == stage}


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder: equal only where nothing was written."""
    found = {}
    for file in sorted(folder.rglob("*")):
        stat = file.stat()
        found[str(file.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return found


def metric(records, name="top1", subject="all", decoder="ridge") -> dict:
    return next(
        r for r in records
        if (r["metric"], r["subject"], r["decoder"]) == (name, subject, decoder)
    )  # fmt: skip


# --- a first run and the ones after it ------------------------------------------------------------


def test_from_recordings_to_a_report(first, stores_in):
    folder, result = first
    out = folder / "out"
    assert result.exit_code == 0 and not result.up_to_date
    assert result.stages() == list(STAGES)
    counts = {stage: len(paths(result, stage)) for stage in STAGES}
    assert counts == {
        "plan": 1,
        "preprocess": 6,
        "embed": 1,
        "train": 6,
        "evaluate": 1,
        "report": 1,
    }
    assert {row.why for row in result.rows} == {"never ran here"}
    assert result.report == out / "report.html"
    assert "<html" in result.report.read_text(encoding="utf-8")
    assert len(list((out / "qc").glob("*.html"))) >= 6

    records = json.loads((out / "metrics.json").read_text())
    planted, noise = metric(records, subject="01"), metric(records, subject="02")
    assert planted["value"] > 0.6 and planted["p_value"] <= 0.01
    assert noise["value"] < 0.45 and noise["p_value"] > 0.01
    assert planted["chance"] == 0.25 and planted["n_queries"] == 60

    for row in result.rows:
        assert verify_store(row.path) == []
    text = b"\n".join(stores_in(out).values())
    assert str(folder).encode() not in text


def test_published_numbers_are_those_of_the_evaluation(first):
    folder, result = first
    published = json.loads((folder / "out" / "metrics.json").read_text())
    scored = json.loads((paths(result, "evaluate")["word"] / "metrics.json").read_text())
    assert scored and published == scored


def test_a_second_run_is_up_to_date(again, stores_in):
    before = stores_in(again.out)
    result = again()
    assert result.up_to_date and result.exit_code == 0
    assert {row.why for row in result.rows} == {"unchanged"}
    assert stores_in(again.out) == before


def test_a_forced_report_has_the_same_hash(again, first):
    before = store_hash(paths(first[1], "report")["study"])
    result = again(force=["report"])
    assert statuses(result)["report"] == {"done"} and whys(result, "report") == {"forced"}
    assert store_hash(paths(result, "report")["study"]) == before


def test_a_report_alone_is_not_made_of_half_the_results(again):
    """Results of another recipe are missing: the report that is there stays as it was."""
    page = again.out / "report.html"
    before = page.read_bytes()
    result = again("preprocess.emeg.l_freq=3.0", start="report", force=["report"])
    assert statuses(result)["report"] == {"skipped"} and result.exit_code == 2
    assert result.report is None and page.read_bytes() == before


def test_a_b_a_uses_a_again(again, stores_in, first):
    before = stores_in(again.out)
    b = again("preprocess.emeg.l_freq=2.0", until="evaluate")
    assert statuses(b) == {
        "plan": {"cached"}, "preprocess": {"done"}, "embed": {"cached"}, "train": {"done"},
        "evaluate": {"done"},
    }  # fmt: skip
    assert whys(b, "preprocess") == {"emeg.l_freq: 1.0 -> 2.0"}
    assert paths(b, "train") != paths(first[1], "train")
    a = again()
    assert whys(a, "preprocess") == {"same as an earlier run"}
    after = stores_in(again.out)
    assert {name: after[name] for name in before} == before
    for stage in STAGES[:-1]:
        assert {u: p.name for u, p in paths(a, stage).items()} == {
            u: p.name for u, p in paths(first[1], stage).items()
        }
    # B was scored on the same test items: the report of A has to say so.
    assert {row.stage for row in a.rows if row.status != "cached"} == {"report"}
    assert whys(a, "report") == {"ledger changed"}
    assert again().up_to_date


def test_a_score_counts_without_a_report(bids, tmp_path, words):
    pipeline.run(words(), bids, tmp_path / "out", until="train", ledger=tmp_path / "l", quiet=True)
    assert not (tmp_path / "l").exists()
    pipeline.run(
        words(), bids, tmp_path / "out", until="evaluate", ledger=tmp_path / "l", quiet=True
    )
    (file,) = (tmp_path / "l").glob("*.jsonl")
    assert len(read_ledger(tmp_path / "l", file.stem)) == 1


def test_the_ledger_counts_configurations_and_the_report_says_so(again):
    def configurations():
        return {
            entry["configuration"]
            for file in (again.base / "ledger").glob("*.jsonl")
            for entry in read_ledger(again.base / "ledger", file.stem)
        }

    one = configurations()
    assert len(one) == 1
    again()
    assert configurations() == one
    result = again("train.alphas=[10.0]")
    assert statuses(result)["preprocess"] == {"cached"}
    assert whys(result, "train") == {"train.alphas changed"}
    assert len(configurations()) == 2 and one < configurations()
    assert "Configuration 2 of 2" in result.report.read_text(encoding="utf-8")


# --- why ------------------------------------------------------------------------------------------


def test_why_says_what_changed(again):
    file = again.data / "sub-02" / "eeg" / "sub-02_task-words_run-3_events.tsv"
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace("0.5\t", "0.51\t", 1)
    file.write_text("\n".join(lines) + "\n")
    result = again(until="evaluate")
    assert whys(result, "plan") == {
        "content of sub-02/eeg/sub-02_task-words_run-3_events.tsv changed"
    }
    assert statuses(result)["embed"] == {"cached"}
    # Tables of events may mark spans as bad, so that their own recording depends on them.
    own = "sub-02_task-words_run-3_eeg"
    assert [r.unit for r in result.rows if (r.stage, r.status) == ("preprocess", "done")] == [own]
    trained = {row.unit: (row.status, row.why) for row in result.rows if row.stage == "train"}
    for unit, (status, why) in trained.items():
        assert status == ("done" if "sub-02" in unit else "cached"), unit
        assert ("events changed" in why) == ("sub-02" in unit)


def test_why_of_force_and_of_a_lost_result(again):
    lost = paths(again(), "preprocess")["sub-01_task-words_run-1_eeg"]
    shutil.rmtree(lost)
    result = again(force=["embed"])
    rows = {(row.stage, row.unit): row for row in result.rows}
    row = rows[("preprocess", "sub-01_task-words_run-1_eeg")]
    assert (row.status, row.why) == ("done", "its result is missing")
    assert (rows[("embed", "word")].status, rows[("embed", "word")].why) == ("done", "forced")
    others = {r.status for r in result.rows if r.stage not in ("preprocess", "embed")}
    assert others == {"cached"}
    assert verify_store(lost) == []


def test_a_damaged_result_is_made_again_by_force(again, stores_in):
    before = stores_in(again.out)
    store = paths(again(), "preprocess")["sub-01_task-words_run-2_eeg"]
    chunk = max((store / "signal" / "c").rglob("*"), key=lambda f: f.is_file() * f.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[9] ^= 255
    chunk.write_bytes(content)
    assert verify_store(store)
    again(force=["preprocess"])
    assert stores_in(again.out) == before


# --- until, from, dry run -------------------------------------------------------------------------


def test_until_and_from(again, words, tmp_path):
    out = tmp_path / "other"

    def run(**options):
        return pipeline.run(words(), again.data, out, quiet=True, ledger=tmp_path / "l", **options)

    assert run(until="embed").stages() == ["plan", "preprocess", "embed"]
    assert sorted(p.name for p in out.iterdir() if (p / "study").is_dir()) == ["plan"]
    result = run(start="train", until="train")
    assert statuses(result)["preprocess"] == {"cached"} and statuses(result)["train"] == {"done"}
    nothing = run(start="report", until="evaluate")
    assert statuses(nothing)["evaluate"] == {"skipped"}
    assert whys(nothing, "evaluate") == {"never ran here; left out by --from"}
    assert nothing.exit_code == 2, "what was asked for cannot be had"
    assert run(start="evaluate").exit_code == 0
    with pytest.raises(RecipeError, match="no such stage"):
        run(until="cook")


def test_a_dry_run_names_what_then_runs_and_writes_nothing(bids, words, tmp_path):
    out, ledger = tmp_path / "out", tmp_path / "ledger"
    before = everything(tmp_path)
    dry = pipeline.run(words(), bids, out, quiet=True, ledger=ledger, dry_run=True)
    assert everything(tmp_path) == before and not out.exists()
    assert {row.status for row in dry.rows} == {"will run"}
    real = pipeline.run(words(), bids, out, quiet=True, ledger=ledger)
    listed = [(row.stage, row.unit, row.path) for row in dry.rows if row.stage != "report"]
    ran = [(row.stage, row.unit, row.path) for row in real.rows if row.stage != "report"]
    assert listed == ran
    assert dry.rows[-1].stage == real.rows[-1].stage == "report"

    before = everything(tmp_path)
    dry = pipeline.run(words("evaluate.top_k=[3]"), bids, out, ledger=ledger, dry_run=True)
    assert everything(tmp_path) == before
    assert statuses(dry)["train"] == {"cached"} and statuses(dry)["evaluate"] == {"will run"}
    assert whys(dry, "evaluate") == {"evaluate.top_k: [1, 2] -> [3]"}
    assert pipeline.run(words(), bids, out, ledger=ledger, dry_run=True).up_to_date


# --- the data move, grow, or are broken -----------------------------------------------------------


def test_moved_data_and_a_moved_run_stay_valid(again, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "data"
    elsewhere.parent.mkdir()
    again.data.rename(elsewhere)
    assert again(data=elsewhere).up_to_date


def test_a_new_person_leaves_the_others_untouched(again, make_study, stores_in):
    before = stores_in(again.out)
    make_study(again.data, subjects=("03",), seed=5)
    result = again(until="evaluate")
    rows = {(row.stage, row.unit): row.status for row in result.rows}
    for (stage, unit), status in rows.items():
        if stage in ("preprocess", "embed", "train"):
            assert status == ("done" if "sub-03" in unit else "cached"), unit
    assert rows[("plan", "study")] == rows[("evaluate", "word")] == "done"
    after = stores_in(again.out)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("damage", ["truncated", "unreadable"])
def test_a_broken_recording_fails_alone(damage, again, first):
    name = "sub-02_task-words_run-2_eeg"
    file = again.data / "sub-02" / "eeg" / f"{name}.eeg"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
    result = again()
    assert result.exit_code == 2
    assert [row.unit for row in result.failed] == [name]
    told = failures_text(result)
    assert name in told and file.name in told if damage == "unreadable" else "cut short" in told
    rows = {(row.stage, row.unit): row.status for row in result.rows}
    for unit in paths(first[1], "preprocess"):
        assert rows[("preprocess", unit)] == "cached" or unit == name
    done = {unit for (stage, unit), s in rows.items() if stage == "train" and s != "skipped"}
    assert f"word_ridge_{name}" not in done and len(done) == 5
    assert rows[("evaluate", "word")] == rows[("report", "study")] == "done"
    assert metric(json.loads((again.out / "metrics.json").read_text()), subject="01")["value"] > 0.6
    assert name in result.report.read_text(encoding="utf-8")
    assert [f for f in audit(again.out) if f.severity == "error"] == []


def failures_text(result) -> str:
    from rich.console import Console

    console = Console(width=400, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(result.failures())
        return console.export_text()


def test_mending_the_recording_brings_back_what_was(again, stores_in, first):
    before = stores_in(again.out)
    file = again.data / "sub-02" / "eeg" / "sub-02_task-words_run-2_eeg.eeg"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert again(until="evaluate").exit_code == 2
    file.write_bytes(content)
    assert again().up_to_date
    after = stores_in(again.out)
    assert {name: after[name] for name in before} == before


# --- a stage that breaks half-way; two at once ----------------------------------------------------


class Broken(Exception):
    pass


@pytest.mark.parametrize("stage", ["preprocess", "train", "evaluate"])
def test_f02_a_stage_that_raises_half_way_leaves_the_old_store(stage, again):
    stores = paths(again(), stage)
    before = {unit: store_hash(path) for unit, path in stores.items()}
    count = 0

    def hook(event, path):
        nonlocal count
        count += f"/{stage}/" in path.as_posix()
        if f"/{stage}/" in path.as_posix() and count > 4:
            raise Broken(f"{event} {path.name}")

    with write_hook(hook):
        result = again(force=[stage], until=stage)
    assert count > 4 and result.exit_code == 1
    assert {row.unit for row in result.failed} == set(stores)
    assert "Broken" in result.failed[0].error
    assert {unit: store_hash(path) for unit, path in stores.items()} == before
    assert again().up_to_date


def test_jobs_make_no_difference_f46(first, words, tmp_path, stores_in):
    folder, _ = first
    result = pipeline.run(
        words(), folder / "bids", tmp_path / "out", jobs=2, quiet=True, ledger=tmp_path / "ledger"
    )
    assert [(row.unit, row.error) for row in result.failed] == []
    assert stores_in(tmp_path / "out") == stores_in(folder / "out")


def test_one_run_at_a_time(again):
    with StoreLock(again.out / "run"), pytest.raises(StoreLockedError, match=f"pid {os.getpid()}"):
        again()
    assert again().up_to_date


def test_what_the_system_refuses_is_told_as_such(again):
    (again.out / "cache" / "history.json").unlink()
    (again.out / "cache" / "history.json").mkdir()
    with pytest.raises(StageError, match="cannot be read or written") as caught:
        again()
    assert str(again.out / "cache") in str(caught.value)
    assert not list(again.out.glob("run.lock"))
