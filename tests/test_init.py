"""Looking at data sets, and the recipes that are written for them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from braindecode_pipe import pipeline
from braindecode_pipe.errors import MissingFileError
from braindecode_pipe.inspect import describe_survey, open_events, survey, write_recipe
from braindecode_pipe.plan import run as plan
from braindecode_pipe.recipe import Recipe, parse_recipe


def shown(found) -> str:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(describe_survey(found))
    return capture.get()


def written(found) -> tuple[str, Recipe]:
    text = write_recipe(found)
    return text, parse_recipe(text, "recipe.toml")


def errors(recipe: Recipe, data: Path) -> list[str]:
    return [finding.text for finding in pipeline.check(recipe, data) if finding.severity == "error"]


def parcels(
    data: Path, subject: str, run: str, events: str, *, n_times: int = 200, seed: int = 0
) -> Path:
    """One run of parcel time series (TR 1 s) with its events."""
    folder = data / f"sub-{subject}" / "func"
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"sub-{subject}_task-look_run-{run}"
    rng = np.random.default_rng([seed, int(subject), int(run)])
    rows = ["a\tb\tc"] + [
        "\t".join(f"{v:.6f}" for v in row) for row in rng.normal(size=(n_times, 3))
    ]
    Path(f"{stem}_timeseries.tsv").write_text("\n".join(rows) + "\n")
    Path(f"{stem}_timeseries.json").write_text(json.dumps({"RepetitionTime": 1.0}))
    Path(f"{stem}_events.tsv").write_text(events)
    return Path(f"{stem}_timeseries.tsv")


def events_table(columns: str, rows: list[str], step: float = 10.0, duration: float = 3.0) -> str:
    lines = [f"onset\tduration\t{columns}"]
    lines += [f"{5 + step * i}\t{duration}\t{row}" for i, row in enumerate(rows)]
    return "\n".join(lines) + "\n"


# --- real recordings -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["haxby2001-slice", "haxby2001-lowres"])
def test_block_design_fmri(name, shared_data):
    found = survey(shared_data / name)
    assert len(found.recordings) == 12
    assert found.columns["trial_type"].levels["face"] == 12
    assert found.copies == [] and found.problems == []
    assert "01      bold" in shown(found)
    text, recipe = written(found)
    assert recipe.split.by == "run" and recipe.split.n_folds == 0
    assert recipe.train.windows.delay == "estimate"
    assert (recipe.train.windows.reduce, recipe.train.windows.tmax) == ("mean", None)
    assert recipe.embed["trial_type"].model == "one-hot"
    assert ("desc-brain_mask" in text) == (name == "haxby2001-lowres")
    assert errors(recipe, shared_data / name) == []


def test_copies_of_recordings_are_pointed_out_not_excluded(shared_data):
    data = shared_data / "muse-n170"
    found = survey(data)
    pair = ("sub-03_ses-01_task-n170_run-02_eeg", "sub-03_ses-02_task-n170_run-02_eeg")
    assert found.copies == [pair]
    assert f"Copies: {pair[0]} and {pair[1]} hold the same bytes" in shown(found)
    text, recipe = written(found)
    assert recipe.plan.exclude == []
    assert recipe.preprocess.emeg.montage == "" and "montage" not in text
    (stopped,) = errors(recipe, data)
    assert "recordings hold the same samples" in stopped
    block = re.search(r"# \[\[plan.exclude\]\]\n# recording = .*\n# reason = .*\n", text)[0]
    mended = parse_recipe(text.replace(block, block.replace("# ", "")), "recipe.toml")
    assert [e.recording for e in mended.plan.exclude] == [pair[1]]
    assert errors(mended, data) == []
    assert mended.split.by == "run"
    assert (mended.train.windows.tmin, mended.train.windows.tmax) == (-0.1, 0.8)
    assert mended.train.windows.sfreq == 20.0


def test_loose_epochs(shared_data):
    found = survey(shared_data / "n400-words")
    assert list(found.recordings["datatype"]) == ["epochs"]
    assert found.columns["trial_type"].levels == {"related": 100, "unrelated": 100}
    _, recipe = written(found)
    assert recipe.plan.files == ["**/*_epo.fif"]
    emeg = recipe.preprocess.emeg
    assert (emeg.l_freq, emeg.h_freq, emeg.sfreq) == (None, None, None)
    # A pause of six minutes leaves most of five blocks empty.
    assert (recipe.split.by, recipe.split.n_folds) == ("time", 20)
    assert errors(recipe, shared_data / "n400-words") == []


def test_words_of_a_story(shared_data):
    found = survey(shared_data / "story-parcels")
    assert list(found.recordings["datatype"]) == ["parcels"]
    assert len(found.columns["word"].levels) == 494
    _, recipe = written(found)
    assert recipe.plan.stimuli["word"].column == "word"
    assert recipe.embed["word"].model == "minilm"
    assert (recipe.split.by, recipe.split.overlap) == ("time", "purge")
    assert recipe.train.windows.tmax == 4.0
    assert errors(recipe, shared_data / "story-parcels") == []


def test_too_few_events_are_told(shared_data):
    data = shared_data / "formats" / "tiny_bids"
    found = survey(data)
    assert dict(found.columns["trial_type"].levels) == {"start_experiment": 1, "show_stimulus": 1}
    text, recipe = written(found)
    assert "there is nothing to decode yet" in text
    assert errors(recipe, data) != []


def test_many_formats_in_one_folder(shared_data):
    found = survey(shared_data / "formats")
    assert {"eeg", "meg"} <= set(found.recordings["datatype"])
    assert re.search(r"and \d+ more", shown(found))
    _, recipe = written(found)
    assert recipe.plan.datatypes == ["eeg"]


def test_nothing_there(tmp_path):
    with pytest.raises(MissingFileError, match="found: an empty folder"):
        survey(tmp_path)
    with pytest.raises(MissingFileError, match="does not exist"):
        survey(tmp_path / "no")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(MissingFileError, match=r"found: notes\.txt"):
        survey(tmp_path)


# --- what is chosen ------------------------------------------------------------------------------


def test_pictures_that_are_there_are_decoded_as_pictures(tmp_path):
    (tmp_path / "stimuli").mkdir()
    names = [f"p{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(tmp_path / "stimuli" / name)
    rows = [f"show\t{name}\t{'animal' if i % 2 else 'tool'}" for i, name in enumerate(names)]
    for run in "12":
        parcels(tmp_path, "01", run, events_table("trial_type\tstim_file\tcategory", rows))
    found = survey(tmp_path)
    column = found.columns["stim_file"]
    assert (column.kind, column.folder, column.missing) == ("image", "stimuli", ())
    assert "10 found, 0 missing" in shown(found)
    _, recipe = written(found)
    spec = recipe.plan.stimuli["picture"]
    assert (spec.kind, spec.column, spec.category_column) == ("image", "stim_file", "category")
    assert recipe.embed["picture"].model == "efficientnet-lite0"
    assert recipe.split.by == "stimulus"
    assert errors(recipe, tmp_path) == []

    (tmp_path / "stimuli" / "p3.png").unlink()
    found = survey(tmp_path)
    assert found.columns["stim_file"].missing == ("p3.png",)
    assert "Missing: p3.png, named in column stim_file" in shown(found)
    _, recipe = written(found)
    assert list(recipe.plan.stimuli) == ["category"]
    assert errors(recipe, tmp_path) == []


def test_file_names_never_leave_the_data_set(tmp_path):
    data = tmp_path / "data"
    (tmp_path / "secret.png").write_bytes(b"x")
    parcels(data, "01", "1", events_table("stim_file", ["../secret.png", "../../etc/a.png"]))
    assert len(survey(data).columns["stim_file"].missing) == 2


def test_rest_buttons_and_rare_levels_are_dropped(tmp_path):
    rows = ["face", "house", "rest", "button_press", "face", "house", "rest"]
    for run in "123":
        extra = ["oops"] if run == "3" else []
        parcels(tmp_path, "01", run, events_table("trial_type", rows + extra))
    _, recipe = written(survey(tmp_path))
    assert sorted(recipe.plan.stimuli["trial_type"].drop) == ["button_press", "oops", "rest"]
    assert recipe.split.by == "run"
    assert errors(recipe, tmp_path) == []


def test_names_from_the_data_become_no_settings(tmp_path):
    evil = '"face\n[split]\nby = ""subject"""'
    rows = [evil, "\x1b[31mhouse"] * 3
    for run in "123":
        parcels(
            tmp_path, "01", run, events_table('trial_type\t"a\nx = 1"', [f"{r}\t1" for r in rows])
        )
    found = survey(tmp_path)
    assert any("\n" in level for level in found.columns["trial_type"].levels)
    assert "\x1b" not in shown(found)
    text, recipe = written(found)
    assert recipe.split.by == "run"
    assert "\x1b" not in text
    assert errors(recipe, tmp_path) == []


def test_people_with_few_runs_are_split_in_time(tmp_path):
    for subject, runs in (("01", "123"), ("02", "1")):
        for run in runs:
            rows = ["face", "house"] * 8
            parcels(tmp_path, subject, run, events_table("trial_type", rows))
    _, recipe = written(survey(tmp_path))
    assert recipe.split.by == "time"
    assert errors(recipe, tmp_path) == []


def test_many_runs_are_dealt_into_ten_folds(tmp_path):
    for run in range(1, 23):
        rows = ["face", "house"] * 2
        parcels(tmp_path, "01", str(run), events_table("trial_type", rows), n_times=60)
    _, recipe = written(survey(tmp_path))
    assert (recipe.split.by, recipe.split.n_folds) == ("run", 10)
    assert errors(recipe, tmp_path) == []


def test_the_recipe_runs(tmp_path):
    for run in "123":
        rows = ["face", "house", "rest"] * 5
        parcels(tmp_path / "data", "01", run, events_table("trial_type", rows))
    _, recipe = written(survey(tmp_path / "data"))
    result = pipeline.run(recipe, tmp_path / "data", tmp_path / "out", until="evaluate", quiet=True)
    assert result.failed == []
    assert [row.unit for row in result.rows if row.stage == "evaluate"] == ["trial_type"]


def test_preprocessed_images_are_taken_in_one_space(tmp_path):
    (tmp_path / "dataset_description.json").write_text(
        json.dumps({"Name": "Faces", "License": "CC0"})
    )
    rng = np.random.default_rng(0)
    for run in "123":
        raw = tmp_path / "sub-01" / "func"
        raw.mkdir(parents=True, exist_ok=True)
        stem = f"sub-01_task-look_run-{run}"
        table = events_table("trial_type", ["face", "house"] * 3, duration=6.0)
        (raw / f"{stem}_events.tsv").write_text(table)
        done = tmp_path / "derivatives" / "fmriprep" / "sub-01" / "func"
        done.mkdir(parents=True, exist_ok=True)
        for space in ("T1w", "MNI152NLin2009cAsym"):
            image = nibabel.Nifti1Image(
                rng.normal(100, 1, (4, 4, 3, 40)).astype(np.float32), np.eye(4)
            )
            image.header.set_zooms((3, 3, 3, 2))
            image.header.set_xyzt_units("mm", "sec")
            nibabel.save(image, done / f"{stem}_space-{space}_desc-preproc_bold.nii.gz")
        header = "trans_x\ttrans_y\ttrans_z\trot_x\trot_y\trot_z\tcsf\n"
        (done / f"{stem}_desc-confounds_timeseries.tsv").write_text(
            header + "0\t0\t0\t0\t0\t0\t1\n" * 40
        )
    found = survey(tmp_path)
    assert set(found.recordings["source"]) == {"fmriprep"}
    assert "bold (fmriprep)" in shown(found)
    _, recipe = written(found)
    assert recipe.study.license == "CC0"
    assert recipe.plan.derivatives == "fmriprep"
    assert all("MNI152NLin2009cAsym" in pattern for pattern in recipe.plan.files)
    assert recipe.preprocess.bold.confounds[:2] == ["trans_x", "trans_y"]
    assert errors(recipe, tmp_path) == []


def test_unreadable_recordings_are_told_and_left_out(tmp_path):
    for run in "123":
        parcels(tmp_path, "01", run, events_table("trial_type", ["face", "house"] * 3))
    broken = tmp_path / "sub-02" / "eeg" / "sub-02_task-look_eeg.edf"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no recording")
    wrong = parcels(tmp_path, "03", "1", "onset\tduration\ttrial_type\nsoon\t1\tface\n")
    found = survey(tmp_path)
    assert any("sub-02_task-look_eeg" in problem for problem in found.problems)
    assert any(wrong.stem in p and "no number" in p for p in found.problems)
    assert "Problem: sub-02_task-look_eeg" in shown(found)
    _, recipe = written(found)
    assert recipe.plan.datatypes == ["parcels"]


def test_open_events_wants_a_plan(tmp_path):
    with pytest.raises(MissingFileError, match="there is no plan"):
        open_events(tmp_path)


def test_open_events_takes_the_plan_that_was_written_last(tmp_path):
    for number in "123":
        parcels(tmp_path / "data", "01", number, events_table("trial_type", ["face", "house"] * 3))
    _, recipe = written(survey(tmp_path / "data"))
    first = tmp_path / "out" / "plan" / "study" / "b.zarr"
    second = tmp_path / "out" / "plan" / "study" / "a.zarr"
    for store, runs in ((first, ["1", "2", "3"]), (second, ["1", "2"])):
        section = recipe.plan.model_copy(update={"runs": runs})
        plan(section=section, split=recipe.split, data=tmp_path / "data", out=store)
    assert len(open_events(first)) == 18
    assert len(open_events(tmp_path / "out")) == 12
    assert list(open_events(second)["trial_type"].unique()) == ["face", "house"]
