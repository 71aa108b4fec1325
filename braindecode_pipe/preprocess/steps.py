"""The steps of ``EmegSection``.

Those that combine channels work on ``sensors``, a Raw that holds a unit vector per channel instead
of samples: what MNE makes of it is the matrix to apply to the samples, with the Info of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, LeakageError, RecipeError
from braindecode_pipe.preprocess import quality
from braindecode_pipe.preprocess.blocks import pieces_of
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.sensors import sensor_geometry
from braindecode_pipe.recipe import EmegSection

# With fewer good neighbours a spherical spline invents the channel.
_MIN_NEIGHBOURS = 8
# Less than this outside of the test windows is nothing to fit on [s].
MIN_FIT_S = 10.0
# mne 1.13 renamed these.
_RENAMED = {"standard_1005": "colin27_1005", "standard_1020": "colin27_1020"}


@dataclass
class Log:
    """What was done to a recording, in order, and what a reader of the report should know.

    Attributes
    ----------
    bad_reason : channel -> why it is bad
    left_out : channel -> why it is not in the result, although nothing may be wrong with it
    """

    steps: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bad_reason: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)


def treat_bads(inst: Any, section: EmegSection, path: Path, log: Log) -> None:
    """Drop or interpolate the bad channels of ``inst``, in place."""
    bads = list(inst.info["bads"])
    if bads and section.bads == "drop":
        if len(bads) == len(inst.ch_names):
            raise DataError(
                "every channel is bad",
                file=path,
                expected="at least one good channel",
                found="; ".join(f"{name}: {log.bad_reason[name]}" for name in bads),
                remedy="exclude the recording in [[plan.exclude]]",
            )
        inst.drop_channels(bads)
        log.steps.append(f"dropped bad channels: {', '.join(bads)}")
    elif bads and section.bads == "interpolate":
        _interpolate(inst, log)


def place(inst: Any, section: EmegSection, path: Path, log: Log) -> None:
    """Positions from the standard montage where they are missing or impossible."""
    types = np.array(inst.get_channel_types())
    position = sensor_geometry(inst.info)[0]
    eeg = types == "eeg"
    problem = quality.radius_problem(position, types)
    if section.montage and eeg.any() and (problem or not np.isfinite(position[eeg]).all()):
        import mne

        known = mne.channels.get_builtin_montages()
        name = _RENAMED.get(section.montage, section.montage)
        name = name if name in known else section.montage
        if name not in known:
            raise RecipeError(
                "unknown montage",
                expected=" | ".join(known),
                found=section.montage,
                remedy="correct preprocess.emeg.montage",
            )
        inst.set_montage(
            mne.channels.make_standard_montage(name),
            match_case=False,
            on_missing="ignore",
            verbose="error",
        )
        log.steps.append(f"positions of the standard montage {name}")
        position = sensor_geometry(inst.info)[0]
        problem = quality.radius_problem(position, types)
    if problem:
        # Wrong places are worse than none: a decoder that needs places can then refuse.
        for channel in inst.info["chs"]:
            channel["loc"][:3] = np.nan
        position[:] = np.nan
        log.warnings.append(f"positions left out: {problem}; preprocess.emeg.montage names others")
    lost = [name for name, xyz in zip(inst.ch_names, position) if not np.isfinite(xyz).all()]
    if lost:
        log.warnings.append(f"{len(lost)} sensors without position: {', '.join(lost[:8])}"
                            + (" ..." if len(lost) > 8 else ""))  # fmt: skip


def _interpolate(inst: Any, log: Log) -> None:
    types = dict(zip(inst.ch_names, inst.get_channel_types()))
    placed = np.isfinite(sensor_geometry(inst.info)[0]).all(axis=1)
    has_place = dict(zip(inst.ch_names, placed))
    bads = list(inst.info["bads"])
    able = []
    for name in bads:
        kinds = ("mag", "grad") if types[name] in ("mag", "grad") else (types[name],)
        others = [o for o in inst.ch_names if o not in bads and types[o] in kinds and has_place[o]]
        all_placed = all(has_place[o] for o in inst.ch_names if types[o] in kinds)
        if types[name] in ("eeg", "mag", "grad") and all_placed and len(others) >= _MIN_NEIGHBOURS:
            able.append(name)
    if able:
        kept = [name for name in bads if name not in able]
        try:
            inst.interpolate_bads(reset_bads=True, exclude=kept, verbose="error")
        except (RuntimeError, ValueError) as error:
            # Positions that MNE can fit no sphere to: the channels stay bad.
            log.warnings.append(f"interpolation failed: {str(error).splitlines()[0]}")
            inst.info["bads"] = bads
            return
        inst.info["bads"] = kept
        log.steps.append(f"interpolated bad channels: {', '.join(able)}")
        log.constant -= set(able)
        for name in able:
            log.bad_reason[name] += " (interpolated)"
    left = [name for name in bads if name not in able]
    if left:
        log.warnings.append(
            f"bad and not interpolated (positions or {_MIN_NEIGHBOURS} good neighbours missing): "
            + ", ".join(left)
        )


def fit_pieces(
    n_times: int,
    breaks: list[tuple[int, int]],
    sfreq: float,
    extents: Sequence[tuple[float, float]] | None,
) -> list[tuple[int, int]]:
    """What a fit may see, (start, stop) [samples]: between breaks, and inside ``extents`` [s]."""
    if extents is None:
        return pieces_of(n_times, breaks)
    mask = np.zeros(n_times, bool)
    for start, stop in extents:
        mask[max(0, math.ceil(start * sfreq)) : max(0, math.floor(stop * sfreq))] = True
    return pieces_of(n_times, breaks, mask)


def fits_scaler(section: EmegSection) -> bool:
    """Whether a scaler is fitted on this recording."""
    return section.scaler != "none" and section.scaler_scope == "per_recording"


def fitted_steps(section: EmegSection) -> list[str]:
    """Settings of ``[preprocess.emeg]`` that fit something to the recording and cannot be left."""
    asked = {
        "scaler": fits_scaler(section),
        "noisy": bool(section.noisy),
        "ssp": bool({"eog", "ecg"} & set(section.ssp)),
        "line_removal": section.line_removal == "zapline" and bool(section.notch),
        "ica": section.ica is not None,
        "autoreject": section.autoreject != "none",
    }
    return [name for name, is_asked in asked.items() if is_asked]


def require_extent(
    pieces: list[tuple[int, int]], sfreq: float, fitted: list[str], path: Path, divided: bool
) -> None:
    """Raise :class:`LeakageError` when too little is left outside of the test windows."""
    left = sum(stop - start for start, stop in pieces) / sfreq
    if divided and fitted and left < MIN_FIT_S:
        raise LeakageError(
            "too little of the recording lies outside of its test windows to fit on",
            file=path,
            expected=f"{MIN_FIT_S:g} s or more for preprocess.emeg: {', '.join(fitted)}",
            found=f"{left:.3g} s",
            remedy="keep whole recordings together in the folds, or leave these steps out; "
            'preprocess.emeg.scaler_scope = "train_only" or "causal" fits no scaler here',
        )


def edges(
    section: EmegSection, nyquist: float, log: Log
) -> tuple[float | None, float | None, list[float]]:
    """Edges of the band-pass and the lines to notch [Hz], as far as the rate allows them."""
    l_freq = section.l_freq or None
    h_freq = section.h_freq
    if h_freq is not None and h_freq >= nyquist:
        log.warnings.append(f"no low-pass: {h_freq:g} Hz is not below {nyquist:g} Hz (Nyquist)")
        h_freq = None
    if l_freq is not None and l_freq >= (h_freq or nyquist):
        raise RecipeError(
            "high-pass edge above the low-pass edge",
            expected=f"preprocess.emeg.l_freq below {h_freq or nyquist:g} Hz",
            found=f"{l_freq:g} Hz",
        )
    # Above the low-pass and its transition band nothing is left to notch.
    top = nyquist - 2 if h_freq is None else min(nyquist - 2, h_freq + max(2, 0.25 * h_freq))
    lines = sorted({f * k for f in section.notch if f > 0 for k in range(1, int(top // f) + 1)})
    return l_freq, h_freq, lines


def over_limit(
    samples: Scratch, level: np.ndarray, sensors: Any, section: EmegSection
) -> np.ndarray:
    """(n_times,) bool: where some good channel exceeds the absolute amplitude of its type.

    Parameters
    ----------
    samples : (n_channels, n_times), values less ``level``
    level : (n_channels,) [SI unit]
    """
    unknown = sorted(set(section.reject_amplitude) - set(quality.AMPLITUDE_RANGES))
    if unknown:
        raise RecipeError(
            "unknown channel type in preprocess.emeg.reject_amplitude",
            expected=" | ".join(quality.AMPLITUDE_RANGES),
            found=", ".join(unknown),
        )
    over = np.zeros(samples.shape[1], bool)
    if not section.reject_amplitude:
        return over
    types, bads = sensors.get_channel_types(), set(sensors.info["bads"])
    usable = {kind for name, kind in zip(sensors.ch_names, types) if name not in bads}
    for row, zero, name, kind in zip(samples, level, sensors.ch_names, types):
        limit = section.reject_amplitude.get(kind)
        # Where every channel of a type is bad, they all count: nothing else could reject a span.
        if limit is not None and (name not in bads or kind not in usable):
            over |= (row > limit - zero) | (row < -limit - zero)
    return over


def annotated(annotations: Any, sfreq: float, n_times: int) -> np.ndarray:
    """(n_times,) bool: inside an annotation whose description starts with ``bad``."""
    bad = np.zeros(n_times, bool)
    for annotation in annotations:
        if annotation["description"].lower().startswith("bad"):
            start = round(annotation["onset"] * sfreq)
            stop = start + max(1, round(annotation["duration"] * sfreq))
            bad[max(0, start) : max(0, stop)] = True
    return bad


def say_annotated(bad: np.ndarray, log: Log) -> None:
    """Add the share of what is annotated as bad to the steps."""
    if bad.any():
        log.steps.append(f"annotated as bad: {bad.mean():.2%} of the recording")


def rejected(
    samples: Scratch, level: np.ndarray, sensors: Any, section: EmegSection, sfreq: float, log: Log
) -> np.ndarray:
    """(n_times,) bool: over the amplitude limit at the output's rate, or within the margin."""
    from scipy.ndimage import binary_dilation

    over = over_limit(samples, level, sensors, section)
    if not section.reject_amplitude:
        return over
    margin = round(section.reject_margin_s * sfreq)
    if margin and over.any():
        over = binary_dilation(over, iterations=margin)
    limits = ", ".join(f"{kind} {limit:g}" for kind, limit in section.reject_amplitude.items())
    log.steps.append(f"over the limit ({limits}): {over.mean():.2%} of the recording")
    return over


def good_times(bad: np.ndarray, sfreq_in: float, times: np.ndarray, sfreq: float) -> np.ndarray:
    """(n_times,) bool: no bad input sample within half an output sample of ``times``."""
    count = np.concatenate([[0], np.cumsum(bad)])
    low = np.ceil((times - 0.5 / sfreq) * sfreq_in).astype(int).clip(0, len(bad) - 1)
    high = np.floor((times + 0.5 / sfreq) * sfreq_in).astype(int).clip(0, len(bad) - 1)
    return count[high + 1] == count[low]
