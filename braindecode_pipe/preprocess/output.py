"""From filtered rows to a store: rejection, scaler, clamp, and the writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.preprocess import quality, scaling
from braindecode_pipe.preprocess import steps as step
from braindecode_pipe.preprocess.blocks import pieces_of
from braindecode_pipe.preprocess.engines import FilterPlan
from braindecode_pipe.preprocess.records import (
    N_SPECTRA,
    SPECTRUM_S,
    Spectra,
    attributes,
    quality_dataset,
    seen_by_fits,
    sensor_columns,
    spread_rows,
)
from braindecode_pipe.preprocess.scaling import Scaling
from braindecode_pipe.preprocess.scratch import Scratch, write_along
from braindecode_pipe.preprocess.sensors import info_to_json
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection
from braindecode_pipe.schema import signal_dataset
from braindecode_pipe.store import StoreWriter


class Rows:
    """Final channels before scaling, what is good in them, and their scaler.

    Attributes
    ----------
    values : Scratch (n_rows, n_times) float32, less ``level`` [SI unit]
    level : (n_rows,) float64
    sensors : Raw with their Info
    good : (n_times,) bool
    scaling : Scaling, or None where nothing is scaled here
    seen : what the store keeps of the scaler
    variables : for the quality group
    """

    def __init__(
        self, section: EmegSection, values: Scratch, level: np.ndarray, sensors: Any,
        sfreq: float, good: np.ndarray, constant: list[int], log: Log,
    ) -> None:  # fmt: skip
        self.section, self.values, self.level, self.sensors = section, values, level, sensors
        self.sfreq, self.good, self.log, self.constant = sfreq, good, log, constant
        self.scaling: Scaling | None = None
        self.seen: dict[str, Any] = {}
        self.variables: dict[str, Any] = {}
        self._n_clamped, self._pieces = 0, []
        # A filter leaves rounding errors of a constant channel, which must not be scaled up.
        for i in constant:
            values.write(i, 0, np.zeros((1, values.shape[1]), np.float32))

    def reject(self) -> None:
        """Mark what exceeds ``reject_amplitude`` as not good."""
        over = step.rejected(
            self.values, self.level, self.sensors, self.section, self.sfreq, self.log
        )
        self.good = self.good & ~over
        if not self.good.any():
            self.log.warnings.append("no span of the recording is good; the scaler saw all of it")

    def reject_pieces(self, rows: Scratch, good: np.ndarray) -> np.ndarray:
        """Autoreject, fitted on ``rows`` where ``good``; returns what stays good of them."""
        if self.section.autoreject == "none":
            return good
        from braindecode_pipe.preprocess import rejection
        from braindecode_pipe.preprocess.piecewise import PieceRejection

        model = PieceRejection(self.section, rows, self.sensors, self.sfreq, good, self.log)
        before = self.good
        self.good, spans = model.clean(self.values, before)
        self.variables |= rejection.span_variables(spans)
        share = 1 - self.good.sum() / max(1, before.sum())
        self.log.steps.append(f"autoreject ({self.section.autoreject}): {share:.2%} rejected")
        return self.good if rows is self.values else model.clean(rows, good)[0]

    def fit(self, rows: Scratch, level: np.ndarray, good: np.ndarray) -> None:
        """Fit the scaler of the recipe on ``rows``, whose values lie ``level`` below SI units."""
        kind, scope = self.section.scaler, self.section.scaler_scope
        if kind == "none":
            self.seen = {"kind": "none", "scope": scope, "n_samples": 0}
            return
        if scope == "train_only":
            self.seen = {"kind": kind, "scope": scope, "n_samples": 0}
            self.log.steps.append("not scaled here: each fold scales by its training windows")
            return
        words = scaling.WORDS[kind]
        if scope == "causal":
            n_window = max(2, round(self.section.scaler_window_s * self.sfreq))
            n_step = max(1, round(self.sfreq))
            fitted, settled = scaling.fit_causal(rows, good, kind, n_window, n_step)
            self.good = self.good & settled
            more = {"window_s": n_window / self.sfreq, "step_s": n_step / self.sfreq}
            self.log.steps.append(
                f"scaled per channel and second: {words} of the good samples of the "
                f"{n_window / self.sfreq:g} s before; the first so many, scaled by themselves, "
                "count as not good"
            )
        else:
            fitted, more = scaling.fit_scaling(rows, good, kind), {}
            self.log.steps.append(f"scaled per channel: {words} of its good samples")
        shift = (level - self.level)[:, None]
        self.scaling = replace(fitted, offset=fitted.offset + shift)
        self._typical = replace(fitted, offset=fitted.offset + level[:, None]).typical
        self.seen = scaling.describe(fitted, kind, scope, self.sfreq, **more)
        self._constant_after_all()

    def _constant_after_all(self) -> None:
        for name, gain in zip(self.sensors.ch_names, self.scaling.gain):
            if not gain.any():
                self.log.bad_reason.setdefault(name, "constant")

    def columns(self) -> tuple[dict[str, Any], str]:
        """Sensor coordinates, and the frame of their positions.

        ``value [SI unit] = stored * gain + offset``; of a causal scaler, whose values change from
        second to second, the median over time.
        """
        offset, gain = np.zeros(len(self.level)), np.ones(len(self.level))
        if self.scaling is not None:
            offset, gain = self._typical
        return sensor_columns(self.sensors, self.section, offset, gain, gain > 0)

    def watch(self, runs: list[tuple[int, int]], window_s: float = SPECTRUM_S) -> np.ndarray:
        """Choose the pieces of ``runs`` whose spectrum :meth:`final` takes; its frequencies [Hz].

        A piece that no single call of :meth:`final` covers is left out.
        """
        self._pieces = quality.even_pieces(runs, max(1, round(window_s * self.sfreq)), N_SPECTRA)
        n = self._pieces[0][1] - self._pieces[0][0] if self._pieces else 1
        self._spectrum = quality.Spectrum(n, self.sfreq)
        return self._spectrum.freqs

    def final(self, part: slice) -> np.ndarray:
        """Scaled and clamped values (n_rows, n) float32 of a range of samples."""
        values = self.values.read(columns=part)
        for start, stop in self._pieces:
            if part.start <= start and stop <= part.stop:
                self._spectrum.add(values[:, start - part.start : stop - part.start])
        if self.scaling is None:
            for i in np.flatnonzero(self.level):
                # At double precision, for channels that lie far from zero.
                values[i] = values[i].astype(float) + self.level[i]
            return values
        values = self.scaling.apply(values, part.start)
        limit = self.section.clamp
        if limit is not None:
            for row in values:
                if max(row.max(), -row.min()) > limit:
                    self._n_clamped += int(np.count_nonzero(np.abs(row) > limit))
                    np.clip(row, -limit, limit, out=row)
        return values

    def close(self, writer: StoreWriter, before: Spectra) -> None:
        """Write what is known only after the last :meth:`final`: clamped share and spectrum."""
        if self.scaling is not None and self.section.clamp is not None:
            share = self._n_clamped / max(1, np.prod(self.values.shape))
            self.log.steps.append(
                f"clamped to +-{self.section.clamp:g}: {share:.3%} of the samples"
            )
        density = self._spectrum.density(len(self.level))
        writer.set("qc", "psd_after", spread_rows(density, before, self.sensors))
        for group in ("", "qc"):
            writer.set_attrs(group, {"steps": self.log.steps})


def write_signal(
    rows: Rows, plan: FilterPlan, before: Spectra, recording: dict[str, Any], data_origin: str,
    out: Path, fit_extents: Sequence[tuple[float, float]] | None,
) -> None:  # fmt: skip
    """Write the signal store of a continuous recording."""
    log, n_times = rows.log, rows.values.shape[1]
    coords, frame = rows.columns()
    info = rows.sensors.info
    filters = {
        "highpass": max(float(info["highpass"]), plan.l_freq or 0.0),
        "lowpass": min(float(info["lowpass"]), plan.h_freq or np.inf),
    }
    attrs = {
        **attributes(recording, data_origin, log),
        "sfreq": plan.sfreq,
        "first_time": 0.0,
        "position_frame": frame,
        "info": info_to_json(info, plan.sfreq, **filters),
        "filter_half_length_s": plan.half_length_s,
        "engine": rows.section.engine,
        "resampler": plan.resampler,
        "scaler": rows.seen,
        **seen_by_fits(fit_extents),
    }
    template = np.broadcast_to(np.float32(0), rows.values.shape)
    times = np.arange(n_times) / plan.sfreq
    dataset = signal_dataset(template, coords, times, attrs, rows.good)
    freqs = rows.watch(pieces_of(n_times, [], rows.good) or [(0, n_times)])
    qc = quality_dataset(before, freqs, rows.sensors, log, float(rows.good.mean()))
    qc = qc.assign(rows.variables)
    with StoreWriter(out, {"": dataset, "qc": qc}) as writer:
        write_along(writer, "signal", "time", n_times, rows.final)
        rows.close(writer, before)
