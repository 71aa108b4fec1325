"""Maps of sensor values: heads for EEG and MEG, slices for voxels, three views for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection

from braindecode_pipe.report.document import Figure
from braindecode_pipe.report.figures import COLOURS, INK, MUTED, RULE, canvas, picture, short

HEAD_KINDS = ("eeg", "mag", "grad")
MIN_INTERPOLATED = 8  # fewer sensors are drawn as dots: a surface through them would be invented
MAX_COMPONENTS = 8
MANY = 1000  # values; one extreme voxel would make all others pale
MAX_SLICES = 5


@dataclass(frozen=True)
class Grid:
    """The voxel grid of a recording: ``shape`` (3,) and ``affine`` (4, 4) to mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray


@dataclass(frozen=True)
class Values:
    """What is mapped: ``values (component, sensor)``, a name per component, and their unit.

    ``grey`` values are drawn as an image of the head, with the border of the voxels around them.
    """

    values: np.ndarray
    labels: tuple[str, ...]
    unit: str
    signed: bool
    grey: bool = False

    def limit(self) -> float:
        """Magnitude at the end of the colours: the largest, or the 99.5th percentile of many.

        1 for an all-zero or empty map, so that a scale exists.
        """
        finite = np.abs(self.values[np.isfinite(self.values)])
        if not finite.size:
            return 1.0
        top = np.percentile(finite, 99.5) if finite.size > MANY else finite.max()
        return float(top or finite.max() or 1.0)

    @property
    def colours(self) -> str:
        if self.grey:
            return "gray"
        return "RdBu_r" if self.signed else "viridis"

    @property
    def range(self) -> tuple[float, float]:
        if self.grey and np.isfinite(self.values).any():
            low = float(np.nanpercentile(self.values, 1))
            return low, max(self.limit(), low + abs(low) * 1e-6)
        return (-self.limit() if self.signed else 0.0), self.limit()


def xyz(sensors: pd.DataFrame) -> np.ndarray:
    """Positions (n_sensors, 3) [m], NaN where unknown."""
    return sensors[["x", "y", "z"]].to_numpy(float)


def flatten(position: np.ndarray) -> np.ndarray:
    """Azimuthal equidistant view from above: the top of the head at 0, its equator at radius 1.

    Parameters
    ----------
    position : (n, 3) [m] in a head or helmet frame (x right, y front, z up)
    """
    distance = np.linalg.norm(position, axis=1, keepdims=True)
    direction = np.divide(position, distance, out=np.zeros_like(position), where=distance > 0)
    angle = np.arccos(np.clip(direction[:, 2], -1, 1)) / (np.pi / 2)
    return (
        angle[:, None]
        * np.c_[
            np.cos(np.arctan2(position[:, 1], position[:, 0])),
            np.sin(np.arctan2(position[:, 1], position[:, 0])),
        ]
    )


def sensor_maps(
    values: Values, sensors: pd.DataFrame, caption: str, grid: Grid | None, background=None
) -> list[Figure]:
    """Maps of ``values``, drawn as the sensors allow.

    Parameters
    ----------
    values : Values
    sensors : DataFrame, one row per sensor
        sensor, kind, x, y, z [m] and, for voxels, i, j, k.
    caption : str
    grid : Grid, optional
        Needed for voxels.
    background : (n_sensors,) array, optional
        Grey image under the voxels.

    Returns
    -------
    One figure per kind of sensor.
    """
    figures = []
    for kind in dict.fromkeys(sensors["kind"].astype(str)):
        rows = np.flatnonzero(sensors["kind"].astype(str) == kind)
        part = sensors.iloc[rows]
        chosen = Values(values.values[:MAX_COMPONENTS, rows], values.labels[:MAX_COMPONENTS],
                        values.unit, values.signed, values.grey)  # fmt: skip
        text = caption
        if len(values.labels) > MAX_COMPONENTS:
            text += f" The first {MAX_COMPONENTS} of {len(values.labels)} maps are shown."
        known = np.isfinite(xyz(part)).all(axis=1)
        if kind == "voxel" and grid is not None and {"i", "j", "k"} <= set(part.columns):
            under = None if background is None else np.asarray(background)[rows]
            figures.append(slices(chosen, part, grid, text, under))
        elif not known.any():
            figures.append(strongest(chosen, part, kind, text))
        elif kind in HEAD_KINDS:
            figures.append(heads(chosen, part, kind, text))
        else:
            figures.append(views(chosen, part, kind, text))
    return figures


def _combine_planar(values: Values, position: np.ndarray) -> tuple[Values, np.ndarray]:
    """Root mean square of the gradiometers that share a place (to 1 mm)."""
    place = pd.DataFrame(np.round(position, 3)).groupby([0, 1, 2], sort=False).ngroup().to_numpy()
    square = pd.DataFrame(values.values.T**2).groupby(place).mean()
    centre = pd.DataFrame(position).groupby(place).mean().to_numpy()
    rms = np.sqrt(square.to_numpy().T)
    return Values(rms, values.labels, values.unit, signed=False), centre


def heads(values: Values, sensors: pd.DataFrame, kind: str, caption: str) -> Figure:
    """Head seen from above, one per component; gradiometer pairs as their root mean square."""
    position = xyz(sensors)
    known = np.isfinite(position).all(axis=1)
    position = position[known]
    values = Values(values.values[:, known], values.labels, values.unit, values.signed)
    names = sensors["sensor"].astype(str).to_numpy()[known]
    if kind == "grad":
        values, position = _combine_planar(values, position)
    flat = flatten(position)
    n = len(values.labels)
    columns, n_rows = _arrange(n)
    with canvas(1.95 * columns + 0.8, 2.15 * n_rows + 0.1, nrows=n_rows, ncols=columns,
                squeeze=False) as (figure, axes):  # fmt: skip
        image = None
        for ax, row, label in zip(axes.flat, values.values, values.labels):
            if len(flat) < MIN_INTERPOLATED:
                image = _dots(ax, row, flat, names, values)
            else:
                image = _surface(ax, row, flat, values)
            ax.set_title(short(label, 22), loc="center")
        for ax in axes.flat[n:]:
            ax.set_axis_off()
        _bar(figure, image, axes, values.unit)
        alt = (f"Maps of {len(flat)} {kind} sensors on the head for: "
               + ", ".join(map(str, values.labels)))  # fmt: skip
        what = {"grad": " Gradiometers: root mean square of each pair."}.get(kind, "")
        return picture(figure, alt, f"{kind.upper()}: {caption}{what}")


def _arrange(n: int, widest: int = 4) -> tuple[int, int]:
    """Columns and rows for ``n`` small figures, with rows as even as can be."""
    n_rows = -(-n // widest)
    return -(-n // n_rows), n_rows


def _surface(ax, row: np.ndarray, flat: np.ndarray, values: Values):
    import mne

    good = np.isfinite(row)
    image, _ = mne.viz.plot_topomap(
        row[good], flat[good], axes=ax, show=False, sensors=False, contours=4, res=96,
        sphere=(0, 0, 0, 1), extrapolate="head",
        cmap=values.colours, vlim=values.range,
    )  # fmt: skip
    ax.plot(*flat[good].T, ".", color=INK, ms=1.8)
    return image


def _dots(ax, row: np.ndarray, flat: np.ndarray, names: np.ndarray, values: Values):
    angle = np.linspace(0, 2 * np.pi, 181)
    ax.plot(np.cos(angle), np.sin(angle), color=INK, lw=1)
    ax.plot([-0.12, 0, 0.12], [0.99, 1.14, 0.99], color=INK, lw=1)
    image = ax.scatter(*flat.T, c=row, s=150, cmap=values.colours, vmin=values.range[0],
                       vmax=values.range[1], edgecolors=INK, linewidths=0.7, zorder=3)  # fmt: skip
    for (x, y), name in zip(flat, names):
        ax.annotate(short(name, 8), (x, y), (0, -13), textcoords="offset points", ha="center",
                    fontsize=7, color=MUTED)  # fmt: skip
    reach = max(1.25, float(np.abs(flat).max()) + 0.25)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return image


def _bar(figure, image, axes, unit: str, extend: str = "neither") -> None:
    bar = figure.colorbar(
        image, extend=extend, ax=axes.ravel().tolist(), shrink=0.75, aspect=24, pad=0.02
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5)
    bar.set_label(unit, fontsize=8)


def volume(values: np.ndarray, ijk: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Put one value per voxel into a volume, NaN elsewhere.

    Raises
    ------
    IndexError
        For voxels outside ``shape``.
    """
    filled = np.full(tuple(shape), np.nan)
    filled[tuple(np.asarray(ijk, int).T)] = values
    return filled


def slices(
    values: Values, sensors: pd.DataFrame, grid: Grid, caption: str, background=None
) -> Figure:
    """Axial slices through the voxels, left of the head on the left.

    Colour is the value, opacity its magnitude; grey is ``background`` where it is given.
    """
    import nibabel

    turn = nibabel.io_orientation(grid.affine)
    zoom = np.linalg.norm(grid.affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    ijk = sensors[["i", "j", "k"]].to_numpy(int)

    def upright(row: np.ndarray) -> np.ndarray:
        return nibabel.apply_orientation(volume(row, ijk, grid.shape), turn)

    inside = np.isfinite(upright(np.ones(len(ijk))))
    box = tuple(slice(a.min(), a.max() + 1) for a in np.nonzero(inside))
    heights = np.nonzero(inside[box])[2]
    wanted = np.quantile(heights, np.linspace(0.1, 0.9, MAX_SLICES), method="nearest")
    levels = np.unique(heights) if np.unique(heights).size <= MAX_SLICES else np.unique(wanted)
    under = None if background is None else upright(np.asarray(background, float))[box]
    n, columns = len(values.labels), len(levels)
    if columns == 1:
        panels = [(label, row, levels[0]) for label, row in zip(values.labels, values.values)]
        columns = _arrange(n)[0]
    else:
        panels = [(lab, r, k) for lab, r in zip(values.labels, values.values) for k in levels]
    n_rows = -(-len(panels) // columns)
    width, depth = inside[box].shape[0] * zoom[0], inside[box].shape[1] * zoom[1]
    cell = min(2.0, 7.4 / columns, 1.7 * width / depth)
    with canvas(cell * columns + 0.9, (cell * depth / width + 0.25) * n_rows + 0.15,
                nrows=n_rows, ncols=columns, squeeze=False) as (figure, axes):  # fmt: skip
        image = None
        for number, (ax, (label, row, level)) in enumerate(zip(axes.flat, panels)):
            image = _slice(ax, upright(row)[box][:, :, level], values, zoom[1] / zoom[0],
                           None if under is None else under[:, :, level])  # fmt: skip
            if len(levels) == 1 or number % columns == 0:
                ax.set_title(short(label, 24))
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for text, x in (("L", 0.02), ("R", 0.94)):
            axes[0, 0].text(x, 0.04, text, transform=axes[0, 0].transAxes, fontsize=7, color=MUTED)
        cut = values.values.size > MANY
        extend = ("both" if values.signed else "max") if cut else "neither"
        _bar(figure, image, axes, values.unit, extend)
        alt = (f"Axial slices through {len(ijk)} voxels for: "
               + ", ".join(map(str, values.labels)))  # fmt: skip
        return picture(figure, alt, f"{caption} Left of the head is left.")


def border(inside: np.ndarray) -> np.ndarray:
    """Sides of pixels between inside and outside: (n_sides, 2 ends, 2 coordinates).

    Parameters
    ----------
    inside : (n_x, n_y) bool; pixel (i, j) reaches from i - 0.5 to i + 0.5
    """
    padded = np.pad(inside, 1)
    sides = []
    for axis in (0, 1):
        at = np.argwhere(np.diff(padded.astype(np.int8), axis=axis) != 0) - 1.0
        along = np.eye(2)[1 - axis] / 2
        middle = at + np.eye(2)[axis] / 2
        sides.append(np.stack([middle - along, middle + along], axis=1))
    return np.concatenate(sides)


def _slice(ax, plane: np.ndarray, values: Values, aspect: float, under: np.ndarray | None):
    if under is not None and np.isfinite(under).any():
        low, high = np.nanpercentile(under, [1, 99.5])
        ax.imshow(under.T, origin="lower", cmap="gray", aspect=aspect, vmin=low,
                  vmax=high if high > low else low + 1, alpha=0.45,
                  interpolation="nearest")  # fmt: skip
        alpha = np.clip(np.abs(np.nan_to_num(plane)) / values.limit(), 0, 1) ** 0.5
    else:
        alpha = np.isfinite(plane).astype(float)
    low, high = values.range
    image = ax.imshow(np.nan_to_num(plane).T, origin="lower", cmap=values.colours, vmin=low,
                      vmax=high, alpha=alpha.T, aspect=aspect, interpolation="nearest")  # fmt: skip
    if values.grey:
        ax.add_collection(LineCollection(border(np.isfinite(plane)), colors=COLOURS[1], lw=0.9))
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    # The colour bar must be opaque, which it would not be with an array of opacities.
    return matplotlib.cm.ScalarMappable(image.norm, image.cmap)


def views(values: Values, sensors: pd.DataFrame, kind: str, caption: str) -> Figure:
    """Contacts, vertices or parcels at their places, seen from above, behind and the left."""
    position = 1e3 * xyz(sensors)
    planes = (("from above", 0, 1), ("from behind", 0, 2), ("from the left", 1, 2))
    n = len(values.labels)
    with canvas(7.6, 2.35 * n + 0.2, nrows=n, ncols=3, squeeze=False) as (figure, axes):
        image = None
        for line, row, label in zip(axes, values.values, values.labels):
            order = np.argsort(np.abs(np.nan_to_num(row)))
            for ax, (view, a, b) in zip(line, planes):
                image = ax.scatter(position[order, a], position[order, b], c=row[order], s=14,
                                   cmap=values.colours, vmin=values.range[0],
                                   vmax=values.range[1], edgecolors=MUTED,
                                   linewidths=0.2)  # fmt: skip
                if view == "from the left":
                    ax.invert_xaxis()
                ax.set_aspect("equal", adjustable="datalim")
                ax.set_title(f"{short(label, 18)}, {view}", fontsize=8.5)
                ax.set_xticks([])
                ax.set_yticks([])
                for spine in ax.spines.values():
                    spine.set_color(RULE)
        _bar(figure, image, axes, values.unit)
        alt = f"{len(position)} sensors of kind {kind} at their places, three views"
        return picture(figure, alt, f"{kind}: {caption}")


def strongest(values: Values, sensors: pd.DataFrame, kind: str, caption: str) -> Figure:
    """The 20 sensors with the largest norm over components, for sensors without positions."""
    norm = np.sqrt(np.nansum(values.values**2, axis=0))
    order = np.argsort(-norm, kind="stable")[:20]
    names = sensors["sensor"].astype(str).to_numpy()
    with canvas(5.2, 0.8 + 0.2 * len(order)) as (figure, ax):
        ax.barh(range(len(order)), norm[order], color=COLOURS[0], height=0.7)
        ax.set_yticks(range(len(order)), [short(names[i], 24) for i in order], fontsize=8)
        ax.invert_yaxis()
        ax.set_xlabel(values.unit)
        alt = f"The {len(order)} sensors of kind {kind} with the largest values"
        note = " These sensors have no positions: the strongest are listed instead of a map."
        return picture(figure, alt, f"{kind}: {caption}{note}")


def delay(curves: Sequence[tuple[str, pd.DataFrame, float]], alt: str, caption: str) -> Figure:
    """Correlation of the signals with stimulus versus rest at each delay; the chosen one marked.

    Parameters
    ----------
    curves : sequence of (label, table, chosen)
        ``table`` holds delay [s] and correlation; ``chosen`` is the delay used [s].
    """
    with canvas(5.6, 2.7) as (figure, ax):
        for number, (label, table, chosen) in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            one = len(curves) <= len(COLOURS)
            ax.plot(table["delay"], table["correlation"], "o-", ms=3.2, lw=1.2, color=colour,
                    alpha=1 if one else 0.45, label=short(label, 24) if one else None)  # fmt: skip
            ax.axvline(chosen, color=colour, lw=0.9, ls=(0, (3, 2)), alpha=0.8)
        ax.axhline(0, color=RULE, lw=0.8, zorder=0)
        ax.set_xlabel("delay [s]")
        ax.set_ylabel("correlation")
        if 1 < len(curves) <= len(COLOURS):
            figure.legend(loc="outside right upper")
        return picture(figure, alt, caption)
