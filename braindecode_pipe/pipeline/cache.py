"""Keys: what a unit of work depends on, and what changed since it last ran.

A key is made of content only: settings, content hashes of inputs, keys of upstream stores, the
hash of the stage's code and the versions of the libraries that compute. Paths, clocks and mtimes
never enter; a file's mtime only decides whether its content is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from braindecode_pipe.plan.recordings import hash_file
from braindecode_pipe.schema import SCHEMA_VERSION
from braindecode_pipe.splits import content_hash

PACKAGE = Path(__file__).resolve().parents[1]


@cache
def code_hash(rooms: tuple[str, ...]) -> str:
    """SHA-256 over the sources of some rooms (modules or packages of this package)."""
    digest = hashlib.sha256()
    for room in rooms:
        folder = PACKAGE / room
        files = sorted(folder.rglob("*")) if folder.is_dir() else [folder.with_suffix(".py")]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(file.relative_to(PACKAGE).as_posix().encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def package_version(name: str) -> str:
    """Installed version of a distribution, "absent" when there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def flatten(value: Any, prefix: str) -> dict[str, str]:
    """Nested settings as ``{"prefix.a.b": canonical JSON}``."""
    if isinstance(value, dict) and value:
        parts: dict[str, str] = {}
        for name, inner in value.items():
            parts |= flatten(inner, f"{prefix}.{name}")
        return parts
    return {prefix: json.dumps(value, sort_keys=True)}


def unit_key(stage: str, unit: str, parts: dict[str, str]) -> str:
    """First 16 hex digits of the SHA-256 over everything that a unit depends on."""
    return content_hash([SCHEMA_VERSION, stage, unit, parts])[:16]


class FileHashes:
    """Content hashes of files, remembered by (size, mtime, inode) in a file of the run folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = _read_json(path)
        self._changed = False

    def __call__(self, path: Path) -> str:
        if path.is_dir():
            return hash_file(path)
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        name = os.fspath(path.resolve())
        known = self._known.get(name)
        if known is None or known[:3] != mark:
            known = [*mark, hash_file(path)]
            self._known[name] = known
            self._changed = True
        return str(known[3])

    def save(self) -> None:
        """Write what was learnt."""
        if self._changed:
            write_json(self._path, self._known)
            self._changed = False


class History:
    """What every unit depended on when it last ran or was found: the source of "why"."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[str, dict[str, str]] = _read_json(path)

    def why(self, name: str, parts: dict[str, str], committed: bool) -> str:
        """Why a unit runs, or why it does not have to."""
        last = self._last.get(name)
        if committed:
            return "unchanged" if last in (None, parts) else "same as an earlier run"
        if last is None:
            return "never ran here"
        if last == parts:
            return "its result is missing"
        changed = [_difference(k, last.get(k), parts.get(k)) for k in sorted({*last, *parts})
                   if last.get(k) != parts.get(k)]  # fmt: skip
        shown = "; ".join(changed[:3])
        return shown + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")

    def remember(self, name: str, parts: dict[str, str]) -> None:
        """Record what a unit depended on."""
        self._last[name] = parts

    def save(self) -> None:
        """Write the history."""
        write_json(self._path, self._last)


def _difference(name: str, old: str | None, new: str | None) -> str:
    if old is None:
        return f"{name} is new"
    if new is None:
        return f"{name} is gone"
    if max(len(old), len(new)) > 24:
        return f"{name} changed"
    return f"{name}: {old} -> {new}"


def _read_json(path: Path) -> dict[str, Any]:
    """Content of a cache file; a damaged one is only a cache and counts as empty."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Any) -> None:
    """Write JSON by temporary file and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    temporary.write_text(json.dumps(content, sort_keys=True, indent=1), encoding="utf-8")
    temporary.replace(path)
