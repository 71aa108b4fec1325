"""How a finished folder takes the place of a store, and how interrupted writers are cleaned up.

Order of a commit: everything is flushed to the disk; the old version is renamed aside; the new
folder gets its name; its marker is written; the old version is deleted. At every point in between
either a folder with a marker can be found, or there was no earlier version.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from braindecode_pipe.errors import StoreError, UnsafePathError
from braindecode_pipe.store.disk import COMMITTED, MANIFEST, Disk
from braindecode_pipe.store.index import has_marker, marker, read_bytes, siblings
from braindecode_pipe.store.lock import StoreLock


def sibling(target: Path, role: str) -> Path:
    """A new name beside ``target``; ``role`` is ``"tmp"`` or ``"old"``."""
    return target.with_name(f"{target.name}.{role}-{uuid.uuid4().hex}")


def check_target(target: Path) -> None:
    """Refuse to replace what is no store: a file, a link, somebody's folder."""
    if target.is_symlink():
        raise UnsafePathError(
            "the place of the store is a symbolic link",
            file=target,
            expected="a folder, or nothing",
            found=f"a link to {target.readlink()}",
            remedy="delete the link or write elsewhere",
        )
    if not target.exists() or has_marker(target) or (target / MANIFEST).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise StoreError(
            "something that is no store lies where the store is to be written",
            file=target,
            expected="a store, an empty folder, or nothing",
            found="a folder with other files" if target.is_dir() else "a file",
            remedy="move it away or choose another output folder",
        )
    target.rmdir()


def recover(target: Path, disk: Disk) -> None:
    """Remove what interrupted writers left; put the old version back where no new one is marked.

    The caller holds the lock.
    """
    for folder in siblings(target, "tmp"):
        disk.remove(folder)
    olds = siblings(target, "old")
    if not has_marker(target):
        good = [folder for folder in olds if has_marker(folder)]
        if target.exists():
            discard(target, disk)
        if good:
            olds.remove(good[0])
            disk.rename(good[0], target)
            disk.sync(target.parent)
    for folder in olds:
        disk.remove(folder)


def discard(target: Path, disk: Disk) -> None:
    """Delete the folder at ``target``, under another name: half deleted, it is no store's place."""
    aside = sibling(target, "tmp")
    disk.rename(target, aside)
    disk.remove(aside)


def commit(finished: Path, target: Path, disk: Disk) -> None:
    """Move a complete, flushed folder to ``target`` and mark it; see the module's text."""
    old = None
    if target.exists():
        old = sibling(target, "old")
        disk.rename(target, old)
    disk.rename(finished, target)
    disk.sync(target.parent)
    aside = target / f"{COMMITTED}.part"
    disk.write(aside, [marker(read_bytes(target / MANIFEST))])
    disk.sync(aside)
    disk.rename(aside, target / COMMITTED)
    disk.sync(target)
    disk.sync(target.parent)
    if old is not None:
        disk.remove(old)


def delete_store(path: str | Path) -> None:
    """Delete a store and what interrupted writers left of it; links are never followed.

    Raises
    ------
    StoreLockedError
        When it is being written.
    StoreError, UnsafePathError
        When there is something that is no store.
    """
    path = Path(path)
    target = path.parent.resolve() / path.name
    with StoreLock(target):
        check_target(target)
        disk = Disk(target)
        # The old version first: without the new one it would count as the store.
        for folder in (*siblings(target, "old"), *siblings(target, "tmp")):
            disk.remove(folder)
        if target.exists():
            discard(target, disk)
