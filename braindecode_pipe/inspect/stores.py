"""What a store holds, in words; and the events of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from braindecode_pipe.errors import MissingFileError
from braindecode_pipe.schema import dataset_to_table
from braindecode_pipe.store import (
    is_committed,
    list_extra_files,
    list_groups,
    open_store,
    read_table,
    store_attrs,
)

_LONGEST = 160
_ARRAYS = ("signal", "response")
# Shown in other words, or too long to be read.
_HIDDEN = ("kind", "schema_version", "columns", "dim", "info", "steps", "warnings", "coordinates")


def find_stores(path: str | Path) -> list[Path]:
    """The store at ``path``, or all stores in the folder ``path``, finished or not.

    Raises
    ------
    MissingFileError
        There is none.
    """
    path = Path(path)
    if path.suffix == ".zarr" or is_committed(path):
        return [path]
    stores = [folder for folder in sorted(path.rglob("*.zarr")) if folder.is_dir()]
    if not stores:
        raise MissingFileError(
            "there is no store",
            file=path,
            expected="a store (NAME.zarr), or a folder that holds some, as `run` writes them",
            found="a folder without stores" if path.is_dir() else "nothing",
        )
    return stores


def open_events(path: str | Path) -> pd.DataFrame:
    """Event table of a study: one row per event, with onset [s], duration [s] and stimulus ids.

    Parameters
    ----------
    path : path
        A plan store, or the folder of a run, of which the plan that was written last is taken.

    Raises
    ------
    MissingFileError
        There is no plan store.
    """
    path = Path(path)
    if not is_committed(path):
        plans = [store for store in path.glob("plan/*/*.zarr") if is_committed(store)]
        if not plans:
            raise MissingFileError(
                "there is no plan",
                file=path,
                expected="a plan store, or the folder of a run with plan/ in it",
                found="a folder without one" if path.is_dir() else "nothing",
                remedy="`braindecode-pipe plan RECIPE --data DIR --out DIR` writes it",
            )
        path = max(plans, key=lambda store: (store / "COMMITTED").stat().st_mtime_ns)
    return read_table(path, "events")


def inspect_store(path: str | Path) -> RenderableType:
    """Dimensions, sensors, quality and attributes of a store, for a console.

    A folder that holds stores gives a list of them.
    """
    path = Path(path)
    stores = find_stores(path)
    if stores != [path]:
        return _list(stores, path)
    parts: list[RenderableType] = [Text(str(path), style="bold")]
    for group in list_groups(path):
        dataset = open_store(path, group)
        kind = str(dataset.attrs.get("kind", ""))
        parts += [Text(""), Text(f"{group or 'root'}: {kind}".rstrip(": "), style="bold")]
        parts += [Text(line) for line in _lines(dataset, kind)]
        for name, value in sorted(dataset.attrs.items()):
            if name not in _HIDDEN:
                parts.append(Text(f"  {name} = {_short(value)}", style="dim"))
    files = list_extra_files(path)
    if files:
        parts += [Text(""), Text("files", style="bold"), Text("  " + ", ".join(files))]
    return Group(*parts)


def _list(stores: list[Path], root: Path) -> Table:
    table = Table("store", "kind", "size", box=None, pad_edge=False, header_style="bold")
    for store in stores:
        size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        kind = "incomplete"
        if is_committed(store):
            kinds = {str(store_attrs(store, group).get("kind", "")) for group in list_groups(store)}
            root_kind = str(store_attrs(store).get("kind", ""))
            kind = root_kind or ", ".join(sorted(kinds - {""}))
        table.add_row(Text(store.relative_to(root).as_posix()), Text(kind), _bytes(size))
    return table


def _lines(dataset: xr.Dataset, kind: str) -> Iterator[str]:
    attrs = dataset.attrs
    if kind == "table" and "columns" in attrs:
        n = next(iter(dataset.sizes.values()), 0)
        yield f"  {n} rows: {', '.join(map(str, attrs.get('columns', [])))}"
        yield from _codes(dataset)
    else:
        for name, array in dataset.data_vars.items():
            dims = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
            yield f"  {name} ({dims}) {array.dtype}"
    if kind in _ARRAYS:
        yield from _sensors(dataset)
        yield from _time(dataset)
    if kind == "qc" or "bad_reason" in dataset:
        yield from _quality(dataset)
    for name in ("steps", "warnings"):
        for line in attrs.get(name, []):
            yield f"  {name[:-1]}: {line}"


def _codes(dataset: xr.Dataset) -> Iterator[str]:
    """How evenly a tokenizer uses its codes, and what it gets wrong: the rows of such tables."""
    columns = set(dataset.attrs["columns"])
    rows = dataset_to_table(dataset).itertuples() if columns & {"perplexity", "band"} else ()
    for row in rows:
        if "perplexity" in columns:
            yield (f"  level {row.level}: perplexity {row.perplexity:.1f}, {row.used:.1%} of the "
                   f"codebook in use, {row.codes} codes")  # fmt: skip
        elif "error" in columns:
            yield (f"  {row.kind}, {row.band} ({row.low:g} to {row.high:g} Hz): error of "
                   f"rebuilding {row.error:.2f}")  # fmt: skip


def _sensors(dataset: xr.Dataset) -> Iterator[str]:
    table = pd.DataFrame({name: dataset[name].values for name in ("kind", "unit", "sensor_good")})
    placed = np.isfinite(dataset["position"].values).all(axis=1)
    for (kind, unit), part in table.groupby(["kind", "unit"]):
        bad = int((~part["sensor_good"].astype(bool)).sum())
        known = int(placed[part.index].sum())
        yield f"  {len(part)} {kind} [{unit}], {bad} bad, {known} with a position"


def _time(dataset: xr.Dataset) -> Iterator[str]:
    if "time" not in dataset.sizes or "sfreq" not in dataset.attrs:
        return
    n, sfreq = dataset.sizes["time"], float(dataset.attrs["sfreq"])
    times = dataset["time"].values
    good = ""
    if "time_good" in dataset.coords:
        good = f", {float(np.mean(dataset['time_good'].values)):.1%} of it good"
    yield f"  {sfreq:g} Hz, {n / sfreq:.1f} s from {float(times[0]):g} s{good}"


def _quality(dataset: xr.Dataset) -> Iterator[str]:
    if "bad_reason" in dataset:
        reasons = dataset["bad_reason"]
        names = dataset["sensor"].values if "sensor" in dataset.coords else range(reasons.size)
        bad = [f"{name} ({why})" for name, why in zip(names, reasons.values) if str(why)]
        yield f"  bad sensors: {', '.join(bad[:12]) or 'none'}" + (
            f" and {len(bad) - 12} more" if len(bad) > 12 else ""
        )
    for name in ("tsnr", "framewise_displacement", "amplitude"):
        if name in dataset:
            values = np.asarray(dataset[name].values, float)
            values = values[np.isfinite(values)]
            if len(values):
                yield f"  {name}: median {np.median(values):.3g}, largest {values.max():.3g}"


def _short(value: Any) -> str:
    text = str(value).replace("\n", " ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
