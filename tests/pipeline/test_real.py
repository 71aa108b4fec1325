"""The shipped recipes on the small real recordings, with the decoder that is quick.

The bounds come from the READMEs of those recordings: what a plain linear model reaches there.
"""

from __future__ import annotations

import json

import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.errors import DuplicateRecordingError
from braindecode_pipe.plan import build
from braindecode_pipe.recipe import load_recipe
from braindecode_pipe.store import store_attrs

pytestmark = pytest.mark.data

QUICK = (
    'train.decoders=["ridge"]', "train.select=false", "train.zero_shot='none'",
    "evaluate.bootstrap=200", "evaluate.permutations=500",
)  # fmt: skip


@pytest.fixture
def evaluate(shared_data, tmp_path):
    """Run a recipe up to its numbers: (result, records, attributes of each evaluation)."""

    def run(name: str, folder: str, *overrides: str):
        result = pipeline.run(
            load_recipe(name, [*QUICK, *overrides]), shared_data / folder, tmp_path / "out",
            until="evaluate", quiet=True, ledger=tmp_path / "ledger",
        )  # fmt: skip
        assert [(row.unit, row.error) for row in result.failed] == []
        records, attrs = {}, {}
        for row in result.rows:
            if row.stage == "evaluate":
                records[row.unit] = json.loads((row.path / "metrics.json").read_text())
                attrs[row.unit] = store_attrs(row.path)
        return result, records, attrs

    return run


def number(records, metric: str, subject: str = "all") -> dict:
    (found,) = [
        r for r in records
        if (r["metric"], r["subject"], r["decoder"]) == (metric, subject, "ridge")
    ]  # fmt: skip
    assert found["data_origin"] == "recorded"
    return found


@pytest.mark.parametrize(
    ("folder", "least"), [("haxby2001-slice", 0.70), ("haxby2001-lowres", 0.25)]
)
def test_fmri_objects(folder, least, evaluate):
    result, records, attrs = evaluate("fmri_objects", folder)
    found = number(records["object"], "identification_accuracy")
    assert found["value"] >= least and found["n_queries"] == 96
    assert found["chance"] == 0.125 and found["p_value"] < 0.01
    assert attrs["object"]["verdict"]["evidence"] == "evidence"
    # Both hold events that are shifted by the response already: the data must say so themselves.
    delays = [store_attrs(row.path)["delay_s"] for row in result.rows if row.stage == "train"]
    assert delays == [0.0] * 12


def test_eeg_words(evaluate):
    _, records, attrs = evaluate("eeg_words", "n400-words")
    assert 0.65 <= number(records["relation"], "auc")["value"] <= 0.79
    assert attrs["relation"]["verdict"]["evidence"] == "evidence"
    assert attrs["word"]["verdict"]["p"] > 0.01


def test_eeg_faces(evaluate):
    _, records, attrs = evaluate("eeg_faces", "muse-n170")
    people = {r["subject"] for r in records["picture"]} - {"all"}
    values = {person: number(records["picture"], "auc", person)["value"] for person in people}
    assert len(values) == 2 and max(values.values()) >= 0.62 and min(values.values()) >= 0.52
    assert attrs["picture"]["verdict"]["evidence"] == "evidence"


def test_eeg_faces_needs_its_exclusions(shared_data):
    recipe = load_recipe("eeg_faces", ["plan.exclude=[]"])
    with pytest.raises(DuplicateRecordingError) as caught:
        build(recipe.plan, recipe.split, shared_data / "muse-n170", extent=(0.0, 0.8))
    for name in ("sub-03_ses-01_task-n170_run-02_eeg", "sub-03_ses-02_task-n170_run-02_eeg"):
        assert name in str(caught.value)


def test_fmri_story(evaluate):
    _, records, attrs = evaluate("fmri_story", "story-parcels")
    assert attrs["word"]["verdict"]["evidence"] == "no evidence"
    # Words that are frequent are guessed without a brain as well.
    (prior,) = [
        r["value"] for r in records["word"]
        if (r["metric"], r["subject"], r["decoder"]) == ("pair_accuracy", "all", "prior")
    ]  # fmt: skip
    own = number(records["word"], "pair_accuracy")
    assert own["p_value"] > 0.05 or own["value"] <= prior
