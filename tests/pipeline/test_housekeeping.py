"""Looking before a run, tidying up after one, and the audit of what it left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from braindecode_pipe import pipeline
from braindecode_pipe.audit import audit
from braindecode_pipe.pipeline import STAGES
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import store_attrs


def paths(result, stage: str) -> dict[str, Path]:
    return {row.unit: row.path for row in result.rows if row.stage == stage}


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder: equal only where nothing was written."""
    found = {}
    for file in sorted(folder.rglob("*")):
        stat = file.stat()
        found[str(file.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return found


def test_clean_deletes_what_is_unused_and_only_that(again):
    old = {row.path for row in again().rows}
    assert pipeline.clean(again.out) == []
    result = again("train.alphas=[10.0]")
    new = {row.path for row in result.rows}
    assert len(old & new) == 8, "plan, signals and embedding"
    assert set(pipeline.clean(again.out)) == old - new
    assert set(again.out.glob("*/*/*.zarr")) == new
    assert again("train.alphas=[10.0]").up_to_date


def test_clean_deletes_what_killed_writers_left_of_unused_results(again):
    store = next(iter(paths(again(), "train").values()))
    left = store.with_name(f"0123456789abcdef.zarr.tmp-{32 * 'a'}")
    shutil.copytree(store, left)
    (left / "COMMITTED").unlink()
    assert pipeline.clean(again.out) == [store.with_name("0123456789abcdef.zarr")]
    assert not left.exists() and sorted(p.name for p in store.parent.glob("*.zarr*")) == [
        store.name
    ]
    assert again().up_to_date


def test_clean_keeps_stages_that_the_last_run_did_not_reach(again):
    later = {row.path for row in again().rows if row.stage in list(STAGES)[2:]}
    again(until="preprocess")
    assert pipeline.clean(again.out) == []
    assert all(path.is_dir() for path in later)
    assert again().up_to_date


def test_clean_deletes_checkpoints_that_no_fit_will_go_on_from(again):
    store = next(iter(paths(again(), "train").values()))
    finished, unused = store.with_suffix(".fit"), store.with_name("0123456789abcdef.fit")
    for folder in (finished, unused):
        (folder / "processes-1" / "fit").mkdir(parents=True)
    again(until="embed")
    assert pipeline.clean(again.out) == [finished], "nobody asked what training uses"
    (store / "COMMITTED").unlink()
    finished.mkdir()
    result = again("train.alphas=[]")  # every unit fails: theirs may go on, once mended
    assert {row.status for row in result.rows if row.stage == "train"} == {"failed"}
    own = paths(result, "train").values()
    kept = next(iter(own)).with_suffix(".fit")
    kept.mkdir(parents=True)
    removed = pipeline.clean(again.out)
    assert {finished, unused} <= set(removed) and kept.is_dir()


def test_check_finds_what_is_planted_and_writes_nothing(again, words):
    quiet = pipeline.check(words(), again.data)
    assert {f.severity for f in quiet} == {"note"}
    assert "6 recordings of 2 people, 120 events, 4 stimuli, 6 folds" in quiet[-1].text
    assert sum("response" in f.text for f in quiet) == 2  # one recording of each person

    stem = again.data / "sub-02" / "eeg" / "sub-02_task-words_run-2"
    signal = Path(f"{stem}_eeg.eeg")
    signal.write_bytes(signal.read_bytes()[:1000])
    with open(f"{stem.parent / 'sub-02_task-words_run-3'}_events.tsv", "a") as table:
        table.write("500\t0.3\tcat\n")
    before = everything(again.base)
    found = pipeline.check(words("plan.max_dropped_events=0.1"), again.data)
    assert everything(again.base) == before
    errors = [f.text for f in found if f.severity == "error"]
    assert len(errors) == 1 and "sub-02/eeg/sub-02_task-words_run-2_events.tsv" in errors[0]
    assert any("1 events lie outside" in f.text for f in found if f.severity == "warning")

    copy = again.data / "sub-01" / "eeg"
    for ending in ("eeg.vhdr", "eeg.vmrk", "eeg.eeg", "events.tsv"):
        name = f"sub-01_task-words_run-%s_{ending}"
        text = (copy / (name % 1)).read_bytes().replace(b"run-1", b"run-4")
        (copy / (name % 4)).write_bytes(text)
    found = pipeline.check(words("plan.max_dropped_events=0.1"), again.data)
    assert [f.severity for f in found] == ["error"]
    assert "sub-01_task-words_run-1_eeg and sub-01_task-words_run-4_eeg" in found[0].text


def test_repairs_of_event_tables_are_proposed_and_reach_the_plan(again, words):
    """Tables with decimal commas: said, repaired while reading, and the same plan comes out."""
    whole = StudyPlan.load(paths(again(), "plan")["study"])
    tables = sorted(again.data.rglob("*_events.tsv"))
    for table in tables:
        table.write_text(table.read_text().replace(".", ","))
    (error,) = pipeline.check(words(), again.data)
    assert error.severity == "error" and 'repairs = ["decimal-comma"]' in error.text
    repair = 'preprocess.emeg.repairs=["decimal-comma"]'
    notes = [f.text for f in pipeline.check(words(repair), again.data)]
    assert sum("_events.tsv: decimal commas in onset, duration" in note for note in notes) == 6

    result = again(repair, until="preprocess")
    assert not result.failed
    store = paths(result, "plan")["study"]
    plan = StudyPlan.load(store)
    pd.testing.assert_frame_equal(plan.events, whole.events)
    assert (plan.role == whole.role).all()
    assert len(store_attrs(store)["repaired_events"]) == 6
    # A repair that concerns no table leaves the plan as it is, one that does makes it anew.
    (row,) = again('preprocess.emeg.repairs=["decimal-comma", "unique-names"]', until="plan").rows
    assert row.status == "cached"
    (row,) = again('preprocess.emeg.repairs=["decimal-comma", "text-encoding"]', until="plan").rows
    assert row.status == "done" and "preprocess.emeg.repairs" in row.why


def test_audit_of_a_finished_run_finds_no_leak(first):
    folder, result = first
    assert [f for f in audit(folder / "out") if f.severity == "error"] == []
    attrs = store_attrs(paths(result, "evaluate")["word"])
    assert attrs["verdict"]["evidence"] == "evidence"
