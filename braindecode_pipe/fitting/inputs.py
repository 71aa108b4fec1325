"""What is fitted to the input of a decoder on its training windows: scale, clamp, whitening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.whitening import noise_covariance, whitening_matrix

if TYPE_CHECKING:
    from braindecode_pipe.fitting.windows import Windows

FIT_BYTES = 64 << 20


@dataclass(frozen=True)
class InputScaling:
    """Settings of a scaler that each fold fits: those of ``[preprocess.emeg]``.

    Attributes
    ----------
    kind : "robust", (x - median) / interquartile range, or "standard", (x - mean) / s.d.
    clamp : after scaling, in scaler units; None: none
    """

    kind: str
    clamp: float | None


@dataclass(frozen=True)
class InputTransform:
    """Scale and clamp every sample, and whiten sensors, with values of each person.

    ``y = W clip((x - offset) / gain, -clamp, clamp)``: the first before the baseline is taken, as
    for recordings that were scaled whole; ``W`` last.

    Attributes
    ----------
    subjects : people, in the order of the arrays
    sensors : their sensors, one tuple of names per person
    offset, gain : (n_subjects, n_sensors) [unit of the store], or None; 0 as gain gives 0
    clamp : float or None
    whitener : (n_subjects, n_sensors, n_sensors), or None
    facts : JSON: what was fitted, on how many windows, the shrinkage of each person
    """

    subjects: tuple[str, ...]
    sensors: tuple[tuple[str, ...], ...]
    offset: np.ndarray | None = None
    gain: np.ndarray | None = None
    clamp: float | None = None
    whitener: np.ndarray | None = None
    facts: dict[str, Any] | None = None

    def scale(self, block: np.ndarray, who: int) -> np.ndarray:
        """Scaled and clamped samples ``(n_sensors, n_times)`` float32 of person number ``who``."""
        if self.gain is None or self.offset is None:
            return block
        n = len(block)
        gain = self.gain[who, :n, None]
        inverse = np.divide(1.0, gain, out=np.zeros_like(gain), where=gain > 0)
        scaled = (block - self.offset[who, :n, None]) * inverse
        if self.clamp is not None:
            np.clip(scaled, -self.clamp, self.clamp, out=scaled)
        return scaled.astype(np.float32)

    def whiten(self, data: np.ndarray, who: int) -> np.ndarray:
        """White sensors ``(n_sensors, n_times)`` float32 of person number ``who``."""
        if self.whitener is None:
            return data
        n = len(data)
        return (self.whitener[who, :n, :n] @ data).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """What of it is an array, by name, for a checkpoint."""
        named = {"offset": self.offset, "gain": self.gain, "whitener": self.whitener}
        return {name: values for name, values in named.items() if values is not None}

    def config(self) -> dict[str, Any]:
        """The rest, as JSON."""
        return {
            "subjects": list(self.subjects),
            "sensors": [list(names) for names in self.sensors],
            "clamp": self.clamp,
            "facts": self.facts or {},
        }

    @classmethod
    def load(cls, arrays: dict[str, np.ndarray], config: dict[str, Any]) -> InputTransform:
        """Inverse of :meth:`arrays` and :meth:`config`."""
        return cls(
            tuple(config["subjects"]),
            tuple(map(tuple, config["sensors"])),
            arrays.get("offset"),
            arrays.get("gain"),
            config["clamp"],
            arrays.get("whitener"),
            config["facts"],
        )


def fit_inputs(
    windows: Windows,
    rows: np.ndarray,
    conditions: np.ndarray,
    scaling: InputScaling | None = None,
    whiten: str = "none",
) -> InputTransform | None:
    """Fit scaler and whitening on some windows and on nothing else.

    People are done one by one. Somebody without a window among ``rows`` (who is only tested) gets
    the mean over the others.

    Parameters
    ----------
    windows : Windows without transform
    rows : (n,) int, the training windows, all valid
    conditions : (n,), which windows repeat the same: their mean is no noise
    scaling : InputScaling, optional
    whiten : "none" or "mvnn", see :mod:`braindecode_pipe.fitting.whitening`

    Returns
    -------
    InputTransform, or None where nothing is asked for

    Raises
    ------
    DataError
        Somebody is only tested and has other sensors; there are too few windows, or too many
        sensors, to whiten.
    """
    if scaling is None and whiten == "none":
        return None
    people = tuple(windows.subjects)
    who = windows.subject_index(rows)
    own = {number: rows[who == number] for number in range(len(people))}
    fitted = [number for number, part in own.items() if len(part)]
    names = tuple(tuple(map(str, windows.sensors[p]["sensor"])) for p in people)
    _check_layouts(people, names, fitted)
    facts: dict[str, Any] = {"n_windows": len(rows), "whiten": whiten}
    offset = gain = whitener = None
    if scaling is not None:
        facts["scaler"] = scaling.kind
        offset, gain = np.zeros((2, len(people), windows.n_sensors))
        for number in fitted:
            values = _samples(windows, own[number])
            n = len(values)
            offset[number, :n], gain[number, :n] = _location_and_scale(values, scaling.kind)
        _fill(offset, fitted)
        _fill(gain, fitted)
    clamp = None if scaling is None else scaling.clamp
    transform = InputTransform(people, names, offset, gain, clamp, None, facts)
    if whiten == "mvnn":
        scaled = windows.transformed(transform)
        condition_of = dict(zip(rows.tolist(), np.asarray(conditions).astype(str)))
        whitener, facts["noise"] = _whitener(scaled, own, fitted, condition_of)
    return InputTransform(people, names, offset, gain, clamp, whitener, facts)


def _check_layouts(
    people: Sequence[str], names: Sequence[tuple[str, ...]], fitted: Sequence[int]
) -> None:
    for number in set(range(len(people))) - set(fitted):
        if any(names[number] != names[other] for other in fitted):
            raise DataError(
                f"person {people[number]} is tested without having been trained on",
                expected="the sensors of those who were, since theirs is the scale that is used",
                found=f"{len(names[number])} sensors, {len(names[fitted[0]])} in training",
                remedy='[preprocess.emeg] scaler_scope = "per_recording", [train.windows] '
                'whiten = "none"',
            )


def _fill(values: np.ndarray, fitted: Sequence[int]) -> None:
    """Give the mean over ``fitted`` to the others."""
    others = sorted(set(range(len(values))) - set(fitted))
    values[others] = values[list(fitted)].mean(0)


def _samples(windows: Windows, rows: np.ndarray) -> np.ndarray:
    """Samples ``(n_sensors, n)`` of windows as they are stored; evenly chosen ones over 64 MiB."""
    first = windows.read_stored(int(rows[0]))
    n_kept = max(1, min(len(rows), FIT_BYTES // max(1, first.nbytes)))
    chosen = rows[np.floor((np.arange(n_kept) + 0.5) * len(rows) / n_kept).astype(int)]
    return np.concatenate([windows.read_stored(int(row)) for row in chosen], axis=1)


def _location_and_scale(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind == "standard":
        values = values.astype(np.float64)
        return values.mean(1), _spread(values.std(1), values)
    low, middle, high = np.quantile(values.astype(np.float64), [0.25, 0.5, 0.75], axis=1)
    return middle, _spread(high - low, values)


def _spread(spread: np.ndarray, values: np.ndarray) -> np.ndarray:
    """0 where a sensor varies no more than float32 rounds."""
    return np.where(spread > 1e-6 * np.abs(values).max(1), spread, 0.0)


def _whitener(
    windows: Windows,
    own: Mapping[int, np.ndarray],
    fitted: Sequence[int],
    condition_of: Mapping[int, str],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Whitening matrices ``(n_subjects, n_sensors, n_sensors)``, and how each was made."""
    step = max(1, FIT_BYTES // max(1, 8 * windows.n_sensors * windows.n_times))
    out = np.zeros((len(windows.subjects), windows.n_sensors, windows.n_sensors))
    facts = {}
    for number in fitted:
        name = windows.subjects[number]
        usable = np.flatnonzero(windows.good_sensors(number))
        groups: dict[str, list[int]] = {}
        for row in own[number].tolist():
            groups.setdefault(condition_of[row], []).append(row)

        def read(rows: np.ndarray, usable: np.ndarray = usable) -> np.ndarray:
            return windows.read(rows)[:, usable].astype(np.float64)

        conditions = [np.asarray(rows) for rows in groups.values()]
        noise = noise_covariance(read, conditions, len(usable), step)
        kinds = windows.sensors[name]["kind"].astype(str).to_numpy()[usable]
        out[number][np.ix_(usable, usable)] = whitening_matrix(noise, kinds)
        facts[name] = {
            "shrinkage": noise.shrinkage, "rank": noise.rank, "method": noise.method,
        }  # fmt: skip
    _fill(out, fitted)
    return out, facts
