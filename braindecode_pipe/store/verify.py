"""Every byte of a store compared with what was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braindecode_pipe.errors import StoreError, UnsafePathError
from braindecode_pipe.store.disk import COMMITTED, MANIFEST
from braindecode_pipe.store.index import (
    METADATA,
    Entry,
    committed_folder,
    marker,
    parse_json,
    parse_manifest,
    parse_nodes,
    read_bytes,
    sizes_of,
)
from braindecode_pipe.store.layout import crc32c


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a store: the file, what should be there, what is."""

    file: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: expected {self.expected}, found {self.found}"


def verify_store(path: str | Path) -> list[Problem]:
    """Read a whole store and list what differs from what was written; empty when all is well.

    Compared are the marker with the manifest, the manifest with all files (presence, size,
    crc32c), the metadata of every array and group with the consolidated copy, and what arrays
    declare with the chunks that are there.

    Raises
    ------
    MissingFileError, IncompleteStoreError
        When there is nothing that could be verified.
    """
    root = committed_folder(path)
    return list(_problems(root))


def _problems(root: Path) -> Iterator[Problem]:
    try:
        manifest = read_bytes(root / MANIFEST)
        if read_bytes(root / COMMITTED) != marker(manifest):
            # One checksum differs: which of the two files changed cannot be known.
            yield Problem(COMMITTED, f"the checksum of {MANIFEST}", "another")
            yield Problem(MANIFEST, f"the checksum in {COMMITTED}", f"{crc32c(manifest):08x}")
        entries = parse_manifest(manifest, root / MANIFEST)
        sizes = sizes_of(root)
    except (StoreError, UnsafePathError) as error:
        yield _as_problem(root, error)
        return
    for name in sorted(set(sizes) - set(entries) - {MANIFEST, COMMITTED}):
        yield Problem(name, "nothing: the manifest does not list it", f"{sizes[name]} bytes")
    documents: dict[str, Any] = {}
    for name, entry in sorted(entries.items()):
        if name not in sizes:
            yield Problem(name, f"{entry.size} bytes", "nothing")
            continue
        try:
            if problem := entry.problem_in(root / name):
                yield Problem(name, *problem)
            if name.rpartition("/")[2] == METADATA and not entry.is_chunk:
                node = name[: -len(METADATA)].rstrip("/")
                documents[node] = parse_json(read_bytes(root / name), root / name)
        except StoreError as error:
            yield _as_problem(root, error)
    yield from _metadata_problems(root, documents, entries)


def _metadata_problems(
    root: Path, documents: dict[str, Any], entries: dict[str, Entry]
) -> Iterator[Problem]:
    try:
        consolidated = documents[""]["consolidated_metadata"]["metadata"]
    except (KeyError, TypeError):
        yield Problem(METADATA, "consolidated metadata", "none")
        return
    nodes = {node: document for node, document in documents.items() if node}
    for node in sorted({*nodes, *consolidated}):
        if nodes.get(node) != consolidated.get(node):
            yield Problem(f"{node}/{METADATA}", "its copy in the root's zarr.json", "another")
    try:
        parse_nodes(root, documents, entries)
    except StoreError as error:
        yield _as_problem(root, error)


def _as_problem(root: Path, error: StoreError | UnsafePathError) -> Problem:
    file = Path(error.file or root)
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
    return Problem(name, error.expected or "", error.found or error.message)
