"""The steps of ``EmegSection``.

Those that combine channels work on ``sensors``, a Raw that holds a unit vector per channel instead
of samples: what MNE makes of it is the matrix to apply to the samples, with the Info of the result.
Those that work along time take one or a few channels of a :class:`Scratch` at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, RecipeError
from braindecode_pipe.preprocess import quality
from braindecode_pipe.preprocess.scratch import Scratch
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
    """Montage, bad channels, reference, in place; ``inst`` is a Raw of samples or unit vectors."""
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


def filter_samples(
    samples: Scratch, sensors: Any, annotations: Any, section: EmegSection, log: Log
) -> tuple[float, dict[str, float]]:
    """Notch and band-pass by MNE's zero-phase FIR, in place, as many channels at a time as fit.

    Both stop at the breaks that are annotated ``BAD_ACQ_SKIP`` or ``EDGE boundary``.

    Parameters
    ----------
    samples : (n_channels, n_times)
    sensors : Raw with the channels of ``samples``
    annotations : mne.Annotations, onsets relative to the first sample

    Returns
    -------
    half of the longer filter's length [s]; ``highpass`` and ``lowpass`` [Hz] of the result
    """
    import mne

    sfreq = float(sensors.info["sfreq"])
    l_freq, h_freq, lines = _edges(section, sfreq / 2, log)
    edges = {name: float(sensors.info[name]) for name in ("highpass", "lowpass")}
    if not lines and l_freq is None and h_freq is None:
        return 0.0, edges
    for rows in samples.row_blocks():
        info = mne.pick_info(sensors.info, np.arange(rows.start, rows.stop))
        raw = mne.io.RawArray(samples.read(rows), info, verbose="error")
        raw.set_annotations(annotations, emit_warning=False)
        if lines:
            raw.notch_filter(lines, picks="all", verbose="warning")
        if l_freq is not None or h_freq is not None:
            raw.filter(l_freq, h_freq, picks="all", verbose="warning")
        samples.write(rows.start, 0, raw.get_data())
        edges = {name: float(raw.info[name]) for name in edges}
    if lines:
        log.steps.append("notch at " + ", ".join(f"{f:g}" for f in lines) + " Hz")
    if l_freq is None and h_freq is None:
        return 0.0, edges
    log.steps.append(f"band-pass {l_freq or 0:g} to {h_freq or sfreq / 2:g} Hz (zero-phase FIR)")
    taps = mne.filter.create_filter(None, sfreq, l_freq, h_freq, verbose="error")
    return (len(taps) - 1) / 2 / sfreq, edges


def _edges(
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


def over_limit(samples: Scratch, sensors: Any, section: EmegSection) -> np.ndarray:
    """(n_times,) bool: where some good channel exceeds the absolute amplitude of its type."""
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
    for row, name, kind in zip(samples, sensors.ch_names, types):
        limit = section.reject_amplitude.get(kind)
        # Where every channel of a type is bad, they all count: nothing else could reject a span.
        if limit is not None and (name not in bads or kind not in usable):
            over |= np.abs(row) > limit
    return over


def bad_spans(
    samples: Scratch, sensors: Any, annotations: Any, section: EmegSection, log: Log
) -> np.ndarray:
    """(n_times,) bool at the input's rate: annotated as bad, or over the amplitude limit."""
    from scipy.ndimage import binary_dilation

    sfreq = float(sensors.info["sfreq"])
    bad = np.zeros(samples.shape[1], bool)
    for annotation in annotations:
        if annotation["description"].lower().startswith("bad"):
            start = round(annotation["onset"] * sfreq)
            stop = start + max(1, round(annotation["duration"] * sfreq))
            bad[max(0, start) : max(0, stop)] = True
    if bad.any():
        log.steps.append(f"annotated as bad: {bad.mean():.2%} of the recording")
    over = over_limit(samples, sensors, section)
    if not section.reject_amplitude:
        return bad
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
    rows: Iterable[np.ndarray], good: np.ndarray, section: EmegSection, names: list[str], log: Log
) -> Iterator[tuple[np.ndarray, float, float]]:
    """Scale and clamp channel after channel, each fitted on its good samples.

    Parameters
    ----------
    rows : n_channels times (n_times,) [SI unit]
    good : (n_times,) bool
    names : n_channels names

    Yields
    ------
    scaled values (n_times,); offset and gain that undo it: ``row = values * gain + offset``, gain
    0 where a channel is constant
    """
    if section.scaler == "none":
        for row in rows:
            yield row, 0.0, 1.0
        return
    n_clamped = n_samples = 0
    for row, name in zip(rows, names):
        # A filter leaves rounding errors of a constant channel, which must not be scaled up.
        row = np.zeros_like(row) if name in log.constant else row
        scaled, offset, gain = quality.robust_scale(row, good)
        if gain == 0:
            log.bad_reason.setdefault(name, "constant")
        n_samples += row.size
        if section.clamp is not None:
            n_clamped += int((np.abs(scaled) > section.clamp).sum())
            scaled = np.clip(scaled, -section.clamp, section.clamp)
        yield scaled, offset, gain
    log.steps.append("scaled per channel: (x - median) / interquartile range of its good samples")
    if section.clamp is not None:
        share = n_clamped / max(1, n_samples)
        log.steps.append(f"clamped to +-{section.clamp:g}: {share:.3%} of the samples")
