"""Small stores to write, damage and read."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from braindecode_pipe.schema import (
    response_dataset,
    sensor_coords,
    signal_dataset,
    table_to_dataset,
)
from braindecode_pipe.store import write_store


def _signal(
    n_sensors: int = 4, n_times: int = 900, kind: str = "eeg", seed: int = 0, **attrs: object
) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    sensors = sensor_coords(
        [f"{kind}{i:03d}" for i in range(n_sensors)],
        kind,
        "V" if kind == "eeg" else "a.u.",
        position=rng.standard_normal((n_sensors, 3)) * 0.1,
        roi=["é"] * n_sensors,
        ijk=np.arange(3 * n_sensors).reshape(n_sensors, 3),
    )
    good = np.ones(n_times, bool)
    good[n_times // 2 :][:5] = False
    data = rng.standard_normal((n_sensors, n_times)).astype(np.float32)
    attrs = {"sfreq": 100.0, "first_time": 2.0, "data_origin": "simulated", **attrs}
    return signal_dataset(data, sensors, 2.0 + np.arange(n_times) / 100.0, attrs, good)


def _response(n_events: int = 7, n_sensors: int = 3, n_times: int | None = 5) -> xr.Dataset:
    rng = np.random.default_rng(1)
    shape = (n_events, n_sensors) + (() if n_times is None else (n_times,))
    return response_dataset(
        rng.standard_normal(shape).astype(np.float32),
        sensor_coords([f"E{i}" for i in range(n_sensors)], "eeg", "V"),
        [f"event-{i}" for i in range(n_events)],
        {"data_origin": "simulated", "sfreq": 50.0},
        None if n_times is None else np.arange(n_times) / 50.0 - 0.02,
    )


def _events(n: int = 3) -> xr.Dataset:
    table = pd.DataFrame(
        {
            "onset": np.arange(n) * 1.5,
            "trial_type": [f"word {i} ß" for i in range(n)],
            "repetition": np.arange(n),
            "good": np.arange(n) % 2 == 0,
        }
    )
    return table_to_dataset(table, "event")


@pytest.fixture
def tmp_path(tmp_path):
    """A folder in memory where the system has one: syncing every file to a disk takes long."""
    memory = "/dev/shm"
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def make_signal():
    """Factory of signal datasets."""
    return _signal


@pytest.fixture
def make_response():
    """Factory of response datasets."""
    return _response


@pytest.fixture
def make_events():
    """Factory of event tables as datasets."""
    return _events


@pytest.fixture(scope="session")
def _pristine(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "unit.zarr"
    qc = xr.Dataset({"psd": (("sensor", "freq"), np.ones((4, 6)))}, attrs={"steps": ["filter"]})
    groups = {"": _signal(), "qc": qc, "tables/events": _events()}
    write_store(path, groups, files={"page.html": b"<p>page</p>"}, chunks={"time": 300})
    return path


@pytest.fixture
def stored(tmp_path, _pristine) -> Path:
    """A committed store: a signal of three chunks, a group, a table and a file."""
    path = tmp_path / "unit.zarr"
    shutil.copytree(_pristine, path)
    return path
