"""A recording with repaired headers and tables, in a folder outside of the data set.

Readers open files by name and find the others beside them. So that they read what a recipe asks to
repair, they are shown a temporary folder of links with the few repaired files in it; the samples
are always read from where they are.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from braindecode_pipe.formats import brainvision
from braindecode_pipe.formats.names import numbered, repeated
from braindecode_pipe.formats.tables import TABLE_REPAIRS, needs_repair, read_cells, repaired_text

# What mne-bids reads beside a recording.
_READ_WITH = ("events.tsv", "channels.tsv", "electrodes.tsv")


@contextmanager
def mirrored(path: Path, root: Path, repairs: Sequence[str]) -> Iterator[tuple[Path, list[str]]]:
    """A folder like ``root`` for one recording, with what is repaired, and a text per repair.

    ``root`` itself when there is nothing to repair. Else a temporary folder; it is gone after the
    block.

    Parameters
    ----------
    path : Path of the recording, below ``root``
    root : Path of the data set, or the folder of a loose recording
    repairs : of ``EmegSection.repairs``
    """
    folders = [path.parent]
    while folders[-1] != root:
        folders.append(folders[-1].parent)
    tables = [
        file
        for folder in (folders if set(TABLE_REPAIRS) & set(repairs) or len(folders) > 1 else ())
        for file in sorted(folder.iterdir())
        if file.name.endswith(_READ_WITH) and file.is_file() and _needs(file, repairs)
    ]
    header = _repaired_header(path) if "unique-names" in repairs else None
    if not tables and header is None:
        yield root, []
        return
    notes = []
    with tempfile.TemporaryDirectory(prefix="braindecode-pipe-") as name:
        temporary = Path(name).resolve()
        for folder in reversed(folders):
            copy = temporary / folder.relative_to(root)
            copy.mkdir(exist_ok=True)
            for file in folder.iterdir():
                target = copy / file.name
                if file in tables:
                    content, done = repaired_text(file, repairs)
                    notes += [f"repaired: {text}" for text in done]
                    target.write_text(content, encoding="utf-8", newline="\n")
                elif file == path and header is not None:
                    target.write_bytes(header)
                    notes.append("repaired: channel names that repeat are numbered in the header")
                elif file not in folders:
                    os.symlink(file.resolve(), target)
        yield temporary, notes


def _needs(file: Path, repairs: Sequence[str]) -> bool:
    if needs_repair(file, repairs):
        return True
    if "unique-names" not in repairs or not file.name.endswith("channels.tsv"):
        return False
    table = read_cells(file)
    at = table.columns.index("name") if "name" in table.columns else None
    return at is not None and bool(repeated([row[at] for row in table.rows if at < len(row)]))


def _repaired_header(path: Path) -> bytes | None:
    """A BrainVision header with numbered names, None where nothing repeats.

    MNE numbers the names of other formats itself.
    """
    if path.suffix.lower() not in (".vhdr", ".ahdr"):
        return None
    names = brainvision.read_header(path).names
    if not repeated(names):
        return None
    fresh = iter(numbered(names))
    # Latin-1 keeps every byte as it is.
    lines = path.read_bytes().decode("latin-1").splitlines(keepends=True)
    section = ""
    for i, line in enumerate(lines):
        if line.startswith("["):
            section = line.strip().strip("[]").lower()
        elif section == "channel infos" and (found := re.match(r"(\s*[Cc]h\d+\s*=)[^,]*", line)):
            name = next(fresh).replace(",", "\\1").encode().decode("latin-1")
            lines[i] = found.group(1) + name + line[found.end() :]
    return "".join(lines).encode("latin-1")
