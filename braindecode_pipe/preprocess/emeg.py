"""EEG, MEG and intracranial EEG to stores: the steps of ``EmegSection`` in the order of its fields.

Filters are MNE's. The scaler is fitted on the good samples of the one recording that it scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess import quality
from braindecode_pipe.preprocess import steps as step
from braindecode_pipe.preprocess.reading import collect_warnings, load, read_epochs, read_raw
from braindecode_pipe.preprocess.sensors import channel_coords, info_to_json
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection
from braindecode_pipe.schema import SCHEMA_VERSION, response_dataset, signal_dataset
from braindecode_pipe.store import safe_join, write_store

_DATA_TYPES = ("eeg", "mag", "grad", "seeg", "ecog", "dbs")


def run_raw(
    section: EmegSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
) -> None:
    """Write the signal store of one continuous recording.

    Parameters
    ----------
    section : EmegSection
    recording : dict
        Row of ``StudyPlan.recordings``.
    data, out : Path
        Root of the data set; path of the store.
    allow_truncated : bool
        Use the prefix of a recording that is shorter than declared.
    data_origin : str
        ``recorded``, ``simulated`` or ``mixed``.

    Raises
    ------
    MissingFileError, TruncatedRecordingError, UnitError, DataError, RecipeError
    """
    path = safe_join(data, recording["path"])
    raw, messages = read_raw(path, data, allow_truncated)
    log = Log(warnings=messages)
    log.steps += [text for text in messages if text.startswith("truncated")]
    _pick(raw, section, path, log)
    log.warnings += load(raw, path, data)
    _finite(raw, section, path, log)
    before = _inspect(raw, section, path, log)
    with collect_warnings(path, data, log.warnings):
        step.prepare_sensors(raw, section, path, log)
        half_s = step.filter_raw(raw, section, log)
    sfreq_in = float(raw.info["sfreq"])
    spans = step.bad_spans(raw, section, log)
    up, down, sfreq = step.resampling(section.sfreq, sfreq_in, log)
    times = np.arange(-(-raw.n_times * up // down)) / sfreq
    good = step.good_times(spans, sfreq_in, times, sfreq)
    if not good.any():
        log.warnings.append("no span of the recording is good; the scaler saw all of it")
    resampled = np.empty((len(raw.ch_names), len(times)))
    for i in range(len(raw.ch_names)):
        resampled[i] = step.resample(raw.get_data(picks=[i])[0], up, down)
    after = quality.spectrum(resampled, sfreq)
    values, offset, gain = step.scale(resampled, good, section, raw.ch_names, log)
    coords, frame = channel_coords(
        raw.info, _good(raw, gain), offset, gain, section.scaler != "none"
    )
    attrs = {
        **_attrs(recording, data_origin, log),
        "sfreq": sfreq,
        "first_time": 0.0,
        "position_frame": frame,
        "info": info_to_json(raw.info, sfreq),
        "filter_half_length_s": half_s,
    }
    dataset = signal_dataset(values, coords, times, attrs, good)
    qc = _qc(before, after, raw.ch_names, log, float(good.mean()))
    write_store(out, {"": dataset, "qc": qc})


def run_epochs(
    section: EmegSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
) -> None:
    """Write the response store of a recording that comes already epoched (``-epo.fif``).

    Filters are not applied: an epoch is shorter than they are. ``reject_amplitude`` marks whole
    events in the coordinate ``event_good``. Parameters and errors: see :func:`run_raw`.
    """
    path = safe_join(data, recording["path"])
    epochs, messages = read_epochs(path, data)
    log = Log(warnings=messages)
    _pick(epochs, section, path, log)
    _finite(epochs, section, path, log)
    before = _inspect(epochs, section, path, log)
    with collect_warnings(path, data, log.warnings):
        step.prepare_sensors(epochs, section, path, log)
    if section.notch or section.l_freq is not None or section.h_freq is not None:
        log.steps.append("no filter: the recording comes already epoched")
    event_good = ~step.over_limit(epochs, section).any(axis=1)
    if section.reject_amplitude:
        log.steps.append(f"over the limit: {int((~event_good).sum())} of {len(event_good)} epochs")
    up, down, sfreq = step.resampling(section.sfreq, float(epochs.info["sfreq"]), log)
    resampled = step.resample(epochs.get_data(copy=False), up, down)
    n_events, n_channels, n_times = resampled.shape
    flat = resampled.transpose(1, 0, 2).reshape(n_channels, -1)
    after = quality.spectrum(flat, sfreq, n_times / sfreq)
    values, offset, gain = step.scale(
        flat, np.repeat(event_good, n_times), section, epochs.ch_names, log
    )
    values = np.ascontiguousarray(values.reshape(n_channels, n_events, -1).transpose(1, 0, 2))
    coords, frame = channel_coords(
        epochs.info, _good(epochs, gain), offset, gain, section.scaler != "none"
    )
    first_time = float(epochs.times[0])
    attrs = {
        **_attrs(recording, data_origin, log),
        "sfreq": sfreq,
        "first_time": first_time,
        "position_frame": frame,
        "info": info_to_json(epochs.info, sfreq),
    }
    events = [f"{recording['recording']}:{index:05d}" for index in range(n_events)]
    times = first_time + np.arange(values.shape[2]) / sfreq
    dataset = response_dataset(values, coords, events, attrs, times)
    dataset = dataset.assign_coords(event_good=("event", event_good))
    qc = _qc(before, after, epochs.ch_names, log, float(event_good.mean()))
    write_store(out, {"": dataset, "qc": qc})


def _pick(inst: Any, section: EmegSection, path: Path, log: Log) -> None:
    """Keep the data channels, or those of ``picks``."""
    wanted = section.picks or [kind for kind in _DATA_TYPES if kind in inst.get_channel_types()]
    types = dict(zip(inst.ch_names, inst.get_channel_types()))
    names = [name for name in inst.ch_names if name in wanted or types[name] in wanted]
    if not names:
        there = ", ".join(sorted(set(types.values())))
        raise DataError(
            "none of the picked channels is there",
            file=path,
            expected=", ".join(section.picks or _DATA_TYPES),
            found=f"{len(types)} channels of type {there}",
            remedy="set preprocess.emeg.picks, or the type column of channels.tsv",
        )
    inst.pick(names, verbose="error")
    log.steps.append(f"{len(names)} of {len(types)} channels: " + ", ".join(
        f"{sum(t == kind for t in inst.get_channel_types())} {kind}"
        for kind in dict.fromkeys(inst.get_channel_types())
    ))  # fmt: skip


def _flat_data(inst: Any) -> tuple[np.ndarray, int]:
    """Samples as (channel, time), epochs one after the other, and one window [samples]."""
    if hasattr(inst, "n_times"):
        return inst.get_data(), round(float(inst.info["sfreq"]))
    values = inst.get_data(copy=False)
    return values.transpose(1, 0, 2).reshape(values.shape[1], -1), values.shape[2]


def _finite(inst: Any, section: EmegSection, path: Path, log: Log) -> None:
    """Refuse NaN and infinity, or put the channel to zero and mark it as bad."""
    bad: dict[str, str] = {}
    for i, name in enumerate(inst.ch_names):
        values = inst.get_data(picks=[i])
        wrong = ~np.isfinite(values)
        if wrong.any():
            first = int(np.flatnonzero(wrong.reshape(-1))[0])
            bad[name] = f"{int(wrong.sum())} of {wrong.size} samples, first at {first}"
    if not bad:
        return
    if section.nan == "raise":
        raise DataError(
            "samples are not finite",
            file=path,
            expected="finite numbers",
            found="; ".join(f"{name}: {text}" for name, text in bad.items()),
            remedy='set preprocess.emeg.nan = "mark-bad", or exclude the recording',
        )
    # Zero, so that no filter and no average carries a NaN from here to another sample.
    inst.apply_function(_zeros, picks=list(bad), channel_wise=True, verbose="error")
    for name, text in bad.items():
        log.bad_reason[name] = f"not finite: {text}"
    inst.info["bads"] = list(dict.fromkeys([*inst.info["bads"], *bad]))
    log.steps.append(f"put to zero and marked as bad, not finite: {', '.join(bad)}")


def _zeros(values: np.ndarray) -> np.ndarray:
    return np.zeros_like(values)


@dataclass(frozen=True)
class _Before:
    """Amplitude and spectrum of the recording as it was read."""

    names: list[str]
    types: list[str]
    amplitude: np.ndarray
    freqs: np.ndarray
    psd: np.ndarray


def _inspect(inst: Any, section: EmegSection, path: Path, log: Log) -> _Before:
    """Check units, collect the bad channels with their reasons, measure what was read."""
    values, window = _flat_data(inst)
    sfreq, types = float(inst.info["sfreq"]), inst.get_channel_types()
    amplitude = quality.local_amplitude(values, window)
    quality.check_units(amplitude, types, path)
    for name in inst.info["bads"]:
        log.bad_reason.setdefault(name, "marked as bad in the data set")
    if section.detect_bads:
        for name, reason in quality.find_bad_channels(values, inst.ch_names, types, window).items():
            log.bad_reason.setdefault(name, reason)
    inst.info["bads"] = [name for name in inst.ch_names if name in log.bad_reason]
    log.constant |= {n for n, row in zip(inst.ch_names, values) if row.max() == row.min()}
    if len(log.constant) == len(inst.ch_names):
        raise DataError(
            "every channel is bad",
            file=path,
            expected="at least one channel that varies",
            found=f"{len(inst.ch_names)} channels, each of one and the same value throughout",
            remedy="exclude the recording in [[plan.exclude]]",
        )
    freqs, psd = quality.spectrum(values, sfreq, min(2.0, window / sfreq * 2))
    return _Before(list(inst.ch_names), types, amplitude, freqs, psd)


def _good(inst: Any, gain: np.ndarray) -> np.ndarray:
    bads = set(inst.info["bads"])
    return np.array([name not in bads for name in inst.ch_names]) & (gain > 0)


def _attrs(recording: dict[str, Any], data_origin: str, log: Log) -> dict[str, Any]:
    names = ("recording", "subject", "session", "task", "run", "datatype", "content_hash")
    return {
        **{name: str(recording[name]) for name in names},
        "data_origin": data_origin,
        "steps": log.steps,
    }


def _qc(
    before: _Before,
    after: tuple[np.ndarray, np.ndarray],
    names: list[str],
    log: Log,
    good_share: float,
) -> xr.Dataset:
    """Quality of one recording, for every channel that was picked, dropped ones included.

    ``unit`` is that of ``amplitude`` and of the root of the densities: before any scaling.
    """
    freqs_after, density = after
    psd_after = np.full((len(before.names), len(freqs_after)), np.nan)
    psd_after[[before.names.index(name) for name in names]] = density
    reasons = [log.bad_reason.get(name, "") for name in before.names]
    units = [quality.SI_UNITS.get(kind, "V") for kind in before.types]
    return xr.Dataset(
        {
            "psd_before": (("sensor", "freq"), before.psd.astype(np.float32)),
            "psd_after": (("sensor", "freq_after"), psd_after.astype(np.float32)),
            "amplitude": ("sensor", before.amplitude),
            "bad_reason": ("sensor", np.asarray(reasons, dtype=object)),
        },
        coords={
            "sensor": ("sensor", np.asarray(before.names, dtype=object)),
            "kind": ("sensor", np.asarray(before.types, dtype=object)),
            "unit": ("sensor", np.asarray(units, dtype=object)),
            "freq": ("freq", before.freqs),
            "freq_after": ("freq_after", freqs_after),
        },
        attrs={
            "schema_version": SCHEMA_VERSION,
            "kind": "qc",
            "steps": log.steps,
            "warnings": log.warnings,
            "n_bad": sum(bool(reason) for reason in reasons),
            "good_share": good_share,
        },
    )
