"""The text header of a BrainVision recording, as far as files and lengths go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from braindecode_pipe.errors import MissingFileError


@dataclass(frozen=True)
class Header:
    """``values`` holds the keys (lower case) of [Common Infos] and [Binary Infos]."""

    path: Path
    values: dict[str, str]
    names: tuple[str, ...]

    @cached_property
    def data(self) -> Path | None:
        """The file of samples, named or not there."""
        return self._beside("datafile")

    @cached_property
    def markers(self) -> Path | None:
        """The file of markers, named or not there."""
        return self._beside("markerfile")

    def _beside(self, key: str) -> Path | None:
        name = self.values.get(key, "").replace("$b", self.path.stem)
        return self.path.parent / Path(name).name if name else None

    def require_data(self) -> Path | None:
        """The file of samples. Raises :class:`MissingFileError` when it is named and missing."""
        if self.data is not None and not self.data.is_file():
            raise MissingFileError(
                "the data file that a BrainVision header names is not there",
                file=self.path,
                expected=self.data.name,
                found="nothing",
                remedy="copy it too; with git-annex or DataLad: get it",
            )
        return self.data


def read_header(path: Path) -> Header:
    """Read a ``.vhdr`` file; bytes that are no UTF-8 become question marks in names."""
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
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
    return Header(path, values, tuple(names))


def last_marker(file: Path | None) -> int:
    """Largest position [samples, from 1] in a marker file, 0 without one."""
    if file is None or not file.is_file():
        return 0
    text = file.read_bytes().decode("utf-8", errors="replace")
    found = re.findall(r"^Mk\d+=[^,\r\n]*,[^,\r\n]*,(\d+),", text, flags=re.MULTILINE)
    return max(map(int, found), default=0)
