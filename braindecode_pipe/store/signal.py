"""Signals and responses, read by window through memory maps."""

from __future__ import annotations

import mmap
import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import EventError, SchemaError, StoreError
from braindecode_pipe.schema import validate
from braindecode_pipe.store.index import Entry, StoreIndex, corrupt
from braindecode_pipe.store.layout import CHECKSUM_BYTES, ArrayLayout
from braindecode_pipe.store.read import open_group


class ChunkMaps:
    """Memory maps of chunk files, least recently used first to go.

    A chunk is compared with its checksum when it is mapped for the first time in the process.
    Maps are bounded in number (each holds a file descriptor) and bytes (mapped pages count as
    memory of the process, though the system can take them back).
    """

    def __init__(self, max_bytes: int = 512 * 2**20, max_maps: int = 128) -> None:
        self.max_bytes, self.max_maps = max_bytes, max_maps
        self._maps: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._verified: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def payload(self, file: str, entry: Entry) -> np.ndarray:
        """Bytes of the values of a chunk, read-only."""
        key = (file, entry.crc)
        with self._lock:
            data = self._maps.get(key)
            if data is None:
                data = self._map(file, entry)
                if key not in self._verified:
                    if problem := entry.problem(data):
                        raise corrupt(Path(file), *problem)
                    self._verified.add(key)
                self._maps[key] = data
                self._bytes += len(data)
                while len(self._maps) > self.max_maps or (
                    self._bytes > self.max_bytes and len(self._maps) > 1
                ):
                    self._bytes -= len(self._maps.popitem(last=False)[1])
            else:
                self._maps.move_to_end(key)
        return data[:-CHECKSUM_BYTES]

    @staticmethod
    def _map(file: str, entry: Entry) -> np.ndarray:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise corrupt(Path(file), "the file", error.strerror or str(error)) from error
        try:
            size = os.fstat(descriptor).st_size
            if size != entry.size:
                raise corrupt(Path(file), f"{entry.size} bytes", f"{size} bytes")
            return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)
        finally:
            os.close(descriptor)


_maps = ChunkMaps()


def limit_maps(max_bytes: int) -> None:
    """Let this process map at most so many bytes of signals at a time; at least one chunk."""
    _maps.max_bytes = int(max_bytes)


@dataclass(frozen=True, eq=False)
class Signal:
    """A signal ``(sensor, time)`` or a response ``(event, sensor[, time])`` in a store.

    Attributes
    ----------
    path : the store
    kind : "signal" or "response"
    sensors : one row per sensor: sensor, kind, unit, x, y, z [m], ox, oy, oz, sensor_good and
        what else there is (roi, hemisphere, i, j, k)
    times : (n_times,) [s], or None for responses without time
    time_good : (n_times,) bool, False where samples are scrubbed or annotated as bad; or None
    events : ids of the events of a response, else None
    event_good : (n_events,) bool, False where an event was rejected; None for signals
    attrs : attributes of the store
    """

    path: Path
    kind: str
    sensors: pd.DataFrame
    times: np.ndarray | None
    time_good: np.ndarray | None
    events: np.ndarray | None
    event_good: np.ndarray | None
    attrs: dict[str, Any] = field(repr=False)
    _files: list[tuple[str, Entry]] = field(repr=False)
    _layout: ArrayLayout = field(repr=False)
    _finite: dict[int, bool] = field(repr=False, default_factory=dict)

    @property
    def sfreq(self) -> float:
        """Sampling rate [Hz]."""
        if "sfreq" not in self.attrs:
            raise SchemaError("no sampling rate", file=self.path, expected="attrs['sfreq'] [Hz]")
        return float(self.attrs["sfreq"])

    @property
    def first_time(self) -> float:
        """Time of the first sample [s]."""
        if self.times is None or not len(self.times):
            return float(self.attrs.get("first_time", 0.0))
        return float(self.times[0])

    @property
    def n_sensors(self) -> int:
        """Number of sensors."""
        return len(self.sensors)

    @property
    def n_times(self) -> int:
        """Number of samples; 0 for responses without time."""
        return 0 if self.times is None else len(self.times)

    @property
    def n_events(self) -> int:
        """Number of events; 0 for signals."""
        return 0 if self.events is None else len(self.events)

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Samples ``start`` to ``stop`` (exclusive) of all sensors.

        Parameters
        ----------
        start, stop : int
            Sample numbers, ``0 <= start <= stop <= n_times``.
        out : (n_sensors, stop - start) float32, optional
            Where to put them.

        Returns
        -------
        (n_sensors, stop - start) float32
            A copy; for voxels, vertices and parcels time is the slow axis in memory.

        Raises
        ------
        EventError
            When the window leaves the recording.
        CorruptStoreError
            When a chunk is not what was written.
        """
        self._require("signal", "read_events")
        start, stop = operator.index(start), operator.index(stop)
        if not 0 <= start <= stop <= self.n_times:
            raise self._outside(start, stop, self.n_times)
        shape = (self.n_sensors, stop - start)
        if out is None:
            transposed = self._layout.is_transposed
            out = np.empty(shape[::-1], np.float32).T if transposed else np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise SchemaError(
                "the buffer for a window does not fit",
                expected=f"{shape} float32",
                found=f"{out.shape} {out.dtype}",
            )
        step = self._layout.chunk_shape[1]
        for i in range(start // step, -(-stop // step)):
            first, last = max(start, i * step), min(stop, (i + 1) * step)
            chunk = self._chunk(i)
            out[:, first - start : last - start] = chunk[:, first - i * step : last - i * step]
        return out

    def read_events(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Responses to events, by position: ``(n_rows, n_sensors[, n_times])`` float32.

        Raises
        ------
        EventError
            When a position is not in ``0 .. n_events - 1``.
        """
        self._require("response", "read")
        rows = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.n_events):
            raise EventError(
                "an event is not in the store",
                file=self.path,
                expected=f"positions within 0 to {self.n_events - 1}",
                found=f"{rows.min()} to {rows.max()}",
            )
        out = np.empty((len(rows), *self._layout.shape[1:]), np.float32)
        step = self._layout.chunk_shape[0]
        for i in np.unique(rows // step):
            here = np.flatnonzero(rows // step == i)
            out[here] = self._chunk(int(i))[rows[here] - i * step]
        return out

    def read_windows(
        self, starts: np.ndarray, out: np.ndarray, where: np.ndarray,
        events: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Many windows of one length, copied from the maps into places of one array.

        Chunks are taken one after the other, whatever the order of the windows.

        Parameters
        ----------
        starts : (n,) int
            First sample of each window, of the recording or of the response.
        out : (n_places, n_sensors, n) float32
        where : (n,) int
            ``out[where[k]]`` gets window ``k``.
        events : (n,) int, optional
            Position of the event of each window; for responses only.

        Returns
        -------
        (n,) bool
            True where a chunk of the window holds a value that is not finite, here or elsewhere.

        Raises
        ------
        EventError
            When a window leaves the recording.
        CorruptStoreError
            When a chunk is not what was written.
        """
        starts, where = np.asarray(starts, np.int64), np.asarray(where, np.int64)
        width = out.shape[2]
        self._require(*(("signal", "read_events") if events is None else ("response", "read")))
        n_times = 1 if self.times is None else self.n_times
        if len(starts) and not 0 <= starts.min() <= starts.max() + width <= n_times:
            raise self._outside(int(starts.min()), int(starts.max()) + width, n_times)
        if events is not None:
            step, suspect = self._layout.chunk_shape[0], np.zeros(len(starts), bool)
            for k in np.argsort(events, kind="stable").tolist():
                i, row = divmod(int(events[k]), step)
                block = self._chunk(i)[row]
                block = block[:, None] if block.ndim == 1 else block
                out[where[k]] = block[:, starts[k] : starts[k] + width]
                suspect[k] = not self._is_finite(i)
            return suspect
        step, held, chunk = self._layout.chunk_shape[1], -1, None
        order = np.argsort(starts, kind="stable")
        number, begin = np.divmod(starts[order], step)
        within = begin + width <= step
        ways = zip(where[order].tolist(), number.tolist(), begin.tolist(), within.tolist())
        for place, i, first, is_within in ways:
            if not is_within:
                start = i * step + first
                self.read(start, start + width, out=out[place])
                continue
            if i != held:
                held, chunk = i, self._chunk(i)
                self._is_finite(i)  # now, while it is at hand
            out[place] = chunk[:, first : first + width]
        spoilt = np.zeros(self._layout.n_chunks + 1, np.int64)
        begin, last = starts // step, (starts + max(width, 1) - 1) // step
        for i in {j for ends in set(zip(begin.tolist(), last.tolist()))
                  for j in range(ends[0], ends[1] + 1)}:  # fmt: skip
            spoilt[i + 1] = not self._is_finite(i)
        n_spoilt = np.cumsum(spoilt)
        return n_spoilt[last + 1] > n_spoilt[begin]

    def chunk_of(self, positions: np.ndarray) -> np.ndarray:
        """Number of the chunk that holds each sample, or event of a response: ``(n,)`` int."""
        return np.asarray(positions) // self._layout.chunk_shape[self.kind == "signal"]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk."""
        return self._layout.chunk_bytes

    def _outside(self, start: int, stop: int, n_times: int) -> EventError:
        return EventError(
            "a window leaves the recording",
            file=self.path,
            expected=f"samples within 0 to {n_times}",
            found=f"{start} to {stop}",
            remedy="drop the event, or shorten the window",
        )

    def _is_finite(self, i: int) -> bool:
        """Whether a chunk, without what it is filled up with, holds finite values only."""
        if i not in self._finite:
            axis = int(self.kind == "signal")
            step = self._layout.chunk_shape[axis]
            n = min(step, self._layout.shape[axis] - i * step)
            values = self._chunk(i)[:, :n] if axis else self._chunk(i)[:n]
            self._finite[i] = bool(np.isfinite(values.max()) and np.isfinite(values.min()))
        return self._finite[i]

    def _chunk(self, i: int) -> np.ndarray:
        file, entry = self._files[i]
        return self._layout.decode(_maps.payload(file, entry))

    def _require(self, kind: str, other: str) -> None:
        if self.kind != kind:
            raise StoreError(
                f"this store holds a {self.kind}, not a {kind}",
                file=self.path,
                remedy=f"use {other}()",
            )


def open_signal(path: str | Path) -> Signal:
    """Open a signal or response store for reading windows.

    Raises
    ------
    MissingFileError, IncompleteStoreError, CorruptStoreError
    SchemaError
        When the store is neither, or does not follow the data contract.
    """
    index = StoreIndex.load(path)
    dataset = open_group(index)
    validate(dataset)
    kind = dataset.attrs["kind"]
    if kind not in ("signal", "response"):
        raise SchemaError(
            "the store holds no recording", file=path, expected="signal or response", found=kind
        )
    layout = index.arrays[kind]
    cut = 1 if kind == "signal" else 0
    if any(n != 1 for axis, n in enumerate(layout.grid) if axis != cut and layout.n_chunks):
        raise SchemaError(
            "the store is cut along another dimension than its reader expects",
            file=path,
            expected=f"chunks along {layout.dims[cut]} only",
            found=f"a grid of {layout.grid} chunks",
        )
    names = [f"{kind}/{layout.key(i)}" for i in layout.indices()]
    times = np.asarray(dataset["time"].values, float) if "time" in dataset.coords else None
    good = None
    if times is not None:
        has = "time_good" in dataset.coords
        good = dataset["time_good"].values.astype(bool) if has else np.ones(len(times), bool)
    events = event_good = None
    if kind == "response":
        events = dataset["event"].values
        event_good = np.ones(len(events), bool)
        if "event_good" in dataset.coords:
            event_good = dataset["event_good"].values.astype(bool)
    return Signal(
        path=Path(path),
        kind=kind,
        sensors=_sensor_table(dataset),
        times=times,
        time_good=good,
        events=events,
        event_good=event_good,
        attrs=dict(dataset.attrs),
        _files=[(str(index.root / name), index.entries[name]) for name in names],
        _layout=layout,
    )


def _sensor_table(dataset: xr.Dataset) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    names = {"position": "xyz", "orientation": ["ox", "oy", "oz"], "ijk": "ijk"}
    first = ["sensor", "kind", "unit", "position", "orientation", "sensor_good"]
    others = sorted(str(n) for n, c in dataset.coords.items() if c.dims[:1] == ("sensor",))
    for name in dict.fromkeys([*first, *others]):
        values = dataset[name].values
        if values.ndim == 2:
            labels = names.get(name, [f"{name}_{i}" for i in range(values.shape[1])])
            columns.update(zip(labels, values.T))
        else:
            columns[name] = pd.Series(values, dtype=values.dtype)
    return pd.DataFrame(columns)
