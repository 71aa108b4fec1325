"""File operations of the writer, each announced to a hook before it happens.

The hook is how tests stop the process at every single point where a crash could leave a store half
written, and how a full disk is simulated.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from braindecode_pipe.errors import DiskFullError, StoreError

try:
    from fcntl import F_FULLFSYNC, fcntl
except ImportError:  # only macOS has it; os.fsync there does not reach the platter
    F_FULLFSYNC = None

Hook = Callable[[str, Path], None]
COMMITTED = "COMMITTED"
MANIFEST = "MANIFEST.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_process_hook: Hook | None = None


def _no_hook(event: str, path: Path) -> None:
    pass


@contextlib.contextmanager
def write_hook(hook: Hook) -> Iterator[None]:
    """Call ``hook(event, path)`` before every file operation of every writer in this process.

    ``event`` is ``"write"``, ``"fsync"``, ``"rename"`` or ``"delete"``; ``path`` is the file or
    folder concerned. A hook given to a writer itself takes its place there.
    """
    global _process_hook
    before, _process_hook = _process_hook, hook
    try:
        yield
    finally:
        _process_hook = before


class Disk:
    """Writes, syncs, renames and deletes on behalf of one target store.

    Parameters
    ----------
    target : path
        The store that errors name.
    hook : callable, optional
        Called as ``hook(event, path)``; default: the one set by :func:`write_hook`.
    """

    def __init__(self, target: Path, hook: Hook | None = None) -> None:
        self.target = target
        self.needed = 0
        self._hook = hook or _process_hook or _no_hook

    @classmethod
    def quiet(cls, target: Path) -> Disk:
        """A disk without hook, for putting things back after a failure."""
        return cls(target, _no_hook)

    def check_space(self, needed: int) -> None:
        """Raise :class:`DiskFullError` unless ``needed`` bytes are free where the target lies."""
        self.needed = needed
        folder = self.target.parent
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise self._full(free)

    def _full(self, free: int) -> DiskFullError:
        return DiskFullError(
            "not enough free space for the store",
            file=self.target,
            expected=f"{self.needed} bytes free",
            found=f"{free} bytes free",
            remedy="free some space or write to another disk; what was there before is intact",
        )

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the operating system refuses into errors that name the store."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                try:
                    free = shutil.disk_usage(self.target.parent).free
                except OSError:
                    free = 0
                raise self._full(free) from error
            raise StoreError(
                "the store cannot be written",
                file=self.target,
                expected="a folder in which this user may write",
                found=f"{error.strerror or error} ({error.filename or self.target})",
                remedy="give write permission, or choose another output folder",
            ) from error

    def make_folder(self, path: Path) -> None:
        """Make ``path`` and its parents."""
        with self.explained():
            path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, parts: Iterable) -> None:
        """Write a new file from byte buffers; a file that exists is an error."""
        with self.explained():
            self._hook("write", path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:
                for part in parts:
                    file.write(part)

    def sync(self, path: Path) -> None:
        """Flush a file or folder to the disk."""
        with self.explained():
            self._hook("fsync", path)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                if F_FULLFSYNC is not None:
                    # Folders and network file systems refuse it; fsync is all that they have.
                    with contextlib.suppress(OSError):
                        fcntl(descriptor, F_FULLFSYNC)
            finally:
                os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename within one folder, in one step."""
        with self.explained():
            self._hook("rename", target)
            os.rename(source, target)

    def remove(self, folder: Path) -> None:
        """Delete a folder; links in it are deleted, never followed.

        Its marker goes first, so that what is left after an interruption is no committed store.
        """
        with self.explained():
            self._hook("delete", folder)
            if folder.is_symlink():
                folder.unlink()
                return
            (folder / COMMITTED).unlink(missing_ok=True)
            shutil.rmtree(folder)
