"""On which line of a TOML text a key is written; ``tomllib`` does not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

Location = tuple[str | int, ...]


def leaves(values: Mapping[str, Any], above: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Location and value of every plain value (or empty table) in nested dicts and lists."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield from leaves(item, (*above, key, index))
        else:
            yield (*above, key), value


def line_of(text: str, location: Location) -> int | None:
    """Line (from 1) of ``location`` in a valid TOML text, or of what is nearest around it.

    Returns ``None`` where not even its section is written.
    """
    best, found = 0, None
    table: Location = ()
    counts: dict[Location, int] = {}
    for line, statement in _statements(text):
        if statement.lstrip().startswith("["):
            table = _table(statement, counts)
            written = [table]
        else:
            written = [(*table, *leaf) for leaf, _ in leaves(tomllib.loads(statement))]
        for candidate in written:
            depth = _shared(candidate, location)
            if depth > best:
                best, found = depth, line + _offset(statement, location[depth - 1])
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """First line number and text of every table header and every ``key = value``.

    A statement ends at the first line where what was gathered so far parses on its own.
    """
    start, gathered = 1, ""
    # Not splitlines: it also breaks at characters that end no line of TOML.
    for number, line in enumerate(text.split("\n"), 1):
        if not gathered:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            start = number
        gathered += f"{line}\n"
        try:
            tomllib.loads(gathered)
        except tomllib.TOMLDecodeError:
            continue
        yield start, gathered
        gathered = ""


def _table(header: str, counts: dict[Location, int]) -> Location:
    """Location of ``[a.b]`` or ``[[a.b]]``; ``counts`` keeps the last index of every array."""
    names: list[str] = []
    value: Any = tomllib.loads(header)
    while value:
        ((name, value),) = value.items()
        names.append(name)
        value = value[0] if isinstance(value, list) else value
    table: Location = ()
    for depth, name in enumerate(names, 1):
        table = (*table, name)
        if depth == len(names) and header.lstrip().startswith("[["):
            counts[table] = counts.get(table, -1) + 1
        if table in counts:
            table = (*table, counts[table])
    return table


def _shared(a: Location, b: Location) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def _offset(statement: str, key: str | int) -> int:
    """Line inside a statement of several lines where ``key`` stands."""
    for index, line in enumerate(statement.split("\n")):
        if re.search(rf"(?<![\w-])[\"']?{re.escape(str(key))}[\"']?\s*[=\].]", line):
            return index
    return 0
