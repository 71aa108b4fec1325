"""Reports without people's ids: no page, file name, record or text names them."""

from __future__ import annotations

import dataclasses
import json
import re

import pandas as pd
import pytest
from matplotlib.text import Text

from braindecode_pipe.report import run
from braindecode_pipe.report.anonymity import Aliases
from braindecode_pipe.report.document import Column, Item, Link, Page, Section, Table
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import list_extra_files, read_file


def plan_of(people, recordings=None, folds=()):
    recordings = recordings or [f"sub-{p}_ses-{r}_eeg" for p in people for r in (1, 2)]
    table = pd.DataFrame({
        "recording": recordings, "subject": [p for p in people for _ in (1, 2)],
        "path": [f"data/{name}.edf" for name in recordings],
    })  # fmt: skip
    folds = pd.DataFrame(folds, columns=["fold", "subject"])
    return StudyPlan(table, pd.DataFrame(), pd.DataFrame(), folds, None)


def test_texts_name_nobody():
    aliases = Aliases(plan_of(["anna", "07"]), "k")
    anna, seven = aliases.people["anna"], aliases.people["07"]
    assert {anna, seven} == {"P1", "P2"}
    assert aliases.text("sub-anna_ses-2_eeg: copy of sub-07_ses-1_eeg") == (
        f"sub-{anna}_rec-02: copy of sub-{seven}_rec-01"
    )
    assert aliases.text("data/sub-07_ses-1_eeg.edf is cut") == f"sub-{seven}_rec-01 is cut"
    assert aliases.text("person 07, sub-07/x and Anna; anna") == (
        f"person {seven}, sub-{seven}/x and Anna; {anna}"
    )
    assert aliases.text("07 of 070 people; hanna") == "07 of 070 people; hanna"


def test_values_are_renamed_by_their_key():
    aliases = Aliases(plan_of(["1", "2"], folds=[("2/1", "2"), ("1/fold-1", "1")]), "k")
    one, two = aliases.people["1"], aliases.people["2"]
    found = aliases.value(
        {"subject": "1", "n": 1, "fold": "2/1", "seeds": ["1"], "subjects": ["2"]}
    )
    assert found == {"subject": one, "n": 1, "fold": f"{two}/1", "seeds": ["1"], "subjects": [two]}
    assert aliases.folds["1/fold-1"] == f"{one}/fold-1"
    assert aliases.value({"selected": {"2/1": "ridge"}}) == {"selected": {f"{two}/1": "ridge"}}


def test_new_names_are_no_old_ones_and_hold_twice():
    """Ids that look like aliases would be renamed again by the second look."""
    aliases = Aliases(plan_of(["P1", "P2", "P3"]), "k")
    assert not set(aliases.people) & set(aliases.people.values())
    for person in aliases.people:
        once = aliases.text(f"sub-{person}_ses-1_eeg and person {person}")
        assert aliases.text(once) == once and not re.search(rf"\b{person}\b", once)


def test_order_hangs_on_the_plan_and_not_on_the_alphabet():
    people = [f"{i:02d}" for i in range(30)]
    first, again, other = (Aliases(plan_of(people), key).people for key in ("a", "a", "b"))
    assert first == again != other and sorted(first.values()) == sorted(other.values())
    assert list(first.values()) != [first[p] for p in people]


def test_every_text_of_a_page_is_searched():
    aliases = Aliases(plan_of(["anna"]), "k")
    table = Table("of anna", (Column("anna"),), ((Link("anna", "qc/sub-anna.html"),),), ("anna",))
    page = aliases.page(Page("anna", "anna", "recorded", (Section("s", "anna", (table,)),)))
    assert "anna" not in repr(page) and repr(page).count("P1") == 8
    assert aliases.page(Item("anna", b"anna")).jpeg == b"anna"


@pytest.fixture(scope="module")
def report(make_study, make_names, tmp_path_factory):
    """A report of people with telling names, and what was drawn or written into it."""
    folder = tmp_path_factory.mktemp("anonymous")
    people = ("Mustermann", "roe")
    names = make_names(
        subjects=people, extra={"failed": True}, error="cannot read sub-roe_task-see_run-01.edf",
        warning="Mustermann moved", exclude_reason="copy of sub-roe_task-see_run-01",
    )  # fmt: skip
    inputs = make_study(folder / "in", names=names, n_runs=2, n_trials=12, draws=20)
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        set_text = Text.set_text

        def noted(self, text):
            drawn.append(str(text))
            return set_text(self, text)

        patch.setattr(Text, "set_text", noted)
        run(dataclasses.replace(inputs, anonymize=True), folder / "out.zarr")
    return folder / "out.zarr", people, drawn


def test_no_file_and_no_name_of_a_file_tells_who_it_was(report):
    out, people, drawn = report
    names = list_extra_files(out)
    assert len([n for n in names if n.startswith("qc/sub-P")]) == 4
    for name in names:
        text = name + read_file(out, name).decode()
        for person in people:
            found = [
                text[m.start() - 60 : m.end() + 20]
                for m in re.finditer(person, text, re.I)
                if person != "roe" or re.search(r"sub-roe|\broe\b", text[m.start() - 4 :][:8])
            ]
            assert not found, (name, found[:3])
    assert len(drawn) > 100
    assert not [t for t in drawn if "Mustermann" in t or re.search(r"\broe\b", t)]


def test_an_anonymous_report_is_whole(report):
    out, _, _ = report
    html = read_file(out, "report.html").decode()
    assert html.count("FAILED") == 1  # the unit of work that failed, and no panel
    records = json.loads(read_file(out, "metrics.json"))
    assert {r["subject"] for r in records} == {"all", "P1", "P2"}
    assert 'href="qc/sub-P1_rec-01.html"' in html
