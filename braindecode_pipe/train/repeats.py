"""Windows of one stimulus averaged, per person and role, and never across roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from braindecode_pipe.fitting.windows import Windows


def repeats_of(rows: np.ndarray, *keys: np.ndarray) -> dict[int, np.ndarray]:
    """Rows that agree in all ``keys``: the first of each kind -> all of its kind, in order.

    Parameters
    ----------
    rows : (n,) int
    keys : (n,) each: person, stimulus, role
    """
    found: dict[tuple, list[int]] = {}
    for row, *key in zip(rows.tolist(), *keys):
        found.setdefault(tuple(key), []).append(row)
    return {own[0]: np.array(own, np.int64) for own in found.values()}


def joined_groups(
    trials: Mapping[int, np.ndarray], groups: np.ndarray, stimuli: np.ndarray
) -> np.ndarray:
    """The group of each average ``(n_averages,)``: that of its trials.

    Trials of several groups (runs, say) make an average that belongs to none of them. It is
    grouped with the averages of the same stimulus, whoever saw it: averages of different stimuli
    share no trial.

    Parameters
    ----------
    trials : of :func:`repeats_of`
    groups, stimuli : of every row that ``trials`` may name
    """
    return np.array(
        [
            groups[own[0]] if len(set(groups[own])) == 1 else stimuli[first]
            for first, own in trials.items()
        ],
        object,
    )


class AverageView:
    """``(n, n_sensors, n_times)`` means over windows, which are read when it is indexed."""

    def __init__(self, windows: Windows, trials: list[np.ndarray]) -> None:
        self.windows, self.trials = windows, trials
        self.shape = (len(trials), *windows.shape)
        self.ndim, self.dtype = 3, np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.read(np.atleast_1d(np.arange(len(self))[index]))

    def read(
        self,
        positions: np.ndarray,
        out: np.ndarray | None = None,
        shift_s: np.ndarray | None = None,
    ) -> np.ndarray:
        """Averages at some positions, into ``out``; all windows of one are moved alike [s]."""
        if out is None:
            out = np.empty((len(positions), *self.windows.shape), np.float32)
        for place, number in enumerate(positions):
            rows, shift = self.trials[number], None
            if shift_s is not None:
                shift = self.windows.shifts(rows, np.full(len(rows), shift_s[place]))
            out[place] = self.windows.read(rows, shift=shift).mean(0, dtype=np.float64)
        return out

    def chunks(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chunks of the first window of each average, see :meth:`Windows.chunks`."""
        return self.windows.chunks(np.array([self.trials[p][0] for p in positions]))

    def subset(self, positions: np.ndarray) -> AverageView:
        """The view of some of these averages; reads nothing."""
        return AverageView(self.windows, [self.trials[p] for p in positions])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)
