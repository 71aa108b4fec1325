from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from braindecode_pipe.errors import DiskFullError, InputError
from braindecode_pipe.plan.events import read_events
from braindecode_pipe.plan.recordings import find_recordings
from braindecode_pipe.recipe import PlanSection
from braindecode_pipe.simulate import Settings, dataset, is_current, simulate, simulate_tiny


def digests(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_equal_seeds_give_equal_bytes(study, study_settings, tmp_path):
    simulate_tiny(tmp_path / "again", **study_settings)
    one, again = digests(study), digests(tmp_path / "again")
    assert one == again and len(one) > 60
    simulate_tiny(tmp_path / "other", **{**study_settings, "seed": 8})
    other = digests(tmp_path / "other")
    recordings = [f for f in one if f.endswith((".eeg", ".fif", "bold.nii.gz"))]
    assert len(recordings) == 6 and all(one[f] != other[f] for f in recordings)


def test_other_modalities_do_not_change_a_recording(study, study_settings, tmp_path):
    simulate_tiny(tmp_path / "eeg", **{**study_settings, "modalities": "eeg"})
    both, alone = digests(study), digests(tmp_path / "eeg")
    shared = [f for f in alone if "/eeg/" in f or f.startswith("stimuli")]
    assert len(shared) > 20 and all(both[f] == alone[f] for f in shared)
    assert not any("/meg/" in f or f.startswith("derivatives") for f in alone)


def test_plan_takes_it_for_simulated(study):
    table = find_recordings(PlanSection(datatypes=["eeg", "meg"]), study)
    assert len(table) == 4 and set(table["data_origin"]) == {"simulated"}
    assert set(table["problem"]) == {""}
    section = PlanSection(datatypes=["bold"], derivatives="fmriprep")
    table = find_recordings(section, study)
    assert len(table) == 2 and set(table["data_origin"]) == {"simulated"}
    events = read_events(section, table.iloc[0].to_dict(), study)
    assert set(events["trial_type"]) == {"picture", "word"}


def test_description_and_truth(study, truth):
    description = json.loads((study / "dataset_description.json").read_text(encoding="utf-8"))
    assert description["SimulatedData"] is True and description["DatasetType"] == "raw"
    assert description["GeneratedBy"][0]["Name"] == "braindecode_pipe simulate"
    assert "CC BY-SA 4.0" in description["License"]
    assert set(truth["optimal_decoder"]) == {"eeg", "meg", "bold"}
    for result in truth["optimal_decoder"].values():
        assert result["ci"][0] <= result["top1"] <= result["ci"][1]
        assert result["n_candidates"] == 20 and result["n_trials"] in (120, 40)
        assert result["top1_by_n_candidates"]["2"] >= result["top1_by_n_candidates"]["20"]
    assert truth["settings"]["seed"] == 7 and truth["snr"]["meg"] == 0.5
    for path in (study / "truth").glob("*.npz"):
        with np.load(path) as arrays:  # without pickle
            assert all(arrays[name].dtype.kind in "fUbi" for name in arrays.files)
    assert not any("partial" in p.name for p in study.parent.iterdir())


def test_same_simulation_is_not_made_twice(study, study_settings, monkeypatch):
    def fail(*_):
        raise AssertionError("simulated again")

    monkeypatch.setattr(dataset, "_write", fail)
    simulate_tiny(study, **study_settings)
    assert not is_current(study, Settings(seed=99))


def test_other_content_is_not_overwritten(study, tmp_path):
    before = digests(study)
    with pytest.raises(InputError, match="found: other files or other settings"):
        simulate(study, seed=99)
    assert digests(study) == before
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="found: a file"):
        simulate(tmp_path / "file")


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_simulate", stop)
    with pytest.raises(KeyboardInterrupt):
        simulate_tiny(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFullError),
                                            (errno.EACCES, InputError)])  # fmt: skip
def test_unwritable_folder_is_named(tmp_path, monkeypatch, code, kind):
    def fail(*_):
        raise OSError(code, "cannot")

    monkeypatch.setattr(dataset, "_write", fail)
    with pytest.raises(kind, match="the simulation cannot be written") as caught:
        simulate_tiny(tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"n_subjects": 0}, "n_subjects cannot be used"),
        ({"n_pictures": 1}, "n_pictures cannot be used"),
        ({"n_runs": 30, "n_pictures": 20}, "expected: no more than n_pictures"),
        ({"snr": -1.0}, "snr cannot be used"),
        ({"snr": float("nan")}, "snr cannot be used"),
        ({"snr": {"eeg": 1.0}}, "one value per modality"),
        ({"modalities": ("ecg",)}, "one or more of eeg, meg, bold"),
        ({"modalities": ()}, "modalities cannot be used"),
        ({"n_eeg": 65}, "expected: 8 ... 64"),
        ({"n_meg": 31}, "a multiple of 3"),
        ({"sfreq": 90.0}, "more than twice line_freq"),
        ({"soa": 0.3}, "0.6 s or more"),
        ({"t_r": 0.0}, "more than 0 s"),
        ({"bold_interval": 1.0}, "t_r or more"),
        ({"grid": (4, 10, 10)}, "three numbers >= 6"),
        ({"blinks": -1.0}, "blinks cannot be used"),
        ({"drift": float("inf")}, "drift cannot be used"),
        ({"n_bad": 17}, "expected: 16 or fewer of 64 sensors"),
    ],
)
def test_settings_out_of_range(settings, text):
    with pytest.raises(InputError, match=text):
        Settings(**settings)


def test_snr_per_modality():
    settings = Settings(modalities=["eeg", "bold"], snr={"eeg": 0.1, "bold": 0.4})
    assert settings.snr_of("bold") == 0.4
    assert json.loads(json.dumps(settings.as_json()))["snr"] == {"eeg": 0.1, "bold": 0.4}


def test_import_is_light():
    code = (
        "import sys, braindecode_pipe.simulate\n"
        "print([m for m in ('mne', 'mne_bids', 'torch', 'nilearn', 'nibabel', 'PIL', 'scipy')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
