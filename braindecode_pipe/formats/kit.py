"""The directory at the head of a KIT/Yokogawa file: where each part lies and how long it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

CONDITIONS, RAW = 8, 9
_AVERAGED = 10


@dataclass(frozen=True)
class Directory:
    """``entries`` are (offset [bytes], item size [bytes], largest count, count)."""

    entries: tuple[tuple[int, int, int, int], ...]
    acquisition: int

    @property
    def n_bytes(self) -> int:
        """Length that the file must have: its last part ends there.

        Averages do not count: marker measurements are given away without theirs.
        """
        return max(
            offset + size * count
            for i, (offset, size, _, count) in enumerate(self.entries) if i != _AVERAGED
        )  # fmt: skip

    def has_samples(self, n_bytes: int) -> bool:
        """Whether a file of this length holds all the samples or averages that it declares."""
        ends = [o + s * n for o, s, _, n in self.entries[RAW : _AVERAGED + 1] if n]
        return bool(ends) and max(ends) <= n_bytes


def read_directory(path: Path) -> Directory:
    """Read the directory. Raises ``ValueError`` or ``struct.error`` when there is none."""
    with path.open("rb") as stream:
        offset, size, _, count = struct.unpack("<4i", stream.read(16))
        if (offset, size) != (0, 16) or not RAW < count <= 1024:
            raise ValueError("no directory of a KIT file")
        entries = [(offset, size, count, count)]
        entries += [struct.unpack("<4i", stream.read(16)) for _ in range(count - 1)]
        if any(value < 0 for entry in entries for value in entry):
            raise ValueError("a negative size in the directory of a KIT file")
        stream.seek(entries[CONDITIONS][0])
        (acquisition,) = struct.unpack("<i", stream.read(4))
    return Directory(tuple(entries), acquisition)
