"""What recordings of one person must have in common, and what they do not share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError
from braindecode_pipe.pipeline.findings import Finding
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


def repeat_findings(plan: StudyPlan, section: PreprocessSection) -> list[Finding]:
    """Recordings whose single-trial betas have nothing to be cross-validated by.

    ``glmsingle`` learns from one recording at a time; where repeats of a stimulus lie in different
    runs it falls back to fixed settings, which nobody should take for the whole method.
    """
    if section.bold.responses != "glmsingle":
        return []
    from braindecode_pipe.preprocess.glmsingle import LEAST_PREDICTED

    slow = plan.recordings["recording"][plan.recordings["datatype"].isin(_SLOW)]
    target = section.bold.glm.target
    columns = [c for c in plan.events if str(c).startswith("stimulus_")]
    column = f"stimulus_{target}" if target else next(iter(columns), "")
    events = plan.events[plan.events["recording"].isin(slow)]
    if column not in events:
        return []
    events = events[events[column].fillna("").astype(str) != ""]
    repeated = events.duplicated(["recording", column], keep=False)
    within = repeated.groupby(events["recording"]).sum()
    poor = within.index[within < LEAST_PREDICTED]
    if not len(poor):
        return []
    here = events[events["recording"].isin(poor)]
    elsewhere = events.duplicated(["subject", column], keep=False)[here.index].sum()
    text = (
        f"glmsingle learns from one recording at a time, and {len(poor)} of {len(within)} have "
        f"fewer than {LEAST_PREDICTED} trials with a repeat in them: there the response shape, the "
        "number of noise components and the fraction of ridge are fixed, not chosen"
    )
    if elsewhere > repeated[here.index].sum():
        text += "; repeats in other recordings of the person teach nothing"
    return [Finding("warning", text)]
