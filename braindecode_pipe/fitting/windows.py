"""Windows: the pieces of recordings that belong to events, read from stores when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, EventError, RecipeError
from braindecode_pipe.fitting.inputs import InputTransform
from braindecode_pipe.fitting.sensors import align_sensors
from braindecode_pipe.fitting.spans import Span, response_span, sampling_rate, signal_span
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
    ) -> None:
        self.window, self.delay = window, float(delay)
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
        self._spans, self.dropped = self._place()
        self.valid = np.array([span is not None for span in self._spans], bool)
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
        asked = self.window.sfreq
        if asked and 0 < sampling_rate(first) * (1 + 1e-6) < asked:
            raise RecipeError(
                "windows cannot be averaged to a higher rate",
                expected=f"train.windows.sfreq <= {sampling_rate(first)} Hz",
                found=f"{asked} Hz",
            )

    def _place(self) -> tuple[list[Span | None], dict[str, int]]:
        """The span of every event, None where it has none, and how many for which reason."""
        rows = {
            name: {str(event): row for row, event in enumerate(signal.events)}
            for name, signal in self._signals.items()
            if self.kind == "response"
        }
        spans: list[Span | None] = []
        dropped: dict[str, int] = {}
        columns = (self.events[c] for c in ("event", "onset", "duration"))
        for name, event, onset, duration in zip(self._recording, *columns):
            signal = self._signals.get(name)
            found: Span | str
            if signal is None:
                found = "recording has no store"
            elif self.kind == "response":
                found = response_span(signal, self.window, rows[name].get(str(event)), self.delay)
            else:
                found = signal_span(signal, self.window, float(onset), float(duration), self.delay)
            spans.append(found if isinstance(found, Span) else None)
            if isinstance(found, str):
                dropped[found] = dropped.get(found, 0) + 1
        return spans, dropped

    def _set_time_axis(self) -> None:
        spans = [span for span in self._spans if span is not None]
        lengths = sorted({span.length for span in spans})
        sfreq = sampling_rate(next(iter(self._signals.values())))
        if self.window.reduce == "mean" or not sfreq:
            self.n_times, self.sfreq, self._bins = 1, float("nan"), None
            mean_s = np.mean(lengths) / sfreq if sfreq else 0.0
            self.times = np.array([self.window.tmin + mean_s / 2])
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
        self.times = self.window.tmin + centre / sfreq

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

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Windows of some events.

        Parameters
        ----------
        rows : (n,) int
            Positions in ``events``; all valid.

        Returns
        -------
        (n, n_sensors, n_times) float32, in the units of the stores

        Raises
        ------
        EventError
            When a row has no valid window.
        DataError
            When a good sensor holds a value that is not finite.
        """
        rows = np.asarray(rows, np.int64)
        out = np.zeros((len(rows), *self.shape), np.float32)
        for place, row in enumerate(rows):
            span = self._spans[row]
            if span is None:
                raise EventError(
                    "event has no valid window",
                    expected="rows of Windows.rows()",
                    found=str(self.events["event"].iloc[row]),
                )
            data = self._read_one(int(row), span)
            out[place, : len(data)] = data
        return out

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
        span = self._spans[row]
        if span is None:
            raise EventError("event has no valid window", found=str(self.events["event"].iloc[row]))
        return self._stored(row, span)

    def _stored(self, row: int, span: Span) -> np.ndarray:
        name = self._recording[row]
        signal, index = self._signals[name], self._alignment.index[name]
        if self.kind == "response":
            block = np.asarray(signal.read_events([span.row]))[0]
            block = block[:, None] if block.ndim == 1 else block[:, span.first : span.last]
        else:
            block = signal.read(span.first, span.last)
        block = np.asarray(block if index is None else block[index], np.float32)
        if not np.isfinite(block).all():
            block = self._without_bad(block, name, row)
        return block

    def _read_one(self, row: int, span: Span) -> np.ndarray:
        block, who = self._stored(row, span), int(self._subject[row])
        if self.transform is not None:
            block = self.transform.scale(block, who)
        data = self._cut(block, span)
        return data if self.transform is None else self.transform.whiten(data, who)

    def _cut(self, block: np.ndarray, span: Span) -> np.ndarray:
        """The window itself: baseline subtracted, time averaged."""
        offset = span.start - span.first
        data = block[:, offset : offset + span.length]
        if span.baseline is not None:
            low, high = (edge + offset for edge in span.baseline)
            data = data - block[:, low:high].mean(1, keepdims=True)
        if self._bins is None:
            return data.mean(1, keepdims=True)
        if self.n_times == span.length:
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


class WindowView:
    """``(n, n_sensors, n_times)`` windows that are read when indexed with positions or a slice."""

    def __init__(self, windows: Windows, rows: np.ndarray) -> None:
        self.windows, self.rows = windows, rows
        self.shape = (len(rows), *windows.shape)
        self.ndim, self.dtype = 3, np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.windows.read(np.atleast_1d(self.rows[index]))

    def subset(self, positions: np.ndarray) -> WindowView:
        """The view of some of these windows; reads nothing."""
        return WindowView(self.windows, self.rows[positions])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.windows.read(self.rows).astype(dtype or np.float32, copy=False)
