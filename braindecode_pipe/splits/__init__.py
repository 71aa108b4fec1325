"""The split and the scope of every fit.

A :class:`StudyPlan` holds the tables of a study and who is trained on, validated on and tested on
in every fold. A :class:`FitScope` names exactly what a fit may see; every fitted object stores the
hashes of what it saw, and :func:`check_disjoint` refuses a scope that meets the test items.
"""

from __future__ import annotations

from braindecode_pipe.splits.extents import (
    divided_recordings,
    extents_hash,
    fit_extents,
    leaves_its_side,
    overlaps,
    seen_tests,
    tested_within,
    window_times,
    within_reach,
)
from braindecode_pipe.splits.folds import drawn, make_folds
from braindecode_pipe.splits.segments import segments_of
from braindecode_pipe.splits.study import (
    FitScope,
    StudyPlan,
    check_disjoint,
    content_hash,
    shared_between_roles,
)

__all__ = [
    "FitScope",
    "StudyPlan",
    "check_disjoint",
    "content_hash",
    "divided_recordings",
    "drawn",
    "extents_hash",
    "fit_extents",
    "leaves_its_side",
    "make_folds",
    "overlaps",
    "seen_tests",
    "segments_of",
    "shared_between_roles",
    "tested_within",
    "window_times",
    "within_reach",
]
