"""Events of a recording, from BIDS tables, triggers or epochs, checked against the recording."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import DataError, EventError, MissingFileError, NoEventsError
from braindecode_pipe.formats import guarded, open_epochs
from braindecode_pipe.formats.tables import needs_repair, repaired_text
from braindecode_pipe.plan.comparison import Comparison, compare
from braindecode_pipe.plan.recordings import sidecars, stem
from braindecode_pipe.plan.triggers import Triggers, read_triggers
from braindecode_pipe.recipe import PlanSection

MISSING = ("", "n/a", "N/A", "nan", "NaN")
_CONTINUOUS = ("eeg", "meg", "ieeg")
_RESERVED = ("event", "recording", "subject", "session", "run", "group", "repetition")


def event_files(recording: Mapping[str, Any], data: Path, derivatives: str = "") -> list[Path]:
    """``events.tsv`` files that apply to a recording; derivatives take them from the raw tree."""
    path = data / recording["path"]
    if derivatives:
        raw = data / Path(recording["path"]).relative_to(Path("derivatives") / derivatives)
        path = raw if raw.parent.is_dir() else path
    return sidecars(path, data, "events", ".tsv")


def read_events(
    section: PlanSection, recording: Mapping[str, Any], data: Path, repairs: Sequence[str] = ()
) -> pd.DataFrame:
    """Events of one recording.

    Parameters
    ----------
    section : PlanSection
        ``event_source`` and what goes with it; ``columns`` renames the data set's columns;
        ``max_dropped_events`` and ``max_dropped_middle`` bound the losses.
    recording : mapping
        A row of the recording table.
    data : Path
        Root of the data set.
    repairs : sequence of str
        Of ``EmegSection.repairs``: what an event table is repaired of while it is read.

    Returns
    -------
    DataFrame, sorted by onset, with event (id), recording, subject, session, run, onset [s],
    duration [s], and the data set's own columns. In ``attrs``: ``dropped`` counts events outside
    the recording, ``unsorted`` rows that came after a later one, ``repaired`` says what was
    repaired, and ``matching`` is the report of
    :func:`~braindecode_pipe.plan.comparison.compare`, or None where nothing was compared.

    Raises
    ------
    EventError : no onset column, a number that is none, repeated events, too many outside; no
        table or stim channel where one is asked for
    """
    path = data / recording["path"]
    continuous = recording["datatype"] in _CONTINUOUS
    files = event_files(recording, data, section.derivatives)
    source = section.event_source
    file, matching, repaired = path, None, []
    if recording["datatype"] == "epochs":
        table = _from_epochs(path)
    elif files and (source in ("auto", "table") or not continuous):
        file = files[-1]
        table, repaired = _from_table(file, section, repairs)
    elif source == "table" or not continuous:
        table = _no_events() if source == "auto" else _refuse_missing_table(path)
    else:
        table = _from_triggers(read_triggers(section, path, source), section, path)
    unsorted = int((np.diff(table["onset"].to_numpy(float)) < 0).sum())
    table = table.sort_values("onset", kind="stable", ignore_index=True)
    _refuse_repeated(table, file)
    if continuous and file != path and len(table):
        found = _compared(table, section, path)
        table, matching = found.table, found.report
        table = table.sort_values("onset", kind="stable", ignore_index=True)
    table, dropped = _inside(table, recording, section, file)
    name = str(recording["recording"])
    table.insert(0, "event", [f"{name}:{index:05d}" for index in table.pop("index")])
    for column in ("recording", "subject", "session", "run"):
        table[column] = str(recording[column])
    table.attrs |= {
        "dropped": dropped, "unsorted": unsorted, "matching": matching, "repaired": repaired,
    }  # fmt: skip
    return table


def _compared(table: pd.DataFrame, section: PlanSection, path: Path) -> Comparison:
    """The table beside the device's triggers; a table must not fail over a device's channel."""
    try:
        triggers = read_triggers(section, path)
    except EventError:
        raise
    except Exception as error:  # any reader of any vendor's format, each with its own errors
        text = f"the device's triggers cannot be read: {type(error).__name__}: {error}"
        return Comparison(table, {"status": "no triggers", "message": text})
    return compare(table, triggers, section)


def _no_events() -> pd.DataFrame:
    columns = ["onset", "duration", "trial_type", "index"]
    return pd.DataFrame(columns=columns).astype({"onset": float, "duration": float})


def _refuse_missing_table(path: Path) -> pd.DataFrame:
    raise EventError(
        "there is no event table",
        file=path,
        expected="an events.tsv that applies to the recording, as [plan] event_source says",
        found="none",
        remedy='event_source = "auto" takes what there is',
    )


def _from_triggers(triggers: Triggers, section: PlanSection, path: Path) -> pd.DataFrame:
    codes = section.event_codes
    kept = triggers.of(codes)
    if not len(kept) and (codes or section.event_source != "auto"):
        raise EventError(
            "the recording has no such trigger",
            file=path,
            expected=", ".join(codes) or "triggers",
            found=", ".join(sorted(set(map(str, triggers.code)))[:20])
            or f"none on {triggers.source}",
            remedy="correct [plan] event_codes, stim_channel or event_source",
        )
    return pd.DataFrame(
        {
            "onset": kept.onset,
            "duration": kept.duration,
            "trial_type": [codes.get(str(code), str(code)) for code in kept.code],
            "value": [str(code) for code in kept.code],
            "index": np.arange(len(kept)),
        }
    )


def _cells(file: Path, repairs: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """A table of strings, and what was repaired in it."""
    source, repaired = file, []
    try:
        if needs_repair(file, repairs):
            text, repaired = repaired_text(file, repairs)
            source = io.StringIO(text)
        return pd.read_csv(source, sep="\t", dtype=str, keep_default_na=False), repaired
    except DataError as error:
        raise EventError(
            "the event table cannot be read", file=file, expected=error.expected,
            found=error.found, remedy=error.remedy,
        ) from error  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        is_encoding = isinstance(error, UnicodeDecodeError)
        raise EventError(
            "the event table cannot be read", file=file, expected="tab-separated UTF-8 text",
            found=str(error), remedy=_asking("text-encoding") if is_encoding else None,
        ) from error  # fmt: skip


def _asking(repair: str) -> str:
    return f'correct the file, or set preprocess.emeg.repairs = ["{repair}"]'


def _from_table(
    file: Path, section: PlanSection, repairs: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Rows of an event table, and what was repaired in it."""
    table, repaired = _cells(file, repairs)
    table = table.rename(columns=section.columns)
    if "onset" not in table:
        raise EventError(
            "the event table has no onsets",
            file=file,
            expected="a column onset [s]",
            found=", ".join(table.columns) or "an empty file",
            remedy='map it in the recipe: [plan.columns] their_name = "onset"',
        )
    taken = sorted(set(table.columns) & set(_RESERVED))
    table = table.rename(columns={name: f"{name}_in_data" for name in taken})
    table["onset"] = _numbers(table["onset"], "onset", file)
    if "duration" in table:
        table["duration"] = _numbers(
            table["duration"].where(~table["duration"].isin(MISSING), "0"), "duration", file
        )
    else:
        table["duration"] = 0.0
    negative = np.flatnonzero(table["duration"] < 0)
    if len(negative) and "negative-durations" not in repairs:
        raise EventError(
            "an event has a negative duration", file=file, expected="0 s or more",
            found=f"{table['duration'].iloc[negative[0]]} s in row {negative[0] + 2}",
            remedy=_asking("negative-durations"),
        )  # fmt: skip
    if len(negative):  # a column that the recipe calls duration
        table.loc[negative, "duration"] = 0.0
        repaired = [*repaired, f"{file.name}: {len(negative)} negative durations are 0 s"]
    table["index"] = np.arange(len(table))
    return table, repaired


def _numbers(column: pd.Series, name: str, file: Path) -> pd.Series:
    values = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        text = str(column.iloc[wrong[0]])
        raise EventError(
            f"the column {name} holds something that is no number",
            file=file,
            expected="seconds, with a decimal point",
            found=f"{text!r} in row {wrong[0] + 2} ({len(wrong)} such rows)",
            remedy=_asking("decimal-comma") if "," in text else "correct those rows",
        )
    return values


def _from_epochs(path: Path) -> pd.DataFrame:
    epochs, _ = guarded(partial(open_epochs, path), path, path.parent)
    names = {code: name for name, code in epochs.event_id.items()}
    table = pd.DataFrame(
        {
            "onset": epochs.events[:, 0] / epochs.info["sfreq"],
            "duration": 0.0,
            "trial_type": [names.get(code, str(code)) for code in epochs.events[:, 2]],
        }
    )
    if epochs.metadata is not None:
        for column in epochs.metadata:
            if column not in table:
                name = f"{column}_in_data" if column in _RESERVED else str(column)
                table[name] = epochs.metadata[column].astype(str).to_numpy()
    table["index"] = np.arange(len(table))
    return table


def _refuse_repeated(table: pd.DataFrame, file: Path) -> None:
    repeated = table.drop(columns="index").duplicated()
    if repeated.any():
        row = table[repeated].iloc[0]
        raise EventError(
            "an event is there twice", file=file, expected="every event once",
            found=f"{int(repeated.sum())} repeated, first at {row['onset']} s",
            remedy="remove the repeated rows",
        )  # fmt: skip


def _inside(
    table: pd.DataFrame, recording: Mapping[str, Any], section: PlanSection, file: Path
) -> tuple[pd.DataFrame, int]:
    """The events inside the recording, and how many are not."""
    duration = float(recording["duration"])
    if recording["datatype"] == "epochs" or not np.isfinite(duration):
        return table, 0
    tolerance = 0.5 / float(recording["sfreq"])
    onset = table["onset"]
    outside = ((onset < -tolerance) | (onset > duration + tolerance)).to_numpy()
    dropped = int(outside.sum())
    middle = _in_the_middle(outside[np.argsort(table["index"].to_numpy())])
    limits = {
        "max_dropped_events": (dropped, section.max_dropped_events, ""),
        "max_dropped_middle": (middle, section.max_dropped_middle, " between events inside it"),
    }
    for key, (n, limit, where) in limits.items():
        if not n or n <= limit * len(table):
            continue
        worst = float(onset[outside].iloc[-1])
        factor = " (milliseconds?)" if worst > 100 * duration else ""
        raise EventError(
            "events lie outside the recording",
            file=file,
            expected=f"onsets between 0 and {duration:.3f} s, {limit:.0%} may be dropped{where}",
            found=f"{n} of {len(table)} outside{where}, e.g. at {worst:g} s{factor}",
            remedy=f"correct the onsets; or the recording was cut short; or raise [plan] {key}",
        )
    return table[~outside].reset_index(drop=True), dropped


def _in_the_middle(outside: np.ndarray) -> int:
    """How many are outside between two that are inside, in the order of the table."""
    inside = np.flatnonzero(~outside)
    return int(outside[inside[0] : inside[-1]].sum()) if len(inside) else 0


def no_events() -> pd.DataFrame:
    """A table of events without a row."""
    names = ("event", "recording", "subject", "session", "run", "trial_type")
    columns = {name: pd.Series(dtype=str) for name in names}
    return pd.DataFrame(columns | {name: pd.Series(dtype=float) for name in ("onset", "duration")})


def read_all_events(
    section: PlanSection, recordings: pd.DataFrame, data: Path, repairs: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]], dict[str, str]]:
    """Events of all recordings that are not excluded.

    Returns
    -------
    events : one row per event
    noted : ``dropped``, ``unsorted``, ``matching``, ``repaired``, each recording -> what
        :func:`read_events` says
    problems : recording -> why its events cannot be used; such a recording is left to fail alone

    Raises
    ------
    EventError : no recording has any event, or none has events that can be used
    """
    tables, errors = {}, {}
    noted: dict[str, dict[str, Any]] = {
        "dropped": {}, "unsorted": {}, "matching": {}, "repaired": {},
    }  # fmt: skip
    usable = [r for r in recordings.to_dict("records") if not (r["excluded"] or r["problem"])]
    for recording in usable:
        name = str(recording["recording"])
        try:
            table = read_events(section, recording, data, repairs)
        except EventError as error:
            errors[name] = error
            continue
        for what, values in noted.items():
            if table.attrs[what]:
                values[name] = table.attrs[what]
        table.attrs = {}
        if len(table):
            tables[name] = table
    if not tables and errors:
        raise next(iter(errors.values()))
    if not tables:
        raise NoEventsError(
            "no recording has events",
            file=data,
            expected="events.tsv beside the recordings, annotations, or epochs",
            found=", ".join(stem(Path(p).name) for p in recordings["path"][:3]),
            remedy="every other stage can run; decoding needs to know when what was presented",
        )
    problems = {name: str(error) for name, error in errors.items()}
    problems |= _without_events(usable, set(tables) | set(errors), data)
    events = pd.concat(tables.values(), ignore_index=True)
    for column in events.columns:
        if events[column].dtype.kind not in "fiub":
            events[column] = events[column].fillna("").astype(str)
    return events, noted, problems


def _without_events(
    recordings: list[dict[str, Any]], having: set[str], data: Path
) -> dict[str, str]:
    """Recordings without events of a task whose other recordings have them."""
    tasks = {str(r["task"]) for r in recordings if r["recording"] in having}
    return {
        str(r["recording"]): str(
            MissingFileError(
                "the recording has no events",
                file=data / r["path"],
                expected="an events.tsv beside it, as other recordings of this task have",
                found="none",
                remedy="put it there, or leave the recording out in [[plan.exclude]]",
            )
        )
        for r in recordings
        if r["recording"] not in having and str(r["task"]) in tasks
    }


def check_readable(recordings: pd.DataFrame) -> None:
    """Raise :class:`DataError` when not a single recording can be opened."""
    usable = recordings[~recordings["excluded"].astype(bool)]
    if len(usable) and (usable["problem"] != "").all():
        raise DataError("no recording can be opened", found=str(usable["problem"].iloc[0]))
