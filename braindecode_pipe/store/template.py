"""The template of a store: checked, and turned into array layouts, before a byte is written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from braindecode_pipe.errors import SchemaError
from braindecode_pipe.schema import validate
from braindecode_pipe.store.disk import COMMITTED, MANIFEST
from braindecode_pipe.store.index import METADATA
from braindecode_pipe.store.layout import (
    NUMERIC,
    TEXT,
    ArrayLayout,
    chunk_shape,
    data_type,
    to_json,
)

# xarray gives these attributes a meaning of their own.
_RESERVED = {"coordinates", "_FillValue", "scale_factor", "add_offset", "_ARRAY_DIMENSIONS"}
_NAME = re.compile(r"(?!__)(?!\.*$)[^/\0]+")
_MAIN = {"signal": "time", "response": "event"}
_TIME_FIRST = {"voxel", "vertex", "parcel"}


def plan_groups(templates: Mapping[str, xr.Dataset]) -> dict[str, dict[str, Any]]:
    """Attributes of every group, the root and those between included; datasets are validated."""
    groups: dict[str, dict[str, Any]] = {"": {}}
    for group, dataset in templates.items():
        parts = group.split("/") if group else []
        for part in parts:
            _check_name(part, f"group {group!r}")
        for i in range(1, len(parts)):
            groups.setdefault("/".join(parts[:i]), {})
        if "kind" in dataset.attrs:
            validate(dataset)
        groups.setdefault(group, {}).update(check_attrs(dataset.attrs, group))
        coords = sorted(str(name) for name in dataset.coords if name not in dataset.dims)
        spaced = [name for name in coords if re.search(r"\s", name)]
        if spaced:
            raise SchemaError(
                "the name of a coordinate holds a space",
                expected="names without spaces",
                found=", ".join(map(repr, spaced)),
                remedy="rename it, or make it a data variable",
            )
        if coords:
            groups[group]["coordinates"] = " ".join(coords)
    return groups


def plan_arrays(
    templates: Mapping[str, xr.Dataset], chunks: Mapping[str, int]
) -> dict[str, tuple[ArrayLayout, xr.Variable]]:
    """Layout of every variable, named ``group/variable``, beside its template."""
    for dim, n in chunks.items():
        if type(n) is not int or n < 1:
            raise SchemaError("a chunk length must be a positive int", found=f"{dim}: {n!r}")
    planned: dict[str, tuple[ArrayLayout, xr.Variable]] = {}
    for group, dataset in templates.items():
        for name, variable in dataset.variables.items():
            _check_name(str(name), f"variable in group {group!r}")
            path = f"{group}/{name}".lstrip("/")
            planned[path] = (_layout(path, str(name), variable, dataset, chunks), variable)
    _refuse_collisions([*planned, *(group for group in templates if group)])
    return dict(sorted(planned.items()))


def is_placeholder(variable: xr.Variable) -> bool:
    """Whether a variable of a template holds no values: dask, or broadcast from a single one."""
    if variable.chunks is not None:
        return True
    values = variable.values
    return values.size > 1 and not any(values.strides)


def check_attrs(attrs: Mapping[Any, Any], group: str) -> dict[str, Any]:
    """Attributes as JSON: tuples become lists, numpy scalars Python's.

    Raises
    ------
    SchemaError
        Naming the key, for anything else: arrays, dates, NaN, keys that are no text.
    """
    where = f"group {group!r}" if group else "the root"
    for key in attrs:
        if key in _RESERVED:
            raise SchemaError(f"attribute {key!r} of {where} is reserved for xarray")
    checked = _to_json_value(attrs, where)
    try:
        to_json(checked)
    except UnicodeEncodeError as error:
        raise SchemaError(f"an attribute of {where} is no valid Unicode") from error
    return checked


def _to_json_value(value: Any, where: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return [_to_json_value(item, f"{where}, item {i}") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise SchemaError(
                    f"an attribute of {where} has a key that is no text", found=repr(key)
                )
            result[key] = _to_json_value(item, f"{where}, attribute {key!r}")
        return result
    raise SchemaError(
        f"{where} cannot be stored as JSON",
        expected="text, finite numbers, booleans, None, lists and dicts of these",
        found=f"{type(value).__name__} {value!r}"[:200],
        remedy="store arrays as variables; use None for what is unknown",
    )


def _layout(
    path: str,
    name: str,
    variable: xr.Variable,
    dataset: xr.Dataset,
    chunks: Mapping[str, int],
) -> ArrayLayout:
    kind = dataset.attrs.get("kind")
    dims = tuple(map(str, variable.dims))
    stored = data_type(path, variable.dtype)
    order = tuple(range(len(dims)))
    if stored == TEXT:
        if variable.chunks is not None:
            raise SchemaError(f"text variable {path!r} is backed by dask", expected="numpy")
        itemsize, along, chunks = 4, None, {}
    elif kind == "table":
        itemsize, along, chunks = NUMERIC[stored].itemsize, None, {}
    else:
        itemsize, along = NUMERIC[stored].itemsize, dims[0] if dims else None
    if name == kind and kind in _MAIN:
        # The window reader cuts along one dimension only.
        along = _MAIN[kind]
        chunks = {along: chunks[along]} if along in chunks else {}
        sensors = [str(k) in _TIME_FIRST for k in dataset["kind"].values]
        if kind == "signal" and 2 * sum(sensors) > len(sensors):
            order = (1, 0)
    return ArrayLayout(
        data_type=stored,
        dims=dims,
        shape=tuple(map(int, variable.shape)),
        chunk_shape=chunk_shape(dims, variable.shape, itemsize, along, chunks),
        order=order,
        attrs=check_attrs(variable.attrs, path),
    )


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name) or name in (METADATA, MANIFEST, COMMITTED):
        raise SchemaError(
            f"{what} has a name that a store cannot hold",
            expected="a name without '/', not made of dots, not starting with '__'",
            found=repr(name),
            remedy="rename it",
        )


def _refuse_collisions(paths: list[str]) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        # Some file systems take upper and lower case for the same.
        other = seen.setdefault(path.casefold(), path)
        if other != path or paths.count(path) > 1:
            raise SchemaError(
                "two names of a store differ in case only, or not at all",
                expected="names that differ",
                found=f"{other!r} and {path!r}",
                remedy="rename one of them",
            )
