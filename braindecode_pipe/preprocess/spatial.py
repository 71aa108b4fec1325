"""Everything that combines channels, composed into one matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.preprocess import steps as step
from braindecode_pipe.preprocess.blocks import Source
from braindecode_pipe.preprocess.engines import Spatial
from braindecode_pipe.preprocess.reading import collect_warnings
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection


def compose(
    sensors: Any, source: Source, allowed: list[tuple[int, int]], section: EmegSection,
    path: Path, data: Path, log: Log,
) -> Spatial:  # fmt: skip
    """Apply the steps that combine channels to ``sensors``, in place, and give their matrix.

    Parameters
    ----------
    sensors : mne.io.RawArray
        A unit vector per channel of ``source``.
    source : Source
    allowed : (start, stop) [samples] that fits may see
    section : EmegSection
    path, data : Path of the recording and of the data set
    log : Log
    """
    with collect_warnings(path, data, log.warnings):
        step.prepare_sensors(sensors, section, path, log)
    return Spatial(np.array(sensors.get_data()))
