"""Small signal and response stores."""

import numpy as np
import pytest

from braindecode_pipe.schema import response_dataset, sensor_coords, signal_dataset
from braindecode_pipe.store import open_signal, write_store


@pytest.fixture
def make_signal(tmp_path):
    """Writes ``data (n_sensors, n_times)`` as a signal store and opens it."""

    def make(name, data, sfreq, names=None, first_time=0.0, time_good=None, good=None,
             position=None):  # fmt: skip
        data = np.asarray(data, np.float32)
        names = names or [f"s{i}" for i in range(len(data))]
        sensors = sensor_coords(names, "eeg", "V", position, good=good)
        times = first_time + np.arange(data.shape[1]) / sfreq
        attrs = {"data_origin": "simulated", "sfreq": sfreq, "first_time": first_time}
        path = tmp_path / f"{name}.zarr"
        write_store(path, {"": signal_dataset(data, sensors, times, attrs, time_good)})
        return open_signal(path)

    return make


@pytest.fixture
def make_response(tmp_path):
    """Writes ``data (n_events, n_sensors[, n_times])`` as a response store and opens it."""

    def make(name, data, events, times=None, good=None):
        data = np.asarray(data, np.float32)
        sensors = sensor_coords([f"s{i}" for i in range(data.shape[1])], "eeg", "V")
        attrs = {"data_origin": "simulated"}
        if times is not None:
            attrs["sfreq"] = round(1 / float(times[1] - times[0]), 9)
        path = tmp_path / f"{name}.zarr"
        dataset = response_dataset(data, sensors, events, attrs, times)
        if good is not None:
            dataset = dataset.assign_coords(event_good=("event", np.asarray(good, bool)))
        write_store(path, {"": dataset})
        return open_signal(path)

    return make
