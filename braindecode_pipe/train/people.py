"""Who is in the windows that a decoder is given, and which sensors each person has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.fitting.sensors import plane_layout, stack_positions
from braindecode_pipe.fitting.views import WindowView
from braindecode_pipe.fitting.windows import Windows

Sensors = Mapping[str, Sequence[str]]


def sensors_of(windows: Windows) -> dict[str, list[str]]:
    """Names of the sensors of every person, in the order of the windows."""
    return {name: [str(s) for s in table["sensor"]] for name, table in windows.sensors.items()}


def check_one_layout(sensors: Sensors, decoder: str) -> None:
    """Refuse people with different sensors where features or weights stand for sensors.

    Raises
    ------
    DataError
        Naming how many sensors people have.
    """
    if len({tuple(names) for names in sensors.values()}) < 2:
        return
    sizes = ", ".join(f"{person}: {len(names)}" for person, names in list(sensors.items())[:5])
    attentive = decoder in ("nice", "atm", "eegnet")
    raise DataError(
        f"the decoder {decoder} needs the same sensors in all people it is trained on",
        expected="one layout",
        found=f"{len({tuple(names) for names in sensors.values()})} layouts ({sizes})",
        remedy=f"[train.network.{decoder}] n_virtual = 64, attention over positions before it; or "
        "split within_subject = true"
        if attentive
        else 'split within_subject = true, or use the decoder "conv"',
    )


@dataclass(frozen=True)
class People:
    """Who is in some windows, and where their sensors are.

    Attributes
    ----------
    who : (n,) int64, number of the person of each window
    positions : (n_subjects, n_sensors, 2 or 3) float32
    masks : (n_subjects, n_sensors) bool
    sensors : person -> names of sensors, or None where names are not known
    """

    who: np.ndarray
    positions: np.ndarray
    masks: np.ndarray
    sensors: dict[str, list[str]] | None

    @property
    def layouts(self) -> dict[str, list[str]]:
        """Sensors of everybody; by their numbers where they have no names."""
        if self.sensors is not None:
            return self.sensors
        return {str(i): list(map(str, np.flatnonzero(m))) for i, m in enumerate(self.masks)}


def of_windows(view: WindowView, layout: Literal["plane", "space"]) -> People:
    """The people of windows that know theirs."""
    windows = view.windows
    return People(
        windows.subject_index(view.rows),
        stack_positions(windows.sensors.values(), layout),
        windows.masks,
        sensors_of(windows),
    )


def of_arrays(
    X: Any, subjects: np.ndarray | None, positions: np.ndarray | None, masks: np.ndarray | None,
    sensors: Sensors | None,
) -> People:  # fmt: skip
    """The people of an array of windows: one person, all sensors, on a circle, if not said.

    Raises
    ------
    DataError
        When shapes do not fit together.
    """
    n_sensors = X.shape[1]
    n_people = 1 + int(np.max(subjects, initial=0)) if subjects is not None else 1
    for given in (positions, masks):
        n_people = n_people if given is None else len(given)
    if positions is None:
        circle = plane_layout(np.full((n_sensors, 3), np.nan))
        positions = np.broadcast_to(circle, (n_people, *circle.shape))
    positions = np.array(positions, np.float32)
    shape = (n_people, n_sensors)
    masks = np.ones(shape, bool) if masks is None else np.array(masks, bool)
    if positions.shape[:2] != shape or masks.shape != shape:
        raise DataError(
            "layout and windows disagree",
            expected=f"positions (n_subjects, {n_sensors}, 2 or 3), masks (n_subjects, "
            f"{n_sensors})",
            found=f"{positions.shape}, {masks.shape}",
        )
    known = None if sensors is None else {name: list(own) for name, own in sensors.items()}
    return People(numbers(subjects, len(X), n_people), positions, masks, known)


def numbers(subjects: np.ndarray | None, n: int, n_people: int) -> np.ndarray:
    """Number of the person of each of ``n`` windows, int64; by default the first person.

    Raises
    ------
    DataError
        When there is no such person, or not one for each window.
    """
    who = np.zeros(n, np.int64) if subjects is None else np.asarray(subjects, np.int64)
    if who.shape != (n,) or (n and not 0 <= who.min() <= who.max() < n_people):
        raise DataError(
            "subjects do not fit to the windows",
            expected=f"({n},) numbers from 0 to {n_people - 1}",
            found=f"{who.shape}" + (f", {who.min()} to {who.max()}" if who.size else ""),
        )
    return who


def as_windows(X: Any, view: WindowView | None) -> Any:
    """``(n, n_sensors, n_times)``, an array or something that reads when indexed."""
    if view is not None:
        return view
    X = X if hasattr(X, "shape") else np.asarray(X)
    return np.asarray(X)[..., None] if len(X.shape) == 2 else X


def as_view(X: Any) -> WindowView | None:
    """All valid windows of ``Windows``, or the view that was given; None for arrays."""
    if isinstance(X, Windows):
        return X.view(X.rows())
    return X if isinstance(X, WindowView) else None


def of_rows(values: Any, X: Any, view: WindowView | None) -> Any:
    """Values of one row per event of ``Windows``, or one per valid window, for the valid ones."""
    if values is None or not isinstance(X, Windows) or len(values) == len(view):
        return values
    if len(values) != len(X):
        raise DataError(
            "windows and what belongs to them do not fit together",
            expected=f"a row for each of {len(X)} events, or of {len(view)} valid windows",
            found=f"{len(values)} rows",
        )
    return np.asarray(values)[view.rows]


def number_people(view: WindowView, known: Sensors | None, anyone: bool) -> np.ndarray:
    """Number, in ``known``, of the person of each window ``(n,)`` int64.

    Parameters
    ----------
    view : WindowView
    known : sensors of the people of the fit, in their order; None where it was given arrays
    anyone : whether nothing is kept per person, so that others with the same sensors will do;
        they get the number 0

    Raises
    ------
    DataError
        When somebody is unknown, or has other sensors than in the fit.
    """
    own = sensors_of(view.windows)
    which = view.windows.subject_index(view.rows)
    people = [list(own)[number] for number in np.unique(which)]
    if known is None:
        raise DataError(
            "the decoder was fitted on arrays and knows no names of people",
            expected="an array of windows, and subjects = number of the person of each",
            found="Windows",
            remedy="fit it to Windows too",
        )
    names, first = list(known), list(next(iter(known.values())))
    place = np.zeros(len(own), np.int64)
    for person in people:
        expected = known.get(person, first if anyone else None)
        if expected is None or list(expected) != own[person]:
            raise DataError(
                "windows of somebody whom the decoder was not fitted on"
                if expected is None
                else f"person {person} has other sensors than in the fit",
                expected=", ".join(names[:5]) if expected is None else _some(expected),
                found=person if expected is None else _some(own[person]),
                remedy="fit it with these windows among its people",
            )
        place[list(own).index(person)] = names.index(person) if person in known else 0
    return place[which]


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} sensors: {', '.join(names[:4])} ..."
