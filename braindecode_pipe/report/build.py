"""Put the pages together and write them as one store."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from braindecode_pipe.errors import SchemaError
from braindecode_pipe.report import ReportInputs, wording
from braindecode_pipe.report.cards import cards_section
from braindecode_pipe.report.compute import compute_section
from braindecode_pipe.report.controls import controls_section
from braindecode_pipe.report.data import audit_section, data_section, ledger_section, page_name
from braindecode_pipe.report.document import (
    Failed,
    Page,
    Section,
    Verdict,
    attempt,
)
from braindecode_pipe.report.embedding_map import map_section
from braindecode_pipe.report.gallery import Shelf, gallery_section, zero_shot_section
from braindecode_pipe.report.html import render, render_index
from braindecode_pipe.report.markdown import finite_json, metrics_csv, render_markdown
from braindecode_pipe.report.methods import methods_section, provenance_section
from braindecode_pipe.report.qc import qc_page
from braindecode_pipe.report.qc_index import index_page, overview
from braindecode_pipe.report.reconstruction import reconstruction_section
from braindecode_pipe.report.recording import Recording
from braindecode_pipe.report.results import (
    people_section,
    results_section,
    stated_evidence,
    verdict_section,
)
from braindecode_pipe.report.study import Study
from braindecode_pipe.report.training import learning_section, maps_section
from braindecode_pipe.schema import join_data_origin
from braindecode_pipe.store import write_store

# What is left to tell where recordings are preprocessed and nothing is decoded.
_UNDECODED = ("data", "methods", "compute", "provenance")


def build(inputs: ReportInputs, out: Path) -> None:
    """Write the report store; see :func:`braindecode_pipe.report.run`."""
    study = Study(inputs)
    page = named(study, study_page(study))
    records = all_records(study)
    files = {
        "report.html": render(page),
        "report.md": render_markdown(page),
        "metrics.json": finite_json(records),
        "metrics.csv": metrics_csv(records),
    }
    if study.section("report").get("qc", True):
        files.update(quality_pages(study))
    attrs = {"kind": "qc", "stage": "report", "data_origin": study.data_origin}
    write_store(out, {}, attrs=attrs, files=files)


def named(study: Study, page: Page) -> Page:
    """The page under the names that the study is to be told by."""
    return page if study.aliases is None else study.aliases.page(page)


def quality_pages(study: Study) -> dict[str, bytes]:
    """A page per recording, and one that lists them with the worst first."""
    names = list(study.inputs.signals)
    files: dict[str, bytes] = {}
    overviews = []
    for before, name, after in zip(["", *names], names, [*names[1:], ""]):
        recording = Recording(study, name)
        page = named(study, qc_page(recording, (before, after)))
        files[f"qc/{page_name(name)}"] = render(page)
        overviews.append(overview(recording, page))
    if names:
        files["qc/index.html"] = render(named(study, index_page(study, overviews)))
    return files


def study_page(study: Study) -> Page:
    """The report as a document, its sections in reading order."""
    shelf = Shelf(study)
    makers = (
        ("verdict", "Verdict", verdict_section),
        ("results", "Results", results_section),
        ("controls", "Controls and comparisons", controls_section),
        ("people", "People and folds", people_section),
        ("learning", "Learning curves", learning_section),
        ("maps", "Sensors and brain", maps_section),
        ("gallery", "Retrieval gallery", lambda s: gallery_section(s, shelf)),
        ("embedding-map", "Embedding map", map_section),
        ("reconstruction", "Reconstruction", lambda s: reconstruction_section(s, shelf)),
        ("zero-shot", "Zero-shot decoding", zero_shot_section),
        ("audit", "Audit", audit_section),
        ("ledger", "Ledger of the test set", ledger_section),
        ("data", "Data and exclusions", data_section),
        ("cards", "Data and model cards", cards_section),
        ("methods", "Methods", methods_section),
        ("compute", "Compute used", compute_section),
        ("provenance", "Provenance", lambda s: provenance_section(s, shelf)),
    )
    if study.section("split").get("by") == "none":
        makers = tuple(maker for maker in makers if maker[0] in _UNDECODED)
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
    return (Failed(f"{n} failed. The results below hold for the rest.", cause),)


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
    origins = [str(report.get("data_origin", "unknown")) for report in reports]
    origin = "unknown"
    with suppress(SchemaError):
        origin = join_data_origin(*origins)
    file = out if out.suffix == ".html" else out / "index.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_bytes(render_index(title, origin, entries))
    temporary.replace(file)


def _index_entry(report: dict) -> Verdict:
    return Verdict(
        heading=str(report["title"]),
        text=str(report.get("verdict") or "No result."),
        evidence=stated_evidence(report.get("evidence")),
    )
