"""What a recording is read through: its file, a scratch file, or either with stretches replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.preprocess import reading
from braindecode_pipe.preprocess.blocks import Source, breaks_of, fill, per_block
from braindecode_pipe.preprocess.fif import FifSamples
from braindecode_pipe.preprocess.scratch import Scratch, slices

if TYPE_CHECKING:
    import mne

# The level of a channel is the median of a few samples at each of so many places.
_N_PLACES, _PER_PLACE = 32, 8


@contextmanager
def open_source(
    raw: Any, picks: list[int], info: mne.Info, path: Path, data: Path, out: Path,
    messages: list[str],
) -> Iterator[Source]:  # fmt: skip
    """The picked channels of a recording that is not loaded.

    FIF files are read from their buffers, everything else through MNE in blocks. Files of several
    sampling rates, whose slower channels MNE resamples within the piece that it reads, are copied
    channel by channel into a scratch file beside ``out`` first.

    Parameters
    ----------
    raw : mne.io.BaseRaw
    picks : positions in ``raw``
    info : mne.Info of those channels
    path, data, out : Path
        The recording, the root of the data set, the store to be written.
    messages : list of str
        Gets what the reader warns of.
    """
    breaks = breaks_of(raw_annotations(raw), float(raw.info["sfreq"]), raw.n_times)
    if reading.mixed_rates(path):
        with Scratch(out, (len(picks), raw.n_times)) as samples:
            messages += reading.copy_raw(raw, picks, samples, path, data)
            yield ScratchSource(samples, info, breaks)
        return
    source = RawSource(raw, picks, info, breaks, path, data, messages)
    try:
        yield source
    finally:
        source.close()


def raw_annotations(raw: Any) -> Any:
    """The annotations of a Raw, their onsets relative to its first sample."""
    import mne

    onset = raw.annotations.onset - raw.first_samp / raw.info["sfreq"]
    return mne.Annotations(onset, raw.annotations.duration, raw.annotations.description)


class RawSource:
    """Channels of a ``mne.io.BaseRaw`` that is not loaded; see :class:`Source`."""

    def __init__(
        self, raw: Any, picks: list[int], info: mne.Info, breaks: list[tuple[int, int]],
        path: Path, data: Path, messages: list[str],
    ) -> None:  # fmt: skip
        self.info, self.n_times, self.breaks = info, int(raw.n_times), breaks
        self._raw, self._picks, self._path, self._data = raw, picks, path, data
        self._messages = messages
        self._fif = FifSamples.of(raw, picks)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples as MNE reads them, float64."""
        reader = partial(self._raw.get_data, self._picks, start=start, stop=stop, verbose="warning")
        values, found = reading.guarded(reader, self._path, self._data)
        self._messages.extend(text for text in found if text not in self._messages)
        return values

    def fill(self, out: np.ndarray, start: int, stop: int, offset: np.ndarray) -> None:
        """``x - offset`` as float32; see :func:`blocks.fill`."""
        if self._fif is not None:
            self._fif.fill(out, start, stop, offset)
            return
        # Readers take all channels of the file into memory, picked or not.
        for part in slices(stop - start, per_block(len(self._raw.ch_names))):
            values = self.read(start + part.start, start + part.stop)
            np.subtract(values, offset[:, None], out=out[:, part], casting="same_kind")

    def close(self) -> None:
        """Close the files."""
        if self._fif is not None:
            self._fif.close()


class ScratchSource:
    """Channels that lie in a :class:`Scratch`; see :class:`Source`."""

    def __init__(
        self, samples: Scratch, info: mne.Info, breaks: list[tuple[int, int]] = ()
    ) -> None:
        self.info, self.n_times, self.breaks = info, samples.shape[1], list(breaks)
        self._samples = samples

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples of the scratch file."""
        return self._samples.read(columns=slice(start, stop))


@dataclass(frozen=True)
class Bridge:
    """Samples ``start`` to ``stop`` of some channels, replaced by a straight line.

    From ``left``, the value before the first of them, to ``right``, the value after the last.

    Attributes
    ----------
    rows : (n_rows,) int
    start, stop : int [samples]
    left, right : (n_rows,) float64 [SI unit]
    """

    rows: np.ndarray
    start: int
    stop: int
    left: np.ndarray
    right: np.ndarray


class BridgedSource:
    """A source with stretches replaced by straight lines; nothing of them can be seen."""

    def __init__(self, source: Source, bridges: Sequence[Bridge]) -> None:
        self.info, self.n_times, self.breaks = source.info, source.n_times, source.breaks
        self._source, self._bridges = source, list(bridges)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples of the source, or of the lines."""
        values = np.array(self._source.read(start, stop), float)
        self._draw(values, start, stop, np.zeros(len(values)))
        return values

    def fill(self, out: np.ndarray, start: int, stop: int, offset: np.ndarray) -> None:
        """``x - offset`` as float32; see :func:`blocks.fill`."""
        fill(self._source, out, start, stop, offset)
        self._draw(out, start, stop, offset)

    def _draw(self, out: np.ndarray, start: int, stop: int, offset: np.ndarray) -> None:
        for bridge in self._bridges:
            low, high = max(start, bridge.start), min(stop, bridge.stop)
            if low >= high:
                continue
            share = (np.arange(low, high) - bridge.start + 1) / (bridge.stop - bridge.start + 1)
            line = bridge.left[:, None] + (bridge.right - bridge.left)[:, None] * share
            out[bridge.rows, low - start : high - start] = line - offset[bridge.rows, None]


def bridge_gaps(source: Source, keep: Sequence[tuple[int, int]]) -> BridgedSource:
    """A source of which nothing outside of ``keep`` can be seen, by straight lines in all channels.

    Parameters
    ----------
    source : Source
    keep : (start, stop) [samples], ascending and disjoint, not empty
    """
    rows = np.arange(len(source.info["chs"]))
    stops = [0, *(stop for _, stop in keep)]
    starts = [*(start for start, _ in keep), source.n_times]
    bridges = []
    for start, stop in zip(stops, starts):
        if start < stop:
            left = source.read(start - 1, start)[:, 0] if start > 0 else None
            right = source.read(stop, stop + 1)[:, 0] if stop < source.n_times else None
            left, right = right if left is None else left, left if right is None else right
            bridges.append(Bridge(rows, start, stop, np.asarray(left, float),
                                  np.asarray(right, float)))  # fmt: skip
    return BridgedSource(source, bridges)


def bridge_spans(source: Source, spans: dict[int, list[tuple[int, int]]]) -> BridgedSource:
    """A source in which spans of single channels are interpolated over time.

    Parameters
    ----------
    source : Source
    spans : row -> (start, stop) [samples] of samples that are not finite, ascending and disjoint,
        with a finite sample before or after each of them
    """
    bridges = []
    for row, stretches in spans.items():
        for start, stop in stretches:
            before = source.read(start - 1, start)[row, 0] if start > 0 else np.nan
            after = source.read(stop, stop + 1)[row, 0] if stop < source.n_times else np.nan
            ends = np.array([before, after], float)
            ends[~np.isfinite(ends)] = ends[np.isfinite(ends)].mean()
            bridges.append(Bridge(np.array([row]), start, stop, ends[:1], ends[1:]))
    return BridgedSource(source, bridges)


def silence(source: Source, rows: Sequence[int]) -> BridgedSource:
    """A source of which some channels are zero throughout."""
    zero = np.zeros(len(rows))
    return BridgedSource(source, [Bridge(np.asarray(rows), 0, source.n_times, zero, zero)])


def level(source: Source, pieces: Sequence[tuple[int, int]]) -> np.ndarray:
    """(n_channels,) median of a few finite samples all over ``pieces`` [SI unit], float64.

    What is subtracted before samples become float32; 0 where no sample is finite.
    """
    n_total = sum(stop - start for start, stop in pieces)
    values = []
    for place in range(_N_PLACES):
        at = n_total * place // _N_PLACES
        for start, stop in pieces:
            if at < stop - start:
                values.append(source.read(start + at, min(stop, start + at + _PER_PLACE)))
                break
            at -= stop - start
    if not values:
        return np.zeros(len(source.info["chs"]))
    few = np.concatenate(values, axis=1).astype(float)
    few[~np.isfinite(few)] = np.nan
    known = np.isfinite(few).any(axis=1)
    result = np.zeros(len(few))
    result[known] = np.nanmedian(few[known], axis=1)
    return result
