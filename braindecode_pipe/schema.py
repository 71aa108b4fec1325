"""The data contract: how signals, responses, tables, embeddings, codes ... look as xarray.

Builders make datasets that follow the contract, ``validate`` says where one does not. Nothing here
touches a file. A change of what is written here needs a new ``SCHEMA_VERSION`` and a migration; a
kind of store or sensor that joins changes nothing that is there, and readers without it refuse it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import SchemaError

SCHEMA_VERSION = "1"

KINDS = (
    "signal", "response", "table", "embedding", "tokens", "codes", "tokenizer", "prediction", "qc",
)  # fmt: skip
SENSOR_KINDS = (
    "eeg",
    "mag",
    "grad",
    "ref_meg",
    "seeg",
    "ecog",
    "dbs",
    "voxel",
    "vertex",
    "parcel",
    # A feature of a source that a tokenizer has learned: it lies nowhere.
    "latent",
)
UNITS = ("V", "T", "T/m", "a.u.")
DATA_ORIGINS = ("recorded", "simulated", "mixed")
ROLES = {"unused": 0, "train": 1, "validation": 2, "test": 3, "purged": 4}
_ARRAY = {
    "signal": "signal",
    "response": "response",
    "embedding": "embedding",
    "tokens": "tokens",
    "codes": "codes",
    "prediction": "prediction",
}
_DIMS = {
    "signal": {("sensor", "time")},
    "response": {("event", "sensor"), ("event", "sensor", "time")},
    "embedding": {("stimulus", "feature"), ("stimulus", "step", "feature")},
    "tokens": {("window", "token", "feature")},
    "codes": {("window", "token", "quantizer")},
    "prediction": {("query", "feature")},
}
_TYPES = {"codes": np.int16}
# Coordinates that name the rows, and whether a name may come twice.
_IDS = {
    "response": {"event": True},
    "embedding": {"stimulus": True},
    "prediction": {"event": False, "stimulus": False},
}


def join_data_origin(*origins: str) -> str:
    """Origin of something made from several parts: equal parts keep it, others are ``mixed``."""
    found = set(origins)
    if not found or not found <= set(DATA_ORIGINS):
        raise SchemaError(
            "unknown data_origin", expected=" | ".join(DATA_ORIGINS), found=str(sorted(found))
        )
    return found.pop() if len(found) == 1 else "mixed"


def sensor_coords(
    names: list[str],
    kind: list[str] | str,
    unit: list[str] | str,
    position: np.ndarray | None = None,
    orientation: np.ndarray | None = None,
    good: np.ndarray | None = None,
    **extra: np.ndarray | list[str],
) -> dict[str, Any]:
    """Coordinates of the dimension ``sensor``.

    Parameters
    ----------
    names : list of str, length ``n_sensors``
    kind, unit : str or list of str
        From ``SENSOR_KINDS`` and ``UNITS``.
    position : (n_sensors, 3) [m], NaN where unknown
    orientation : (n_sensors, 3) unit vectors, zeros where there is none
    good : (n_sensors,) bool
    **extra
        Further columns: ``roi``, ``hemisphere`` (str), ``ijk`` (n_sensors, 3) int.

    Raises
    ------
    SchemaError
        When names repeat, or a column has another length.
    """
    n = len(names)
    _refuse_repeats("sensor names", names)
    as_list = lambda value: [value] * n if isinstance(value, str) else list(value)  # noqa: E731
    xyz = np.full((n, 3), np.nan) if position is None else np.asarray(position, float)
    ori = np.zeros((n, 3)) if orientation is None else np.asarray(orientation, float)
    coords: dict[str, Any] = {
        "sensor": ("sensor", np.asarray(names, dtype=object)),
        "kind": ("sensor", np.asarray(as_list(kind), dtype=object)),
        "unit": ("sensor", np.asarray(as_list(unit), dtype=object)),
        "position": (("sensor", "axis"), xyz),
        "orientation": (("sensor", "axis"), ori),
        "sensor_good": ("sensor", np.ones(n, bool) if good is None else np.asarray(good, bool)),
    }
    for name, values in extra.items():
        values = np.asarray(values, dtype=object if isinstance(values, list) else None)
        coords[name] = (("sensor", "axis") if values.ndim == 2 else "sensor", values)
    for name, (_, values) in coords.items():
        if values.shape not in ((n,), (n, 3)):
            raise SchemaError(
                f"sensor column {name!r} has the wrong shape",
                expected=f"({n},) or ({n}, 3)",
                found=str(values.shape),
            )
    return coords


def signal_dataset(
    data: Any,
    sensors: Mapping[str, Any],
    times: np.ndarray,
    attrs: Mapping[str, Any],
    time_good: np.ndarray | None = None,
) -> xr.Dataset:
    """A ``signal`` dataset.

    Parameters
    ----------
    data : (n_sensors, n_times) float32, numpy or dask
    sensors : result of :func:`sensor_coords`
    times : (n_times,) [s], first sample at ``attrs["first_time"]``
    attrs : must hold ``data_origin`` and ``sfreq`` [Hz] (``t_r`` [s] for BOLD beside it)
    time_good : (n_times,) bool, False where samples are scrubbed or annotated as bad
    """
    good = np.ones(len(times), bool) if time_good is None else np.asarray(time_good, bool)
    dataset = _build(
        {"signal": (("sensor", "time"), data)},
        coords={**sensors, "time": ("time", np.asarray(times, float)), "time_good": ("time", good)},
        attrs={"schema_version": SCHEMA_VERSION, "kind": "signal", **attrs},
    )
    validate(dataset)
    return dataset


def response_dataset(
    data: Any,
    sensors: Mapping[str, Any],
    events: list[str],
    attrs: Mapping[str, Any],
    times: np.ndarray | None = None,
) -> xr.Dataset:
    """A ``response`` dataset: ``(n_events, n_sensors[, n_times])`` float32."""
    dims = ("event", "sensor") if times is None else ("event", "sensor", "time")
    coords: dict[str, Any] = {**sensors, "event": ("event", np.asarray(events, dtype=object))}
    if times is not None:
        coords["time"] = ("time", np.asarray(times, float))
    dataset = _build(
        {"response": (dims, data)},
        coords=coords,
        attrs={"schema_version": SCHEMA_VERSION, "kind": "response", **attrs},
    )
    validate(dataset)
    return dataset


def embedding_dataset(
    data: np.ndarray,
    stimuli: list[str],
    attrs: Mapping[str, Any],
    step_times: np.ndarray | None = None,
) -> xr.Dataset:
    """An ``embedding``: ``(n_stimuli, n_features)`` or ``(n_stimuli, n_steps, n_features)``."""
    dims = ("stimulus", "feature") if step_times is None else ("stimulus", "step", "feature")
    coords: dict[str, Any] = {"stimulus": ("stimulus", np.asarray(stimuli, dtype=object))}
    if step_times is not None:
        coords["step_time"] = ("step", np.asarray(step_times, float))
    dataset = _build(
        {"embedding": (dims, np.asarray(data, np.float32))},
        coords=coords,
        attrs={"schema_version": SCHEMA_VERSION, "kind": "embedding", **attrs},
    )
    validate(dataset)
    return dataset


def codes_dataset(
    data: Any, times: np.ndarray, good: np.ndarray, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Windows of a recording as ``codes``, or as ``tokens`` where the values are float32.

    Parameters
    ----------
    data : (n_windows, n_tokens, n_quantizers) int16, or (n_windows, n_tokens, n_features) float32
        Token ``i * n_steps + j`` is step ``j`` of source ``i``.
    times : (n_windows,) [s], begin of each window
    good : (n_windows,) bool, False where a window holds samples that are marked bad
    attrs : must hold ``data_origin``, ``sfreq`` [Hz] of the recording, ``window_s`` and ``hop_s``
    """
    kind, last = ("codes", "quantizer") if data.dtype == np.int16 else ("tokens", "feature")
    dataset = _build(
        {kind: (("window", "token", last), data)},
        coords={
            "window_time": ("window", np.asarray(times, float)),
            "window_good": ("window", np.asarray(good, bool)),
        },
        attrs={"schema_version": SCHEMA_VERSION, "kind": kind, **attrs},
    )
    validate(dataset)
    return dataset


def prediction_dataset(
    data: np.ndarray, events: list[str], stimuli: list[str], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """A ``prediction``: ``(n_queries, n_features)`` with the event and true stimulus of each.

    ``attrs`` holds fold, subject, decoder, embedding, target, checkpoint, data_origin.
    """
    dataset = _build(
        {"prediction": (("query", "feature"), np.asarray(data, np.float32))},
        coords={
            "event": ("query", np.asarray(events, dtype=object)),
            "stimulus": ("query", np.asarray(stimuli, dtype=object)),
        },
        attrs={"schema_version": SCHEMA_VERSION, "kind": "prediction", **attrs},
    )
    validate(dataset)
    return dataset


def table_to_dataset(
    table: pd.DataFrame, dim: str, attrs: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """A table as a dataset: one variable per column along ``dim``.

    Columns become float64, int64, bool or text. Missing values are NaN in numbers (which makes
    integers floats) and ``""`` in text; a column of booleans with missing values becomes text.
    """
    _refuse_repeats("columns", [str(name) for name in table.columns])
    variables = {}
    for name in table.columns:
        column = table[name]
        whole = not column.isna().any()
        if pd.api.types.is_bool_dtype(column) and whole:
            values: np.ndarray = column.to_numpy(bool)
        elif pd.api.types.is_integer_dtype(column) and whole:
            values = column.to_numpy(np.int64)
        elif pd.api.types.is_float_dtype(column) or pd.api.types.is_integer_dtype(column):
            values = column.to_numpy(np.float64, na_value=np.nan)
        else:
            values = column.map(lambda cell: "" if pd.isna(cell) else str(cell)).to_numpy(object)
        variables[str(name)] = (dim, values)
    return xr.Dataset(
        variables,
        attrs={
            "schema_version": SCHEMA_VERSION,
            "kind": "table",
            "dim": dim,
            "columns": [str(c) for c in table.columns],
            **(attrs or {}),
        },
    )


def dataset_to_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Inverse of :func:`table_to_dataset`; text columns come back as Python strings."""
    columns = {}
    for name in dataset.attrs["columns"]:
        values = np.asarray(dataset[name].values)
        if values.dtype.kind in "OUT":
            columns[name] = pd.Series([str(v) for v in values], dtype=object)
        else:
            columns[name] = pd.Series(values)
    return pd.DataFrame(columns)


def validate(dataset: xr.Dataset) -> None:
    """Raise :class:`SchemaError` where ``dataset`` does not follow the contract."""
    kind = dataset.attrs.get("kind")
    if kind not in KINDS:
        raise SchemaError("unknown kind", expected=" | ".join(KINDS), found=repr(kind))
    if dataset.attrs.get("schema_version") != SCHEMA_VERSION:
        raise SchemaError(
            "other version of the data contract",
            expected=SCHEMA_VERSION,
            found=repr(dataset.attrs.get("schema_version")),
            remedy="run the stage again, or read it with the version that wrote it",
        )
    if kind not in _ARRAY:
        return
    name = _ARRAY[kind]
    if name not in dataset:
        raise SchemaError(f"{kind} without its array", expected=name, found=str(list(dataset)))
    array = dataset[name]
    if tuple(array.dims) not in _DIMS[kind]:
        raise SchemaError(
            f"{kind} with wrong dimensions",
            expected=" or ".join(map(str, sorted(_DIMS[kind]))),
            found=str(tuple(array.dims)),
        )
    dtype = np.dtype(_TYPES.get(kind, np.float32))
    if array.dtype != dtype:
        raise SchemaError(f"{kind} has the wrong type", expected=str(dtype), found=str(array.dtype))
    if dataset.attrs.get("data_origin") not in DATA_ORIGINS:
        raise SchemaError(
            f"{kind} without data_origin",
            expected=" | ".join(DATA_ORIGINS),
            found=repr(dataset.attrs.get("data_origin")),
        )
    for name, unique in _IDS.get(kind, {}).items():
        if name not in dataset.coords or dataset[name].dims != array.dims[:1]:
            raise SchemaError(
                f"{kind} without ids",
                expected=f"coordinate {name!r} along {array.dims[0]!r}",
                found=str(sorted(map(str, dataset.coords))),
            )
        if unique:
            _refuse_repeats(f"ids of {name}", [str(v) for v in dataset[name].values])
    if kind in ("signal", "response"):
        _validate_sensors(dataset)
        _validate_times(dataset, array)
    if kind in ("tokens", "codes"):
        _validate_windows(dataset)


def _validate_sensors(dataset: xr.Dataset) -> None:
    for name in ("sensor", "kind", "unit", "position", "orientation", "sensor_good"):
        if name not in dataset.coords:
            raise SchemaError("sensor coordinate is missing", expected=name, found="nothing")
        if dataset[name].dims[0] != "sensor":
            raise SchemaError(
                f"sensor coordinate {name!r} lies along another dimension",
                expected="sensor",
                found=str(dataset[name].dims),
            )
    for name, known in (("kind", SENSOR_KINDS), ("unit", UNITS)):
        unknown = set(map(str, dataset[name].values)) - set(known)
        if unknown:
            raise SchemaError(
                f"unknown {name} of sensor", expected=" | ".join(known), found=str(sorted(unknown))
            )
    for name in ("position", "orientation"):
        if dataset[name].shape[1:] != (3,):
            raise SchemaError(
                f"sensor coordinate {name!r} has the wrong shape",
                expected="(n_sensors, 3)",
                found=str(dataset[name].shape),
            )


def _validate_times(dataset: xr.Dataset, array: xr.DataArray) -> None:
    if "time" not in array.dims:
        return
    sfreq = dataset.attrs.get("sfreq")
    if not isinstance(sfreq, (int, float, np.number)) or not 0 < sfreq < np.inf:
        raise SchemaError("no sampling rate", expected="attrs['sfreq'] > 0 [Hz]", found=repr(sfreq))
    if "time" not in dataset.coords:
        raise SchemaError("no times", expected="coordinate 'time' [s]", found="nothing")
    steps = np.diff(dataset["time"].values)
    if not (steps > 0).all():
        raise SchemaError(
            "times do not increase",
            expected="every sample later than the one before",
            found=f"{int((~(steps > 0)).sum())} steps that are not positive, or NaN",
        )


def _validate_windows(dataset: xr.Dataset) -> None:
    """Windows begin at known times, and are cut in a way that is told."""
    for name in ("window_s", "hop_s", "sfreq"):
        value = dataset.attrs.get(name)
        if not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
            raise SchemaError("windows without their cut", expected=f"attrs[{name!r}] > 0",
                              found=repr(value))  # fmt: skip
    for name in ("window_time", "window_good"):
        if name not in dataset.coords or dataset[name].dims != ("window",):
            raise SchemaError("windows without their times", expected=f"{name!r} along 'window'",
                              found=str(sorted(map(str, dataset.coords))))  # fmt: skip


def _refuse_repeats(what: str, names: list[str]) -> None:
    twice = sorted(str(name) for name, n in Counter(names).items() if n > 1)
    if twice:
        shown = ", ".join(twice[:10]) + (f" and {len(twice) - 10} more" if len(twice) > 10 else "")
        raise SchemaError(f"{what} repeat", expected="unique names", found=shown)


def _build(variables: Mapping, coords: Mapping, attrs: Mapping) -> xr.Dataset:
    try:
        return xr.Dataset(variables, coords=coords, attrs=attrs)
    except ValueError as error:
        raise SchemaError(
            "arrays that do not fit each other", expected="equal lengths", found=str(error)
        ) from error
