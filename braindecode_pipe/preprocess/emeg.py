"""EEG, MEG and intracranial EEG to stores: the steps of ``EmegSection`` in the order of its fields.

Filters are MNE's. The scaler is fitted on the good samples of the one recording that it scales.
The samples lie in a scratch file, channel after channel; memory holds a block of time or the few
channels that are worked on, never the recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess import quality
from braindecode_pipe.preprocess import steps as step
from braindecode_pipe.preprocess.reading import (
    apply_names,
    collect_warnings,
    copy_epochs,
    copy_raw,
    read_epochs,
    read_raw,
)
from braindecode_pipe.preprocess.scratch import Scratch, write_along
from braindecode_pipe.preprocess.sensors import channel_coords, info_to_json
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection
from braindecode_pipe.schema import SCHEMA_VERSION, response_dataset, signal_dataset
from braindecode_pipe.store import StoreWriter, safe_join

_DATA_TYPES = ("eeg", "mag", "grad", "seeg", "ecog", "dbs")


def run_raw(
    section: EmegSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
    fit_extents: tuple[tuple[float, float], ...] | None = None,
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
    fit_extents : (start, stop) [s] pairs, optional
        What fits may see; None: all of the recording.

    Raises
    ------
    MissingFileError, TruncatedRecordingError, UnitError, DataError, RecipeError
    """
    path = safe_join(data, recording["path"])
    raw, messages = read_raw(path, data, allow_truncated, section.repairs)
    log = Log(warnings=messages)
    log.steps += [text for text in messages if text.startswith(("truncated", "repaired"))]
    apply_names(raw, section, path, log)
    info, picks = _pick(raw, section, path, log)
    sfreq_in = float(raw.info["sfreq"])
    annotations = _from_first_sample(raw)
    with Scratch(out, (len(picks), raw.n_times)) as samples:
        log.warnings += copy_raw(raw, picks, samples, path, data)
        sensors, before = _prepare(info, samples, round(sfreq_in), section, path, data, log)
        with collect_warnings(path, data, log.warnings):
            half_s, edges = step.filter_samples(samples, sensors, annotations, section, log)
        spans = step.bad_spans(samples, sensors, annotations, section, log)
        up, down, sfreq = step.resampling(section.sfreq, sfreq_in, log)
        times = np.arange(-(-samples.shape[1] * up // down)) / sfreq
        good = step.good_times(spans, sfreq_in, times, sfreq)
        if not good.any():
            log.warnings.append("no span of the recording is good; the scaler saw all of it")
        with Scratch(out, (len(samples), len(times)), np.float32) as result:
            rows = (step.resample(row, up, down) for row in samples)
            after = _scale(rows, result, good, sfreq, 2.0, section, sensors, log)
            coords, frame = after.coords(sensors, section)
            attrs = {
                **_attrs(recording, data_origin, log),
                "sfreq": sfreq,
                "first_time": 0.0,
                "position_frame": frame,
                "info": info_to_json(sensors.info, sfreq, **edges),
                "filter_half_length_s": half_s,
            }
            template = np.broadcast_to(np.float32(0), result.shape)
            dataset = signal_dataset(template, coords, times, attrs, good)
            qc = _qc(before, after, sensors.ch_names, log, float(good.mean()))
            with StoreWriter(out, {"": dataset, "qc": qc}) as writer:
                write_along(writer, "signal", "time", len(times),
                            lambda part: result.read(columns=part))  # fmt: skip


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
    """Write the response store of a recording that comes already epoched (``-epo.fif``).

    Filters are not applied: an epoch is shorter than they are. ``reject_amplitude`` marks whole
    events in the coordinate ``event_good``. Parameters and errors: see :func:`run_raw`.
    """
    path = safe_join(data, recording["path"])
    epochs, messages = read_epochs(path, data)
    log = Log(warnings=messages)
    apply_names(epochs, section, path, log)
    info, picks = _pick(epochs, section, path, log)
    n_events, n_in, first_time = len(epochs), len(epochs.times), float(epochs.times[0])
    with Scratch(out, (len(picks), n_events * n_in)) as samples:
        log.warnings += copy_epochs(epochs, picks, samples, path, data)
        sensors, before = _prepare(info, samples, n_in, section, path, data, log)
        if section.notch or section.l_freq is not None or section.h_freq is not None:
            log.steps.append("no filter: the recording comes already epoched")
        over = step.over_limit(samples, sensors, section)
        event_good = ~over.reshape(n_events, n_in).any(axis=1)
        if section.reject_amplitude:
            log.steps.append(f"over the limit: {int((~event_good).sum())} of {n_events} epochs")
        up, down, sfreq = step.resampling(section.sfreq, float(epochs.info["sfreq"]), log)
        n_times = -(-n_in * up // down)
        good = np.repeat(event_good, n_times)
        with Scratch(out, (len(samples), n_events * n_times), np.float32) as result:
            rows = (
                step.resample(row.reshape(n_events, n_in), up, down).reshape(-1) for row in samples
            )
            after = _scale(rows, result, good, sfreq, n_times / sfreq, section, sensors, log)
            coords, frame = after.coords(sensors, section)
            attrs = {
                **_attrs(recording, data_origin, log),
                "sfreq": sfreq,
                "first_time": first_time,
                "position_frame": frame,
                "info": info_to_json(sensors.info, sfreq),
            }
            events = [f"{recording['recording']}:{index:05d}" for index in range(n_events)]
            shape = (n_events, len(samples), n_times)
            dataset = response_dataset(
                np.broadcast_to(np.float32(0), shape), coords, events, attrs,
                first_time + np.arange(n_times) / sfreq,
            ).assign_coords(event_good=("event", event_good))  # fmt: skip
            qc = _qc(before, after, sensors.ch_names, log, float(event_good.mean()))

            def events_of(part: slice) -> np.ndarray:
                flat = result.read(columns=slice(part.start * n_times, part.stop * n_times))
                return flat.reshape(len(flat), -1, n_times).transpose(1, 0, 2)

            with StoreWriter(out, {"": dataset, "qc": qc}) as writer:
                write_along(writer, "response", "event", n_events, events_of)


def _pick(inst: Any, section: EmegSection, path: Path, log: Log) -> tuple[Any, list[int]]:
    """The Info of the data channels, or of those of ``picks``, and their positions in ``inst``."""
    import mne

    types = inst.get_channel_types()
    wanted = section.picks or [kind for kind in _DATA_TYPES if kind in types]
    pairs = enumerate(zip(inst.ch_names, types))
    picks = [i for i, (name, kind) in pairs if name in wanted or kind in wanted]
    if not picks:
        raise DataError(
            "none of the picked channels is there",
            file=path,
            expected=", ".join(section.picks or _DATA_TYPES),
            found=f"{len(types)} channels of type {', '.join(sorted(set(types)))}",
            remedy="set preprocess.emeg.picks, or the type column of channels.tsv",
        )
    kinds = [types[i] for i in picks]
    log.steps.append(f"{len(picks)} of {len(types)} channels: " + ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)
    ))  # fmt: skip
    # Epochs that are not loaded cannot be picked from; their Info can.
    empty = mne.io.RawArray(np.zeros((len(types), 1)), inst.info.copy(), verbose="error")
    return empty.pick([inst.ch_names[i] for i in picks], verbose="error").info, picks


def _from_first_sample(raw: Any) -> Any:
    """The annotations of a Raw, their onsets relative to its first sample."""
    import mne

    onset = raw.annotations.onset - raw.first_samp / raw.info["sfreq"]
    return mne.Annotations(onset, raw.annotations.duration, raw.annotations.description)


@dataclass(frozen=True)
class _Before:
    """Amplitude and spectrum of the recording as it was read."""

    names: list[str]
    types: list[str]
    amplitude: np.ndarray
    freqs: np.ndarray
    psd: np.ndarray


@dataclass(frozen=True)
class _After:
    """Spectrum before scaling, and the offset and gain that undo the scaling."""

    freqs: np.ndarray
    psd: np.ndarray
    offset: np.ndarray
    gain: np.ndarray

    def coords(self, sensors: Any, section: EmegSection) -> tuple[dict[str, Any], str]:
        """Sensor coordinates and the frame of their positions."""
        bads = set(sensors.info["bads"])
        good = np.array([name not in bads for name in sensors.ch_names]) & (self.gain > 0)
        scaled = section.scaler != "none"
        return channel_coords(sensors.info, good, self.offset, self.gain, scaled)


def _prepare(
    info: Any,
    samples: Scratch,
    window: int,
    section: EmegSection,
    path: Path,
    data: Path,
    log: Log,
) -> tuple[Any, _Before]:
    """Check what was read, then montage, bad channels and reference.

    Returns the ``sensors`` of :mod:`braindecode_pipe.preprocess.steps` and what was measured.
    """
    import mne

    sensors = mne.io.RawArray(np.eye(len(samples)), info, verbose="error")
    _check_values(samples, sensors, section, path, log)
    before = _inspect(samples, sensors, window, section, path, log)
    with collect_warnings(path, data, log.warnings):
        step.prepare_sensors(sensors, section, path, log)
    samples.mix(sensors.get_data())
    return sensors, before


def _check_values(
    samples: Scratch, sensors: Any, section: EmegSection, path: Path, log: Log
) -> None:
    """Refuse NaN and infinity, or put the channel to zero and mark it; find what is constant."""
    bad: dict[str, str] = {}
    for i, (name, row) in enumerate(zip(sensors.ch_names, samples)):
        wrong = ~np.isfinite(row)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            bad[name] = f"{int(wrong.sum())} of {wrong.size} samples, first at {first}"
            # Zero, so that no filter and no average carries a NaN from here to another sample.
            row = np.zeros_like(row)
            samples.write(i, 0, row[None])
        if row.max() == row.min():
            log.constant.add(name)
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
    for name, text in bad.items():
        log.bad_reason[name] = f"not finite: {text}"
    sensors.info["bads"] = list(dict.fromkeys([*sensors.info["bads"], *bad]))
    log.steps.append(f"put to zero and marked as bad, not finite: {', '.join(bad)}")


def _inspect(
    samples: Scratch, sensors: Any, window: int, section: EmegSection, path: Path, log: Log
) -> _Before:
    """Check units, collect the bad channels with their reasons, measure what was read."""
    names, types = list(sensors.ch_names), sensors.get_channel_types()
    sfreq = float(sensors.info["sfreq"])
    amplitude = quality.local_amplitude(samples, window)
    quality.check_units(amplitude, types, path)
    for name in sensors.info["bads"]:
        log.bad_reason.setdefault(name, "marked as bad in the data set")
    if section.detect_bads:
        found = quality.find_bad_channels(samples, names, types, window, amplitude)
        for name, reason in found.items():
            log.bad_reason.setdefault(name, reason)
    sensors.info["bads"] = [name for name in names if name in log.bad_reason]
    if len(log.constant) == len(names):
        raise DataError(
            "every channel is bad",
            file=path,
            expected="at least one channel that varies",
            found=f"{len(names)} channels, each of one and the same value throughout",
            remedy="exclude the recording in [[plan.exclude]]",
        )
    freqs, psd = quality.spectrum(samples, sfreq, min(2.0, window / sfreq * 2))
    return _Before(names, types, amplitude, freqs, psd)


def _scale(
    rows: Iterable[np.ndarray],
    result: Scratch,
    good: np.ndarray,
    sfreq: float,
    window_s: float,
    section: EmegSection,
    sensors: Any,
    log: Log,
) -> _After:
    """Scale channel after channel into ``result``, and measure the spectra before it."""
    psd, freqs = [], np.empty(0)

    def measured() -> Iterator[np.ndarray]:
        nonlocal freqs
        for row in rows:
            freqs, density = quality.spectrum(row[None], sfreq, window_s)
            psd.append(density[0])
            yield row

    offset, gain = np.zeros(len(result)), np.ones(len(result))
    scaled = step.scale(measured(), good, section, sensors.ch_names, log)
    for i, (row, offset[i], gain[i]) in enumerate(scaled):
        result.write(i, 0, row[None])
    return _After(freqs, np.asarray(psd), offset, gain)


def _attrs(recording: dict[str, Any], data_origin: str, log: Log) -> dict[str, Any]:
    names = ("recording", "subject", "session", "task", "run", "datatype", "content_hash")
    return {
        **{name: str(recording[name]) for name in names},
        "data_origin": data_origin,
        "steps": log.steps,
    }


def _qc(
    before: _Before, after: _After, names: list[str], log: Log, good_share: float
) -> xr.Dataset:
    """Quality of one recording, for every channel that was picked, dropped ones included.

    ``unit`` is that of ``amplitude`` and of the root of the densities: before any scaling.
    """
    psd_after = np.full((len(before.names), len(after.freqs)), np.nan)
    psd_after[[before.names.index(name) for name in names]] = after.psd
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
            "freq_after": ("freq_after", after.freqs),
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
