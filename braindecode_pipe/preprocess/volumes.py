"""Read NIfTI series slab by slab, to the very end of the stream.

nibabel stops reading once it has the bytes that it needs, so that the check value of a gzip stream
is never reached and a flipped byte goes unseen. Here the whole stream is read, once: what is needed
a second time is kept as it came out of the stream, in a file without a name.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.preprocess.scratch import Scratch
from braindecode_pipe.preprocess.sidecars import truncated

_BLOCK = 1 << 20
_SLAB = 1 << 24
# Deflate cannot compress more than this.
_MAX_RATIO = 1032


@dataclass(frozen=True)
class Summary:
    """What one pass over a series finds out.

    Attributes
    ----------
    mean : (x, y, z) mean over the volumes that count; NaN where a sample is not finite
    varying : (x, y, z) bool, finite in all volumes, not constant in those that count
    """

    mean: np.ndarray
    varying: np.ndarray


def open_series(path: Path) -> Any:
    """The nibabel image of a series, header only; ``ndim`` 4 and single file NIfTI."""
    import nibabel

    if not path.is_file():
        raise MissingFileError("the image is not there", file=path, expected="a NIfTI image")
    try:
        image = nibabel.load(path)
    except Exception as error:  # nibabel, zlib and numpy each have errors of their own
        raise DataError(
            "the image cannot be opened",
            file=path,
            expected="a NIfTI image",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        ) from error
    if not isinstance(image, (nibabel.Nifti1Image, nibabel.Nifti2Image)) or image.ndim != 4:
        raise DataError(
            "not a series of volumes",
            file=path,
            expected="a single-file NIfTI image with 4 dimensions",
            found=f"{type(image).__name__} of shape {image.shape}",
        )
    if image.dataobj.dtype.kind not in "iuf":
        raise DataError(
            "the image does not hold real numbers",
            file=path,
            expected="integers or floating-point numbers",
            found=str(image.dataobj.dtype),
        )
    volume = int(np.prod(image.shape[:3])) * image.dataobj.dtype.itemsize
    limit = path.stat().st_size * (_MAX_RATIO if path.name.endswith(".gz") else 1)
    if volume > limit:
        # A damaged or hostile header: nothing of this size is allocated on its word.
        raise truncated(
            path, f"at least one volume of {volume} bytes", f"a file that can hold {limit} bytes"
        )
    return image


class Volumes:
    """The whole volumes of a series after its dummy scans, in slabs of bounded size.

    Parameters
    ----------
    path : Path
    out : Path
        The store to be written; what is unpacked for a second pass lies in its folder meanwhile.
    skip : int
        Volumes at the start that are left out (dummy scans).
    allow_truncated : bool
        Take the whole volumes of a file that is cut.

    Attributes
    ----------
    image : nibabel image; its data are not loaded
    shape : (x, y, z)
    declared : number of volumes in the header
    n_times : number of volumes after the dummy scans; as declared, until the first pass is over
    note : "" or what is missing of a truncated file, after the first pass
    """

    def __init__(self, path: Path, out: Path, skip: int, allow_truncated: bool) -> None:
        self.image = open_series(path)
        self.path, self.skip, self.note = path, skip, ""
        self._out, self._allow_truncated = out, allow_truncated
        proxy = self.image.dataobj
        self.dtype, self._scale = proxy.dtype, (float(proxy.slope), float(proxy.inter))
        self.shape, self.declared = self.image.shape[:3], self.image.shape[3]
        self.n_voxels = int(np.prod(self.shape))
        self.n_times = max(0, self.declared - skip)
        self._volume = self.n_voxels * self.dtype.itemsize
        self._kept: Scratch | None = None

    def __enter__(self) -> Volumes:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._kept is not None:
            self._kept.__exit__(*exception)

    @property
    def may_be_nan(self) -> bool:
        """Whether the values can be something else than finite."""
        return self.dtype.kind == "f" or not np.isfinite(self._scale).all()

    def scaled(self, raw: np.ndarray, dtype: type = np.float64) -> np.ndarray:
        """Values of the image from values as stored: ``raw * scl_slope + scl_inter``.

        Computed in float64 where there is a scale, and returned as ``dtype``.
        """
        # What float32 cannot hold becomes infinite, and is treated like it.
        with np.errstate(over="ignore", invalid="ignore"):
            if self._scale == (1.0, 0.0):
                return raw.astype(dtype)
            values = raw.astype(float)
            values *= self._scale[0]
            values += self._scale[1]
            return values.astype(dtype, copy=False)

    def slabs(self, keep: bool = False) -> Iterator[tuple[int, np.ndarray]]:
        """Consecutive pieces ``(first volume, values as stored (n, n_voxels))``.

        Voxels are in the order of the file (the first index runs fastest). The array is used again
        for the next piece.

        Parameters
        ----------
        keep : bool
            Unpack a compressed series once, and take further passes from what was unpacked.

        Raises
        ------
        TruncatedRecordingError : fewer bytes than the header declares
        DataError : a gzip stream whose check value is wrong; less than two volumes
        """
        if self._kept is not None:
            for rows in self._kept_rows():
                yield rows.start, self._kept.read(rows).view(self.dtype)
            return
        if keep and self.path.name.endswith(".gz"):
            self._kept = Scratch(self._out, (self.n_times, self._volume), np.uint8).__enter__()
        n_times = 0
        for start, raw in self._stream():
            n_times = start + len(raw)
            if self._kept is not None:
                self._kept.write(start, 0, raw.view(np.uint8))
            yield start, raw
        self._finish(n_times)

    def _per_slab(self) -> int:
        return max(1, _SLAB // (8 * max(1, self.n_voxels)))

    def _kept_rows(self) -> Iterator[slice]:
        step = self._per_slab()
        for start in range(0, self.n_times, step):
            yield slice(start, min(start + step, self.n_times))

    def _stream(self) -> Iterator[tuple[int, np.ndarray]]:
        """Pieces straight from the file; a file that ends early ends them."""
        start, per = 0, self._per_slab()
        buffer = np.empty(min(per, max(1, self.n_times)) * self._volume, np.uint8)
        first = int(self.image.dataobj.offset) + self.skip * self._volume
        with _source(self.path, first, complain=not self._allow_truncated) as source:
            while start < self.n_times:
                n = min(per, self.n_times - start)
                whole = source.fill(memoryview(buffer)[: n * self._volume]) // self._volume
                if whole:
                    piece = buffer[: whole * self._volume].view(self.dtype)
                    yield start, piece.reshape(whole, self.n_voxels)
                start += whole
                if whole < n:
                    break
            source.drain()

    def _finish(self, n_times: int) -> None:
        there = self.skip + n_times
        if there < self.declared:
            if not self._allow_truncated:
                raise truncated(
                    self.path,
                    f"{self.declared} volumes of {self._volume} bytes",
                    f"{there} volumes" if n_times else f"at most {self.skip} volumes",
                )
            self.note = f"truncated: {there} of {self.declared} volumes; the prefix is used"
        if n_times < 2:
            raise DataError(
                "the series is too short",
                file=self.path,
                expected=f"at least {self.skip + 2} volumes ({self.skip} of them dummy scans)",
                found=f"{min(there, self.declared)}",
            )
        self.n_times = n_times
        if self._kept is not None:
            self._kept.shape = (n_times, self._volume)


def summarise(volumes: Volumes, counts: np.ndarray | None = None) -> Summary:
    """One pass: the mean over time and the voxels that vary; the series is kept for another.

    Parameters
    ----------
    volumes : Volumes
    counts : (n,) bool, optional
        Volumes that the mean and the variation are from, None: all. Finite they must all be.

    Raises
    ------
    See :meth:`Volumes.slabs`; DataError when no two volumes count.
    """
    total, finite = np.zeros(volumes.n_voxels), np.ones(volumes.n_voxels, bool)
    low = high = None
    n_counted = 0
    for start, raw in volumes.slabs(keep=True):
        if volumes.may_be_nan:
            finite &= np.isfinite(raw).all(axis=0)
        used = raw if counts is None else raw[counts[start : start + len(raw)]]
        if not len(used):
            continue
        n_counted += len(used)
        with np.errstate(invalid="ignore"):
            total += used.sum(axis=0, dtype=float)
            least, most = used.min(axis=0), used.max(axis=0)
            low = least if low is None else np.minimum(low, least)
            high = most if high is None else np.maximum(high, most)
    if n_counted < 2 or low is None or high is None:
        raise DataError(
            "no mask can be computed", file=volumes.path, expected="two volumes or more",
            found=f"{n_counted} that may be seen", remedy="set preprocess.bold.mask",
        )  # fmt: skip
    with np.errstate(invalid="ignore"):
        varying = finite & (high > low)
        mean = np.where(finite, volumes.scaled(total / n_counted), np.nan)
    shape = volumes.shape
    return Summary(mean.reshape(shape, order="F"), varying.reshape(shape, order="F"))


class _Plain:
    """The bytes of a file from ``first`` on."""

    def __init__(self, path: Path, first: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(first)

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def fill(self, view: memoryview) -> int:
        """Read into ``view``; how many bytes, fewer than its length only at the end."""
        n = 0
        while n < len(view) and (got := self._file.readinto(view[n:])):
            n += got
        return n

    def drain(self) -> None:
        """Nothing checks the rest of a plain file."""


class _Unpacked:
    """The unpacked bytes of a gzip file from ``first`` on, check values verified."""

    def __init__(self, path: Path, first: int, complain: bool) -> None:
        self._pieces = read_to_end(path, complain)
        self._rest = memoryview(b"")
        while first > len(self._rest):
            first -= len(self._rest)
            piece = next(self._pieces, None)
            if piece is None:
                first = 0
            self._rest = memoryview(piece or b"")
        self._rest = self._rest[first:]

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pieces.close()

    def fill(self, view: memoryview) -> int:
        """See :meth:`_Plain.fill`."""
        n = 0
        while n < len(view):
            if not len(self._rest):
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._rest = memoryview(piece)
                continue
            m = min(len(self._rest), len(view) - n)
            view[n : n + m] = self._rest[:m]
            self._rest, n = self._rest[m:], n + m
        return n

    def drain(self) -> None:
        """Go on to the end of the stream, for the sake of its check value."""
        for _ in self._pieces:
            pass


def _source(path: Path, first: int, complain: bool) -> _Plain | _Unpacked:
    if path.name.endswith(".gz"):
        return _Unpacked(path, first, complain)
    return _Plain(path, first)


def read_to_end(path: Path, complain: bool = True) -> Iterator[bytes]:
    """Decompressed bytes of a file, the check value of every gzip member verified.

    Raises
    ------
    DataError : a check value that is wrong
    TruncatedRecordingError : with ``complain``, a gzip stream that ends early
    """
    with path.open("rb") as stream:
        if not path.name.endswith(".gz"):
            while block := stream.read(_BLOCK):
                yield block
            return
        decoder, at_end = zlib.decompressobj(wbits=31), False
        while block := stream.read(_BLOCK):
            while block:
                try:
                    # Zeros shrink a thousandfold: what comes out is bounded, not what goes in.
                    piece = decoder.decompress(block, _BLOCK)
                except zlib.error as error:
                    raise DataError(
                        "the compressed image is damaged",
                        file=path,
                        expected="a gzip stream whose check value is right",
                        found=str(error),
                        remedy="copy or download the file again",
                    ) from error
                yield piece
                block, at_end = decoder.unconsumed_tail, decoder.eof
                if at_end:
                    # Several members may follow each other, zeros may fill up a tape block.
                    block = decoder.unused_data.lstrip(b"\0")
                    decoder = zlib.decompressobj(wbits=31)
        yield decoder.flush()
        if complain and not at_end:
            raise truncated(path, "a gzip stream with its closing check value", "it ends before")
