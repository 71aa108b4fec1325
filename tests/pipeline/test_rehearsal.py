"""Published recipes: read as they are, and run on simulated people, small, from one command."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.cli import main
from braindecode_pipe.errors import InputError
from braindecode_pipe.pipeline.findings import plan_findings
from braindecode_pipe.pipeline.rehearsal import REHEARSALS
from braindecode_pipe.recipe import load_recipe, recipe_toml
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import store_attrs

NAMES = ("speech_meg", "speech_eeg", "images_meg", "images_eeg", "images_fmri")
TINY = {"n_subjects": 1, "n_eeg": 12, "n_meg": 24, "sfreq": 125.0}


def test_every_published_design_has_its_rehearsal():
    assert tuple(REHEARSALS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_rehearsal_changes_what_it_lists_and_is_written_as_it_runs(name, tmp_path):
    published, small = load_recipe(name), load_recipe(name, REHEARSALS[name].overrides)
    # What makes the design is that of the paper: split, windows, decoder, loss.
    for part in ("by", "segment_s", "within_subject", "overlap"):
        assert getattr(small.split, part) == getattr(published.split, part)
    assert small.train.windows == published.train.windows
    assert small.train.decoders == published.train.decoders
    assert small.train.loss == published.train.loss
    assert small.preprocess == published.preprocess
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(small), encoding="utf-8")
    assert load_recipe(file) == small


def test_the_paper_of_speech():
    """Numbers of Defossez et al. 2023, as its recipe has them."""
    recipe = load_recipe("speech_meg")
    windows, table = recipe.train.windows, recipe.embed["word"]
    assert (windows.tmin, windows.tmax, windows.baseline, windows.delay) == (
        -0.5, 2.5, (-0.5, 0.0), 0.15
    )  # fmt: skip
    assert recipe.preprocess.emeg.sfreq == table.step_sfreq == 120.0
    assert (recipe.preprocess.emeg.scaler, recipe.preprocess.emeg.clamp) == ("robust", 20.0)
    assert table.layer == [14, 15, 16, 17, 18] and table.context == "file"
    assert (recipe.train.lr, recipe.train.batch_size, recipe.train.loss) == (3e-4, 256, "clip")
    assert recipe.split.fractions == [0.7, 0.1, 0.2]


def test_only_published_designs_are_rehearsed(tmp_path, capsys):
    with pytest.raises(InputError, match="no rehearsal"):
        pipeline.rehearse("eeg_faces", tmp_path)
    assert main(["demo", "eeg_faces", "--out", str(tmp_path)]) == 2
    assert "speech_meg | speech_eeg | images_meg" in capsys.readouterr().err


def test_speech_of_simulated_people_end_to_end(tmp_path):
    """The split of the paper on stories: sentences, borders, steps of sound, and a result."""
    arguments = {
        "quiet": True,
        "settings": {**TINY, "n_pictures": 24, "n_words": 10, "n_stories": 2, "n_sentences": 16},
        "overrides": (
            'train.decoders=["ridge"]', "train.windows.sfreq=10.0", "embed.word.step_sfreq=4.0",
            "split.segment_s=3.0", "report.qc=false",
        ),
    }  # fmt: skip
    result = pipeline.rehearse("speech_eeg", tmp_path, **arguments)
    assert not result.failed, [row.error for row in result.failed]
    attrs = store_attrs(next((tmp_path / "speech_eeg" / "plan" / "study").glob("*.zarr")))
    plan = StudyPlan.load(next((tmp_path / "speech_eeg" / "plan" / "study").glob("*.zarr")))
    assert len(plan.folds) == 1 and set(plan.events["trial_type"]) == {"word"}
    assert set(np.unique(plan.role)) == set(ROLES.values()) - {0}
    n_purged = int((plan.role == ROLES["purged"]).sum())
    assert attrs["purged"] == {"fold-01": [n_purged, len(plan.events)]}
    told = [f.text for f in plan_findings(attrs) if "left out" in f.text]
    assert told[0].endswith(f"are left out: {n_purged} of {len(plan.events)} in fold fold-01")
    sentence = plan.events.assign(role=plan.role[0]).query("role != 4")
    assert (sentence.groupby(["sound", "sentence"])["role"].nunique() == 1).all()
    assert {row.stage: row.status for row in result.rows}["report"] == "done"
    again = pipeline.rehearse("speech_eeg", tmp_path, **arguments)
    assert again.up_to_date


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_designs_run_from_one_command(name, tmp_path):
    assert main(["demo", name, "--out", str(tmp_path), "--quiet"]) == 0
    assert (tmp_path / name / "report.html").is_file()
    scores = store_attrs(next((tmp_path / name / "evaluate").glob("*/*.zarr")))
    assert scores["data_origin"] == "simulated"
