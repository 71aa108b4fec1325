"""Figures of the quality pages: spectra, amplitudes, event timing, carpets, motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from braindecode_pipe.report.document import Figure
from braindecode_pipe.report.figures import (
    COLOURS,
    INK,
    MUTED,
    RULE,
    canvas,
    colour_of,
    decade,
    picture,
    short,
)

MAX_LEVELS = 12
# Units in which people know the numbers, and the factor to them.
ELECTRODES = dict.fromkeys(("eeg", "ecog", "seeg", "dbs"), ("µV", 1e6))
HANDY = {**ELECTRODES, "mag": ("fT", 1e15), "ref_meg": ("fT", 1e15), "grad": ("fT/cm", 1e13)}


def _spectrum(ax, freq: np.ndarray, psd: np.ndarray, bad: np.ndarray, title: str) -> None:
    shown = freq > 0
    for rows, colour, label in ((~bad, MUTED, "good sensors"), (bad, COLOURS[1], "bad sensors")):
        part = psd[rows][:, shown]
        part = np.where(part > 0, part, np.nan)
        if not np.isfinite(part).any():
            continue
        drawn = part[np.isfinite(part).any(axis=1)]
        lines = ax.semilogy(freq[shown], drawn[:200].T, color=colour, alpha=0.35, lw=0.6)
        lines[0].set_label(label)
        if label == "good sensors":
            ax.semilogy(freq[shown], np.nanmedian(drawn, axis=0), color=COLOURS[0], lw=1.8,
                        label="median")  # fmt: skip
    ax.yaxis.set_major_formatter(decade)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_title(title)
    ax.set_xlabel("frequency [Hz]")
    ax.grid(color=RULE, lw=0.5)


def spectra(
    before: tuple[np.ndarray, np.ndarray] | None,
    after: tuple[np.ndarray, np.ndarray] | None,
    bad: np.ndarray,
    alt: str,
    caption: str,
) -> Figure:
    """Power spectra of all sensors before and after preprocessing.

    Parameters
    ----------
    before, after : (freq (n,) [Hz], psd (n_sensors, n)), or None where not stored
    bad : (n_sensors,) bool
    """
    parts = [(p, t) for p, t in ((before, "before"), (after, "after")) if p is not None]
    with canvas(4.1 * len(parts), 2.8, ncols=len(parts), squeeze=False) as (figure, axes):
        for ax, ((freq, psd), title) in zip(axes[0], parts):
            _spectrum(ax, freq, psd, bad, title)
        axes[0][0].set_ylabel("power [unit² / Hz]")
        if axes[0][0].get_legend_handles_labels()[1]:
            axes[0][0].legend()
        return picture(figure, alt, caption)


def amplitudes(
    amplitude: np.ndarray,
    kinds: Sequence[str],
    bad: np.ndarray,
    alt: str,
    caption: str,
) -> Figure:
    """Amplitude of every sensor in its order, per kind, bad ones marked.

    Parameters
    ----------
    amplitude : (n_sensors,) [V, T or T/m]
    kinds : (n_sensors,)
    bad : (n_sensors,) bool
    """
    names = list(dict.fromkeys(kinds))
    with canvas(8.2, 1.9 * len(names) + 0.2, nrows=len(names), squeeze=False) as (figure, axes):
        for ax, name in zip(axes[:, 0], names):
            rows = np.asarray(kinds) == name
            unit, factor = HANDY.get(name, ("SI unit", 1.0))
            value, flag = factor * amplitude[rows], bad[rows]
            index = np.arange(1, rows.sum() + 1)
            ax.plot(index[~flag], value[~flag], "o", ms=3, color=COLOURS[0], label="good")
            if flag.any():
                ax.plot(index[flag], value[flag], "x", ms=6, mew=1.6, color=COLOURS[1],
                        label="bad")  # fmt: skip
            positive = value[np.isfinite(value) & (value > 0)]
            if positive.size and positive.max() > 30 * np.median(positive):
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter(decade)
                ax.yaxis.set_minor_locator(NullLocator())
            else:
                ax.set_ylim(bottom=0)
            ax.set_title(f"{name} ({int(rows.sum())})")
            ax.set_ylabel(unit)
            ax.grid(axis="y", color=RULE, lw=0.5)
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes[-1, 0].set_xlabel("sensor")
        if bad.any():
            marks = dict(zip(*axes[-1, 0].get_legend_handles_labels()[::-1]))
            figure.legend(marks.values(), marks, loc="outside upper right", ncols=2)
        return picture(figure, alt, caption)


def timeline(
    onset: np.ndarray,
    level: Sequence[str],
    span: tuple[float, float],
    gaps: Sequence[tuple[float, float]],
    alt: str,
    caption: str,
) -> Figure:
    """Events over the time of the recording, and the intervals between onsets.

    Parameters
    ----------
    onset : (n,) [s]
    level : (n,) labels; at most ``MAX_LEVELS`` get a row of their own
    span : start and end of the recording [s]
    gaps : spans that are marked as bad [s]
    """
    order = list(dict.fromkeys(sorted(map(str, level))))
    if len(order) > MAX_LEVELS:
        order, level = ["all events"], ["all events"] * len(onset)
    colours = colour_of(order)
    with canvas(8.2, 1.5 + 0.2 * len(order), ncols=2, width_ratios=(3, 1)) as (figure, axes):
        left, right = axes
        for start, stop in gaps:
            left.axvspan(start, stop, color=COLOURS[1], alpha=0.22, lw=0)
        for y, name in enumerate(order):
            times = onset[[str(v) == name for v in level]]
            left.vlines(times, y - 0.36, y + 0.36, color=colours[name], lw=0.9)
        left.set_yticks(range(len(order)), [short(v, 18) for v in order])
        left.set_ylim(len(order) - 0.5, -0.5)
        left.set_xlim(*span)
        left.tick_params(axis="y", length=0)
        left.set_xlabel("time [s]")
        interval = np.diff(np.sort(onset))
        if interval.size:
            right.hist(
                interval, bins=int(np.clip(2 * np.sqrt(interval.size), 6, 40)), color=COLOURS[0]
            )
        right.set_xlabel("interval [s]")
        right.set_ylabel("events")
        right.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        right.xaxis.set_major_locator(MaxNLocator(4))
        return picture(figure, alt, caption)


def traces(time: np.ndarray, signals: np.ndarray, names: Sequence[str], alt: str,
           caption: str) -> Figure:  # fmt: skip
    """An excerpt of the preprocessed signals, one line per sensor.

    Parameters
    ----------
    time : (n_times,) [s]
    signals : (n_sensors, n_times)
    """
    spread = np.nanmedian(np.abs(signals - np.nanmedian(signals, axis=1, keepdims=True)))
    finite = np.abs(signals[np.isfinite(signals)])
    step = 6 * spread if spread > 0 else (float(finite.max(initial=0.0)) or 1.0)
    with canvas(8.2, 0.7 + 0.17 * max(len(names), 6)) as (figure, ax):
        for row, values in enumerate(signals):
            ax.plot(time, values - np.nanmedian(values) - row * step, color=INK, lw=0.5)
        ax.set_yticks([-i * step for i in range(len(names))], [short(v, 12) for v in names],
                      fontsize=7)  # fmt: skip
        ax.set_ylim(-(len(names) - 0.2) * step, 0.9 * step)
        ax.set_xlim(time[0], time[-1])
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("time [s]")
        return picture(figure, alt, caption)


def carpet(
    time: np.ndarray, values: np.ndarray, lines: Mapping[str, np.ndarray], alt: str, caption: str
) -> Figure:
    """Carpet of sensors over time below the courses that explain it (Power 2017).

    Parameters
    ----------
    time : (n_times,) [s]
    values : (n_sensors, n_times)
    lines : name -> (n_times,), such as the global signal and the framewise displacement
    """
    n = len(lines)
    centred = values - np.nanmean(values, axis=1, keepdims=True)
    spread = np.nanstd(centred, axis=1, keepdims=True)
    centred = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    with canvas(8.2, 0.85 * n + 2.4, nrows=n + 1, sharex=True, squeeze=False,
                height_ratios=[0.85] * n + [2.4]) as (figure, axes):  # fmt: skip
        for ax, (name, values_of) in zip(axes[:, 0], lines.items()):
            ax.plot(time[: len(values_of)], values_of[: len(time)], color=COLOURS[0], lw=1)
            ax.set_title(name)
            ax.yaxis.set_major_locator(MaxNLocator(3))
            ax.grid(axis="y", color=RULE, lw=0.5)
        ax = axes[-1, 0]
        image = ax.imshow(centred, aspect="auto", cmap="gray", vmin=-2.5, vmax=2.5,
                          interpolation="nearest", origin="upper",
                          extent=(time[0], time[-1], len(values), 0))  # fmt: skip
        ax.set_title("carpet")
        ax.set_ylabel("sensor")
        ax.set_xlabel("time [s]")
        bar = figure.colorbar(image, ax=axes[:, 0].tolist(), shrink=0.5, aspect=24, pad=0.015)
        bar.set_label("z", fontsize=8)
        bar.outline.set_visible(False)
        return picture(figure, alt, caption)


def layout(position: np.ndarray, names: Sequence[str], bad: np.ndarray, head: bool, alt: str,
           caption: str) -> Figure:  # fmt: skip
    """Where the sensors are: on the head from above, or from above and from the left [cm].

    Parameters
    ----------
    position : (n, 3) [m], or (n, 2) of ``maps.flatten`` where ``head``
    bad : (n,) bool
    """
    panels = [(position, "")] if head else [
        (100 * position[:, [0, 1]], "from above"), (100 * position[:, [1, 2]], "from the left"),
    ]  # fmt: skip
    with canvas(4.0 * len(panels), 3.8, ncols=len(panels), squeeze=False) as (figure, axes):
        for ax, (place, title) in zip(axes[0], panels):
            if head:
                angle = np.linspace(0, 2 * np.pi, 181)
                ax.plot(np.cos(angle), np.sin(angle), color=MUTED, lw=1)
                ax.plot([-0.1, 0, 0.1], [0.995, 1.12, 0.995], color=MUTED, lw=1)
                ax.set_axis_off()
            ax.plot(*place[~bad].T, "o", ms=4, color=COLOURS[0])
            if bad.any():
                ax.plot(*place[bad].T, "x", ms=7, mew=1.8, color=COLOURS[1])
            marked = range(len(names)) if len(names) <= 70 else np.flatnonzero(bad)
            for i in marked:
                ax.annotate(short(names[i], 8), place[i], (0, 4), textcoords="offset points",
                            ha="center", fontsize=5.5 if len(names) > 32 else 6.5,
                            color=COLOURS[1] if bad[i] else MUTED)  # fmt: skip
            if title == "from the left":
                ax.invert_xaxis()
            ax.set_title(title)
            ax.set_aspect("equal", adjustable="datalim")
            if not head:
                ax.set_xlabel("[cm]")
        return picture(figure, alt, caption)
