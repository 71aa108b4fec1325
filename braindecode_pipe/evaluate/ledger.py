"""The ledger: every configuration that was ever scored on a test set.

One file of JSON lines per test set, ``<folder>/<test_hash>.jsonl``, append-only and kept beside the
data, so that a result can be read next to the number of attempts that led to it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from filelock import FileLock, Timeout

from braindecode_pipe.errors import CorruptStoreError, DiskFullError, StoreError, StoreLockedError
from braindecode_pipe.evaluate.scoring import check_comparable
from braindecode_pipe.splits import content_hash

_KEY = ("configuration", "decoder", "embedding")
_DEFAULT = {"candidates": "test", "aggregate": "none"}
_WAIT_S = 30.0


def ledger_dir(data: str | Path, override: str | Path | None = None) -> Path:
    """Where the ledger of a data set lies; nothing is created.

    The first that holds: ``override`` (``--ledger``); the environment variable
    ``BRAINDECODE_PIPE_LEDGER``; ``<data>/derivatives/braindecode_pipe/ledger`` where that can be
    written; ``braindecode_pipe/ledger`` below ``$XDG_DATA_HOME`` or ``~/.local/share``.
    """
    named = override or os.environ.get("BRAINDECODE_PIPE_LEDGER")
    if named:
        return Path(named)
    beside = Path(data) / "derivatives" / "braindecode_pipe" / "ledger"
    if _writable(beside):
        return beside
    home = os.environ.get("XDG_DATA_HOME")
    share = Path(home) if home else Path.home() / ".local" / "share"
    return share / "braindecode_pipe" / "ledger"


def configuration_of(recipe: Mapping[str, Any]) -> str:
    """Hash of everything in a resolved recipe that can decide a score."""
    deciding = {name: value for name, value in recipe.items() if name not in ("study", "report")}
    return content_hash(deciding)[:16]


def append(
    folder: str | Path,
    test_hash: str,
    *,
    configuration: str,
    study: str,
    decoder: str,
    embedding: str,
    metric: str,
    value: float,
    n: int,
    n_candidates: int,
    candidates: str = "test",
    aggregate: str = "none",
    leaks: Sequence[str] = (),
) -> bool:
    """Add one line, unless this configuration, decoder and embedding have one already.

    Parameters
    ----------
    folder : result of :func:`ledger_dir`; made when it is not there
    test_hash : hash of the test items
    configuration : hash of everything that decides the result
    study : name of the study
    decoder, embedding : what was scored
    metric, value : the headline
    n, n_candidates : queries scored, candidates of each
    candidates, aggregate, leaks : as in ``metrics.json``

    Returns
    -------
    bool
        False where the line was there before.

    Raises
    ------
    StoreLockedError
        Another process has held the file for 30 s.
    CorruptStoreError
        A line in the file is no entry.
    StoreError
        The line could not be written; ``DiskFullError`` for want of space.
    """
    entry = {
        "configuration": configuration,
        "study": study,
        "decoder": decoder,
        "embedding": embedding,
        "metric": metric,
        "value": float(value),
        "n": int(n),
        "n_candidates": int(n_candidates),
        "candidates": candidates,
        "aggregate": aggregate,
        **({"leaks": list(leaks)} if leaks else {}),
    }
    file = _file(folder, test_hash)
    lock = FileLock(file.with_suffix(".lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with lock.acquire(timeout=_WAIT_S):
            known = {tuple(old[k] for k in _KEY) for old in read(folder, test_hash)}
            if tuple(entry[k] for k in _KEY) in known:
                return False
            _write_line(file, json.dumps(entry, sort_keys=True, allow_nan=False))
            return True
    except Timeout:
        raise StoreLockedError(
            "the ledger is in use",
            file=file,
            expected=f"free within {_WAIT_S:g} s",
            found=f"{lock.lock_file} is held by another process",
        ) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (DiskFullError if full else StoreError)(
            "the ledger could not be written",
            file=file,
            expected="a folder with free space that this user may write",
            found=error.strerror or str(error),
            remedy="free some space, or name another folder with --ledger",
        ) from error


def read(folder: str | Path, test_hash: str) -> list[dict[str, Any]]:
    """Entries of a test set, oldest first; none where there is no file.

    A last line without its end is what a killed process leaves: it is no entry.

    Raises
    ------
    CorruptStoreError
        Any other line that is no entry, with its number.
    """
    file = _file(folder, test_hash)
    if not file.is_file():
        return []
    entries = []
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            complete = isinstance(entry, dict) and all(
                key in entry for key in (*_KEY, "metric", "value", "n", "n_candidates")
            )
        except ValueError:
            complete = False
        if not complete:
            raise CorruptStoreError(
                "the ledger has a line that is no entry",
                file=f"{file}, line {number}",
                expected="one JSON object per line",
                found=line[:80].decode(errors="replace"),
                remedy="restore the file from a backup, or delete that line",
            )
        entries.append(entry)
    return entries


def summary(entries: Sequence[dict[str, Any]], configuration: str) -> dict[str, Any]:
    """Where a configuration stands among all that were scored on the same test set.

    Parameters
    ----------
    entries : of :func:`read`
    configuration : hash of the configuration

    Returns
    -------
    dict
        ``number``: the how-manieth configuration this is (None where it has no entry); ``count``:
        configurations scored; ``scores``: lines, since one configuration may score several
        decoders; ``metric``, ``best``, ``median``: over the lines with this configuration's metric,
        candidates and averaging, other numbers being no comparison.
    """
    order = list(dict.fromkeys(entry["configuration"] for entry in entries))
    own = [entry for entry in entries if entry["configuration"] == configuration]
    found: dict[str, Any] = {
        "number": order.index(configuration) + 1 if own else None,
        "count": len(order),
        "scores": len(entries),
        "metric": None,
        "best": None,
        "median": None,
    }
    if own:
        # Lines of before there were protocols lack the last two.
        keys = ("metric", "n_candidates", *_DEFAULT)
        every, first = [{**_DEFAULT, **entry} for entry in entries], {**_DEFAULT, **own[0]}
        alike = [entry for entry in every if all(entry[k] == first[k] for k in keys)]
        check_comparable(alike)
        values = [entry["value"] for entry in alike]
        found |= {"metric": own[0]["metric"], "best": max(values), "median": median(values)}
    return found


def _file(folder: str | Path, test_hash: str) -> Path:
    return Path(folder) / f"{test_hash}.jsonl"


def _writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _write_line(file: Path, line: str) -> None:
    created = not file.exists()
    with file.open("a+b") as handle:
        end = handle.seek(0, os.SEEK_END)
        handle.seek(0)
        whole = handle.read().rfind(b"\n") + 1
        if whole < end:
            handle.truncate(whole)
        handle.write(line.encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
    if created:
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
