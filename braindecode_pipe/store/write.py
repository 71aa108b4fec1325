"""Writing stores: aside, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from braindecode_pipe.errors import MissingFileError, SchemaError, StoreError
from braindecode_pipe.schema import SCHEMA_VERSION
from braindecode_pipe.store.commit import check_target, commit, recover, sibling
from braindecode_pipe.store.disk import COMMITTED, MANIFEST, Disk, Hook
from braindecode_pipe.store.index import METADATA, Entry, manifest_bytes
from braindecode_pipe.store.layout import NUMERIC, ArrayLayout, checksum, crc32c, to_json
from braindecode_pipe.store.lock import StoreLock
from braindecode_pipe.store.paths import safe_join
from braindecode_pipe.store.template import check_attrs, is_placeholder, plan_arrays, plan_groups

_BLOCK_BYTES = 4096
_COPY_BYTES = 2**20


class StoreWriter:
    """Writes one store, piece by piece; leaving the ``with`` block commits it.

    The template of the result is checked before a byte is written. Variables of the template that
    hold values (coordinates, small tables) are written as they are when the block ends, unless
    they were written before. Variables that are placeholders must be written in the block: those
    backed by dask (``dask.array.zeros(shape, dtype=np.float32)``), and numpy arrays broadcast from
    one value (``np.broadcast_to(np.float32(0), shape)``). An exception in the block leaves the
    target as it was. Equal content gives equal bytes.

    Parameters
    ----------
    path : path
        The store; a committed version there is replaced at the end, in one step.
    templates : group -> xarray.Dataset
        Names, dimensions, types and attributes of the result; ``""`` is the root.
    attrs : mapping, optional
        Attributes of the root, JSON; they go before the template's own.
    hook : callable, optional
        ``hook(event, path)`` before each write, fsync, rename and delete.
    chunks : dimension -> length, optional
        Where the default (16 MiB) does not fit.

    Raises
    ------
    SchemaError
        When a template does not follow the data contract, or cannot be stored.
    StoreLockedError, DiskFullError, StoreError, UnsafePathError
        On entering.
    """

    def __init__(
        self,
        path: str | Path,
        templates: Mapping[str, xr.Dataset],
        attrs: Mapping[str, Any] | None = None,
        hook: Hook | None = None,
        *,
        chunks: Mapping[str, int] | None = None,
    ) -> None:
        path = Path(path)
        self.path = path.parent.resolve() / path.name
        self._attrs = plan_groups(templates)
        self.set_attrs("", {"schema_version": SCHEMA_VERSION, **(attrs or {})})
        planned = plan_arrays(templates, chunks or {})
        self._layouts: dict[str, ArrayLayout] = {name: pair[0] for name, pair in planned.items()}
        self._values = {name: pair[1] for name, pair in planned.items()}
        self._written = {name: np.zeros(a.grid, bool) for name, a in self._layouts.items()}
        self._entries: dict[str, Entry] = {}
        self._disk = Disk(self.path, hook)
        self._lock = StoreLock(self.path)
        self._folder = sibling(self.path, "tmp")
        self._done = False

    def __enter__(self) -> StoreWriter:
        self._lock.acquire()
        try:
            check_target(self.path)
            recover(self.path, self._disk)
            self._disk.check_space(self._estimate())
            self._disk.make_folder(self._folder)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            try:
                if not self._done:
                    self._undo()
            finally:
                self._lock.release()

    def chunks(self, group: str, variable: str) -> dict[str, int]:
        """Dimension -> chunk length, for cutting the regions that :meth:`write` takes."""
        layout = self._layout(group, variable)[1]
        return dict(zip(layout.dims, layout.chunk_shape))

    def write(
        self, group: str, variable: str, region: Mapping[str, slice], values: np.ndarray
    ) -> None:
        """Write whole chunks of a variable.

        Parameters
        ----------
        group, variable : str
        region : dimension -> slice
            Starts and stops at chunk borders (or the end); other dimensions are written whole.
        values : array of the region's shape
            Of the variable's type, or of the same kind (float64 into float32).

        Raises
        ------
        SchemaError
            For another shape, type or dimension.
        StoreError
            When the region cuts a chunk, or a chunk was written before.
        """
        name, layout = self._layout(group, variable)
        bounds = _bounds(name, layout, region)
        values = _as_type(name, layout, values)
        shape = tuple(stop - start for start, stop in bounds)
        if values.shape != shape:
            raise SchemaError(
                f"values for {name!r} have the wrong shape",
                file=self.path,
                expected=str(dict(zip(layout.dims, shape))),
                found=str(values.shape),
            )
        box = tuple(
            slice(start // step, -(-stop // step))
            for (start, stop), step in zip(bounds, layout.chunk_shape)
        )
        written = self._written[name]
        if written[box].any():
            raise StoreError(
                f"chunks of {name!r} are written twice",
                file=self.path,
                expected="every chunk once",
                found=f"region {dict(zip(layout.dims, bounds))}",
            )
        for offset in np.ndindex(written[box].shape):
            index = tuple(part.start + i for part, i in zip(box, offset))
            inner = tuple(
                slice(part.start - start, part.stop - start)
                for part, (start, _) in zip(layout.region(index), bounds)
            )
            self._put_chunk(name, layout, index, values[inner])
        written[box] = True

    def set(self, group: str, variable: str, values: np.ndarray) -> None:
        """Write a whole variable."""
        self.write(group, variable, {}, values)

    def set_attrs(self, group: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to a group; they must be JSON."""
        if group not in self._attrs:
            raise SchemaError(f"no group {group!r} in the template", file=self.path)
        self._attrs[group].update(check_attrs(attrs, group))

    def add_file(self, name: str, data: bytes | str | Path) -> None:
        """Put a file beside the arrays: bytes, or a file to copy."""
        parts = name.split("/")
        first = {part.split("/")[0] for part in (*self._layouts, *self._attrs)} - {""}
        if (
            parts[0] in {*first, METADATA, MANIFEST, COMMITTED, f"{COMMITTED}.part"}
            or METADATA in parts
            or name in self._entries
        ):
            raise StoreError(f"the store has something else named {name!r}", file=self.path)
        target = safe_join(self._folder, name)
        if isinstance(data, bytes):
            self._put(target, [data], is_chunk=False)
            return
        source = Path(data)
        if not source.is_file():
            raise MissingFileError("a file for the store is not there", file=source)
        self._disk.check_space(source.stat().st_size + _BLOCK_BYTES)
        with open(source, "rb") as file:
            self._put(target, iter(lambda: file.read(_COPY_BYTES), b""), is_chunk=False)

    def _layout(self, group: str, variable: str) -> tuple[str, ArrayLayout]:
        name = f"{group}/{variable}".lstrip("/")
        if name not in self._layouts:
            raise SchemaError(
                f"no variable {name!r} in the template",
                file=self.path,
                expected=", ".join(sorted(self._layouts)),
                found=name,
            )
        return name, self._layouts[name]

    def _estimate(self) -> int:
        total = 0
        for name, layout in self._layouts.items():
            total += layout.n_chunks * (layout.chunk_bytes + _BLOCK_BYTES) + _BLOCK_BYTES
            if layout.is_text:
                total += sum(4 * len(str(v)) for v in np.ravel(self._values[name].values))
        return total

    def _put(self, file: Path, parts: Any, *, is_chunk: bool) -> None:
        crc, size = 0, 0

        def measured():
            nonlocal crc, size
            for part in parts:
                crc, size = crc32c(part, start=crc), size + len(part)
                yield part
            if is_chunk:
                size += len(checksum(crc))
                yield checksum(crc)

        self._disk.write(file, measured())
        self._entries[file.relative_to(self._folder).as_posix()] = Entry(size, crc, is_chunk)

    def _put_chunk(
        self, name: str, layout: ArrayLayout, index: tuple[int, ...], values: np.ndarray
    ) -> None:
        file = self._folder / name / layout.key(index)
        self._put(file, layout.encode(values), is_chunk=True)

    def _finish(self) -> None:
        for name, variable in self._values.items():
            if not self._written[name].any() and not is_placeholder(variable):
                group, _, short = name.rpartition("/")
                self.set(group, short, variable.values)
        self._refuse_gaps()
        self._write_metadata()
        entries = dict(sorted(self._entries.items()))
        self._disk.write(self._folder / MANIFEST, [manifest_bytes(entries)])
        folders = {self._folder}
        for name in (*entries, MANIFEST):
            file = self._folder / name
            self._disk.sync(file)
            folders.update(p for p in file.parents if p.is_relative_to(self._folder))
        for folder in sorted(folders, reverse=True):
            self._disk.sync(folder)
        self._lock.check()
        commit(self._folder, self.path, self._disk)
        self._done = True

    def _undo(self) -> None:
        quiet = Disk.quiet(self.path)
        if self._lock.is_mine():
            recover(self.path, quiet)
        elif self._folder.exists():
            quiet.remove(self._folder)

    def _refuse_gaps(self) -> None:
        for name, written in self._written.items():
            missing = int(written.size - np.count_nonzero(written))
            if missing:
                first = tuple(int(i) for i in np.argwhere(~written)[0])
                raise StoreError(
                    f"{missing} of {written.size} chunks of {name!r} were never written",
                    file=self.path,
                    expected="every chunk of the template",
                    found=f"nothing in chunk {first}",
                    remedy="write the missing region, or set() the whole variable",
                )

    def _write_metadata(self) -> None:
        documents: dict[str, dict[str, Any]] = {
            name: layout.document() for name, layout in self._layouts.items()
        }
        for group, attrs in self._attrs.items():
            documents[group] = {"zarr_format": 3, "node_type": "group", "attributes": attrs}
        root = documents.pop("")
        root["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": documents,
        }
        for node, document in sorted({**documents, "": root}.items()):
            self._put(self._folder / node / METADATA, [to_json(document)], is_chunk=False)


def write_store(
    path: str | Path,
    groups: Mapping[str, xr.Dataset],
    attrs: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes | str | Path] | None = None,
    hook: Hook | None = None,
    *,
    chunks: Mapping[str, int] | None = None,
) -> None:
    """Write a whole store; arrays backed by dask are computed chunk by chunk.

    Parameters are those of :class:`StoreWriter`; ``files`` maps a name to bytes, or to a file
    that is copied. Either the store is there, committed, when this returns, or the target is what
    it was before.
    """
    with StoreWriter(path, groups, attrs, hook, chunks=chunks) as writer:
        for group, dataset in groups.items():
            for name, variable in dataset.variables.items():
                _write_chunks(writer, group, str(name), variable)
        for name, data in sorted((files or {}).items()):
            writer.add_file(name, data)


def _write_chunks(writer: StoreWriter, group: str, name: str, variable: xr.Variable) -> None:
    layout = writer._layout(group, name)[1]
    for index in layout.indices():
        region = dict(zip(layout.dims, layout.region(index)))
        writer.write(group, name, region, variable[layout.region(index)].values)


def _bounds(
    name: str, layout: ArrayLayout, region: Mapping[str, slice]
) -> tuple[tuple[int, int], ...]:
    unknown = set(region) - set(layout.dims)
    if unknown:
        raise SchemaError(
            f"{name!r} has no dimension {', '.join(sorted(map(str, unknown)))}",
            expected=", ".join(layout.dims),
        )
    bounds = []
    for dim, n, step in zip(layout.dims, layout.shape, layout.chunk_shape):
        part = region.get(dim, slice(None))
        start = 0 if part.start is None else part.start
        stop = n if part.stop is None else part.stop
        if (
            part.step not in (None, 1)
            or not 0 <= start <= stop <= n
            or start % step
            or (stop % step and stop != n)
        ):
            raise StoreError(
                f"a region of {name!r} is not made of whole chunks",
                expected=f"{dim} from a multiple of {step} to a multiple of {step}, or to {n}",
                found=f"{dim} {start}:{stop}",
                remedy="cut along writer.chunks(group, variable)",
            )
        bounds.append((start, stop))
    return tuple(bounds)


def _as_type(name: str, layout: ArrayLayout, values: Any) -> np.ndarray:
    values = np.asarray(values, dtype=object if layout.is_text else None)
    if layout.is_text:
        for value in values.reshape(-1):
            if not isinstance(value, str):
                raise SchemaError(
                    f"{name!r} holds something that is no text",
                    expected="str",
                    found=f"{type(value).__name__} {value!r}",
                )
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise SchemaError(
                    f"{name!r} holds text that is no valid Unicode", found=repr(value)
                ) from error
        return values
    dtype = NUMERIC[layout.data_type]
    if not np.can_cast(values.dtype, dtype, "same_kind"):
        raise SchemaError(
            f"values for {name!r} have the wrong type",
            expected=str(dtype),
            found=str(values.dtype),
        )
    stored = values.astype(dtype, copy=False)
    if dtype.kind in "iu" and not np.array_equal(stored, values):
        raise SchemaError(
            f"values for {name!r} do not fit their type",
            expected=f"{np.iinfo(dtype).min} to {np.iinfo(dtype).max}",
            found=f"{values.min()} to {values.max()}",
        )
    return stored
