"""How far one sample of a recording is felt after preprocessing: what a gap in time must cover."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from braindecode_pipe.recipe import BoldSection, EmegSection, PreprocessSection

# Settings that the reach depends on: part of the key of whatever uses it.
SETTINGS = {
    "emeg": (
        "l_freq", "h_freq", "notch", "line_removal", "sfreq", "maxwell", "scaler", "scaler_scope",
        "scaler_window_s",
    ),
    "bold": ("low_pass", "t_r", "responses"),
}  # fmt: skip
_SETTLED = 1e-6


@dataclass(frozen=True)
class Reach:
    """Seconds, to both sides.

    Attributes
    ----------
    filters : half of the length of all filters in a row: samples further away never meet in them
    memory : what else carries samples on: tSSS buffers, a causal scaler's past, one GLM over the
        whole recording (infinite)
    """

    filters: float
    memory: float

    @property
    def total(self) -> float:
        return self.filters + self.memory


def reach(section: PreprocessSection, recording: Mapping[str, Any]) -> Reach:
    """Reach of the steps that a recording goes through.

    Regressions and other fits over a recording (drift terms, confounds, scalers, ICA) are not part
    of it: they see the ``fit_extents`` of the split.

    Parameters
    ----------
    section : PreprocessSection
    recording : row of ``StudyPlan.recordings``: datatype, sfreq [Hz]
    """
    datatype, sfreq = str(recording["datatype"]), float(recording["sfreq"])
    if datatype in ("bold", "parcels"):
        return _bold(section.bold, sfreq)
    if datatype == "epochs" or not (math.isfinite(sfreq) and sfreq > 0):
        return Reach(0.0, 0.0)
    return _emeg(section.emeg, sfreq)


def _emeg(section: EmegSection, sfreq: float) -> Reach:
    nyquist = sfreq / 2
    low = section.l_freq or None
    high = section.h_freq if section.h_freq is not None and section.h_freq < nyquist else None
    filters = fir_half_length(sfreq, low, high)
    lines = [line for line in section.notch if 0 < line < nyquist - 2]
    if lines and section.line_removal == "notch":
        filters += notch_half_length(sfreq, min(lines))
    elif lines:
        filters += 1 / min(lines)
    if section.sfreq is not None and section.sfreq < sfreq:
        ratio = Fraction(section.sfreq / sfreq).limit_denominator(10_000)
        # scipy.signal.resample_poly: a window of 20 max(up, down) + 1 samples at the rate up sfreq.
        filters += 10 * max(ratio.numerator, ratio.denominator) / (ratio.numerator * sfreq)
    memory = 0.0
    if section.maxwell is not None and section.maxwell.st_duration_s:
        # mne lengthens the last buffer by up to one more.
        memory += 2 * section.maxwell.st_duration_s
    if section.scaler != "none" and section.scaler_scope == "causal":
        memory += section.scaler_window_s
    return Reach(filters, memory)


def _bold(section: BoldSection, sfreq: float) -> Reach:
    if not (math.isfinite(sfreq) and sfreq > 0):
        sfreq = 1 / section.t_r if section.t_r else math.nan
    filters = butterworth_reach(sfreq, section.low_pass) if section.low_pass else 0.0
    return Reach(filters, 0.0 if section.responses == "series" else math.inf)


@lru_cache
def fir_half_length(sfreq: float, l_freq: float | None, h_freq: float | None) -> float:
    """Half of the length [s] of MNE's default FIR band-pass (``mne.filter.create_filter``)."""
    if l_freq is None and h_freq is None:
        return 0.0
    import mne

    taps = mne.filter.create_filter(None, sfreq, l_freq, h_freq, verbose="error")
    return (len(taps) - 1) / 2 / sfreq


@lru_cache
def notch_half_length(sfreq: float, line: float) -> float:
    """Half of the length [s] of MNE's default notch (``mne.filter.notch_filter``).

    Its transition bands of 0.5 Hz set it, whatever the lines are.
    """
    import mne

    edge = line / 400 + 0.5
    taps = mne.filter.create_filter(
        None, sfreq, line + edge, line - edge, l_trans_bandwidth=0.5, h_trans_bandwidth=0.5,
        verbose="error",
    )  # fmt: skip
    return (len(taps) - 1) / 2 / sfreq


@lru_cache
def butterworth_reach(sfreq: float, low_pass: float) -> float:
    """Time [s] after which nilearn's low-pass (order 5, both ways) has passed all but 1e-6.

    Of the energy of its response to an impulse, which has no end of its own; ten periods of the
    edge where the rate is unknown, and 0 where the edge is not below half of it.
    """
    if not math.isfinite(sfreq):
        return 10 / low_pass
    if low_pass >= sfreq / 2:
        return 0.0
    from scipy.signal import butter, sosfiltfilt

    half = max(16, math.ceil(50 * sfreq / low_pass))
    impulse = np.zeros(2 * half + 1)
    impulse[half] = 1
    response = sosfiltfilt(butter(5, low_pass, "low", fs=sfreq, output="sos"), impulse)[half:]
    left = 1 - np.cumsum(response**2) / np.sum(response**2)
    return float(np.argmax(left < _SETTLED) + 1) / sfreq
