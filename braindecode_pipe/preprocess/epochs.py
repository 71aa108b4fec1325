"""Recordings that come already epoched (``-epo.fif``) to response stores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, LeakageError
from braindecode_pipe.preprocess import spatial as combining
from braindecode_pipe.preprocess import steps as step
from braindecode_pipe.preprocess.filtering import ratio_of
from braindecode_pipe.preprocess.output import Rows
from braindecode_pipe.preprocess.reading import apply_names, copy_epochs, read_epochs
from braindecode_pipe.preprocess.records import (
    Spectra,
    attributes,
    judge,
    measure_spectrum,
    pick,
    quality_dataset,
    seen_by_fits,
)
from braindecode_pipe.preprocess.scratch import Scratch, write_along
from braindecode_pipe.preprocess.sensors import info_to_json
from braindecode_pipe.preprocess.sources import ScratchSource
from braindecode_pipe.preprocess.statistics import Statistics
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.preprocess.stepwise import resample
from braindecode_pipe.recipe import EmegSection
from braindecode_pipe.schema import response_dataset
from braindecode_pipe.store import StoreWriter, safe_join


def run_epochs(
    section: EmegSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
    fit_extents: tuple[tuple[float, float], ...] | None = None,
) -> None:
    """Write the response store of epochs.

    Filters are not applied: an epoch is shorter than they are. ``reject_amplitude`` marks whole
    events in the coordinate ``event_good``; samples that are not finite make their event bad too
    (``nan = "interpolate"``) or their channel (``mark-bad``). With ``fit_extents`` only epochs that
    lie inside them wholly are fitted on. Parameters and errors: see :func:`emeg.run_raw`.
    """
    # Nothing that filters, and an epoch is a piece of its own.
    section = section.model_copy(update={"line_removal": "notch", "autoreject": "none"})
    path = safe_join(data, recording["path"])
    epochs, messages = read_epochs(path, data)
    log = Log(warnings=messages)
    apply_names(epochs, section, path, log)
    info, picks = pick(epochs, section, path, log)
    n_events, n_in, rate = len(epochs), len(epochs.times), float(epochs.info["sfreq"])
    with Scratch(out, (len(picks), n_events * n_in)) as samples:
        log.warnings += copy_epochs(epochs, picks, samples, path, data)
        allowed = _allowed(epochs, fit_extents, section, path)
        sensors, before, lost = _inspect(samples, info, n_in, rate, allowed, section, path, log)
        runs = [(i * n_in, (i + 1) * n_in) for i in np.flatnonzero(allowed)]
        source = ScratchSource(samples, info, [(stop, stop) for _, stop in runs[:-1]])
        mask = combining.fit_mask(source.n_times, runs, np.zeros(source.n_times, bool))
        excerpts = combining.Excerpts(source, None, mask)
        spatial, variables = combining.compose(sensors, excerpts, section, path, data, log)
        samples.mix(spatial.matrix)
        if section.notch or section.l_freq is not None or section.h_freq is not None:
            log.steps.append("no filter: the recording comes already epoched")
        over = step.over_limit(samples, np.zeros(len(samples)), sensors, section)
        event_good = ~over.reshape(n_events, n_in).any(axis=1) & ~lost
        if section.reject_amplitude:
            log.steps.append(f"over the limit: {int((~event_good).sum())} of {n_events} epochs")
        up, down = ratio_of(section.sfreq, rate, n_in / rate)
        n_times, sfreq = -(-n_in * up // down), rate if up == down else float(section.sfreq)
        if up != down:
            log.steps.append(f"resampled from {rate:g} to {sfreq:g} Hz (polyphase {up}/{down})")
        with Scratch(out, (len(samples), n_events * n_times), np.float32) as result:
            level = np.zeros(len(samples))
            for i, row in enumerate(samples):
                row = resample(row.reshape(n_events, n_in), up, down).reshape(-1)
                level[i] = np.median(row)
                result.write(i, 0, (row - level[i])[None])
            good = np.repeat(event_good, n_times)
            constant = [i for i, name in enumerate(sensors.ch_names) if name in log.constant]
            rows = Rows(section, result, level, sensors, sfreq, good, constant, log)
            rows.variables |= variables
            rows.fit(result, level, good & np.repeat(allowed, n_times))
            if section.scaler_scope == "causal":
                event_good &= rows.good.reshape(n_events, n_times).all(axis=1)
            _write(rows, before, recording, data_origin, out, event_good, n_times,
                   float(epochs.times[0]), fit_extents)  # fmt: skip


def _allowed(
    epochs: Any, extents: Sequence[tuple[float, float]] | None, section: EmegSection, path: Path
) -> np.ndarray:
    """(n_events,) bool: which epochs fits may see."""
    if extents is None:
        return np.ones(len(epochs), bool)
    onset = epochs.events[:, 0] / float(epochs.info["sfreq"])
    first, last = onset + epochs.times[0], onset + epochs.times[-1]
    allowed = np.zeros(len(epochs), bool)
    for start, stop in extents:
        allowed |= (first >= start) & (last <= stop)
    if not allowed.any() and step.fitted_steps(section):
        raise LeakageError(
            "every epoch meets a test window: nothing is left to fit on",
            file=path,
            expected=f"epochs for preprocess.emeg: {', '.join(step.fitted_steps(section))}",
            found="0",
            remedy="keep whole recordings together in the folds, or leave these steps out; "
            'preprocess.emeg.scaler_scope = "train_only" or "causal" fits no scaler here',
        )
    return allowed


def _inspect(
    samples: Scratch, info: Any, n_in: int, rate: float, allowed: np.ndarray,
    section: EmegSection, path: Path, log: Log,
) -> tuple[Any, Spectra, np.ndarray]:  # fmt: skip
    """Sensors, what was measured of them, and (n_events,) bool: epochs that were not finite."""
    import mne

    n_events = len(allowed)
    seen = allowed if allowed.any() else np.ones(n_events, bool)
    runs = [(i * n_in, (i + 1) * n_in) for i in np.flatnonzero(seen)]
    statistics = Statistics(len(samples), n_in, runs)
    for columns in samples.column_blocks():
        statistics.observe(columns.start, samples.read(columns=columns))
    measured = statistics.finish()
    lost = np.zeros(n_events, bool)
    if measured.not_finite:
        found = {
            info["ch_names"][row]: f"{sum(b - a for a, b in spans)} of {samples.shape[1]} samples, "
            f"first at {spans[0][0]}" for row, spans in measured.not_finite.items()
        }  # fmt: skip
        if section.nan == "raise":
            raise DataError(
                "samples are not finite", file=path, expected="finite numbers",
                found="; ".join(f"{name}: {text}" for name, text in found.items()),
                remedy='set preprocess.emeg.nan = "interpolate" or "mark-bad", or exclude the '
                "recording",
            )  # fmt: skip
        for row in measured.not_finite:
            name = info["ch_names"][row]
            values = samples.read(slice(row, row + 1))[0]
            wrong = ~np.isfinite(values)
            if section.nan == "mark-bad" or wrong.all():
                values[:] = 0
                log.bad_reason[name] = f"not finite: {found[name]}"
            else:
                at = np.arange(len(values))
                values[wrong] = np.interp(at[wrong], at[~wrong], values[~wrong])
                lost |= wrong.reshape(n_events, n_in).any(axis=1)
            samples.write(row, 0, values[None])
        log.steps.append("not finite: " + "; ".join(f"{n}: {text}" for n, text in found.items()))
    sensors = mne.io.RawArray(np.eye(len(samples)), info, verbose="error")
    judge(measured, sensors, section, path, log)
    freqs, psd = measure_spectrum(
        lambda start, stop: samples.read(columns=slice(start, stop)), runs, rate, len(samples),
        n_in / rate,
    )  # fmt: skip
    types = sensors.get_channel_types()
    before = Spectra(list(sensors.ch_names), types, measured.amplitude, freqs, psd)
    return sensors, before, lost


def _write(
    rows: Rows, before: Spectra, recording: dict[str, Any], data_origin: str, out: Path,
    event_good: np.ndarray, n_times: int, first_time: float,
    fit_extents: Sequence[tuple[float, float]] | None,
) -> None:  # fmt: skip
    log, n_events = rows.log, len(event_good)
    coords, frame = rows.columns()
    attrs = {
        **attributes(recording, data_origin, log),
        "sfreq": rows.sfreq,
        "first_time": first_time,
        "position_frame": frame,
        "info": info_to_json(rows.sensors.info, rows.sfreq),
        "scaler": rows.seen,
        **seen_by_fits(fit_extents),
    }
    events = [f"{recording['recording']}:{index:05d}" for index in range(n_events)]
    shape = (n_events, len(rows.level), n_times)
    dataset = response_dataset(
        np.broadcast_to(np.float32(0), shape), coords, events, attrs,
        first_time + np.arange(n_times) / rows.sfreq,
    ).assign_coords(event_good=("event", event_good))  # fmt: skip
    runs = [(i * n_times, (i + 1) * n_times) for i in range(n_events)]
    freqs = rows.watch(runs, n_times / rows.sfreq)
    qc = quality_dataset(before, freqs, rows.sensors, log, float(event_good.mean()))
    qc = qc.assign(rows.variables)

    def events_of(part: slice) -> np.ndarray:
        flat = rows.final(slice(part.start * n_times, part.stop * n_times))
        return flat.reshape(len(flat), -1, n_times).transpose(1, 0, 2)

    with StoreWriter(out, {"": dataset, "qc": qc}) as writer:
        write_along(writer, "response", "event", n_events, events_of)
        rows.close(writer, before)
