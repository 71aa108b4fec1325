"""Vectors that were computed already, in files that are whole or not there.

One folder per model and settings; one file per block of stimuli, written when the block is done.
A run that is killed loses the block at hand; other subjects, studies and runs read what is there.
Files are named by the stimuli in them, begin with a JSON header and end with a crc32c; a file that
fails it is deleted and computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from braindecode_pipe.errors import DiskFullError, StageError

ENVIRONMENT = "BRAINDECODE_PIPE_CACHE"
_MAGIC = b"BDPVEC1\n"
_TYPES = ("<f4", "<f2")


def cache_root() -> Path | None:
    """Folder of the cache; None where the variable BRAINDECODE_PIPE_CACHE is "off"."""
    named = os.environ.get(ENVIRONMENT, "")
    if named.lower() == "off":
        return None
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "braindecode_pipe" / "embeddings"


def code_hash() -> str:
    """SHA-256 over the sources of this room: vectors of other code are not read."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


class VectorCache:
    """Vectors of one model by stimulus.

    Parameters
    ----------
    folder : path
        Made when the first vector is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, tuple[Path, int]] = {}
        self._open: dict[Path, np.ndarray] = {}
        self.reload()

    @classmethod
    def of(cls, fingerprint: Mapping[str, Any], root: Path) -> VectorCache:
        """The cache of a model and its settings; versions of packages are no part of its name."""
        text = json.dumps([fingerprint, code_hash()], sort_keys=True, default=str)
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", str(fingerprint.get("model", "")))[-60:].strip("-.")
        return cls(root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}")

    def reload(self) -> None:
        """Look at what is on disk; damaged files are deleted."""
        self._where.clear()
        self._open.clear()
        for file in sorted(self.folder.glob("part-*.vec")):
            header = read_part(file)
            if header is None:
                file.unlink(missing_ok=True)
                continue
            names, values = header[0]["ids"], header[1]
            self._open[file] = values
            self._where |= {name: (file, row) for row, name in enumerate(names)}

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def read(self, names: Sequence[str]) -> np.ndarray:
        """Vectors of stimuli that are there: (n, ...) float32."""
        places = [self._where[name] for name in names]
        return np.stack([self._open[file][row] for file, row in places]).astype(np.float32)

    def write(self, names: Sequence[str], values: np.ndarray) -> None:
        """Keep the vectors of a block."""
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:24]
        file = self.folder / f"part-{digest}.vec"
        write_part(file, {"ids": list(names)}, values)
        found = read_part(file)
        if found is None:
            raise StageError("a file of the cache is damaged just after it was written", file=file)
        self._open[file] = found[1]
        self._where |= {name: (file, row) for row, name in enumerate(names)}

    def reference(self) -> tuple[dict[str, Any], np.ndarray] | None:
        """Header with ``provenance`` and ``probes``, and what the probes gave; None without."""
        return read_part(self.folder / "reference.vec")

    def keep_reference(
        self, provenance: Mapping[str, Any], probes: Sequence[str], values: np.ndarray
    ) -> None:
        """Keep what the probes gave, and with what it was computed."""
        header = {"provenance": dict(provenance), "probes": list(probes)}
        write_part(self.folder / "reference.vec", header, values)


def write_part(file: Path, header: Mapping[str, Any], values: np.ndarray) -> None:
    """Write a header and an array by temporary file and rename.

    Raises
    ------
    DiskFullError, StageError
        The folder cannot be made or written.
    """
    kept = np.ascontiguousarray(values, "<f2" if values.dtype == np.float16 else "<f4")
    text = json.dumps(
        {**header, "shape": list(kept.shape), "dtype": kept.dtype.str}, sort_keys=True, default=str
    ).encode()
    text += b" " * (-(len(_MAGIC) + 4 + len(text)) % 8)
    head = _MAGIC + struct.pack("<I", len(text)) + text
    body = kept.tobytes()
    crc = google_crc32c.extend(google_crc32c.value(head), body)
    temporary = file.with_name(f"{file.name}.tmp-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(head + body + struct.pack("<I", crc))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        full = error.errno in (28, 122)
        raise (DiskFullError if full else StageError)(
            "the cache of embeddings cannot be written", file=file.parent,
            expected="a folder with free space that this user may write",
            found=error.strerror or str(error),
            remedy=f"name another with the variable {ENVIRONMENT}, or {ENVIRONMENT}=off",
        ) from error  # fmt: skip


def read_part(file: Path) -> tuple[dict[str, Any], np.ndarray] | None:
    """Header and array of a file, mapped; None where it is missing or damaged."""
    try:
        with file.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                return None
            (length,) = struct.unpack("<I", stream.read(4))
            header = json.loads(stream.read(length))
        whole = np.memmap(file, np.uint8, "r")
        dtype, shape = header["dtype"], tuple(header["shape"])
        start = len(_MAGIC) + 4 + length
        stop = start + int(np.prod(shape)) * np.dtype(dtype).itemsize
        if dtype not in _TYPES or stop + 4 != len(whole):
            return None
        (crc,) = struct.unpack("<I", whole[stop:].tobytes())
        if google_crc32c.value(whole[:stop]) != crc:
            return None
        return header, whole[start:stop].view(dtype).reshape(shape)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None
