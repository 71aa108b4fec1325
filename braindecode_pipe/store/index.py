"""What a committed store says about itself: marker, manifest and metadata, checked on opening."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import (
    CorruptStoreError,
    IncompleteStoreError,
    MissingFileError,
    SchemaError,
    StoreError,
)
from braindecode_pipe.schema import SCHEMA_VERSION
from braindecode_pipe.store.disk import COMMITTED, MANIFEST
from braindecode_pipe.store.layout import CHECKSUM_BYTES, ArrayLayout, checksum, crc32c, to_json
from braindecode_pipe.store.paths import list_files

METADATA = "zarr.json"
_BLOCK_BYTES = 2**20
_REMEDY = "run the stage again with --force; `braindecode-pipe verify` lists all that is damaged"


def siblings(target: Path, role: str) -> list[Path]:
    """Folders that a writer of ``target`` left beside it; ``role`` is ``"tmp"`` or ``"old"``."""
    pattern = re.compile(re.escape(target.name) + rf"\.{role}-[0-9a-f]{{32}}")
    if not target.parent.is_dir():
        return []
    return sorted(p for p in target.parent.iterdir() if pattern.fullmatch(p.name))


def has_marker(folder: Path) -> bool:
    """Whether ``folder`` holds the file that is written last."""
    return (folder / COMMITTED).is_file()


def committed_folder(path: str | Path) -> Path:
    """Folder to read the store ``path`` from: itself, or the version that it was to replace.

    Raises
    ------
    MissingFileError
        When there is nothing at all.
    IncompleteStoreError
        When there is only what an interrupted writer left.
    """
    target = Path(path).resolve()
    for folder in (target, *siblings(target, "old")):
        if has_marker(folder):
            return folder
    if target.exists():
        missing = COMMITTED if (target / MANIFEST).is_file() else f"{MANIFEST} and {COMMITTED}"
        found = f"no {missing}"
    elif left := siblings(target, "tmp"):
        found = f"no {COMMITTED}: only {left[0].name}, which an interrupted writer left"
    else:
        raise MissingFileError(
            "there is no store",
            file=path,
            expected="a folder written by a stage",
            found="nothing",
            remedy="check the path, or run the stage that writes it",
        )
    raise IncompleteStoreError(
        "the store is incomplete: its writing never finished",
        file=path,
        expected=f"{MANIFEST} and {COMMITTED}, which are written last",
        found=found,
        remedy="run the stage again; it starts this unit of work anew",
    )


def marker(manifest: bytes) -> bytes:
    """Content of the marker that belongs to a manifest."""
    return to_json({"manifest_crc32c": f"{crc32c(manifest):08x}"})


def corrupt(file: Path, expected: str, found: str) -> CorruptStoreError:
    """The error for bytes that are not those that were written."""
    return CorruptStoreError(
        "the store is damaged", file=file, expected=expected, found=found, remedy=_REMEDY
    )


def parse_json(data: bytes, file: Path) -> Any:
    """JSON, or :class:`CorruptStoreError` with the path."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise corrupt(file, "JSON", str(error)) from error


def read_bytes(file: Path) -> bytes:
    """All bytes of a file; errors of the operating system name it."""
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise corrupt(file, "the file", "nothing") from error
    except OSError as error:
        raise _unreadable(file, error) from error


def sizes_of(root: Path) -> dict[str, int]:
    """:func:`list_files`; errors of the operating system name the store."""
    try:
        return list_files(root)
    except OSError as error:
        raise _unreadable(root, error) from error


def _unreadable(file: Path, error: OSError) -> StoreError:
    return StoreError(
        "a file of the store cannot be read",
        file=file,
        expected="files and folders that this user may read",
        found=error.strerror or str(error),
        remedy="check the permissions and the disk",
    )


@dataclass(frozen=True)
class Entry:
    """Size [bytes] and crc32c of a file; for a chunk, crc32c of its values alone.

    The crc32c over values *and* their crc32c is the same number for all values, so a checksum of
    whole chunk files would tell nothing.
    """

    size: int
    crc: int
    is_chunk: bool

    def problem(self, data: np.ndarray) -> tuple[str, str] | None:
        """(expected, found) where the bytes of the file differ from those written, else None."""
        if len(data) != self.size:
            return f"{self.size} bytes", f"{len(data)} bytes"
        n = self.size - CHECKSUM_BYTES * self.is_chunk
        return self._compare(crc32c(data[:n]), data[n:].tobytes())

    def problem_in(self, file: Path) -> tuple[str, str] | None:
        """The same for a file of any size, read block by block."""
        value, left = 0, self.size - CHECKSUM_BYTES * self.is_chunk
        try:
            with open(file, "rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                if size != self.size:
                    return f"{self.size} bytes", f"{size} bytes"
                while left and (block := opened.read(min(left, _BLOCK_BYTES))):
                    value, left = crc32c(block, value), left - len(block)
                return self._compare(value, opened.read())
        except OSError as error:
            return f"{self.size} bytes that can be read", error.strerror or str(error)

    def _compare(self, value: int, end: bytes) -> tuple[str, str] | None:
        if value != self.crc:
            return f"crc32c {self.crc:08x}", f"crc32c {value:08x}"
        if self.is_chunk and end != checksum(value):
            return f"{checksum(value).hex()}, the crc32c, at the end", end.hex()
        return None


def manifest_bytes(entries: dict[str, Entry]) -> bytes:
    """``MANIFEST.json``: every file, chunks apart from the others."""
    document: dict[str, Any] = {"format": 1, "files": {}, "chunks": {}}
    for name, entry in entries.items():
        section = document["chunks" if entry.is_chunk else "files"]
        section[name] = {"size": entry.size, "crc32c": f"{entry.crc:08x}"}
    return to_json(document)


def parse_manifest(data: bytes, file: Path) -> dict[str, Entry]:
    """Inverse of :func:`manifest_bytes`."""
    document = parse_json(data, file)
    entries = {}
    try:
        for section in ("files", "chunks"):
            for name, entry in document[section].items():
                is_chunk = section == "chunks"
                entries[name] = Entry(int(entry["size"]), int(entry["crc32c"], 16), is_chunk)
        if document["format"] != 1:
            raise KeyError("format")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise corrupt(file, "a manifest of format 1", f"{type(error).__name__} {error}") from error
    return entries


@dataclass(frozen=True)
class StoreIndex:
    """Manifest and metadata of a committed store.

    Attributes
    ----------
    root : folder that is read
    entries : file -> :class:`Entry`
    groups : group -> attributes; the root is ``""``
    arrays : array -> :class:`ArrayLayout`
    """

    root: Path
    entries: dict[str, Entry]
    groups: dict[str, dict[str, Any]]
    arrays: dict[str, ArrayLayout]

    @classmethod
    def load(cls, path: str | Path) -> StoreIndex:
        """Open a store: marker, manifest, presence and size of all files, all metadata.

        Chunks and other files are checked when they are read.

        Raises
        ------
        IncompleteStoreError, CorruptStoreError, UnsafePathError
        SchemaError
            For a store of another version of the data contract.
        """
        root = committed_folder(path)
        manifest = read_bytes(root / MANIFEST)
        if read_bytes(root / COMMITTED) != marker(manifest):
            raise corrupt(root / MANIFEST, f"the content that {COMMITTED} declares", "another")
        entries = parse_manifest(manifest, root / MANIFEST)
        sizes = sizes_of(root)
        for name, entry in entries.items():
            if sizes.get(name) != entry.size:
                found = f"{sizes[name]} bytes" if name in sizes else "nothing"
                raise corrupt(root / name, f"a file of {entry.size} bytes", found)
        documents = {}
        for name, entry in entries.items():
            if name.rpartition("/")[2] == METADATA and not entry.is_chunk:
                data = read_bytes(root / name)
                if problem := entry.problem(np.frombuffer(data, np.uint8)):
                    raise corrupt(root / name, *problem)
                documents[name[: -len(METADATA)].rstrip("/")] = parse_json(data, root / name)
        groups, arrays = parse_nodes(root, documents, entries)
        version = groups[""].get("schema_version")
        if version != SCHEMA_VERSION:
            raise SchemaError(
                "the store follows another version of the data contract",
                file=path,
                expected=SCHEMA_VERSION,
                found=repr(version),
                remedy="run the stage again, or read it with the version that wrote it",
            )
        return cls(root, entries, groups, arrays)

    def read(self, name: str) -> bytes | None:
        """Checked bytes of a file; None when the store has no such file."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        data = read_bytes(self.root / name)
        if problem := entry.problem(np.frombuffer(data, np.uint8)):
            raise corrupt(self.root / name, *problem)
        return data


def parse_nodes(
    root: Path, documents: dict[str, Any], entries: dict[str, Entry]
) -> tuple[dict[str, dict[str, Any]], dict[str, ArrayLayout]]:
    """Groups and arrays; what arrays declare must be there in chunks of the right size.

    So no declared size is believed: a reader never allocates more than lies on the disk.
    """
    groups: dict[str, dict[str, Any]] = {}
    arrays: dict[str, ArrayLayout] = {}
    chunks: dict[str, dict[str, int]] = {}
    for name, entry in entries.items():
        if entry.is_chunk:
            node, _, key = f"/{name}".rpartition("/c")
            chunks.setdefault(node.lstrip("/"), {})[f"c{key}"] = entry.size
    for node, document in documents.items():
        file = root / node / METADATA
        if isinstance(document, dict) and document.get("node_type") == "group":
            attrs = document.get("attributes")
            if not isinstance(attrs, dict):
                raise corrupt(file, "attributes of a group", repr(attrs)[:100])
            groups[node] = attrs
            continue
        layout = arrays[node] = ArrayLayout.from_document(document, str(file))
        found = chunks.pop(node, {})
        n_chunks = layout.n_chunks
        if len(found) != n_chunks or not all(layout.key(i) in found for i in layout.indices()):
            raise corrupt(file, f"{n_chunks} chunks, as declared", f"{len(found)} chunks")
        least = layout.chunk_bytes
        if any(n < least or (n != least and not layout.is_text) for n in found.values()):
            smallest = min(found.values())
            raise corrupt(file, f"chunks of {least} bytes, as declared", f"{smallest} bytes")
    if "" not in groups:
        raise corrupt(root / METADATA, "metadata of the root group", "nothing")
    if chunks:
        raise corrupt(root / next(iter(chunks)) / METADATA, "metadata of an array", "nothing")
    return groups, arrays
