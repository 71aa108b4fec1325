"""Sections 4 and 5: how the networks learned, and what the linear decoders read from where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.recipe import Network
from braindecode_pipe.report import figures, maps, wording
from braindecode_pipe.report.document import Block, Section, Text, attempt
from braindecode_pipe.report.study import (
    Study,
    group_or_none,
    require,
    table_or_none,
)
from braindecode_pipe.store import open_store

MAX_PEOPLE = 3


def learning_section(study: Study) -> Section:
    """Loss and validation accuracy of every network over its epochs."""
    blocks: list[Block] = []
    for embedding in study.inputs.predictions:
        blocks += attempt(f"learning curves, {embedding}", _learning, study, embedding)
    if not blocks:
        blocks.append(Text("No network was trained: the decoders of this study have no epochs."))
    return Section("learning", "Learning curves", tuple(blocks))


def _learning(study: Study, embedding: str) -> Iterator[Block]:
    logs: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for path, attrs in study.predictions(embedding):
        log = table_or_none(path, "log")
        decoder = str(attrs.get("base_decoder") or attrs.get("decoder", ""))
        if attrs.get("role") == "piece":
            continue
        if log is not None:
            logs[decoder].append(log)
        elif decoder in get_args(Network):
            require(None, "the training log of a network", path)
    for decoder, found in logs.items():
        yield from attempt(f"learning curve of {decoder}", _curve, embedding, decoder, found)


def _curve(embedding: str, decoder: str, logs: list[pd.DataFrame]) -> Block:
    name = wording.decoder_name(decoder)
    epochs = [len(log) for log in logs]
    span = " to ".join(map(str, sorted({min(epochs), max(epochs)})))
    caption = (
        f"{name[:1].upper()}{name[1:]} into “{embedding}”, "
        f"{wording.count(len(logs), 'fit')} of {span} epochs."
    )
    last = np.nanmedian([float(log["train_loss"].iloc[-1]) for log in logs])
    alt = f"Learning curves of the {name}: median training loss at the end {wording.plain(last)}"
    return figures.learning(logs, alt, caption)


def maps_section(study: Study) -> Section:
    """What the linear decoders read from where, and the response delay."""
    blocks: list[Block] = []
    for embedding in study.inputs.predictions:
        blocks += attempt(f"delay, {embedding}", _delays, study, embedding)
        blocks += attempt(f"maps, {embedding}", _patterns, study, embedding)
    if not blocks:
        text = "No linear decoder was fitted, so there are no patterns to map."
        blocks.append(Text(text))
    return Section("maps", "Sensors and brain", tuple(blocks))


def _delays(study: Study, embedding: str) -> Iterator[Block]:
    curves: dict[tuple, tuple] = {}
    short = wording.distinct([str(a.get("fold", "")) for _, a in study.predictions(embedding)])
    for path, attrs in study.predictions(embedding):
        table = table_or_none(path, "delay")
        if table is None:
            continue
        chosen = wording.number(attrs.get("delay_s"))
        subject, fold = str(attrs.get("subject", "")), str(attrs.get("fold", ""))
        # Every decoder of a fold estimates the same delay from the same training runs.
        label = " ".join(filter(None, (subject, short[fold])))
        curves.setdefault((subject, fold), (label, table, chosen))
    if not curves:
        return
    delays = sorted({chosen for _, _, chosen in curves.values()})
    found = ", ".join(f"{d:g} s" for d in delays)
    caption = (
        "Response delay, estimated on the training runs from stimulus versus rest, never from "
        f"labels: correlation at each delay, and the delay that was used ({found})."
    )
    alt = f"Correlation by delay for {wording.count(len(curves), 'fold')}; chosen {found}"
    yield maps.delay(list(curves.values()), alt, caption)


def _patterns(study: Study, embedding: str) -> Iterator[Block]:
    """Mean pattern over the folds of each (decoder, person)."""
    found: dict[tuple[str, str], list] = defaultdict(list)
    for path, attrs in study.predictions(embedding):
        dataset = group_or_none(path, "pattern")
        if dataset is not None and attrs.get("role") != "piece":
            key = (str(attrs.get("subject", "")), str(attrs.get("decoder", "")))
            in_time = int(attrs.get("n_times") or 1) > 1
            found[key].append(dataset if in_time else dataset.drop_vars("time", errors="ignore"))
    decoders = sorted({decoder for _, decoder in found})
    shown = sorted(key for key in found if key[1] == _preferred(decoders))
    for subject, decoder in shown[:MAX_PEOPLE]:
        title = f"pattern of {decoder} of person {subject}"
        yield from attempt(title, _pattern, study, subject, decoder, found[subject, decoder])
    if len(shown) > MAX_PEOPLE:
        yield Text(f"The first {MAX_PEOPLE} of {len(shown)} people are shown.", "note")


def _preferred(decoders: list[str]) -> str:
    return "ridge" if "ridge" in decoders else (decoders or [""])[0]


def _pattern(study: Study, subject: str, decoder: str, folds: list) -> Iterator[Block]:
    names = [str(v) for v in np.asarray(folds[0]["sensor"].values)]
    labels = [str(v) for v in np.asarray(folds[0]["component"].values)]
    same = [
        d
        for d in folds
        if [str(v) for v in d["sensor"].values] == names
        and [str(v) for v in d["component"].values] == labels
    ]
    values = np.mean([np.asarray(d["pattern"].values, float) for d in same], axis=0)
    recording = _recording_of(study, subject)
    path = study.inputs.signals[recording]
    if names[0] not in set(sensor_table(path)[0]["sensor"]):
        path = study.inputs.tokens.get(recording, path)
    sensors, grid = sensor_table(path)
    background = mean_image(path, sensors["sensor"].tolist())
    position = {name: i for i, name in enumerate(sensors["sensor"])}
    lacking = [name for name in names if name not in position]
    require(None if lacking else names, f"the position of sensor {lacking[:1]}", path)
    rows = np.array([position[name] for name in names])
    who = f" of person {subject}" if subject else ""
    caption = (
        f"Haufe patterns of the {wording.decoder_name(decoder)} decoder{who}, "
        f"mean over {wording.count(len(same), 'fold')}."
    )
    if "time" in same[0]:
        peak = np.mean([np.asarray(d["time"].values, float) for d in same], axis=0)
        labels = [f"{label}, {1e3 * t:.0f} ms" for label, t in zip(labels, peak)]
        caption += " Each at its largest, at the time given (mean over the folds)."
    signed = bool((values < 0).any())
    mapped = maps.Values(values, tuple(labels), "pattern [a.u.]", signed)
    under = None if background is None else background[rows]
    yield from maps.sensor_maps(mapped, sensors.iloc[rows], caption, grid, under)


def _recording_of(study: Study, subject: str) -> str:
    """A recording of the person whose store is there; any where people are pooled."""
    table = study.recordings
    if subject and subject != "all":
        table = table[table["subject"].astype(str) == subject]
    names = [str(r) for r in table["recording"] if str(r) in study.inputs.signals]
    require(names or None, f"a signal store of person {subject or 'any'}")
    return names[0]


def sensor_table(
    path: str | Path, dataset: xr.Dataset | None = None
) -> tuple[pd.DataFrame, maps.Grid | None]:
    """Sensors of a signal store and the voxel grid where there is one.

    Parameters
    ----------
    path : the store
    dataset : its root, where it is open already

    Returns
    -------
    sensors : DataFrame with sensor, kind, unit, x, y, z [m], good, and i, j, k for voxels
    grid : maps.Grid or None
    """
    dataset = open_store(path) if dataset is None else dataset
    position = np.asarray(dataset["position"].values, float)
    table = pd.DataFrame(
        {
            "sensor": [str(v) for v in dataset["sensor"].values],
            "kind": [str(v) for v in dataset["kind"].values],
            "unit": [str(v) for v in dataset["unit"].values],
            "x": position[:, 0],
            "y": position[:, 1],
            "z": position[:, 2],
            "good": np.asarray(dataset["sensor_good"].values, bool),
        }
    )
    attrs = dataset.attrs
    grid = None
    if "ijk" in dataset.coords and "affine" in attrs:
        ijk = np.asarray(dataset["ijk"].values, int)
        table = table.assign(i=ijk[:, 0], j=ijk[:, 1], k=ijk[:, 2])
        shape = tuple(int(n) for n in attrs["grid_shape"])
        grid = maps.Grid(shape, np.asarray(attrs["affine"], float))
    return table, grid


def mean_image(path: str | Path, names: list[str]) -> np.ndarray | None:
    """(n_sensors,) mean over time, or tSNR, of the quality group; None where it has neither."""
    quality = group_or_none(path, "qc")
    found = [] if quality is None else [name for name in ("mean", "tsnr") if name in quality]
    if not found or [str(v) for v in quality["sensor"].values] != names:
        return None
    return np.asarray(quality[found[0]].values, float)
