"""The event table of a recording beside the triggers that the device wrote: who is right, and why.

The device saw the triggers; a table was made by a program, a person or a conversion. Where the two
show the same events and disagree about when, the device wins and the report says by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.plan.matching import MAX_CELLS, Clock, align, fit_clock, label_shift
from braindecode_pipe.plan.triggers import Triggers
from braindecode_pipe.recipe import PlanSection

# Share of rows that must lie on one clock before table and triggers count as the same events.
_COMPARABLE = 0.5
_MAX_DRIFT = 1e-3
_MAX_JUMPS = 0.02
_LABELS = ("value", "trial_type")


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes
    ----------
    table : the events, with the onsets to use
    report : JSON: ``status`` is one of
        ``agree`` (the table's onsets are the triggers'), ``device`` (they are not: the triggers'
        are used), ``table`` (they are not, and the recipe keeps the table), ``not comparable``
        (table and triggers are not the same events), ``no triggers``; ``message`` says it in a
        sentence; ``n_table, n_device, n_matched, n_without_trigger, n_extra``; ``offset_s,
        drift_ms_per_min, residual_sd_s`` of the linear clock; ``largest_difference_s``;
        ``trial_shift`` (a row belongs to the trigger so many trials after the one at its time or,
        where labels cannot tell, of its number); ``label_agreement`` (share of trials whose code
        is the usual one of their label); ``relabelled``
    """

    table: pd.DataFrame
    report: dict[str, Any]


def compare(table: pd.DataFrame, triggers: Triggers, section: PlanSection) -> Comparison:
    """Pair the rows of an event table with triggers, and take the triggers' onsets.

    Rows without trigger get the onset that the fitted clock predicts. Onsets that differ from
    their trigger by no more than half a sample, or 1 ms where that is more, stay as they are.

    Parameters
    ----------
    table : DataFrame sorted by onset: onset [s], duration [s], trial_type or value, ...
    triggers : Triggers
    section : PlanSection
        ``event_source``, ``event_codes``, ``event_tolerance_s``.
    """
    triggers = triggers.of(section.event_codes)
    onset, device = table["onset"].to_numpy(float), triggers.onset
    report: dict[str, Any] = {
        "source": triggers.source, "n_table": len(table), "n_device": len(triggers),
    }  # fmt: skip
    if not len(triggers):
        return _done(table, report, "no triggers", "the recording holds no trigger to compare with")
    if len(table) * len(triggers) > MAX_CELLS:
        text = f"{len(table)} events and {len(triggers)} triggers are too many to be aligned"
        return _done(table, report, "not comparable", text)
    pairs = align(onset, device, section.event_tolerance_s)
    clock = fit_clock(onset[pairs[:, 0]], device[pairs[:, 1]])
    pairs = _on_clock(pairs, onset, device, clock, section.event_tolerance_s)
    if not _comparable(len(pairs), len(table), clock):
        text = (
            f"the {len(table)} events of the table and the {len(triggers)} triggers of the device "
            f"do not have the same intervals ({len(pairs)} fit one clock): the table stands"
        )
        return _done(table, report, "not comparable", text)
    clock = fit_clock(onset[pairs[:, 0]], device[pairs[:, 1]])
    pairs, trial_shift, agreement = _by_labels(table, triggers, pairs)
    difference = device[pairs[:, 1]] - onset[pairs[:, 0]]
    report |= {
        "n_matched": len(pairs),
        "n_without_trigger": len(table) - len(pairs),
        "n_extra": len(triggers) - len(pairs),
        "offset_s": clock.offset,
        "drift_ms_per_min": clock.drift * 60e3,
        "residual_sd_s": clock.residual_sd,
        "largest_difference_s": float(np.abs(difference).max()),
        "trial_shift": trial_shift,
        "label_agreement": None if np.isnan(agreement) else agreement,
    }
    slack = max(0.5 / triggers.sfreq * (1 + 1e-6), 1e-3)
    agree = bool((np.abs(difference) <= slack).all())
    moved = table.copy()
    if not agree and section.event_source != "table":
        # Rows that were moved to other trials do not lie on the clock of the intervals.
        moved["onset"] = fit_clock(onset[pairs[:, 0]], device[pairs[:, 1]])(onset)
        moved.loc[pairs[:, 0], "onset"] = device[pairs[:, 1]]
    moved, report["relabelled"] = _relabel(moved, triggers, pairs, section)
    status = "agree" if agree else "table" if section.event_source == "table" else "device"
    return _done(moved, report, status, _sentence(report, status, agreement))


def _done(table: pd.DataFrame, report: dict[str, Any], status: str, text: str) -> Comparison:
    return Comparison(table, {**report, "status": status, "message": text})


def _labels(table: pd.DataFrame) -> np.ndarray | None:
    """The column that should go with the codes, when its levels repeat."""
    for name in _LABELS:
        if name in table:
            values = table[name].astype(str).str.strip().to_numpy(object)
            if 2 <= len(set(values)) <= len(values) / 4:
                return values
    return None


def _by_labels(
    table: pd.DataFrame, triggers: Triggers, pairs: np.ndarray
) -> tuple[np.ndarray, int, float]:
    """Pairs, moved by whole trials where labels and codes say so; the shift; the agreement."""
    labels = _labels(table)
    codes = triggers.code[pairs[:, 1]]
    shift, agreement = 0, float("nan")
    if labels is not None and len(set(codes)) > 1:
        found = label_shift(labels[pairs[:, 0]], codes)
        shift, agreement = found.shift, found.agreement
    if shift:
        pairs = _moved(pairs, shift, len(table), len(triggers))
    if not shift and len(table) == len(triggers):
        shift = int(np.median(pairs[:, 1] - pairs[:, 0]))
    return pairs, shift, agreement


def _moved(pairs: np.ndarray, shift: int, n_rows: int, n_triggers: int) -> np.ndarray:
    """Pairs of every row with the trigger ``shift`` pairs on, and so on beyond the ends."""
    rows, at = pairs.T
    rows, at = (rows[:-shift], at[shift:]) if shift > 0 else (rows[-shift:], at[:shift])
    before = np.arange(min(abs(shift), rows[0], at[0]), 0, -1)
    after = np.arange(1, 1 + min(abs(shift), n_rows - 1 - rows[-1], n_triggers - 1 - at[-1]))
    rows = np.r_[rows[0] - before, rows, rows[-1] + after]
    return np.stack([rows, np.r_[at[0] - before, at, at[-1] + after]], axis=1)


def _on_clock(
    pairs: np.ndarray, onset: np.ndarray, device: np.ndarray, clock: Clock, tolerance: float
) -> np.ndarray:
    """Pairs without those that no jitter explains."""
    residual = np.abs(device[pairs[:, 1]] - clock(onset[pairs[:, 0]]))
    return pairs[residual <= max(2 * tolerance, 6 * min(clock.residual_sd, tolerance))]


def _comparable(n_pairs: int, n_rows: int, clock: Clock) -> bool:
    enough = n_pairs >= max(2, _COMPARABLE * n_rows) or n_pairs == n_rows
    return enough and abs(clock.drift) <= _MAX_DRIFT


def _relabel(
    table: pd.DataFrame, triggers: Triggers, pairs: np.ndarray, section: PlanSection
) -> tuple[pd.DataFrame, int]:
    """The trial types that the recipe's ``event_codes`` give to the triggers; how many changed."""
    if not section.event_codes or "trial_type" not in table or section.event_source == "table":
        return table, 0
    told = [section.event_codes[str(code)] for code in triggers.code[pairs[:, 1]]]
    before = table["trial_type"].iloc[pairs[:, 0]].astype(str).to_numpy(object)
    changed = before != np.asarray(told, object)
    if changed.any():
        table.loc[pairs[changed, 0], "trial_type"] = np.asarray(told, object)[changed]
    return table, int(changed.sum())


def _sentence(report: dict[str, Any], status: str, agreement: float) -> str:
    n, extra = report["n_without_trigger"], report["n_extra"]
    parts = [f"{report['n_matched']} of {report['n_table']} events have their trigger"]
    if n:
        parts.append(f"{n} without trigger")
    if extra:
        parts.append(f"{extra} triggers without event")
    shift = report["trial_shift"]
    if shift:
        parts.append(f"the table is shifted by {shift:+d} trial(s) against the triggers")
    if status != "agree":
        parts.append(
            f"onsets differ by up to {report['largest_difference_s'] * 1e3:.1f} ms (offset "
            f"{report['offset_s']:+.4f} s, drift {report['drift_ms_per_min']:+.3f} ms/min, "
            f"residual s.d. {report['residual_sd_s'] * 1e3:.2f} ms)"
        )
    if report["relabelled"]:
        parts.append(f"{report['relabelled']} trial types are those of the trigger's code")
    if agreement < 1:
        odd = round((1 - agreement) * report["n_matched"])
        parts.append(f"{odd} triggers have another code than most trials of their label")
    end = {
        "agree": "the table and the device agree",
        "device": "the device's triggers are used",
        "table": "the table is used, as the recipe says",
    }[status]
    return "; ".join([*parts, end])
