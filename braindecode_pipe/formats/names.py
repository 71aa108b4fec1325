"""Channel names that stand twice in a header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from braindecode_pipe.errors import DataError


def repeated(names: Sequence[str]) -> str:
    """Names that stand twice or more, with how often; "" when all differ."""
    twice = sorted({name for name in names if names.count(name) > 1})
    return ", ".join(f"{name} x {names.count(name)}" for name in twice)


def refuse_repeated(path: Path, found: str) -> None:
    """Raise :class:`DataError` for the channel names ``found`` that repeat; "" is fine."""
    if found:
        raise DataError(
            "channel names repeat",
            file=path,
            expected="unique channel names",
            found=found,
            remedy="rename the channels in the header, or number them: preprocess.emeg.repairs = "
            '["unique-names"]',
        )


def numbered(names: Sequence[str]) -> list[str]:
    """Names that repeat with their number, as MNE does it: ``A, B, A`` -> ``A-0, B, A-1``."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        if names.count(name) > 1:
            seen[name] = seen.get(name, -1) + 1
            out.append(f"{name}-{seen[name]}")
        else:
            out.append(name)
    return out
