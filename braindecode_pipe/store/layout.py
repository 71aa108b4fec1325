"""How one array lies on disk: Zarr v3 metadata, chunk grid, and the bytes of a chunk.

Arrays are written here byte by byte, not through zarr: nothing is compressed, so a chunk is its
values followed by their crc32c. That keeps bytes independent of zarr's version, and the writer in
charge of every file operation. Reading goes through zarr, which checks all of it against the
specification (https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html).
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np

from braindecode_pipe.errors import CorruptStoreError, SchemaError

MAX_CHUNK_BYTES = 16 * 2**20
CHECKSUM_BYTES = 4
TEXT = "string"
# Zarr's name -> little-endian numpy type.
NUMERIC = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}


def crc32c(part: Any, start: int = 0) -> int:
    """CRC-32C (Castagnoli) of bytes or a contiguous uint8 array, going on from ``start``."""
    return google_crc32c.extend(start, part)


def checksum(value: int) -> bytes:
    """The four bytes that end a chunk file."""
    return struct.pack("<I", value)


def to_json(document: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys: equal documents give equal bytes."""
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


@dataclass(frozen=True)
class ArrayLayout:
    """Shape, type, chunks and attributes of one array.

    Attributes
    ----------
    data_type : str
        A key of ``NUMERIC``, or ``TEXT`` (variable-length UTF-8).
    dims : names of the dimensions
    shape, chunk_shape : tuple of int, one per dimension
    order : tuple of int
        Order of the dimensions within a chunk, slowest first; identity unless transposed.
    attrs : dict, JSON
    """

    data_type: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    order: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        """Whether the values are strings."""
        return self.data_type == TEXT

    @property
    def is_transposed(self) -> bool:
        """Whether chunks hold their dimensions in another order than the array."""
        return self.order != tuple(range(len(self.shape)))

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(-(-n // chunk) for n, chunk in zip(self.shape, self.chunk_shape))

    @property
    def n_chunks(self) -> int:
        """Number of chunks; arithmetic only, whatever is declared."""
        return math.prod(self.grid)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk file; for text the least that it can have."""
        n = math.prod(self.chunk_shape)
        size = 4 + 4 * n if self.is_text else n * NUMERIC[self.data_type].itemsize
        return size + CHECKSUM_BYTES

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Grid positions of all chunks."""
        return itertools.product(*map(range, self.grid))

    def key(self, index: tuple[int, ...]) -> str:
        """File of a chunk, relative to the array."""
        return "/".join(["c", *map(str, index)])

    def region(self, index: tuple[int, ...]) -> tuple[slice, ...]:
        """Part of the array that a chunk covers."""
        return tuple(
            slice(i * chunk, min((i + 1) * chunk, n))
            for i, chunk, n in zip(index, self.chunk_shape, self.shape)
        )

    def document(self) -> dict[str, Any]:
        """The array's ``zarr.json``."""
        if self.is_text:
            fill: Any = ""
            codecs: list[dict[str, Any]] = [{"name": "vlen-utf8", "configuration": {}}]
        else:
            kind = NUMERIC[self.data_type].kind
            fill = {"f": "NaN", "c": ["NaN", "NaN"], "b": False}.get(kind, 0)
            codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
        if self.is_transposed:
            step = {"name": "transpose", "configuration": {"order": list(self.order)}}
            codecs.insert(0, step)
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.data_type,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": list(self.chunk_shape)},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill,
            "codecs": [*codecs, {"name": "crc32c"}],
            "dimension_names": list(self.dims),
            "attributes": self.attrs,
            "storage_transformers": [],
        }

    @classmethod
    def from_document(cls, document: Any, name: str) -> ArrayLayout:
        """Read a ``zarr.json``; one that this package would not write is refused."""
        try:
            shape = tuple(document["shape"])
            order = tuple(range(len(shape)))
            for codec in document["codecs"]:
                if codec["name"] == "transpose":
                    order = tuple(codec["configuration"]["order"])
            layout = cls(
                data_type=document["data_type"],
                dims=tuple(document["dimension_names"]),
                shape=shape,
                chunk_shape=tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
                order=order,
                attrs=document["attributes"],
            )
            sound = (
                (layout.is_text or layout.data_type in NUMERIC)
                and len(layout.dims) == len(shape) == len(layout.chunk_shape)
                and all(type(n) is int and n >= 0 for n in shape)
                and all(type(n) is int and n >= 1 for n in layout.chunk_shape)
                and sorted(order) == list(range(len(shape)))
                and layout.document() == document
            )
        except (KeyError, TypeError):
            sound = False
        if not sound:
            raise CorruptStoreError(
                "array metadata that this package does not write",
                file=name,
                expected="uncompressed Zarr v3 with crc32c",
                found=json.dumps(document)[:200],
                remedy="run the stage again; stores of other programs must be converted first",
            )
        return layout

    def encode(self, values: np.ndarray) -> list[Any]:
        """Buffers of one chunk file, without the checksum.

        Parameters
        ----------
        values : array of the shape of the chunk's region
            Chunks at the border are filled up with the fill value.
        """
        if self.is_text:
            return [_encode_text(values, math.prod(self.chunk_shape))]
        dtype = NUMERIC[self.data_type]
        if values.shape != self.chunk_shape:
            padded = np.full(self.chunk_shape, np.nan if dtype.kind in "fc" else 0, dtype)
            padded[tuple(map(slice, values.shape))] = values
            values = padded
        return [np.ascontiguousarray(values.transpose(self.order), dtype).reshape(-1).view("u1")]

    def decode(self, payload: np.ndarray) -> np.ndarray:
        """View the bytes of a chunk as values, shape ``chunk_shape``."""
        values = payload.view(NUMERIC[self.data_type])
        stored = values.reshape([self.chunk_shape[i] for i in self.order])
        return stored.transpose(np.argsort(self.order))


def _encode_text(values: np.ndarray, n: int) -> bytes:
    # Number of strings, then each with its length in front: numcodecs' vlen-utf8.
    parts = [struct.pack("<I", n)]
    for value in values.reshape(-1):
        data = value.encode()
        parts += [struct.pack("<I", len(data)), data]
    parts += [struct.pack("<I", 0)] * (n - values.size)
    return b"".join(parts)


def data_type(name: str, dtype: np.dtype) -> str:
    """Zarr's name of a numpy type; :class:`SchemaError` for types that stores do not hold."""
    if dtype.kind in "OUT":
        return TEXT
    if dtype.name in NUMERIC:
        return dtype.name
    raise SchemaError(
        f"variable {name!r} has a type that stores do not hold",
        expected=", ".join([*NUMERIC, TEXT]),
        found=str(dtype),
        remedy="times are stored as seconds (float64), categories as text",
    )


def chunk_shape(
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    itemsize: int,
    along: str | None,
    chunks: Mapping[str, int],
) -> tuple[int, ...]:
    """Chunk lengths: cut along one dimension, at most 16 MiB each and about equally long.

    Parameters
    ----------
    dims, shape, itemsize
        Of the array, the last in bytes.
    along : str or None
        The dimension that is cut; None leaves the array whole.
    chunks : dimension -> length
        Lengths that are given, for dimensions that the array has.
    """
    lengths = dict(zip(dims, shape))
    for dim, n in lengths.items():
        if dim in chunks:
            lengths[dim] = min(chunks[dim], n)
        elif dim == along and n:
            row = itemsize * math.prod(shape) // n
            n_chunks = -(-n // max(1, MAX_CHUNK_BYTES // max(1, row)))
            lengths[dim] = -(-n // n_chunks)
    return tuple(max(1, n) for n in lengths.values())
