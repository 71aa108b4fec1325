"""What is wrong with a recording: units, bad channels, spectra, tSNR, motion. Arrays in and out.

All thresholds are relative to the data, except those of :func:`check_units`, whose purpose it is
to know what a volt is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import UnitError
from braindecode_pipe.preprocess.statistics import ChannelStatistics

# Plausible local amplitude [SI unit] per mne channel type. EEG: F-18's limits; intracranial leads
# see ten times more; MEG: from averaged-down sensor noise to unshielded drift.
AMPLITUDE_RANGES = {
    "eeg": (1e-7, 1e-3),
    "seeg": (1e-7, 1e-2),
    "ecog": (1e-7, 1e-2),
    "dbs": (1e-7, 1e-2),
    "mag": (1e-15, 1e-9),
    "grad": (1e-14, 1e-8),
}
SI_UNITS = {"mag": "T", "grad": "T/m", "ref_meg": "T"}
# Distance [m] of sensors from the origin of the head or device frame, median over sensors.
RADIUS_RANGES = {"eeg": (0.05, 0.15), "mag": (0.05, 0.35), "grad": (0.05, 0.35)}

_PREFIXES = (-15, -12, -9, -6, -3, 3, 6, 9, 12, 15)
_FLAT_SHARE = 0.5
_CLIPPED_SHARE = 0.01
_WEAK = 0.01
_OUTLIER_Z = 5.0
_OUTLIER_FLOOR = 0.2
_OUTLIER_MIN_CHANNELS = 5
_HEAD_RADIUS_MM = 50.0


def check_units(
    amplitude: np.ndarray, types: Sequence[str], file: str | Path | None = None
) -> None:
    """Raise :class:`UnitError` with the guessed factor when a channel type cannot be in SI units.

    Parameters
    ----------
    amplitude : (n_channels,) median over windows of the s.d. inside a window [V, T or T/m]
    types : (n_channels,) mne channel types
    file : path for the message
    """
    types = np.asarray(types)
    for kind, (low, high) in AMPLITUDE_RANGES.items():
        values = amplitude[(types == kind) & (amplitude > 0)]
        if not values.size:
            continue
        typical = float(np.median(values))
        if low <= typical <= high:
            continue
        raise UnitError(
            f"{kind} amplitudes cannot be in {SI_UNITS.get(kind, 'V')}",
            file=file,
            expected=f"a median amplitude of {low:g} to {high:g} {SI_UNITS.get(kind, 'V')}",
            found=f"{typical:.3g}{_guess(typical, low, high, _PREFIXES)}",
            remedy="correct the unit in the recording's header, or the channel type",
        )


def radius_problem(position: np.ndarray, types: Sequence[str]) -> str:
    """What is wrong with the distances of sensors from the origin of the head, "" if nothing.

    Parameters
    ----------
    position : (n_channels, 3) [m] in a frame whose origin is in the head; NaN where unknown
    types : (n_channels,) mne channel types

    Returns
    -------
    str, with the factor that would make metres of them where there is one
    """
    types = np.asarray(types)
    radius = np.linalg.norm(position, axis=1)
    for kind, (low, high) in RADIUS_RANGES.items():
        values = radius[(types == kind) & np.isfinite(radius)]
        if not values.size or low <= np.median(values) <= high:
            continue
        typical = float(np.median(values))
        return (
            f"{kind} sensors lie {typical:.3g} m from the head's origin, expected {low:g} to "
            f"{high:g} m{_guess(typical, low, high, (-3, -2, 2, 3))}"
        )
    return ""


def _guess(value: float, low: float, high: float, exponents: Sequence[int]) -> str:
    """Text with the power of ten (unit prefixes) that brings ``value`` nearest to the range."""
    center = 0.5 * (np.log10(low) + np.log10(high))
    best = min(exponents, key=lambda e: abs(np.log10(value) + e - center))
    if not low <= value * 10.0**best <= high:
        return ""
    return f" (fits after multiplication by 1e{best:+d})"


def find_bad_channels(
    measured: ChannelStatistics, names: Sequence[str], types: Sequence[str]
) -> dict[str, str]:
    """Channels that are flat, clipped, copies of another, or much stronger than their kind.

    - flat: at least half of the windows are constant, or the local amplitude is below 1 % of the
      median of its type;
    - clipped: at least 1 % of the samples stay at the channel's largest, or smallest, value for
      three samples or more;
    - copy: sample for sample equal to an earlier channel;
    - outlier: ``(log a - median) / max(1.4826 MAD, 0.2) > 5`` with ``a`` the local amplitude,
      among at least five channels of one type.

    Reference channels of MEG (``ref_meg``) are magnetometers and gradiometers at many distances
    from the head: how large one is beside the others says nothing, and is not looked at.

    Parameters
    ----------
    measured : ChannelStatistics
    names, types : (n_channels,) channel names and mne channel types

    Returns
    -------
    dict from channel name to the reason, in channel order
    """
    types, amplitude = np.asarray(types), measured.amplitude
    bad: dict[int, str] = {}
    for i in range(len(types)):
        constant, clipped = measured.constant_share[i], measured.clipped_share[i]
        if constant >= _FLAT_SHARE:
            bad[i] = f"flat in {constant:.0%} of its windows"
        elif clipped >= _CLIPPED_SHARE:
            bad[i] = f"clipped: {clipped:.1%} of the samples at one limit"
        elif measured.copy_of[i] >= 0:
            bad[i] = f"copy of {names[measured.copy_of[i]]}"
    for kind in dict.fromkeys(types):
        members = [i for i in np.flatnonzero(types == kind) if i not in bad]
        if len(members) < 2 or kind == "ref_meg":
            continue
        level = np.log(np.maximum(amplitude[members], np.finfo(float).tiny))
        center = np.median(level)
        spread = max(1.4826 * np.median(np.abs(level - center)), _OUTLIER_FLOOR)
        for i, z in zip(members, (level - center) / spread):
            if z * spread < np.log(_WEAK):
                bad[int(i)] = f"flat: {np.exp(z * spread):.1e} of the median amplitude of its type"
            elif z > _OUTLIER_Z and len(members) >= _OUTLIER_MIN_CHANNELS:
                bad[int(i)] = f"{np.exp(z * spread):.1f} x the median amplitude of its type"
    return {names[i]: bad[i] for i in sorted(bad)}


def even_pieces(runs: Sequence[tuple[int, int]], n: int, most: int) -> list[tuple[int, int]]:
    """At most ``most`` pieces of ``n`` samples, evenly chosen from the (start, stop) ``runs``.

    Where no run is as long, one shorter piece: the longest run.
    """
    pieces = [(at, at + n) for start, stop in runs for at in range(start, stop - n + 1, n)]
    if not pieces:
        return [max(runs, key=lambda run: run[1] - run[0])] if runs else []
    chosen = np.linspace(0, len(pieces) - 1, min(most, len(pieces))).round().astype(int)
    return [pieces[i] for i in chosen]


class Spectrum:
    """Power spectral density: mean over pieces of the periodogram (Hann window, mean removed).

    Parameters
    ----------
    n : int, samples of a piece
    sfreq : float [Hz]
    """

    def __init__(self, n: int, sfreq: float) -> None:
        from scipy.signal import get_window

        self.n, self.sfreq, self._window = n, sfreq, get_window("hann", n)
        self._total, self._n_pieces = 0.0, 0

    def add(self, piece: np.ndarray) -> None:
        """Take in one piece (n_channels, n) [unit]."""
        from scipy.fft import rfft

        values = piece - piece.mean(axis=1, keepdims=True)
        values *= self._window.astype(values.dtype)
        # Squared at double precision: densities of MEG are below the least float32.
        self._total = self._total + np.abs(rfft(values, axis=1)).astype(float) ** 2
        self._n_pieces += 1

    @property
    def freqs(self) -> np.ndarray:
        """(n_frequencies,) [Hz]"""
        return np.fft.rfftfreq(self.n, 1 / self.sfreq)

    def density(self, n_channels: int) -> np.ndarray:
        """(n_channels, n_frequencies) [unit^2/Hz]; NaN without any piece."""
        if not self._n_pieces:
            return np.full((n_channels, len(self.freqs)), np.nan)
        density = self._total / (self._n_pieces * self.sfreq * (self._window**2).sum())
        density[:, 1 : None if self.n % 2 else -1] *= 2
        return density


def tsnr(data: np.ndarray) -> np.ndarray:
    """Temporal signal-to-noise ratio: mean over time / standard deviation; 0 where constant.

    ``data`` is (n_sensors, n_times), before any cleaning.
    """
    mean, deviation = data.mean(axis=1), data.std(axis=1)
    return np.divide(mean, deviation, out=np.zeros_like(mean), where=deviation > 0)


def framewise_displacement(motion: np.ndarray) -> np.ndarray:
    """Sum of the absolute changes of six motion parameters (Power et al. 2012, NeuroImage 59).

    ``FD_t = sum |d translation| + 50 mm * sum |d rotation|``; the first volume has none: NaN.

    Parameters
    ----------
    motion : (n_times, 6), three translations [mm], three rotations [rad]

    Returns
    -------
    (n_times,) [mm]
    """
    change = np.abs(np.diff(motion, axis=0))
    change[:, 3:] *= _HEAD_RADIUS_MM
    return np.concatenate([[np.nan], change.sum(axis=1)])
