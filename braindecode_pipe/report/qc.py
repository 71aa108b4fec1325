"""The quality page of one recording: sensors, spectra, bad channels, events, steps, warnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import BraindecodePipeError
from braindecode_pipe.report import maps, qc_figures, wording
from braindecode_pipe.report.document import (
    Block,
    Column,
    Heading,
    Items,
    Link,
    Page,
    Section,
    Table,
    Text,
    attempt,
)
from braindecode_pipe.report.maps import HEAD_KINDS
from braindecode_pipe.report.study import Study, group_or_none, require
from braindecode_pipe.report.training import sensor_table
from braindecode_pipe.store import open_signal, open_store

MAX_TRACES = 24
MAX_BAD = 60
EXCERPT_S = 10.0


class Recording:
    """One signal or response store with its quality group.

    The quality group may hold more sensors than the store: those that were dropped.
    """

    def __init__(self, study: Study, name: str) -> None:
        self.study, self.name, self.path = study, name, study.inputs.signals[name]

    @cached_property
    def root(self) -> xr.Dataset:
        """The signal or response itself, not read yet."""
        return open_store(self.path)

    @property
    def attrs(self) -> dict:
        return self.root.attrs

    @cached_property
    def _sensors(self) -> tuple[pd.DataFrame, maps.Grid | None]:
        return sensor_table(self.path, self.root)

    @cached_property
    def qc(self) -> xr.Dataset:
        dataset = group_or_none(self.path, "qc")
        require(dataset, "the group qc", self.path)
        return dataset

    @cached_property
    def sensors(self) -> pd.DataFrame:
        """Sensors of the store, with the reason why they are bad ("" for good ones)."""
        table = self._sensors[0]
        stated = self.stated.set_index("sensor")["reason"].to_dict()
        marked = np.where(table["good"], "", "marked as bad")
        reasons = [stated.get(s) or m for s, m in zip(table["sensor"], marked)]
        return table.assign(reason=reasons)

    @property
    def grid(self) -> maps.Grid | None:
        return self._sensors[1]

    @cached_property
    def stated(self) -> pd.DataFrame:
        """Sensors of the quality group: sensor, kind, reason, dropped."""
        table = self._sensors[0].set_index("sensor")
        stored = self.array("bad_reason")
        names = [str(v) for v in self.qc["sensor"].values]
        reasons = [""] * len(names) if stored is None else [str(v) for v in stored]
        found = pd.DataFrame({"sensor": names, "reason": reasons})
        # A dropped sensor has left no kind behind; it had that of the others where there is one.
        kinds = table["kind"].unique()
        found["kind"] = [table["kind"].get(n, kinds[0] if len(kinds) == 1 else "") for n in names]
        found["dropped"] = ~found["sensor"].isin(table.index)
        return found

    def array(self, name: str) -> np.ndarray | None:
        """An array of the quality group, None where it was not written."""
        return np.asarray(self.qc[name].values) if name in self.qc else None


def qc_page(study: Study, name: str) -> Page:
    """The quality page of recording ``name``."""
    recording = Recording(study, name)
    alerts = attempt("store of this recording", lambda: () if recording.attrs else ())
    origin = "unknown" if alerts else str(recording.attrs.get("data_origin", "unknown"))
    sections = [
        _section("summary", "Summary", recording, ("summary", _summary), ("steps", _steps)),
        _section("sensors", "Sensors", recording, ("sensor positions", _layout),
                 ("bad sensors", _bad_table)),
        _section("signal", "Signal", recording, *_signal_panels(study, name)),
        _section("events", "Events", recording, ("event timing", _events)),
    ]  # fmt: skip
    return Page(
        title=name,
        subtitle=f"Quality of one recording of “{study.name}”",
        data_origin=origin,
        sections=tuple(sections),
        alerts=tuple(alerts),
        back=Link("Back to the report", "../report.html"),
    )


def _section(slug: str, title: str, recording: Recording, *panels) -> Section:
    blocks: list[Block] = []
    for name, make in panels:
        blocks += attempt(name, make, recording)
    return Section(slug, title, tuple(blocks))


def _signal_panels(study: Study, name: str) -> list:
    """The panels that this kind of recording should have, by the plan."""
    datatype = ""
    with suppress(BraindecodePipeError, IndexError):
        table = study.plan.recordings
        datatype = str(table.loc[table["recording"].astype(str) == name, "datatype"].iloc[0])
    if datatype in ("bold", "parcels"):
        return [("carpet", _carpet), ("temporal signal-to-noise ratio", _tsnr)]
    return [("spectra", _spectra), ("amplitudes", _amplitudes), ("excerpt", _excerpt)]


def _summary(recording: Recording) -> Iterator[Block]:
    dataset, attrs = recording.root, recording.attrs
    sensors = recording.sensors
    kinds = ", ".join(f"{n} {kind}" for kind, n in sensors["kind"].value_counts(sort=False).items())
    bad = int((sensors["reason"] != "").sum())
    dropped = int(recording.stated["dropped"].sum())
    kinds += f"; {dropped} dropped" if dropped else ""
    rows = [("Sensors", f"{kinds}; {bad} bad")]
    if "sfreq" in attrs:
        rows.append(("Rate", f"{wording.plain(attrs['sfreq'], 5)} Hz"))
    if attrs.get("t_r"):
        rows.append(("Repetition time", f"{wording.plain(attrs['t_r'])} s"))
    if "time" in dataset.dims and attrs.get("sfreq"):
        seconds = dataset.sizes["time"] / float(attrs["sfreq"])
        name = "Length of an epoch" if "event" in dataset.dims else "Duration"
        rows.append((name, f"{wording.duration(seconds)} ({dataset.sizes['time']} samples)"))
    if "event" in dataset.dims:
        rows.append(("Epochs", str(dataset.sizes["event"])))
    if "time_good" in dataset.coords:
        good = float(np.mean(np.asarray(dataset["time_good"].values, bool)))
        rows.append(("Good samples", wording.share(good)))
    rows.append(("Positions", str(attrs.get("position_frame", "unknown"))))
    rows.append(("Origin of the data", str(attrs.get("data_origin", "unknown"))))
    yield Table("Recording", (Column("Quantity"), Column("Value")), tuple(rows))
    warnings = [str(w) for w in recording.qc.attrs.get("warnings") or []]
    if warnings:
        yield Heading("Warnings")
        yield Items(tuple(warnings))
    else:
        yield Text("No warning was raised.", "note")


def _steps(recording: Recording) -> Iterator[Block]:
    yield Heading("What was done, in order")
    steps = tuple(str(s) for s in recording.qc.attrs.get("steps") or [])
    require(steps or None, "the list of steps", recording.path)
    yield Items(steps, ordered=True)


def _layout(recording: Recording) -> Iterator[Block]:
    table = recording.sensors
    bad = (table["reason"] != "").to_numpy()
    for kind in dict.fromkeys(table["kind"]):
        if kind == "voxel":
            continue  # drawn as the tSNR map
        rows = (table["kind"] == kind).to_numpy()
        position = maps.xyz(table[rows])
        known = np.isfinite(position).all(axis=1)
        n = int(rows.sum())
        if not known.any():
            yield Text(f"No position is known of the {n} sensors of kind {kind}.", "warning")
            continue
        head = kind in HEAD_KINDS
        place = maps.flatten(position[known]) if head else position[known]
        names = table.loc[rows, "sensor"].to_numpy()[known]
        flagged = bad[rows][known]
        lost = f"; {n - known.sum()} without position" if not known.all() else ""
        caption = f"{wording.count(n, 'sensor')} of kind {kind}, {flagged.sum()} bad{lost}."
        alt = f"Places of {known.sum()} {kind} sensors; bad: {', '.join(names[flagged]) or 'none'}"
        yield qc_figures.layout(place, names, flagged, head, alt, caption)


def _bad_table(recording: Recording) -> Iterator[Block]:
    table = recording.sensors
    dropped = recording.stated[recording.stated["dropped"]]
    dropped = dropped.assign(reason=dropped["reason"] + " (dropped)")
    table = pd.concat([table[["sensor", "kind", "reason"]], dropped], ignore_index=True)
    bad = table[table["reason"] != ""]
    if bad.empty:
        yield Text("No sensor is bad.")
        return
    shown = bad.head(MAX_BAD)
    note = (f"The first {len(shown)} of {len(bad)} are listed.",) if len(bad) > MAX_BAD else ()
    rows = tuple(zip(shown["sensor"], shown["kind"], shown["reason"]))
    columns = (Column("Sensor"), Column("Kind"), Column("Reason"))
    yield Table("Bad sensors", columns, rows, note)


def _spectra(recording: Recording) -> Iterator[Block]:
    parts = []
    for array, axis in (("psd_before", "freq"), ("psd_after", "freq_after")):
        values = recording.array(array)
        freq = recording.array(axis)
        parts.append(None if values is None or freq is None else (freq, values))
    require(None if parts == [None, None] else parts, "any power spectrum", recording.path)
    n = len(recording.stated)
    alt = f"Power spectra of {n} sensors before and after preprocessing"
    caption = "Power spectra of all sensors, before and after preprocessing (before scaling)."
    bad = (recording.stated["reason"] != "").to_numpy()
    yield qc_figures.spectra(parts[0], parts[1], bad, alt, caption)


def _amplitudes(recording: Recording) -> Iterator[Block]:
    amplitude = recording.array("amplitude")
    require(amplitude, "the amplitude of the sensors", recording.path)
    table = recording.stated
    alt = f"Amplitude of {len(table)} sensors, {int((table['reason'] != '').sum())} of them bad"
    caption = "Local amplitude of every sensor before preprocessing."
    kinds = table["kind"].tolist()
    bad = (table["reason"] != "").to_numpy()
    yield qc_figures.amplitudes(amplitude, kinds, bad, alt, caption)


def _excerpt(recording: Recording) -> Iterator[Block]:
    """Ten seconds from the middle, or the mean over events of epoched recordings."""
    signal = open_signal(recording.path)
    names = [str(v) for v in signal.sensors["sensor"]]
    rows = np.unique(np.linspace(0, len(names) - 1, min(len(names), MAX_TRACES)).astype(int))
    if signal.kind == "response":
        values = np.asarray(signal.read_events(np.arange(len(signal.events))), float)
        if values.ndim < 3:
            return
        time, excerpt = np.asarray(signal.times, float), np.nanmean(values, axis=0)[rows]
        what = f"mean over {len(values)} epochs"
    else:
        n = min(int(round(EXCERPT_S * signal.sfreq)), signal.n_times)
        start = (signal.n_times - n) // 2
        excerpt = np.asarray(signal.read(start, start + n), float)[rows]
        time = (start + np.arange(n)) / signal.sfreq + signal.first_time
        what = f"{n / signal.sfreq:.0f} s from the middle"
    shown = f"{len(rows)} of {len(names)} sensors" if len(rows) < len(names) else "all sensors"
    alt = f"Preprocessed signals of {shown}, {what}"
    yield qc_figures.traces(time, excerpt, [names[i] for i in rows], alt, f"{alt}.")


def _carpet(recording: Recording) -> Iterator[Block]:
    carpet = recording.array("carpet")
    require(carpet, "the carpet", recording.path)
    attrs = recording.attrs
    step = float(attrs.get("t_r") or 1 / float(attrs["sfreq"]))
    time = np.arange(carpet.shape[1]) * step + float(attrs.get("first_time", 0.0))
    lines = {}
    for array, title in (("global_signal", "global signal"),
                         ("framewise_displacement", "framewise displacement [mm]")):  # fmt: skip
        values = recording.array(array)
        if values is not None:
            lines[title] = values.astype(float)
    alt = f"Carpet of {len(carpet)} sensors over {carpet.shape[1]} volumes"
    if "framewise displacement [mm]" in lines:
        moved = lines["framewise displacement [mm]"]
        alt += f"; mean framewise displacement {wording.plain(np.nanmean(moved))} mm"
    else:
        yield Text("Head motion is unknown: there are no confounds beside the recording.", "note")
    yield qc_figures.carpet(time, carpet, lines, alt, f"{alt}.")


def _tsnr(recording: Recording) -> Iterator[Block]:
    tsnr = recording.array("tsnr")
    require(tsnr, "the temporal signal-to-noise ratio", recording.path)
    table, grid = recording.sensors, recording.grid
    if np.nanmedian(np.abs(tsnr)) < 1:
        text = "The mean was removed before these data were shared: they have no tSNR to show."
        yield Text(text, "note")
        return
    values = maps.Values(tsnr[None].astype(float), ("tSNR",), "tSNR", signed=False)
    caption = f"Temporal signal-to-noise ratio before cleaning, median {np.nanmedian(tsnr):.0f}."
    yield from maps.sensor_maps(values, table, caption, grid)


def _events(recording: Recording) -> Iterator[Block]:
    events = recording.study.plan.events
    events = events[events["recording"].astype(str) == recording.name]
    if events.empty:
        yield Text("The plan has no event of this recording.", "warning")
        return
    targets = recording.study.plan.stimuli["target"].unique()
    column = f"stimulus_{targets[0]}" if len(targets) else ""
    level = [recording.study.label(s) if s else "no stimulus" for s in events.get(column, [])]
    onset = events["onset"].to_numpy(float)
    dataset = open_store(recording.path)
    span, gaps = (float(onset.min()), float(onset.max())), []
    if dataset.attrs.get("kind") == "signal":
        time = np.asarray(dataset["time"].values, float)
        span = (float(time[0]), float(time[-1]))
        gaps = _spans(time, ~np.asarray(dataset["time_good"].values, bool))
    alt = f"{len(onset)} events over {wording.duration(span[1] - span[0])}"
    caption = "Events over time and the intervals between them."
    caption += " Shaded: spans marked as bad." if gaps else ""
    yield qc_figures.timeline(onset, level or ["event"] * len(onset), span, gaps, alt, caption)


def _spans(time: np.ndarray, flag: np.ndarray) -> list[tuple[float, float]]:
    """Start and stop of every run of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, flag.astype(int), 0]))
    return [(float(time[a]), float(time[b - 1])) for a, b in zip(edges[::2], edges[1::2])]
