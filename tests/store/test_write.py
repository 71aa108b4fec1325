"""Round trips, determinism, templates, streaming."""

from __future__ import annotations

import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from braindecode_pipe.errors import MissingFileError, SchemaError, StoreError, UnsafePathError
from braindecode_pipe.schema import SCHEMA_VERSION, table_to_dataset
from braindecode_pipe.store import (
    StoreWriter,
    open_store,
    read_file,
    read_table,
    store_attrs,
    store_hash,
    verify_store,
    write_store,
)
from braindecode_pipe.store.layout import MAX_CHUNK_BYTES, chunk_shape


def files_of(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["eeg", "voxel"])
@pytest.mark.parametrize("chunks", [{}, {"time": 300}, {"time": 7}])
def test_round_trip(tmp_path, make_signal, kind, chunks):
    dataset = make_signal(kind=kind)
    write_store(tmp_path / "s.zarr", {"": dataset}, chunks=chunks)
    xr.testing.assert_identical(open_store(tmp_path / "s.zarr").load(), dataset)
    assert verify_store(tmp_path / "s.zarr") == []


@pytest.mark.parametrize("group", ["", "qc", "tables/events"])
def test_opens_with_plain_xarray_without_a_warning(stored, group):
    plain = xr.open_zarr(stored, group=group or None).load()
    ours = open_store(stored, group).load()
    assert set(plain.coords) == set(ours.coords)
    assert plain.attrs == ours.attrs
    for name in ours.variables:
        np.testing.assert_array_equal(
            plain[name].values.astype(ours[name].dtype), ours[name].values
        )


@pytest.mark.parametrize(
    "dtype",
    [*("bool", "int8", "int64", "uint16"), *(f"float{n}" for n in (16, 32, 64)), "complex64"],
)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (5, 3), (0, 3), (4, 1, 6)])
def test_every_type_and_shape_reads_back_through_zarr(tmp_path, dtype, shape):
    rng = np.random.default_rng(3)
    values = np.asarray(rng.integers(-3, 4, shape)).astype(dtype)
    dims = tuple("abc"[: len(shape)])
    write_store(tmp_path / "s", {"": xr.Dataset({"v": (dims, values)})}, chunks={"a": 2, "c": 4})
    array = zarr.open_array(tmp_path / "s" / "v", mode="r")
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array[...], values)


def test_text_is_kept(tmp_path):
    texts = np.array(["", "a", "日本語", "tab\tnewline\n", "e\u0301", "\0"], dtype=object)
    write_store(tmp_path / "s", {"": xr.Dataset({"v": ("x", texts)})})
    read = open_store(tmp_path / "s")["v"].values
    assert read.dtype == object
    assert list(read) == list(texts)


def test_big_endian_and_strided_values_are_kept(tmp_path):
    values = np.arange(24, dtype=">f4").reshape(4, 6)[::-1, ::2]
    write_store(tmp_path / "s", {"": xr.Dataset({"v": (("x", "y"), values)})})
    np.testing.assert_array_equal(open_store(tmp_path / "s")["v"].values, values)


def test_tables_come_back(tmp_path):
    table = pd.DataFrame(
        {
            "b": [1.5, np.nan],
            "a": ["x", ""],
            "n": [1, -2],
            "ok": [True, False],
            "with space": [0, 1],
        }
    )
    empty = table.iloc[:0]
    groups = {"full": table_to_dataset(table, "row"), "empty": table_to_dataset(empty, "row")}
    write_store(tmp_path / "s", groups)
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "s", "full"), table.astype({"a": object}), check_column_type=False
    )
    assert list(read_table(tmp_path / "s", "empty")) == list(table)
    assert len(read_table(tmp_path / "s", "empty")) == 0


def test_reading_a_group_that_is_no_table(stored):
    with pytest.raises(StoreError, match="is no table"):
        read_table(stored, "qc")


def test_bytes_are_equal_for_equal_input(tmp_path, make_signal, make_events):
    first, second = make_signal(), make_signal()
    second.attrs = dict(reversed(second.attrs.items()))
    attrs = {"b": {"y": 1, "x": 2}, "a": 1}
    turned = {"a": 1, "b": {"x": 2, "y": 1}}
    files = {"z": b"1", "a/b": b"2"}
    write_store(tmp_path / "1", {"": first, "t": make_events()}, attrs, files)
    write_store(
        tmp_path / "2",
        {"t": make_events(), "": second},
        turned,
        dict(reversed(files.items())),
    )
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert store_hash(tmp_path / "1") == store_hash(tmp_path / "2")


def test_hash_depends_on_every_value(tmp_path, make_signal):
    dataset = make_signal()
    write_store(tmp_path / "1", {"": dataset})
    dataset["signal"].values[0, 0] += 1
    write_store(tmp_path / "2", {"": dataset})
    assert store_hash(tmp_path / "1") != store_hash(tmp_path / "2")


def test_streaming_gives_the_bytes_of_writing_at_once(tmp_path, make_signal):
    dataset = make_signal(n_times=1000)
    write_store(tmp_path / "whole", {"": dataset}, chunks={"time": 300})
    template = dataset.assign(
        signal=(dataset["signal"].dims, dask.array.zeros(dataset["signal"].shape, dtype=np.float32))
    )
    with StoreWriter(tmp_path / "parts", {"": template}, chunks={"time": 300}) as writer:
        assert writer.chunks("", "signal") == {"sensor": 4, "time": 300}
        for start, stop in [(600, 1000), (0, 600)]:
            writer.write(
                "", "signal", {"time": slice(start, stop)}, dataset["signal"].values[:, start:stop]
            )
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "parts")


def test_dask_is_computed_chunk_by_chunk(tmp_path, make_signal):
    dataset = make_signal(n_times=1000)
    values = dataset["signal"].values
    largest = 0

    def double(block):
        nonlocal largest
        largest = max(largest, block.nbytes)
        return block * 2

    lazy = dask.array.from_array(values, chunks=(4, 100)).map_blocks(
        double, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    write_store(
        tmp_path / "s",
        {"": dataset.assign(signal=(("sensor", "time"), lazy))},
        chunks={"time": 200},
    )
    np.testing.assert_array_equal(open_store(tmp_path / "s")["signal"].values, values * 2)
    assert largest == 4 * 100 * 4


@pytest.mark.parametrize("lazy", [True, False])
def test_a_chunk_that_was_never_written_is_an_error(tmp_path, make_signal, lazy):
    dataset = make_signal()
    shape = dataset["signal"].shape
    data = (
        dask.array.zeros(shape, dtype=np.float32) if lazy else np.broadcast_to(np.float32(0), shape)
    )
    template = dataset.assign(signal=(("sensor", "time"), data))
    with (
        pytest.raises(StoreError, match=r"1 of 3 chunks of 'signal' were never written"),
        StoreWriter(tmp_path / "s", {"": template}, chunks={"time": 300}) as writer,
    ):
        writer.write("", "signal", {"time": slice(0, 600)}, dataset["signal"].values[:, :600])
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


@pytest.mark.parametrize(
    ("region", "n", "text"),
    [
        ({"time": slice(10, 300)}, 290, "not made of whole chunks"),
        ({"time": slice(0, 299)}, 299, "not made of whole chunks"),
        ({"time": slice(0, 600, 2)}, 300, "not made of whole chunks"),
        ({"time": slice(-300, None)}, 300, "not made of whole chunks"),
        ({"time": slice(900, 1200)}, 300, "not made of whole chunks"),
        ({"tme": slice(0, 300)}, 300, "no dimension tme"),
        ({"time": slice(0, 300)}, 200, "wrong shape"),
    ],
)
def test_regions_must_be_whole_chunks(tmp_path, make_signal, region, n, text):
    with (
        pytest.raises(StoreError, match=text),
        StoreWriter(tmp_path / "s", {"": make_signal()}, chunks={"time": 300}) as writer,
    ):
        writer.write("", "signal", region, np.zeros((4, n), np.float32))


def test_a_chunk_is_written_once(tmp_path, make_signal):
    with (
        pytest.raises(StoreError, match="written twice"),
        StoreWriter(tmp_path / "s", {"": make_signal()}) as writer,
    ):
        for _ in range(2):
            writer.set("", "signal", np.zeros((4, 900), np.float32))


def test_values_of_another_kind_are_refused(tmp_path, make_signal):
    with (
        pytest.raises(SchemaError, match="wrong type"),
        StoreWriter(tmp_path / "s", {"": make_signal()}) as writer,
    ):
        writer.set("", "signal", np.zeros((4, 900), complex))


def test_integers_that_do_not_fit_are_refused(tmp_path):
    template = xr.Dataset({"role": ("x", np.zeros(2, np.int8))})
    with (
        pytest.raises(SchemaError, match=r"do not fit[\s\S]*-128 to 127[\s\S]*0 to 300"),
        StoreWriter(tmp_path / "s", {"": template}) as writer,
    ):
        writer.set("", "role", np.array([0, 300]))


def test_set_replaces_values_of_the_template(tmp_path, make_signal):
    dataset = make_signal()
    with StoreWriter(tmp_path / "s", {"": dataset}) as writer:
        writer.set("", "time_good", np.zeros(900, bool))
        writer.set_attrs("", {"n_scrubbed": np.int64(900), "steps": ("a", "b")})
    read = open_store(tmp_path / "s")
    assert not read["time_good"].values.any()
    assert read.attrs["n_scrubbed"] == 900
    assert store_attrs(tmp_path / "s")["steps"] == ["a", "b"]
    assert store_attrs(tmp_path / "s")["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("attrs", "key"),
    [
        ({"matrix": np.zeros(3)}, "matrix"),
        ({"outer": {"inner": [1, {2}]}}, "inner"),
        ({"share": float("nan")}, "share"),
        ({"when": pd.Timestamp("2020-01-01")}, "when"),
        ({"table": {1: "a"}}, "table"),
        ({"_FillValue": 0}, "_FillValue"),
        ({"coordinates": "a"}, "coordinates"),
    ],
)
def test_attributes_must_be_json(tmp_path, make_signal, attrs, key):
    with pytest.raises(SchemaError, match=key):
        write_store(tmp_path / "s", {"": make_signal()}, attrs=attrs)
    with pytest.raises(SchemaError, match=key):
        write_store(tmp_path / "s", {"": make_signal(**attrs)})
    assert not list(tmp_path.iterdir())


def test_attributes_must_be_unicode(tmp_path, make_signal):
    with pytest.raises(SchemaError, match="Unicode"):
        write_store(tmp_path / "s", {"": make_signal(label="\ud800")})


@pytest.mark.parametrize("value", [None, 3, 1.5, b"bytes"])
def test_text_variables_hold_text_only(tmp_path, value):
    dataset = xr.Dataset({"v": ("x", np.array(["a", value], dtype=object))})
    with pytest.raises(SchemaError, match="'v'"):
        write_store(tmp_path / "s", {"": dataset})


@pytest.mark.parametrize("name", ["a/b", "..", "__a", "zarr.json", "MANIFEST.json", "a\0b"])
def test_names_that_a_store_cannot_hold(tmp_path, name):
    with pytest.raises(SchemaError, match="cannot hold"):
        write_store(tmp_path / "s", {"": xr.Dataset({name: ("x", np.zeros(2))})})


def test_names_that_differ_in_case_only(tmp_path):
    dataset = xr.Dataset({"Onset": ("x", np.zeros(2)), "onset": ("x", np.zeros(2))})
    with pytest.raises(SchemaError, match="'Onset' and 'onset'"):
        write_store(tmp_path / "s", {"": dataset})


def test_dates_are_refused(tmp_path):
    dataset = xr.Dataset({"when": ("x", np.zeros(2, "datetime64[ns]"))})
    with pytest.raises(SchemaError, match="'when' has a type that stores do not hold"):
        write_store(tmp_path / "s", {"": dataset})


def test_the_template_is_checked_before_a_byte_is_written(tmp_path, make_signal):
    broken = make_signal().drop_vars("position")
    with pytest.raises(SchemaError, match="sensor coordinate is missing"):
        write_store(tmp_path / "deep" / "s", {"": broken})
    assert not list(tmp_path.iterdir())


def test_files_beside_the_arrays(tmp_path, make_signal):
    source = tmp_path / "weights.safetensors"
    source.write_bytes(np.random.default_rng(0).bytes(3_000_000))
    with StoreWriter(tmp_path / "s", {"": make_signal()}) as writer:
        writer.add_file("model/weights.safetensors", source)
        writer.add_file("empty", b"")
        with pytest.raises(StoreError, match="something else named"):
            writer.add_file("empty", b"")
        with pytest.raises(StoreError, match="something else named"):
            writer.add_file("signal/c/0", b"")
        with pytest.raises(StoreError, match="something else named"):
            writer.add_file("MANIFEST.json", b"")
        with pytest.raises(UnsafePathError):
            writer.add_file("../outside", b"")
        with pytest.raises(MissingFileError):
            writer.add_file("absent", tmp_path / "absent")
    assert read_file(tmp_path / "s", "model/weights.safetensors") == source.read_bytes()
    assert read_file(tmp_path / "s", "empty") == b""
    with pytest.raises(MissingFileError, match="no file 'absent'"):
        read_file(tmp_path / "s", "absent")
    assert verify_store(tmp_path / "s") == []


def test_something_that_is_no_store_is_never_replaced(tmp_path, make_signal):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("text")
    with pytest.raises(StoreError, match="no store lies where"):
        write_store(tmp_path / "s", {"": make_signal()})
    (tmp_path / "file").write_text("text")
    with pytest.raises(StoreError, match="no store lies where"):
        write_store(tmp_path / "file", {"": make_signal()})
    assert (tmp_path / "s" / "thesis.tex").read_text() == "text"
    (tmp_path / "empty").mkdir()
    write_store(tmp_path / "empty", {"": make_signal()})
    assert verify_store(tmp_path / "empty") == []


@pytest.mark.parametrize("n_rows", [1, 5, 1000, 65536, 65537, 5_000_000])
@pytest.mark.parametrize("n_columns", [1, 64, 40_000, 5_000_000])
def test_chunks_are_at_most_16_mib_and_balanced(n_rows, n_columns):
    rows, columns = chunk_shape(("time", "sensor"), (n_rows, n_columns), 4, "time", {})
    assert columns == n_columns
    assert rows * columns * 4 <= MAX_CHUNK_BYTES or rows == 1
    n_chunks = -(-n_rows // rows)
    # No more chunks than needed, and less than one row of padding per chunk.
    assert n_chunks <= -(-n_rows // max(1, MAX_CHUNK_BYTES // (4 * n_columns)))
    assert n_chunks * rows - n_rows < n_chunks


def test_voxels_are_stored_time_first(tmp_path, make_signal):
    dataset = make_signal(kind="voxel")
    write_store(tmp_path / "s", {"": dataset})
    raw = (tmp_path / "s" / "signal" / "c" / "0" / "0").read_bytes()
    np.testing.assert_array_equal(
        np.frombuffer(raw[:-4], "<f4").reshape(900, 4), dataset["signal"].values.T
    )
