"""Put the pages together and write them as one store."""

from __future__ import annotations

import math
from pathlib import Path

from braindecode_pipe.evaluate.metrics import headline_metric
from braindecode_pipe.evaluate.verdict import SIGNIFICANCE
from braindecode_pipe.report import ReportInputs, wording
from braindecode_pipe.report.data import data_section, ledger_section, page_name
from braindecode_pipe.report.document import (
    Failed,
    Page,
    Section,
    Verdict,
    attempt,
)
from braindecode_pipe.report.gallery import Shelf, gallery_section, zero_shot_section
from braindecode_pipe.report.html import render, render_index
from braindecode_pipe.report.markdown import metrics_csv, metrics_json, render_markdown
from braindecode_pipe.report.methods import methods_section, provenance_section
from braindecode_pipe.report.qc import qc_page
from braindecode_pipe.report.results import (
    level_of,
    people_section,
    results_section,
    scale,
    verdict_section,
)
from braindecode_pipe.report.study import Study
from braindecode_pipe.report.training import learning_section, maps_section
from braindecode_pipe.store import write_store


def build(inputs: ReportInputs, out: Path) -> None:
    """Write the report store; see :func:`braindecode_pipe.report.run`."""
    study = Study(inputs)
    page = study_page(study)
    records = all_records(study)
    files = {
        "report.html": render(page),
        "report.md": render_markdown(page),
        "metrics.json": metrics_json(records),
        "metrics.csv": metrics_csv(records),
    }
    if study.section("report").get("qc", True):
        for name in inputs.signals:
            files[f"qc/{page_name(name)}"] = render(qc_page(study, name))
    attrs = {"kind": "qc", "stage": "report", "data_origin": study.data_origin}
    write_store(out, {}, attrs=attrs, files=files)


def study_page(study: Study) -> Page:
    """The report as a document, its sections in reading order."""
    shelf = Shelf(study)
    makers = (
        ("verdict", "Verdict", verdict_section),
        ("results", "Results", results_section),
        ("people", "People and folds", people_section),
        ("learning", "Learning curves", learning_section),
        ("maps", "Sensors and brain", maps_section),
        ("gallery", "Retrieval gallery", lambda s: gallery_section(s, shelf)),
        ("zero-shot", "Zero-shot decoding", zero_shot_section),
        ("ledger", "Ledger of the test set", ledger_section),
        ("data", "Data and exclusions", data_section),
        ("methods", "Methods", methods_section),
        ("provenance", "Provenance", lambda s: provenance_section(s, shelf)),
    )
    sections: list[Section] = []
    for slug, title, make in makers:
        made = attempt(title, make, study)
        if made == [None]:
            continue
        whole = isinstance(made[0], Section)
        sections.append(made[0] if whole else Section(slug, title, tuple(made)))
    return Page(
        title=study.name,
        subtitle=str(study.section("study").get("description") or ""),
        data_origin=study.data_origin,
        sections=tuple(sections),
        alerts=failure_alert(study.inputs.failures),
    )


def failure_alert(failures: list[dict]) -> tuple[Failed, ...]:
    """One box for all units of work that failed."""
    if not failures:
        return ()
    n = wording.count(len(failures), "unit of work", "units of work")
    cause = "\n".join(f"{f.get('stage')}: {f.get('unit')}: {f.get('error')}" for f in failures)
    return (Failed(f"{n}. The results below hold for the rest.", cause),)


def all_records(study: Study) -> list[dict]:
    """Records of all evaluations that can be read, in their order."""
    records: list[dict] = []
    for evaluation in [*study.evaluations, *([study.zero_shot] if study.zero_shot else [])]:
        made = attempt(evaluation.name, lambda e=evaluation: e.records)
        records += [r for r in made if isinstance(r, dict)]
    return records


def build_index(reports: list[dict], out: Path, title: str) -> None:
    """Write the page that links several reports; see :func:`braindecode_pipe.report.index_page`."""
    entries = [(_index_entry(report), str(report["link"])) for report in reports]
    origins = {origin for report in reports for origin in _origins(report)}
    origin = origins.pop() if len(origins) == 1 else ("mixed" if origins else "unknown")
    file = out if out.suffix == ".html" else out / "index.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_bytes(render_index(title, origin, entries))
    temporary.replace(file)


def _origins(report: dict) -> list[str]:
    found = [str(r["data_origin"]) for r in report.get("metrics", []) if "data_origin" in r]
    return found or ([str(report["data_origin"])] if "data_origin" in report else [])


def _index_entry(report: dict) -> Verdict:
    records = [
        r
        for r in report.get("metrics", [])
        if str(r.get("subject", "all")) == "all" and r.get("decoder") not in ("prior", None)
    ]
    record = _headline(records)
    metric = str(record.get("metric", ""))
    p = wording.number(record.get("p_value"))
    evidence = report.get("evidence", p <= SIGNIFICANCE if math.isfinite(p) else None)
    text = str(report.get("verdict") or "")
    if not text and record:
        text = f"{wording.metric_name(metric)} {wording.score(metric, record['value'])}."
    facts = (
        ("Chance", wording.score(metric, record.get("chance"))),
        (level_of(record), wording.interval(metric, record.get("ci_low"), record.get("ci_high"))),
        ("p", wording.p_value(record.get("p_value"))),
        ("Queries", wording.plain(record.get("n_queries"))),
        ("Candidates", wording.plain(record.get("n_candidates"))),
        ("Decoder", wording.decoder_name(str(record.get("decoder", "")))),
    )
    return Verdict(
        str(report["title"]), text or "No result.", evidence, scale(metric, record) if record
        else None, facts if record else (),
    )  # fmt: skip


def _headline(records: list[dict]) -> dict:
    """The record that the verdict of a study rests on: the rule of the evaluation."""
    if not records:
        return {}
    decoders = [str(r["decoder"]) for r in records]
    decoder = "selected" if "selected" in decoders else decoders[0]
    own = [r for r in records if r["decoder"] == decoder]
    embedding = own[0].get("embedding")
    own = [r for r in own if r.get("embedding") == embedding]
    metric = headline_metric(
        int(max(r.get("n_candidates") or 0 for r in own)), [str(r["metric"]) for r in own]
    )
    return next(r for r in own if r["metric"] == metric)
