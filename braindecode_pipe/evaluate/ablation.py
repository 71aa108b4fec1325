"""What retrieval loses without some of the sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.evaluate.aggregation import ask
from braindecode_pipe.evaluate.clusters import false_discovery
from braindecode_pipe.evaluate.comparison import compare_items
from braindecode_pipe.evaluate.contrasts import METRIC
from braindecode_pipe.evaluate.predictions import read_prediction
from braindecode_pipe.evaluate.protocols import Protocol
from braindecode_pipe.evaluate.queries import score_fold
from braindecode_pipe.evaluate.tasks import candidate_vectors, cosine_scorer, make_task, naming
from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_store


def ablation_table(
    section: EvaluateSection,
    plan: StudyPlan,
    embedding: Path,
    folds: Sequence[tuple[Path, Mapping[str, np.ndarray]]],
) -> pd.DataFrame:
    """Score of a decoder without each group of sensors, against its score with all of them.

    Parameters
    ----------
    section : candidates are the test stimuli of each fold, trials single
    plan : StudyPlan
    embedding : the embedding store
    folds : prediction store of each fold, and group -> predictions, "" being the whole

    Returns
    -------
    DataFrame
        group, metric, value, loss (whole minus without), ci_low, ci_high, p_value, q_value,
        n_queries, n_folds; the whole first, the largest loss next
    """
    dataset = open_store(embedding)
    vectors = np.asarray(dataset["embedding"].values)
    vectors = vectors.reshape(len(vectors), -1)
    position = {str(s): i for i, s in enumerate(dataset["stimulus"].values)}
    items: dict[str, list[pd.DataFrame]] = {}
    for path, predictions in folds:
        part = read_prediction(path, plan)
        protocol = Protocol()
        task = make_task(plan, part.fold, part.target, protocol, naming(plan, part.target))
        candidates = candidate_vectors(part, task, vectors, position)
        for name, values in predictions.items():
            asked = ask(replace(part, values=values), task, plan, protocol, True)
            scored = score_fold(cosine_scorer(asked.values, candidates, task.ids), task, asked)
            items.setdefault(name, []).append(scored.items)
    whole, rows = pd.concat(items[""], ignore_index=True), []
    for name, parts in items.items():
        own = pd.concat(parts, ignore_index=True)
        # A group that people lack in some folds is compared on the folds that have it.
        same = whole[whole["event"].isin(own["event"])]
        found = compare_items(
            same, own, "stimulus", METRIC, n_bootstrap=section.bootstrap,
            n_permutations=section.permutations, level=section.ci, seed=section.seed,
        )  # fmt: skip
        value = float((1 - (own["rank"] - 1) / (own["n_candidates"] - 1)).mean())
        rows.append(
            {"group": name, "metric": METRIC, "value": value, "loss": found.difference,
             "ci_low": found.ci_low, "ci_high": found.ci_high,
             "p_value": found.p_value if name else np.nan,
             "n_queries": len(own), "n_folds": len(parts)}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table["q_value"] = false_discovery(table["p_value"].to_numpy(float))
    table["whole"] = table["group"] == ""
    table = table.sort_values(["whole", "loss"], ascending=False, kind="stable")
    return table.drop(columns="whole").reset_index(drop=True)
