"""What a run leaves beside its stores: the pages, the numbers, and the record of the run."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from braindecode_pipe.pipeline.cache import package_version, write_json
from braindecode_pipe.pipeline.result import RunResult
from braindecode_pipe.pipeline.units import STAGES
from braindecode_pipe.store import list_extra_files, read_file


def publish(report: Path, out: Path, whole: bool = True) -> Path | None:
    """Copy the files of a report store to the run folder, each by temporary file and rename.

    Parameters
    ----------
    report, out : Path of the store, of the run folder
    whole : bool
        False copies the quality pages only, beside those that are there; their index would
        name some of them.

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
        temporary.write_bytes(read_file(report, name))
        temporary.replace(target)
    return out / "report.html" if whole else None


def write_record(
    file: Path, data: Path, ledger: Path, result: RunResult, began: float, *,
    configuration: str, audit: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Write the record of a run: the only place for clocks, hosts and absolute paths."""
    units = [
        {
            "stage": row.stage,
            "unit": row.unit,
            "status": row.status,
            "why": row.why,
            "seconds": round(row.seconds, 3),
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


def versions() -> dict[str, str]:
    """Versions of all libraries that a stage computes with."""
    packages = sorted({name for stage in STAGES.values() for name in stage.packages})
    return {name: package_version(name) for name in packages}
