"""The pages that a person reads: one report per study, one quality page per recording.

A page is built in two steps. ``study`` reads the stores and the section modules turn them into a
``document.Page``: headings, sentences, tables, figures. ``html`` and ``markdown`` write that one
document as a self-contained page and as plain text. A panel whose numbers are missing, or whose
drawing fails, becomes a visible FAILED box that names its cause.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ReportInputs", "index_page", "run"]


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report is made of.

    Attributes
    ----------
    recipe : resolved recipe, ``Recipe.model_dump(mode="json")``
    plan : the plan store
    signals : recording id -> signal or response store
    embeddings : embedding table -> embedding store
    predictions : embedding table -> its prediction stores, one per decoder and fold
    evaluations : embedding table -> evaluation store; key ``zero_shot`` for that of zero-shot
    ledger : hash of the test items -> every configuration ever scored on them, in order
    audit : findings of the audit as dicts: severity, check, fold, text, names, allowed
    reconstructions : embedding table -> reconstruction store
    data : the data folder, for stimulus pictures and licences
    versions : package -> version
    tokens : recording id -> its token store, where there is one
    failures : ``{stage, unit, error}`` of the units of work that failed
    anonymize : whether people and recordings get other names on every page and in every file
    """

    recipe: dict
    plan: Path
    signals: dict[str, Path]
    embeddings: dict[str, Path]
    predictions: dict[str, list[Path]]
    evaluations: dict[str, Path]
    ledger: dict[str, list[dict]] = field(default_factory=dict)
    audit: list[dict] = field(default_factory=list)
    data: Path = Path(".")
    versions: dict[str, str] = field(default_factory=dict)
    failures: list[dict] = field(default_factory=list)
    tokens: dict[str, Path] = field(default_factory=dict)
    anonymize: bool = False
    reconstructions: dict[str, Path] = field(default_factory=dict)


def run(inputs: ReportInputs, out: str | Path) -> None:
    """Write ``report.html``, ``report.md``, ``qc/*.html``, ``metrics.json`` and ``metrics.csv``.

    Parameters
    ----------
    inputs : ReportInputs
    out : path
        The report store, committed atomically. Equal inputs give equal bytes.
    """
    from braindecode_pipe.report.build import build

    build(inputs, Path(out))


def index_page(reports: Iterable[dict], out: str | Path, title: str = "Reports") -> None:
    """Write one page that links several reports.

    Parameters
    ----------
    reports : iterable of dict
        ``{"title", "verdict", "link"}`` and, where known, ``{"data_origin", "evidence"}``. The
        link is relative to ``out``.
    out : path of the HTML file
    title : str
    """
    from braindecode_pipe.report.build import build_index

    build_index(list(reports), Path(out), title)
