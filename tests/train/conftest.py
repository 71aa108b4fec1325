"""A small study on disk: plan tables, signal stores and an embedding."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.schema import ROLES, embedding_dataset, sensor_coords, signal_dataset
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import write_store

LABELS = ["cat", "chair", "face", "house"]
T_R = 2.0


@dataclass
class Study:
    """What ``make_study`` wrote."""

    plan: StudyPlan
    signals: dict[str, Path]
    embedding: Path
    folder: Path
    data: dict[str, np.ndarray]


@pytest.fixture
def make_study(tmp_path):
    """Runs of blocks, two blocks per label and run, leave-one-run-out."""

    def make(n_runs=4, snr=1.0, seed=0, subjects=("01",), n_sensors=24, delay=0.0, folder="study",
             n_features=4, validation=False):  # fmt: skip
        rng = np.random.default_rng(seed)
        where = tmp_path / folder
        patterns = rng.normal(size=(len(LABELS), n_sensors))
        rows, signals, data = [], {}, {}
        for subject in subjects:
            for run in range(n_runs):
                name = f"sub-{subject}_run-{run}"
                order = rng.permutation(np.repeat(np.arange(len(LABELS)), 2))
                x = rng.normal(size=(n_sensors, 20 * len(order) // 2 + 10))
                for i, label in enumerate(order):
                    onset = 4.0 + 20.0 * i
                    start = round((onset + delay) / T_R)
                    x[:, start : start + 5] += snr * (patterns[label][:, None] + 0.8)
                    rows.append((f"{name}:{i:05d}", name, subject, onset, 10.0, label))
                data[name] = x.astype(np.float32)
                signals[name] = where / f"{name}.zarr"
                sensors = sensor_coords([f"v{i}" for i in range(n_sensors)], "voxel", "a.u.",
                                        rng.normal(size=(n_sensors, 3)))  # fmt: skip
                attrs = {"data_origin": "simulated", "sfreq": 1 / T_R, "t_r": T_R}
                dataset = signal_dataset(data[name], sensors, np.arange(x.shape[1]) * T_R, attrs)
                write_store(signals[name], {"": dataset})
        plan = _plan(rows, validation)
        values = np.eye(4) if n_features == 4 else rng.normal(size=(4, n_features))
        attrs = {"data_origin": "simulated", "target": "object"}
        embedding = where / "embedding.zarr"
        write_store(embedding, {"": embedding_dataset(values, [f"id-{w}" for w in LABELS], attrs)})
        return Study(plan, signals, embedding, where, data)

    return make


def _plan(rows, validation):
    events = pd.DataFrame(
        rows, columns=["event", "recording", "subject", "onset", "duration", "number"]
    )
    events["group"] = events["recording"]
    events["stimulus_object"] = [f"id-{LABELS[i]}" for i in events.pop("number")]
    stimuli = pd.DataFrame(
        {"stimulus": [f"id-{w}" for w in LABELS], "target": "object", "label": LABELS}
    )
    folds, roles = [], []
    for subject in dict.fromkeys(events["subject"]):
        own = (events["subject"] == subject).to_numpy()
        groups = list(dict.fromkeys(events["group"][own]))
        for i, group in enumerate(groups):
            role = np.where(own, ROLES["train"], 0).astype(np.int8)
            role[(events["group"] == group).to_numpy()] = ROLES["test"]
            if validation:
                other = groups[(i + 1) % len(groups)]
                role[(events["group"] == other).to_numpy()] = ROLES["validation"]
            folds.append({"fold": group, "subject": subject, "groups": group})
            roles.append(role)
    recordings = pd.DataFrame({"recording": list(dict.fromkeys(events["recording"]))})
    return StudyPlan(recordings, events, stimuli, pd.DataFrame(folds), np.stack(roles))
