"""Autoreject (Jas et al. 2017, NeuroImage 159) over pieces of equal length of a recording.

``global``: one peak-to-peak threshold per channel type, that whose mean of the kept pieces is
nearest to the median of all in cross-validation. ``local``: a threshold per channel; a piece with
too many channels over theirs is bad, and of one with few the worst are interpolated. The numbers
"too many" and "few" come from cross-validation too.

The thresholds are fitted on an excerpt, of which at most ``MAX_PIECES`` pieces are looked at,
evenly chosen; then every piece of the recording is judged by them. Interpolation is MNE's, around
the fitted centre of the head, where autoreject takes the centre of the head frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, PositionError
from braindecode_pipe.preprocess.extras import require, warnings_into
from braindecode_pipe.preprocess.sensors import sensor_geometry
from braindecode_pipe.preprocess.steps import Log

# Pieces of a fit: its time grows with their number.
MAX_PIECES = {"global": 400, "local": 120}
_MIN_PIECES = 10
_FOLDS = 5
_TYPES = ("eeg", "mag", "grad", "seeg", "ecog")
_LOCAL_TYPES = ("eeg", "mag", "grad")
_MIN_CHANNELS = 8


@dataclass(frozen=True)
class Span:
    """A stretch that is not good: ``onset`` and ``duration`` [s] from the first sample."""

    onset: float
    duration: float
    reason: str


@dataclass(frozen=True)
class GlobalRejection:
    """Peak-to-peak limit per channel type [V, T or T/m], over the good channels."""

    names: list[str]
    types: list[str]
    thresholds: dict[str, float]
    bads: frozenset[str]

    def judge(self, pieces: np.ndarray) -> list[str]:
        """Why each piece is bad, ``""`` where it is good.

        Parameters
        ----------
        pieces : (n_pieces, n_channels, n_times) in SI units, channels as ``names``
        """
        good = np.array([name not in self.bads for name in self.names])
        height = np.ptp(pieces, axis=2)
        reasons = [""] * len(pieces)
        for kind, limit in self.thresholds.items():
            rows = np.flatnonzero(good & (np.array(self.types) == kind))
            if not len(rows):
                continue
            worst = rows[height[:, rows].argmax(axis=1)]
            for i, row in enumerate(worst):
                if height[i, row] > limit:
                    text = f"{self.names[row]} {height[i, row]:.3g} over {limit:.3g} peak to peak"
                    reasons[i] = f"{reasons[i]}; {text}" if reasons[i] else text
        return reasons


@dataclass(frozen=True)
class LocalRejection:
    """Fitted :class:`autoreject.AutoReject`, and the matrices that its verdicts ask for."""

    model: Any
    info: Any
    names: list[str]
    _matrices: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict, repr=False)

    def judge(self, pieces: np.ndarray) -> tuple[list[str], list[tuple[str, ...]]]:
        """Why each piece is bad (``""`` where it is good), and which channels to interpolate in it.

        Parameters
        ----------
        pieces : (n_pieces, n_channels, n_times) in SI units, channels as ``names``
        """
        import mne

        rows = [self.names.index(name) for name in self.info["ch_names"]]
        epochs = mne.EpochsArray(pieces[:, rows], self.info, verbose="error")
        with warnings_into(Log(), "autoreject"):
            log = self.model.get_reject_log(epochs)
        over = np.nansum(log.labels > 0, axis=1).astype(int)
        reasons = [
            f"{n} of {len(rows)} channels over their thresholds" if bad else ""
            for n, bad in zip(over, log.bad_epochs)
        ]
        repaired = [
            tuple(np.array(log.ch_names)[label == 2]) if not bad else ()
            for label, bad in zip(log.labels, log.bad_epochs)
        ]
        return reasons, [tuple(map(str, names)) for names in repaired]

    def matrix(self, interpolate: tuple[str, ...]) -> np.ndarray:
        """(n_channels, n_channels) that interpolates these channels from the other good ones."""
        if interpolate not in self._matrices:
            import mne

            raw = mne.io.RawArray(
                np.eye(len(self.info["ch_names"])), self.info.copy(), verbose="error"
            )
            raw.info["bads"] = list(interpolate)
            raw.interpolate_bads(reset_bads=True, verbose="error")
            rows = [self.names.index(name) for name in raw.ch_names]
            full = np.eye(len(self.names))
            full[np.ix_(rows, rows)] = raw.get_data()
            self._matrices[interpolate] = full
        return self._matrices[interpolate]


def fit_global(raw: Any, piece_s: float, seed: int, log: Log) -> GlobalRejection:
    """Thresholds of ``autoreject.get_rejection_threshold`` on the excerpt ``raw``.

    Parameters
    ----------
    raw : loaded Raw in SI units, filtered as the recording that will be judged
    piece_s : length of the pieces [s]
    seed : of the optimiser
    log : Log

    Raises
    ------
    RecipeError : autoreject is not installed
    DataError : fewer than ten pieces
    """
    autoreject = require("autoreject", "preprocess.emeg.autoreject")
    epochs = _pieces(raw, piece_s, _TYPES, MAX_PIECES["global"])
    with warnings_into(log, "autoreject"):
        limits = autoreject.get_rejection_threshold(
            epochs, ch_types=list(_TYPES), cv=_FOLDS, random_state=seed, verbose=False
        )
    limits = {kind: float(limit) for kind, limit in limits.items()}
    log.steps.append(
        f"autoreject (global) on {len(epochs)} pieces of {piece_s:g} s: "
        + ", ".join(f"{kind} {limit:.3g}" for kind, limit in limits.items())
    )
    return GlobalRejection(
        list(raw.ch_names), raw.get_channel_types(), limits, frozenset(raw.info["bads"])
    )


def fit_local(raw: Any, piece_s: float, seed: int, log: Log) -> LocalRejection:
    """:class:`autoreject.AutoReject` on the excerpt ``raw``; parameters as :func:`fit_global`.

    Raises
    ------
    RecipeError : autoreject is not installed
    PositionError : channels without positions
    DataError : fewer than ten pieces, or fewer than eight good channels of a type
    """
    autoreject = require("autoreject", "preprocess.emeg.autoreject")
    epochs = _pieces(raw, piece_s, _LOCAL_TYPES, MAX_PIECES["local"])
    placed = np.isfinite(sensor_geometry(epochs.info)[0]).all(axis=1)
    if not placed.all():
        lost = [name for name, place in zip(epochs.ch_names, placed) if not place]
        raise PositionError(
            "autoreject interpolates channels and needs their positions",
            expected="positions",
            found=f"{len(lost)} without: {', '.join(lost[:8])}",
            remedy='set preprocess.emeg.montage, or autoreject = "global"',
        )
    types = epochs.get_channel_types()
    least = min(types.count(kind) for kind in set(types))
    if least < _MIN_CHANNELS:
        raise DataError(
            "too few channels of a type for local autoreject",
            expected=f"{_MIN_CHANNELS} or more good ones",
            found=str(least),
            remedy='set preprocess.emeg.autoreject = "global"',
        )
    model = autoreject.AutoReject(
        n_interpolate=np.unique([1, least // 8, least // 4]).clip(1),
        consensus=np.linspace(0.1, 1.0, 10), cv=_FOLDS, thresh_method="bayesian_optimization",
        random_state=seed, n_jobs=1, verbose=False,
    )  # fmt: skip
    with warnings_into(log, "autoreject"):
        model.fit(epochs)
    chosen = ", ".join(
        f"{kind}: up to {model.n_interpolate_[kind]} channels interpolated, bad from "
        f"{model.consensus_[kind]:.0%} of the channels on"
        for kind in model.consensus_
    )
    log.steps.append(f"autoreject (local) on {len(epochs)} pieces of {piece_s:g} s: {chosen}")
    return LocalRejection(model, epochs.info, list(raw.ch_names))


def _pieces(raw: Any, piece_s: float, types: Sequence[str], n_most: int) -> Any:
    """Pieces of the good channels of some types as Epochs, none across an annotation's edge."""
    import mne

    sfreq = float(raw.info["sfreq"])
    n = max(2, round(piece_s * sfreq))
    edges = [0, raw.n_times]
    for annotation in raw.annotations:
        start = (annotation["onset"] - raw.first_time) * sfreq
        edges += [round(start), round(start + annotation["duration"] * sfreq)]
    edges = sorted({min(max(0, edge), raw.n_times) for edge in edges})
    starts = [at for start, stop in zip(edges, edges[1:]) for at in range(start, stop - n + 1, n)]
    names = [
        name
        for name, kind in zip(raw.ch_names, raw.get_channel_types())
        if kind in types and name not in raw.info["bads"]
    ]
    if len(starts) < _MIN_PIECES or not names:
        raise DataError(
            "too little of the recording for autoreject",
            expected=f"{_MIN_PIECES} pieces of {piece_s:g} s, channels of type {', '.join(types)}",
            found=f"{len(starts)} pieces, {len(names)} good channels of these types",
            remedy="set a smaller preprocess.emeg.autoreject_s, or leave autoreject out",
        )
    if len(starts) > n_most:
        chosen = np.linspace(0, len(starts) - 1, n_most).round().astype(int)
        starts = [starts[i] for i in chosen]
    data = raw.get_data(names)
    info = mne.pick_info(raw.info, [raw.ch_names.index(name) for name in names])
    return mne.EpochsArray(np.stack([data[:, at : at + n] for at in starts]), info, verbose="error")


def spans_of(
    starts: Sequence[int], n: int, sfreq: float, reasons: Sequence[str], what: str = "autoreject"
) -> list[Span]:
    """Bad pieces as spans, neighbours joined under the reason of the first.

    Parameters
    ----------
    starts : first sample of every piece, ascending
    n : samples of a piece
    sfreq : [Hz]
    reasons : ``""`` where a piece is good
    what : goes before the reason
    """
    spans: list[Span] = []
    for start, reason in zip(starts, reasons):
        if not reason:
            continue
        if spans and abs(spans[-1].onset + spans[-1].duration - start / sfreq) < 0.5 / sfreq:
            last = spans.pop()
            spans.append(Span(last.onset, (start + n) / sfreq - last.onset, last.reason))
        else:
            spans.append(Span(start / sfreq, n / sfreq, f"{what}: {reason}"))
    return spans


def span_variables(spans: Iterable[Span]) -> dict[str, tuple[str, np.ndarray]]:
    """``span_onset``, ``span_duration`` [s] and ``span_reason`` for the QC group."""
    spans = sorted(spans, key=lambda span: (span.onset, span.reason))
    return {
        "span_onset": ("span", np.array([span.onset for span in spans], float)),
        "span_duration": ("span", np.array([span.duration for span in spans], float)),
        "span_reason": ("span", np.array([span.reason for span in spans], object)),
    }
