"""Time series of voxels, vertices or parcels: measured, then cleaned, block by block."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from braindecode_pipe.errors import LeakageError
from braindecode_pipe.preprocess.regression import Projection, drift, refuse_few, trend
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.recipe import BoldSection

_CARPET_SENSORS = 400
# Rows that are summed in float32 before float64 takes over.
_ROWS = 64
# What is left of a series that the regressors explain: rounding errors of float32.
_NOTHING_LEFT = 1e-5
# Regressors that explain more than the rest by this factor are removed twice.
_STRONG = 10.0


@dataclass(frozen=True)
class Measured:
    """Quality of a series before cleaning.

    Attributes
    ----------
    good : (n_sensors,) bool, finite and not constant
    nan_share : (n_sensors,) share of the volumes that are not finite
    mean, tsnr : (n_sensors,)
    global_signal : (n_times,) mean over the good sensors; zeros when none is good
    dvars : (n_times,) root mean square over the good sensors of the change since the volume
        before (Power et al. 2012), in the unit of the series; NaN for the first
    chosen : positions of at most 400 good sensors
    carpet : (n_chosen, n_times) z-scores
    """

    good: np.ndarray
    nan_share: np.ndarray
    mean: np.ndarray
    tsnr: np.ndarray
    global_signal: np.ndarray
    dvars: np.ndarray
    chosen: np.ndarray
    carpet: np.ndarray


@dataclass
class Cleaner:
    """What is done to every time series, fitted on the volumes ``fitted``.

    Attributes
    ----------
    section : BoldSection
    t_r : float [s]
    confounds : (n_times, n_confounds) or None
    time_good : (n_times,) bool
    fitted : (n_times,) bool, a subset of the good volumes
    divided : bool, whether a split leaves volumes out of ``fitted``
    """

    section: BoldSection
    t_r: float
    confounds: np.ndarray | None
    time_good: np.ndarray
    fitted: np.ndarray
    divided: bool = False
    file: object = ""
    projection: Projection | None = field(init=False, default=None)
    keeps_mean: bool = field(init=False)

    def __post_init__(self) -> None:
        n_times, section = len(self.time_good), self.section
        if self.divided and section.low_pass is not None and section.responses == "series":
            raise LeakageError(
                "a low-pass filter reaches from what is tested on into what is trained on",
                file=str(self.file),
                expected="recordings that are trained on, or tested on, as a whole",
                found="low_pass, and a split that divides the recording",
                remedy='preprocess.bold.low_pass = "none", or split by run, session or subject',
            )
        columns = [np.ones((n_times, 1))]
        if section.detrend and section.low_pass is None:  # the filter comes after the trend
            columns.append(trend(n_times))
        if section.high_pass:
            columns.append(drift(section.high_pass, n_times, self.t_r))
        if self.confounds is not None:
            columns.append(self.confounds)
        regressors = np.hstack(columns).astype(float)
        if section.low_pass is not None:
            regressors[:, 1:] = self._low_passed(regressors[:, 1:])
        self.keeps_mean = not section.detrend and not section.standardize
        if self.works:
            if self.fitted.sum() < 2:
                refuse_few(self.fitted, 1, self.divided, self.file)
            self.projection = Projection.of(regressors, self.fitted)
            refuse_few(self.fitted, self.projection.rank, self.divided, self.file)

    @property
    def works(self) -> bool:
        """Whether anything is to be done at all."""
        section = self.section
        return section.responses == "series" and bool(
            section.detrend or section.high_pass or section.low_pass or section.standardize
            or self.confounds is not None
        )  # fmt: skip

    def clean(self, values: np.ndarray) -> np.ndarray:
        """Clean centred values (n_times, n_sensors) in place.

        Returns
        -------
        (n_sensors,) bool, False where nothing but rounding errors was left
        """
        if self.section.low_pass is not None:
            values[:] = self._low_passed(values.astype(float))
        before = self._energy(values)
        after = before
        if self.projection is not None:
            self.projection.remove(values)
            after = self._energy(values)
            if (before > _STRONG**2 * after).any():
                # "Twice is enough" (Giraud et al. 2005): so that float32 leaves nothing of
                # regressors that are much stronger than the rest.
                self.projection.remove(values)
                after = self._energy(values)
        left = after > before * _NOTHING_LEFT**2
        if self.section.standardize:
            n = int(self.fitted.sum())
            with np.errstate(divide="ignore"):
                gain = np.where(left, 1 / np.sqrt(after * (n / (n - 1))), 0.0)
            values *= gain.astype(values.dtype)
        return left

    def _energy(self, values: np.ndarray) -> np.ndarray:
        return _mean_square(values if self.fitted.all() else values[self.fitted])

    def _low_passed(self, values: np.ndarray) -> np.ndarray:
        """Nilearn's order: scrubbed volumes interpolated, trend removed, Butterworth filter.

        Scrubbed volumes at both ends have nothing to be interpolated from; they become zeros.
        """
        from nilearn.signal import butterworth
        from scipy.interpolate import CubicSpline

        kept = np.flatnonzero(self.time_good)
        span = slice(kept[0], kept[-1] + 1)
        inner = values[span]
        if len(kept) < len(inner):
            every = np.arange(span.start, span.stop)
            missing = ~self.time_good[span]
            inner[missing] = CubicSpline(kept, values[kept])(every[missing])
        if self.section.detrend:
            line = np.hstack([np.ones((len(inner), 1)), trend(len(inner))])
            Projection.of(line, np.ones(len(inner), bool)).remove(inner)
        filtered = np.zeros_like(values)
        filtered[span] = butterworth(
            inner, sampling_rate=1.0 / self.t_r, low_pass=self.section.low_pass
        )
        return filtered

    def describe(self, names: list[str]) -> list[str]:
        """Lines for the steps of a recording; ``names`` are those of the confounds."""
        section, lines = self.section, []
        if not self.works:
            return lines
        if section.low_pass is not None:
            lines.append(f"low-pass {section.low_pass:g} Hz (Butterworth, nilearn)")
        if section.detrend:
            lines.append("linear trend removed")
        if section.high_pass:
            lines.append(f"high-pass {section.high_pass:g} Hz (cosine drift terms)")
        if self.confounds is not None:
            lines.append(f"regressed out: {', '.join(names)}")
        if section.standardize:
            lines.append("z-scored per sensor over the recording")
        if self.works and not self.fitted.all():
            lines.append(
                f"fitted on {int(self.fitted.sum())} of {len(self.fitted)} volumes"
                + (": those that are good and that no fold tests on" if self.divided else "")
            )
        return lines


def process(series: Scratch, cleaner: Cleaner) -> Measured:
    """Measure and clean a series in place, as many sensors at a time as fit into memory.

    Sensors that are not finite, or constant on the volumes fitted on, become zeros.

    Parameters
    ----------
    series : (n_times, n_sensors) float32 or float64, in which it is computed
    cleaner : Cleaner
    """
    n_times, n_sensors = series.shape
    chosen = np.linspace(0, n_sensors - 1, min(n_sensors, _CARPET_SENSORS)).round().astype(int)
    measured = Measured(
        np.zeros(n_sensors, bool), np.zeros(n_sensors), np.empty(n_sensors), np.empty(n_sensors),
        np.zeros(n_times), np.zeros(n_times), chosen, np.empty((len(chosen), n_times), np.float32),
    )  # fmt: skip
    for columns in series.column_blocks():
        values = series.read(columns=columns)
        center, good, nan_share = _centre(values, cleaner.fitted)
        measured.nan_share[columns] = nan_share
        centred = values - center.astype(values.dtype)
        centred[:, ~good] = 0.0
        _measure(centred, center, good, columns, measured)
        if cleaner.works:
            good &= cleaner.clean(centred)
            centred[:, ~good] = 0.0
            if cleaner.keeps_mean:
                centred += np.where(good, center, 0.0).astype(centred.dtype)
            series.write(0, columns.start, centred)
        elif not good.all():
            values[:, ~good] = 0.0
            series.write(0, columns.start, values)
        measured.good[columns] = good
    return _finished(measured)


def _centre(values: np.ndarray, fitted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means on the volumes fitted on, 0 for sensors that are not good; good; share of NaN."""
    n_times = len(values)
    with np.errstate(invalid="ignore", over="ignore"):
        total = _sum(values)
    nan_share = np.zeros(len(total))
    for i in np.flatnonzero(~np.isfinite(total)):
        # Sums of finite numbers can overflow.
        finite = np.isfinite(values[:, i])
        nan_share[i] = 1 - finite.sum() / n_times
        total[i] = values[:, i].sum(dtype=float)
    good = nan_share == 0
    seen = values if fitted.all() else values[fitted]
    if len(seen) < n_times:
        with np.errstate(invalid="ignore", over="ignore"):
            total = _sum(seen)
    center = np.where(good, total / max(1, len(seen)), 0.0)
    if len(seen):
        good &= ~((seen[:1] == seen).all(axis=0))
    return np.where(good, center, 0.0), good, nan_share


def _measure(
    centred: np.ndarray,
    center: np.ndarray,
    good: np.ndarray,
    columns: slice,
    measured: Measured,
) -> None:
    """Enter the quality of a block of sensors, of which those that are not good are zeros."""
    offset = _sum(centred) / len(centred)
    deviation = np.sqrt(np.maximum(_mean_square(centred) - offset**2, 0.0))
    mean = center + offset
    measured.mean[columns] = mean
    measured.tsnr[columns] = np.divide(
        mean, deviation, out=np.zeros_like(mean), where=deviation > 0
    )
    measured.global_signal[:] += centred.sum(axis=1, dtype=float) + center[good].sum()
    change = np.diff(centred, axis=0)
    measured.dvars[1:] += np.einsum("ij,ij->i", change, change)
    here = (measured.chosen >= columns.start) & (measured.chosen < columns.stop)
    shown = measured.chosen[here] - columns.start
    with np.errstate(invalid="ignore", divide="ignore"):
        measured.carpet[here] = ((centred[:, shown] - offset[shown]) / deviation[shown]).T


def _finished(measured: Measured) -> Measured:
    n_good = max(1, int(measured.good.sum()))
    measured.global_signal[:] /= n_good
    measured.dvars[1:] = np.sqrt(measured.dvars[1:] / n_good)
    measured.dvars[0] = np.nan
    kept = measured.good[measured.chosen]
    return replace(measured, chosen=measured.chosen[kept], carpet=measured.carpet[kept])


def _sum(values: np.ndarray) -> np.ndarray:
    """Sums over time, (n_sensors,) float64."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), _ROWS):
        total += values[start : start + _ROWS].sum(axis=0)
    return total


def _mean_square(values: np.ndarray) -> np.ndarray:
    """Means over time of the squares, (n_sensors,) float64."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS]
        total += np.einsum("ij,ij->j", rows, rows)
    return total / max(1, len(values))
