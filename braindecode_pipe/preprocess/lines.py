"""Line noise removed in space: Zapline (de Cheveigné 2020, NeuroImage 207:116356).

A filter that smooths over one period of the line splits the samples ``x`` into a part without any
line and a residual ``(1 - H) x`` that holds all of it. In the residual the line is strong enough to
be found as a few spatial components, and only those are taken out:
``y = x - mixing @ ((1 - H) (unmixing @ x))``. Nothing else in the spectrum loses power, and the
harmonics go with the line.

Differences from the authors' code (NoiseTools, ``nt_zapline``): the kernel is symmetric, so that
nothing is delayed, with exact zeros at the line and its harmonics for periods that are no whole
number of samples; the bias is the cross-spectrum at these exact frequencies, not at the nearest
bins; and the number of components follows from the neighbouring frequencies, not from a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.preprocess.steps import Log

# Length of the windows whose spectrum is looked at.
_WINDOW_S = 2.0
# Neighbours of the line: this far away on both sides [Hz].
_NEIGHBOURS = (2.0, 3.0)
# A component is line when its share of power exceeds the neighbours' best by this factor.
_OUTLIER = 2.0
# Eigenvalues of the residual's covariance below this share of the largest are no rank, but rounding
# (float32 samples round at 6e-8, in power 4e-15).
_RANK = 1e-10
# Of all components at most this share (Klug and Kloosterman 2022, Hum. Brain Mapp. 43).
_MOST = 0.2


@dataclass(frozen=True)
class Zapline:
    """What takes one line and its harmonics out: ``y = x - mixing @ ((1 - H) (unmixing @ x))``.

    Attributes
    ----------
    freq : [Hz]
    mixing : (n_channels, n_components), in the unit of each channel
    unmixing : (n_components, n_channels)
    taps : (n_taps,) the kernel of ``H``, symmetric, of odd length
    power_before, power_after : mean power at the line over that of its neighbours, median over the
        channels, on the samples of the fit
    """

    freq: float
    mixing: np.ndarray
    unmixing: np.ndarray
    taps: np.ndarray
    power_before: float
    power_after: float


def smoothing_kernel(period: float) -> np.ndarray:
    """The kernel nearest to a box of one period that passes no line and no harmonic.

    Least ``|h - box|^2`` under ``H(0) = 1`` and ``H(k / period) = 0`` for all ``k`` up to the
    Nyquist frequency. For an odd period it is the box, for an even one the box whose two end
    samples count half.

    Parameters
    ----------
    period : float, 2 or more [samples]

    Returns
    -------
    (2 * ceil(period / 2) + 1,), symmetric; without zeros at its ends
    """
    half = int(np.ceil(period / 2 - 1e-9))
    lags = np.arange(half + 1)
    box = np.clip((period + 1) / 2 - lags, 0, 1) / period
    harmonics = np.arange(int(np.floor(period / 2 + 1e-9)) + 1)
    # In the unknowns h_0, sqrt(2) h_1, sqrt(2) h_2, ... the norm is that of the whole kernel.
    weight = np.where(lags == 0, 1.0, np.sqrt(2))
    constraint = weight * np.cos(2 * np.pi * np.outer(harmonics, lags) / period)
    target = (harmonics == 0).astype(float)
    right = box * weight + np.linalg.pinv(constraint) @ (target - constraint @ (box * weight))
    side = right / weight
    if abs(side[-1]) < 1e-12:
        side = side[:-1]
    return np.concatenate([side[:0:-1], side])


def fit_zapline(
    pieces: np.ndarray | Sequence[np.ndarray],
    sfreq: float,
    freq: float,
    log: Log,
    n_components: int = 0,
    good: np.ndarray | None = None,
) -> Zapline:
    """Find the components of a line.

    With ``C`` the covariance of the residual and ``B`` the sum over harmonics of its real
    cross-spectrum, both of channels of unit power, the components are the generalised eigenvectors
    ``B w = lambda C w`` with the largest shares ``lambda``. Where their number is left open, those
    count whose share is twice the largest that the same calculation finds 2 and 3 Hz beside the
    line, at most a fifth of them.

    Parameters
    ----------
    pieces : (n_channels, n_times), or a sequence of such that follow each other with gaps; finite
    sfreq, freq : [Hz]
    log : Log
    n_components : int, 0: by that rule
    good : (n_channels,) bool, optional: channels to fit and to clean

    Raises
    ------
    RecipeError : a line that is not below the Nyquist frequency
    """
    if not 0 < freq < sfreq / 2:
        raise RecipeError(
            "line frequency not below the Nyquist frequency",
            expected=f"0 to {sfreq / 2:g} Hz",
            found=f"{freq:g} Hz in preprocess.emeg.notch",
        )
    pieces = [pieces] if isinstance(pieces, np.ndarray) else list(pieces)
    taps = smoothing_kernel(sfreq / freq)
    pieces = [piece for piece in pieces if piece.shape[1] > 2 * len(taps)]
    n_channels = len(pieces[0]) if pieces else len(good if good is not None else ())
    good = np.ones(n_channels, bool) if good is None else np.asarray(good, bool)
    covariance, (bias, beside), n_windows = _moments(pieces, taps, sfreq, freq, n_channels)
    level = np.sqrt(np.diag(covariance))
    used = np.flatnonzero(good & (level > 0))
    whiten = _whitener(covariance, level, used)
    rank = whiten.shape[1]
    if not n_windows or rank < 2:
        log.warnings.append(f"no Zapline at {freq:g} Hz: too few samples or channels")
        empty = np.zeros((n_channels, 0))
        return Zapline(freq, empty, empty.T, taps, np.nan, np.nan)
    share, vectors = np.linalg.eigh(whiten.T @ bias @ whiten)
    share, vectors = share[::-1], vectors[:, ::-1]
    if n_components:
        n = min(n_components, rank - 1)
    else:
        null = max(np.linalg.eigvalsh(whiten.T @ side @ whiten)[-1] for side in beside)
        n = min(int((share > _OUTLIER * null).sum()), max(1, int(_MOST * rank)))
    unmixing = vectors[:, :n].T @ whiten.T
    # The components have unit variance in the residual: least squares is a product.
    mixing = covariance @ unmixing.T
    mixing[~good] = 0
    clean = np.eye(n_channels) - mixing @ unmixing
    before, after = (
        _over_neighbours(
            matrix @ bias @ matrix.T, [matrix @ side @ matrix.T for side in beside], used
        )
        for matrix in (np.eye(n_channels), clean)
    )
    if n:
        log.steps.append(
            f"Zapline at {freq:g} Hz and harmonics: {n} of {rank} components; power over its "
            f"neighbours {before:.3g} before, {after:.3g} after"
        )
    else:
        log.steps.append(f"Zapline at {freq:g} Hz: nothing above the neighbouring frequencies")
    return Zapline(freq, mixing, unmixing, taps, before, after)


def apply_zapline(zapline: Zapline, data: np.ndarray) -> np.ndarray:
    """``x - mixing @ ((1 - H) (unmixing @ x))`` of one piece without breaks, mirrored at its ends.

    Parameters
    ----------
    data : (n_channels, n_times), longer than half the kernel

    Returns
    -------
    (n_channels, n_times)
    """
    return data - zapline.mixing @ _residual(zapline.unmixing @ data, zapline.taps)


def line_variables(zaplines: Sequence[Zapline]) -> dict[str, tuple[str, np.ndarray]]:
    """``line`` [Hz], ``line_components``, ``line_power_before`` and ``_after`` for the QC group."""
    columns = {
        "line": [z.freq for z in zaplines],
        "line_power_before": [z.power_before for z in zaplines],
        "line_power_after": [z.power_after for z in zaplines],
    }
    variables = {name: ("line", np.asarray(values, float)) for name, values in columns.items()}
    count = np.array([z.mixing.shape[1] for z in zaplines], np.int64)
    return {**variables, "line_components": ("line", count)}


def _residual(data: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """``(1 - H) x`` along the last axis."""
    from scipy.ndimage import correlate1d

    return data - correlate1d(data, taps, axis=-1, mode="mirror")


def _moments(
    pieces: Sequence[np.ndarray], taps: np.ndarray, sfreq: float, freq: float, n_channels: int
) -> tuple[np.ndarray, tuple[np.ndarray, list[np.ndarray]], int]:
    """Covariance of the residual; cross-spectra at the line and at each of its neighbours.

    The cross-spectra are per frequency of Hann windows with half overlap, summed over harmonics.
    """
    n = round(_WINDOW_S * sfreq)
    harmonics = np.arange(1, int(np.ceil(sfreq / 2 / freq - 1e-9)))
    offsets = [0.0, *(sign * off for off in _NEIGHBOURS for sign in (-1, 1))]
    covariance = np.zeros((n_channels, n_channels))
    spectra = [np.zeros((n_channels, n_channels)) for _ in offsets]
    n_times = n_windows = 0
    for piece in pieces:
        residual = _residual(np.asarray(piece, float), taps)
        covariance += residual @ residual.T
        n_times += residual.shape[1]
        length = min(n, residual.shape[1])
        window = np.hanning(length + 2)[1:-1]
        window /= np.sqrt((window**2).sum())
        time = np.arange(length) / sfreq
        for start in range(0, residual.shape[1] - length + 1, max(1, length // 2)):
            part = residual[:, start : start + length] * window
            n_windows += 1
            for spectrum, offset in zip(spectra, offsets):
                at = harmonics * freq + offset
                at = at[(at > 0) & (at < sfreq / 2)]
                wave = part @ np.exp(-2j * np.pi * np.outer(time, at))
                spectrum += (wave @ wave.conj().T).real
    covariance /= max(1, n_times)
    spectra = [spectrum / max(1, n_windows) for spectrum in spectra]
    return covariance, (spectra[0], spectra[1:]), n_windows


def _whitener(covariance: np.ndarray, level: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(n_channels, rank): ``W.T C W = 1`` over the channels that are used, each of unit power."""
    scale = 1 / level[used]
    values, vectors = np.linalg.eigh(scale[:, None] * covariance[np.ix_(used, used)] * scale)
    kept = values > _RANK * values.max() if values.size else np.zeros(0, bool)
    whiten = np.zeros((len(covariance), int(kept.sum())))
    whiten[used] = scale[:, None] * vectors[:, kept] / np.sqrt(values[kept])
    return whiten


def _over_neighbours(bias: np.ndarray, beside: list[np.ndarray], used: np.ndarray) -> float:
    around = np.mean([np.diag(side)[used] for side in beside], axis=0)
    return float(np.median(np.diag(bias)[used] / around))
