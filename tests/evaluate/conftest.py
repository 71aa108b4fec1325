"""A small study with planted strength, as plan, embedding and prediction stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.recipe import EvaluateSection
from braindecode_pipe.schema import ROLES, embedding_dataset, prediction_dataset
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import write_store


@dataclass
class SmallStudy:
    """``n_runs`` runs per person; every run shows every stimulus ``repeats`` times."""

    folder: Path
    n_subjects: int = 1
    n_runs: int = 4
    n_stimuli: int = 6
    repeats: int = 1
    by: str = "run"
    n_folds: int = 3
    seed: int = 0
    categories: bool = False

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.names = [f"s{i:03d}" for i in range(self.n_stimuli)]
        self.plan = self._plan()
        self.vectors = np.eye(self.n_stimuli, dtype=np.float32)

    def _plan(self) -> StudyPlan:
        recordings, events = [], []
        for subject in [f"{i + 1:02d}" for i in range(self.n_subjects)]:
            for run in [f"{i + 1}" for i in range(self.n_runs)]:
                recording = f"sub-{subject}_run-{run}"
                recordings.append(
                    {"recording": recording, "subject": subject, "session": "", "run": run,
                     "content_hash": f"hash-{recording}", "data_origin": "recorded"}
                )  # fmt: skip
                shown = self.rng.permutation(np.repeat(self.names, self.repeats))
                for i, stimulus in enumerate(shown):
                    events.append(
                        {"event": f"{recording}:{i:05d}", "recording": recording,
                         "subject": subject, "session": "", "run": run, "onset": 2.0 * i,
                         "duration": 1.0, "stimulus_object": stimulus,
                         "group": recording if self.by == "run" else stimulus}
                    )  # fmt: skip
        events = pd.DataFrame(events)
        stimuli = pd.DataFrame(
            {"stimulus": self.names, "target": "object", "kind": "concept",
             "label": [f"label {n}" for n in self.names],
             "category": [f"c{i % 2}" if self.categories else "" for i in range(self.n_stimuli)]}
        )  # fmt: skip
        folds, roles = [], []
        for subject in sorted(set(events["subject"])):
            own = (events["subject"] == subject).to_numpy()
            groups = sorted(set(events["group"][own]))
            parts = groups if self.by == "run" else np.array_split(groups, self.n_folds)
            for number, part in enumerate(parts):
                test = own & events["group"].isin(np.atleast_1d(part)).to_numpy()
                role = np.zeros(len(events), np.int8)
                role[own & ~test] = ROLES["train"]
                role[test] = ROLES["test"]
                folds.append({"fold": f"sub-{subject}_{number}", "subject": subject, "groups": ""})
                roles.append(role)
        return StudyPlan(
            pd.DataFrame(recordings), events, stimuli, pd.DataFrame(folds), np.stack(roles)
        )

    def embedding(self) -> Path:
        path = self.folder / "embedding.zarr"
        labels = list(self.plan.stimuli["label"])
        attrs = {"data_origin": "recorded", "labels": labels}
        write_store(path, {"": embedding_dataset(self.vectors, self.names, attrs)})
        return path

    def predict(
        self, decoder: str, strength: float, inner: float | None = None, origin: str = "recorded"
    ) -> list[Path]:
        """Prediction stores of one decoder: truth times strength, plus unit noise."""
        paths = []
        position = {name: i for i, name in enumerate(self.names)}
        for fold in range(len(self.plan.folds)):
            own = self.plan.events.iloc[self.plan.rows(fold, "test")]
            truth = self.vectors[[position[s] for s in own["stimulus_object"]]]
            noise = self.rng.standard_normal(truth.shape)
            attrs = {
                "decoder": decoder, "fold": str(self.plan.folds["fold"].iloc[fold]),
                "subject": str(own["subject"].iloc[0]),
                "embedding": "objects", "target": "object", "data_origin": origin,
                "fit_scope": self.plan.scope(fold).hash(),
                **({} if inner is None else {"inner_score": inner}),
            }  # fmt: skip
            path = self.folder / f"{decoder}_{fold}.zarr"
            dataset = prediction_dataset(
                strength * truth + noise, list(own["event"]), list(own["stimulus_object"]), attrs
            )
            write_store(path, {"": dataset})
            paths.append(path)
        return paths


@pytest.fixture
def small_study(tmp_path):
    """Factory of :class:`SmallStudy` in the test's own folder."""
    return lambda **settings: SmallStudy(tmp_path, **settings)


@pytest.fixture
def quick():
    """EvaluateSection with few replicates."""
    return lambda **settings: EvaluateSection(**{"bootstrap": 200, "permutations": 200, **settings})
