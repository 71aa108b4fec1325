"""Head and foot of a quality page: the numbers to look at first, steps, methods, provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

import braindecode_pipe
from braindecode_pipe.errors import BraindecodePipeError
from braindecode_pipe.report import qc_bold, wording
from braindecode_pipe.report.document import (
    Block,
    Code,
    Column,
    Fact,
    Facts,
    Heading,
    Items,
    Table,
    Text,
)
from braindecode_pipe.report.methods import toml
from braindecode_pipe.report.methods_steps import scaler_rows, store_key
from braindecode_pipe.report.recording import DROPPED, GOOD, Recording
from braindecode_pipe.report.study import require
from braindecode_pipe.store import store_hash

# Beyond these a reader should look.
MAX_BAD_SHARE = 0.1
MIN_GOOD_SHARE = 0.8
MAX_HEAD_MM = 5.0
MAX_MEAN_FD_MM = 0.5


@dataclass(frozen=True)
class Movement:
    """How far a head moved: ``text`` with unit, and whether it is much."""

    text: str
    much: bool


def sensor_counts(recording: Recording) -> tuple[int, int]:
    """How many sensors were recorded, and how many of them are bad in any way."""
    table = recording.sensors
    dropped = int(recording.stated["dropped"].sum())
    return len(table) + dropped, int((table["state"] != GOOD).sum()) + dropped


def movement_of(recording: Recording) -> Movement | None:
    """Mean framewise displacement of fMRI, farthest shift of the head in MEG; None if unknown."""
    displacement = recording.array("framewise_displacement")
    if displacement is not None and np.isfinite(displacement).any():
        mean = float(np.nanmean(displacement))
        return Movement(f"{wording.plain(mean, 2)} mm on average", mean > MAX_MEAN_FD_MM)
    position = recording.array("head_position")
    if position is not None and len(position):
        shift = np.linalg.norm(position[:, :3] - position[0, :3], axis=1)
        most = 1e3 * float(np.nanmax(shift))
        return Movement(f"{wording.plain(most, 2)} mm at most", most > MAX_HEAD_MM)
    return None


def lag_of(recording: Recording) -> tuple[str, bool]:
    """Response lag as text, and whether it is where it should not be."""
    try:
        found = recording.lag
    except Exception:  # noqa: BLE001 - the panel of the lag shows the cause
        return "FAILED", True
    if found is None:
        return "", False
    peak = wording.number(found.lag)
    text = f"{wording.plain(peak)} s" if np.isfinite(peak) else "none clear"
    return text, bool(found.shifted)


def facts(recording: Recording) -> Iterator[Block]:
    """The numbers that a reader looks for first."""
    n, bad = sensor_counts(recording)
    kinds = recording.sensors["kind"].value_counts(sort=False)
    found = [Fact("Sensors", ", ".join(f"{k} {kind}" for kind, k in kinds.items()))]
    share = bad / n if n else 0.0
    look = f"more than {wording.share(MAX_BAD_SHARE, 0)}" if share > MAX_BAD_SHARE else ""
    found.append(Fact("Bad sensors", f"{bad} of {n}", look))
    good = recording.good_share
    if np.isfinite(good):
        name = "Good epochs" if recording.is_response else "Good time"
        look = f"less than {wording.share(MIN_GOOD_SHARE, 0)}" if good < MIN_GOOD_SHARE else ""
        found.append(Fact(name, wording.share(good), look))
    if not recording.is_response and np.isfinite(recording.seconds):
        found.append(Fact("Duration", wording.duration(recording.seconds)))
    with suppress(BraindecodePipeError, OSError, KeyError):
        events = len(recording.events)
        look = "" if events else "the plan has none"
        found.append(Fact("Events", f"{events}", look))
    if moved := movement_of(recording):
        found.append(Fact("Head movement", moved.text, "much" if moved.much else ""))
    if recording.is_bold:
        tsnr = recording.array("tsnr")
        if tsnr is not None and np.nanmedian(np.abs(tsnr)) >= 1:
            found.append(Fact("tSNR, median", f"{np.nanmedian(tsnr):.0f}"))
        covered = recording.array("coverage")
        if covered is not None:
            low = int((covered < qc_bold.LOW_COVERAGE).sum())
            limit = wording.share(qc_bold.LOW_COVERAGE, 0)
            found.append(Fact(f"Parcels below {limit} coverage", f"{low} of {len(covered)}",
                              "look at the list" if low else ""))  # fmt: skip
    text, wrong = lag_of(recording)
    if text:
        found.append(Fact("Response lag", text, "not where it is expected" if wrong else ""))
    warnings = len(recording.warnings)
    found.append(Fact("Warnings", str(warnings), "see below" if warnings else ""))
    yield Facts(tuple(found))


def warnings(recording: Recording) -> Iterator[Block]:
    """Everything that preprocessing warned of."""
    if recording.warnings:
        yield Heading("Warnings")
        yield Items(tuple(recording.warnings))
    else:
        yield Text("No warning was raised.", "note")


def details(recording: Recording) -> Iterator[Block]:
    """What the recording is, and by what it was filtered, resampled and scaled."""
    dataset, attrs = recording.root, recording.attrs
    sensors = recording.sensors
    kinds = ", ".join(f"{n} {kind}" for kind, n in sensors["kind"].value_counts(sort=False).items())
    states = [f"{int((sensors['state'] == s).sum())} {s}" for s in ("bad", "interpolated")]
    states.append(f"{int(recording.stated['dropped'].sum())} {DROPPED}")
    left_out = recording.stated["left_out"]
    states += [f"{n} {why}" for why, n in left_out[left_out != ""].value_counts().items()]
    rows = [("Sensors", "; ".join([kinds, *(s for s in states if not s.startswith("0 "))]))]
    if "sfreq" in attrs and not attrs.get("t_r"):
        rows.append(("Rate", f"{wording.plain(attrs['sfreq'], 5)} Hz"))
    if attrs.get("t_r"):
        rows.append(("Repetition time", f"{wording.plain(attrs['t_r'])} s"))
    if np.isfinite(recording.seconds):
        name = "Length of an epoch" if recording.is_response else "Duration"
        seconds = recording.seconds
        text = f"{wording.plain(seconds)} s" if seconds < 5 else wording.duration(seconds)
        rows.append((name, f"{text} ({dataset.sizes['time']} samples)"))
    if recording.is_response:
        rows.append(("Epochs", str(dataset.sizes["event"])))
    rows.append(("Positions", str(attrs.get("position_frame", "unknown"))))
    if attrs.get("engine"):
        rows.append(("Filtered by the engine", str(attrs["engine"])))
    if attrs.get("resampler"):
        rows.append(("Resampler", str(attrs["resampler"])))
    reach = wording.number(attrs.get("filter_half_length_s"))
    if np.isfinite(reach):
        rows.append(("Reach of the filters", f"± {wording.plain(reach)} s"))
    rows += scaler_rows(attrs)
    rows.append(("Origin of the data", str(attrs.get("data_origin", "unknown"))))
    yield Table("Recording", (Column("Quantity"), Column("Value")), tuple(rows))


def reach(recording: Recording) -> Iterator[Block]:
    """How far the filters carry one sample into others, beside the purge of the split."""
    half = wording.number(recording.attrs.get("filter_half_length_s"))
    require(half if np.isfinite(half) else None, "the reach of the filters", recording.path.name)
    if half == 0:
        yield Text("No filter ran: no sample reaches into another.", "note")
        return
    purge = recording.study.section("split").get("purge_s") or 0.0
    far = "as far as that" if purge == "auto" else f"{wording.plain(purge)} s"
    yield Text(
        f"A filtered sample is made of the recording within {wording.plain(half)} s on both sides. "
        f"Closer than that to its ends and to annotated breaks it is made of less. Windows of "
        f"training and test in one recording share no sample where they are "
        f"{wording.plain(2 * half)} s apart or more; the split purges {far} around the test "
        "windows.", "note",
    )  # fmt: skip


def steps(recording: Recording) -> Iterator[Block]:
    """What was done, in order."""
    yield Heading("What was done, in order")
    require(recording.steps or None, "the list of steps", recording.path.name)
    yield Items(tuple(recording.steps), ordered=True)


def provenance(recording: Recording) -> Iterator[Block]:
    """Where the samples are from: source, store, settings, versions, hashes of what was fitted."""
    attrs = recording.attrs
    rows: list[tuple[str, str]] = []
    for name, value in (
        ("Source file", recording.row.get("path")),
        ("Content of the source (SHA-256)", attrs.get("content_hash")),
        ("Store", store_key(recording.path)),
        ("Content of the store (SHA-256)", store_hash(recording.path)),
        ("Split (SHA-256)", _quietly(lambda: recording.plan_attrs.get("split_hash"))),
        ("Data contract", attrs.get("schema_version")),
        ("braindecode_pipe", braindecode_pipe.__version__),
    ):
        if value:
            rows.append((name, str(value)))
    rows += [(k, v) for k, v in scaler_rows(attrs) if "FitScope" in k]
    versions = recording.study.inputs.versions
    rows += [(str(name), str(version)) for name, version in sorted(versions.items())]
    yield Table("Provenance", (Column("What"), Column("Which")), tuple(rows), folded=True)
    name = "bold" if recording.is_bold else "emeg"
    yield Code(f"Settings in [preprocess.{name}]", toml({"preprocess": {name: recording.section}}))


def _quietly(make: Callable[[], Any]) -> Any:
    with suppress(BraindecodePipeError, OSError):
        return make()
    return None
