"""Everything that combines channels, composed into one matrix, and the fits that it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.preprocess import steps as step
from braindecode_pipe.preprocess.blocks import Source
from braindecode_pipe.preprocess.engines import Lines, Spatial
from braindecode_pipe.preprocess.excerpts import excerpt
from braindecode_pipe.preprocess.reading import collect_warnings
from braindecode_pipe.preprocess.reference import apply_reference
from braindecode_pipe.preprocess.sensors import sensor_geometry
from braindecode_pipe.preprocess.sidecars import site_files
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection
from braindecode_pipe.recipe.models import MaxwellSection

# Excerpts: high-pass [Hz], low-pass [Hz], rate [Hz], longest [s].
_FOR_NOISY = (1.0, None, 250.0, 300.0)
_FOR_SSP = (1.0, 40.0, 125.0, 600.0)
_FOR_LINES = (None, None, None, 60.0)
_SEED = 0


class Excerpts:
    """Bounded copies of one recording, of what fits may see.

    Parameters
    ----------
    source : Source
    others : Source, optional
        Channels of type eog and ecg beside those of ``source``.
    mask : (n_times,) bool
        Samples that fits may see.
    """

    def __init__(self, source: Source, others: Source | None, mask: np.ndarray) -> None:
        self.source, self.others, self.mask = source, others, mask

    def of(
        self, sensors: Any, l_freq: float | None, h_freq: float | None, sfreq: float | None,
        max_s: float, lines: list[float] | None = None,
    ) -> Any:  # fmt: skip
        """An excerpt of the channels that ``sensors`` stands for, with EOG and ECG beside them."""
        settings = (l_freq, h_freq, sfreq, max_s, self.mask)
        matrix = sensors.get_data()
        raw = excerpt(self.source, matrix, *settings, info=sensors.info, lines=lines)
        if self.others is not None:
            raw.add_channels([excerpt(self.others, None, *settings)], force_update_info=True)
        return raw


def compose(
    sensors: Any, excerpts: Excerpts, section: EmegSection, path: Path, data: Path, log: Log,
    reconstruct: Callable[[Any], Source] | None = None,
) -> tuple[Spatial, dict[str, Any]]:  # fmt: skip
    """Apply the steps that combine channels to ``sensors``, in place, in the order of the fields.

    Parameters
    ----------
    sensors : mne.io.RawArray
        A unit vector per channel of the source; afterwards it has the channels of the result.
    excerpts : Excerpts
    section : EmegSection
    path, data : Path of the recording and of the data set
    log : Log
    reconstruct : ``reconstruct(sensors)``, optional
        Gives the source that the later steps work on: the recording after SSS.

    Returns
    -------
    Spatial, and variables for the quality group, whose ``sensor`` dimension has the channels of
    the source and then those that were made of them
    """
    names = list(sensors.ch_names)
    variables: dict[str, Any] = {}
    with collect_warnings(path, data, log.warnings):
        step.place(sensors, section, path, log)
        place = dict(zip(names, sensor_geometry(sensors.info)[0]))
        if section.noisy:
            _find_noisy(sensors, excerpts, section, path, data, log)
        if section.compensation is not None:
            from braindecode_pipe.preprocess.compensation import apply_compensation

            apply_compensation(sensors, section.compensation, log, path)
        if section.hfc_order:
            from braindecode_pipe.preprocess.compensation import apply_hfc

            apply_hfc(sensors, section.hfc_order, log, path)
        if reconstruct is not None:
            excerpts.source = reconstruct(sensors)
        step.treat_bads(sensors, section, path, log)
        if section.ssp:
            _project(sensors, excerpts, section, path, data, log)
        apply_reference(sensors, section, log, path)
        place |= dict(zip(sensors.ch_names, sensor_geometry(sensors.info)[0]))
        names = list(place)
        before = np.array(sensors.get_data())
        lines, figures = _remove_lines(sensors, excerpts, section, log)
        weights = np.eye(len(before))
        if section.ica is not None:
            weights, variables = _remove_components(sensors, excerpts, section, names, log)
        variables |= {**figures, "position": (("sensor", "axis"), np.array(list(place.values())))}
    lines = [Lines(weights @ part.mixing, part.unmixing, part.taps) for part in lines]
    return Spatial(weights @ before, lines), variables


def _find_noisy(
    sensors: Any, excerpts: Excerpts, section: EmegSection, path: Path, data: Path, log: Log
) -> None:
    from braindecode_pipe.preprocess.bads import find_noisy

    # PREP looks for bad channels after the line was taken out: it is noise above 50 Hz to it.
    top = float(sensors.info["sfreq"]) / 2 - 2
    lines = [f * k for f in section.notch if f > 0 for k in range(1, int(top // f) + 1)]
    raw = excerpts.of(sensors, *_FOR_NOISY, lines=lines)
    settings = section.maxwell or MaxwellSection()
    site = site_files(settings, path, data) if "maxwell" in section.noisy else None
    found = find_noisy(raw, section.noisy, _SEED, log, path=path, maxwell=settings, site=site)
    for name, reason in found.items():
        log.bad_reason.setdefault(name, reason)
    bads = set(sensors.info["bads"]) | set(found)
    sensors.info["bads"] = [name for name in sensors.ch_names if name in bads]


def _project(
    sensors: Any, excerpts: Excerpts, section: EmegSection, path: Path, data: Path, log: Log
) -> None:
    from braindecode_pipe.preprocess.projections import apply_ssp, fit_ssp

    ica = section.ica
    projs = fit_ssp(
        excerpts.of(sensors, *_FOR_SSP), section.ssp, log, path=path, data=data,
        eog_channels=ica.eog_channels if ica else (), ecg_channel=ica.ecg_channel if ica else "",
    )  # fmt: skip
    apply_ssp(sensors, projs, log)


def _remove_lines(
    sensors: Any, excerpts: Excerpts, section: EmegSection, log: Log
) -> tuple[list[Lines], dict[str, Any]]:
    """What Zapline takes out, one line after the other, in terms of the channels as they are read.

    With the terms ``T_j = A_j h_j * B_j`` of the lines before, a further line ``A h * B`` of what
    they leave adds ``A h * B - sum_j A h * B T_j``.
    """
    if section.line_removal != "zapline" or not section.notch:
        return [], {}
    from braindecode_pipe.preprocess.lines import fit_zapline, line_variables

    raw = excerpts.of(sensors, *_FOR_LINES)
    rate = float(raw.info["sfreq"])
    cuts = np.rint(raw.annotations.onset * rate).astype(int)
    parts = np.split(raw.get_data(sensors.ch_names), cuts, axis=1)
    matrix, terms, fits = np.array(sensors.get_data()), [], []
    good = np.array([name not in sensors.info["bads"] for name in sensors.ch_names])
    for freq in section.notch:
        found = fit_zapline(parts, rate, freq, log, section.zapline_components, good)
        fits.append(found)
        if not found.mixing.shape[1]:
            continue
        rest = -np.asarray(found.taps, float)
        rest[len(rest) // 2] += 1
        more = [
            Lines(-found.mixing, found.unmixing @ term.mixing @ term.unmixing, (*term.taps, rest))
            for term in terms
        ]
        terms += [Lines(found.mixing, found.unmixing, (rest,)), *more]
        parts = [_without(part, found.mixing, found.unmixing, rest) for part in parts]
    lines = [Lines(t.mixing, t.unmixing @ matrix, t.taps) for t in terms]
    return lines, line_variables(fits)


def _without(
    part: np.ndarray, mixing: np.ndarray, unmixing: np.ndarray, taps: np.ndarray
) -> np.ndarray:
    from scipy.signal import fftconvolve

    if part.shape[1] <= len(taps):
        return part
    courses = unmixing @ part
    return part - mixing @ fftconvolve(courses, taps[None], mode="same", axes=1)


def _remove_components(
    sensors: Any, excerpts: Excerpts, section: EmegSection, names: list[str], log: Log
) -> tuple[np.ndarray, dict[str, Any]]:
    """The matrix that takes components out of the channels of ``sensors``, and their figures."""
    import mne

    from braindecode_pipe.preprocess.artifacts import fit_ica

    ica = section.ica
    lines = [f for f in section.notch if f < ica.h_freq]
    raw = excerpts.of(sensors, ica.l_freq, ica.h_freq, ica.sfreq, ica.max_s, lines)
    result = fit_ica(raw, ica, log)
    unit = mne.io.RawArray(np.eye(len(sensors.ch_names)), sensors.info.copy(), verbose="error")
    if result is None:
        return unit.get_data(), {}
    result.apply(unit)
    return unit.get_data(), result.variables(names)


def fit_mask(n_times: int, allowed: list[tuple[int, int]], bad: np.ndarray) -> np.ndarray:
    """(n_times,) bool: allowed, and not annotated as bad."""
    mask = np.zeros(n_times, bool)
    for start, stop in allowed:
        mask[start:stop] = True
    return mask & ~bad
