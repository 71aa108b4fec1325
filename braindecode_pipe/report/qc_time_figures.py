"""Figures of the quality pages along time: events, spans, movement, lag, excerpts, carpets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from braindecode_pipe.report.document import Figure
from braindecode_pipe.report.figures import (
    COLOURS,
    INK,
    MUTED,
    RULE,
    canvas,
    colour_of,
    picture,
    short,
)

MAX_LEVELS = 12
PIXELS = 1600  # columns of a picture: more points along time cannot be told apart
MAX_ROWS = 300
BAR_PIXELS = 6


def _distinct(times: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Positions of one time per column of the picture, so that a day of events draws at once."""
    width = max(span[1] - span[0], np.finfo(float).tiny)
    columns = np.round((times - span[0]) / width * PIXELS)
    return np.unique(columns, return_index=True)[1]


def thinned(values: np.ndarray, most: int = PIXELS) -> np.ndarray:
    """Mean over neighbours along the last axis, so that at most ``most`` are left."""
    n = values.shape[-1]
    step = -(-n // most)
    if step <= 1:
        return values
    edges = np.arange(0, n, step)
    counts = np.diff(np.r_[edges, n])
    return np.add.reduceat(values, edges, axis=-1) / counts


def timeline(
    onset: np.ndarray,
    duration: np.ndarray,
    level: Sequence[str],
    span: tuple[float, float],
    gaps: Sequence[tuple[float, float]],
    alt: str,
    caption: str,
) -> Figure:
    """Events over the time of the recording, and the intervals between onsets.

    Parameters
    ----------
    onset, duration : (n,) [s]; events that are wider than a line are drawn as bars
    level : (n,) labels; at most ``MAX_LEVELS`` get a row of their own
    span : start and end of the recording [s]
    gaps : spans that are marked as bad [s]
    """
    order = list(dict.fromkeys(sorted(map(str, level))))
    if len(order) > MAX_LEVELS:
        order, level = ["all events"], ["all events"] * len(onset)
    colours = colour_of(order)
    level = np.asarray([str(v) for v in level], object)
    with canvas(8.2, 1.5 + 0.2 * len(order), ncols=2, width_ratios=(3, 1)) as (figure, axes):
        left, right = axes
        _shade(left, gaps, span)
        for y, name in enumerate(order):
            rows = np.flatnonzero(level == name)
            rows = rows[_distinct(onset[rows], span)]
            wide = rows[duration[rows] > BAR_PIXELS / PIXELS * (span[1] - span[0])]
            left.broken_barh(list(zip(onset[wide], duration[wide])), (y - 0.28, 0.56), lw=0,
                             color=colours[name], alpha=0.35)  # fmt: skip
            left.vlines(onset[rows], y - 0.36, y + 0.36, color=colours[name], lw=0.9)
        left.set_yticks(range(len(order)), [short(v, 18) for v in order])
        left.set_ylim(len(order) - 0.5, -0.5)
        left.set_xlim(*_widened(span))
        left.tick_params(axis="y", length=0)
        left.set_xlabel("time [s]")
        interval = np.diff(np.sort(onset))
        if interval.size:
            low, high = float(interval.min()), float(interval.max())
            if high - low < 1e-3 * abs(high):  # a metronome: not a picture of rounding errors
                low, high = 0.9 * low, 1.1 * high
            bins = int(np.clip(2 * np.sqrt(interval.size), 6, 40))
            right.hist(interval, bins=bins, range=(low, high), color=COLOURS[0])
        right.set_xlabel("interval [s]")
        right.set_ylabel("events")
        right.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        right.xaxis.set_major_locator(MaxNLocator(4))
        return picture(figure, alt, caption)


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    return span if span[1] > span[0] else (span[0] - 0.5, span[0] + 0.5)


def _shade(ax, gaps: Sequence[tuple[float, float]], span: tuple[float, float]) -> None:
    """Bad spans, merged where they are closer than a pixel."""
    pixel = (span[1] - span[0]) / PIXELS
    merged: list[list[float]] = []
    for start, stop in sorted(gaps):
        if merged and start - merged[-1][1] <= pixel:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    for start, stop in merged:
        ax.axvspan(start, max(stop, start + pixel), color=COLOURS[1], alpha=0.22, lw=0)


def spans(
    onset: np.ndarray,
    duration: np.ndarray,
    reason: Sequence[str],
    span: tuple[float, float],
    alt: str,
    caption: str,
) -> Figure:
    """The spans that were left out, a row for each reason, the longest in sum first.

    Parameters
    ----------
    onset, duration : (n,) [s]
    reason : (n,)
    span : start and end of the recording [s]
    """
    reason = np.asarray([str(v) for v in reason], object)
    total = {name: float(duration[reason == name].sum()) for name in dict.fromkeys(reason)}
    order = sorted(total, key=lambda name: -total[name])
    if len(order) > MAX_LEVELS:
        rest = order[MAX_LEVELS - 1 :]
        reason = np.where(np.isin(reason, rest), "other reasons", reason)
        order = [*order[: MAX_LEVELS - 1], "other reasons"]
    pixel = max(span[1] - span[0], np.finfo(float).tiny) / PIXELS
    with canvas(8.2, 0.75 + 0.26 * len(order)) as (figure, ax):
        for y, name in enumerate(order):
            rows = np.flatnonzero(reason == name)
            kept = rows[np.unique(np.round(onset[rows] / pixel), return_index=True)[1]]
            bars = [(float(onset[i]), max(float(duration[i]), pixel)) for i in kept]
            ax.broken_barh(bars, (y - 0.34, 0.68), color=COLOURS[1], lw=0)
        ax.set_yticks(range(len(order)), [short(v, 30) for v in order])
        ax.set_ylim(len(order) - 0.5, -0.5)
        ax.set_xlim(*_widened(span))
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("time [s]")
        return picture(figure, alt, caption)


def movement(
    time: np.ndarray, translation: np.ndarray, rotation: np.ndarray, alt: str, caption: str
) -> Figure:
    """Movement of the head relative to its first position.

    Parameters
    ----------
    time : (n,) [s]
    translation : (n, 3) [mm], along right, front, up
    rotation : (n, 3) [deg], about the same axes
    """
    styles = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
    names = (("right", "front", "up"), ("pitch", "roll", "yaw"))
    with canvas(8.2, 3.4, nrows=2, sharex=True) as (figure, axes):
        for ax, values, labels, unit in zip(
            axes, (translation, rotation), names, ("shift [mm]", "rotation [deg]")
        ):
            moved = thinned(np.asarray(values, float).T)
            at = thinned(np.asarray(time, float))
            for line, label, colour, style in zip(moved, labels, COLOURS, styles):
                ax.plot(at, line, color=colour, ls=style, lw=1.2, label=label)
            ax.axhline(0, color=RULE, lw=0.8, zorder=0)
            ax.set_ylabel(unit)
            ax.grid(axis="y", color=RULE, lw=0.5)
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
            ax.yaxis.set_major_locator(MaxNLocator(4))
        axes[1].set_xlabel("time [s]")
        if len(time) and time[-1] > time[0]:
            axes[1].set_xlim(time[0], time[-1])
        return picture(figure, alt, caption)


def lag(
    lags: np.ndarray,
    curve: np.ndarray,
    band: np.ndarray,
    peak: float,
    expected: tuple[float, float],
    unit: str,
    alt: str,
    caption: str,
) -> Figure:
    """Response at each lag after the events, with the null band and where it should peak.

    Parameters
    ----------
    lags, curve : (n,) [s], response
    band : (n,) upper end of what designs that never took place give
    peak : the lag that was found [s], NaN for none
    expected : where responses of this kind peak [s]
    """
    with canvas(6.4, 2.7) as (figure, ax):
        ax.axvspan(*expected, color=COLOURS[2], alpha=0.16, lw=0, label="expected")
        low = min(0.0, float(np.nanmin(curve))) if np.isfinite(curve).any() else 0.0
        ax.fill_between(lags, low, band, color="#b9c2cd", alpha=0.55, lw=0, label="no response")
        ax.plot(lags, curve, color=COLOURS[0], lw=1.6, label="response")
        if np.isfinite(peak):
            ax.axvline(peak, color=COLOURS[1], lw=1.4, ls=(0, (4, 2)), label="peak")
        ax.axvline(0, color=MUTED, lw=0.8)
        ax.set_xlim(lags[0], lags[-1])
        ax.set_xlabel("time after event onset [s]")
        ax.set_ylabel(unit)
        ax.yaxis.set_major_locator(MaxNLocator(5))
        figure.legend(loc="outside right upper")
        return picture(figure, alt, caption)


def drift(
    span: tuple[float, float], offset_s: float, drift_ms_per_min: float, residual_sd_s: float,
    alt: str, caption: str,
) -> Figure:  # fmt: skip
    """The line that was fitted to the device's clock minus the table's, with its residual."""
    time = np.linspace(*_widened(span), 2)
    change = drift_ms_per_min * (time - time[0]) / 60
    with canvas(5.6, 2.2) as (figure, ax):
        half = 1e3 * residual_sd_s
        if np.isfinite(half):
            ax.fill_between(time, change - half, change + half, color=COLOURS[0], alpha=0.22, lw=0,
                            label="± residual s.d.")  # fmt: skip
        ax.plot(time, change, color=COLOURS[0], lw=1.6, label="fitted")
        ax.axhline(0, color=MUTED, lw=0.8)
        ax.set_xlim(time[0], time[-1])
        ax.set_xlabel("time [s]")
        ax.set_ylabel("drift [ms]")
        ax.set_title(f"device minus table, after an offset of {offset_s:.4g} s")
        ax.yaxis.set_major_locator(MaxNLocator(4))
        figure.legend(loc="outside right upper")
        return picture(figure, alt, caption)


def traces(
    time: np.ndarray,
    signals: np.ndarray,
    names: Sequence[str],
    kinds: Sequence[str],
    gaps: Sequence[tuple[float, float]],
    alt: str,
    caption: str,
    zero: bool = False,
) -> Figure:
    """An excerpt of the preprocessed signals, one line per sensor; a scale for each kind.

    Parameters
    ----------
    time : (n_times,) [s]
    signals : (n_sensors, n_times)
    names, kinds : (n_sensors,)
    gaps : spans that are marked as bad [s]
    zero : mark the time 0, the onset of an event
    """
    centred = signals - np.nanmedian(signals, axis=1, keepdims=True)
    kinds = np.asarray(kinds, object)
    for kind in dict.fromkeys(kinds):
        rows = kinds == kind
        spread = np.nanmedian(np.abs(centred[rows]))
        finite = np.abs(centred[rows][np.isfinite(centred[rows])])
        step = 6 * spread if spread > 0 else (float(finite.max(initial=0.0)) or 1.0)
        # Past two neighbours a line would only black out the others.
        centred[rows] = np.clip(centred[rows] / step, -2.2, 2.2)
    with canvas(8.2, 0.7 + 0.17 * max(len(names), 6)) as (figure, ax):
        inside = [(max(a, time[0]), min(b, time[-1])) for a, b in gaps]
        _shade(ax, [(a, b) for a, b in inside if b >= a], (time[0], time[-1]))
        if zero and time[0] <= 0 <= time[-1]:
            ax.axvline(0, color=COLOURS[1], lw=1, ls=(0, (4, 2)))
        for row, values in enumerate(centred):
            ax.plot(time, values - row, color=INK, lw=0.5)
        ax.set_yticks([-i for i in range(len(names))], [short(v, 12) for v in names], fontsize=7)
        ax.set_ylim(0.2 - len(names), 0.9)
        ax.set_xlim(time[0], time[-1])
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("time [s]")
        return picture(figure, alt, caption, few_colours=True)


def carpet(
    time: np.ndarray,
    values: np.ndarray,
    lines: Mapping[str, np.ndarray],
    gaps: Sequence[tuple[float, float]],
    alt: str,
    caption: str,
) -> Figure:
    """Carpet of sensors over time below the courses that explain it (Power 2017).

    Parameters
    ----------
    time : (n_times,) [s]
    values : (n_sensors, n_times)
    lines : "name [unit]" -> (n_times,) or (n_times, k), such as the framewise displacement
    gaps : spans that are marked as bad [s]
    """
    n = len(lines)
    rows = np.unique(np.linspace(0, len(values) - 1, min(len(values), MAX_ROWS)).astype(int))
    centred = values[rows] - np.nanmean(values[rows], axis=1, keepdims=True)
    spread = np.nanstd(centred, axis=1, keepdims=True)
    centred = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    centred = thinned(centred, PIXELS)
    step = float(np.median(np.diff(time))) if len(time) > 1 else 1.0
    with canvas(8.2, 0.95 * n + 2.4, nrows=n + 1, sharex=True, squeeze=False,
                height_ratios=[0.95] * n + [2.4]) as (figure, axes):  # fmt: skip
        for ax, (name, course) in zip(axes[:, 0], lines.items()):
            _shade(ax, gaps, (time[0], time[-1]))
            course = np.atleast_2d(np.asarray(course, float).T)[:, : len(time)]
            for line, colour, style in zip(course, COLOURS, ("-", "-", "-", "--", "--", "--")):
                ax.plot(thinned(time[: course.shape[1]]), thinned(line), color=colour, lw=1,
                        ls=style)  # fmt: skip
            ax.set_title(name)
            ax.yaxis.set_major_locator(MaxNLocator(3))
            ax.grid(axis="y", color=RULE, lw=0.5)
        ax = axes[-1, 0]
        image = ax.imshow(centred, aspect="auto", cmap="gray", vmin=-2.5, vmax=2.5,
                          interpolation="nearest", origin="upper",
                          extent=(time[0], time[-1] + step, len(values), 0))  # fmt: skip
        ax.set_title("carpet")
        ax.set_ylabel("sensor")
        ax.set_xlabel("time [s]")
        bar = figure.colorbar(image, ax=axes[:, 0].tolist(), shrink=0.5, aspect=24, pad=0.015)
        bar.set_label("z", fontsize=8)
        bar.outline.set_visible(False)
        return picture(figure, alt, caption)


def histograms(
    columns: Mapping[str, np.ndarray],
    whole: Sequence[str],
    alt: str,
    caption: str,
    counted: str = "sensors",
) -> Figure:
    """Distribution over sensors of a few numbers, one panel each, the median marked.

    Parameters
    ----------
    columns : name with unit -> (n,) numbers, NaN where there is none
    whole : names of the columns whose numbers are whole: one bar for each number
    """
    n = len(columns)
    with canvas(min(8.2, 2.75 * n + 0.2), 2.3, ncols=n, squeeze=False) as (figure, axes):
        for ax, (name, values) in zip(axes[0], columns.items()):
            values = np.asarray(values, float)
            values = values[np.isfinite(values)]
            if name in whole and values.size:
                number, count = np.unique(values.astype(int), return_counts=True)
                ax.bar(number, count, width=0.85, color=COLOURS[0])
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            elif values.size:
                low, high = np.percentile(values, [0.2, 99.8])
                high = high if high > low else low + (abs(low) or 1.0)
                ax.hist(np.clip(values, low, high), bins=30, color=COLOURS[0])
                ax.axvline(np.median(values), color=COLOURS[1], lw=1.4, ls=(0, (4, 2)))
                ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.set_xlabel(name)
            ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes[0, 0].set_ylabel(counted)
        return picture(figure, alt, caption)
