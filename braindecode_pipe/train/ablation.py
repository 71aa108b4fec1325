"""What a fitted decoder predicts when some sensors of the test windows tell nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from braindecode_pipe.errors import PositionError
from braindecode_pipe.fitting.inputs import InputScaling
from braindecode_pipe.recipe import TrainSection
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import read_file
from braindecode_pipe.train.folds import read_fold
from braindecode_pipe.train.saved import load_decoder

By = Literal["region", "kind", "sensor"]


def sensor_groups(tables: Mapping[str, pd.DataFrame], by: By) -> dict[str, dict[str, np.ndarray]]:
    """Which sensors are taken away together: name of the group -> person -> rows of their table.

    Parameters
    ----------
    tables : person -> table of sensors
    by : ``sensor`` (each by its name), ``kind`` (eeg, mag, grad ...), ``region`` (the column
        ``roi`` where there is one, else left or right, front or back of the mean position of the
        person's sensors; what lies within a tenth of their spread of the middle is ``midline``)

    Raises
    ------
    PositionError
        Regions of sensors that have neither ``roi`` nor positions.
    """
    groups: dict[str, dict[str, np.ndarray]] = {}
    for person, table in tables.items():
        column = {"sensor": "sensor", "kind": "kind"}.get(by, "roi")
        named = column in table and (table[column].astype(str) != "").any()
        names = table[column].astype(str).to_numpy() if named else _quarters(table, person)
        for name in dict.fromkeys(names):
            groups.setdefault(str(name), {})[person] = np.flatnonzero(names == name)
    return groups


def _quarters(table: pd.DataFrame, person: str) -> np.ndarray:
    place = table[["x", "y"]].to_numpy(float)
    known = np.isfinite(place).all(axis=1) & (place != 0).any(axis=1)
    if not known.any():
        raise PositionError(
            f"the sensors of person {person} have no positions to tell regions by",
            expected="positions, or a column roi", found="neither",
            remedy="--by sensor or --by kind",
        )  # fmt: skip
    middle, spread = place[known].mean(axis=0), place[known].std(axis=0)
    x, y = ((place - middle) / np.where(spread > 0, spread, 1.0)).T
    side = np.where(np.abs(x) < 0.1, "midline", np.where(x < 0, "left", "right"))
    ahead = np.where(y >= 0, "front", "back")
    return np.where(known, np.char.add(np.char.add(side, " "), ahead), "no position")


def ablated_predictions(
    store: Path,
    section: TrainSection,
    fold: int,
    plan: StudyPlan,
    signals: Mapping[str, Path],
    target: str,
    by: By,
    *,
    scaling: InputScaling | None = None,
    window: tuple[float, float | None] | None = None,
) -> dict[str, np.ndarray]:
    """Predictions of the test windows, whole (name "") and without each group of sensors.

    Sensors that are taken away show their mean over the fold's training windows, at every time: a
    value that the decoder knows and that tells nothing. The decoder is not fitted anew, so what
    other sensors could take over is not counted, and groups that share information lose little
    each.

    Parameters
    ----------
    store : prediction store with the checkpoint
    section, fold, plan, signals, target, scaling, window : as in training
    by : see :func:`sensor_groups`

    Returns
    -------
    group -> (n_test, n_features), in the order of the store
    """
    data = read_fold(plan, fold, target, section.windows, signals, scaling, window)
    model = load_decoder(partial(read_file, store))
    test = np.asarray(data.read(data.test))
    who = data.windows.subject_index(data.test)
    fitted, trained = np.asarray(data.read(data.fit)), data.windows.subject_index(data.fit)
    found = {"": np.asarray(model.predict(test, who))}
    number = {person: i for i, person in enumerate(data.windows.subjects)}
    for name, members in sensor_groups(data.windows.sensors, by).items():
        without = test.copy()
        for person, rows in members.items():
            here = np.flatnonzero(who == number[person])
            own = fitted[trained == number[person]]
            mean = (own if len(own) else test[here]).mean(axis=0, dtype=np.float64)
            without[np.ix_(here, rows)] = mean[rows].astype(np.float32)
        found[name] = np.asarray(model.predict(without, who))
    return found
