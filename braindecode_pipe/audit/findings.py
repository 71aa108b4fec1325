"""What the audit looks for, as a table, and what it found."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from braindecode_pipe.errors import InputError, LeakageError

_SHOWN = 8


@dataclass(frozen=True)
class Check:
    """One thing that is looked for.

    Attributes
    ----------
    name : what findings and ``--allow-leak`` call it
    severity : the worst that it reports: "error" (a score is wrong) or "warning" (one may be)
    what : what it means
    seen : where it happened
    """

    name: str
    severity: str
    what: str
    seen: str = ""


_TABLE = (
    # --- the plan ---
    Check("groups", "error", "the unit that the split keeps whole (person, session, run) is both "
          "trained on and tested"),
    Check("events", "error", "an event, or another at its time in the same recording, is both "
          "trained on and tested", "trials drawn with replacement before folds are made"),
    Check("copied-trials", "error", "trials with equal samples, or made from one trial, are on "
          "both sides", "augmentation or oversampling before the split"),
    Check("stimuli", "error", "stimuli that the split keeps apart, near-duplicates of them, equal "
          "texts or categories are on both sides", "repeated pictures split by trial"),
    Check("repeated-stimuli", "warning", "recordings are cut in time and tested stimuli were shown "
          "in training: known stimuli are recognised", "repeated pictures split by trial"),
    Check("source-clips", "error", "pieces of one file that share time are on both sides"),
    Check("time", "error", "windows of both sides share samples",
          "shuffled folds over overlapping windows"),
    Check("segments", "error", "tested windows lie beside trained ones that show the same: the "
          "time within the recording, or the recording, tells the answer",
          "random segments of one recording on both sides"),
    Check("filters", "warning", "filters carry samples of the test into training"),
    Check("recordings", "error", "recordings that hold the same samples, maybe shifted, are on "
          "both sides"),
    # --- what was fitted ---
    Check("fit-extents", "error", "something was fitted on samples of tested windows",
          "a scaler, ICA or drift model of whole recordings"),
    Check("tokenizer", "error", "tokens come from a tokenizer that was fitted on samples of tested "
          "windows", "a tokenizer of the whole data set"),
    Check("fit-scope", "error", "something was fitted on other events than its fold's training",
          "tokenizers, clusters and scalers of the whole data set"),
    Check("selection", "error", "an epoch or a setting was chosen on what is tested",
          "the best epoch on the test set"),
    Check("normalizer", "error", "an embedding was normalised on stimuli that training did not "
          "show"),
    Check("near-duplicates", "warning", "stimuli on both sides have nearly the same embedding"),
    Check("unreadable", "warning", "a store is damaged, and could not be audited"),
    # --- what was scored ---
    Check("fold", "error", "a decoder of a fold that the plan does not have was scored"),
    Check("tested-events", "error", "events that the fold does not test were scored"),
    Check("ledger", "warning", "the best of several configurations that were scored on these "
          "test items is reported", "the learning rate with the best test score"),
)  # fmt: skip

CHECKS = {check.name: check for check in _TABLE}


@dataclass(frozen=True)
class Finding:
    """One leak, or sign of one.

    Attributes
    ----------
    severity : "error" (a score is wrong) or "warning" (a score may be)
    check : name of the check
    fold : name of the fold, or ""
    text : what was found, in one sentence
    names : the events, stimuli, recordings or stores that it concerns
    """

    severity: str
    check: str
    fold: str
    text: str
    names: tuple[str, ...]


def finding(
    check: str, fold: str, what: str, names: Iterable[object], severity: str = ""
) -> Finding:
    """A finding of a check in the table; the first names are told in its text."""
    severity = severity or CHECKS[check].severity
    names = tuple(map(str, names))
    shown = ", ".join(names[:_SHOWN])
    if len(names) > _SHOWN:
        shown += f" and {len(names) - _SHOWN} more"
    where = f"fold {fold}: " if fold else ""
    return Finding(severity, check, fold, f"{where}{what}: {shown}", names)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings; the order is kept otherwise."""
    return sorted(findings, key=lambda f: f.severity != "error")


def check_names(names: Iterable[str]) -> list[str]:
    """The names of checks, each once; :class:`InputError` for one that there is not."""
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        leaks = [check.name for check in _TABLE if check.severity == "error"]
        raise InputError(
            "no such leak can be allowed", expected=", ".join(leaks), found=", ".join(unknown)
        )
    return names


def refuse(findings: Iterable[Finding], allowed: Collection[str] = ()) -> list[str]:
    """Stop at leaks that nobody allowed.

    Returns
    -------
    list of str
        Names of the leaks that were found and allowed: they belong on every number.

    Raises
    ------
    LeakageError
        With every leak and its first offenders.
    """
    leaks = [f for f in findings if f.severity == "error"]
    open_ones = [f for f in leaks if f.check not in allowed]
    if open_ones:
        names = list(dict.fromkeys(f.check for f in open_ones))
        raise LeakageError(
            "training and test are not apart",
            expected="no leak (`braindecode-pipe audit` lists all)",
            found="; ".join(f"[{f.check}] {f.text}" for f in open_ones[:_SHOWN])
            + (f"; and {len(open_ones) - _SHOWN} more" if len(open_ones) > _SHOWN else ""),
            remedy="repair the split or what was fitted; "
            + " ".join(f"--allow-leak {name}" for name in names)
            + " goes on and marks every number",
        )
    return list(dict.fromkeys(f.check for f in leaks))
