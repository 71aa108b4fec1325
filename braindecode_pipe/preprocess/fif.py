"""Samples of FIF files straight from their data buffers, several times faster than through MNE.

MNE reads a buffer as float64 and opens the file anew for every piece. Here the bytes of a buffer
go into one reused block of memory, channel by channel into float32. Nothing is mapped, so that no
page of the file counts as memory of the process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from braindecode_pipe.errors import TruncatedRecordingError
from braindecode_pipe.preprocess.scratch import slices

# Types of data buffers (FIFF constants) that are plain real numbers, big-endian.
_TYPES = {2: ">i2", 3: ">i4", 4: ">f4", 5: ">f8", 16: ">i2"}
_TAG_HEADER = 16
# Samples compared with MNE's reading at each of a few places, before any is trusted.
_PROBE = 16
# Samples that are brought from time-first to channel-first at a time: they fit into the cache.
_ROWS = 256


@dataclass(frozen=True)
class _Buffer:
    start: int
    n: int
    file: int
    place: int
    dtype: np.dtype


class FifSamples:
    """Channels of a ``mne.io.Raw`` that is not loaded.

    Use :meth:`of`, which refuses what it does not know. Values are ``stored * cal`` as in MNE,
    stretches without data (skips) are zero.
    """

    def __init__(self, raw: Any, picks: list[int]) -> None:
        self._buffers, self._files, self._columns, self._n_channels = [], [], [], []
        self._cals = np.asarray(raw._cals, float).ravel()[picks]
        before = 0
        for i, extra in enumerate(raw._raw_extras):
            self._files.append(os.fspath(extra["filename"]))
            self._n_channels.append(int(extra["orig_nchan"]))
            self._columns.append(np.asarray(raw._read_picks[i])[picks])
            first = before - int(raw._first_samps[i])
            for entry, start, stop in zip(extra["ent"], extra["bounds"], extra["bounds"][1:]):
                if entry is not None:
                    self._buffers.append(_Buffer(
                        first + int(start), int(stop - start), i, entry.pos + _TAG_HEADER,
                        np.dtype(_TYPES[int(entry.type)]),
                    ))  # fmt: skip
            before += int(raw._last_samps[i] - raw._first_samps[i]) + 1
        self._starts = np.array([b.start for b in self._buffers])
        self._handles: dict[int, int] = {}
        self._memory = bytearray()

    @classmethod
    def of(cls, raw: Any, picks: list[int]) -> FifSamples | None:
        """A reader of ``raw``, or None where MNE has to read it.

        None for other formats, compressed files, complex samples, active compensation or
        projection, files that end early, and whenever a few probes differ from MNE's values.
        """
        import mne

        if not isinstance(raw, mne.io.fiff.raw.Raw) or raw.preload:
            return None
        try:
            if raw._comp is not None or raw._projector is not None:
                return None
            reader = cls(raw, picks)
            if reader._whole() and reader._agrees(raw, picks):
                return reader
        except (AttributeError, KeyError, TypeError, OSError, TruncatedRecordingError):
            # Another version of MNE keeps its buffers elsewhere: its own reader knows.
            return None
        reader.close()
        return None

    def fill(self, out: np.ndarray, start: int, stop: int, offset: np.ndarray) -> None:
        """Put ``x - offset`` of the samples ``start`` to ``stop`` into ``out`` float32.

        Parameters
        ----------
        out : (n_channels, stop - start) float32
        offset : (n_channels,) float64 [SI unit]
        """
        inside = np.flatnonzero((self._starts < stop) & (self._starts + self._lengths() > start))
        at = start
        for i in inside:
            buffer = self._buffers[i]
            low, high = max(start, buffer.start), min(stop, buffer.start + buffer.n)
            out[:, at - start : low - start] = -offset[:, None]
            self._copy(buffer, low, high, out[:, low - start : high - start], offset)
            at = high
        out[:, at - start :] = -offset[:, None]

    def close(self) -> None:
        """Close the files."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}

    def _lengths(self) -> np.ndarray:
        return np.array([b.n for b in self._buffers])

    def _copy(
        self, buffer: _Buffer, low: int, high: int, out: np.ndarray, offset: np.ndarray
    ) -> None:
        n_channels, size = self._n_channels[buffer.file], buffer.dtype.itemsize
        place = buffer.place + (low - buffer.start) * n_channels * size
        stored = self._bytes(buffer.file, place, (high - low) * n_channels * size)
        stored = np.frombuffer(stored, buffer.dtype).reshape(high - low, n_channels)
        columns = self._columns[buffer.file]
        if columns[-1] - columns[0] + 1 == len(columns) and (np.diff(columns) == 1).all():
            stored = stored[:, columns[0] : columns[-1] + 1]
        else:
            stored = stored[:, columns]
        for part in slices(len(stored), _ROWS):
            out[:, part] = self._centered(stored[part], offset).T

    def _centered(self, stored: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """``stored * cal - offset`` (n_times, n_channels), float32."""
        if stored.dtype.itemsize == 8 or stored.dtype.kind == "i":
            return (stored * self._cals - offset).astype(np.float32)
        # Taken away in the stored unit, where the difference of two float32 is exact.
        safe = np.where(self._cals == 0, 1, self._cals)
        values = stored.astype(np.float32)
        values -= (offset / safe).astype(np.float32)
        values *= self._cals.astype(np.float32)
        return values

    def _bytes(self, file: int, place: int, n: int) -> memoryview:
        """Bytes of a file, in memory that the next call uses again."""
        if file not in self._handles:
            self._handles[file] = os.open(self._files[file], os.O_RDONLY)
        if len(self._memory) < n:
            self._memory = bytearray(n)
        view = memoryview(self._memory)[:n]
        done = 0
        while done < n:
            got = os.preadv(self._handles[file], [view[done:]], place + done)
            if not got:
                raise TruncatedRecordingError(
                    "the recording ends early", file=self._files[file],
                    expected=f"{n} bytes at {place}", found=f"{done} bytes",
                )  # fmt: skip
            done += got
        return view

    def _whole(self) -> bool:
        """Whether every buffer lies inside its file, and no file is compressed."""
        ends = dict.fromkeys(range(len(self._files)), 0)
        for b in self._buffers:
            n_bytes = b.n * self._n_channels[b.file] * b.dtype.itemsize
            ends[b.file] = max(ends[b.file], b.place + n_bytes)
        return bool(self._buffers) and all(
            not self._files[i].endswith(".gz") and os.path.getsize(self._files[i]) >= end
            for i, end in ends.items()
        )

    def _agrees(self, raw: Any, picks: list[int]) -> bool:
        """Whether a few samples of the first, the last and a middle buffer are those of MNE."""
        zero = np.zeros(len(picks))
        for b in {self._buffers[i] for i in (0, len(self._buffers) // 2, -1)}:
            start, stop = b.start, b.start + min(b.n, _PROBE)
            found = np.empty((len(picks), stop - start), np.float32)
            self.fill(found, start, stop, zero)
            expected = raw.get_data(picks, start, stop, verbose="error").astype(np.float32)
            if not np.allclose(found, expected, rtol=1e-6, atol=0, equal_nan=True):
                return False
        return True
