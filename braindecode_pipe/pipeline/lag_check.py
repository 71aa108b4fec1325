"""Are the onsets where the responses are? A look at a few recordings before a study is run."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import BraindecodePipeError
from braindecode_pipe.fitting.lag import Envelope, recording_lag
from braindecode_pipe.pipeline.findings import Finding
from braindecode_pipe.recipe import PreprocessSection, Recipe
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import open_signal, safe_join

MAX_RECORDINGS = 6
MAX_BYTES = 1 << 30
_ENVELOPE_SFREQ = 100.0


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
            found = recording_lag(open_signal(out), plan, name, _envelopes(plan, data))
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


def _envelopes(plan: StudyPlan, data: Path) -> Envelope | None:
    """Reader of the envelopes of WAV stimuli; None where the study has none."""
    own = plan.stimuli[plan.stimuli["kind"] == "speech"]
    rows = {str(r["stimulus"]): r for r in own.to_dict("records")}
    if not rows:
        return None

    @lru_cache(maxsize=8)
    def read(stimulus: str) -> tuple[np.ndarray, float] | None:
        row = rows.get(stimulus)
        if row is None or not str(row["path"]).lower().endswith(".wav"):
            return None
        return sound_envelope(safe_join(data, row["path"]))

    return read


def sound_envelope(path: Path) -> tuple[np.ndarray, float] | None:
    """Root mean square of a WAV file in pieces of 10 ms, and its rate; None if it cannot be read.

    A sound that cannot be decoded is told by the stage ``embed``, not by a check of onsets.
    """
    from scipy.io import wavfile

    try:
        rate, wave = wavfile.read(path, mmap=True)
    except (ValueError, OSError, EOFError, struct.error):
        return None
    n = max(1, round(rate / _ENVELOPE_SFREQ))
    pieces = len(wave) // n
    if pieces < 2:
        return None
    out = np.empty(pieces)
    for start in range(0, pieces, 10_000):
        part = np.asarray(wave[start * n : min(start + 10_000, pieces) * n], np.float64)
        part = part.reshape(-1, n * (1 if part.ndim == 1 else part.shape[1]))
        out[start : start + len(part)] = np.sqrt(((part - part.mean()) ** 2).mean(1))
    return out, rate / n
