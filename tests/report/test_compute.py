"""Compute used: filled into published pages only, never into stores, and never by data."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from braindecode_pipe.pipeline.published import compute_used, seconds_made
from braindecode_pipe.pipeline.result import RunResult, UnitResult
from braindecode_pipe.report.compute import SLOT, Spent, clock, compute_section, fill
from braindecode_pipe.report.document import Page, Text
from braindecode_pipe.report.html import render
from braindecode_pipe.report.markdown import render_markdown

SPENT = [Spent("train", [1.5, 3.0, math.nan]), Spent("report", [300.0])]
FORGED = Text(f"a {SLOT.mark} b")


@pytest.fixture
def page():
    section = compute_section()
    forged = type(section)("verdict", "Verdict", (FORGED,))
    return Page("t", "", "recorded", (forged, section))


@pytest.mark.parametrize(("name", "make"), [("report.html", render),
                                            ("report.md", render_markdown)])  # fmt: skip
def test_slot_is_filled_once_and_not_where_data_name_it(page, name, make):
    before = make(page)
    after = fill(name, before, SPENT, [("Threads of each task", "2")]).decode()
    assert before.decode().count(SLOT.mark) == 1 and SLOT.mark not in after
    assert after.index("Compute used") < after.index("Threads of each task")
    for text in ("4.5 s", "3.0 s", "5 min", "Time unknown"):
        assert text in after and text not in before.decode()
    assert "&lt;!--slot:compute--&gt;" in after
    assert fill("qc/a.html", before, SPENT, []) == before


def test_seconds_below_two_minutes_have_a_decimal():
    assert [clock(s) for s in (0.04, 119.94, 121, 7201)] == ["0.0 s", "119.9 s", "2 min", "2.0 h"]


def test_seconds_of_cached_results_come_from_the_record(tmp_path):
    units = [{"store": "a.zarr", "seconds": 4.0}, {"store": "b.zarr", "seconds": 0.0, "made_in": 7},
             {"store": "", "seconds": 9.0}]  # fmt: skip
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"units": units}))
    states = {"a": "cached", "b": "cached", "c": "done", "d": "cached"}
    rows = [UnitResult("train", n, state, "", 2.0 * (state == "done"), path=tmp_path / f"{n}.zarr")
            for n, state in states.items()]  # fmt: skip
    made = seconds_made(record, RunResult(rows))
    assert {path.stem: s for path, s in made.items()} == {"a": 4.0, "b": 7.0, "c": 2.0}
    filled = compute_used(record, RunResult(rows), 3)("report.md", SLOT.mark.encode()).decode()
    assert "| train | 4 | 13.0 s | 7.0 s | 1 |" in filled and "Threads of each task: 3" in filled


@pytest.mark.parametrize("content", ["[", "{}", '{"units": [3]}', '{"units": [{"store": "a"}]}'])
def test_a_damaged_record_tells_nothing(tmp_path: Path, content):
    (tmp_path / "run.json").write_text(content)
    row = UnitResult("train", "a", "cached", "", path=tmp_path / "a")
    assert seconds_made(tmp_path / "run.json", RunResult([row])) == {}
