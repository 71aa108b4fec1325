"""The data contract: what builders make, and what validate refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from braindecode_pipe.errors import SchemaError
from braindecode_pipe.schema import (
    SENSOR_KINDS,
    UNITS,
    codes_dataset,
    dataset_to_table,
    embedding_dataset,
    join_data_origin,
    prediction_dataset,
    response_dataset,
    sensor_coords,
    signal_dataset,
    table_to_dataset,
    validate,
)

ATTRS = {"sfreq": 10.0, "data_origin": "recorded"}


def make_signal(**attrs) -> xr.Dataset:
    data = np.zeros((2, 5), np.float32)
    sensors = sensor_coords(["Cz", "Pz"], "eeg", "V")
    return signal_dataset(data, sensors, np.arange(5) / 10, {**ATTRS, **attrs})


def make_response() -> xr.Dataset:
    sensors = sensor_coords(["Cz", "Pz"], "eeg", "V")
    return response_dataset(np.zeros((3, 2), np.float32), sensors, ["a", "b", "c"], ATTRS)


def make_embedding() -> xr.Dataset:
    return embedding_dataset(np.zeros((2, 4)), ["a", "b"], {"data_origin": "recorded"})


def make_prediction() -> xr.Dataset:
    return prediction_dataset(
        np.zeros((2, 4)), ["e1", "e2"], ["a", "a"], {"data_origin": "recorded"}
    )


def make_codes(dtype=np.int16) -> xr.Dataset:
    attrs = {"sfreq": 256.0, "window_s": 2.0, "hop_s": 1.5, "data_origin": "simulated"}
    return codes_dataset(np.zeros((3, 8, 4), dtype), 1.5 * np.arange(3), np.ones(3, bool), attrs)


def make_tokens() -> xr.Dataset:
    return make_codes(np.float32)


MAKERS = [
    make_signal, make_response, make_embedding, make_prediction, make_codes, make_tokens,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_builders_follow_the_contract(make):
    dataset = make()
    validate(dataset)
    kind = dataset.attrs["kind"]
    assert dataset[kind].dtype == (np.int16 if kind == "codes" else np.float32)


def test_windows_of_codes_know_where_they_are():
    assert make_codes()["codes"].dims == ("window", "token", "quantizer")
    assert make_tokens()["tokens"].dims == ("window", "token", "feature")
    with pytest.raises(SchemaError, match="'window_time' along 'window'"):
        validate(make_codes().drop_vars("window_time"))
    for name in ("window_s", "hop_s", "sfreq"):
        with pytest.raises(SchemaError, match=f"attrs.*{name}.* > 0"):
            validate(make_codes().assign_attrs({name: 0.0}))


@pytest.mark.parametrize("make", MAKERS)
def test_every_part_of_the_contract_is_checked(make):
    dataset = make()
    kind = dataset.attrs["kind"]
    for change, text in [
        (dataset.assign_attrs(kind="picture"), "unknown kind"),
        (dataset.assign_attrs(schema_version="0"), "other version"),
        (dataset.assign_attrs(data_origin="dreamt"), "without data_origin"),
        (dataset.drop_vars(kind), "without its array"),
        (dataset.assign({kind: dataset[kind].astype(float)}), "wrong type"),
        (dataset.assign({kind: dataset[kind].transpose()}), "wrong dimensions"),
    ]:
        with pytest.raises(SchemaError, match=text):
            validate(change)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make_response, "event"),
        (make_embedding, "stimulus"),
        (make_prediction, "event"),
        (make_prediction, "stimulus"),
    ],
)
def test_rows_have_ids(make, name):
    with pytest.raises(SchemaError, match=f"coordinate '{name}'"):
        validate(make().drop_vars(name))


def test_ids_repeat_only_where_they_may():
    prediction_dataset(np.zeros((2, 4)), ["e", "e"], ["a", "a"], {"data_origin": "recorded"})
    with pytest.raises(SchemaError, match=r"ids of stimulus repeat[\s\S]*found: a$"):
        embedding_dataset(np.zeros((2, 4)), ["a", "a"], {"data_origin": "recorded"})
    with pytest.raises(SchemaError, match="ids of event repeat"):
        validate(make_response().assign_coords(event=["a", "b", "a"]))


@pytest.mark.parametrize(
    "name", ["sensor", "kind", "unit", "position", "orientation", "sensor_good"]
)
@pytest.mark.parametrize("make", [make_signal, make_response])
def test_sensor_coordinates_are_needed(make, name):
    with pytest.raises(SchemaError, match=rf"sensor coordinate is missing[\s\S]*{name}"):
        validate(make().drop_vars(name))


@pytest.mark.parametrize("kind", SENSOR_KINDS)
@pytest.mark.parametrize("unit", UNITS)
def test_all_kinds_and_units_of_sensors(kind, unit):
    data = np.zeros((1, 2), np.float32)
    signal_dataset(data, sensor_coords(["a"], kind, unit), [0.0, 0.1], ATTRS)


@pytest.mark.parametrize(("name", "value"), [("kind", "EEG"), ("unit", "uV")])
def test_unknown_kinds_and_units(name, value):
    with pytest.raises(SchemaError, match=rf"unknown {name} of sensor[\s\S]*found: \['{value}'\]"):
        validate(make_signal().assign_coords({name: ("sensor", [value, value])}))


def test_sensor_names_repeat():
    with pytest.raises(SchemaError, match=r"sensor names repeat[\s\S]*found: A, B"):
        sensor_coords(["A", "B", "C", "B", "A"], "eeg", "V")
    with pytest.raises(SchemaError, match="and 90 more"):
        sensor_coords([f"{i:03d}" for i in range(100)] * 2, "eeg", "V")


@pytest.mark.parametrize(
    "columns",
    [
        {"kind": ["eeg"]},
        {"position": np.zeros((2, 2))},
        {"position": np.zeros((3, 3))},
        {"good": [True]},
        {"roi": ["V1"]},
        {"ijk": np.zeros((3, 3), int)},
    ],
)
def test_sensor_columns_of_another_length(columns):
    columns = {"kind": "eeg", "unit": "V", **columns}
    with pytest.raises(SchemaError, match="wrong shape"):
        sensor_coords(["A", "B"], **columns)


@pytest.mark.parametrize("sfreq", [None, 0.0, -1.0, float("inf"), float("nan"), "10"])
def test_sampling_rates(sfreq):
    with pytest.raises(SchemaError, match="no sampling rate"):
        make_signal(sfreq=sfreq)


@pytest.mark.parametrize("times", [[0, 0, 1, 2, 3], [4, 3, 2, 1, 0], [0, 1, np.nan, 3, 4]])
def test_times_increase(times):
    with pytest.raises(SchemaError, match="times do not increase"):
        validate(make_signal().assign_coords(time=np.asarray(times, float)))


def test_arrays_of_different_lengths():
    sensors = sensor_coords(["Cz", "Pz"], "eeg", "V")
    with pytest.raises(SchemaError, match="do not fit each other"):
        signal_dataset(np.zeros((3, 5), np.float32), sensors, np.arange(5) / 10, ATTRS)
    with pytest.raises(SchemaError, match="do not fit each other"):
        embedding_dataset(np.zeros((2, 4)), ["a"], {"data_origin": "recorded"})


def test_tables_come_back():
    table = pd.DataFrame(
        {
            "event": ["e1", "e2", "e2"],
            "onset": [0.5, np.nan, 2.0],
            "n": np.array([1, 2, 3], np.int16),
            "good": [True, False, True],
            "mixed": [1, "a", None],
            "level": pd.Categorical(["x", "y", "x"]),
        }
    )
    read = dataset_to_table(table_to_dataset(table, "event"))
    assert list(read) == list(table)
    assert read.dtypes.astype(str).to_dict() == {
        "event": "object", "onset": "float64", "n": "int64", "good": "bool",
        "mixed": "object", "level": "object",
    }  # fmt: skip
    assert list(read["event"]) == ["e1", "e2", "e2"]
    assert list(read["mixed"]) == ["1", "a", ""]
    assert list(read["level"]) == ["x", "y", "x"]
    np.testing.assert_array_equal(read["onset"], table["onset"])
    np.testing.assert_array_equal(read["n"], table["n"])


def test_missing_values_in_tables():
    table = pd.DataFrame(
        {
            "n": pd.array([1, None], dtype="Int64"),
            "x": pd.array([1.5, None], dtype="Float64"),
            "good": pd.array([True, None], dtype="boolean"),
            "text": pd.array(["a", None], dtype="string"),
        }
    )
    read = dataset_to_table(table_to_dataset(table, "row"))
    np.testing.assert_array_equal(read["n"], [1.0, np.nan])
    np.testing.assert_array_equal(read["x"], [1.5, np.nan])
    assert list(read["good"]) == ["True", ""]
    assert list(read["text"]) == ["a", ""]


def test_empty_tables_keep_their_columns():
    table = pd.DataFrame({"onset": np.zeros(0), "event": np.zeros(0, object)})
    read = dataset_to_table(table_to_dataset(table, "event"))
    assert list(read) == ["onset", "event"]
    assert len(read) == 0


def test_columns_that_repeat():
    table = pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"])
    with pytest.raises(SchemaError, match=r"columns repeat[\s\S]*found: a"):
        table_to_dataset(table, "row")


@pytest.mark.parametrize(
    ("origins", "joined"),
    [
        (["recorded"], "recorded"),
        (["recorded", "recorded"], "recorded"),
        (["simulated", "recorded"], "mixed"),
        (["mixed", "simulated"], "mixed"),
    ],
)
def test_data_origins_are_joined(origins, joined):
    assert join_data_origin(*origins) == joined


@pytest.mark.parametrize("origins", [[], ["dreamt"], ["recorded", ""]])
def test_unknown_data_origins(origins):
    with pytest.raises(SchemaError, match="unknown data_origin"):
        join_data_origin(*origins)
