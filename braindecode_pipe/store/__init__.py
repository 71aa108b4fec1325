"""Stores: folders that are Zarr v3 hierarchies, written whole or not at all, checked when read.

A store opens with plain ``xarray.open_zarr``. Beside the arrays lie ``MANIFEST.json``, which lists
every file with its size and crc32c, and ``COMMITTED``, which is written last and holds the
manifest's checksum. This is the only room that touches zarr.
"""

from __future__ import annotations

from braindecode_pipe.store.commit import delete_store
from braindecode_pipe.store.disk import write_hook
from braindecode_pipe.store.lock import StoreLock
from braindecode_pipe.store.paths import safe_join
from braindecode_pipe.store.read import (
    is_committed,
    list_extra_files,
    list_groups,
    open_store,
    read_file,
    read_table,
    store_attrs,
    store_hash,
)
from braindecode_pipe.store.signal import Signal, limit_maps, open_signal
from braindecode_pipe.store.verify import Problem, verify_store
from braindecode_pipe.store.write import StoreWriter, write_store

__all__ = [
    "Problem",
    "Signal",
    "StoreLock",
    "StoreWriter",
    "delete_store",
    "is_committed",
    "limit_maps",
    "list_extra_files",
    "list_groups",
    "open_signal",
    "open_store",
    "read_file",
    "read_table",
    "safe_join",
    "store_attrs",
    "store_hash",
    "verify_store",
    "write_hook",
    "write_store",
]
