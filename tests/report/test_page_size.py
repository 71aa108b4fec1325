"""The report of twenty people stays below 5 MB (simulated numbers, real figures and pictures)."""

from __future__ import annotations

from braindecode_pipe.report.build import study_page
from braindecode_pipe.report.html import render
from braindecode_pipe.report.markdown import render_markdown
from braindecode_pipe.report.study import Study

LIMIT = 5_000_000


def test_page_of_twenty_people(make_study, make_names, tmp_path):
    people = tuple(f"{i + 1:02d}" for i in range(20))
    names = make_names(subjects=people)
    inputs = make_study(tmp_path / "in", names=names, n_runs=2, n_trials=12, draws=10,
                        origin="simulated")  # fmt: skip
    page = study_page(Study(inputs))
    html = render(page)
    print(f"report.html of 20 simulated people: {len(html) / 1e6:.2f} MB")
    assert all(f"sub-{person}_task-see_run-02".encode() in html for person in people)
    assert len(html) < LIMIT
    assert len(render_markdown(page)) < LIMIT / 10
    failed = [b.title for s in page.sections for b in s.blocks if b.kind == "failed"]
    assert failed == []
