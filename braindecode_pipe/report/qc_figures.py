"""Figures of the quality pages along sensors and frequencies: places, spectra, amplitudes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from braindecode_pipe.report.document import Figure
from braindecode_pipe.report.figures import (
    BAND,
    COLOURS,
    INK,
    MUTED,
    RULE,
    canvas,
    decade,
    picture,
    short,
)

# Units in which people know the numbers, and the factor to them.
ELECTRODES = dict.fromkeys(("eeg", "ecog", "seeg", "dbs"), ("µV", 1e6))
HANDY = {**ELECTRODES, "mag": ("fT", 1e15), "ref_meg": ("fT", 1e15), "grad": ("fT/cm", 1e13)}
MAX_BAD_LINES = 30
FEW = 8  # good sensors; their spectra are drawn one by one, since percentiles would say little
MAX_NAMES = 70
MARKS = {  # shapes differ as well as colours
    "good": {"marker": "o", "ms": 4.5, "color": COLOURS[0]},
    "interpolated": {"marker": "D", "ms": 5.5, "mew": 1.5, "mfc": "white", "color": COLOURS[4]},
    "bad": {"marker": "x", "ms": 7.5, "mew": 2, "color": COLOURS[1]},
    "dropped": {"marker": "s", "ms": 6, "mew": 1.5, "mfc": "white", "color": COLOURS[1]},
}
VIEWS = (("from above", 0, 1), ("from behind", 0, 2), ("from the left", 1, 2))


@dataclass(frozen=True)
class Spectrum:
    """Spectra of the sensors of one kind.

    Attributes
    ----------
    kind : mne's word
    before, after : (freq (n,) [Hz], psd (n_sensors, n) [unit^2/Hz]), or None
    bad : (n_sensors,) bool
    """

    kind: str
    before: tuple[np.ndarray, np.ndarray] | None
    after: tuple[np.ndarray, np.ndarray] | None
    bad: np.ndarray

    @property
    def unit(self) -> tuple[str, float]:
        return HANDY.get(self.kind, ("unit", 1.0))

    def limits(self) -> tuple[float, float] | None:
        """Ends of the axis of power: those of the spectra before, two decades lower.

        What lies lower, in the stop band of a filter, is rounding.
        """
        for part in (self.before, self.after):
            if part is None:
                continue
            power = part[1][~self.bad if not self.bad.all() else slice(None)][:, part[0] > 0]
            power = power[np.isfinite(power) & (power > 0)]
            if power.size:
                low, high = np.percentile(power, [0.5, 100]) * self.unit[1] ** 2
                return max(low / 100, high * 1e-12), high * 3
        return None


def _spectrum(ax, part: tuple[np.ndarray, np.ndarray], bad: np.ndarray, factor: float) -> None:
    freq, psd = part
    shown = freq > 0
    freq, psd = freq[shown], factor**2 * psd[:, shown]
    psd = np.where(psd > 0, psd, np.nan)
    seen = np.isfinite(psd).any(axis=1)
    good, wrong = psd[~bad & seen], psd[bad & seen]
    if 0 < len(good) <= FEW:
        ax.semilogy(freq, good.T, color=MUTED, alpha=0.6, lw=0.7)[0].set_label("good sensors")
    elif len(good):
        keep = np.isfinite(good).any(axis=0)
        low, high = np.nanpercentile(good[:, keep], [5, 95], axis=0)
        ax.fill_between(freq[keep], low, high, color=COLOURS[0], alpha=0.22, lw=0,
                        label="good sensors, 5th to 95th percentile")  # fmt: skip
    for number, line in enumerate(wrong[:MAX_BAD_LINES]):
        ax.semilogy(freq, line, color=COLOURS[1], alpha=0.75, lw=0.7,
                    label=None if number else "bad sensors")  # fmt: skip
    if len(good):
        keep = np.isfinite(good).any(axis=0)
        ax.semilogy(freq[keep], np.nanmedian(good[:, keep], axis=0), color=COLOURS[0], lw=1.8,
                    label="median of the good")  # fmt: skip
    ax.set_yscale("log")


def spectra(
    parts: Sequence[Spectrum],
    lines: Sequence[float],
    band: tuple[float, float] | None,
    alt: str,
    caption: str,
) -> Figure:
    """Power spectra before and after preprocessing, a row for each kind of sensor.

    Parameters
    ----------
    parts : sequence of Spectrum
    lines : line frequencies to mark [Hz]
    band : edges of the pass-band [Hz], shaded outside of it in the spectra after; or None
    """
    titles = [t for t in ("before", "after") if any(getattr(p, t) is not None for p in parts)]
    with canvas(8.2 if len(titles) == 2 else 4.6, 2.45 * len(parts) + 0.4, nrows=len(parts),
                ncols=len(titles), sharey="row", squeeze=False) as (figure, axes):  # fmt: skip
        for row, part in zip(axes, parts):
            unit, factor = part.unit
            for ax, title in zip(row, titles):
                one = getattr(part, title)
                n_seen = 0 if one is None else int(np.isfinite(one[1]).any(axis=1).sum())
                ax.set_title(f"{part.kind} ({n_seen}), {title}")
                if not n_seen:
                    text = "not stored" if one is None else "no such sensor"
                    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center")
                    continue
                _spectrum(ax, one, part.bad, factor)
                top = float(one[0][-1])
                for line in [f for f in lines if f <= top]:
                    ax.axvline(line, color=COLOURS[1], lw=0.9, ls=(0, (1, 2)), zorder=0)
                if title == "after" and band is not None:
                    ax.axvspan(0, band[0], color=BAND, alpha=0.6, lw=0, zorder=0)
                    ax.axvspan(min(band[1], top), top, color=BAND, alpha=0.6, lw=0, zorder=0)
                ax.set_xlim(0, top)
                ax.yaxis.set_major_formatter(decade)
                ax.yaxis.set_minor_locator(NullLocator())
                ax.grid(color=RULE, lw=0.5)
            if (limits := part.limits()) is not None:
                row[0].set_ylim(*limits)
            row[0].set_ylabel(f"power [({unit})²/Hz]" if "/" in unit else f"power [{unit}²/Hz]")
        for ax in axes[-1]:
            ax.set_xlabel("frequency [Hz]")
        marks: dict = {}
        for ax in axes.flat:
            marks |= dict(zip(*ax.get_legend_handles_labels()[::-1]))
        if marks:
            figure.legend(marks.values(), marks, loc="outside upper right", ncols=len(marks))
        return picture(figure, alt, caption)


def amplitudes(
    amplitude: np.ndarray,
    kinds: Sequence[str],
    bad: np.ndarray,
    names: Sequence[str],
    alt: str,
    caption: str,
) -> Figure:
    """Amplitude of every sensor in its order, per kind, bad ones marked.

    Parameters
    ----------
    amplitude : (n_sensors,) [V, T or T/m]
    kinds, names : (n_sensors,)
    bad : (n_sensors,) bool
    """
    order = list(dict.fromkeys(kinds))
    names = np.asarray(names, object)
    width = float(np.clip(1.6 + 0.22 * max(list(kinds).count(k) for k in order), 3.6, 8.2))
    with canvas(width, 1.75 * len(order) + 0.4, nrows=len(order), squeeze=False) as (figure, axes):
        for ax, name in zip(axes[:, 0], order):
            rows = np.asarray(kinds) == name
            unit, factor = HANDY.get(name, ("SI unit", 1.0))
            value, flag = factor * amplitude[rows], bad[rows]
            index = np.arange(1, rows.sum() + 1)
            ax.plot(index[~flag], value[~flag], "o", ms=3.2, color=COLOURS[0], label="good")
            if flag.any():
                ax.plot(index[flag], value[flag], "x", ms=6.5, mew=1.8, color=COLOURS[1],
                        label="bad")  # fmt: skip
            positive = value[np.isfinite(value) & (value > 0)]
            if positive.size and positive.max() > 30 * np.median(positive):
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter(decade)
                ax.yaxis.set_minor_locator(NullLocator())
            else:
                ax.set_ylim(bottom=0)
            ax.set_title(f"{short(name)} ({int(rows.sum())})")
            ax.set_ylabel(f"amplitude [{unit}]")
            ax.grid(axis="y", color=RULE, lw=0.5)
            if len(index) <= 36:
                ax.set_xticks(index, [short(n, 10) for n in names[rows]], rotation=90, fontsize=7.5)
            else:
                ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
                ax.set_xlabel("position in the recording")
            ax.set_xlim(0.3, len(index) + 0.7)
        if bad.any():
            marks: dict = {}
            for ax in axes[:, 0]:
                marks |= dict(zip(*ax.get_legend_handles_labels()[::-1]))
            figure.legend(marks.values(), marks, loc="outside upper right", ncols=2)
        return picture(figure, alt, caption)


def _labels(
    names: Sequence[str], state: np.ndarray, position: np.ndarray, head: bool
) -> dict[int, str]:
    """Which sensors are named in a picture, and how.

    On a head all, where they are few enough and none shares its place; else those that are not
    good. Elsewhere the outermost contact of every shaft (names that differ in their number only)
    by the name of the shaft, and those that are not good.
    """
    found = {int(i): names[i] for i in np.flatnonzero(state != "good")[:MAX_NAMES]}
    apart = len(np.unique(np.round(position, 3), axis=0)) == len(names)
    if head:
        return dict(enumerate(names)) if apart and len(names) <= MAX_NAMES else found
    shafts: dict[str, int] = {}
    for i, name in enumerate(names):
        shaft = name.rstrip("0123456789") or name
        best = shafts.setdefault(shaft, i)
        if np.linalg.norm(position[i]) > np.linalg.norm(position[best]):
            shafts[shaft] = i
    if len(shafts) <= 32:
        found |= {i: shaft for shaft, i in shafts.items() if i not in found}
    return found


def layout(
    position: np.ndarray,
    names: Sequence[str],
    state: Sequence[str],
    head: bool,
    alt: str,
    caption: str,
) -> Figure:
    """Where the sensors are: on the head from above, or from above, from behind and from the left.

    Parameters
    ----------
    position : (n, 3) [m], or (n, 2) of ``maps.flatten`` where ``head``
    names, state : (n,); a state is a key of ``MARKS``
    """
    state = np.asarray(state, object)
    labels = _labels(names, state, position, head)
    wide = 5.0 if len(labels) > 32 else 4.0
    views = [("", 0, 1)] if head else list(VIEWS)
    scale = 1.0 if head else 100.0
    size = (wide, wide) if head else (8.4, 3.2)
    with canvas(*size, ncols=len(views), squeeze=False) as (figure, axes):
        for ax, (title, a, b) in zip(axes[0], views):
            place = scale * position[:, [a, b]]
            if head:
                angle = np.linspace(0, 2 * np.pi, 181)
                ax.plot(np.cos(angle), np.sin(angle), color=MUTED, lw=1)
                ax.plot([-0.1, 0, 0.1], [0.995, 1.12, 0.995], color=MUTED, lw=1)
                ax.set_axis_off()
            for name, mark in MARKS.items():
                rows = state == name
                if rows.any():
                    small = {"ms": 2.2} if name == "good" and len(names) > 400 else {}
                    ax.plot(*place[rows].T, ls="none", label=name, **{**mark, **small})
            for i, label in labels.items():
                ax.annotate(short(label, 8), place[i], (0, 4.5), textcoords="offset points",
                            ha="center", fontsize=6.5,
                            color=INK if state[i] == "good" else COLOURS[1])  # fmt: skip
            if title == "from the left":
                ax.invert_xaxis()
            ax.set_title(title)
            ax.set_aspect("equal", adjustable="datalim")
            if not head:
                ax.set_xlabel(("right" if a == 0 else "front") + " [cm]")
                ax.set_ylabel(("front" if b == 1 else "up") + " [cm]")
        if (state != "good").any():
            marks = dict(zip(*axes[0, 0].get_legend_handles_labels()[::-1]))
            figure.legend(marks.values(), marks, loc="outside lower center", ncols=len(marks))
        return picture(figure, alt, caption)


def lines_removed(
    line: np.ndarray, before: np.ndarray, after: np.ndarray, alt: str, caption: str
) -> Figure:
    """Power at every line frequency above its neighbours, before and after.

    Parameters
    ----------
    line : (n,) [Hz]
    before, after : (n,) [dB], NaN where there is nothing
    """
    index = np.arange(len(line))
    with canvas(min(8.2, 2.6 + 0.55 * len(line)), 2.3) as (figure, ax):
        ax.axhline(0, color=MUTED, lw=0.9)
        ax.vlines(index, before, after, color=RULE, lw=3)
        ax.plot(index, before, "s", ms=6, color=COLOURS[1], label="before")
        if np.isfinite(after).any():
            ax.plot(index, after, "o", ms=6, color=COLOURS[0], label="after")
        ax.set_xticks(index, [f"{f:g}" for f in line])
        ax.set_xlim(-0.6, len(line) - 0.4)
        ax.set_xlabel("line frequency [Hz]")
        ax.set_ylabel("above neighbours [dB]")
        ax.grid(axis="y", color=RULE, lw=0.5)
        figure.legend(loc="outside right upper")
        return picture(figure, alt, caption)
