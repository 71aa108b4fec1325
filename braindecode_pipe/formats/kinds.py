"""What a file is: a continuous recording, epochs, averages, or no recording at all."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.formats.eeglab import read_header as read_eeglab
from braindecode_pipe.formats.parts import bti_parts

# By name: files that surround recordings.
_BESIDE = {
    ".vmrk": "the markers of a BrainVision recording", ".amrk": "the markers of a recording",
    ".fdt": "the samples of an EEGLAB recording", ".head": "the header of a Nicolet recording",
    ".elp": "digitised coils or electrode positions", ".hsp": "a digitised head shape",
    ".hpts": "digitised points", ".sfp": "electrode positions", ".elc": "electrode positions",
    ".loc": "electrode positions", ".locs": "electrode positions", ".ced": "electrode positions",
    ".pos": "digitised points", ".mrk": "a KIT marker measurement",
    ".eve": "a list of events", ".label": "a cortical label", ".lout": "a sensor layout",
    ".cov": "settings for a noise covariance", ".ave": "settings for an average",
    ".log": "a log", ".tsv": "a table", ".csv": "a table", ".json": "a sidecar",
    ".py": "a program", ".sh": "a program", ".md": "a text", ".html": "a page",
    ".res4": "a part of a CTF recording", ".meg4": "a part of a CTF recording",
}  # fmt: skip
_GIVE = {
    ".vmrk": ".vhdr", ".amrk": ".ahdr", ".fdt": ".set", ".head": ".data", ".res4": ".ds (folder)",
    ".meg4": ".ds (folder)",
}  # fmt: skip
# Blocks of a FIF file (mne.io.constants.FIFF), the most telling first. An average has raw data
# blocks of none of these kinds; a forward solution holds source spaces.
_FIF_BLOCKS = (
    (102, "raw", "a continuous recording"), (112, "raw", "a continuous recording"),
    (119, "raw", "a continuous recording (MaxShield)"), (373, "epochs", "epochs"),
    (104, "evoked", "averages"),
    (352, "", "a forward solution"), (356, "", "an inverse solution"),
    (355, "", "a noise covariance"), (374, "", "an independent component analysis"),
    (3810, "", "annotations"), (115, "", "events"), (361, "", "events"),
    (351, "", "a source space"), (310, "", "a surface model of the head"), (313, "", "projections"),
    (107, "", "digitised points"),
)  # fmt: skip
_FIF_TRANSFORM = 222
_KIT_FORMS = {1: ("raw", "a continuous recording"), 2: ("evoked", "a KIT average"),
              3: ("epochs", "KIT epochs")}  # fmt: skip
_TEXT_SHARE = 0.97


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Attributes
    ----------
    form : "raw", "epochs", "evoked", or "" for no recording
    what : in words, with its article
    give : the file to give in its place, where that is known
    """

    form: str
    what: str
    give: str = ""


def describe(path: Path) -> Kind:
    """What ``path`` is, from its name and its first bytes; nothing is loaded.

    A file that cannot be told is taken for a continuous recording: its reader decides.

    Raises
    ------
    MissingFileError : nothing there, a link to nothing, or a placeholder of git-annex
    """
    name, suffix = path.name.lower(), path.suffix.lower()
    require(path)
    if path.is_dir():
        known = suffix in (".ds", ".mff", ".mefd") or any(path.glob("*,rf*"))
        return Kind("raw", "a continuous recording") if known else Kind("", "a folder")
    if suffix in _BESIDE:
        give = _GIVE.get(suffix, "")
        return Kind("", _BESIDE[suffix], give and f"{path.stem}{give}")
    if name.endswith((".fif", ".fif.gz")):
        return _fif(path)
    teller = {
        ".set": _set, ".mat": _mat, ".eeg": _eeg, ".raw": _raw, ".sqd": _kit, ".con": _kit,
    }.get(suffix)  # fmt: skip
    if teller is not None:
        return teller(path)
    if suffix in (".avr", ".mul"):
        return Kind("evoked", "a BESA average")
    if bti_parts(path) is not None:
        return Kind("raw", "a continuous recording")
    for part, what in (("config", "the configuration"), ("hs", "the head shape")):
        beside = path.with_name(path.name.replace(part, "pdf", 1))
        if path.name in ("config", "hs_file") and path.name.startswith(part):
            beside = next(iter(sorted(path.parent.glob("?,rf*"))), beside)
        if part in path.name and beside != path and beside.is_file():
            return Kind("", f"{what} of a BTi/4D recording", beside.name)
    if suffix in ("", ".txt") and (suffix or _is_text(path)):
        with path.open("rb") as stream:
            boxy = b"Detector" in stream.read(4096)
        return Kind("raw", "a recording") if boxy else Kind("", "a text file")
    return Kind("raw", "a continuous recording")


def require(path: Path) -> None:
    """Raise :class:`MissingFileError` for nothing, a dead link or a placeholder of git-annex."""
    if path.is_symlink() and not path.exists():
        annexed = "/annex/objects/" in path.readlink().as_posix()
        raise MissingFileError(
            "the content of this file is not here",
            file=path,
            expected="a recording",
            found="a placeholder of git-annex" if annexed else "a link to a file that is not there",
            remedy="get it: `datalad get FILE`" if annexed else "copy what the link points to",
        )
    if not path.exists():
        raise MissingFileError("the recording is not there", file=path, expected="a recording")
    if is_annex_pointer(path):
        raise MissingFileError(
            "the content of this file is not here",
            file=path,
            expected="a recording",
            found="a placeholder of git-annex",
            remedy="get it: `datalad get FILE`",
        )


def is_annex_pointer(path: Path) -> bool:
    """Whether a file is only the pointer that an unlocked git-annex leaves in place of content."""
    if not path.is_file() or path.stat().st_size > 1024:
        return False
    with path.open("rb") as stream:
        return stream.read(20).startswith((b"/annex/objects/", b"../.git/annex/"))


def refuse(path: Path, kind: Kind, expected: str = "a recording") -> DataError:
    """The error for a file that is something else."""
    remedy = f"give {kind.give}" if kind.give else "leave it out of [plan] files"
    return DataError(
        f"{path.name} is {kind.what}, not {expected}",
        file=path,
        expected=expected,
        found=kind.what,
        remedy=remedy,
    )


# --- one format after the other ------------------------------------------------------------------


def _fif(path: Path) -> Kind:
    """By the kinds of its blocks; a cut file is judged by what is left of it."""
    blocks, tags = set(), set()
    compressed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            while len(head := stream.read(16)) == 16:
                kind, _, length, following = struct.unpack(">iIii", head)
                if kind == 104 and length == 4:
                    blocks.add(struct.unpack(">i", stream.read(4))[0])
                else:
                    tags.add(kind)
                    stream.seek(length, 1)
                if blocks & {102, 112, 119, 373} or following < 0 or length < 0:
                    break
                if following > 0:
                    stream.seek(following)
    except (OSError, EOFError, struct.error, zlib.error):
        pass
    if _FIF_TRANSFORM in tags and blocks <= {107, 350, 999}:
        return Kind("", "a coordinate transform")
    for block, form, what in _FIF_BLOCKS:
        if block in blocks:
            return Kind(form, what)
    # 100 opens every FIF file.
    return Kind("raw", "a FIF file") if 100 in tags else Kind("", "no FIF file")


def _set(path: Path) -> Kind:
    try:
        trials = read_eeglab(path).trials
    except Exception:  # a cut file: the check of its length tells more
        return Kind("raw", "an EEGLAB file")
    return Kind("epochs", "EEGLAB epochs") if trials > 1 else Kind("raw", "an EEGLAB recording")


def _mat(path: Path) -> Kind:
    import scipy.io

    try:
        found = scipy.io.whosmat(path)
    except NotImplementedError:
        return Kind("raw", "a MATLAB file")  # version 7.3: left to its reader
    except (OSError, ValueError, TypeError):
        return Kind("", "no MATLAB file that can be read")
    if any(kind == "struct" for _, _, kind in found):
        return Kind("raw", "a MATLAB file")
    held = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape, _ in found)
    return Kind("", f"a MATLAB file of plain arrays ({held}) without rate and channel names")


def _eeg(path: Path) -> Kind:
    with path.open("rb") as stream:
        head = stream.read(4)
    if head[:3].isalpha() and head[:3].isupper():
        return Kind("raw", "a Nihon Kohden recording")
    header = path.with_suffix(".vhdr")
    return Kind("", "the samples of a BrainVision recording", header.name)


def _raw(path: Path) -> Kind:
    with path.open("rb") as stream:
        head = stream.read(16)
    if len(head) < 16:
        return Kind("", "an empty or cut file")
    if struct.unpack("<4i", head)[:2] == (0, 16):
        return _kit(path)
    if 2 <= struct.unpack(">i", head[:4])[0] <= 7:
        return Kind("raw", "an EGI recording")
    return Kind("", "a file of no vendor that is known")


def _kit(path: Path) -> Kind:
    """By the acquisition type, and the data that its directory says it has."""
    from braindecode_pipe.formats.kit import read_directory

    try:
        kit = read_directory(path)
    except (OSError, ValueError, struct.error):
        return Kind("raw", "a KIT file")
    form, what = _KIT_FORMS.get(kit.acquisition, ("raw", "a KIT file"))
    if form != "raw" and not kit.has_samples(path.stat().st_size):
        return Kind("", "a KIT marker measurement")
    return Kind(form, what)


def _is_text(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(4096)
    printable = sum(byte in b"\t\n\r" or 32 <= byte < 127 or byte > 127 for byte in head)
    return not head or (b"\0" not in head and printable >= _TEXT_SHARE * len(head))
