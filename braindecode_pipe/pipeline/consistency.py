"""What recordings of one person must have in common before they are decoded together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError
from braindecode_pipe.recipe import PreprocessSection
from braindecode_pipe.splits import StudyPlan

_TOLERANCE = 1e-6


def check_rates(plan: StudyPlan, section: PreprocessSection) -> None:
    """Refuse runs of one person whose stores would have different sampling rates.

    EEG and MEG are resampled only where ``preprocess.emeg.sfreq`` says so, and never up; BOLD never
    is. Channels need no check: they are brought together by their names.

    Raises
    ------
    DataError : two rates, with the runs that have them
    """
    for row in rate_conflicts(plan.recordings, section):
        raise row


def rate_conflicts(recordings: pd.DataFrame, section: PreprocessSection) -> list[DataError]:
    """One error per person and kind of data whose stores would differ in rate."""
    used = recordings[~recordings["excluded"].astype(bool) & (recordings["problem"] == "")]
    errors = []
    for (subject, datatype), part in used.groupby(["subject", "datatype"]):
        is_bold = datatype in ("bold", "parcels")
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
