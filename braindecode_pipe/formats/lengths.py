"""Lengths and channel names that headers declare, against what is on the disk.

Nothing here reads samples. Headers are read with plain Python, since the readers of these formats
return half a recording, or renamed channels, without an error.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from braindecode_pipe.errors import DataError, MissingFileError, TruncatedRecordingError
from braindecode_pipe.formats import brainvision, eeglab, kit
from braindecode_pipe.formats.kinds import require
from braindecode_pipe.formats.names import refuse_repeated, repeated

# Channels that hold text.
EDF_NOTES = ("EDF Annotations", "BDF Annotations")
_BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
# Where a CTF .res4 file says how long a trial is (mne.io.ctf.res4).
_CTF_SIZES, _CTF_HEADER = 1288, 8


@dataclass(frozen=True)
class Declared:
    """What a recording's header says, beside what is on the disk.

    Attributes
    ----------
    names : channel names, where the header is read for them
    expected, found : lengths in words where the recording is shorter than declared, else ""
    n_times : samples that are whole, where the prefix of a cut recording can be read; else None
    """

    names: tuple[str, ...] = ()
    expected: str = ""
    found: str = ""
    n_times: int | None = None

    @property
    def truncated(self) -> bool:
        return bool(self.expected)


def declared(path: Path) -> Declared:
    """Read the header of a recording; an empty :class:`Declared` for formats without a length.

    BrainVision, EDF, BDF, GDF, FIF, EEGLAB, KIT, CTF, EGI (simple binary and MFF), Nicolet.

    Raises
    ------
    MissingFileError : a part of the recording is not there
    DataError : a header that makes no sense
    """
    require(path)
    name = path.name.lower()
    reader = _READERS.get(".fif.gz" if name.endswith(".fif.gz") else path.suffix.lower())
    if reader is None:
        return Declared()
    try:
        return reader(path)
    except (ValueError, KeyError, IndexError, ZeroDivisionError, struct.error, OSError) as error:
        raise DataError(
            f"the header of {path.name} cannot be read",
            file=path,
            expected=f"a whole {path.suffix} header",
            found=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy="copy the file again, or leave it out",
        ) from error


def check_declared(path: Path, allow_truncated: bool, repairs: tuple[str, ...] = ()) -> str:
    """Compare a header with the file that it describes.

    Parameters
    ----------
    path : Path
    allow_truncated : bool
        Do not raise where the prefix of a cut recording can be read.
    repairs : of ``EmegSection``; ``unique-names`` allows names that repeat

    Returns
    -------
    str
        "" when the recording is whole, else what is missing (only with ``allow_truncated``).

    Raises
    ------
    MissingFileError : a part of the recording is not there
    TruncatedRecordingError : fewer samples or bytes than declared
    DataError : channel names that repeat; a header that makes no sense
    """
    header = declared(path)
    if "unique-names" not in repairs:
        refuse_repeated(path, repeated(header.names))
    if not header.truncated:
        return ""
    if not allow_truncated or header.n_times == 0:
        raise truncated(path, header.expected, header.found)
    return f"truncated: {header.found} of {header.expected}; the prefix is used"


def truncated(path: Path, expected: str, found: str) -> TruncatedRecordingError:
    """The error for a recording that is shorter than declared."""
    return TruncatedRecordingError(
        "the recording is shorter than declared",
        file=path,
        expected=expected,
        found=found,
        remedy="copy it again, exclude it in [[plan.exclude]], or set plan.allow_truncated "
        "(formats with a fixed frame keep the prefix; a cut FIF file cannot be read)",
    )


def mixed_rates(path: Path) -> bool:
    """Whether the channels of an EDF or BDF file have several rates; a GDF file may always."""
    suffix = path.suffix.lower()
    if suffix not in (".edf", ".bdf"):
        return suffix == ".gdf"
    _, _, names, counts = _edf_header(path)
    return len({n for name, n in zip(names, counts) if not name.endswith(EDF_NOTES)}) > 1


def _frames(
    n_declared: int, frame: int, size: int, file: Path, names: tuple[str, ...] = ()
) -> Declared:
    """A file of ``size`` bytes of samples that should hold ``n_declared`` frames."""
    n_found = max(0, size) // frame
    if n_found >= n_declared:
        return Declared(names)
    return Declared(
        names, f"{n_declared} samples", f"{n_found} samples ({size} bytes in {file.name})", n_found
    )


def _brainvision(path: Path) -> Declared:
    header = brainvision.read_header(path)
    values, names = header.values, header.names
    file = header.require_data()
    n_channels = int(values["numberofchannels"])
    if len(names) != n_channels:
        return Declared(names, f"{n_channels} channels in the header", f"{len(names)} channels", 0)
    if file is None or values.get("dataformat", "BINARY").upper() != "BINARY":
        return Declared(names)
    frame = n_channels * _BYTES[values.get("binaryformat", "INT_16").upper()]
    size = os.path.getsize(file)
    n_times = size // frame
    last = int(values.get("datapoints", 0) or 0)
    if not last:
        # A marker may stand on the sample after the last one: the end of the recording.
        last = brainvision.last_marker(header.markers) - 1
    last = max(last, n_times + bool(size % frame))
    if last > n_times:
        found = f"{n_times} samples ({size} bytes in {file.name})"
        return Declared(names, f"at least {last} samples", found, n_times)
    return Declared(names)


def _edf_header(path: Path) -> tuple[int, int, list[str], list[int]]:
    """Bytes of the header, number of records, names and samples per record of the channels."""
    with path.open("rb") as stream:
        head = stream.read(256)
        n_signals, n_header, n_records = int(head[252:256]), int(head[184:192]), int(head[236:244])
        fields = stream.read(256 * n_signals).decode("latin-1")
    names = [fields[16 * i : 16 * i + 16].strip() for i in range(n_signals)]
    start = n_signals * (16 + 80 + 5 * 8 + 80)
    counts = [int(fields[start + 8 * i : start + 8 * i + 8]) for i in range(n_signals)]
    return n_header, n_records, names, counts


def _edf(path: Path) -> Declared:
    n_header, n_records, names, counts = _edf_header(path)
    size = os.path.getsize(path)
    record = sum(counts) * (3 if path.suffix.lower() == ".bdf" else 2)
    shown = tuple(name for name in names if not name.endswith(EDF_NOTES))
    # -1 records: the recorder never closed the file, so that nothing is declared.
    if n_records >= 0 and size < n_header + n_records * record:
        whole = max(0, size - n_header) // record
        return Declared(
            shown,
            f"{n_records} records of {record} bytes",
            f"{max(0, size - n_header) / record:.2f} records ({size} bytes)",
            whole * max(counts),
        )
    return Declared(shown)


def _gdf(path: Path) -> Declared:
    """The length of the records; version 2 counts header blocks, version 1 bytes."""
    widths = {0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 8, 8: 8, 16: 4, 17: 8}
    size = os.path.getsize(path)
    with path.open("rb") as stream:
        version = float(stream.read(8)[4:].decode("ascii"))
        stream.seek(184)
        n_header = struct.unpack("<H", stream.read(2))[0] * 256 if version >= 1.9 else (
            struct.unpack("<q", stream.read(8))[0])  # fmt: skip
        stream.seek(236)
        n_records = struct.unpack("<q", stream.read(8))[0]
        stream.seek(252)
        n_signals = struct.unpack("<H" if version >= 1.9 else "<I",
                                  stream.read(2 if version >= 1.9 else 4))[0]  # fmt: skip
        stream.seek(256 + 216 * n_signals)
        counts = struct.unpack(f"<{n_signals}I", stream.read(4 * n_signals))
        kinds = struct.unpack(f"<{n_signals}I", stream.read(4 * n_signals))
    record = sum(n * widths[kind] for n, kind in zip(counts, kinds))
    if n_records >= 0 and size < n_header + n_records * record:
        found = f"{max(0, size - n_header) / record:.2f} records ({size} bytes)"
        return Declared((), f"{n_records} records of {record} bytes", found, 0)
    return Declared()


def _fif(path: Path) -> Declared:
    """Follow the tags of a FIF file; a whole one ends with a tag whose successor is -1."""
    if path.suffix.lower() == ".gz":
        return _fif_gz(path)
    size = os.path.getsize(path)
    with path.open("rb") as stream:
        return _tags(stream, size)


def _fif_gz(path: Path) -> Declared:
    """Unpack to the end, which compares the checksum, then follow the tags."""
    size = 0
    try:
        with gzip.open(path) as stream:
            while block := stream.read(1 << 20):
                size += len(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        held = os.path.getsize(path)
        return Declared((), "a whole gzip file", f"{held} bytes: {str(error).rstrip('.')}", 0)
    with gzip.open(path) as stream:
        return _tags(stream, size)


def _tags(stream: BinaryIO, size: int) -> Declared:
    offset, seen = 0, set()
    while offset + 16 <= size:
        stream.seek(offset)
        _, _, length, following = struct.unpack(">iIii", stream.read(16))
        if length < 0 or following < -1:
            raise ValueError(f"a negative length or offset at byte {offset}")
        if offset + 16 + length > size:
            return Declared((), f"{offset + 16 + length} bytes or more", f"{size} bytes", 0)
        if following == -1:
            return Declared()
        # Files that were edited in place jump to their end and back, so only a loop is wrong.
        seen.add(offset)
        offset = offset + 16 + length if following == 0 else following
        if offset in seen:
            raise ValueError(f"the tags run in a circle at byte {offset}")
    return Declared((), f"a closing tag after byte {offset}", f"{size} bytes", 0)


def _eeglab(path: Path) -> Declared:
    try:
        header = eeglab.read_header(path)
    except ImportError:
        return Declared()  # its reader will say what it needs
    except Exception as error:  # scipy has a dozen errors for a cut file
        raise ValueError(str(error)) from error
    if not header.data:
        return Declared()
    file = path.with_name(Path(header.data.replace("\\", "/")).name)
    if not file.is_file():
        file = path.with_suffix(".fdt")
    if not file.is_file():
        raise MissingFileError(
            "the data file that an EEGLAB header names is not there",
            file=path,
            expected=Path(header.data.replace("\\", "/")).name,
            found="nothing",
            remedy="copy it too; with git-annex or DataLad: get it",
        )
    require(file)
    n_declared = header.n_times * header.trials
    return _frames(n_declared, 4 * header.n_channels, os.path.getsize(file), file)


def _kit(path: Path) -> Declared:
    directory = kit.read_directory(path)
    size = os.path.getsize(path)
    if size < directory.n_bytes:
        return Declared((), f"{directory.n_bytes} bytes", f"{size} bytes", 0)
    return Declared()


def _ctf(path: Path) -> Declared:
    """``.ds`` folder: trials x samples x channels in the header, bytes of the ``.meg4`` files."""
    header, data = path / f"{path.stem}.res4", path / f"{path.stem}.meg4"
    for file in (header, data):
        if not file.is_file():
            raise MissingFileError(
                "a part of a CTF recording is not there", file=path, expected=file.name,
                found="nothing", remedy="copy the whole .ds folder",
            )  # fmt: skip
        require(file)
    with header.open("rb") as stream:
        stream.seek(_CTF_SIZES)
        n_samples, n_channels = struct.unpack(">ih", stream.read(6))
        stream.seek(_CTF_SIZES + 24)
        (n_trials,) = struct.unpack(">h", stream.read(2))
    parts = [data, *sorted(path.glob(f"{path.stem}.[0-9]*_meg4"))]
    size = sum(os.path.getsize(part) - _CTF_HEADER for part in parts)
    found = _frames(n_samples * n_trials, 4 * n_channels, size, data)
    # MNE reads whole trials only.
    whole = (found.n_times or 0) // n_samples * n_samples if found.truncated else None
    return Declared((), found.expected, found.found, whole)


def _egi(path: Path) -> Declared:
    """EGI simple binary: an even version is one stretch of samples."""
    if path.is_dir():
        return _mff(path)
    with path.open("rb") as stream:
        head = stream.read(36)
    if len(head) >= 16 and struct.unpack("<2i", head[:8]) == (0, 16):
        return _kit(path)
    (version,) = struct.unpack(">i", head[:4])
    if not 2 <= version <= 7 or version % 2:
        return Declared()
    (n_channels,) = struct.unpack(">h", head[22:24])
    n_samples, n_events = struct.unpack(">ih", head[30:36])
    frame = (n_channels + n_events) * {2: 2, 4: 4, 6: 8}[version]
    size = os.path.getsize(path) - 36 - 4 * n_events
    found = _frames(n_samples, frame, size, path)
    # MNE reads all events while it opens the file, so that a cut one cannot be opened.
    return Declared((), found.expected, found.found, 0 if found.truncated else None)


def _mff(path: Path) -> Declared:
    """Follow the blocks of ``signal*.bin``; ``epochs.xml`` says how many there are."""
    epochs = path / "epochs.xml"
    text = epochs.read_text("utf-8", "replace") if epochs.is_file() else ""
    n_declared = max(map(int, re.findall(r"<lastBlock>(\d+)</lastBlock>", text)), default=0)
    for file in sorted(path.glob("signal*.bin")):
        size, n_blocks, end = os.path.getsize(file), 0, 0
        with file.open("rb") as stream:
            block = 0
            while end < size:
                stream.seek(end)
                head = stream.read(12)
                # A block without a header of its own is like the one before.
                has_header = len(head) >= 4 and struct.unpack("<i", head[:4])[0] == 1
                if len(head) < (12 if has_header else 4):
                    end = size + 1
                    break
                n_header = 4
                if has_header:
                    n_header, block = struct.unpack("<2i", head[4:])
                if n_header <= 0 or block <= 0:
                    raise ValueError(f"a block without length at byte {end} of {file.name}")
                end += n_header + block
                n_blocks += 1
        found = f"{n_blocks} blocks, {size} bytes in {file.name}"
        if end > size or n_blocks < n_declared:
            expected = f"{n_declared} blocks" if n_declared else "whole blocks"
            return Declared((), expected, found, 0)
    return Declared()


def _nicolet(path: Path) -> Declared:
    header = path.with_suffix(".head")
    if not header.is_file():
        raise MissingFileError(
            "the header of a Nicolet recording is not there", file=path, expected=header.name,
            found="nothing", remedy="copy it too",
        )  # fmt: skip
    values = dict(
        line.strip().split("=", 1)
        for line in header.read_text("latin-1").splitlines()
        if "=" in line
    )
    frame = int(values["num_channels"]) * int(values.get("sample_bytes", 2))
    names = tuple(values["elec_names"].strip("[]").split(","))
    return _frames(int(values["num_samples"]), frame, os.path.getsize(path), path, names)


_READERS = {
    ".vhdr": _brainvision, ".ahdr": _brainvision, ".edf": _edf, ".bdf": _edf, ".gdf": _gdf,
    ".fif": _fif, ".fif.gz": _fif, ".set": _eeglab, ".sqd": _kit, ".con": _kit, ".ds": _ctf,
    ".raw": _egi, ".mff": _mff, ".data": _nicolet,
}  # fmt: skip
