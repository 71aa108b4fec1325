"""Read NIfTI series slab by slab, to the very end of the stream.

nibabel stops reading once it has the bytes that it needs, so that the check value of a gzip stream
is never reached and a flipped byte goes unseen. Here the whole stream is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, MissingFileError
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
    n_times : volumes that are there in full
    mean : (x, y, z) mean over time; NaN where a sample is not finite
    varying : (x, y, z) bool, finite and not constant
    finite : (x, y, z) bool
    note : "" or what is missing of a truncated file
    """

    n_times: int
    mean: np.ndarray
    varying: np.ndarray
    finite: np.ndarray
    note: str


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
    volume = int(np.prod(image.shape[:3])) * image.dataobj.dtype.itemsize
    limit = path.stat().st_size * (_MAX_RATIO if path.name.endswith(".gz") else 1)
    if volume > limit:
        # A damaged or hostile header: nothing of this size is allocated on its word.
        raise truncated(
            path, f"at least one volume of {volume} bytes", f"a file that can hold {limit} bytes"
        )
    return image


def scan(image: Any, path: Path, skip: int, allow_truncated: bool) -> Summary:
    """First pass: check the whole stream, and find the mean and the voxels that vary.

    Parameters
    ----------
    image : result of :func:`open_series`
    path : Path
    skip : int
        Volumes at the start that do not count (dummy scans).
    allow_truncated : bool

    Raises
    ------
    TruncatedRecordingError : fewer bytes than the header declares
    DataError : a gzip stream whose check value is wrong
    """
    shape, declared = image.shape[:3], image.shape[3]
    total, low, high = np.zeros(shape), np.full(shape, np.inf), np.full(shape, -np.inf)
    finite = np.ones(shape, bool)
    n_times = 0
    for start, slab in slabs(image, path, complain=not allow_truncated):
        n_times = start + slab.shape[3]
        kept = slab[..., max(0, skip - start) :]
        if kept.shape[3] == 0:
            continue
        finite &= np.isfinite(kept).all(axis=3)
        with np.errstate(invalid="ignore"):
            total += kept.sum(axis=3)
            low, high = np.minimum(low, kept.min(axis=3)), np.maximum(high, kept.max(axis=3))
    if n_times - skip < 2:
        raise DataError(
            "the series is too short",
            file=path,
            expected=f"at least {skip + 2} volumes ({skip} of them dummy scans)",
            found=f"{n_times}",
        )
    note = ""
    if n_times < declared:
        note = f"truncated: {n_times} of {declared} volumes; the prefix is used"
    mean = np.where(finite, total / (n_times - skip), np.nan)
    return Summary(n_times, mean, finite & (high > low), finite, note)


def slabs(image: Any, path: Path, complain: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive pieces ``(first volume, array (x, y, z, n) float64)`` of a series.

    With ``complain`` a stream that ends early raises, otherwise its whole volumes are given.
    """
    proxy = image.dataobj
    shape, declared, dtype = image.shape[:3], image.shape[3], proxy.dtype
    volume = int(np.prod(shape)) * dtype.itemsize
    per_slab = max(1, _SLAB // max(1, int(np.prod(shape)) * 8))
    pending, start, to_skip = bytearray(), 0, int(proxy.offset)
    for block in read_to_end(path, complain):
        pending += block
        if to_skip:
            cut = min(to_skip, len(pending))
            del pending[:cut]
            to_skip -= cut
        while start < declared and len(pending) >= volume * min(per_slab, declared - start):
            n = min(per_slab, declared - start)
            yield start, _values(pending, shape, n, volume, proxy)
            del pending[: n * volume]
            start += n
        if start == declared:
            # Padding after the last volume; the stream goes on for the sake of its check value.
            pending.clear()
    n = min(len(pending) // volume, declared - start)
    if n > 0:
        yield start, _values(pending, shape, n, volume, proxy)
        start += n
    if complain and start < declared:
        raise truncated(path, f"{declared} volumes of {volume} bytes", f"{start} volumes")


def _values(
    pending: bytearray, shape: tuple[int, ...], n: int, volume: int, proxy: Any
) -> np.ndarray:
    raw = np.frombuffer(bytes(pending[: n * volume]), proxy.dtype)
    values = raw.reshape((*shape, n), order="F").astype(float)
    if (proxy.slope, proxy.inter) != (1.0, 0.0):
        values = values * proxy.slope + proxy.inter
    return values


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
