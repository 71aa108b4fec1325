"""The steps of ``EmegSection``, each on a loaded ``mne`` Raw or Epochs, in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, RecipeError
from braindecode_pipe.preprocess import quality
from braindecode_pipe.preprocess.sensors import sensor_geometry
from braindecode_pipe.recipe import EmegSection

_ELECTRODES = ("eeg", "seeg", "ecog", "dbs")
# With fewer good neighbours a spherical spline invents the channel.
_MIN_NEIGHBOURS = 8
# The ratio of two rates is taken as a fraction with at most this denominator.
_MAX_DENOMINATOR = 10_000
# mne 1.13 renamed these.
_RENAMED = {"standard_1005": "colin27_1005", "standard_1020": "colin27_1020"}


@dataclass
class Log:
    """What was done to a recording, in order, and what a reader of the report should know."""

    steps: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bad_reason: dict[str, str] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)


def prepare_sensors(inst: Any, section: EmegSection, path: Path, log: Log) -> None:
    """Montage, bad channels, reference."""
    _place(inst, section, path, log)
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
    if section.reference == "average":
        if not any(kind in _ELECTRODES for kind in inst.get_channel_types()):
            log.warnings.append("no average reference: no electrodes")
        else:
            inst.set_eeg_reference("average", projection=False, verbose="error")
            log.steps.append("average reference over the good electrodes")


def _place(inst: Any, section: EmegSection, path: Path, log: Log) -> None:
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


def filter_raw(raw: Any, section: EmegSection, log: Log) -> float:
    """Notch and band-pass by MNE's zero-phase FIR; returns half of the longer filter's length [s].

    Both stop at the breaks that are annotated ``BAD_ACQ_SKIP`` or ``EDGE boundary``.
    """
    import mne

    sfreq = float(raw.info["sfreq"])
    nyquist = sfreq / 2
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
    if lines:
        raw.notch_filter(lines, picks="all", verbose="warning")
        log.steps.append("notch at " + ", ".join(f"{f:g}" for f in lines) + " Hz")
    if l_freq is None and h_freq is None:
        return 0.0
    raw.filter(l_freq, h_freq, picks="all", verbose="warning")
    log.steps.append(f"band-pass {l_freq or 0:g} to {h_freq or nyquist:g} Hz (zero-phase FIR)")
    taps = mne.filter.create_filter(None, sfreq, l_freq, h_freq, verbose="error")
    return (len(taps) - 1) / 2 / sfreq


def over_limit(inst: Any, section: EmegSection) -> np.ndarray:
    """Where some good channel exceeds the absolute amplitude of its type.

    Returns
    -------
    bool, (n_times,) for a Raw, (n_events, n_times) for Epochs
    """
    unknown = sorted(set(section.reject_amplitude) - set(quality.AMPLITUDE_RANGES))
    if unknown:
        raise RecipeError(
            "unknown channel type in preprocess.emeg.reject_amplitude",
            expected=" | ".join(quality.AMPLITUDE_RANGES),
            found=", ".join(unknown),
        )
    types = inst.get_channel_types()
    usable = {kind for name, kind in zip(inst.ch_names, types) if name not in inst.info["bads"]}
    over = np.zeros(inst.get_data(picks=[0])[..., 0, :].shape, bool)
    for i, (name, kind) in enumerate(zip(inst.ch_names, types)):
        limit = section.reject_amplitude.get(kind)
        # Where every channel of a type is bad, they all count: nothing else could reject a span.
        if limit is not None and (name not in inst.info["bads"] or kind not in usable):
            over |= np.abs(inst.get_data(picks=[i])[..., 0, :]) > limit
    return over


def bad_spans(raw: Any, section: EmegSection, log: Log) -> np.ndarray:
    """(n_times,) bool at the input's rate: annotated as bad, or over the amplitude limit."""
    from scipy.ndimage import binary_dilation

    sfreq = float(raw.info["sfreq"])
    bad = np.zeros(raw.n_times, bool)
    for annotation in raw.annotations:
        if annotation["description"].lower().startswith("bad"):
            start = raw.time_as_index(
                annotation["onset"], use_rounding=True, origin=raw.annotations.orig_time
            )[0]
            stop = start + max(1, round(annotation["duration"] * sfreq))
            bad[max(0, start) : max(0, stop)] = True
    if bad.any():
        log.steps.append(f"annotated as bad: {bad.mean():.2%} of the recording")
    if not section.reject_amplitude:
        return bad
    over = over_limit(raw, section)
    margin = round(section.reject_margin_s * sfreq)
    if margin and over.any():
        over = binary_dilation(over, iterations=margin)
    limits = ", ".join(f"{kind} {limit:g}" for kind, limit in section.reject_amplitude.items())
    log.steps.append(f"over the limit ({limits}): {over.mean():.2%} of the recording")
    return bad | over


def good_times(bad: np.ndarray, sfreq_in: float, times: np.ndarray, sfreq: float) -> np.ndarray:
    """(n_times,) bool: no bad input sample within half an output sample of ``times``."""
    count = np.concatenate([[0], np.cumsum(bad)])
    low = np.ceil((times - 0.5 / sfreq) * sfreq_in).astype(int).clip(0, len(bad) - 1)
    high = np.floor((times + 0.5 / sfreq) * sfreq_in).astype(int).clip(0, len(bad) - 1)
    return count[high + 1] == count[low]


def resampling(target: float | None, sfreq: float, log: Log) -> tuple[int, int, float]:
    """``up``, ``down`` and the rate [Hz] that they lead to; a recording is never sampled up."""
    if target is None or target == sfreq:
        return 1, 1, sfreq
    if target > sfreq:
        log.warnings.append(f"rate kept at {sfreq:g} Hz: {target:g} Hz would add no information")
        return 1, 1, sfreq
    ratio = Fraction(target / sfreq).limit_denominator(_MAX_DENOMINATOR)
    log.steps.append(f"resampled from {sfreq:g} to {target:g} Hz (polyphase {ratio})")
    return ratio.numerator, ratio.denominator, float(target)


def resample(values: np.ndarray, up: int, down: int) -> np.ndarray:
    """Polyphase resampling along the last axis by the exact ratio ``up / down``.

    ``mne.Raw.resample`` rounds the length first and stretches time to fit it, by up to half a
    sample over the recording; here sample ``k`` stays at ``k * down / up`` input samples.
    """
    from scipy.signal import resample_poly

    return values if up == down else resample_poly(values, up, down, axis=-1, padtype="line")


def scale(
    data: np.ndarray, good: np.ndarray, section: EmegSection, names: list[str], log: Log
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale and clamp every channel, fitted on its good samples.

    Parameters
    ----------
    data : (n_channels, n_times) [SI unit]
    good : (n_times,) bool

    Returns
    -------
    values (n_channels, n_times) float32; offset and gain (n_channels,) that undo it:
    ``data = values * gain + offset``, gain 0 where a channel is constant
    """
    values = np.empty(data.shape, np.float32)
    offset, gain = np.zeros(len(data)), np.ones(len(data))
    if section.scaler == "none":
        values[:] = data
        return values, offset, gain
    n_clamped = 0
    for i, row in enumerate(data):
        # A filter leaves rounding errors of a constant channel, which must not be scaled up.
        row = np.zeros_like(row) if names[i] in log.constant else row
        scaled, offset[i], gain[i] = quality.robust_scale(row, good)
        if gain[i] == 0:
            log.bad_reason.setdefault(names[i], "constant")
        if section.clamp is not None:
            n_clamped += int((np.abs(scaled) > section.clamp).sum())
            scaled = np.clip(scaled, -section.clamp, section.clamp)
        values[i] = scaled
    log.steps.append("scaled per channel: (x - median) / interquartile range of its good samples")
    if section.clamp is not None:
        share = n_clamped / max(1, data.size)
        log.steps.append(f"clamped to +-{section.clamp:g}: {share:.3%} of the samples")
    return values, offset, gain
