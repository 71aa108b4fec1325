"""Cards: what was used, on how much, under which licence; nothing is guessed."""

from __future__ import annotations

import pytest

from braindecode_pipe.report import cards
from braindecode_pipe.report.study import Study


@pytest.fixture(scope="module")
def study(make_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    return Study(make_study(folder / "in", n_runs=2, n_trials=12, draws=5, origin="simulated"))


def rows(block):
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in block.rows}


def test_data_card_counts_what_is_used(study):
    card = rows(cards.data_card(study))
    assert card["People"] == ["2"] and card["Recordings"] == ["4 used, 1 excluded"]
    assert card["Origin"] == ["simulated"] and card["Licence"] == ["CC0-1.0"]
    assert card["Events"] == ["48"] and card["Stimuli"] == ["24 of “picture” (image)"]


def test_missing_licence_is_said_and_not_left_out(study):
    study.__dict__["plan_attrs"] = {**study.plan_attrs, "dataset_license": ""}
    assert rows(cards.data_card(study))["Licence"] == ["not stated"]


def test_every_card_is_made_or_is_a_box_with_its_cause(study):
    blocks = cards.cards_section(study).blocks
    assert [block.kind for block in blocks] == ["table", "table", "table", "text"]
    assert rows(blocks[1])["Model"] == ["efficientnet-lite0"]
    decoders = rows(blocks[2])
    assert set(decoders) == {"convolutional network", "ridge"}
    assert decoders["ridge"][0] == "4"


def test_a_store_that_names_no_model_is_a_box_with_its_cause(study, monkeypatch):
    monkeypatch.setattr(cards, "store_attrs", lambda path: {})
    assert "the name of the model is missing" in cards.cards_section(study).blocks[1].cause


def test_settings_and_spans_by_hand():
    fits = [{"hyper": {"alpha": 10.0}, "n_train": 5}, {"hyper": {"alpha": 1000.0}, "n_train": 9}]
    assert cards._settings(fits) == "alpha 10, 1000" and cards._span(fits, "n_train") == "5 – 9"
    assert cards._settings([{}]) == "–" and cards._span([{}], "n_train") == "–"


def test_licences_are_those_of_the_wheels(monkeypatch):
    assert cards.licence_of("one-hot") == "no weights"
    assert cards.licence_of("org/unknown").startswith("not stated")
    stated = {"License": "Apache-2.0"}
    found = type("Found", (), {"get": lambda _, key: stated.get(key),
                               "get_all": lambda _, key: None})()  # fmt: skip
    monkeypatch.setattr(cards.metadata, "metadata", lambda name: found)
    assert cards.licence_of("minilm") == "Apache-2.0"
    stated["License"] = "UNKNOWN"
    assert cards.licence_of("minilm") == "not stated"
