"""What a store says of the recording that it holds: attributes, sensors, quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess import quality
from braindecode_pipe.preprocess.sensors import channel_coords
from braindecode_pipe.preprocess.statistics import ChannelStatistics
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection
from braindecode_pipe.schema import SCHEMA_VERSION

_DATA_TYPES = ("eeg", "mag", "grad", "seeg", "ecog", "dbs")
# Spectra are means over at most so many pieces of this length.
N_SPECTRA, SPECTRUM_S = 30, 2.0
_NAMES = ("recording", "subject", "session", "task", "run", "datatype", "content_hash")


def pick(inst: Any, section: EmegSection, path: Path, log: Log) -> tuple[Any, list[int]]:
    """The Info of the data channels, or of those of ``picks``, and their positions in ``inst``.

    Raises
    ------
    DataError : no channel is left
    """
    import mne

    types = inst.get_channel_types()
    wanted = section.picks or [kind for kind in _DATA_TYPES if kind in types]
    if section.compensation is not None:
        # Inputs of the compensation, which leaves them out of its outputs.
        wanted = [*wanted, "ref_meg"]
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


@dataclass(frozen=True)
class Spectra:
    """Names and types of channels, their spectra and amplitudes, as they were read.

    Attributes
    ----------
    amplitude : (n_channels,)
    freqs : (n_frequencies,) [Hz]
    psd : (n_channels, n_frequencies) [unit^2/Hz]
    """

    names: list[str]
    types: list[str]
    amplitude: np.ndarray
    freqs: np.ndarray
    psd: np.ndarray


def measure_spectrum(
    read: Callable[[int, int], np.ndarray], runs: Sequence[tuple[int, int]], sfreq: float,
    n_channels: int, window_s: float = SPECTRUM_S,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Frequencies and densities over evenly chosen pieces of ``runs``; see ``quality.Spectrum``."""
    pieces = quality.even_pieces(runs, max(1, round(window_s * sfreq)), N_SPECTRA)
    spectrum = quality.Spectrum(pieces[0][1] - pieces[0][0] if pieces else 1, sfreq)
    for start, stop in pieces:
        spectrum.add(read(start, stop))
    return spectrum.freqs, spectrum.density(n_channels)


def judge(
    measured: ChannelStatistics, sensors: Any, section: EmegSection, path: Path, log: Log
) -> None:
    """Check units and collect the bad channels of ``sensors`` with their reasons.

    Raises
    ------
    UnitError, DataError
    """
    names, types = list(sensors.ch_names), sensors.get_channel_types()
    quality.check_units(measured.amplitude, types, path)
    for name in sensors.info["bads"]:
        log.bad_reason.setdefault(name, "marked as bad in the data set")
    if section.detect_bads:
        for name, reason in quality.find_bad_channels(measured, names, types).items():
            log.bad_reason.setdefault(name, reason)
    log.constant.update(name for name, constant in zip(names, measured.constant) if constant)
    sensors.info["bads"] = [name for name in names if name in log.bad_reason]
    if len(log.constant) == len(names):
        raise DataError(
            "every channel is bad",
            file=path,
            expected="at least one channel that varies",
            found=f"{len(names)} channels, each of one and the same value throughout",
            remedy="exclude the recording in [[plan.exclude]]",
        )


def sensor_columns(
    sensors: Any, section: EmegSection, offset: np.ndarray, gain: np.ndarray, varies: np.ndarray
) -> tuple[dict[str, Any], str]:
    """Sensor coordinates of the result, and the frame of their positions."""
    bads = set(sensors.info["bads"])
    good = np.array([name not in bads for name in sensors.ch_names]) & varies
    scaled = section.scaler != "none" and section.scaler_scope != "train_only"
    return channel_coords(sensors.info, good, offset, gain, scaled)


def seen_by_fits(extents: Sequence[tuple[float, float]] | None) -> dict[str, Any]:
    """What a store of a divided recording says of its fits, for ``train`` and ``audit``."""
    return {} if extents is None else {"fit_extents": [list(pair) for pair in extents]}


def attributes(recording: dict[str, Any], data_origin: str, log: Log) -> dict[str, Any]:
    """Attributes that every store of a recording has."""
    return {
        **{name: str(recording[name]) for name in _NAMES},
        "data_origin": data_origin,
        "steps": log.steps,
    }


def quality_dataset(
    before: Spectra, freqs: np.ndarray, sensors: Any, log: Log, good_share: float
) -> xr.Dataset:
    """Quality of one recording, for every channel that was picked, dropped ones included.

    ``unit`` is that of ``amplitude`` and of the root of the densities: before any scaling.
    ``freqs`` are those of the result's spectrum, ``sensors`` has its Info. The spectrum itself,
    ``psd_after``, is a placeholder: see :func:`spread_rows`.
    """
    names, kinds = list(sensors.ch_names), sensors.get_channel_types()
    channels = [*before.names, *(name for name in names if name not in before.names)]
    n_before = len(before.names)
    psd_before = np.full((len(channels), len(before.freqs)), np.nan)
    psd_before[:n_before] = before.psd
    psd_after = np.broadcast_to(np.float32(0), (len(channels), len(freqs)))
    amplitude = np.full(len(channels), np.nan)
    amplitude[:n_before] = before.amplitude
    types = [*before.types, *(kinds[names.index(name)] for name in channels[n_before:])]
    reasons = [log.bad_reason.get(name, "") for name in channels]
    left_out = [log.left_out.get(name, "") for name in channels]
    units = [quality.SI_UNITS.get(kind, "V") for kind in types]
    return xr.Dataset(
        {
            "psd_before": (("sensor", "freq"), psd_before.astype(np.float32)),
            "psd_after": (("sensor", "freq_after"), psd_after),
            "amplitude": ("sensor", amplitude),
            "bad_reason": ("sensor", np.asarray(reasons, dtype=object)),
            "left_out": ("sensor", np.asarray(left_out, dtype=object)),
        },
        coords={
            "sensor": ("sensor", np.asarray(channels, dtype=object)),
            "kind": ("sensor", np.asarray(types, dtype=object)),
            "unit": ("sensor", np.asarray(units, dtype=object)),
            "freq": ("freq", before.freqs),
            "freq_after": ("freq_after", freqs),
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


def spread_rows(values: np.ndarray, before: Spectra, sensors: Any) -> np.ndarray:
    """Rows of the result at their places in the ``sensor`` dimension of the quality group."""
    names = list(sensors.ch_names)
    channels = [*before.names, *(name for name in names if name not in before.names)]
    spread = np.full((len(channels), values.shape[1]), np.nan, np.float32)
    spread[[channels.index(name) for name in names]] = values
    return spread
