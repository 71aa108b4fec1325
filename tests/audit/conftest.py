"""A small plan that leaks nothing, for tests to spoil."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan


@pytest.fixture
def make_plan():
    """Plan of events (recording, onset, stimulus), each of 1 s, and of the tested ones per fold."""

    def make(recording, onset, stimulus, test, **columns) -> StudyPlan:
        names = [str(s) for s in dict.fromkeys(stimulus)]
        recordings = sorted(set(recording))
        table = pd.DataFrame(
            {"recording": recordings, "content_hash": [f"hash {r}" for r in recordings],
             "subject": "01", "datatype": "eeg"}
        )  # fmt: skip
        events = pd.DataFrame(
            {"event": [f"{r}:{i}" for i, r in enumerate(recording)], "recording": list(recording),
             "subject": "01", "session": "01", "onset": np.asarray(onset, float), "duration": 1.0,
             "stimulus_object": list(map(str, stimulus)), **columns}
        )  # fmt: skip
        stimuli = pd.DataFrame(
            {"stimulus": names, "target": "object", "kind": "image", "label": names,
             "category": "a", "near_duplicate_group": names}
        )  # fmt: skip
        test = np.atleast_2d(np.asarray(test, bool))
        role = np.where(test, ROLES["test"], ROLES["train"]).astype(np.int8)
        folds = pd.DataFrame({"fold": [f"fold-{i}" for i in range(len(test))], "subject": "01",
                              "groups": ""})  # fmt: skip
        return StudyPlan(table, events, stimuli, folds, role)

    return make


@pytest.fixture
def write_plan():
    """Write a plan into the folder of a run."""
    import xarray as xr

    from braindecode_pipe.schema import table_to_dataset
    from braindecode_pipe.store import write_store

    def write(out, plan, **attrs):
        groups = {
            name: table_to_dataset(getattr(plan, name), f"{name}_row")
            for name in ("recordings", "events", "stimuli", "folds")
        }
        groups["split"] = xr.Dataset(
            {"role": (("fold", "event"), plan.role)}, attrs={"schema_version": "1", "kind": "table"}
        )
        write_store(out / "plan" / "study" / "k.zarr", groups, attrs={"kind": "table", **attrs})

    return write
