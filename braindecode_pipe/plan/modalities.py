"""What recordings of different kinds in one study have in common."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd

from braindecode_pipe.errors import SplitError


def join_modalities(
    recordings: pd.DataFrame, events: pd.DataFrame, target: str
) -> list[dict[str, Any]]:
    """How many people and stimuli each pair of modalities has alone, and how many both have.

    Parameters
    ----------
    recordings : columns recording, datatype
    events : columns recording, subject, ``stimulus_<target>``

    Returns
    -------
    One dict per pair: ``left``, ``right`` (datatypes), ``subjects`` and ``stimuli``, each
    [n left only, n right only, n both]; empty with one modality.

    Raises
    ------
    SplitError
        A pair that shares neither a person nor a stimulus: nothing joins them.
    """
    kind = events["recording"].map(dict(zip(recordings["recording"], recordings["datatype"])))
    shown = events[f"stimulus_{target}"] != ""
    found = []
    for left, right in combinations(sorted(set(kind[shown])), 2):
        counts = {}
        for name, column in (("subjects", "subject"), ("stimuli", f"stimulus_{target}")):
            one, two = (set(events[column][shown & (kind == k)]) for k in (left, right))
            counts[name] = [len(one - two), len(two - one), len(one & two)]
        if not counts["subjects"][2] and not counts["stimuli"][2]:
            people, stimuli = counts["subjects"], counts["stimuli"]
            raise SplitError(
                f"{left} and {right} have nothing in common to be joined by",
                expected="people, or stimuli, that are in both",
                found=f"{people[0]} people and {stimuli[0]} stimuli in {left} alone, "
                f"{people[1]} and {stimuli[1]} in {right} alone",
                remedy="correct the labels, or study one at a time by [plan] datatypes",
            )
        found.append({"left": left, "right": right, **counts})
    return found
