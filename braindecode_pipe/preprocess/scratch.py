"""A file for what does not fit into memory while a recording is worked on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import StoreError
from braindecode_pipe.store import StoreWriter
from braindecode_pipe.store.disk import Disk

# What is held in memory at a time, as float64; a single row may be longer.
BLOCK_BYTES = 2**24


class Scratch:
    """An array (row, column) in a file without a name, in the folder of the store to be written.

    The operating system deletes the file with the process, however that ends. It is read and
    written piece by piece, and not mapped, so that none of it counts as memory of the process.
    Iterating gives the rows.

    Parameters
    ----------
    out : path
        The store; errors name it.
    shape : (n_rows, n_columns)
    dtype : of the values
    blank : bool
        Zero where nothing was written; otherwise reading that is an error.

    Raises
    ------
    DiskFullError, StoreError : on entering and on writing
    """

    def __init__(
        self, out: Path, shape: tuple[int, int], dtype: type = np.float64, *, blank: bool = False
    ) -> None:
        self.shape, self._blank = shape, blank
        self._dtype = np.dtype(dtype)
        self._disk = Disk.quiet(Path(out))

    def __enter__(self) -> Scratch:
        n_bytes = self.shape[0] * self.shape[1] * self._dtype.itemsize
        folder = self._disk.target.parent
        self._disk.make_folder(folder)
        self._disk.check_space(n_bytes)
        with self._disk.explained():
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
            if self._blank:
                self._file.truncate(n_bytes)
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for i in range(len(self)):
            yield self.read(slice(i, i + 1))[0]

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Values of a range of rows and columns, as a new array."""
        first_row, last_row, _ = rows.indices(self.shape[0])
        first, last, _ = columns.indices(self.shape[1])
        values = np.empty((last_row - first_row, last - first), self._dtype)
        for place, piece in self._pieces(first_row, first, values):
            while piece:
                n = os.preadv(self._file.fileno(), [piece], place)
                if not n:
                    raise StoreError(
                        "the scratch file of a store ends early",
                        file=self._disk.target,
                        expected=f"{len(piece)} bytes more",
                        found="the end of the file",
                        remedy="run the stage again",
                    )
                piece, place = piece[n:], place + n
        return values

    def write(self, row: int, column: int, values: np.ndarray) -> None:
        """Write ``values`` (row, column) so that the first one lies at ``row`` and ``column``."""
        values = np.ascontiguousarray(values, self._dtype)
        with self._disk.explained():
            for place, piece in self._pieces(row, column, values):
                while piece:
                    n = os.pwrite(self._file.fileno(), piece, place)
                    piece, place = piece[n:], place + n

    def clear(self) -> None:
        """Zero everywhere, as in the beginning of a blank array."""
        self._file.truncate(0)
        self._file.truncate(self.shape[0] * self.shape[1] * self._dtype.itemsize)

    def row_blocks(self) -> Iterator[slice]:
        """Consecutive ranges of rows that fit into memory, at least one row each."""
        return slices(self.shape[0], max(1, BLOCK_BYTES // (8 * max(1, self.shape[1]))))

    def column_blocks(self) -> Iterator[slice]:
        """Consecutive ranges of columns that fit into memory."""
        return slices(self.shape[1], max(1, BLOCK_BYTES // (8 * max(1, self.shape[0]))))

    def mix(
        self, matrix: np.ndarray, other: Scratch | None = None, weights: np.ndarray | None = None
    ) -> None:
        """Replace the rows by ``matrix @ rows``, with as many rows as the matrix or more before.

        Rows of the matrix that only pass on a row are copied, not multiplied. With ``other``, an
        array of as many columns, ``weights @ other`` is added. The products are taken at the
        precision of the values.
        """
        source = np.abs(matrix).argmax(axis=1)
        passed = (np.count_nonzero(matrix, axis=1) == 1) & (
            matrix[np.arange(len(matrix)), source] == 1
        )
        same = passed.all() and np.array_equal(source, np.arange(len(self)))
        if not same or other is not None:
            rest = matrix[~passed].astype(self._dtype)
            for columns in self.column_blocks():
                values = self.read(columns=columns)
                mixed = values[source]
                mixed[~passed] = rest @ values
                if other is not None:
                    mixed += weights.astype(self._dtype) @ other.read(columns=columns)
                self.write(0, columns.start, mixed)
        self.shape = (len(matrix), self.shape[1])

    def _pieces(
        self, row: int, column: int, values: np.ndarray
    ) -> Iterator[tuple[int, memoryview]]:
        """Places in the file and the bytes of ``values`` that belong there."""
        if not values.size:
            return
        size, stride = values.shape[1] * self._dtype.itemsize, self.shape[1] * self._dtype.itemsize
        place, data = row * stride + column * self._dtype.itemsize, memoryview(values).cast("B")
        if size == stride:
            yield place, data
            return
        for i in range(len(values)):
            yield place + i * stride, data[i * size : (i + 1) * size]


def slices(n: int, step: int) -> Iterator[slice]:
    """Consecutive ranges of ``step``, the last one shorter, that make up ``range(n)``."""
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def write_along(
    writer: StoreWriter, variable: str, dim: str, n: int, read: Callable[[slice], np.ndarray]
) -> None:
    """Write a variable of the root chunk by chunk along ``dim``; ``read`` gives the values."""
    for part in slices(n, writer.chunks("", variable)[dim]):
        writer.write("", variable, {dim: part}, read(part))
