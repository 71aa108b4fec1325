"""What recordings of one person must have in common before they are decoded together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError
from braindecode_pipe.recipe import PreprocessSection
from braindecode_pipe.splits import StudyPlan

_SLOW = ("bold", "parcels")
_TOLERANCE = 1e-6


def check_rates(plan: StudyPlan, section: PreprocessSection) -> None:
    """Refuse EEG and MEG runs of one person whose stores would have different sampling rates.

    They are resampled only where ``preprocess.emeg.sfreq`` says so, and never up. Channels need no
    check: they are brought together by their names.

    Raises
    ------
    DataError : two rates, with the runs that have them
    """
    electric = plan.recordings[~plan.recordings["datatype"].isin(_SLOW)]
    for error in rate_conflicts(electric, section):
        raise error


def rate_conflicts(recordings: pd.DataFrame, section: PreprocessSection) -> list[DataError]:
    """One error per person and kind of data, BOLD too, whose stores would differ in rate."""
    used = recordings[~recordings["excluded"].astype(bool) & (recordings["problem"] == "")]
    errors = []
    for (subject, datatype), part in used.groupby(["subject", "datatype"]):
        is_bold = datatype in _SLOW
        if is_bold and section.bold.responses != "series":
            continue
        target = None if is_bold else section.emeg.sfreq
        rates = part["sfreq"].to_numpy(float)
        out = rates if target is None else np.minimum(rates, target)
        names = list(part["recording"].astype(str))
        found = {}
        for rate, value, name in zip(out, rates, names):
            if np.isfinite(rate):
                key = next((r for r in found if abs(r - rate) <= _TOLERANCE * r), rate)
                found.setdefault(key, (value, name))
        if len(found) < 2:
            continue
        shown = "; ".join(f"{value:g} Hz in {name}" for value, name in found.values())
        errors.append(DataError(
            f"recordings of sub-{subject} differ in sampling rate", expected="one rate per person",
            found=shown,
            remedy="leave runs out in [[plan.exclude]]" if is_bold else
            f"resample: preprocess.emeg.sfreq = {min(found):g}; or leave runs out in "
            "[[plan.exclude]]",
        ))  # fmt: skip
    return errors
