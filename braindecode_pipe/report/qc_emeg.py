"""Panels of EEG, MEG and intracranial recordings: places, spectra, components, movement."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from braindecode_pipe.report import (
    maps,
    qc_figures,
    qc_ica_figures,
    qc_time_figures,
    wording,
)
from braindecode_pipe.report.document import Block, Column, Table, Text
from braindecode_pipe.report.maps import HEAD_KINDS
from braindecode_pipe.report.qc_figures import Spectrum
from braindecode_pipe.report.qc_ica_figures import Component
from braindecode_pipe.report.recording import BAD, DROPPED, INTERPOLATED, Recording
from braindecode_pipe.store import Signal, open_signal

MAX_TRACES = 24
MAX_BAD = 60
EXCERPT_S = 10.0
BLOCK_BYTES = 64 << 20
MAX_EXCLUDED, MAX_KEPT = 12, 4
MAX_LINES = 12
# Neighbours of a line: between so many Hz on both sides.
NEAR_HZ, FAR_HZ = 1.5, 5.0


def layout(recording: Recording) -> Iterator[Block]:
    """Places of all sensors, those that were dropped too where their place is known."""
    table = recording.sensors[["sensor", "kind", "x", "y", "z", "state"]]
    lost = recording.stated[recording.stated["dropped"]].assign(state=DROPPED)
    table = pd.concat([table, lost[table.columns]], ignore_index=True)
    for kind in dict.fromkeys(table["kind"]):
        if kind == "voxel":
            continue  # drawn as slices
        part = table[table["kind"] == kind]
        known = np.isfinite(maps.xyz(part)).all(axis=1)
        n = len(part)
        if not known.any():
            if (part["state"] != DROPPED).any():
                yield Text(f"No position is known of the {n} sensors of kind {kind}.", "warning")
            continue
        head = kind in HEAD_KINDS
        position = maps.xyz(part)[known]
        place = maps.flatten(position) if head else position
        shown = part[known]
        counts = [f"{int((part['state'] == s).sum())} {s}" for s in (BAD, INTERPOLATED, DROPPED)]
        counts = [c for c in counts if not c.startswith("0 ")]
        caption = f"{wording.count(n, 'sensor')} of kind {kind}; {', '.join(counts) or 'all good'}"
        caption += "." if known.all() else f"; {int((~known).sum())} without position."
        marked = shown.loc[shown["state"] != "good", "sensor"].tolist()
        alt = f"Places of {len(shown)} {kind} sensors; bad: {wording.joined(marked, 20) or 'none'}"
        yield qc_figures.layout(
            place, shown["sensor"].tolist(), shown["state"].tolist(), head, alt, caption
        )


def bad_table(recording: Recording) -> Iterator[Block]:
    """Every bad sensor with its reason and what became of it."""
    table = recording.sensors[["sensor", "kind", "reason", "state"]]
    dropped = recording.stated[recording.stated["dropped"]].assign(state=DROPPED)
    table = pd.concat([table, dropped[table.columns]], ignore_index=True)
    bad = table[(table["reason"] != "") | (table["state"] == DROPPED)]
    if bad.empty:
        yield Text("No sensor is bad.")
        return
    fate = {BAD: "kept, marked as bad", INTERPOLATED: "interpolated", DROPPED: "dropped"}
    shown = bad.head(MAX_BAD)
    note = (f"The first {len(shown)} of {len(bad)} are listed.",) if len(bad) > MAX_BAD else ()
    rows = tuple(
        (row.sensor, row.kind, row.reason.removesuffix(" (interpolated)") or wording.NOTHING,
         fate[row.state])
        for row in shown.itertuples()
    )  # fmt: skip
    columns = (Column("Sensor"), Column("Kind"), Column("Reason"), Column("What became of it"))
    yield Table("Bad sensors", columns, rows, note)


def amplitudes(recording: Recording) -> Iterator[Block]:
    """Local amplitude of every sensor as it was read."""
    amplitude = recording.need("amplitude", "the amplitude of the sensors")
    table = recording.stated
    amplitude, table = amplitude[table["recorded"]], table[table["recorded"]]
    bad = (table["reason"] != "").to_numpy()
    alt = f"Amplitude of {len(table)} sensors, {int(bad.sum())} of them bad"
    caption = (
        "Amplitude of every sensor as it was read: median over seconds of the standard deviation."
    )
    yield qc_figures.amplitudes(
        amplitude, table["kind"].tolist(), bad, table["sensor"].tolist(), alt, caption
    )


def spectra(recording: Recording) -> Iterator[Block]:
    """Power spectra before and after, per kind of sensor."""
    found = {}
    for array, axis in (("psd_before", "freq"), ("psd_after", "freq_after")):
        values, freq = recording.array(array), recording.array(axis)
        found[array] = None if values is None or freq is None else (freq.astype(float), values)
    if found["psd_before"] is None and found["psd_after"] is None:
        recording.need("psd_before", "any power spectrum")
    table = recording.stated
    bad = (table["reason"] != "").to_numpy()
    parts = []
    for kind in dict.fromkeys(table["kind"]):
        rows = (table["kind"] == kind).to_numpy()
        before, after = (
            None if part is None else (part[0], np.asarray(part[1][rows], float))
            for part in found.values()
        )
        parts.append(Spectrum(kind or "sensors", before, after, bad[rows]))
    section = recording.section
    top = max(float(part[0][-1]) for part in found.values() if part is not None)
    marked = line_frequencies(recording, top)
    low, high = section.get("l_freq"), section.get("h_freq")
    band = None
    if recording.datatype != "epochs" and (low or high):
        band = (float(low or 0), float(high or np.inf))
    caption = "Power spectra before and after preprocessing (after: before any scaling)."
    caption += " Dotted: line frequencies." if marked else ""
    caption += " Grey: outside of the pass-band." if band else ""
    caption += _not_the_same(table)
    alt = f"Power spectra of {len(table)} sensors before and after preprocessing"
    yield qc_figures.spectra(parts, marked, band, alt, caption)


def _not_the_same(table: pd.DataFrame) -> str:
    """Why spectra before and after are of different sensors; "" where they are of the same."""
    texts = [
        f"{wording.count(n, 'sensor')} {why}"
        for why, n in table.loc[table["left_out"] != "", "left_out"].value_counts().items()
    ]
    made = int((~table["recorded"]).sum())
    if not texts and not made:
        return ""
    text = " Before and after are not of the same sensors."
    text += f" Not in the result: {', '.join(texts)}." if texts else ""
    return text + (f" Only in the result: {wording.count(made, 'sensor')}." if made else "")


def line_frequencies(recording: Recording, top: float) -> list[float]:
    """Line frequencies and harmonics that the recipe or the store names, up to ``top`` [Hz]."""
    stored = recording.array("line")
    base = [float(f) for f in recording.section.get("notch") or [] if f > 0]
    found = [] if stored is None else [float(f) for f in stored]
    found += [f * k for f in base for k in range(1, int(top // f) + 1)]
    return sorted({f for f in found if 0 < f <= top})[:MAX_LINES]


def above_neighbours(freq: np.ndarray, psd: np.ndarray, line: float) -> float:
    """Power at a line over that of its neighbours [dB], median over sensors.

    The largest density within 0.75 Hz of the line over the median density between ``NEAR_HZ`` and
    ``FAR_HZ`` from it. NaN where the line lies outside of the spectrum or nothing is finite.

    Parameters
    ----------
    freq : (n,) [Hz]
    psd : (n_sensors, n)
    line : float [Hz]
    """
    away = np.abs(freq - line)
    at = away <= 0.75
    around = (away >= NEAR_HZ) & (away <= FAR_HZ)
    # At the end of the spectrum one side is left, and a filter falls steeply there.
    if not at.any() or not (around & (freq < line)).any() or not (around & (freq > line)).any():
        return float("nan")
    psd = psd[np.isfinite(psd).all(axis=1)]
    base = np.median(psd[:, around], axis=1)
    ratio = psd[:, at].max(axis=1)[base > 0] / base[base > 0]
    ratio = ratio[ratio > 0]
    return float(10 * np.log10(np.median(ratio))) if ratio.size else float("nan")


def line_noise(recording: Recording) -> Iterator[Block]:
    """How far the lines stand out of their neighbours before and after."""
    spectra_of = {
        name: (recording.need(f"psd_{name}", "a power spectrum"), recording.array(axis))
        for name, axis in (("before", "freq"), ("after", "freq_after"))
    }
    good = (recording.stated["reason"] == "").to_numpy()
    good = good if good.any() else np.ones_like(good)
    lines = line_frequencies(recording, float(spectra_of["before"][1][-1]))
    stands = {
        name: np.array([above_neighbours(freq, psd[good], f) for f in lines])
        for name, (psd, freq) in spectra_of.items()
    }
    # Above the pass-band there is nothing left that a line could stand out of.
    h_freq = recording.section.get("h_freq")
    beyond = np.array(lines) > (float(h_freq) if h_freq else np.inf)
    stands["after"] = np.where(beyond, np.nan, stands["after"])
    if not lines or not np.isfinite(stands["before"]).any():
        yield Text("No line frequency lies within the spectrum.", "note")
        return
    text = "; ".join(
        f"{f:g} Hz: {_db(b)} before, {_db(a) if np.isfinite(a) else 'nothing left'} after"
        for f, b, a in zip(lines, stands["before"], stands["after"])
    )
    caption = "How far the power at each line stands above its neighbours, median of good sensors."
    caption += _not_the_same(recording.stated)
    if not np.isfinite(stands["after"]).all():
        caption += " Lines without a value after it lie above the low-pass or the new rate."
    removed = [recording.array(n) for n in ("line", "line_power_before", "line_power_after")]
    if all(values is not None for values in removed):
        said = [
            f"{f:g} Hz {_db(10 * np.log10(a / b))}"
            for f, b, a in zip(*(values.astype(float) for values in removed))
            if a > 0 and b > 0
        ]
        caption += f" Change of the power at the lines by their removal: {', '.join(said)}."
    yield qc_figures.lines_removed(np.array(lines), stands["before"], stands["after"],
                                   f"Line noise above its neighbours; {text}", caption)  # fmt: skip


def _db(value: float) -> str:
    return f"{value:+.0f} dB".replace("-", "−") if np.isfinite(value) else wording.NOTHING


def components(recording: Recording) -> Iterator[Block]:
    """The components that were removed, the first that were kept, and a table of all."""
    weights = np.asarray(recording.need("ica_map", "the maps of the components", "ica"), float)
    n = len(weights)
    excluded = recording.array("ica_excluded")
    excluded = np.zeros(n, bool) if excluded is None else excluded.astype(bool)
    labels = recording.array("ica_label")
    labels = [""] * n if labels is None else [str(v) for v in labels]
    score, variance = recording.array("ica_score"), recording.array("ica_variance")
    sources, time = recording.array("ica_source"), recording.array("ica_time")
    table = recording.stated
    rows, kind = _mapped_sensors(table, weights)
    gone, kept = np.flatnonzero(excluded), np.flatnonzero(~excluded)
    chosen = [*gone[:MAX_EXCLUDED], *kept[:MAX_KEPT]]
    shown = [
        Component(
            f"{i} {labels[i] or 'unnamed'}{', removed' if excluded[i] else ''}",
            _about(i, score, variance), bool(excluded[i]), weights[i, rows],
            None if sources is None else sources[i],
        )
        for i in chosen
    ]  # fmt: skip
    which = ", ".join(f"{i} ({labels[i] or 'unnamed'})" for i in gone[:MAX_EXCLUDED]) or "none"
    share = ""
    if variance is not None and len(gone):
        share = f", {wording.share(float(np.nansum(variance[gone])))} of the variance"
    caption = f"Independent components: {len(gone)} of {n} removed{share}; the first kept follow."
    if len(gone) > MAX_EXCLUDED:
        caption += f" The first {MAX_EXCLUDED} removed are shown."
    other = set(table["kind"]) - {kind, ""}
    if other:
        caption += f" Maps of the {kind} sensors."
    alt = f"Maps and sources of {len(shown)} components; removed: {which}"
    yield qc_ica_figures.components(shown, maps.flatten(maps.xyz(table)[rows]), time, alt, caption)
    yield _component_table(labels, score, variance, excluded)


def _mapped_sensors(table: pd.DataFrame, weights: np.ndarray) -> tuple[np.ndarray, str]:
    """Rows of the kind of sensor to map: electrodes, else magnetometers, else gradiometers."""
    used = np.isfinite(weights).all(axis=0)
    kinds = table["kind"].to_numpy(str)
    for kind in (*HEAD_KINDS, *dict.fromkeys(kinds)):
        rows = np.flatnonzero((kinds == kind) & used)
        if rows.size:
            return rows, kind
    return np.flatnonzero(used), ""


def _about(i: int, score: np.ndarray | None, variance: np.ndarray | None) -> str:
    parts = []
    if score is not None and np.isfinite(score[i]):
        parts.append(f"score {float(score[i]):.2f}")
    if variance is not None and np.isfinite(variance[i]):
        parts.append(f"{wording.share(float(variance[i]))} of the variance")
    return ", ".join(parts)


def _component_table(labels, score, variance, excluded) -> Table:
    rows = tuple(
        (
            str(i),
            labels[i] or wording.NOTHING,
            wording.NOTHING if score is None else f"{float(score[i]):.2f}",
            wording.NOTHING if variance is None else wording.share(float(variance[i])),
            "removed" if excluded[i] else "kept",
        )
        for i in range(len(labels))
    )
    columns = (Column("Component", True), Column("Taken for"), Column("Score", True),
               Column("Variance", True), Column("What became of it"))  # fmt: skip
    return Table(f"All {len(rows)} components", columns, rows, folded=True)


def head_movement(recording: Recording) -> Iterator[Block]:
    """Movement between head and helmet: the helmet seen from the head, against its first place.

    Shifts are differences; a rotation is ``R_t R_0^-1``, as a rotation vector.
    """
    from scipy.spatial.transform import Rotation

    position = recording.need("head_position", "the position of the head", "head")
    time = recording.need("head_time", "the times of the head's position").astype(float)
    position = position.astype(float)
    if not len(position):
        yield Text("The position of the head was never found.", "warning")
        return
    shift = 1e3 * (position[:, :3] - position[0, :3])
    rotation = Rotation.from_rotvec(position[:, 3:])
    turn = np.rad2deg((rotation * rotation[0].inv()).as_rotvec())
    most = float(np.nanmax(np.linalg.norm(shift, axis=1)))
    caption = (
        "Movement between head and helmet (the helmet seen from the head), relative to the first "
        f"position: at most {wording.plain(most)} mm, "
        f"{wording.plain(float(np.nanmax(np.abs(turn))))}°."
    )
    alt = f"Head movement over {wording.duration(time[-1] - time[0])}; at most {most:.1f} mm"
    yield qc_time_figures.movement(time, shift, turn, alt, caption)


def excerpt(recording: Recording) -> Iterator[Block]:
    """Ten seconds from the middle, or the mean over events of epoched recordings."""
    signal = open_signal(recording.path)
    names = [str(v) for v in signal.sensors["sensor"]]
    rows = np.unique(np.linspace(0, len(names) - 1, min(len(names), MAX_TRACES)).astype(int))
    if signal.kind == "response":
        if signal.times is None:
            return
        time, values = np.asarray(signal.times, float), _mean_epoch(signal)[rows]
        what = f"mean over {wording.count(signal.n_events, 'epoch')}"
    else:
        n = min(int(round(EXCERPT_S * signal.sfreq)), signal.n_times)
        start = (signal.n_times - n) // 2
        values = np.asarray(signal.read(start, start + n), float)[rows]
        time = (start + np.arange(n)) / signal.sfreq + signal.first_time
        what = f"{n / signal.sfreq:.0f} s from the middle"
    shown = f"{len(rows)} of {len(names)} sensors" if len(rows) < len(names) else "all sensors"
    alt = f"Preprocessed signals of {shown}, {what}"
    gaps = recording.bad_spans
    inside = any(b >= time[0] and a <= time[-1] for a, b in gaps)
    caption = f"{alt}.{' Shaded: spans marked as bad.' if inside else ''}"
    zero = signal.kind == "response"
    caption += " Dashed: onset of the event." if zero else ""
    kinds = signal.sensors["kind"].astype(str).to_numpy()[rows]
    if len(set(kinds)) > 1:
        caption += " Each kind of sensor has its own scale."
    yield qc_time_figures.traces(
        time, values, [names[i] for i in rows], kinds, gaps, alt, caption, zero=zero
    )


def _mean_epoch(signal: Signal) -> np.ndarray:
    """(n_sensors, n_times) mean over the events, read a block at a time; NaN left out."""
    total = np.zeros((signal.n_sensors, signal.n_times))
    count = np.zeros_like(total)
    step = max(1, BLOCK_BYTES // max(1, 8 * total.size))
    for start in range(0, signal.n_events, step):
        rows = np.arange(start, min(start + step, signal.n_events))
        values = np.asarray(signal.read_events(rows), float)
        finite = np.isfinite(values)
        total += np.where(finite, values, 0.0).sum(axis=0)
        count += finite.sum(axis=0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
