"""Files that belong to a recording and lie beside it under names that its vendor's software gives.

Only names are looked at. A companion that cannot be inferred is left out: the reader then says
what it misses, or the recording has no head position.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from braindecode_pipe.formats.brainvision import read_header

_MARKERS = ("{0}_mrk.sqd", "{0}.mrk", "{0}_mrk.mrk", "{0}_markers.sqd", "{0}_markers.mrk")
_BEFORE_AFTER = (("{0}_mrk_pre.sqd", "{0}_mrk_post.sqd"), ("{0}_pre.mrk", "{0}_post.mrk"))
_COIL_POINTS = ("{0}.elp", "{0}_elp.txt")
_HEAD_POINTS = ("{0}.hsp", "{0}_hsp.txt")


@dataclass(frozen=True)
class KitParts:
    """Head digitisation of a KIT recording; all three or none."""

    markers: tuple[Path, ...] = ()
    coils: Path | None = None
    head: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files, in a fixed order."""
        return [*self.markers, *(part for part in (self.coils, self.head) if part is not None)]


def kit_parts(path: Path) -> KitParts:
    """Marker coils (``NAME_mrk.sqd``, ``NAME.mrk``), ``NAME.elp`` and ``NAME.hsp`` beside a file.

    Markers that were measured before and after the recording are both used: MNE averages them.
    """
    coils, head = _first(path, _COIL_POINTS), _first(path, _HEAD_POINTS)
    one = _first(path, _MARKERS)
    markers = (one,) if one is not None else ()
    for pair in _BEFORE_AFTER if one is None else ():
        both = tuple(path.with_name(name.format(path.stem)) for name in pair)
        if all(file.is_file() for file in both):
            markers = both
            break
    if coils is None or head is None or not markers:
        return KitParts()
    return KitParts(markers, coils, head)


def kit_events(path: Path) -> Path | None:
    """``NAME-eve.txt`` or ``NAME-eve.fif`` of the KIT epochs ``NAME-epoch.raw``."""
    name = re.sub(r"[-_]epochs?$", "", path.stem)
    return next(
        (f for e in (".txt", ".fif") if (f := path.with_name(f"{name}-eve{e}")).is_file()), None
    )


def bti_parts(path: Path) -> tuple[Path, Path | None] | None:
    """Configuration and head shape (None where there is none) of a BTi/4D data file.

    ``NAME_pdf_x`` goes with ``NAME_config_x`` and ``NAME_hs_x``; any other data file with the
    ``config`` and ``hs_file`` of its folder. None when ``path`` is no BTi/4D data file.
    """
    name = path.name
    if "config" in name or re.search(r"(^|[._-])hs([._-]|$)", name):
        return None
    if re.search(r"(^|[._-])pdf([._-]|$)", name) and not name.endswith(".pdf"):
        config, head = (path.with_name(name.replace("pdf", part, 1)) for part in ("config", "hs"))
    elif re.match(r"^[a-z],rf", name):
        config, head = path.with_name("config"), path.with_name("hs_file")
    else:
        return None
    if not config.is_file():
        return None
    return config, head if head.is_file() else None


def companion_files(path: Path) -> list[Path]:
    """Files that decide, with ``path``, what a loose recording holds; those that are there."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return []
    if suffix in (".sqd", ".con"):
        return kit_parts(path).files
    if suffix in (".vhdr", ".ahdr"):
        header = read_header(path)
        return [f for f in (header.data, header.markers) if f is not None and f.is_file()]
    if suffix == ".raw":
        events = kit_events(path)
        return [] if events is None else [events]
    beside = {
        ".set": (".fdt",), ".data": (".head",), ".avr": (".elp",), ".mul": (".elp",),
        ".cdt": (".dpa", ".cef"), ".dap": (".dat", ".rs3"),
    }.get(suffix)  # fmt: skip
    if beside is not None:
        return [f for e in beside if (f := path.with_suffix(e)).is_file()]
    parts = bti_parts(path)
    return [] if parts is None else [part for part in parts if part is not None]


def _first(path: Path, patterns: tuple[str, ...]) -> Path | None:
    files = (path.with_name(pattern.format(path.stem)) for pattern in patterns)
    return next((file for file in files if file.is_file() and file != path), None)
