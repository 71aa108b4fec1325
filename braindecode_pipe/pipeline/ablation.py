"""Where: a finished run, scored again without each region, kind of sensor, or sensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import MissingFileError
from braindecode_pipe.evaluate.ablation import ablation_table
from braindecode_pipe.pipeline.baselines import with_low_level
from braindecode_pipe.pipeline.cache import FileHashes, write_json
from braindecode_pipe.pipeline.stages import Stages
from braindecode_pipe.recipe import Recipe
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import is_committed, store_attrs
from braindecode_pipe.train.ablation import By, ablated_predictions


def ablate(recipe: Recipe, data: str | Path, out: str | Path, by: By = "region") -> pd.DataFrame:
    """Scores of all decoders of a run without each group of sensors; ``<out>/ablation-<by>.json``.

    Nothing is fitted: checkpoints of the run predict from windows in which the sensors of a group
    tell nothing. Seeds other than the first, and pieces of the window, are left out.

    Parameters
    ----------
    recipe, data, out : of the run
    by : ``region``, ``kind`` or ``sensor``

    Returns
    -------
    DataFrame : embedding, decoder, and the columns of ``evaluate.ablation.ablation_table``

    Raises
    ------
    MissingFileError : the recipe has not been run on these data into this folder
    """
    data, out = Path(data), Path(out)
    recipe = with_low_level(recipe)
    stages = Stages(recipe, data, out, FileHashes(out / "cache" / "hashes.json"))
    if not is_committed(stages.plan().path):
        raise _not_run(out)
    plan = StudyPlan.load(stages.plan().path)
    signals = stages.preprocess(plan)
    plan = plan.without([name for name, unit in signals.items() if not is_committed(unit.path)])
    signals = {name: unit for name, unit in signals.items() if is_committed(unit.path)}
    embeddings = {n: u for n, u in stages.embed(plan).items() if is_committed(u.path)}
    folds: dict[tuple[str, str], list[tuple[Path, Mapping[str, np.ndarray]]]] = {}
    for (name, label, fold), unit in stages.train(plan, signals, embeddings).items():
        if not fold or not is_committed(unit.path):
            continue
        if store_attrs(unit.path).get("role", "decoder") == "decoder":
            given = unit.arguments
            predicted = ablated_predictions(
                unit.path, given["section"], given["fold"], plan, given["signals"],
                given["target"], by, scaling=given["scaling"], window=given["window"],
            )  # fmt: skip
            folds.setdefault((name, label), []).append((unit.path, predicted))
    if not folds:
        raise _not_run(out)
    tables = [
        ablation_table(recipe.evaluate, plan, embeddings[name].path, parts).assign(
            embedding=name, decoder=label
        )
        for (name, label), parts in folds.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    first = ["embedding", "decoder"]
    table = table[[*first, *(c for c in table if c not in first)]]
    rows = [{k: None if v != v else v for k, v in row.items()} for row in table.to_dict("records")]
    write_json(out / f"ablation-{by}.json", rows)
    return table


def _not_run(out: Path) -> MissingFileError:
    return MissingFileError(
        "there is no decoder of this recipe to take sensors from", file=out,
        expected="the results of `braindecode-pipe run` with this recipe, these data and folder",
        found="none that is up to date", remedy="run it first",
    )  # fmt: skip
