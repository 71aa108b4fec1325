"""EEG, MEG and intracranial EEG to stores: the steps of ``EmegSection`` in the order of its fields.

What combines channels is composed into one matrix and applied at the output's rate; what filters
runs in one streaming pass (:mod:`filtering`), or through MNE with ``engine = "mne"``. Memory holds
a block of time or the few channels that are worked on, never the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess import spatial as combining
from braindecode_pipe.preprocess import steps as step
from braindecode_pipe.preprocess.blocks import Source, fill, pieces_of
from braindecode_pipe.preprocess.engines import (
    FastEngine,
    FilterPlan,
    StepwiseEngine,
    log_filter,
    observe_all,
    plan_filter,
)
from braindecode_pipe.preprocess.output import Rows, write_signal
from braindecode_pipe.preprocess.reading import apply_names, collect_warnings, read_raw
from braindecode_pipe.preprocess.records import Spectra, judge, measure_spectrum, pick
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.sidecars import site_files
from braindecode_pipe.preprocess.sources import (
    bridge_gaps,
    bridge_spans,
    level,
    open_source,
    raw_annotations,
    silence,
)
from braindecode_pipe.preprocess.statistics import ChannelStatistics, Statistics
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection
from braindecode_pipe.store import safe_join


def run_raw(
    section: EmegSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
    fit_extents: tuple[tuple[float, float], ...] | None = None,
) -> None:
    """Write the signal store of one continuous recording.

    Parameters
    ----------
    section : EmegSection
    recording : dict
        Row of ``StudyPlan.recordings``.
    data, out : Path
        Root of the data set; path of the store.
    allow_truncated : bool
        Use the prefix of a recording that is shorter than declared.
    data_origin : str
        ``recorded``, ``simulated`` or ``mixed``.
    fit_extents : (start, stop) [s] pairs, optional
        What fits may see; None: all of the recording. Bad channels, scaler and every excerpt come
        from these samples alone: the others are bridged by straight lines before anything that is
        fitted is filtered.

    Raises
    ------
    MissingFileError, TruncatedRecordingError, UnitError, DataError, RecipeError
    LeakageError : less than 10 s are left for something that has to be fitted
    """
    path = safe_join(data, recording["path"])
    raw, messages = read_raw(path, data, allow_truncated, section.repairs)
    log = Log(warnings=messages)
    log.steps += [text for text in messages if text.startswith(("truncated", "repaired"))]
    apply_names(raw, section, path, log)
    info, picks = pick(raw, section, path, log)
    with open_source(raw, picks, info, path, data, out, log.warnings) as source:
        bad = step.annotated(raw_annotations(raw), float(info["sfreq"]), raw.n_times)
        work = _Work(section, source, bad, fit_extents, path, data, out, log)
        shape = (len(picks), work.plan.kernel.n_out(source.n_times))
        with Scratch(out, shape, np.float32, blank=True) as result:
            work.first_pass(source, result)
            sensors, before = work.inspect(info)
            work.combine(sensors, raw)
            rows = work.finish(result)
            write_signal(rows, work.plan, before, recording, data_origin, out, fit_extents)


class _Work:
    """One recording on its way; every method is one stage of :func:`run_raw`.

    Attributes
    ----------
    source : Source
        The recording; after :meth:`first_pass` without samples that are not finite.
    allowed : (start, stop) [samples] that fits may see
    offset : (n_channels,) what is subtracted before samples become float32
    bad : (n_times,) bool, annotated as bad
    variables : for the quality group
    """

    def __init__(
        self, section: EmegSection, source: Source, bad: np.ndarray,
        extents: Sequence[tuple[float, float]] | None, path: Path, data: Path, out: Path, log: Log,
    ) -> None:  # fmt: skip
        sfreq = float(source.info["sfreq"])
        self.section, self.path, self.data, self.out, self.log = section, path, data, out, log
        self.plan: FilterPlan = plan_filter(section, sfreq, source.n_times / sfreq, log)
        self.engine = (FastEngine if section.engine == "fast" else StepwiseEngine)(self.plan, out)
        self.bad = bad
        self.pieces = pieces_of(source.n_times, source.breaks)
        self.divided = extents is not None
        self.allowed = step.fit_pieces(source.n_times, source.breaks, sfreq, extents)
        step.require_extent(self.allowed, sfreq, step.fitted_steps(section), path, self.divided)
        self.bad_spans: list[tuple[int, int]] = []
        self.variables: dict[str, Any] = {}
        self._separate: Callable[..., Source] | None = None
        self._warn_of_short_pieces()

    def first_pass(self, source: Source, result: Scratch) -> None:
        """Measure all channels, and filter them on the way; put right what is not finite."""
        self._result = result
        self.source, self.measured = source, self._measure(source, result)
        wrong = self.measured.not_finite
        if wrong:
            self.source = self._repair(source, wrong)
            result.clear()
            self.measured = self._measure(self.source, result)

    def _measure(self, source: Source, result: Scratch) -> ChannelStatistics:
        seen = self.allowed if self._enough() else self.pieces
        self.offset = level(source, seen)
        window = round(self.plan.sfreq_in)
        statistics = Statistics(len(self.offset), window, seen)
        if self.section.maxwell is None:
            self.engine.start(source, result, self.offset, statistics.observe)
        else:
            observe_all(source, self.pieces, self.offset, statistics.observe)
        return statistics.finish()

    def _enough(self) -> bool:
        n_allowed = sum(stop - start for start, stop in self.allowed)
        return not self.divided or n_allowed >= step.MIN_FIT_S * self.plan.sfreq_in

    def _repair(self, source: Source, wrong: dict[int, list[tuple[int, int]]]) -> Source:
        """The recording without NaN and infinity, as ``nan`` of the recipe says."""
        names, n_times = source.info["ch_names"], source.n_times
        found = {
            names[row]: f"{sum(b - a for a, b in spans)} of {n_times} samples, first at "
            f"{spans[0][0]}" for row, spans in wrong.items()
        }  # fmt: skip
        if self.section.nan == "raise":
            raise DataError(
                "samples are not finite",
                file=self.path,
                expected="finite numbers",
                found="; ".join(f"{name}: {text}" for name, text in found.items()),
                remedy='set preprocess.emeg.nan = "interpolate" or "mark-bad", or exclude the '
                "recording",
            )
        lost = set(wrong)
        if self.section.nan == "interpolate":
            n_known = sum(stop - start for start, stop in self.pieces)
            lost = {r for r, spans in wrong.items() if sum(b - a for a, b in spans) >= n_known}
            bridged = {row: spans for row, spans in wrong.items() if row not in lost}
            if bridged:
                source = bridge_spans(source, bridged)
                self.bad_spans += [span for spans in bridged.values() for span in spans]
                self.log.steps.append("not finite, interpolated over time and marked as not good: "
                                      + "; ".join(f"{names[r]}: {found[names[r]]}"
                                                  for r in bridged))  # fmt: skip
        if lost:
            source = silence(source, sorted(lost))
            for row in sorted(lost):
                self.log.bad_reason[names[row]] = f"not finite: {found[names[row]]}"
            self.log.steps.append("put to zero and marked as bad, not finite: "
                                  + ", ".join(names[row] for row in sorted(lost)))  # fmt: skip
        return source

    def inspect(self, info: Any) -> tuple[Any, Spectra]:
        """The channels as ``sensors`` of :mod:`steps`, judged; what was measured of them."""
        import mne

        section, log = self.section, self.log
        sensors = mne.io.RawArray(np.eye(len(self.offset)), info, verbose="error")
        if self.divided and not self._enough() and section.detect_bads:
            section = section.model_copy(update={"detect_bads": False})
            log.warnings.append(
                "bad channels were not looked for: less than "
                f"{step.MIN_FIT_S:g} s lie outside of the test windows"
            )
        judge(self.measured, sensors, section, self.path, log)
        freqs, psd = measure_spectrum(self._read, self.pieces, self.plan.sfreq_in, len(self.offset))
        types = sensors.get_channel_types()
        return sensors, Spectra(list(sensors.ch_names), types, self.measured.amplitude, freqs, psd)

    def _read(self, start: int, stop: int) -> np.ndarray:
        values = np.empty((len(self.offset), stop - start), np.float32)
        fill(self.source, values, start, stop, self.offset)
        return values

    def combine(self, sensors: Any, raw: Any) -> None:
        """Everything that combines channels, as one matrix."""
        import mne

        self.sensors, self._raw = sensors, raw
        mask = combining.fit_mask(self.source.n_times, self.allowed, self.bad)
        names = self.source.info["ch_names"]
        types = zip(raw.ch_names, raw.get_channel_types())
        others = [i for i, (name, kind) in enumerate(types)
                  if kind in ("eog", "ecg") and name not in names]  # fmt: skip
        needs = bool({"eog", "ecg"} & set(self.section.ssp)) or self.section.ica is not None
        with ExitStack() as stack:
            beside = None
            if others and needs:
                info = mne.pick_info(raw.info, others)
                beside = stack.enter_context(open_source(
                    raw, others, info, self.path, self.data, self.out, self.log.warnings
                ))  # fmt: skip
            excerpts = combining.Excerpts(self.source, beside, mask)
            self.spatial, found = combining.compose(
                sensors,
                excerpts,
                self.section,
                self.path,
                self.data,
                self.log,
                None if self.section.maxwell is None else self._reconstruct,
            )
        self.variables |= found
        log_filter(self.plan, self.section.engine, self.log)

    def _reconstruct(self, sensors: Any) -> Source:
        """Go on with the recording after SSS, which is filtered anew."""
        from braindecode_pipe.preprocess import maxwell

        settings, log, path = self.section.maxwell, self.log, self.path
        self._recorded, self.source.info = self.source, sensors.info.copy()
        site = site_files(settings, path, self.data)
        position = None
        if settings.movement == "chpi":
            position = maxwell.head_positions(self._raw, log, path)
            self.variables |= maxwell.head_variables(position)
        self._separate = partial(
            maxwell.MaxwellSource, section=settings, head_pos=position,
            calibration=site.calibration, cross_talk=site.cross_talk, path=path,
        )  # fmt: skip
        self.source = self._separate(self.source, log=log)
        bads = list(self.source.info["bads"])
        for name in set(sensors.info["bads"]) - set(bads):
            log.bad_reason[name] += " (reconstructed)"
            log.constant.discard(name)
        sensors.info["bads"] = bads
        # What SSS leaves lies around zero.
        self.offset[np.isin(sensors.get_channel_types(), ("mag", "grad"))] = 0
        self._result.clear()
        self.engine.start(self.source, self._result, self.offset, None)
        return self.source

    def finish(self, result: Scratch) -> Rows:
        """The final rows before any scaling, and what is good in them."""
        plan, log, source = self.plan, self.log, self.source
        with collect_warnings(self.path, self.data, log.warnings):
            zero = self.engine.finish(source, self.spatial, result, self.offset)
        step.say_annotated(self.bad, log)
        bad = self.bad.copy()
        for start, stop in [*self.bad_spans, *source.breaks]:
            bad[start:stop] = True
        times = np.arange(result.shape[1]) / plan.sfreq
        good = step.good_times(bad, plan.sfreq_in, times, plan.sfreq)
        constant = [i for i, name in enumerate(self.sensors.ch_names) if name in log.constant]
        rows = Rows(self.section, result, zero, self.sensors, plan.sfreq, good, constant, log)
        rows.variables |= self.variables
        rows.reject()
        if self.divided and (step.fits_scaler(self.section) or self.section.autoreject != "none"):
            mask = np.ones(source.n_times, bool)
            for start, stop in self.allowed:
                mask[start:stop] = False
            kept = step.good_times(mask | bad, plan.sfreq_in, times, plan.sfreq)
            self._fit_apart(rows, kept)
        else:
            rows.reject_pieces(result, rows.good)
            rows.fit(result, zero, rows.good)
        return rows

    def _fit_apart(self, rows: Rows, good: np.ndarray) -> None:
        """Fit the scaler where no sample of a test window can be seen, not even through a filter.

        The whole chain runs once more on the recording with everything else bridged.
        """
        if self._separate is None:
            bridged: Source = bridge_gaps(self.source, self.allowed)
        else:
            # The temporal extension looks at the samples.
            bridged = self._separate(bridge_gaps(self._recorded, self.allowed), log=Log())
        shape = (len(self.offset), rows.values.shape[1])
        with Scratch(self.out, shape, np.float32, blank=True) as fitted:
            self.engine.start(bridged, fitted, self.offset, None)
            with collect_warnings(self.path, self.data, self.log.warnings):
                zero = self.engine.finish(bridged, self.spatial, fitted, self.offset)
            over = step.over_limit(fitted, zero, self.sensors, self.section)
            good = rows.reject_pieces(fitted, good & ~over)
            rows.fit(fitted, zero, good)
        seconds = sum(stop - start for start, stop in self.allowed) / self.plan.sfreq_in
        self.log.steps.append(f"fitted on {seconds:.1f} s outside of the test windows")

    def _warn_of_short_pieces(self) -> None:
        shortest = min((stop - start for start, stop in self.pieces), default=0)
        if self.pieces and shortest <= self.plan.kernel.half:
            self.log.warnings.append(
                f"a stretch of {shortest / self.plan.sfreq_in:.3g} s between breaks is shorter than"
                f" half of the filter ({self.plan.half_length_s:.3g} s): it is padded by its "
                "reflection, then by the channel's level"
            )
