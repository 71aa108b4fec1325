"""Figures of the results: scores against chance, ranks, confusions, learning curves, pairs.

Every function draws from plain arrays and returns a :class:`document.Figure`. Figures are made
without pyplot (no global state) and with fixed metadata, so equal numbers give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from braindecode_pipe.report.document import Figure

INK, MUTED, RULE, BAND = "#1c2430", "#5a6573", "#d5dae1", "#e3e7ec"
# Okabe and Ito (2008): distinguishable with every common form of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00")
PIXELS_PER_INCH = 100  # CSS pixels; twice as many are drawn
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@contextmanager
def canvas(width: float, height: float, **grid):
    """A figure of ``width`` x ``height`` inches under the report's style; yields (figure, axes)."""
    with matplotlib.rc_context(STYLE):
        figure = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(**grid)


def picture(figure: Canvas, alt: str, caption: str, few_colours: bool = False) -> Figure:
    """Encode a figure as PNG at twice the CSS resolution, without date or software version.

    Line drawings of ``few_colours`` get a palette of 256: fewer bytes, no difference to see.
    """
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=2 * PIXELS_PER_INCH, facecolor="white",
        metadata={"Software": None, "Creation Time": None},
    )  # fmt: skip
    if few_colours:
        image = Image.open(buffer).convert("RGB")
        image = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
    width, height = (round(v * PIXELS_PER_INCH) for v in figure.get_size_inches())
    return Figure(buffer.getvalue(), alt, caption, width, height)


def short(text: object, length: int = 26) -> str:
    """A label that fits beside an axis; control characters would draw as boxes."""
    text = "".join(c if c.isprintable() else " " for c in str(text))
    return text if len(text) <= length else text[: length - 1] + "…"


def decade(value: float, _position: int | None = None) -> str:
    """A power of ten as an axis label, without the markup that names from data could abuse."""
    exponent = np.log10(value) if value > 0 else 0.5
    if abs(exponent - round(exponent)) > 1e-6:
        return ""
    return "10" + str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """One colour per name, in order."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def scores(rows: Sequence[Mapping], percent: bool, xlabel: str, alt: str, caption: str) -> Figure:
    """Scores with their intervals, beside chance and the middle 95 % of the null.

    Parameters
    ----------
    rows : sequence of dict
        ``label``, ``value``, ``ci_low``, ``ci_high``, ``chance`` (each may be NaN), ``null``
        (array), ``people`` (array of scores per person), ``headline`` (bool).
    percent : bool
        Whether the scores are shares.
    """
    with canvas(8.2, 0.9 + 0.42 * len(rows)) as (figure, ax):
        for y, row in enumerate(rows):
            null = np.asarray(row["null"], float)
            if null.size:
                low, high = np.percentile(null, [2.5, 97.5])
                ax.barh(y, max(high - low, 0), left=low, height=0.56, color=BAND, zorder=1,
                        label="null, middle 95 %" if y == 0 else None)  # fmt: skip
            if np.isfinite(row["chance"]):
                ax.vlines(row["chance"], y - 0.36, y + 0.36, color=INK, lw=1.4, ls=(0, (2, 1.5)),
                          zorder=3, label="chance" if y == 0 else None)  # fmt: skip
            colour = COLOURS[0] if row["headline"] else MUTED
            if np.isfinite(row["ci_low"]) and np.isfinite(row["ci_high"]):
                ax.hlines(y, row["ci_low"], row["ci_high"], color=colour, lw=2.2, zorder=4)
            people = np.asarray(row["people"], float)
            if people.size > 1:
                ax.plot(people, np.full(people.size, y + 0.22), "o", ms=3.2, mfc="none",
                        mec=colour, mew=0.8, zorder=4,
                        label="one person" if y == 0 else None)  # fmt: skip
            ax.plot(row["value"], y, "o", ms=7.5, color=colour, mec="white", mew=1, zorder=5)
        ax.set_yticks(range(len(rows)), [short(r["label"], 38) for r in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color=RULE, lw=0.6, zorder=0)
        ax.set_axisbelow(True)
        ax.set_xlabel(xlabel)
        if percent:
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
            top = max([1e-9, *(float(np.nanmax([r["value"], r["ci_high"]])) for r in rows)])
            ax.set_xlim(0, min(1.02, max(1.15 * top, 0.05)))
        if ax.get_legend_handles_labels()[1]:
            figure.legend(loc="outside upper right", ncols=3)
        return picture(figure, alt, caption)


def ranks(rank: np.ndarray, n_candidates: np.ndarray, alt: str, caption: str) -> Figure:
    """Histogram of the rank of the true stimulus, beside the level that chance would give.

    Few candidates, the same number for every query: one bar per rank. Else the share of
    candidates that were ranked before the truth, in bins of 5 %.
    """
    count = np.unique(n_candidates)
    with canvas(4.1, 2.7) as (figure, ax):
        if count.size == 1 and count[0] <= 30:
            # A tie in the middle of two ranks counts half for each.
            heights = np.zeros(int(count[0]))
            for value in rank:
                heights[int(np.floor(value)) - 1] += 0.5
                heights[int(np.ceil(value)) - 1] += 0.5
            ax.bar(np.arange(1, len(heights) + 1), heights, width=0.82, color=COLOURS[0])
            level = len(rank) / len(heights)
            ax.set_xlabel("rank of the true stimulus (1 = first)")
            ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
            if len(heights) <= 12:
                ax.set_xticks(range(1, len(heights) + 1))
            ax.set_xlim(0.4, len(heights) + 0.6)
        else:
            share = (rank - 1) / np.maximum(n_candidates - 1, 1)
            ax.hist(share, bins=np.linspace(0, 1, 21), color=COLOURS[0], rwidth=0.88)
            level = len(rank) / 20
            ax.set_xlabel("share of candidates ranked before the truth")
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
            ax.set_xlim(0, 1)
        ax.axhline(level, color=INK, lw=1.2, ls=(0, (3, 2)), label="chance")
        ax.set_ylabel("queries")
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.legend(loc="outside upper right")
        return picture(figure, alt, caption)


def confusion(counts: np.ndarray, labels: Sequence[str], alt: str, caption: str) -> Figure:
    """Which label was put first for which true label, as shares of each row."""
    counts = np.asarray(counts, float)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    n = len(labels)
    side = float(np.clip(1.7 + 0.19 * n, 3.0, 6.8))
    size = 8 if n <= 24 else 5.5
    with canvas(side + 0.5, side) as (figure, ax):
        image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
        ax.set_xticks(range(n), [short(v, 16) for v in labels], rotation=90, fontsize=size)
        ax.set_yticks(range(n), [short(v, 16) for v in labels], fontsize=size)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        if n <= 12:
            for i, j in np.ndindex(n, n):
                if counts[i, j]:
                    ink = "white" if share[i, j] > 0.55 else INK
                    ax.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center",
                            color=ink, fontsize=7.5)  # fmt: skip
        ax.set_xlabel("put first")
        ax.set_ylabel("shown")
        bar = figure.colorbar(
            image, ax=ax, shrink=0.7, format=PercentFormatter(1.0, decimals=0, symbol=" %")
        )
        bar.outline.set_visible(False)
        return picture(figure, alt, caption)


def learning(logs: Sequence, alt: str, caption: str) -> Figure:
    """Learning curves of one network: loss, and validation accuracy where it was measured.

    Parameters
    ----------
    logs : sequence of DataFrame
        One per fold: epoch, train_loss, validation_loss, validation_top1.
    """
    has_top1 = any(
        "validation_top1" in log and log["validation_top1"].notna().any() for log in logs
    )
    with canvas(8.2 if has_top1 else 4.3, 2.7, ncols=2 if has_top1 else 1, squeeze=False) as (
        figure,
        axes,
    ):
        alpha = 1.0 if len(logs) == 1 else 0.45
        for axis, columns in zip(
            axes[0], (("train_loss", "validation_loss"), ("validation_top1",))
        ):
            for column, colour in zip(columns, COLOURS):
                for number, log in enumerate(logs):
                    if column in log and log[column].notna().any():
                        axis.plot(log["epoch"], log[column], color=colour, alpha=alpha, lw=1.2,
                                  label=None if number else column.split("_")[0])  # fmt: skip
            axis.set_xlabel("epoch")
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.grid(axis="y", color=RULE, lw=0.6)
        axes[0][0].set_ylabel("loss")
        if axes[0][0].get_legend_handles_labels()[1]:
            axes[0][0].legend()
        if has_top1:
            axes[0][1].set_ylabel("validation top-1")
            axes[0][1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
            axes[0][1].set_ylim(bottom=0)
        return picture(figure, alt, caption)


def null_histograms(
    nulls: Mapping[str, np.ndarray], observed: Mapping[str, float], alt: str, caption: str
) -> Figure:
    """Permutation null of a share with the observed value, one panel per name."""
    n = len(nulls)
    with canvas(4.1 * n, 2.6, ncols=n, squeeze=False, sharey=True) as (figure, axes):
        for ax, (name, null) in zip(axes[0], nulls.items()):
            values = np.unique(null)
            bins = np.linspace(0, 1, 31)
            if 1 < values.size <= 40:  # few possible values: one bar each, no empty comb
                edges = (values[1:] + values[:-1]) / 2
                bins = np.r_[2 * values[0] - edges[0], edges, 2 * values[-1] - edges[-1]]
            ax.hist(null, bins=bins, color="#b9c2cd", label="null")
            ax.axvline(observed[name], color=COLOURS[1], lw=2, label="observed")
            ax.set_title(short(name, 40))
            ax.set_xlim(-0.08, 1.08)
            ax.set_xticks(np.linspace(0, 1, 5))
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
            ax.set_xlabel("pair accuracy")
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
        axes[0][0].legend(loc="upper left")
        return picture(figure, alt, caption)


def pair_matrices(
    matrices: Mapping[str, np.ndarray], labels: Sequence[str], alt: str, caption: str
) -> Figure:
    """Accuracy of every pair of left-out categories, one matrix per prompt set (NaN: no pair)."""
    n = len(matrices)
    colours = matplotlib.colormaps["RdBu"].with_extremes(bad="#f4f5f7")
    with canvas(4.1 * n, 3.6, ncols=n, squeeze=False) as (figure, axes):
        for ax, (name, matrix) in zip(axes[0], matrices.items()):
            matrix = matrix[:-1, 1:]  # the rest of an upper triangle is empty
            image = ax.imshow(np.ma.masked_invalid(matrix), cmap=colours, vmin=0, vmax=1)
            ax.set_xticks(range(len(labels) - 1), [short(v, 14) for v in labels[1:]], rotation=90)
            ax.set_yticks(range(len(labels) - 1), [short(v, 14) for v in labels[:-1]])
            ax.tick_params(length=0, labelsize=8)
            for spine in ax.spines.values():
                spine.set_visible(False)
            for i, j in np.argwhere(np.isfinite(matrix)):
                ink = "white" if abs(matrix[i, j] - 0.5) > 0.35 else INK
                ax.text(j, i, f"{100 * matrix[i, j]:.0f}", ha="center", va="center", color=ink,
                        fontsize=7.5)  # fmt: skip
            ax.set_title(short(name, 40))
        bar = figure.colorbar(image, ax=axes[0].tolist(), shrink=0.7,
                              format=PercentFormatter(1.0, decimals=0, symbol=" %"))  # fmt: skip
        bar.outline.set_visible(False)
        return picture(figure, alt, caption)
