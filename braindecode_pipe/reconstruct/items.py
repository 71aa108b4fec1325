"""What is reconstructed: predictions of tested pictures, and the pictures of the training part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.embed.interface import Item
from braindecode_pipe.embed.pictures import read_image
from braindecode_pipe.errors import DataError, SplitError
from braindecode_pipe.evaluate.predictions import FoldPrediction
from braindecode_pipe.reconstruct.embedded import TrainingPictures
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_store, safe_join


@dataclass(frozen=True)
class Table:
    """The embedding of all stimuli, and their rows in the plan."""

    vectors: np.ndarray
    position: Mapping[str, int]
    stimuli: pd.DataFrame
    data: Path

    @classmethod
    def load(cls, embedding: Path, plan: StudyPlan, target: str, data: Path) -> Table:
        """Read the embedding store of one target.

        Raises
        ------
        DataError
            Its stimuli are no pictures, or the embedding is no vector.
        """
        dataset = open_store(embedding)
        vectors = np.asarray(dataset["embedding"].values)
        stimuli = plan.stimuli[plan.stimuli["target"] == target].set_index("stimulus")
        kinds = sorted(set(stimuli["kind"]))
        if kinds != ["image"] or vectors.ndim != 2:
            raise DataError(
                "these stimuli cannot be reconstructed as pictures",
                file=embedding,
                expected="stimuli of kind image, with one vector each",
                found=f"{', '.join(kinds) or 'none'}, embedding of shape {vectors.shape}",
                remedy="name other tables in reconstruct.embeddings",
            )
        position = {str(s): i for i, s in enumerate(dataset["stimulus"].values)}
        return cls(vectors, position, stimuli, Path(data))

    def of(self, stimuli: list[str]) -> np.ndarray:
        """Their vectors, before any normaliser."""
        return self.vectors[[self.position[s] for s in stimuli]]

    def pictures(self, stimuli: list[str], side: int) -> np.ndarray:
        """(n, side, side, 3) uint8: whole pictures, brought to a square by averaging."""
        from PIL import Image

        made = np.empty((len(stimuli), side, side, 3), np.uint8)
        for k, stimulus in enumerate(stimuli):
            path = safe_join(self.data, str(self.stimuli.loc[stimulus, "path"]))
            picture = read_image(Item(f"stimulus {stimulus!r}", path))
            made[k] = np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))
        return made


def training_pictures(
    table: Table, plan: StudyPlan, part: FoldPrediction, side: int
) -> TrainingPictures:
    """Pictures that training showed and testing did not, nor one of their near-duplicates.

    Raises
    ------
    SplitError
        Fewer than two are left.
    """
    ids = plan.events[f"stimulus_{part.target}"].astype(str).to_numpy()
    role = plan.role[part.fold]
    shown = set(ids[np.isin(role, [ROLES["train"], ROLES["validation"]])]) - {""}
    tested = set(ids[role == ROLES["test"]]) - {""}
    near = table.stimuli["near_duplicate_group"].astype(str)
    groups = set(near.reindex(sorted(tested)).dropna()) - {"", "nan"}
    alike = set(near.index[near.isin(groups)].astype(str))
    kept = sorted((shown - tested - alike) & set(table.position))
    if len(kept) < 2:
        raise SplitError(
            "no picture is left to make a generator from",
            expected="at least two pictures of the training part that are never tested",
            found=f"{len(kept)} of {len(shown)} pictures of fold "
            f"{plan.folds['fold'].iloc[part.fold]}",
            remedy='set split.by = "stimulus" or "category", or name a pretrained generator',
        )
    vectors = table.of(kept)
    if part.normalizer is not None:
        vectors = part.normalizer(vectors)
    return TrainingPictures(
        kept, table.pictures(kept, side), vectors, plan.scope(part.fold), sorted(tested)
    )


def tested_items(
    plan: StudyPlan, part: FoldPrediction, average: bool, most: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Items of one fold and their predicted embeddings.

    With ``average``, events of one person and stimulus are one item. Of more than ``most`` items
    of a person, evenly spaced ones are kept. Persons with a single item are left out: there is
    nothing to tell it from.

    Returns
    -------
    items : fold, subject, stimulus, n_events
    embeddings : (n_items, features)
    """
    if part.values.ndim != 2 or not len(part.values):
        raise DataError("there are no predictions to reconstruct from", expected="test events",
                        found=str(part.values.shape))  # fmt: skip
    people = plan.events.set_index("event")["subject"].astype(str)
    events = pd.DataFrame(
        {"subject": people.loc[part.events].to_numpy(), "stimulus": part.stimuli.astype(str)}
    )
    events["item"] = np.arange(len(events))
    if average:
        events["item"] = events.groupby(["subject", "stimulus"], sort=True).ngroup()
    rows, vectors = [], []
    for subject, own in events.groupby("subject", sort=True):
        groups = list(own.groupby("item", sort=True))
        if len(groups) < 2:
            continue
        chosen = np.unique(np.linspace(0, len(groups) - 1, min(most, len(groups))).round())
        for k in chosen.astype(int):
            _, item = groups[k]
            rows.append((subject, item["stimulus"].iloc[0], len(item)))
            vectors.append(part.values[item.index].mean(axis=0))
    items = pd.DataFrame(rows, columns=["subject", "stimulus", "n_events"])
    items.insert(0, "fold", str(plan.folds["fold"].iloc[part.fold]))
    width = part.values.shape[1]
    return items, np.asarray(vectors, np.float64).reshape(len(rows), width)
