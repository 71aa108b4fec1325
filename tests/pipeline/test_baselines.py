"""Low-level tables beside those that a recipe decodes."""

from __future__ import annotations

import pytest

from braindecode_pipe.pipeline.baselines import with_low_level
from braindecode_pipe.recipe import Recipe

CONTROLS = ["noise", "low-level"]


def recipe(kind, controls=CONTROLS, embed=None, train=None):
    return Recipe.model_validate(
        {
            "plan": {"stimuli": {"seen": {"kind": kind}}},
            "embed": embed or {"deep": {"target": "seen", "model": "efficientnet-lite0",
                                        "normalize": "zscore"}},
            "evaluate": {"controls": controls},
            "train": train or {},
        }
    )  # fmt: skip


def test_nothing_is_added_where_nothing_is_asked_for():
    plain = recipe("image", ["noise"])
    assert with_low_level(plain) is plain
    assert list(with_low_level(recipe("text")).embed) == ["deep"]


@pytest.mark.parametrize(("kind", "models"), [("image", ["pixels"]),
                                              ("speech", ["envelope", "log-mel"])])  # fmt: skip
def test_tables_by_the_kind_of_stimulus(kind, models):
    found = with_low_level(recipe(kind)).embed
    assert list(found) == ["deep", *(f"seen_{model}" for model in models)]
    for model in models:
        spec = found[f"seen_{model}"]
        assert (spec.model, spec.target, spec.normalize) == (model, "seen", "zscore")


def test_steps_and_decoders_are_those_of_the_target():
    embed = {"deep": {"target": "seen", "model": "some/model", "pooling": "time",
                      "step_sfreq": 20.0, "step_tmax": 3.0, "layer": 0.5}}  # fmt: skip
    train = {"embeddings": ["deep"], "decoders": ["ridge"], "decoders_of": {"deep": ["conv"]}}
    found = with_low_level(recipe("speech", embed=embed, train=train))
    spec = found.embed["seen_log-mel"]
    assert (spec.pooling, spec.step_sfreq, spec.step_tmax, spec.layer) == ("time", 20.0, 3.0, None)
    tables = ["deep", "seen_envelope", "seen_log-mel"]
    assert found.train.embeddings == tables
    assert found.train.decoders_of == dict.fromkeys(tables, ["conv"])


def test_a_table_that_is_there_is_not_made_again():
    embed = {"deep": {"target": "seen"}, "flat": {"target": "seen", "model": "pixels"}}
    assert list(with_low_level(recipe("image", embed=embed)).embed) == ["deep", "flat"]
    # What is added is a recipe: it passes all checks of one that is written.
    found = with_low_level(recipe("image"))
    assert Recipe.model_validate(found.model_dump()) == found
