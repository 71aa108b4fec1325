"""Bounded copies of a recording for what has to be fitted on many channels at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess.blocks import Source, pieces_of
from braindecode_pipe.preprocess.filtering import (
    Branch,
    Kernel,
    band_pass,
    notches,
    ratio_of,
    run_pieces,
)
from braindecode_pipe.preprocess.sources import level

if TYPE_CHECKING:
    import mne

# Length of the pieces of an excerpt that cannot hold all that is allowed [s].
_PIECE_S = 30.0
# Runs shorter than this say nothing [s].
_LEAST_S = 0.5


def excerpt(
    source: Source,
    matrix: np.ndarray | None,
    l_freq: float | None,
    h_freq: float | None,
    sfreq: float | None,
    max_s: float | None,
    fit_mask: np.ndarray | None = None,
    info: mne.Info | None = None,
    lines: Sequence[float] | None = None,
) -> mne.io.RawArray:
    """A filtered and decimated copy of evenly chosen contiguous pieces of a recording.

    Every piece is filtered with what lies around it inside the same allowed stretch, and with
    nothing beyond: a sample where ``fit_mask`` is False changes no bit of the result.

    Parameters
    ----------
    source : Source
    matrix : (n_out, n_channels), optional
        Applied to the channels, for instance the composition of reference and interpolation.
    l_freq, h_freq : float [Hz], optional
        Edges of MNE's zero-phase FIR; None where there is none.
    sfreq : float [Hz], optional
        Rate of the result; never above that of the source.
    max_s : float [s], optional
        Longest result; None: all that is allowed.
    fit_mask : (n_times,) bool, optional
        Samples that may be seen; None: all.
    info : mne.Info, optional
        Of the channels after ``matrix``; default: that of the source.
    lines : sequence of float [Hz], optional
        Frequencies to notch, as they are.

    Returns
    -------
    RawArray float64 [SI unit], annotated ``EDGE boundary`` where pieces meet

    Raises
    ------
    DataError : when nothing is allowed
    """
    import mne

    rate = float(source.info["sfreq"])
    up, down = ratio_of(sfreq, rate, source.n_times / rate)
    top = None if h_freq is None or h_freq >= rate / 2 else h_freq
    taps = notches(rate, lines or ()) + band_pass(rate, l_freq, top)
    kernel = Kernel(taps, up, down)
    runs = pieces_of(source.n_times, source.breaks, fit_mask)
    runs = [run for run in runs if run[1] - run[0] >= max(2, _LEAST_S * rate)]
    if not runs:
        raise DataError(
            "nothing is left to fit on", expected="good stretches of half a second or more",
            found="none", remedy="look at the annotations and limits that mark spans as bad",
        )  # fmt: skip
    pieces = choose(runs, None if max_s is None else round(max_s * rate), round(_PIECE_S * rate))
    bounds = [(kernel.n_out(start), kernel.n_out(stop)) for start, stop in pieces]
    places = np.cumsum([0, *(stop - start for start, stop in bounds)])
    offset = level(source, runs)
    values = np.empty((len(offset), places[-1]), np.float32)
    for (start, stop), bound, place in zip(pieces, bounds, places):
        run = next(run for run in runs if run[0] <= start < run[1])
        wide = (max(run[0], start - kernel.half), min(run[1], stop + kernel.half))

        def write(rows: slice, at: int, part: np.ndarray, bound=bound, place=place) -> None:
            low, high = max(at, bound[0]), min(at + part.shape[1], bound[1])
            if low < high:
                to = slice(place + low - bound[0], place + high - bound[0])
                values[rows, to] = part[:, low - at : high - at]

        run_pieces(source, [wide], [Branch(kernel, write)], offset)
    full = values.astype(float)
    full += (offset * kernel.gain)[:, None]
    if matrix is not None:
        full = matrix @ full
    info = (source.info if info is None else info).copy()
    with info._unlock():
        info["sfreq"] = rate * up / down
        info["highpass"] = max(info["highpass"], l_freq or 0.0)
        info["lowpass"] = min(info["lowpass"], top or np.inf, info["sfreq"] / 2)
    raw = mne.io.RawArray(full, info, verbose="error")
    edges = places[1:-1] / info["sfreq"]
    raw.set_annotations(mne.Annotations(edges, np.zeros(len(edges)), "EDGE boundary"))
    return raw


def choose(
    runs: Sequence[tuple[int, int]], n_most: int | None, n_piece: int
) -> list[tuple[int, int]]:
    """Pieces of ``runs`` with at most ``n_most`` samples in all, evenly spread; neighbours joined.

    The runs are cut into pieces of ``n_piece`` samples, of which every so many-th is taken.
    """
    n_total = sum(stop - start for start, stop in runs)
    if n_most is None or n_total <= n_most:
        return list(runs)
    n_piece = max(1, min(n_piece, n_most))
    cut = [
        (at, min(at + n_piece, stop)) for start, stop in runs for at in range(start, stop, n_piece)
    ]
    chosen: list[tuple[int, int]] = []
    for i in _evenly(np.diff(cut)[:, 0], n_most):
        start, stop = cut[i]
        joins = chosen and chosen[-1][1] == start and not any(run[0] == start for run in runs)
        chosen[-1:] = [(chosen[-1][0], stop)] if joins else [*chosen[-1:], (start, stop)]
    return chosen


def _evenly(lengths: np.ndarray, most: int) -> np.ndarray:
    """As many evenly spread positions as possible whose ``lengths`` make up ``most`` or less."""
    for n in range(len(lengths), 1, -1):
        places = np.linspace(0, len(lengths) - 1, n).round().astype(int)
        if lengths[places].sum() <= most:
            return places
    return np.zeros(1, int)
