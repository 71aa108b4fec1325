"""Panels about the tokens of a recording: what codes keep of it, and what their sources are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from braindecode_pipe.errors import IncompleteStoreError
from braindecode_pipe.report import maps, qc_token_figures, wording
from braindecode_pipe.report.document import Block, Column, Table, Text
from braindecode_pipe.report.recording import Recording
from braindecode_pipe.report.study import group_or_none
from braindecode_pipe.store import read_table, store_attrs

MAX_TRACES = 8
NOTHING_ADDED = 1e-6  # share of power; below it is rounding in float32


def store_of(recording: Recording) -> Path | None:
    """The token store that is shown, None where there is none."""
    return recording.study.inputs.tokens.get(recording.name)


def _group(recording: Recording, name: str) -> xr.Dataset:
    path = store_of(recording)
    dataset = None if path is None else group_or_none(path, name)
    if path is None or dataset is None:
        raise IncompleteStoreError(f"the group {name} of the tokens is missing", file=path)
    return dataset


def numbers(recording: Recording) -> Iterator[Block]:
    """Use of the codes by level, and errors of rebuilding by kind of sensor and band."""
    path = store_of(recording)
    if path is None:
        return
    attrs, usage = store_attrs(path), read_table(path, "usage")
    yield Text(
        f"Windows of {attrs['window_s']:g} s from {wording.count(attrs['n_sensors'], 'sensor')} "
        f"become {attrs['n_sources']} x {attrs['n_steps']} tokens of "
        f"{wording.count(len(usage), 'code')}; a window begins every {attrs['hop_s']:g} s."
    )
    if attrs["sensors_without_position"]:
        yield Text(
            f"{wording.count(attrs['sensors_without_position'], 'sensor')} without position: the "
            "tokenizer takes them to be in the middle and cannot tell them apart.",
            "warning",
        )
    heads = ("Level", "Codes written", "Codebook in use", "Perplexity")
    columns = tuple(Column(head, True) for head in heads)
    rows = tuple(
        (str(row.level), str(row.codes), wording.share(row.used), f"{row.perplexity:.1f}")
        for row in usage.itertuples()
    )
    yield Table("Use of the codes", columns, rows)
    errors = read_table(path, "errors")
    bands = list(dict.fromkeys(errors["band"]))
    table = errors.pivot(index="kind", columns="band", values="error")
    columns = (Column("Kind of sensor"), *(Column(band, True) for band in bands))
    rows = tuple(
        (str(kind), *(f"{table.loc[kind, band]:.2f}" for band in bands))
        for kind in dict.fromkeys(errors["kind"])
    )
    note = "Power of the residual over that of the signal: 0 is a perfect copy, 1 is silence."
    yield Table("Error of what codes rebuild, by band", columns, rows, (note,))
    lost = [str(kind) for kind in table.index if not table.loc[kind, "all"] < 1]
    if lost:
        yield Text(
            f"Of sensors of kind {wording.joined(lost)} the codes rebuild no more than silence "
            "would: the tokenizer has learned too little, or nothing that fits them.",
            "warning",
        )


def rebuilt(recording: Recording) -> Iterator[Block]:
    """A piece of the recording, what the codes rebuild of it, and what is left."""
    excerpt = _group(recording, "excerpt")
    n = excerpt.sizes["sensor"]
    rows = np.unique(np.linspace(0, n - 1, min(n, MAX_TRACES)).astype(int))
    original, copy = (np.asarray(excerpt[k].values, float)[rows] for k in ("original", "rebuilt"))
    time = np.asarray(excerpt["time"].values, float)
    names = [str(v) for v in excerpt["sensor"].values[rows]]
    yield qc_token_figures.rebuilt(
        time, original, copy, names,
        f"Signals of {len(rows)} sensors, what their codes rebuild, and the residual",
        f"{time[-1] - time[0]:.1f} s from the middle: signals as the tokenizer sees them, "
        "standardised in each window (grey), what their codes rebuild (blue), and the residual "
        "(orange), on one scale.",
    )  # fmt: skip


def sources(recording: Recording) -> Iterator[Block]:
    """What each latent source adds to the sensors, the strongest first."""
    found = _group(recording, "sources")
    share = np.asarray(found["share"].values, float)
    if not share.max() > NOTHING_ADDED:
        yield Text("No latent source adds anything that depends on the recording.", "warning")
        return
    order = np.argsort(-share, kind="stable")
    labels = tuple(f"source {i}, {wording.share(share[i])}" for i in order)
    names = [str(v) for v in found["sensor"].values]
    table = recording.sensors.set_index("sensor").loc[names].reset_index()
    values = maps.Values(
        np.asarray(found["pattern"].values, float)[order], labels, "s.d. of a sensor", True
    )
    caption = (
        "Latent sources of the tokenizer, strongest first: the main pattern of what each adds to "
        "the rebuilt signals, and how large its part is, in shares of their power (parts overlap)."
    )
    yield from maps.sensor_maps(values, table, caption, recording.grid)
