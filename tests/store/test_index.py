"""Stores that somebody else made: nothing that they declare is believed."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest

from braindecode_pipe.errors import CorruptStoreError, IncompleteStoreError
from braindecode_pipe.store import open_signal, open_store, read_file, verify_store
from braindecode_pipe.store.index import Entry, manifest_bytes, marker
from braindecode_pipe.store.layout import ArrayLayout, checksum, crc32c, to_json

GROUP = {"zarr_format": 3, "node_type": "group"}


def forge(path, array, chunks):
    """A store with a valid seal and one array ``v`` of which all is made up."""
    root = {
        **GROUP,
        "attributes": {"schema_version": "1"},
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {"v": array},
        },
    }
    contents = {"zarr.json": to_json(root), "v/zarr.json": to_json(array)}
    entries = {name: Entry(len(data), crc32c(data), False) for name, data in contents.items()}
    for name, payload in chunks.items():
        contents[name] = payload + checksum(crc32c(payload))
        entries[name] = Entry(len(contents[name]), crc32c(payload), True)
    for name, data in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    manifest = manifest_bytes(entries)
    (path / "MANIFEST.json").write_bytes(manifest)
    (path / "COMMITTED").write_bytes(marker(manifest))
    return path


def array(shape, chunk, kind="float32"):
    dims = tuple("abcd"[: len(shape)])
    order = tuple(range(len(shape)))
    return ArrayLayout(kind, dims, tuple(shape), tuple(chunk), order).document()


def test_a_sound_forgery_opens(tmp_path):
    payload = np.arange(4, dtype="<f4").tobytes()
    path = forge(tmp_path / "s", array([4], [4]), {"v/c/0": payload})
    np.testing.assert_array_equal(open_store(path)["v"].values, np.arange(4))
    assert verify_store(path) == []


BOMBS = {
    "8 GB in no chunk": (array([2_000_000_000], [2_000_000_000]), {}),
    "8 GB in one chunk": (array([2_000_000_000], [2_000_000_000]), {"v/c/0": b"1234"}),
    "8 GB in small chunks": (array([2_000_000_000], [1]), {"v/c/0": b"1234"}),
    "1e15 chunks": (array([10**15], [1]), {}),
    "1e60 values": (array([10**15] * 4, [10**15] * 4), {"v/c/0/0/0/0": b"1234"}),
    "large chunk of a small array": (array([1], [10**12]), {"v/c/0": b"1234"}),
    "text": (array([10**12], [10**12], "string"), {"v/c/0": b"\xff\xff\xff\xff"}),
    "chunks with other names": (array([2], [1]), {"v/c/0": b"1234", "v/c/2": b"1234"}),
    "leading zeros": (array([2], [1]), {"v/c/0": b"1234", "v/c/01": b"1234"}),
    "a chunk too many": (array([1], [1]), {"v/c/0": b"1234", "v/c/1": b"1234"}),
    "chunks of no array": (array([0], [1]), {"w/c/0": b"1234"}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_f31_declared_sizes_are_compared_with_the_files(tmp_path, name):
    path = forge(tmp_path / "s", *BOMBS[name])
    start = time.monotonic()
    tracemalloc.start()
    try:
        for read in (open_store, open_signal):
            with pytest.raises(CorruptStoreError, match="zarr.json"):
                read(path)
        assert verify_store(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 1
    assert peak < 20 * 2**20


def change(document, **changes):
    return {**document, **changes}


FOREIGN = {
    "compressed": change(array([1], [1]), codecs=[{"name": "bytes"}, {"name": "zstd"}]),
    "no checksum": change(array([1], [1]), codecs=array([1], [1])["codecs"][:-1]),
    "object type": change(array([1], [1]), data_type="object"),
    "negative shape": change(array([1], [1]), shape=[-1]),
    "shape of text": change(array([1], [1]), shape=["1"]),
    "shape of bool": change(array([1], [1]), shape=[True]),
    "empty chunks": change(
        array([1], [1]), chunk_grid={"name": "regular", "configuration": {"chunk_shape": [0]}}
    ),
    "zero as fill value": change(array([1], [1]), fill_value=0.0),
    "v2": {"zarr_format": 2, "shape": [1]},
    "twisted": change(
        array([1, 1], [1, 1]),
        codecs=[
            {"name": "transpose", "configuration": {"order": [0, 0]}},
            *array([1], [1])["codecs"],
        ],
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_f31_layouts_that_this_package_does_not_write_are_refused(tmp_path, name):
    path = forge(tmp_path / "s", FOREIGN[name], {"v/c/0": b"1234"})
    with pytest.raises(CorruptStoreError, match="does not write"):
        open_store(path)
    assert "v/zarr.json" in [problem.file for problem in verify_store(path)]


def test_f31_a_foreign_hierarchy_without_marker(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "zarr.json").write_text(json.dumps(array([2 * 10**9], [2 * 10**9])))
    with pytest.raises(IncompleteStoreError, match="no MANIFEST.json and COMMITTED"):
        open_store(tmp_path / "s")


def test_f28_manifests_that_name_files_outside(tmp_path):
    path = forge(tmp_path / "s", array([1], [1]), {"v/c/0": b"1234"})
    (tmp_path / "secret").write_bytes(b"secret")
    secret = {"../secret": Entry(6, crc32c(b"secret"), False)}
    manifest = manifest_bytes(secret)
    (path / "MANIFEST.json").write_bytes(manifest)
    (path / "COMMITTED").write_bytes(marker(manifest))
    for read in (open_store, lambda p: read_file(p, "../secret")):
        with pytest.raises(CorruptStoreError, match=r"\.\./secret"):
            read(path)


@pytest.mark.parametrize("kind", ["float32", "string"])
def test_layouts_survive_json(kind):
    layout = ArrayLayout(kind, ("a", "b"), (5, 7), (2, 7), (0, 1), {"unit": "V"})
    again = ArrayLayout.from_document(json.loads(to_json(layout.document())), "v")
    assert again == layout
    assert again.n_chunks == 3
    assert [again.key(index) for index in again.indices()] == ["c/0/0", "c/1/0", "c/2/0"]
    assert again.region((2, 0)) == (slice(4, 5), slice(0, 7))
