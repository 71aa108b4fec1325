"""Autoreject on filtered rows: thresholds from an excerpt, verdicts piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np

from braindecode_pipe.preprocess.excerpts import excerpt
from braindecode_pipe.preprocess.scratch import Scratch, slices
from braindecode_pipe.preprocess.sources import ScratchSource
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection

# Longest excerpt that thresholds are fitted on [s].
_MAX_S = 600.0
_SEED = 0


class PieceRejection:
    """Thresholds of ``autoreject`` (global or local), and what they say of a recording.

    Parameters
    ----------
    section : EmegSection
    values : (n_rows, n_times), filtered and resampled, each row less a constant
    sensors : Raw with the Info of the rows
    sfreq : float [Hz]
    mask : (n_times,) bool, what may be seen
    log : Log
    """

    def __init__(
        self, section: EmegSection, values: Scratch, sensors: Any, sfreq: float,
        mask: np.ndarray, log: Log,
    ) -> None:  # fmt: skip
        from braindecode_pipe.preprocess import rejection

        info = sensors.info.copy()
        with info._unlock():
            info["sfreq"] = sfreq
            info["lowpass"] = min(info["lowpass"], sfreq / 2)
        raw = excerpt(ScratchSource(values, info), None, None, None, None, _MAX_S, mask)
        fit = rejection.fit_global if section.autoreject == "global" else rejection.fit_local
        self._model = fit(raw, section.autoreject_s, _SEED, log)
        self._is_local = section.autoreject == "local"
        self._n, self._sfreq = max(1, round(section.autoreject_s * sfreq)), sfreq

    def clean(self, values: Scratch, good: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """``good`` without the pieces that are rejected, and those as spans with reasons.

        Of a local model the channels that are bad in a piece are interpolated in place. What is
        left at the end, shorter than a piece, stays as it is.
        """
        from braindecode_pipe.preprocess import rejection

        n, good = self._n, good.copy()
        n_pieces = values.shape[1] // n
        reasons: list[str] = []
        for part in slices(n_pieces, max(1, next(values.column_blocks()).stop // n)):
            columns = slice(part.start * n, part.stop * n)
            block = values.read(columns=columns).astype(float)
            pieces = block.reshape(len(block), -1, n).transpose(1, 0, 2)
            if self._is_local:
                found, repaired = self._model.judge(pieces)
                for i, names in enumerate(repaired):
                    if names:
                        mended = self._model.matrix(names) @ pieces[i]
                        values.write(0, columns.start + i * n, mended)
            else:
                found = self._model.judge(pieces)
            reasons += found
        for i, reason in enumerate(reasons):
            if reason:
                good[i * n : (i + 1) * n] = False
        starts = [i * n for i in range(n_pieces)]
        return good, rejection.spans_of(starts, n, self._sfreq, reasons)
