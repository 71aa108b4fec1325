"""Single-trial responses to fMRI events: one beta per event and sensor.

``lsa`` and ``lss`` here, the longer chain in ``glmsingle``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.recipe import BoldSection


@dataclass(frozen=True)
class Responses:
    """Betas of one recording; a context manager that lets go of ``values``.

    Attributes
    ----------
    values : Scratch (n_events, n_sensors) float32, open; rows that are not good hold NaN, sensors
        that are not good hold zeros
    events : (n_events,) ids, the events of the recording that present a stimulus
    event_good : (n_events,) bool, False where the good volumes do not determine a response
    sensor_good : (n_sensors,) bool
    qc : name -> (dims, values), for the group ``qc`` of the store
    """

    values: Scratch
    events: list[str]
    event_good: np.ndarray
    sensor_good: np.ndarray
    qc: dict[str, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict)

    def __enter__(self) -> Responses:
        return self

    def __exit__(self, *exception: object) -> None:
        self.values.__exit__(*exception)


def run(
    series: Scratch,
    good: np.ndarray,
    section: BoldSection,
    events: pd.DataFrame,
    confounds: np.ndarray | None,
    time_good: np.ndarray | None,
    t_r: float,
    first_time: float,
    out: Path,
    steps: list[str],
    *,
    fit_extents: tuple[tuple[float, float], ...] | None = None,
) -> Responses:
    """Single-trial responses of one recording, by ``section.responses``.

    Parameters
    ----------
    series : Scratch (n_times, n_sensors), raw units: masked, perhaps smoothed, without dummy
        scans, not standardised
    good : (n_sensors,) bool; the others become zeros
    section : BoldSection; ``responses`` is "lsa", "lss" or "glmsingle", ``glm`` says the rest
    events : the recording's rows of ``StudyPlan.events``
    confounds : (n_times, n_confounds), regressed out in the model itself
    time_good : (n_times,) bool; the other volumes are left out of every fit
    t_r, first_time : [s]
    out : path of the store to be written; the betas wait in a scratch file beside it
    steps : list of str, what was done is appended
    fit_extents : (start, stop) [s] pairs, optional
        What fits may see (``splits.fit_extents``); None: all of the recording.

    Returns
    -------
    Responses, to be used in a ``with`` statement
    """
    raise NotImplementedError
