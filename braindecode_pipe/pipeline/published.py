"""What a run leaves beside its stores: the pages, the numbers, and the record of the run."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from braindecode_pipe.pipeline.cache import package_version, write_json
from braindecode_pipe.pipeline.result import RunResult
from braindecode_pipe.pipeline.units import STAGES
from braindecode_pipe.store import list_extra_files, read_file


def publish(
    report: Path,
    out: Path,
    whole: bool = True,
    fill: Callable[[str, bytes], bytes] = lambda _, content: content,
) -> Path | None:
    """Copy the files of a report store to the run folder, each by temporary file and rename.

    Parameters
    ----------
    report, out : Path of the store, of the run folder
    whole : bool
        False copies the quality pages only, beside those that are there; their index would
        name some of them.
    fill : (name, content) -> content with what only the published pages say

    Returns
    -------
    Path of the HTML page, None where it was not copied
    """
    if whole:
        shutil.rmtree(out / "qc", ignore_errors=True)
    for name in list_extra_files(report):
        if not whole and (not name.startswith("qc/") or name == "qc/index.html"):
            continue
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".tmp")
        temporary.write_bytes(fill(name, read_file(report, name)))
        temporary.replace(target)
    return out / "report.html" if whole else None


def write_record(
    file: Path, data: Path, ledger: Path, result: RunResult, began: float, *,
    configuration: str, audit: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Write the record of a run: the only place for hosts and absolute paths.

    ``made_in`` are the seconds that a result took when it was made, maybe by an earlier run.
    """
    made = seconds_made(file, result)
    units = [
        {
            "stage": row.stage,
            "unit": row.unit,
            "status": row.status,
            "why": row.why,
            "seconds": round(row.seconds, 3),
            "made_in": None if (took := made.get(row.path)) is None else round(took, 3),
            "error": row.error,
            "store": str(row.path.relative_to(file.parent)) if row.path else "",
        }
        for row in result.rows
    ]
    content = {
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 2),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "data": str(data.resolve()),
        "ledger": str(ledger),
        "configuration": configuration,
        "audit": audit,
        "packages": versions(),
        "units": units,
    }
    write_json(file, content)


def seconds_made(record: Path, result: RunResult) -> dict[Path | None, float]:
    """Store -> seconds that it took when it was made, as far as this or the last run tells."""
    try:
        units = json.loads(record.read_text(encoding="utf-8"))["units"]
        last = {
            record.parent / unit["store"]: unit.get("made_in") or unit["seconds"] or None
            for unit in units
            if unit["store"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        last = {}
    made = {row.path: last.get(row.path) for row in result.rows if row.status == "cached"}
    made |= {row.path: row.seconds for row in result.rows if row.status == "done"}
    return {path: float(took) for path, took in made.items() if path and took is not None}


def compute_used(record: Path, result: RunResult, threads: int) -> Callable[[str, bytes], bytes]:
    """What :func:`publish` fills in: seconds of every stage, and what computed."""
    from braindecode_pipe.report.compute import Spent, fill

    made = seconds_made(record, result)
    spent = [
        Spent(stage, [made.get(row.path, math.nan) for row in result.rows
                      if row.stage == stage and row.status in ("done", "cached")])
        for stage in result.stages()
    ]  # fmt: skip
    machine = [
        ("Threads of each task", str(threads)),
        ("Device", _device()),
        ("Cores of the machine", str(os.cpu_count())),
        ("System", platform.machine()),
    ]
    return partial(fill, spent=spent, machine=machine)


def _device() -> str:
    """What networks train on in this process; nothing is loaded to find out."""
    torch = sys.modules.get("torch")
    if torch is None:
        return "no network trained in this process"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def versions() -> dict[str, str]:
    """Versions of all libraries that a stage computes with."""
    packages = sorted({name for stage in STAGES.values() for name in stage.packages})
    return {name: package_version(name) for name in packages}
