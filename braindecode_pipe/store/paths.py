"""Paths that come from data: joined safely, or refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

from braindecode_pipe.errors import UnsafePathError

_DRIVE = re.compile(r"^[A-Za-z]:")


def safe_join(root: str | Path, relative: str) -> Path:
    r"""Join a path that was read from a data file to the folder that it belongs to.

    Parameters
    ----------
    root : path
        The folder that must not be left.
    relative : str
        Relative path with forward slashes, as in BIDS tables.

    Returns
    -------
    Path
        ``root / relative``, links not resolved. It need not exist.

    Raises
    ------
    UnsafePathError
        For the empty path, ``..``, absolute paths, a leading ``~``, NUL, drive letters,
        backslashes, and paths that leave ``root`` through a symbolic link.
    """
    root = Path(root)
    text = os.fspath(relative)
    if not text or not isinstance(text, str):
        reason = "it is empty"
    elif "\0" in text:
        reason = "it holds a NUL character"
    elif "\\" in text:
        reason = "it holds a backslash"
    elif text.startswith("/"):
        reason = "it is absolute"
    elif text.startswith("~"):
        reason = "it starts with ~"
    elif _DRIVE.match(text):
        reason = "it starts with a drive letter"
    elif ".." in text.split("/"):
        reason = "it holds '..'"
    else:
        reason = ""
    if not reason:
        joined = root / text
        if joined.resolve().is_relative_to(root.resolve()):
            return joined
        reason = f"a symbolic link takes it to {joined.resolve()}"
    raise UnsafePathError(
        "a path leaves the folder that it belongs to",
        file=root,
        expected="a relative path below this folder",
        found=f"{text!r}: {reason}",
        remedy="correct the path in the data set's tables, or copy the file into the folder",
    )


def list_files(root: Path) -> dict[str, int]:
    """Relative path -> size [bytes] of every file below ``root``.

    Raises
    ------
    UnsafePathError
        When there is a symbolic link anywhere below ``root``: stores hold none.
    """
    found: dict[str, int] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_symlink():
                    raise UnsafePathError(
                        "a store holds a symbolic link",
                        file=root / name,
                        expected="files and folders only",
                        found=f"a link to {os.readlink(root / name)}",
                        remedy="copy the store with its links replaced by what they point at",
                    )
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                else:
                    found[name] = entry.stat(follow_symlinks=False).st_size
    return found
