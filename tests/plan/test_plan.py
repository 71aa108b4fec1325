"""The plan: recordings, events, stimuli and copies on real small files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from braindecode_pipe.errors import (
    DataError,
    DuplicateRecordingError,
    EventError,
    LeakageError,
    MissingFileError,
    UnsafePathError,
)
from braindecode_pipe.plan import build, find_recordings, fingerprint
from braindecode_pipe.plan.duplicates import anchors, find_copies
from braindecode_pipe.plan.recordings import entities, sidecars
from braindecode_pipe.recipe import PlanSection, SplitSection, StimuliSpec


def test_recordings_of_a_bids_tree(bids):
    table = find_recordings(PlanSection(), bids)
    assert list(table["recording"])[0] == "sub-01_task-words_run-1_eeg"
    assert set(table["subject"]) == {"01", "02"}
    assert (table["sfreq"] == 100.0).all() and (table["n_times"] == 2200).all()
    assert (table["data_origin"] == "recorded").all()


def test_filters_and_exclusions(bids):
    section = PlanSection(
        subjects=["01"],
        runs=["1", "2"],
        exclude=[{"recording": "sub-01_task-words_run-2_eeg", "reason": "asleep"}],
    )
    table = find_recordings(section, bids)
    assert list(table["excluded"]) == [False, True]
    with pytest.raises(DataError, match="excluded recording does not exist"):
        find_recordings(PlanSection(exclude=[{"recording": "x", "reason": "y"}]), bids)
    with pytest.raises(MissingFileError, match="no recording found"):
        find_recordings(PlanSection(tasks=["sleep"]), bids)
    with pytest.raises(MissingFileError, match="does not exist"):
        find_recordings(PlanSection(), bids / "nowhere")


def test_content_not_paths_decides(bids, tmp_path):
    before = fingerprint(PlanSection(), bids)
    moved = tmp_path / "elsewhere"
    shutil.copytree(bids, moved)
    assert fingerprint(PlanSection(), moved) == before
    events = moved / "sub-01/eeg/sub-01_task-words_run-1_events.tsv"
    events.write_text(events.read_text().replace("cat", "cow"))
    changed = fingerprint(PlanSection(), moved)
    assert [k for k in before if changed[k] != before[k]] == [
        "sub-01/eeg/sub-01_task-words_run-1_events.tsv"
    ]


def test_sidecars_follow_the_inheritance_principle(tmp_path):
    func = tmp_path / "sub-01" / "func"
    func.mkdir(parents=True)
    for name in ("task-a_bold.json", "task-b_bold.json", "sub-01_task-a_bold.json"):
        (tmp_path / name).write_text("{}")
    (func / "sub-01_task-a_run-1_bold.json").write_text("{}")
    found = sidecars(func / "sub-01_task-a_run-1_bold.nii.gz", tmp_path, "bold", ".json")
    assert [p.name for p in found] == [
        "task-a_bold.json", "sub-01_task-a_bold.json", "sub-01_task-a_run-1_bold.json"
    ]  # fmt: skip
    assert entities("sub-01_task-a_run-1_bold.nii.gz") == {"sub": "01", "task": "a", "run": "1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onset\tduration\ttrial_type\n0,5\t1\ta\n", "decimal-comma"),
        ("onset\tduration\ttrial_type\n0.5\t-1\ta\n", "negative duration"),
        ("time\tduration\n0.5\t1\n", "no onsets"),
        ("onset\tduration\ttrial_type\n1\t0\ta\n1\t0\ta\n", "there twice"),
        ("onset\tduration\ttrial_type\n1\t0\ta\n9000\t0\tb\n", r"milliseconds\?"),
    ],
)
def test_f19_bad_event_tables_are_refused(bids, text, message):
    for table in bids.rglob("*_events.tsv"):
        table.write_text(text)
    with pytest.raises(EventError, match=message):
        build(PlanSection(), SplitSection(), bids)


@pytest.mark.parametrize("text", ["onset\tduration\ttrial_type\n9000\t0\tb\n", None])
def test_a_recording_without_usable_events_is_a_problem_of_its_own(bids, text):
    name = "sub-01_task-words_run-1"
    table = bids / "sub-01" / "eeg" / f"{name}_events.tsv"
    if text is None:
        table.unlink()
    else:
        table.write_text(text)
    result = build(PlanSection(), SplitSection(), bids)
    assert list(result.attrs["problems"]) == [f"{name}_eeg"]
    problem = result.attrs["problems"][f"{name}_eeg"]
    assert ("has no events" if text is None else "outside the recording") in problem
    assert f"file: sub-01/eeg/{name}" in problem and str(bids) not in problem
    assert f"{name}_eeg" not in set(result.plan.events["recording"])


def test_a_recording_of_another_task_needs_no_events(bids, make):
    write, _ = make
    write(
        bids / "sub-01/eeg/sub-01_task-rest_eeg.vhdr",
        np.random.default_rng(9).normal(size=(4, 900)),
    )
    result = build(PlanSection(), SplitSection(), bids)
    assert result.attrs["problems"] == {}
    assert len(result.plan.recordings) == 7 and len(result.plan.events) == 120


def test_f19_few_events_outside_are_dropped_and_counted(bids, make):
    _, write_events = make
    onsets = [*(np.arange(30) * 0.7), 22.0, 500.0]
    write_events(
        bids / "sub-01/eeg/sub-01_task-words_run-1_events.tsv", onsets, ["cat", "dog"] * 16
    )
    result = build(PlanSection(), SplitSection(), bids)
    assert result.attrs["dropped_events"] == {"sub-01_task-words_run-1_eeg": 1}
    assert (result.plan.events["onset"] == 22.0).any()  # exactly at the end is inside


def test_f20_stimulus_files(bids, make):
    _, write_events = make
    (bids / "stimuli").mkdir()
    for name in ("a", "b", "twin"):
        (bids / "stimuli" / f"{name}.png").write_bytes(b"twin" if name != "a" else b"a")
    for events in bids.rglob("*_events.tsv"):
        write_events(events, [1, 2, 3, 4], ["a.png", "b.png", "twin.png", "stimuli/a.png"])
    section = PlanSection(stimuli={"picture": StimuliSpec(kind="image")})
    with pytest.raises(LeakageError, match="in training and in test"):
        build(section, SplitSection(), bids)
    plan = build(section, SplitSection(shared_stimuli="allow"), bids).plan
    assert len(plan.stimuli) == 2  # equal bytes are one stimulus
    (bids / "stimuli" / "b.png").unlink()
    with pytest.raises(MissingFileError, match="b.png"):
        build(section, SplitSection(shared_stimuli="allow"), bids)
    for events in bids.rglob("*_events.tsv"):
        write_events(events, [1, 2], ["../secret.png", "a.png"])
    with pytest.raises(UnsafePathError):
        build(section, SplitSection(shared_stimuli="allow"), bids)


def test_missing_column_and_level_name_what_is_there(bids):
    with pytest.raises(EventError, match="trial_type"):
        build(PlanSection(stimuli={"w": StimuliSpec(column="word")}), SplitSection(), bids)
    with pytest.raises(EventError, match="cow"):
        build(PlanSection(stimuli={"w": StimuliSpec(only=["cow"])}), SplitSection(), bids)


def test_where_keeps_only_events_with_a_value(bids):
    for events in bids.rglob("*_events.tsv"):
        lines = events.read_text().splitlines()
        rows = [lines[0] + "\tkind"] + [f"{x}\t{'ab'[i % 2]}" for i, x in enumerate(lines[1:])]
        events.write_text("\n".join(rows))
    spec = StimuliSpec(where={"kind": "a"})
    events = build(PlanSection(stimuli={"w": spec}), SplitSection(), bids).plan.events
    assert ((events["stimulus_w"] != "") == (events["kind"] == "a")).all()
    with pytest.raises(EventError, match="no column 'colour'"):
        build(PlanSection(stimuli={"w": StimuliSpec(where={"colour": "a"})}), SplitSection(), bids)


def test_f33_copies_are_found_whole_part_and_shifted(bids, make):
    write_brainvision, _ = make
    rng = np.random.default_rng(1)
    first = rng.normal(0, 10, (4, 2200))
    shifted = np.concatenate([rng.normal(0, 10, (4, 137)), first[:, :1500]], axis=1)
    run = "sub-{}_task-words_run-{}_eeg"
    write_brainvision(bids / f"sub-01/eeg/{run.format('01', 1)}.vhdr", first)
    write_brainvision(bids / f"sub-02/eeg/{run.format('02', 3)}.vhdr", shifted)
    with pytest.raises(DuplicateRecordingError, match="sub-01_task-words_run-1_eeg and sub-02_ta"):
        build(PlanSection(max_dropped_events=1), SplitSection(), bids)
    allowed = build(
        PlanSection(duplicates="allow", max_dropped_events=1), SplitSection(), bids
    ).attrs["duplicates"]
    ((a, b, share),) = allowed
    assert (a, b) == (run.format("01", 1), run.format("02", 3)) and 0.6 < share <= 1


def test_anchors_do_not_depend_on_blocks_or_position():
    rng = np.random.default_rng(2)
    signal = rng.normal(size=(5000, 3))
    whole = anchors([signal])
    assert np.array_equal(whole, anchors(np.array_split(signal, 7)))
    assert np.isin(anchors([signal[1111:]]), whole).all()
    assert 5000 / 32 * 0.6 < len(whole) < 5000 / 32 * 1.5
    assert len(anchors([np.zeros((5000, 3))])) == 0  # silence is no copy of silence
    assert find_copies({"a": whole, "b": anchors([rng.normal(size=(5000, 3))])}) == []


def test_real_copy_in_muse_is_found(shared_data):
    section = PlanSection(stimuli={"picture": StimuliSpec()})
    with pytest.raises(DuplicateRecordingError) as caught:
        build(section, SplitSection(), shared_data / "muse-n170")
    text = str(caught.value)
    assert "sub-03_ses-01_task-n170_run-02_eeg and sub-03_ses-02_task-n170_run-02_eeg" in text
    assert "[[plan.exclude]]" in text


def test_one_unreadable_recording_does_not_stop_the_plan(bids):
    header = bids / "sub-01/eeg/sub-01_task-words_run-1_eeg.vhdr"
    header.write_text("not a header")
    result = build(PlanSection(), SplitSection(), bids)
    assert list(result.attrs["problems"]) == ["sub-01_task-words_run-1_eeg"]
    assert len(result.plan.events) == 100
    for header in bids.rglob("*.vhdr"):
        header.write_text("not a header")
    with pytest.raises(DataError, match="no recording can be opened"):
        build(PlanSection(), SplitSection(), bids)


def test_simulated_data_is_known_as_such(bids):
    (bids / "dataset_description.json").write_text('{"Name": "x", "SimulatedData": true}')
    assert build(PlanSection(), SplitSection(), bids).plan.data_origin == "simulated"
