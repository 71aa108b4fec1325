"""Figures of independent components: their maps on the head, what they are, how they go in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.report.document import Figure
from braindecode_pipe.report.figures import COLOURS, INK, MUTED, canvas, picture, short
from braindecode_pipe.report.maps import MIN_INTERPOLATED
from braindecode_pipe.report.qc_time_figures import thinned

RESOLUTION = 72
ROW_INCHES = 1.12


@dataclass(frozen=True)
class Component:
    """One component as it is drawn.

    Attributes
    ----------
    title, detail : what it is called, and what it was taken for
    excluded : bool
    weights : (n_sensors,) its map, NaN where a sensor has none
    source : (n,) its time course, or None
    """

    title: str
    detail: str
    excluded: bool
    weights: np.ndarray
    source: np.ndarray | None


def topographies(place: np.ndarray, values: np.ndarray, resolution: int = RESOLUTION):
    """Values between sensors, by thin-plate splines; NaN outside of the head.

    Parameters
    ----------
    place : (n, 2), the head within radius 1
    values : (k, n), finite

    Returns
    -------
    (k, resolution, resolution), rows from the back of the head to the front
    """
    from scipy.interpolate import RBFInterpolator

    at = np.linspace(-1, 1, resolution)
    grid = np.stack(np.meshgrid(at, at), axis=-1)
    inside = np.linalg.norm(grid, axis=-1) <= 1
    # Sensors at one place (planar pairs, neighbours that were rounded) would be singular.
    place, first = np.unique(np.round(place, 6), axis=0, return_inverse=True)
    first = first.ravel()
    mean = np.stack([np.bincount(first, row) for row in values]) / np.bincount(first)
    spline = RBFInterpolator(place, mean.T, neighbors=min(64, len(place)))
    images = np.full((len(values), resolution, resolution), np.nan)
    images[:, inside] = spline(grid[inside]).T
    return images


def components(
    shown: Sequence[Component], place: np.ndarray, time: np.ndarray | None, alt: str, caption: str
) -> Figure:
    """Two columns of components: map, name and an excerpt of the source.

    Parameters
    ----------
    shown : sequence of Component
    place : (n_sensors, 2) of ``maps.flatten``
    time : (n,) of the sources [s]
    """
    weights = np.stack([c.weights for c in shown])
    known = np.isfinite(weights).all(axis=0) & np.isfinite(place).all(axis=1)
    reach = max(1.0, float(np.linalg.norm(place[known], axis=1).max(initial=0.0)))
    place = place[known] / reach
    drawn = None
    if known.sum() >= MIN_INTERPOLATED:
        drawn = topographies(place, weights[:, known])
    n_rows = -(-len(shown) // 2)
    height = ROW_INCHES * n_rows + 0.45
    with canvas(8.2, height, nrows=n_rows, ncols=4, squeeze=False) as (figure, axes):
        figure.set_layout_engine("none")
        for ax in axes.flat:
            ax.set_axis_off()
        for number, component in enumerate(shown):
            row, column = divmod(number, 2)
            bottom = 1 - (row + 1) * ROW_INCHES / height
            top = ROW_INCHES / height
            left, right = axes[row, 2 * column : 2 * column + 2]
            left.set_position((0.5 * column + 0.005, bottom + 0.06 * top, 0.115, 0.86 * top))
            right.set_position((0.5 * column + 0.13, bottom + 0.16 * top, 0.355, 0.46 * top))
            image = None if drawn is None else drawn[number]
            _map(left, component, place, weights[number, known], image)
            _source(right, component, time, last=number >= len(shown) - 2)
            colour, weight = (COLOURS[1], "bold") if component.excluded else (INK, "normal")
            x = 0.5 * column + 0.13
            figure.text(x, bottom + 0.85 * top, short(component.title, 34), fontsize=9,
                        color=colour, weight=weight)  # fmt: skip
            figure.text(x, bottom + 0.69 * top, short(component.detail, 52), fontsize=8,
                        color=MUTED)  # fmt: skip
        return picture(figure, alt, caption)


def _map(ax, component: Component, place: np.ndarray, values: np.ndarray, image) -> None:
    limit = float(np.abs(values).max(initial=0.0)) or 1.0
    scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    if image is not None:
        ax.imshow(image, origin="lower", extent=(-1, 1, -1, 1), interpolation="bilinear", **scale)
        ax.plot(*place.T, ".", color=INK, ms=1.2)
    elif len(values):
        ax.scatter(*place.T, c=values, s=26, edgecolors=INK, linewidths=0.5, **scale)
    angle = np.linspace(0, 2 * np.pi, 121)
    colour, width = (COLOURS[1], 2.2) if component.excluded else (MUTED, 1)
    ax.plot(np.cos(angle), np.sin(angle), color=colour, lw=width)
    ax.plot([-0.12, 0, 0.12], [0.99, 1.13, 0.99], color=colour, lw=width)
    ax.set_xlim(-1.2, 1.2)
    ax.set_ylim(-1.2, 1.2)
    ax.set_aspect("equal")


def _source(ax, component: Component, time: np.ndarray | None, last: bool) -> None:
    if component.source is None or time is None or not len(time):
        return
    values = np.asarray(component.source, float)
    colour = COLOURS[1] if component.excluded else INK
    ax.plot(thinned(time, 800), thinned(values, 800), color=colour, lw=0.6)
    ax.set_axis_on()
    ax.set_yticks([])
    ax.set_xlim(time[0], time[-1])
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="x", labelsize=7.5, labelbottom=last, length=2 if last else 0)
    if last:
        ax.set_xlabel("time [s]", fontsize=8, labelpad=1)
