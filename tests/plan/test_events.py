"""Events from tables, stim channels and annotations, and the table beside the device's triggers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import EventError
from braindecode_pipe.plan import build
from braindecode_pipe.plan.events import read_events
from braindecode_pipe.plan.triggers import read_triggers
from braindecode_pipe.recipe import PlanSection, SplitSection

SFREQ = 500.0
NAME = "sub-01_task-x_run-1"


def write_fif(path: Path, onset, code, duration=80.0, first_samp=0, pulse=4, channel="STI 014"):
    """A recording with two magnetometers and a stim channel."""
    import mne

    rng = np.random.default_rng(0)
    n = round(duration * SFREQ)
    data = np.zeros((3, n))
    data[:2] = rng.normal(0, 1e-13, (2, n))
    for sample, value in zip(np.round(np.asarray(onset) * SFREQ).astype(int), code):
        data[2, sample : sample + pulse] = int(value)
    info = mne.create_info(["MEG0111", "MEG0121", channel], SFREQ, ["mag", "mag", "stim"])
    raw = mne.io.RawArray(data, info, first_samp=first_samp, verbose="error")
    path.parent.mkdir(parents=True, exist_ok=True)
    raw.save(path, verbose="error", overwrite=True)


@pytest.fixture
def study(tmp_path):
    """100 trials of two kinds with irregular intervals, as the device saw them."""

    def make(edit=None, first_samp=1234, columns=("trial_type",)):
        rng = np.random.default_rng(3)
        onset = 1 + np.round(np.cumsum(rng.uniform(0.6, 0.8, 100)) * SFREQ) / SFREQ
        code = rng.integers(1, 3, 100)
        path = tmp_path / "sub-01" / "meg" / f"{NAME}_meg.fif"
        write_fif(path, onset, code, first_samp=first_samp)
        kind = np.where(code == 1, "face", "house")
        table = pd.DataFrame({"onset": onset, "duration": 0.3, "trial_type": kind})
        table["item"] = np.arange(100)
        table = edit(table) if edit else table
        table.to_csv(path.with_name(f"{NAME}_events.tsv"), sep="\t", index=False)
        return tmp_path, onset, code

    return make


def events_of(root, repairs=(), **settings):
    section = PlanSection(**settings)
    recording = {
        "recording": f"{NAME}_meg", "path": f"sub-01/meg/{NAME}_meg.fif", "datatype": "meg",
        "subject": "01", "session": "", "run": "1", "duration": 80.0, "sfreq": SFREQ,
    }  # fmt: skip
    table = read_events(section, recording, root, repairs)
    return table, table.attrs["matching"]


def test_an_honest_table_is_left_alone(study):
    root, onset, _ = study()
    table, report = events_of(root)
    assert report["status"] == "agree" and report["n_matched"] == 100
    assert np.array_equal(table["onset"], onset)
    assert report["source"] == "STI 014" and report["label_agreement"] == 1


def test_f20_a_shift_by_one_trial_is_detected_and_undone(study):
    def shift(table):
        later = np.r_[table["onset"][1:], table["onset"].iloc[-1] + 0.7]
        return table.assign(onset=later)

    root, onset, _ = study(shift)
    table, report = events_of(root)
    assert report["status"] == "device" and report["trial_shift"] == -1
    assert "shifted by -1 trial" in report["message"]
    # Every row's onset was that of the next trial, and so is its trigger: what was presented when
    # the trigger came stands in the row before, as the codes say.
    assert report["label_agreement"] == 1
    assert np.abs(table["onset"].to_numpy() - onset).max() < 0.002


def test_f20_labels_beside_their_trials_are_detected(study):
    def shift(table):
        return table.assign(
            trial_type=np.roll(table["trial_type"], 1), item=np.roll(table["item"], 1)
        )

    root, onset, code = study(shift)
    table, report = events_of(root)
    assert report["trial_shift"] == -1 and report["status"] == "device"
    table["item"] = table["item"].astype(int)
    inside = table[(table["item"] > 0) & (table["item"] < 98)]
    told = np.where(code == 1, "face", "house")
    for row in inside.itertuples():
        number = int(np.argmin(np.abs(onset - row.onset)))
        assert row.item == number and row.trial_type == told[number]


def test_f20_drift_and_offset_are_fitted_and_reported(study):
    root, onset, _ = study(lambda t: t.assign(onset=(t["onset"] - 2.5) / (1 + 200e-6)))
    table, report = events_of(root)
    assert report["status"] == "device"
    assert report["drift_ms_per_min"] == pytest.approx(12.0, rel=0.05)
    assert report["offset_s"] == pytest.approx(2.5, abs=2e-3)
    assert np.abs(table["onset"].to_numpy() - onset).max() < 1e-9
    assert "drift +12" in report["message"] and "device's triggers are used" in report["message"]


def test_lost_triggers_get_the_onset_of_the_clock(study, tmp_path):
    root, onset, code = study(lambda t: t.assign(onset=t["onset"] + 0.2))
    lost = [10, 50, 51, 99]
    path = root / "sub-01" / "meg" / f"{NAME}_meg.fif"
    write_fif(path, np.delete(onset, lost), np.delete(code, lost))
    table, report = events_of(root)
    assert report["n_without_trigger"] == 4 and report["n_matched"] == 96
    assert np.abs(table["onset"].to_numpy() - onset).max() < 2e-3
    kept, said = events_of(root, event_source="table")
    assert said["status"] == "table" and np.allclose(kept["onset"], onset + 0.2)


def test_a_table_of_other_events_stands(study):
    rng = np.random.default_rng(8)
    words = np.sort(rng.uniform(0, 79, 100))
    root, _, _ = study(lambda t: t.assign(onset=words))
    table, report = events_of(root)
    assert report["status"] == "not comparable" and np.array_equal(table["onset"], words)


def test_codes_say_what_a_trigger_was(study):
    def mislabel(table):
        kind = table["trial_type"].to_numpy(object).copy()
        kind[[3, 40]] = np.where(kind[[3, 40]] == "face", "house", "face")
        return table.assign(trial_type=kind)

    root, _, code = study(mislabel)
    _, report = events_of(root)
    assert report["status"] == "agree" and "2 triggers have another code" in report["message"]
    table, report = events_of(root, event_codes={"1": "face", "2": "house"})
    assert report["relabelled"] == 2
    assert table["trial_type"].tolist() == np.where(code == 1, "face", "house").tolist()


def test_stim_channel_alone(study):
    root, onset, code = study(first_samp=77)
    table, _ = events_of(root, event_source="stim", event_codes={"1": "face"})
    assert set(table["trial_type"]) == {"face"} and len(table) == (code == 1).sum()
    assert np.allclose(table["onset"], onset[code == 1])
    (root / "sub-01" / "meg" / f"{NAME}_events.tsv").unlink()
    table, report = events_of(root)
    assert len(table) == 100 and set(table["trial_type"]) == {"1", "2"} and report is None
    with pytest.raises(EventError, match="no such trigger"):
        events_of(root, event_source="stim", event_codes={"9": "x"})
    with pytest.raises(EventError, match="no such stim channel"):
        events_of(root, event_source="stim", stim_channel="STI999")
    with pytest.raises(EventError, match="no event table"):
        events_of(root, event_source="table")


def test_stim_settings_reach_mne(tmp_path):
    path = tmp_path / "x_raw.fif"
    write_fif(path, [1.0, 2.0], [5, 0x105], pulse=3)
    assert read_triggers(PlanSection(), path).code.tolist() == ["5", "261"]
    assert read_triggers(PlanSection(stim_mask=255), path).code.tolist() == ["5", "5"]
    assert len(read_triggers(PlanSection(stim_min_duration_s=0.02), path)) == 0


def test_edf_status_channel(shared_data):
    folder = shared_data / "formats" / "mne-io" / "edf" / "tests" / "data"
    found = read_triggers(PlanSection(), folder / "test_bdf_stim_channel.bdf", "stim")
    assert found.source == "Status" and len(found) > 0
    assert (np.diff(found.onset) > 0).all() and all(c.isdigit() for c in found.code)


def test_brainvision_markers_are_compared(shared_data):
    section = PlanSection(subjects=["01"], runs=["01"])
    attrs = build(section, SplitSection(by="time"), shared_data / "muse-n170").attrs
    (report,) = attrs["event_matching"].values()
    assert report["status"] == "agree" and report["source"] == "annotations"
    assert report["n_matched"] == report["n_table"] == 197


# --- outside, unsorted ----------------------------------------------------------------------------


def test_f19_events_lost_in_the_middle_are_an_error(bids, make):
    _, write_events = make
    onsets = np.arange(40) * 0.5
    onsets[20] = 1000.0  # between events that are inside: no recording that was cut short
    for table in bids.rglob("*_events.tsv"):
        write_events(table, onsets, ["cat", "dog"] * 20)
    with pytest.raises(EventError, match="1 of 40 outside between events inside it"):
        build(PlanSection(), SplitSection(), bids)
    attrs = build(PlanSection(max_dropped_middle=0.03), SplitSection(), bids).attrs
    assert set(attrs["dropped_events"].values()) == {1}
    assert set(attrs["unsorted_events"].values()) == {1}


def test_f19_unsorted_events_are_sorted_with_their_labels(bids, make):
    _, write_events = make
    table = bids / "sub-01/eeg/sub-01_task-words_run-1_events.tsv"
    write_events(table, [3, 1, 2, 4], ["c", "a", "b", "d"])
    result = build(PlanSection(), SplitSection(), bids)
    own = result.plan.events[result.plan.events["recording"] == "sub-01_task-words_run-1_eeg"]
    assert own["trial_type"].tolist() == ["a", "b", "c", "d"]
    assert own["event"].str[-1].tolist() == ["1", "2", "0", "3"]
    assert result.attrs["unsorted_events"] == {"sub-01_task-words_run-1_eeg": 1}


# --- repairs while reading -----------------------------------------------------------------------


def edit_text(root: Path, change) -> Path:
    file = root / "sub-01" / "meg" / f"{NAME}_events.tsv"
    file.write_text(change(file.read_text()))
    return file


def test_decimal_commas_are_read_as_points_where_the_recipe_asks(study):
    whole = events_of(study()[0])[0]
    root, _, _ = study(lambda t: t.assign(said='"so, he said"'))
    file = edit_text(root, lambda text: text.replace(".", ","))
    before = file.read_bytes()
    with pytest.raises(EventError, match=r'preprocess.emeg.repairs = \["decimal-comma"\]'):
        events_of(root)
    with pytest.raises(EventError, match="decimal-comma"):
        events_of(root, repairs=("negative-durations",))
    table, _ = events_of(root, repairs=("decimal-comma",))
    assert table.attrs["repaired"] == [f"{NAME}_events.tsv: decimal commas in onset, duration"]
    assert set(table.pop("said")) == {'"so, he said"'}, "a comma in a text is a comma"
    pd.testing.assert_frame_equal(table, whole)
    assert file.read_bytes() == before


@pytest.mark.parametrize("column", ["duration", "length"])
def test_negative_durations_become_zero_where_the_recipe_asks(column, study):
    def edit(table):
        table.loc[[3, 7], "duration"] = -0.5
        return table.rename(columns={"duration": column})

    root, _, _ = study(edit)
    columns = {} if column == "duration" else {column: "duration"}
    with pytest.raises(EventError, match=r'repairs = \["negative-durations"\]'):
        events_of(root, columns=columns)
    table, _ = events_of(root, repairs=("negative-durations",), columns=columns)
    assert np.flatnonzero(table["duration"] == 0).tolist() == [3, 7]
    assert table.attrs["repaired"] == [f"{NAME}_events.tsv: 2 negative durations are 0 s"]


def test_the_encoding_of_a_table_is_repaired_where_the_recipe_asks(study):
    root, _, _ = study()
    file = edit_text(root, lambda text: text)
    file.write_bytes(file.read_text().replace("face", "Gefäß").encode("cp1252"))
    with pytest.raises(EventError, match=r'repairs = \["text-encoding"\]'):
        events_of(root)
    with pytest.raises(EventError, match=r'repairs = \["text-encoding"\]'):
        events_of(root, repairs=("decimal-comma",))
    table, _ = events_of(root, repairs=("text-encoding",))
    assert set(table["trial_type"]) == {"Gefäß", "house"}
