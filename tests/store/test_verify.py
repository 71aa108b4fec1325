"""Damage: raised when read, or named by verify."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from braindecode_pipe.errors import (
    BraindecodePipeError,
    CorruptStoreError,
    IncompleteStoreError,
    StoreError,
)
from braindecode_pipe.store import (
    list_groups,
    open_signal,
    open_store,
    read_file,
    store_attrs,
    verify_store,
)
from braindecode_pipe.store.index import Entry, manifest_bytes, marker, parse_manifest
from braindecode_pipe.store.layout import crc32c


def files_of(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def flip(file, bit):
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(data)


def read_everything(path):
    for group in list_groups(path):
        open_store(path, group).load()
    read_file(path, "page.html")


def seal(path):
    """Make manifest and marker fit what is in the folder, as somebody who means harm would."""
    before = parse_manifest((path / "MANIFEST.json").read_bytes(), path)
    entries = {}
    for name in files_of(path):
        if name not in ("MANIFEST.json", "COMMITTED"):
            data = np.frombuffer((path / name).read_bytes(), np.uint8)
            is_chunk = before[name].is_chunk
            entries[name] = Entry(len(data), crc32c(data[:-4] if is_chunk else data), is_chunk)
    manifest = manifest_bytes(entries)
    (path / "MANIFEST.json").write_bytes(manifest)
    (path / "COMMITTED").write_bytes(marker(manifest))


def test_an_undamaged_store_has_no_problems(stored):
    assert verify_store(stored) == []
    read_everything(stored)
    seal(stored)
    assert verify_store(stored) == []


def test_f06_random_bit_flips_are_named_by_verify_and_raised_when_read(stored):
    rng = np.random.default_rng(6)
    names = files_of(stored)
    n_chunks = 0
    for _ in range(100):
        name = names[rng.integers(len(names))]
        file = stored / name
        bit = int(rng.integers(8 * file.stat().st_size))
        flip(file, bit)
        assert name in [problem.file for problem in verify_store(stored)], (name, bit)
        with pytest.raises(CorruptStoreError) as raised:
            read_everything(stored)
        assert raised.value.remedy
        # The marker is damaged when it does not fit the manifest: the manifest is named.
        shown = "MANIFEST.json" if name == "COMMITTED" else name
        assert raised.value.file.endswith(shown)
        n_chunks += "/c/" in name
        flip(file, bit)
    assert n_chunks > 20
    assert verify_store(stored) == []


def test_f06_flips_in_a_small_chunk_and_its_checksum(stored):
    chunk = stored / "tables" / "events" / "onset" / "c" / "0"
    for bit in range(0, 8 * chunk.stat().st_size, 5):
        flip(chunk, bit)
        assert [problem.file for problem in verify_store(stored)] == ["tables/events/onset/c/0"]
        with pytest.raises(CorruptStoreError, match="onset/c/0"):
            open_store(stored, "tables/events").load()
        flip(chunk, bit)


@pytest.mark.parametrize("size", [0, 1, 100, 4 * 300 * 4])
def test_f06_truncated_chunks(stored, size):
    chunk = stored / "signal" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:size])
    for read in (open_store, open_signal, store_attrs):
        with pytest.raises(CorruptStoreError, match=rf"signal/c/0/1[\s\S]*found: {size} bytes"):
            read(stored)
    assert [problem.file for problem in verify_store(stored)] == ["signal/c/0/1"]


def test_f06_deleted_chunks_never_read_as_values(stored):
    lazy = open_store(stored)
    (stored / "signal" / "c" / "0" / "1").unlink()
    with pytest.raises(CorruptStoreError, match=r"signal/c/0/1[\s\S]*found: nothing"):
        open_store(stored)
    with pytest.raises(CorruptStoreError, match="signal/c/0/1"):
        lazy["signal"].load()
    problems = verify_store(stored)
    assert [(p.file, p.found) for p in problems] == [("signal/c/0/1", "nothing")]
    # Whoever reads it past this package sees NaN, not zeros.
    plain = xr.open_zarr(stored)["signal"].values
    assert np.isnan(plain[:, 300:600]).all()
    assert np.isfinite(plain[:, :300]).all()


def test_f06_files_that_nobody_wrote(stored):
    (stored / "signal" / "c" / "0" / "3").write_bytes(b"x")
    problems = verify_store(stored)
    assert [problem.file for problem in problems] == ["signal/c/0/3"]
    assert "manifest does not list it" in str(problems[0])


@pytest.mark.parametrize("name", ["zarr.json", "signal/zarr.json", "qc/zarr.json", "MANIFEST.json"])
@pytest.mark.parametrize("content", [b"", b'{"zarr_format": 3,', b"\xff\xfe", b"[" * 100_000])
def test_f07_broken_json_names_path_and_remedy(stored, name, content):
    (stored / name).write_bytes(content)
    with pytest.raises(CorruptStoreError, match=rf"{name}[\s\S]*remedy: run the stage again"):
        open_store(stored)
    assert name in [problem.file for problem in verify_store(stored)]


@pytest.mark.parametrize("name", ["zarr.json", "signal/zarr.json", "qc/zarr.json"])
@pytest.mark.parametrize("content", [b'{"zarr_format": 3,', b"[" * 100_000, b"null", b"[]", b"{}"])
def test_f07_broken_json_under_a_valid_seal(stored, name, content):
    (stored / name).write_bytes(content)
    seal(stored)
    with pytest.raises(CorruptStoreError, match=rf"{name}[\s\S]*remedy"):
        open_store(stored)
    assert name in [problem.file for problem in verify_store(stored)]


def test_f07_metadata_that_the_consolidated_copy_hides(stored):
    file = stored / "qc" / "psd" / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["unit"] = "V"
    file.write_text(json.dumps(document))
    seal(stored)
    assert [problem.file for problem in verify_store(stored)] == ["qc/psd/zarr.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b'{"format": 2, "files": {}, "chunks": {}}',
        b'{"format": 1, "files": {"a": 1}}',
    ],
)
def test_f07_manifests_of_another_form(stored, content):
    (stored / "MANIFEST.json").write_bytes(content)
    (stored / "COMMITTED").write_bytes(marker(content))
    with pytest.raises(CorruptStoreError, match="MANIFEST.json"):
        open_store(stored)
    assert "MANIFEST.json" in [problem.file for problem in verify_store(stored)]


def test_all_damage_is_listed(stored):
    flip(stored / "signal" / "c" / "0" / "0", 5)
    flip(stored / "page.html", 5)
    (stored / "time" / "c" / "0").unlink()
    assert [p.file for p in verify_store(stored)] == ["page.html", "signal/c/0/0", "time/c/0"]


def test_groups_that_are_not_there(stored):
    for read in (open_store, store_attrs):
        with pytest.raises(StoreError, match=r"no group 'absent'[\s\S]*'qc'"):
            read(stored, "absent")


def test_a_store_of_another_version(stored):
    for node in ("zarr.json",):
        text = (stored / node).read_text()
        (stored / node).write_text(text.replace('"schema_version": "1"', '"schema_version": "0"'))
    seal(stored)
    with pytest.raises(BraindecodePipeError, match=r"another version[\s\S]*found: '0'"):
        open_store(stored)


def test_a_store_without_marker_cannot_be_verified(stored):
    (stored / "COMMITTED").unlink()
    with pytest.raises(IncompleteStoreError):
        verify_store(stored)
