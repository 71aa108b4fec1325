"""Stores as xarray datasets, tables and files, every byte checked as it is read."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from braindecode_pipe.errors import MissingFileError, StoreError
from braindecode_pipe.schema import dataset_to_table
from braindecode_pipe.store.disk import MANIFEST
from braindecode_pipe.store.index import StoreIndex, committed_folder, has_marker, read_bytes


class CheckedStore(LocalStore):
    """A committed store for zarr: what is read is compared with the manifest."""

    def __init__(self, index: StoreIndex) -> None:
        super().__init__(index.root, read_only=True)
        self._index = index

    def with_read_only(self, read_only: bool = False) -> CheckedStore:
        """Committed stores are never written to."""
        if not read_only:
            raise StoreError(
                "a committed store cannot be changed",
                file=self.root,
                remedy="write a new one with write_store",
            )
        return self

    async def get(self, key, prototype, byte_range=None):
        """Bytes of a file; see zarr's LocalStore."""
        data = await asyncio.to_thread(self._index.read, key)
        if data is not None and byte_range is not None:
            return await super().get(key, prototype, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    def get_sync(self, key, *, prototype=None, byte_range=None):
        """Bytes of a file; see zarr's LocalStore."""
        data = self._index.read(key)
        if data is not None and byte_range is not None:
            return super().get_sync(key, prototype=prototype, byte_range=byte_range)
        prototype = prototype or default_buffer_prototype()
        return None if data is None else prototype.buffer.from_bytes(data)


def open_group(index: StoreIndex, group: str = "") -> xr.Dataset:
    """One group of an opened store, lazily."""
    if group not in index.groups:
        raise StoreError(
            f"the store has no group {group!r}",
            file=index.root,
            expected=", ".join(map(repr, sorted(index.groups))),
            found="another name",
            remedy="run the stage that writes this group, or use one that is there",
        )
    dataset = xr.open_zarr(
        CheckedStore(index),
        group=group or None,
        chunks=None,
        consolidated=True,
        decode_times=False,
        decode_timedelta=False,
        mask_and_scale=False,
    )
    # numpy's variable-length strings are new; the rest of the world expects Python's.
    texts = {str(n): v.astype(object) for n, v in dataset.variables.items() if v.dtype.kind == "T"}
    coords = {name: texts.pop(name) for name in list(texts) if name in dataset.coords}
    return dataset.assign_coords(coords).assign(texts)


def open_store(path: str | Path, group: str = "") -> xr.Dataset:
    """Open one group of a store; arrays are read, and their checksums compared, when used.

    Parameters
    ----------
    path : path
        A committed store. When its replacement was interrupted, the previous version is read.
    group : str
        ``""`` is the root.

    Raises
    ------
    MissingFileError, IncompleteStoreError, CorruptStoreError
        Also later, when a damaged chunk is read.
    StoreError
        When there is no such group.
    SchemaError
        For a store of another version of the data contract.
    """
    return open_group(StoreIndex.load(path), group)


def read_table(path: str | Path, group: str = "") -> pd.DataFrame:
    """Read a table that was written through ``schema.table_to_dataset``."""
    dataset = open_store(path, group)
    if "columns" not in dataset.attrs:
        raise StoreError(
            f"group {group!r} of the store is no table",
            file=path,
            expected="a dataset made by table_to_dataset",
            found=f"kind {dataset.attrs.get('kind')!r}",
            remedy="open it with open_store",
        )
    return dataset_to_table(dataset)


def store_attrs(path: str | Path, group: str = "") -> dict[str, Any]:
    """Attributes of one group of a store; reads no array."""
    index = StoreIndex.load(path)
    if group not in index.groups:
        open_group(index, group)
    return {key: value for key, value in index.groups[group].items() if key != "coordinates"}


def list_groups(path: str | Path) -> list[str]:
    """Names of the groups of a store, the root (``""``) first."""
    return sorted(StoreIndex.load(path).groups)


def list_extra_files(path: str | Path) -> list[str]:
    """Names of the files that lie beside the arrays: checkpoints, pages, metrics."""
    index = StoreIndex.load(path)
    return sorted(
        name
        for name, entry in index.entries.items()
        if not entry.is_chunk and name.rpartition("/")[2] != "zarr.json"
    )


def read_file(path: str | Path, name: str) -> bytes:
    """Checked content of a file that lies beside the arrays of a store."""
    data = StoreIndex.load(path).read(name)
    if data is None:
        raise MissingFileError(
            f"the store has no file {name!r}",
            file=path,
            expected=", ".join(list_extra_files(path)) or "no file at all",
            found="another name",
        )
    return data


def is_committed(path: str | Path) -> bool:
    """Whether there is a version of this store whose writing finished."""
    try:
        return has_marker(committed_folder(path))
    except (MissingFileError, StoreError):
        return False


def store_hash(path: str | Path) -> str:
    """SHA-256 (hex) of the manifest: equal for stores with equal bytes.

    It rests on crc32c per file: it tells versions apart, it is no protection against forgery.
    """
    return hashlib.sha256(read_bytes(committed_folder(path) / MANIFEST)).hexdigest()
