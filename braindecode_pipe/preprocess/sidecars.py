"""What lies beside a recording: BIDS entities, inherited JSON, length and channel names declared.

Nothing here reads samples. The checks look at headers with plain Python, since the readers of
these formats return half a file, or renamed channels, without an error.
"""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braindecode_pipe.errors import DataError, MissingFileError, TruncatedRecordingError

# Channels that hold text.
_EDF_NOTES = ("EDF Annotations", "BDF Annotations")
_BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}


def entities(name: str) -> dict[str, str]:
    """BIDS entities of a file name: ``sub-01_task-x_bold.nii.gz`` -> {"sub": "01", "task": "x"}."""
    return dict(re.findall(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)", name.split(".")[0]))


def bids_root(path: Path, data: Path) -> Path | None:
    """The folder above ``sub-*``, of a data set or a derivative in it; None for loose files."""
    for parent in path.parents:
        if parent.name.startswith("sub-") and (parent == data or data in parent.parents):
            return parent.parent
    return None


def merged_json(path: Path, data: Path, suffix: str) -> dict[str, Any]:
    """JSON sidecars that apply to ``path`` by the BIDS inheritance principle, the nearest wins.

    Parameters
    ----------
    path : Path
        The recording.
    data : Path
        Root of the data set; the search does not go above it.
    suffix : str
        Last part of the sidecar's name: ``bold``, ``eeg``, ``timeseries``.

    Raises
    ------
    DataError : a sidecar that is no JSON object
    """
    own = entities(path.name)
    folders = [path.parent]
    while folders[-1] != data and data in folders[-1].parents:
        folders.append(folders[-1].parent)
    merged: dict[str, Any] = {}
    for folder in reversed(folders):
        here = [
            candidate
            for candidate in sorted(folder.glob(f"*{suffix}.json"))
            if candidate.name == f"{suffix}.json"
            or (
                candidate.name.endswith(f"_{suffix}.json")
                and entities(candidate.name).items() <= own.items()
            )
        ]
        for candidate in sorted(here, key=lambda c: len(entities(c.name))):
            try:
                content = json.loads(candidate.read_text(encoding="utf-8-sig"))
            except ValueError as error:
                raise DataError(
                    "a sidecar cannot be read", file=candidate, expected="JSON", found=str(error)
                ) from error
            if not isinstance(content, dict):
                raise DataError(
                    "a sidecar cannot be read",
                    file=candidate,
                    expected="a JSON object",
                    found=type(content).__name__,
                )
            merged.update(content)
    return merged


@dataclass(frozen=True)
class Declared:
    """What a recording's header says, beside what is on the disk."""

    names: tuple[str, ...] = ()
    expected: str = ""
    found: str = ""

    @property
    def truncated(self) -> bool:
        return bool(self.expected)


def check_declared(path: Path, allow_truncated: bool) -> str:
    """Compare a header with the file that it describes: BrainVision, EDF, BDF and FIF.

    Returns
    -------
    str
        "" when the recording is whole, else what is missing (only with ``allow_truncated``).

    Raises
    ------
    MissingFileError : a BrainVision header whose data file is not there
    TruncatedRecordingError : fewer samples or bytes than declared
    DataError : channel names that repeat; a header that makes no sense
    """
    reader = {
        ".vhdr": _brainvision, ".edf": _edf, ".bdf": _edf, ".fif": _fif
    }.get(path.suffix.lower())  # fmt: skip
    if reader is None or not path.is_file():
        return ""
    try:
        declared = reader(path)
    except (ValueError, KeyError, struct.error) as error:
        raise DataError(
            "the header cannot be read",
            file=path,
            expected=f"a {path.suffix} header",
            found=f"{type(error).__name__}: {error}",
        ) from error
    refuse_repeated(path, declared.names)
    if not declared.truncated:
        return ""
    if not allow_truncated or path.suffix.lower() == ".fif":
        raise truncated(path, declared.expected, declared.found)
    return f"truncated: {declared.found} of {declared.expected}; the prefix is used"


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


def refuse_repeated(path: Path, names: tuple[str, ...]) -> None:
    """Raise :class:`DataError` when a channel name stands twice in a header."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            "channel names repeat",
            file=path,
            expected="unique channel names",
            found=", ".join(f"{name} x {names.count(name)}" for name in twice),
            remedy="rename the channels in the header; which one is meant cannot be guessed",
        )


def _brainvision(path: Path) -> Declared:
    text = path.read_bytes().decode("utf-8", errors="replace")
    section, values, names = "", {}, []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[]").lower()
        elif "=" in line and not line.startswith(";"):
            key, value = (part.strip() for part in line.split("=", 1))
            if section in ("common infos", "binary infos"):
                values[key.lower()] = value
            elif section == "channel infos" and re.fullmatch(r"[Cc]h\d+", key):
                names.append(value.split(",")[0].replace("\\1", ","))
    name = values.get("datafile", "").replace("$b", path.stem)
    if not name or values.get("dataformat", "BINARY").upper() != "BINARY":
        return Declared(tuple(names))
    file = path.parent / Path(name).name
    if not file.is_file():
        raise MissingFileError(
            "the data file that a BrainVision header names is not there",
            file=path,
            expected=name,
            found="nothing",
        )
    frame = int(values["numberofchannels"]) * _BYTES[values.get("binaryformat", "INT_16").upper()]
    size = os.path.getsize(file)
    n_times = size // frame
    last = max(n_times, int(values.get("datapoints", 0) or 0))
    if last == n_times:
        # A marker may stand on the sample after the last one: the end of the recording.
        last = max(n_times, _last_marker(path, values.get("markerfile", "")) - 1)
    if last > n_times or size % frame:
        expected = f"at least {max(last, n_times + bool(size % frame))} samples"
        return Declared(tuple(names), expected, f"{n_times} samples ({size} bytes in {file.name})")
    return Declared(tuple(names))


def _last_marker(path: Path, name: str) -> int:
    """Largest position [samples, from 1] in the marker file of a BrainVision header."""
    file = path.parent / Path(name.replace("$b", path.stem)).name
    if not name or not file.is_file():
        return 0
    text = file.read_bytes().decode("utf-8", errors="replace")
    found = re.findall(r"^Mk\d+=[^,\r\n]*,[^,\r\n]*,(\d+),", text, flags=re.MULTILINE)
    return max(map(int, found), default=0)


def mixed_rates(path: Path) -> bool:
    """Whether the channels of an EDF or BDF file have several rates; a GDF file may always."""
    suffix = path.suffix.lower()
    if suffix not in (".edf", ".bdf"):
        return suffix == ".gdf"
    _, _, names, counts = _edf_header(path)
    return len({n for name, n in zip(names, counts) if not name.endswith(_EDF_NOTES)}) > 1


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
    names = [name for name in names if not name.endswith(_EDF_NOTES)]
    # -1 records: the recorder never closed the file, so that nothing is declared.
    if n_records >= 0 and size < n_header + n_records * record:
        return Declared(
            tuple(names),
            f"{n_records} records of {record} bytes",
            f"{(size - n_header) / record:.2f} records ({size} bytes)",
        )
    return Declared(tuple(names))


def _fif(path: Path) -> Declared:
    """Follow the tags of a FIF file; a whole one ends with a tag whose successor is -1."""
    size, offset, seen = os.path.getsize(path), 0, set()
    with path.open("rb") as stream:
        while offset + 16 <= size:
            stream.seek(offset)
            _, _, length, following = struct.unpack(">iIii", stream.read(16))
            if offset + 16 + length > size:
                return Declared((), f"{offset + 16 + length} bytes or more", f"{size} bytes")
            if following == -1:
                return Declared()
            # Files that were edited in place jump to their end and back, so only a loop is wrong.
            seen.add(offset)
            offset = offset + 16 + length if following == 0 else following
            if offset in seen:
                raise ValueError(f"the tags run in a circle at byte {offset}")
    return Declared((), f"a closing tag after byte {offset}", f"{size} bytes")
