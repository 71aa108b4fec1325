"""The demo: simulate people, decode them from EEG, MEG and fMRI, show the reports.

Or one published design, small, on simulated people: see ``pipeline.rehearsal``.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from braindecode_pipe.executor import Executor
from braindecode_pipe.pipeline.cache import code_hash, write_json
from braindecode_pipe.pipeline.launch import run
from braindecode_pipe.pipeline.rehearsal import rehearsal
from braindecode_pipe.pipeline.result import RunResult, UnitResult
from braindecode_pipe.recipe import load_recipe, recipe_toml
from braindecode_pipe.splits import content_hash
from braindecode_pipe.store import store_attrs

SNR = 0.5  # high enough that 120 training pictures suffice for a clear result
RECIPES = ("demo_eeg", "demo_meg", "demo_fmri")


def demo(
    out: str | Path, *, jobs: int = 1, quiet: bool = False, seed: int = 0, snr: float | None = None
) -> RunResult:
    """Simulate one data set and run the three demo recipes on it.

    Everything that it prints and draws is marked as simulated.

    Parameters
    ----------
    out : folder; ``data`` below it is the simulated BIDS data set, one folder per recipe the runs
    jobs : see :func:`run`
    seed : of the simulation
    snr : of the simulation, as an amplitude ratio per sensor; None is ``SNR``, 0 plants nothing
    """
    out = Path(out)
    result = RunResult()
    data = out / "data"
    settings = {"seed": seed, "snr": SNR if snr is None else snr}
    result.rows.append(_simulated(data, out / "cache" / "simulate.json", settings))
    reports = []
    with Executor(jobs) as executor:
        for name in RECIPES:
            recipe = load_recipe(name)
            folder = out / name
            part = run(recipe, data, folder, executor=executor, quiet=quiet, ledger=out / "ledger")
            result.rows += part.rows
            result.notes += part.notes
            if part.report is not None:
                reports.append(_card(recipe.study.title or name, part, out))
    from braindecode_pipe.report import index_page

    result.report = out / "index.html"
    index_page(reports, result.report, "Demo: three recordings of the same simulated people")
    return result


def rehearse(
    name: str, out: str | Path, *, jobs: int = 1, quiet: bool = False, seed: int = 0,
    snr: float | None = None, settings: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> RunResult:  # fmt: skip
    """Simulate what a published recipe needs, and run that recipe, made small, on it.

    ``out`` then holds ``data`` (the simulated BIDS data set), ``recipe.toml`` (the recipe with all
    of its values, after what was changed) and ``<name>`` (the run).

    Parameters
    ----------
    name : recipe of ``pipelines/`` that has a rehearsal
    out : folder
    jobs, quiet : see :func:`run`
    seed, snr : of the simulation; None is the rehearsal's own
    settings, overrides : further settings of the simulation, and values of the recipe

    Raises
    ------
    InputError
        There is no rehearsal of that name.
    """
    chosen = rehearsal(name)
    out = Path(out)
    changed = (*chosen.overrides, *overrides)
    text = recipe_toml(load_recipe(name, changed))
    listed = "".join(f"#   {override}\n" for override in changed)
    simulation = {**chosen.simulation, "seed": seed, **(settings or {})}
    if snr is not None:
        simulation["snr"] = snr
    row = _simulated(out / "data", out / "cache" / "simulate.json", simulation)
    file = out / "recipe.toml"
    file.write_text(
        f"# The recipe {name}, made small for simulated people. Changed:\n{listed}\n{text}",
        encoding="utf-8",
    )
    result = run(load_recipe(file), out / "data", out / name, jobs=jobs, quiet=quiet,
                 ledger=out / "ledger")  # fmt: skip
    result.rows.insert(0, row)
    return result


def _card(title: str, part: RunResult, out: Path) -> dict[str, Any]:
    """What the index page says of one report: the verdict of its first evaluation."""
    scored = next(row for row in part.rows if row.stage == "evaluate" and row.path is not None)
    verdict = store_attrs(scored.path)["verdict"]
    return {
        "title": title,
        "verdict": verdict["text"],
        "evidence": verdict["evidence"],
        "data_origin": "simulated",
        "link": part.report.relative_to(out).as_posix(),
    }


def _simulated(data: Path, marker: Path, settings: Mapping[str, Any]) -> UnitResult:
    from braindecode_pipe.simulate import simulate

    key = content_hash([settings, code_hash(("simulate",))])
    known = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}
    if data.is_dir() and known.get("key") == key:
        return UnitResult("simulate", "data", "cached", "unchanged", path=data)
    why = "never ran here" if not known else "settings or code changed"
    start = time.perf_counter()
    data.parent.mkdir(parents=True, exist_ok=True)
    temporary = data.with_name("data.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    simulate(temporary, **settings)
    shutil.rmtree(data, ignore_errors=True)
    temporary.rename(data)
    write_json(marker, {"key": key, "settings": dict(settings)})
    return UnitResult("simulate", "data", "done", why, time.perf_counter() - start, path=data)
