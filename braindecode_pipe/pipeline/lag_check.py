"""Are the onsets where the responses are? A look at a few recordings before a study is run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from braindecode_pipe.errors import BraindecodePipeError
from braindecode_pipe.fitting.envelopes import stimulus_envelopes
from braindecode_pipe.fitting.lag import recording_lag
from braindecode_pipe.pipeline.findings import Finding
from braindecode_pipe.recipe import PreprocessSection, Recipe
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_signal, safe_join

MAX_RECORDINGS = 6
MAX_BYTES = 1 << 30


def lag_findings(recipe: Recipe, data: Path, plan: StudyPlan) -> list[Finding]:
    """Preprocess one recording per person and task, and see when it responds.

    At most six recordings, none over 1 GiB. The settings are those of the recipe, without the
    steps that cost much and move no response (ICA, Maxwell filter, further detection, betas).
    Nothing is left behind.
    """
    section = _cheap(recipe.preprocess)
    chosen = list(_choose(plan, data))
    findings = []
    for row in chosen[:MAX_RECORDINGS]:
        findings += _of_recording(section, row, data, plan, recipe.plan.allow_truncated)
    if len(chosen) > MAX_RECORDINGS:
        findings.append(
            Finding("note", f"when responses come was looked at in {MAX_RECORDINGS} of "
                    f"{len(chosen)} combinations of person and task")
        )  # fmt: skip
    return findings


def _of_recording(
    section: PreprocessSection, row: dict[str, Any], data: Path, plan: StudyPlan, truncated: bool
) -> Iterator[Finding]:
    from braindecode_pipe import preprocess

    name = str(row["recording"])
    with tempfile.TemporaryDirectory(prefix="braindecode-pipe-") as folder:
        out = Path(folder) / "signal.zarr"
        try:
            preprocess.run(
                section, row, data, out, allow_truncated=truncated, data_origin=row["data_origin"]
            )
            found = recording_lag(open_signal(out), plan, name, stimulus_envelopes(plan, data))
        except BraindecodePipeError as error:
            yield Finding("error", f"{name} cannot be preprocessed: {error}")
            return
    if found is not None:
        yield Finding("warning" if found.shifted else "note", f"{name}: {found.message}")


def _cheap(section: PreprocessSection) -> PreprocessSection:
    emeg = section.emeg.model_copy(
        update={"ica": None, "maxwell": None, "noisy": [], "autoreject": "none", "ssp": [],
                "scaler_scope": "per_recording"}
    )  # fmt: skip
    bold = section.bold.model_copy(update={"responses": "series"})
    return section.model_copy(update={"emeg": emeg, "bold": bold})


def _choose(plan: StudyPlan, data: Path) -> Iterator[dict[str, Any]]:
    """Per person and task the recording with most events that are trained on."""
    trained = plan.events[(plan.role == ROLES["train"]).any(axis=0)]
    count = trained["recording"].value_counts()
    table = plan.recordings[
        ~plan.recordings["excluded"].astype(bool) & (plan.recordings["problem"] == "")
    ]
    table = table.assign(n=table["recording"].map(count).fillna(0))
    for _, own in table[table["n"] > 0].groupby(["subject", "task", "datatype"], sort=True):
        row = own.sort_values(["n", "recording"], ascending=[False, True]).iloc[0].to_dict()
        path = safe_join(data, row["path"])
        size = sum(f.stat().st_size for f in ([path] if path.is_file() else path.rglob("*"))
                   if f.is_file())  # fmt: skip
        if size <= MAX_BYTES:
            yield row
