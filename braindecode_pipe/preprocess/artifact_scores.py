"""Which independent components are artifacts: by ICLabel, by EOG and by ECG channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from braindecode_pipe.errors import PositionError, RecipeError
from braindecode_pipe.preprocess.extras import warnings_into
from braindecode_pipe.preprocess.sensors import sensor_geometry
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe.models import IcaSection

# MNE's z score of n values is at most (n - 1) / sqrt(n), which exceeds its threshold of 3 from 11
# on; with few values it misses what a correlation shows.
_Z_MIN_COMPONENTS = 15
_CORRELATION = 0.7


@dataclass
class Verdict:
    """What is known of every component, and why some are removed.

    ``labels`` and ``scores`` are (n_components,), ``reasons`` goes from component to text.
    """

    labels: list[str]
    scores: np.ndarray
    reasons: dict[int, str]

    @classmethod
    def none(cls, n_components: int) -> Verdict:
        return cls([""] * n_components, np.full(n_components, np.nan), {})


def by_iclabel(
    ica: Any,
    raw: Any,
    names: list[str],
    section: IcaSection,
    verdict: Verdict,
    log: Log,
) -> None:
    """ICLabel's classes; those of ``section.labels`` from ``section.threshold`` on are removed."""
    from mne_icalabel.iclabel import iclabel_label_components
    from mne_icalabel.iclabel._config import ICLABEL_NUMERICAL_TO_STRING

    eeg = raw.copy().pick(names, verbose="error")
    placed = np.isfinite(sensor_geometry(eeg.info)[0]).all(axis=1)
    if not placed.all():
        lost = [name for name, place in zip(names, placed) if not place]
        raise PositionError(
            "ICLabel needs the positions of all electrodes",
            expected="positions",
            found=f"{len(lost)} without: {', '.join(lost[:8])}",
            remedy='set preprocess.emeg.montage, or ica.find = ["eog"]',
        )
    data = eeg.get_data()
    if (data.mean(axis=0) ** 2).mean() > 1e-3 * (data**2).mean():
        log.warnings.append(
            "ICLabel was trained on the average reference; this recording has another: "
            'preprocess.emeg.reference = "average"'
        )
    edges = [float(raw.info[name]) for name in ("highpass", "lowpass")]
    if abs(edges[0] - 1) > 0.01 or edges[1] < 99:
        log.warnings.append(
            f"ICLabel was trained on 1 to 100 Hz; the excerpt has {edges[0]:g} to {edges[1]:g} Hz"
        )
    with warnings_into(Log(), "ICLabel"):  # says the same again
        table = iclabel_label_components(eeg, ica, inplace=False)
    classes = [ICLABEL_NUMERICAL_TO_STRING[i] for i in range(table.shape[1])]
    for i, row in enumerate(table):
        verdict.labels[i] = classes[int(row.argmax())]
        verdict.scores[i] = row.max()
        for label in section.labels:
            if row[classes.index(label)] >= section.threshold:
                verdict.reasons[i] = f"{label} {row[classes.index(label)]:.2f}"


def by_eog(
    ica: Any,
    raw: Any,
    section: IcaSection,
    verdict: Verdict,
    log: Log,
) -> None:
    names = list(section.eog_channels)
    missing = [name for name in names if name not in raw.ch_names]
    if missing:
        raise _no_channel(missing, "eog_channels")
    types = dict(zip(raw.ch_names, raw.get_channel_types()))
    names = names or [name for name, kind in types.items() if kind == "eog"]
    names = names or [name for name in raw.ch_names if name.lower() in ("fp1", "fp2")]
    if not names:
        log.warnings.append(
            "no blinks sought: no channel of type eog, no Fp1 and Fp2; "
            "preprocess.emeg.ica.eog_channels names others"
        )
        return
    few = ica.n_components_ < _Z_MIN_COMPONENTS
    measure: dict[str, Any] = {"measure": "zscore", "threshold": 3.0}
    if few:
        measure = {"measure": "correlation", "threshold": _CORRELATION}
    with warnings_into(log, "EOG"):
        found, correlation = ica.find_bads_eog(raw, ch_name=names, **measure)
    strength = np.abs(np.atleast_2d(correlation)).max(axis=0)
    _mark(found, strength, "eye blink", "EOG", verdict)


def by_ecg(
    ica: Any,
    raw: Any,
    family: str,
    section: IcaSection,
    verdict: Verdict,
    log: Log,
) -> None:
    name = section.ecg_channel
    if name and name not in raw.ch_names:
        raise _no_channel([name], "ecg_channel")
    if not name and "ecg" not in raw.get_channel_types() and family != "MEG":
        log.warnings.append(
            f"no heart beats sought in {family}: no channel of type ecg; "
            "preprocess.emeg.ica.ecg_channel names one"
        )
        return
    with warnings_into(log, "ECG"):
        found, strength = ica.find_bads_ecg(
            raw, ch_name=name or None, method="ctps", threshold="auto"
        )
    _mark(found, np.abs(strength), "heart beat", "ECG", verdict)


def _mark(
    found: list[int],
    strength: np.ndarray,
    label: str,
    how: str,
    verdict: Verdict,
) -> None:
    for i in map(int, found):
        if i not in verdict.reasons:
            verdict.labels[i], verdict.scores[i] = label, strength[i]
            verdict.reasons[i] = f"{label}, {how} {strength[i]:.2f}"


def _no_channel(names: list[str], key: str) -> RecipeError:
    return RecipeError(
        "a channel for the ICA is not there",
        expected=", ".join(names),
        found="no such channel in the recording",
        remedy=f"correct preprocess.emeg.ica.{key}",
    )
