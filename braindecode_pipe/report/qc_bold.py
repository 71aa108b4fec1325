"""Panels of fMRI: mean image and mask, tSNR, carpet and motion, coverage of parcels, betas."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from braindecode_pipe.report import maps, qc_time_figures, wording
from braindecode_pipe.report.document import Block, Column, Heading, Level, Table, Text
from braindecode_pipe.report.recording import Recording
from braindecode_pipe.report.study import require

FD_LIMIT_MM = 0.5  # volumes beyond it are those that Power et al. (2012) leave out
LOW_COVERAGE = 0.5
MAX_PARCELS = 20
MAX_LABELS = 30
# Arrays of single-trial responses: name, axis with unit, factor to it, whether whole numbers.
BETAS = (
    ("r2", "variance explained R² [%]", 100.0, False),
    ("hrf_index", "index of the response shape", 1.0, True),
    ("ridge_fraction", "fraction kept by ridge", 1.0, False),
    ("noise_ceiling", "noise ceiling [%]", 1.0, False),
)


def carpet(recording: Recording) -> Iterator[Block]:
    """Carpet below the global signal, framewise displacement, DVARS and motion."""
    values = recording.need("carpet", "the carpet")
    attrs = recording.attrs
    step = float(attrs.get("t_r") or 1 / float(attrs["sfreq"]))
    time = recording.array("time")
    if time is None or len(time) != values.shape[1]:
        time = np.arange(values.shape[1]) * step + float(attrs.get("first_time", 0.0))
    lines = {}
    alt = f"Carpet of {len(values)} sensors over {values.shape[1]} volumes"
    caption = f"{alt}, before cleaning."
    displacement = recording.array("framewise_displacement")
    if displacement is not None:
        moved = displacement.astype(float)
        lines["framewise displacement [mm]"] = moved
        over = float(np.mean(moved[np.isfinite(moved)] > FD_LIMIT_MM)) if len(moved) else 0.0
        alt += f"; mean framewise displacement {wording.plain(np.nanmean(moved))} mm"
        caption += (
            f" Framewise displacement: mean {wording.plain(np.nanmean(moved))} mm, above "
            f"{FD_LIMIT_MM:g} mm in {wording.share(over)} of the volumes."
        )
    for array, title, scale in (("dvars", "DVARS", 1.0), ("global_signal", "global signal", 1.0)):
        course = recording.array(array)
        if course is not None:
            lines[title] = scale * course.astype(float)
    if displacement is None and not recording.has("motion"):
        yield Text("Head motion is unknown: there are no confounds beside the recording.", "note")
    gaps = recording.bad_spans
    caption += " Shaded: volumes marked as bad." if gaps else ""
    yield qc_time_figures.carpet(np.asarray(time, float), values, lines, gaps, alt, caption)


def motion(recording: Recording) -> Iterator[Block]:
    """The six parameters of head motion, relative to the first volume."""
    motion = recording.need("motion", "the parameters of head motion", "confound").astype(float)
    time = recording.array("time")
    time = np.arange(len(motion)) if time is None else time.astype(float)
    first = motion[np.flatnonzero(np.isfinite(motion).all(axis=1))[:1]]
    moved = motion - (first if len(first) else 0.0)
    most = float(np.nanmax(np.linalg.norm(moved[:, :3], axis=1)))
    turned = float(np.rad2deg(np.nanmax(np.abs(moved[:, 3:]))))
    caption = (
        f"Head motion relative to the first volume: at most {wording.plain(most)} mm and "
        f"{wording.plain(turned)}°."
    )
    alt = f"Six parameters of head motion over {len(motion)} volumes; at most {most:.1f} mm"
    yield qc_time_figures.movement(time, moved[:, :3], np.rad2deg(moved[:, 3:]), alt, caption)


def mean_image(recording: Recording) -> Iterator[Block]:
    """The mean over time of every voxel, as slices with the border of the mask."""
    mean = recording.need("mean", "the mean image").astype(float)
    require(recording.grid, "the grid of the voxels", recording.path.name)
    if float(np.nanmedian(np.abs(mean))) < 1e-6 * float(np.nanmax(np.abs(mean))):
        yield Text("The mean was removed before these data were shared: nothing to draw.", "note")
        return
    share = recording.qc.attrs.get("mask_coverage")
    of_grid = f", {wording.share(float(share))} of the grid" if share is not None else ""
    values = maps.Values(mean[None], ("mean",), "mean signal [a.u.]", signed=False, grey=True)
    caption = (
        f"Mean image before cleaning, inside of the mask ({len(mean)} voxels{of_grid}); the line "
        "is the border of the mask."
    )
    yield from maps.sensor_maps(values, _in_order(recording), caption, recording.grid)


def tsnr(recording: Recording) -> Iterator[Block]:
    """Temporal signal-to-noise ratio of every sensor, and its distribution."""
    tsnr = recording.need("tsnr", "the temporal signal-to-noise ratio").astype(float)
    if np.nanmedian(np.abs(tsnr)) < 1:
        text = "The mean was removed before these data were shared: they have no tSNR to show."
        yield Text(text, "note")
        return
    values = maps.Values(tsnr[None], ("tSNR",), "tSNR", signed=False)
    caption = f"Temporal signal-to-noise ratio before cleaning, median {np.nanmedian(tsnr):.0f}."
    yield from maps.sensor_maps(values, _in_order(recording), caption, recording.grid)
    alt = f"Distribution of the tSNR over {len(tsnr)} sensors"
    yield qc_time_figures.histograms({"tSNR": tsnr}, (), alt, "tSNR over sensors; line: median.")


def _in_order(recording: Recording):
    """Sensors in the order of the quality group; those that it lacks a place for without one."""
    names = [str(v) for v in recording.qc["sensor"].values]
    table = recording.sensors
    if table["sensor"].tolist() == names:
        return table
    table = table.set_index("sensor").reindex(names).reset_index()
    table["kind"] = table["kind"].fillna("sensor")
    return table


def coverage(recording: Recording) -> Iterator[Block]:
    """How much of every parcel lies inside of the recording's mask; the worst by name."""
    share = recording.need("coverage", "the coverage of the parcels", "parcel").astype(float)
    names = np.array([str(v) for v in recording.qc["sensor"].values], object)
    lost = [str(v) for v in recording.attrs.get("lost_labels")
            or recording.qc.attrs.get("lost_labels") or []]  # fmt: skip
    low = int((share < LOW_COVERAGE).sum())
    if lost:
        yield Text(
            f"Lost, without a voxel that has signal: {wording.count(len(lost), 'label')} of the "
            f"atlas: {wording.joined(lost, MAX_LABELS)}.", "warning",
        )  # fmt: skip
    caption = (
        f"Share of every parcel's voxels inside of the recording: median "
        f"{wording.share(float(np.nanmedian(share)), 0)}, {low} of {len(share)} parcels below "
        f"{wording.share(LOW_COVERAGE, 0)}."
    )
    alt = f"Distribution of the coverage of {len(share)} parcels"
    yield qc_time_figures.histograms({"coverage [%]": 100 * share}, (), alt, caption, "parcels")
    order = np.argsort(np.nan_to_num(share, nan=-1.0), kind="stable")[:MAX_PARCELS]
    order = [i for i in order if not share[i] >= 1]
    if not order:
        yield Text("Every parcel lies inside of the recording as a whole.")
        return
    rows = tuple(
        (names[i], Level(wording.share(share[i], 0), float(np.nan_to_num(share[i])),
                         not share[i] >= LOW_COVERAGE))
        for i in order
    )  # fmt: skip
    yield Table("Parcels with the least coverage", (Column("Parcel"), Column("Coverage")), rows)


def betas(recording: Recording) -> Iterator[Block]:
    """What the models of single trials explain, which response shapes they chose, the ceiling."""
    recording.need("r2", "the variance explained by the models of single trials")
    columns, whole = {}, []
    for array, title, factor, is_whole in BETAS:
        values = recording.array(array)
        if values is None or np.isnan(values).all():
            continue
        values = factor * values.astype(float)
        # A sensor without signal has no response shape.
        columns[title] = np.where(values < 0, np.nan, values) if is_whole else values
        whole += [title] if is_whole else []
    medians = ", ".join(
        f"{title.removesuffix(' [%]')} {wording.plain(np.nanmedian(v))}"
        + (" %" if title.endswith("[%]") else "")
        for title, v in columns.items()
        if title not in whole
    )
    n = recording.root.sizes.get("event", 0)
    yield Heading("Single-trial responses")
    caption = f"Models of {wording.count(n, 'event')}, over sensors; medians: {medians}."
    alt = f"Distributions over sensors of: {', '.join(columns)}"
    yield qc_time_figures.histograms(columns, whole, alt, caption)
    for array, title, _, _ in (BETAS[0], BETAS[3]):
        if title not in columns:
            continue
        label = "R²" if array == "r2" else "ceiling"
        drawn = maps.Values(np.clip(columns[title], 0, None)[None], (label,), title, False)
        text = f"{title[:1].upper()}{title[1:].removesuffix(' [%]')}, median "
        text += f"{wording.plain(np.nanmedian(columns[title]))} %."
        yield from maps.sensor_maps(drawn, _in_order(recording), text, recording.grid)
    if BETAS[3][1] not in columns:
        yield Text("No noise ceiling: no stimulus was repeated, or repeats were not asked for.",
                   "note")  # fmt: skip
