"""Where the windows of events lie in their recordings, in samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.fitting.spans import nearest_sample, sample_at, sampling_rate
from braindecode_pipe.recipe import WindowSection


class Places:
    """Windows of events in samples of their recording, or of their stored response.

    Attributes
    ----------
    start, length : (n_events,) int, samples of the window
    low, high : (n_events,) int, samples of its baseline counted from ``start``
    first, last : (n_events,) int, samples to read (``last`` exclusive): window and baseline
    row : (n_events,) int, position of the event in a response store, else 0
    reason : (n_events,) text, why an event has no window; empty where it has one
    has_baseline : bool

    Parameters
    ----------
    signals : recording -> Signal, all of one kind
    recording : (n_events,) text
    events : DataFrame with the columns event, onset [s], duration [s]
    window : WindowSection
    delay : float [s], added to the onset
    """

    def __init__(
        self,
        signals: Mapping[str, Any],
        recording: np.ndarray,
        events: pd.DataFrame,
        window: WindowSection,
        delay: float,
    ) -> None:
        n = len(events)
        self._signals, self._recording = signals, recording
        timed = all(signal.times is not None for signal in signals.values())
        self.has_baseline = window.baseline is not None and timed
        self.start, self.row, self.low, self.high = np.zeros((4, n), np.int64)
        self.length = np.ones(n, np.int64)
        self.reason = np.full(n, "recording has no store", object)
        # Bad samples before each sample of a recording: a span is good when both ends agree.
        self._n_bad: dict[str, np.ndarray] = {}
        onset, duration = (events[name].to_numpy(float) for name in ("onset", "duration"))
        names = events["event"].astype(str).to_numpy(object)
        for name, signal in signals.items():
            here = np.flatnonzero(recording == name)
            if signal.kind == "response":
                self._in_responses(signal, here, names[here], window, delay)
            else:
                self._n_bad[name] = np.concatenate([[0], np.cumsum(~signal.time_good)])
                self._in_signal(signal, here, onset[here], duration[here], window, delay)
        self._set_extent()
        for name in signals:
            self._judge(name, np.flatnonzero(recording == name))

    def _set_extent(self) -> None:
        self.first = self.start + np.minimum(0, self.low)
        self.last = self.start + np.maximum(self.length, self.high)

    def narrow(self, begin: float, end: float) -> None:
        """Leave of every window what lies between two times [s] from its start.

        At least one sample, and none outside of the window. Which windows there are, and their
        baselines, stay those of the whole.
        """
        for name, signal in self._signals.items():
            here = self._recording == name
            offset, stop = (int(nearest_sample(t, sampling_rate(signal))) for t in (begin, end))
            offset = np.clip(offset, 0, self.length[here] - 1)
            self.length[here] = np.maximum(1, np.minimum(stop, self.length[here]) - offset)
            self.start[here] += offset
            if self.has_baseline:
                self.low[here] -= offset
                self.high[here] -= offset
        self._set_extent()

    def dropped(self) -> dict[str, int]:
        """How many events have no window, for which reason."""
        counts: dict[str, int] = {}
        for reason in self.reason[self.reason != ""]:
            counts[reason] = counts.get(reason, 0) + 1
        return counts

    def _in_signal(self, signal, here, onset, duration, window, delay) -> None:
        stop = duration if window.tmax is None else np.full(len(here), window.tmax)
        known = np.isfinite(onset) & np.isfinite(stop)
        self.reason[here] = np.where(known, "", "onset or duration unknown")
        here, length_s = here[known], stop[known] - window.tmin
        if len(here):
            self.start[here] = sample_at(signal, onset[known] + delay + window.tmin)
            self._lengthen(here, length_s, signal.sfreq, window)

    def _in_responses(self, signal, here, names, window, delay) -> None:
        rows = {str(event): row for row, event in enumerate(signal.events)}
        found = np.array([rows.get(name, -1) for name in names], np.int64)
        stored = found >= 0
        good = stored & signal.event_good[found]
        self.reason[here] = np.where(
            good, "", np.where(stored, "event was rejected", "event has no response stored")
        )
        here = here[good]
        self.row[here] = found[good]
        if signal.times is None or not len(here):
            return
        start = int(nearest_sample(window.tmin + delay - signal.times[0], signal.sfreq))
        if window.tmax is None:
            length_s = (len(signal.times) - start) / signal.sfreq
        else:
            length_s = window.tmax - window.tmin
        self.start[here] = start
        self._lengthen(here, np.full(len(here), length_s), signal.sfreq, window)

    def _lengthen(
        self, here: np.ndarray, length_s: np.ndarray, sfreq: float, window: WindowSection
    ) -> None:
        self.length[here] = length = np.maximum(1, nearest_sample(length_s, sfreq))
        if window.baseline is None:
            return
        low, high = window.baseline
        if low is not None:
            self.low[here] = nearest_sample(low - window.tmin, sfreq)
        self.high[here] = length if high is None else nearest_sample(high - window.tmin, sfreq)
        self.high[here] = np.maximum(self.high[here], self.low[here] + 1)

    def _judge(self, name: str, here: np.ndarray) -> None:
        """Give windows that leave their recording, or meet bad samples, their reason."""
        here = here[self.reason[here] == ""]
        inside = self._inside(name, here, np.zeros(len(here), np.int64))
        self.reason[here[~inside]] = "window leaves the recording"
        here = here[inside]
        good = self._good(name, here, np.zeros(len(here), np.int64))
        self.reason[here[~good]] = "window meets bad samples"

    def _inside(self, name: str, rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
        signal = self._signals[name]
        n_times = 1 if signal.times is None else signal.n_times
        return (self.first[rows] + shift >= 0) & (self.last[rows] + shift <= n_times)

    def _good(self, name: str, rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
        if name not in self._n_bad:
            return np.ones(len(rows), bool)
        n_bad = self._n_bad[name]
        return n_bad[self.last[rows] + shift] == n_bad[self.first[rows] + shift]

    def shifted(self, rows: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Samples by which windows move for a shift in time; 0 where they cannot move so far.

        They cannot leave the recording (or the stored response), nor meet bad samples.

        Parameters
        ----------
        rows : (n,) int, of events with a window
        seconds : (n,) [s]
        """
        samples = np.zeros(len(rows), np.int64)
        for name in dict.fromkeys(self._recording[rows]):
            here = np.flatnonzero(self._recording[rows] == name)
            shift = nearest_sample(seconds[here], sampling_rate(self._signals[name]))
            own = rows[here]
            able = np.flatnonzero(self._inside(name, own, shift))
            able = able[self._good(name, own[able], shift[able])]
            samples[here[able]] = shift[able]
        return samples
