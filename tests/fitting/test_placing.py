"""Windows in bulk are those of a reader that takes one after the other, sample by sample."""

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import DataError, EventError
from braindecode_pipe.fitting.inputs import InputScaling, fit_inputs
from braindecode_pipe.fitting.windows import Windows
from braindecode_pipe.recipe import WindowSection
from braindecode_pipe.schema import response_dataset, sensor_coords, signal_dataset
from braindecode_pipe.store import open_signal, write_store

SFREQ, N_TIMES, FIRST, STEP = 50.0, 900, 2.0, 130
NAMES = {"a": "ABCDEF", "b": "FBXDA", "c": "ABCDEFG"}
PERSON = {"a": "1", "b": "1", "c": "2"}
SHARED = {"1": "ABDF", "2": "ABCDEFG"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three recordings of two people in chunks of 130 samples, and where their events are."""
    folder, rng = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    data, signals = {}, {}
    for name, sensors in NAMES.items():
        data[name] = (3 * rng.standard_normal((len(sensors), N_TIMES)) + 1).astype(np.float32)
        good = np.ones(N_TIMES, bool)
        good[400:410] = False
        dataset = signal_dataset(
            data[name], sensor_coords(list(sensors), "eeg", "V"),
            FIRST + np.arange(N_TIMES) / SFREQ,
            {"sfreq": SFREQ, "first_time": FIRST, "data_origin": "simulated"}, good,
        )  # fmt: skip
        write_store(folder / f"{name}.zarr", {"": dataset}, chunks={"time": STEP})
        signals[name] = open_signal(folder / f"{name}.zarr")
    recording = rng.choice(list(NAMES), 80)
    recording[0] = "a"  # whose order of sensors is that of the person
    events = pd.DataFrame(
        {"event": [f"e{i}" for i in range(80)], "recording": recording,
         "subject": [PERSON[r] for r in recording], "onset": rng.uniform(1.5, 20, 80),
         "duration": 0.5}
    )  # fmt: skip
    return signals, data, events


def naive(data, events, row, section, n_sensors, shift=0):
    """One window, by the definition; None where there is none."""
    name, onset = events["recording"].iloc[row], events["onset"].iloc[row]
    sample = lambda t: int(np.floor(t * SFREQ + 0.5))  # noqa: E731
    start = sample(onset + section.tmin - FIRST) + shift
    length = sample(section.tmax - section.tmin)
    used = [start, start + length]
    if section.baseline:
        low, high = section.baseline
        low = start if low is None else start + sample(low - section.tmin)
        high = start + length if high is None else start + sample(high - section.tmin)
        used += [low, high]
    if min(used) < 0 or max(used) > N_TIMES or (min(used) < 410 and max(used) > 400):
        return None
    index = [NAMES[name].index(s) for s in SHARED[PERSON[name]]]
    x = data[name][index, start : start + length]
    if section.baseline:
        x = x - data[name][index, low:high].mean(1, keepdims=True)
    if section.sfreq:
        n = round(length * section.sfreq / SFREQ)
        edges = [int(np.floor(k * length / n + 0.5)) for k in range(n + 1)]
        x = np.stack([x[:, a:b].mean(1) for a, b in zip(edges, edges[1:])], 1)
    return np.pad(x, ((0, n_sensors - len(x)), (0, 0)))


SECTIONS = [
    WindowSection(tmin=-0.1, tmax=0.5),
    WindowSection(tmin=0.0, tmax=6.0),
    WindowSection(tmin=-0.1, tmax=0.4, baseline=(None, 0.0)),
    WindowSection(tmin=0.1, tmax=0.5, baseline=(-0.2, -0.1), sfreq=11.0),
]


@pytest.mark.parametrize("section", SECTIONS)
def test_bulk_read_is_that_of_a_naive_loop(study, section):
    signals, data, events = study
    windows = Windows(signals, events, section)
    expected = [naive(data, events, row, section, 7) for row in range(len(events))]
    assert windows.valid.tolist() == [x is not None for x in expected]
    assert 10 < windows.valid.sum() < 80 and len(set(events["recording"][windows.valid])) == 3
    rows = np.random.default_rng(1).permutation(np.repeat(windows.rows(), 2))
    found = windows.read(rows)
    reference = np.stack([expected[row] for row in rows])
    if section.baseline is None:
        assert np.array_equal(found, reference)
    else:
        assert found == pytest.approx(reference, abs=2e-6)
    buffer = np.full_like(found, np.nan)
    assert windows.read(rows, buffer) is buffer
    assert np.array_equal(buffer, found)


def test_buffer_of_another_shape_is_refused(study):
    windows = Windows(study[0], study[2], SECTIONS[0])
    with pytest.raises(DataError, match="buffer for windows does not fit"):
        windows.read(windows.rows()[:3], np.zeros((2, *windows.shape), np.float32))


@pytest.mark.parametrize("section", SECTIONS)
def test_shifted_windows_are_those_of_shifted_events(study, section):
    signals, data, events = study
    windows = Windows(signals, events, section)
    rows = windows.rows()
    seconds = np.random.default_rng(2).uniform(-1.0, 1.0, len(rows))
    shift = windows.shifts(rows, seconds)
    wanted = np.floor(seconds * SFREQ + 0.5).astype(int)
    for row, own, asked in zip(rows, shift, wanted):
        possible = naive(data, events, row, section, 7, asked) is not None
        assert own == (asked if possible else 0)
    assert 0 < (shift != wanted).sum() < len(rows) / 2
    found = windows.read(rows, shift=shift)
    for x, row, own in zip(found, rows, shift):
        assert x == pytest.approx(naive(data, events, row, section, 7, own), abs=2e-6)


def test_transform_after_a_shift_is_the_transform_of_the_shifted(study):
    windows = Windows(study[0], study[2], SECTIONS[2])
    rows = windows.rows()
    transform = fit_inputs(windows, rows, np.arange(len(rows)) % 5, InputScaling("robust", 2.0))
    shift = windows.shifts(rows, np.full(len(rows), 0.1))
    moved = study[2].assign(onset=study[2]["onset"] + 0.1)
    able = shift == 5
    found = windows.transformed(transform).read(rows, shift=shift)[able]
    others = Windows(study[0], moved, SECTIONS[2]).transformed(transform)
    assert able.sum() > 20 and np.array_equal(found, others.read(rows[able]))


def test_a_shift_out_of_the_recording_is_an_error(study):
    windows = Windows(study[0], study[2], SECTIONS[0])
    with pytest.raises(EventError, match="leaves the recording"):
        windows.read(windows.rows()[:1], shift=[N_TIMES])


def test_responses_shift_within_their_epoch(tmp_path):
    data = np.random.default_rng(0).normal(size=(7, 3, 60)).astype(np.float32)
    names = [f"e{i}" for i in range(7)]
    dataset = response_dataset(
        data, sensor_coords(list("abc"), "eeg", "V"), names,
        {"data_origin": "simulated", "sfreq": 50.0}, np.arange(60) / 50 - 0.2,
    )  # fmt: skip
    write_store(tmp_path / "r.zarr", {"": dataset}, chunks={"event": 2})
    events = pd.DataFrame({"event": names, "recording": "r", "subject": "1", "onset": 0.0,
                           "duration": 0.0})  # fmt: skip
    section = WindowSection(tmin=-0.1, tmax=0.9)
    windows = Windows({"r": open_signal(tmp_path / "r.zarr")}, events, section)
    rows = np.array([6, 0, 3, 5])
    assert windows.shifts(rows, np.array([-0.1, 0.1, 0.12, -0.14])).tolist() == [-5, 5, 0, 0]
    found = windows.read(rows, shift=[-5, 5, 0, 0])
    for x, row, start in zip(found, rows, [0, 10, 5, 5]):
        assert np.array_equal(x, data[row, :, start : start + 50])
    assert windows.chunks(rows)[0].tolist() == [3, 0, 1, 2]


def test_chunks_number_where_windows_begin(study):
    windows = Windows(study[0], study[2], SECTIONS[0])
    rows = windows.rows()
    number, size = windows.chunks(rows)
    names = study[2]["recording"].to_numpy()[rows]
    first = np.floor((study[2]["onset"].to_numpy()[rows] - 0.1 - FIRST) * SFREQ + 0.5)
    pairs = {(name, int(f // STEP)) for name, f in zip(names, first)}
    assert len(set(zip(number, names))) == len(set(number)) == len(pairs)
    assert set(size) == {4 * STEP * len(n) + 4 for n in NAMES.values()}


def test_one_spoilt_chunk_is_found_in_bulk(tmp_path):
    data = np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32)
    data[1, 260] = np.inf
    for good in (True, False):
        dataset = signal_dataset(
            data, sensor_coords(["x", "y"], "eeg", "V", good=[True, good]), np.arange(500) / 50,
            {"sfreq": 50.0, "data_origin": "simulated"},
        )  # fmt: skip
        write_store(tmp_path / f"{good}.zarr", {"": dataset}, chunks={"time": 100})
    events = pd.DataFrame({"event": ["p", "q", "r"], "recording": "a", "subject": "1",
                           "onset": [3.9, 5.0, 5.9], "duration": 0.0})  # fmt: skip
    open_one = lambda good: open_signal(tmp_path / f"{good}.zarr")  # noqa: E731
    windows = Windows({"a": open_one(False)}, events, WindowSection(tmax=1.0))
    found = windows.read([0, 1, 2])
    assert not found[1, 1].any() and np.array_equal(found[1, 0], data[0, 250:300])
    assert np.array_equal(found[[0, 2]], [data[:, 195:245], data[:, 295:345]])
    windows = Windows({"a": open_one(True)}, events, WindowSection(tmax=1.0))
    assert windows.read([0, 2]).shape == (2, 2, 50)
    with pytest.raises(DataError, match="not finite[\\s\\S]*event q, sensors y"):
        windows.read([2, 1])
