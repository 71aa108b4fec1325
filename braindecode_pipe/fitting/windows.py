"""Windows: the pieces of recordings that belong to events, read from stores when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, EventError, RecipeError
from braindecode_pipe.fitting.inputs import InputTransform
from braindecode_pipe.fitting.placing import Places
from braindecode_pipe.fitting.sensors import align_sensors
from braindecode_pipe.fitting.spans import sampling_rate
from braindecode_pipe.fitting.views import WindowView
from braindecode_pipe.recipe import WindowSection


class Windows:
    """Windows of events as views into signal or response stores.

    The window of an event is ``[onset + delay + tmin, onset + delay + tmax)``: ``n`` samples,
    ``n = round((tmax - tmin) sfreq)``, at least one, from the sample nearest to its begin. With
    ``tmax=None`` it ends with the event (for response stores: with the epoch). Then, in this
    order: samples are scaled and clamped where there is a ``transform``, the mean over ``baseline``
    is subtracted per sensor, time is averaged down to ``window.sfreq`` in near equal bins, or away
    altogether with ``reduce="mean"``, and sensors are whitened where the transform does so.

    Events whose window (with its baseline) leaves the recording or meets a sample that is marked
    bad are not valid; ``dropped`` counts them by reason. Nothing is kept in memory: ``read``
    copies just the windows that are asked for.

    Sensors: the recordings of one person are brought to the sensors that all of them have, by
    name, in the order of the first recording. People may differ: a person with fewer sensors is
    padded with zeros at the end, and ``mask`` says which sensors are there.

    Parameters
    ----------
    signals : recording -> Signal
        As ``store.open_signal`` gives them.
    events : DataFrame
        Columns event, recording, subject, onset [s], duration [s].
    window : WindowSection
        Its ``delay`` is not looked at: the delay of a fold is the argument.
    delay : float
        Response delay [s].
    piece : (begin, end), optional
        Times [s] of the part of the window that is read, on the clock of ``window.tmin``. Which
        events are valid, and the baseline, are those of the whole window.

    Attributes
    ----------
    events : DataFrame, as given
    valid : (n_events,) bool
    dropped : reason -> count
    subjects : people, in order of appearance
    sensors : subject -> table of sensors
    n_sensors, n_times : shape of a window
    sfreq : rate of a window [Hz]; NaN when time is averaged away
    times : (n_times,) [s] from onset + delay
    positions : (n_subjects, n_sensors, 2), see :func:`plane_layout`
    masks : (n_subjects, n_sensors) bool, True where a sensor is present

    Raises
    ------
    RecipeError
        When windows of different length would have to be one array, or the rate asked for is
        above that of the recordings.
    DataError
        When recordings differ in sampling rate or in kind, or share no sensor.
    EventError
        When no event is left.
    """

    def __init__(
        self,
        signals: Mapping[str, Any],
        events: pd.DataFrame,
        window: WindowSection,
        delay: float = 0.0,
        piece: tuple[float, float] | None = None,
    ) -> None:
        self.window, self.delay, self.piece = window, float(delay), piece
        self.transform: InputTransform | None = None
        self.events = events.reset_index(drop=True)
        names = [str(r) for r in dict.fromkeys(self.events["recording"])]
        self._signals = {name: signals[name] for name in names if name in signals}
        self._recording = self.events["recording"].astype(str).to_numpy(object)
        self._check_signals()
        who = dict(zip(self._recording, self.events["subject"].astype(str)))
        self._alignment = align_sensors(self._signals, who)
        self.sensors = self._alignment.tables
        self.subjects = list(self.sensors)
        self.masks, self.positions = self._alignment.masks, self._alignment.positions
        self.n_sensors = self.masks.shape[1]
        number = {subject: i for i, subject in enumerate(self.subjects)}
        self._subject = np.array([number.get(who[r], -1) for r in self._recording], np.int64)
        self._places = Places(self._signals, self._recording, self.events, window, self.delay)
        self.dropped = self._places.dropped()
        self.valid = self._places.reason == ""
        if piece is not None:
            self._places.narrow(*(edge - window.tmin for edge in piece))
        if not self.valid.any():
            raise EventError(
                "no event has a usable window",
                expected="at least one window inside its recording",
                found=", ".join(f"{n} x {reason}" for reason, n in self.dropped.items()) or "none",
                remedy="look at [train.windows] tmin, tmax, delay and at [preprocess] rejection",
            )
        self._set_time_axis()

    def _check_signals(self) -> None:
        if not self._signals:
            raise DataError(
                "no signal store for these events",
                expected=", ".join(list(dict.fromkeys(self._recording))[:5]),
                found="none of them",
                remedy="run the stage preprocess",
            )
        first_name, first = next(iter(self._signals.items()))
        for name, signal in self._signals.items():
            same_rate = np.isclose(sampling_rate(signal), sampling_rate(first), rtol=1e-6, atol=0)
            if signal.kind != first.kind or not (same_rate or self.window.reduce == "mean"):
                raise DataError(
                    "recordings cannot be read together",
                    expected=f"{first_name}: {first.kind} at {sampling_rate(first)} Hz",
                    found=f"{name}: {signal.kind} at {sampling_rate(signal)} Hz",
                    remedy="give [preprocess.emeg] sfreq, or select recordings in [plan]",
                )
        self.kind = first.kind
        if self.piece is not None and not sampling_rate(first):
            raise RecipeError(
                "responses without time have no pieces",
                expected="recordings, or responses that are sampled in time",
                found=f"{first_name}: one value per sensor and event",
                remedy="leave [train.windows] sliding_s out",
            )
        asked = self.window.sfreq
        if asked and 0 < sampling_rate(first) * (1 + 1e-6) < asked:
            raise RecipeError(
                "windows cannot be averaged to a higher rate",
                expected=f"train.windows.sfreq <= {sampling_rate(first)} Hz",
                found=f"{asked} Hz",
            )

    def _set_time_axis(self) -> None:
        lengths = np.unique(self._places.length[self.valid]).tolist()
        sfreq = sampling_rate(next(iter(self._signals.values())))
        begin = self.window.tmin if self.piece is None else self.piece[0]
        if self.window.reduce == "mean" or not sfreq:
            self.n_times, self.sfreq, self._bins = 1, float("nan"), None
            mean_s = np.mean(lengths) / sfreq if sfreq else 0.0
            self.times = np.array([begin + mean_s / 2])
            return
        if len(lengths) > 1:
            raise RecipeError(
                "windows have different lengths",
                expected="one length, or windows averaged over time",
                found=f"{lengths[0]} to {lengths[-1]} samples",
                remedy='give [train.windows] tmax, or reduce = "mean"',
            )
        length = lengths[0]
        self.n_times = length
        if self.window.sfreq:
            self.n_times = max(1, round(length * self.window.sfreq / sfreq))
        self._bins = np.floor(np.arange(self.n_times + 1) * length / self.n_times + 0.5).astype(int)
        self.sfreq = sfreq * self.n_times / length
        centre = (self._bins[:-1] + self._bins[1:] - 1) / 2
        self.times = begin + centre / sfreq

    def __len__(self) -> int:
        return len(self.events)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_sensors, n_times)`` of one window."""
        return self.n_sensors, self.n_times

    def rows(self, idx: np.ndarray | None = None) -> np.ndarray:
        """Those of the given positions in ``events`` (default: all) whose window is valid."""
        idx = np.arange(len(self)) if idx is None else np.asarray(idx)
        idx = np.flatnonzero(idx) if idx.dtype == bool else idx
        return idx[self.valid[idx]]

    def subject_index(self, rows: np.ndarray) -> np.ndarray:
        """Number of the person, in ``subjects``, for each row: ``(n,)`` int64."""
        return self._subject[rows]

    def read(
        self, rows: np.ndarray, out: np.ndarray | None = None, shift: np.ndarray | None = None
    ) -> np.ndarray:
        """Windows of some events.

        Windows that are stored samples and no more (no baseline, averaging or transform) are
        copied straight from the maps of the store, recording by recording and chunk by chunk.

        Parameters
        ----------
        rows : (n,) int
            Positions in ``events``; all valid.
        out : (n, n_sensors, n_times) float32, optional
            Where to put them; memory that is used again is much faster than new memory.
        shift : (n,) int, optional
            Samples of the store by which windows move, baseline and all; see :meth:`shifts`.

        Returns
        -------
        (n, n_sensors, n_times) float32, in the units of the stores

        Raises
        ------
        EventError
            When a row has no valid window, or a shifted one leaves its recording.
        DataError
            When a good sensor holds a value that is not finite, or ``out`` does not fit.
        """
        rows = np.asarray(rows, np.int64)
        self._require_valid(rows)
        shift = np.zeros(len(rows), np.int64) if shift is None else np.asarray(shift, np.int64)
        shape = (len(rows), *self.shape)
        if out is None:
            out = np.zeros(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise DataError(
                "the buffer for windows does not fit",
                expected=f"{shape} float32",
                found=f"{out.shape} {out.dtype}",
            )
        names = self._recording[rows]
        for name in dict.fromkeys(names):
            here = np.flatnonzero(names == name)
            n_own = int(self.masks[self._subject[rows[here[0]]]].sum())
            out[here, n_own:] = 0
            if self._is_plain(name):
                self._copy(name, rows[here], shift[here], out[:, :n_own], here)
                continue
            for place in here.tolist():
                out[place, :n_own] = self._read_one(int(rows[place]), int(shift[place]))
        return out

    def _require_valid(self, rows: np.ndarray) -> None:
        if not self.valid[rows].all():
            row = rows[~self.valid[rows]][0]
            raise EventError(
                "event has no valid window",
                expected="rows of Windows.rows()",
                found=str(self.events["event"].iloc[row]),
            )

    def _is_plain(self, name: str) -> bool:
        """Whether windows of a recording are its samples as they are stored."""
        return (
            self.transform is None
            and self._alignment.index[name] is None
            and not self._places.has_baseline
            and self._bins is not None
            and self.n_times == self._bins[-1]
        )

    def _copy(
        self, name: str, rows: np.ndarray, shift: np.ndarray, out: np.ndarray, where: np.ndarray
    ) -> None:
        events = self._places.row[rows] if self.kind == "response" else None
        starts = self._places.start[rows] + shift
        suspect = self._signals[name].read_windows(starts, out, where, events)
        for k in np.flatnonzero(suspect):
            block = out[where[k]]
            if not np.isfinite(block).all():
                block[...] = self._without_bad(block, name, int(rows[k]))

    def shifts(self, rows: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Samples ``(n,)`` of a shift in time [s]; 0 for windows that cannot move so far.

        A shifted window stays within its recording or epoch and meets no bad sample.
        """
        return self._places.shifted(np.asarray(rows, np.int64), np.asarray(seconds, float))

    def chunks(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the chunk that each window begins in ``(n,)``, and bytes of it ``(n,)``.

        Numbers go on from recording to recording.
        """
        rows = np.asarray(rows, np.int64)
        number, size = np.zeros((2, len(rows)), np.int64)
        at = self._places.row if self.kind == "response" else self._places.first
        n_before = 0
        for name, signal in self._signals.items():
            here = self._recording[rows] == name
            if here.any():
                own = signal.chunk_of(at[rows[here]])
                number[here], size[here] = own + n_before, signal.chunk_bytes
                n_before += int(own.max()) + 1
        return number, size

    def transformed(self, transform: InputTransform | None) -> Windows:
        """The same windows, going through ``transform`` when they are read."""
        other = copy(self)
        other.transform = transform
        return other

    def good_sensors(self, subject: int) -> np.ndarray:
        """(n_sensors,) bool: sensors of a person that no recording marks as bad."""
        good = self.masks[subject].copy()
        for name, who in zip(self._recording, self._subject):
            if who == subject and name in self._signals:
                bad = self._alignment.bad[name]
                good[: len(bad)] &= ~bad
        return good

    def read_stored(self, row: int) -> np.ndarray:
        """What the window of an event is made of: ``(n_own, n)`` samples as they are stored.

        Its baseline is part of it; nothing is subtracted, averaged or transformed.
        """
        self._require_valid(np.array([row]))
        return self._stored(row)

    def _stored(self, row: int, shift: int = 0) -> np.ndarray:
        name, places = self._recording[row], self._places
        signal, index = self._signals[name], self._alignment.index[name]
        first, last = places.first[row] + shift, places.last[row] + shift
        if self.kind == "response":
            block = np.asarray(signal.read_events([places.row[row]]))[0]
            block = block[:, None] if block.ndim == 1 else block[:, first:last]
        else:
            block = signal.read(first, last)
        block = np.asarray(block if index is None else block[index], np.float32)
        if not np.isfinite(block).all():
            block = self._without_bad(block, name, row)
        return block

    def _read_one(self, row: int, shift: int) -> np.ndarray:
        block, who = self._stored(row, shift), int(self._subject[row])
        if self.transform is not None:
            block = self.transform.scale(block, who)
        data = self._cut(block, row)
        return data if self.transform is None else self.transform.whiten(data, who)

    def _cut(self, block: np.ndarray, row: int) -> np.ndarray:
        """The window itself: baseline subtracted, time averaged."""
        places = self._places
        offset, length = int(places.start[row] - places.first[row]), int(places.length[row])
        data = block[:, offset : offset + length]
        if places.has_baseline:
            low, high = int(places.low[row]) + offset, int(places.high[row]) + offset
            data = data - block[:, low:high].mean(1, keepdims=True)
        if self._bins is None:
            return data.mean(1, keepdims=True)
        if self.n_times == length:
            return data
        return np.add.reduceat(data, self._bins[:-1], axis=1) / np.diff(self._bins)

    def _without_bad(self, block: np.ndarray, name: str, row: int) -> np.ndarray:
        spoiled = ~np.isfinite(block).all(1)
        wrong = spoiled & ~self._alignment.bad[name]
        if wrong.any():
            table = self.sensors[self.subjects[self._subject[row]]]
            which = table["sensor"].to_numpy(object)[wrong]
            raise DataError(
                "a window holds values that are not finite",
                file=name,
                expected="finite values in good sensors",
                found=f"event {self.events['event'].iloc[row]}, sensors {', '.join(which[:5])}",
                remedy="run the stage preprocess again; it marks such sensors or samples as bad",
            )
        return np.where(spoiled[:, None], np.float32(0), block)

    def view(self, rows: np.ndarray) -> WindowView:
        """Windows of some rows as something array-like that reads when indexed."""
        return WindowView(self, np.asarray(rows, np.int64))
