"""Recordings of EEG, MEG and iEEG as the windows that a tokenizer takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.spans import sample_at
from braindecode_pipe.networks.sensors import (
    KINDS,
    kind_codes,
    normalize_signal,
    sensor_geometry,
)
from braindecode_pipe.store import Signal


@dataclass(frozen=True)
class SensorArray:
    """The sensors of one recording that a tokenizer can take: of known kind, and good.

    Attributes
    ----------
    table : DataFrame, their rows of ``Signal.sensors``
    rows : (n_sensors,) positions in the store
    geometry : (n_sensors, 6), see :func:`~braindecode_pipe.networks.sensors.sensor_geometry`
    kinds : (n_sensors,) int64
    unplaced : sensors without a position, told apart by nothing but their kind
    """

    table: pd.DataFrame
    rows: np.ndarray
    geometry: Tensor
    kinds: Tensor
    unplaced: int

    @classmethod
    def of(cls, signal: Signal) -> SensorArray:
        """The array of a recording. Bad sensors still say where the middle of the array is.

        Raises
        ------
        DataError
            When no sensor is left.
        """
        known = signal.sensors["kind"].astype(str).isin(KINDS).to_numpy()
        good = signal.sensors["sensor_good"].to_numpy(bool)
        rows = usable_rows(signal)
        if not len(rows):
            kinds = sorted(set(signal.sensors["kind"].astype(str)))
            raise DataError(
                "no sensor can be turned into tokens",
                file=signal.path,
                expected=f"at least one good sensor of kind {', '.join(KINDS)}",
                found=f"{int(good.sum())} good sensors of kind {', '.join(kinds)}",
                remedy="leave the recording out in [[plan.exclude]], or select [plan] datatypes",
            )
        table = signal.sensors[known].reset_index(drop=True)
        kinds = kind_codes(table["kind"].astype(str).tolist())
        place = torch.tensor(table[["x", "y", "z"]].to_numpy(np.float64))
        direction = torch.tensor(table[["ox", "oy", "oz"]].to_numpy(np.float64))
        geometry = sensor_geometry(place, direction, kinds).float()
        own = good[known]
        unplaced = int((~torch.isfinite(place).all(1).numpy())[own].sum())
        table = table[own].reset_index(drop=True)
        keep = torch.from_numpy(own)
        return cls(table, rows, geometry[keep], kinds[keep], unplaced)


def usable_rows(signal: Signal) -> np.ndarray:
    """Positions of the sensors of a recording that are good and of a kind with a number."""
    known = signal.sensors["kind"].astype(str).isin(KINDS).to_numpy()
    return np.flatnonzero(known & signal.sensors["sensor_good"].to_numpy(bool))


def check_rate(signal: Signal, sfreq: float) -> None:
    """Refuse recordings that are not continuous, or not at the rate of the tokenizer.

    Raises
    ------
    DataError
        Naming the setting that mends it.
    """
    if signal.kind != "signal":
        raise DataError(
            "only continuous recordings become tokens",
            file=signal.path,
            expected="a signal",
            found=f"a {signal.kind} of {signal.n_events} events",
            remedy="give continuous recordings, or leave [tokenize] out",
        )
    if abs(signal.sfreq - sfreq) > 1e-6 * sfreq:
        raise DataError(
            "the recording has another rate than the tokenizer",
            file=signal.path,
            expected=f"tokenize.sfreq = {sfreq:g} Hz",
            found=f"{signal.sfreq:g} Hz",
            remedy=f"set preprocess.emeg.sfreq = {sfreq:g}"
            if signal.sfreq > sfreq
            else f"recordings are never sampled up: set tokenize.sfreq = {signal.sfreq:g}",
        )


def windows_within(signal: Signal, extents: Iterable[Sequence[float]], window: int) -> np.ndarray:
    """First samples ``(n,)`` of windows that lie wholly in extents [s] and in good samples.

    Windows follow one another from the begin of each stretch, and start anew after bad samples.
    """
    starts: list[np.ndarray] = [np.zeros(0, np.int64)]
    for begin, end in extents:
        first = max(0, int(sample_at(signal, begin)))
        last = min(signal.n_times, int(sample_at(signal, end)))
        good = np.r_[False, signal.time_good[first:last], False] if last > first else [False]
        edges = np.flatnonzero(np.diff(np.asarray(good, np.int8)))
        for a, b in zip(edges[::2], edges[1::2]):
            starts.append(first + np.arange(a, b - window + 1, window, dtype=np.int64))
    return np.concatenate(starts)


def read_windows(signal: Signal, array: SensorArray, starts: np.ndarray, length: int) -> Tensor:
    """Samples ``(n, n_sensors, length)`` from each of some starts, in the units of the store."""
    out = np.empty((len(starts), len(array.rows), length), np.float32)
    for place, start in enumerate(starts):
        out[place] = signal.read(int(start), int(start) + length)[array.rows]
    return torch.from_numpy(out)


class SensorWindows:
    """Windows of several recordings as examples for the training loop.

    With fewer ``per_epoch`` than there are windows, each example stands for a run of neighbouring
    ones, of which one is drawn whenever it is asked for, or the middle one where ``draws`` is
    False. Recordings with fewer sensors than others of their batch are padded and masked.

    Parameters
    ----------
    signals : recording -> Signal
    starts : recording -> (n,) first samples of its windows
    window : int, samples
    per_epoch : int, 0: all
    device : of the tensors
    """

    def __init__(
        self,
        signals: Mapping[str, Signal],
        starts: Mapping[str, np.ndarray],
        window: int,
        per_epoch: int = 0,
        draws: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.signals = [signals[name] for name in starts]
        self.arrays = [SensorArray.of(signal) for signal in self.signals]
        self.window, self.draws, self.device = window, draws, device
        self.recording = np.repeat(np.arange(len(starts)), [len(s) for s in starts.values()])
        self.start = np.concatenate([np.zeros(0, np.int64), *starts.values()])
        n = len(self.start)
        n_examples = min(n, per_epoch) if per_epoch else n
        self.edges = np.arange(n_examples + 1) * n // max(1, n_examples)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __call__(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Signals, geometry, kinds and mask of some examples, as a tokenizer takes them."""
        low, high = self.edges[rows], self.edges[np.asarray(rows) + 1]
        chosen = (low + high - 1) // 2
        if self.draws and (high - low > 1).any():
            chosen = low + (torch.rand(len(rows), dtype=torch.float64).numpy() * (high - low))
        chosen = chosen.astype(np.int64)
        arrays = [self.arrays[k] for k in self.recording[chosen]]
        shape = len(chosen), max(len(array.rows) for array in arrays)
        x = torch.zeros(*shape, self.window)
        geometry, kinds = torch.zeros(*shape, 6), torch.zeros(shape, dtype=torch.int64)
        mask = torch.zeros(shape, dtype=torch.bool)
        for i, (which, array) in enumerate(zip(chosen, arrays)):
            n = len(array.rows)
            signal = self.signals[self.recording[which]]
            read = read_windows(signal, array, self.start[which : which + 1], self.window)
            x[i, :n] = normalize_signal(read, array.kinds)[0]
            geometry[i, :n], kinds[i, :n], mask[i, :n] = array.geometry, array.kinds, True
        return tuple(t.to(self.device) for t in (x, geometry, kinds, mask))
