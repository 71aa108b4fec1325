"""What comes before a word, as far as the split allows it to be heard or read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from braindecode_pipe.errors import StimulusError
from braindecode_pipe.schema import ROLES

if TYPE_CHECKING:
    from braindecode_pipe.recipe import EmbedSpec
    from braindecode_pipe.splits import StudyPlan


def reaches_out(spec: EmbedSpec) -> bool:
    """Whether a table reads more of a source than the stimulus itself."""
    return bool(
        spec.context_words
        or spec.context == "file"
        or spec.pooling == "time"
        or spec.model == "onsets"
    )


def split_spans(plan: StudyPlan, target: str) -> pd.DataFrame:
    """The part of its source that each stimulus of a target may be embedded from.

    Within a source, two neighbours stand on different sides of a border when in any fold they have
    different roles. A border lies in the middle between the end of the one and the onset of the
    next. The role is that of all that the split keeps together: a piece whose windows are purged
    stays on its side. Nothing that a model makes of a stimulus then depends on what is beyond.

    Parameters
    ----------
    plan : StudyPlan
    target : name in [plan.stimuli]

    Returns
    -------
    The stimuli of the target with two more columns, start and stop [s]; NaN where there is no
    border.
    """
    own = plan.stimuli[plan.stimuli["target"] == target].reset_index(drop=True)
    own["start"], own["stop"] = np.nan, np.nan
    if "source" not in own:
        return own
    roles = _roles(plan, target)
    for source, part in own.groupby("source", sort=True):
        if not source:
            continue
        part = part.sort_values(["onset", "stimulus"], kind="stable")
        onset, offset = part["onset"].to_numpy(float), part["offset"].to_numpy(float)
        seen = [roles.get(stimulus, ()) for stimulus in part["stimulus"]]
        borders = [
            (max(onset[k], (offset[k] + onset[k + 1]) / 2) if offset[k] < onset[k + 1]
             else onset[k + 1], k + 1)
            for k in range(len(part) - 1)
            if seen[k] != seen[k + 1]
        ]  # fmt: skip
        edges = [(np.nan, 0), *borders, (np.nan, len(part))]
        for (start, first), (stop, last) in zip(edges, edges[1:]):
            rows = part.index[first:last]
            own.loc[rows, "start"], own.loc[rows, "stop"] = start, stop
    return own


def _roles(plan: StudyPlan, target: str) -> dict[str, tuple[int, ...]]:
    """Stimulus -> numbers of every (fold, role) that its events have; unused ones say nothing."""
    codes, names = pd.factorize(plan.events[f"stimulus_{target}"].astype(str))
    role = _before_purging(plan)
    fold, event = np.nonzero(role)
    n_pairs = 8 * len(role)
    pairs = np.unique(codes[event] * n_pairs + 8 * fold + role[fold, event])
    first = np.searchsorted(pairs, np.arange(len(names) + 1) * n_pairs)
    return {
        str(name): tuple(int(p) for p in pairs[first[k] : first[k + 1]] % n_pairs)
        for k, name in enumerate(names)
    }


def _before_purging(plan: StudyPlan) -> np.ndarray:
    """Roles with that of the group in place of "purged", where any of the group has kept one."""
    role = np.array(plan.role)
    purged = ROLES["purged"]
    group, _ = pd.factorize(plan.events["group"])
    for row in role:
        kept = (row != purged) & (row != ROLES["unused"])
        of_group = np.full(group.max(initial=-1) + 2, purged, row.dtype)
        of_group[group[kept]] = row[kept]
        row[row == purged] = of_group[group[row == purged]]
    return role


def preceding_words(stimuli: pd.DataFrame, n_words: int, texts: dict[str, str]) -> list[str]:
    """The ``n_words`` words before each stimulus, in its source and on its side of each border.

    Parameters
    ----------
    stimuli : table with label, source, onset, and start and stop where a split cuts sources
    n_words : int
    texts : label -> text in its place

    Raises
    ------
    StimulusError
        A stimulus without source.
    """
    if "source" not in stimuli or (stimuli["source"].astype(str) == "").any():
        raise StimulusError(
            "words in context need to know what they are a part of",
            expected="file_column and onset_column in [plan.stimuli.<target>]",
            found="stimuli without source",
        )
    before = [""] * len(stimuli)
    start = stimuli["start"].fillna(-np.inf) if "start" in stimuli else -np.inf
    table = pd.DataFrame(
        {"row": np.arange(len(stimuli)), "source": stimuli["source"].to_numpy(object),
         "onset": stimuli["onset"].to_numpy(float), "start": np.asarray(start)}
    )  # fmt: skip
    words = [texts.get(str(label), str(label)) for label in stimuli["label"]]
    for _, part in table.groupby(["source", "start"], sort=True):
        rows = part.sort_values("onset", kind="stable")["row"].to_numpy()
        for place, row in enumerate(rows):
            before[row] = " ".join(words[r] for r in rows[max(0, place - n_words) : place])
    return before
