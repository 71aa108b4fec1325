"""The window reader against plain indexing."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from braindecode_pipe.errors import CorruptStoreError, EventError, SchemaError, StoreError
from braindecode_pipe.store import limit_maps, open_signal, open_store, write_store
from braindecode_pipe.store import signal as store_signal
from braindecode_pipe.store.index import Entry
from braindecode_pipe.store.layout import checksum, crc32c
from braindecode_pipe.store.signal import ChunkMaps


@pytest.mark.parametrize("kind", ["eeg", "parcel"])
@pytest.mark.parametrize(("n", "chunk"), [(900, 900), (900, 300), (400, 7), (30, 1)])
def test_windows_equal_slices(tmp_path, make_signal, kind, n, chunk):
    dataset = make_signal(kind=kind, n_times=n)
    write_store(tmp_path / "s", {"": dataset}, chunks={"time": chunk})
    signal = open_signal(tmp_path / "s")
    values = dataset["signal"].values
    rng = np.random.default_rng(0)
    windows = [(0, n), (0, 0), (n, n), (n // 3 - 1, n // 3 + 1)]
    windows += [tuple(np.sort(rng.integers(0, n + 1, 2))) for _ in range(30)]
    for start, stop in windows:
        window = signal.read(start, stop)
        assert window.dtype == np.float32
        assert window.flags.writeable
        np.testing.assert_array_equal(window, values[:, start:stop])
        out = np.full(window.shape, np.nan, np.float32)
        assert signal.read(start, stop, out=out) is out
        np.testing.assert_array_equal(out, window)


@pytest.mark.parametrize("kind", ["eeg", "parcel"])
@pytest.mark.parametrize(("n", "chunk", "width"), [(900, 900, 9), (900, 70, 30), (60, 7, 20)])
def test_many_windows_equal_slices(tmp_path, make_signal, kind, n, chunk, width):
    dataset = make_signal(kind=kind, n_times=n)
    write_store(tmp_path / "s", {"": dataset}, chunks={"time": chunk})
    signal, values = open_signal(tmp_path / "s"), dataset["signal"].values
    rng = np.random.default_rng(0)
    starts, where = rng.integers(0, n - width + 1, 40), rng.permutation(50)[:40]
    starts[:3] = 0, n - width, 0
    out = np.full((50, signal.n_sensors, width), 7, np.float32)
    assert not signal.read_windows(starts, out, where).any()
    for start, place in zip(starts, where):
        np.testing.assert_array_equal(out[place], values[:, start : start + width])
    assert (out[np.setdiff1d(np.arange(50), where)] == 7).all()
    assert signal.chunk_of(starts).tolist() == (starts // chunk).tolist()
    for outside in (-1, n - width + 1):
        with pytest.raises(EventError, match="leaves the recording"):
            signal.read_windows([0, outside], out, [0, 1])


@pytest.mark.parametrize("n_times", [None, 5])
def test_many_responses_equal_slices(tmp_path, make_response, n_times):
    dataset = make_response(n_times=n_times)
    write_store(tmp_path / "r", {"": dataset}, chunks={"event": 2})
    signal, values = open_signal(tmp_path / "r"), dataset["response"].values
    values = values[..., None] if n_times is None else values
    events, width = np.array([6, 0, 3, 3]), 1 if n_times is None else 3
    starts = np.array([0, 0, 0, 0]) if n_times is None else np.array([2, 0, 1, 0])
    out = np.zeros((4, 3, width), np.float32)
    signal.read_windows(starts, out, [2, 0, 1, 3], events)
    for event, start, place in zip(events, starts, [2, 0, 1, 3]):
        np.testing.assert_array_equal(out[place], values[event][:, start : start + width])
    with pytest.raises(EventError, match="leaves the recording"):
        signal.read_windows(starts + 3, out, [0, 1, 2, 3], events)


def test_windows_near_a_value_that_is_not_finite_are_told(tmp_path, make_signal):
    dataset = make_signal(n_times=40)
    dataset["signal"].values[1, 25] = -np.inf
    write_store(tmp_path / "s", {"": dataset}, chunks={"time": 10})
    out = np.zeros((4, 4, 5), np.float32)
    told = open_signal(tmp_path / "s").read_windows([12, 16, 20, 33], out, [0, 1, 2, 3])
    assert told.tolist() == [False, True, True, False]


def test_fewer_bytes_are_mapped_when_asked(stored):
    before = store_signal._maps.max_bytes
    try:
        limit_maps(1)
        open_signal(stored).read(0, 900)
        assert len(store_signal._maps._maps) == 1
    finally:
        limit_maps(before)


def test_description(tmp_path, make_signal):
    dataset = make_signal()
    write_store(tmp_path / "s", {"": dataset}, attrs={"subject": "01"})
    signal = open_signal(tmp_path / "s")
    assert (signal.kind, signal.n_sensors, signal.n_times, signal.n_events) == ("signal", 4, 900, 0)
    assert (signal.sfreq, signal.first_time, signal.events) == (100.0, 2.0, None)
    assert signal.attrs["subject"] == "01"
    np.testing.assert_array_equal(signal.times, dataset["time"].values)
    np.testing.assert_array_equal(signal.time_good, dataset["time_good"].values)
    sensors = signal.sensors
    assert list(sensors.columns[:6]) == ["sensor", "kind", "unit", "x", "y", "z"]
    assert list(sensors.columns[6:10]) == ["ox", "oy", "oz", "sensor_good"]
    np.testing.assert_array_equal(sensors[["x", "y", "z"]], dataset["position"].values)
    np.testing.assert_array_equal(sensors[["i", "j", "k"]], dataset["ijk"].values)
    assert list(sensors["roi"]) == ["é"] * 4
    assert all(type(name) is str for name in sensors["sensor"])


@pytest.mark.parametrize("window", [(-1, 5), (5, 901), (6, 5)])
def test_windows_outside_the_recording(stored, window):
    with pytest.raises(EventError, match=r"leaves the recording[\s\S]*0 to 900"):
        open_signal(stored).read(*window)


def test_buffers_must_fit(stored):
    with pytest.raises(SchemaError, match="buffer"):
        open_signal(stored).read(0, 10, out=np.empty((4, 9), np.float32))
    with pytest.raises(SchemaError, match="buffer"):
        open_signal(stored).read(0, 10, out=np.empty((4, 10)))


@pytest.mark.parametrize("n_times", [None, 5])
@pytest.mark.parametrize("chunk", [7, 2])
def test_responses(tmp_path, make_response, n_times, chunk):
    dataset = make_response(n_times=n_times)
    write_store(tmp_path / "s", {"": dataset}, chunks={"event": chunk})
    response = open_signal(tmp_path / "s")
    rows = [6, 0, 0, 3]
    np.testing.assert_array_equal(response.read_events(rows), dataset["response"].values[rows])
    assert response.read_events([]).shape == (0, *dataset["response"].shape[1:])
    assert list(response.events) == [f"event-{i}" for i in range(7)]
    assert response.n_times == (n_times or 0)
    for wrong in ([7], [-1]):
        with pytest.raises(EventError, match="positions within 0 to 6"):
            response.read_events(wrong)
    with pytest.raises(StoreError, match=r"use read_events"):
        response.read(0, 1)


def test_signals_have_no_events(stored):
    with pytest.raises(StoreError, match=r"use read\("):
        open_signal(stored).read_events([0])


def test_only_recordings_open_as_signals(tmp_path, make_events):
    write_store(tmp_path / "s", {"": make_events()})
    with pytest.raises(SchemaError, match="no recording"):
        open_signal(tmp_path / "s")


def test_signals_travel_to_workers(stored):
    signal = open_signal(stored)
    again = pickle.loads(pickle.dumps(signal))  # noqa: S301 (what Dask does with it)
    np.testing.assert_array_equal(again.read(250, 350), signal.read(250, 350))
    lazy = pickle.loads(pickle.dumps(open_store(stored)))  # noqa: S301
    np.testing.assert_array_equal(lazy["signal"].values, signal.read(0, 900))


@pytest.mark.parametrize("byte", [0, 1000, -5, -1])
def test_a_damaged_chunk_raises_at_its_first_map(stored, byte):
    signal = open_signal(stored)
    file = stored / "signal" / "c" / "0" / "1"
    data = bytearray(file.read_bytes())
    data[byte] ^= 4
    file.write_bytes(data)
    signal.read(0, 300)
    with pytest.raises(CorruptStoreError, match=r"signal/c/0/1[\s\S]*crc32c[\s\S]*remedy"):
        signal.read(0, 301)


def test_a_deleted_or_replaced_chunk_raises(stored):
    signal = open_signal(stored)
    one, two = (stored / "signal" / "c" / "0" / name for name in "12")
    two.write_bytes(one.read_bytes())
    with pytest.raises(CorruptStoreError, match="signal/c/0/2"):
        signal.read(600, 601)
    one.unlink()
    with pytest.raises(CorruptStoreError, match="signal/c/0/1"):
        signal.read(300, 301)
    two.write_bytes(b"short")
    with pytest.raises(CorruptStoreError, match="5 bytes"):
        signal.read(600, 601)


def test_maps_are_bounded(tmp_path):
    entries = {}
    for i in range(20):
        payload = np.full(1000, i, np.uint8)
        (tmp_path / str(i)).write_bytes(payload.tobytes() + checksum(crc32c(payload)))
        entries[str(tmp_path / str(i))] = Entry(1004, crc32c(payload), True)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for maps, expected in [
        (ChunkMaps(max_maps=5), 5),
        (ChunkMaps(max_bytes=3500), 3),
        (ChunkMaps(max_bytes=1), 1),
    ]:
        for _ in range(2):
            for i, (file, entry) in enumerate(entries.items()):
                assert set(maps.payload(file, entry)) == {i}
        assert len(maps._maps) == expected
        assert maps._bytes == 1004 * expected
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 9
