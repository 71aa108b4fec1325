"""What lies beside a recording: BIDS entities, inherited JSON, files that MEG cleaning needs.

Nothing here reads samples.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braindecode_pipe.errors import DataError, MissingFileError
from braindecode_pipe.formats.lengths import check_declared, mixed_rates, truncated
from braindecode_pipe.recipe.models import MaxwellSection
from braindecode_pipe.store import safe_join

__all__ = [
    "Companions",
    "bids_root",
    "check_declared",
    "companions",
    "entities",
    "merged_json",
    "mixed_rates",
    "read_json",
    "site_files",
    "truncated",
]


def entities(name: str) -> dict[str, str]:
    """BIDS entities of a file name: ``sub-01_task-x_bold.nii.gz`` -> {"sub": "01", "task": "x"}."""
    return dict(re.findall(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)", name.split(".")[0]))


def bids_root(path: Path, data: Path) -> Path | None:
    """The folder above ``sub-*``, of a data set or a derivative in it; None for loose files."""
    for parent in path.parents:
        if parent.name.startswith("sub-") and (parent == data or data in parent.parents):
            return parent.parent
    return None


def merged_json(path: Path, data: Path, suffix: str) -> dict[str, Any]:
    """JSON sidecars that apply to ``path`` by the BIDS inheritance principle, the nearest wins.

    Parameters
    ----------
    path : Path
        The recording.
    data : Path
        Root of the data set; the search does not go above it.
    suffix : str
        Last part of the sidecar's name: ``bold``, ``eeg``, ``timeseries``.

    Raises
    ------
    DataError : a sidecar that is no JSON object
    """
    own = entities(path.name)
    folders = [path.parent]
    while folders[-1] != data and data in folders[-1].parents:
        folders.append(folders[-1].parent)
    merged: dict[str, Any] = {}
    for folder in reversed(folders):
        here = [
            candidate
            for candidate in sorted(folder.glob(f"*{suffix}.json"))
            if candidate.name == f"{suffix}.json"
            or (
                candidate.name.endswith(f"_{suffix}.json")
                and entities(candidate.name).items() <= own.items()
            )
        ]
        for candidate in sorted(here, key=lambda c: len(entities(c.name))):
            merged.update(read_json(candidate))
    return merged


def read_json(file: Path) -> dict[str, Any]:
    """Content of a sidecar. Raises :class:`DataError` when it is no JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise DataError(
            "a sidecar cannot be read", file=file, expected="JSON", found=str(error)
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            "a sidecar cannot be read",
            file=file,
            expected="a JSON object",
            found=type(content).__name__,
        )
    return content


@dataclass(frozen=True)
class Companions:
    """Files that cleaning a MEG recording needs; None where the data set has none.

    Attributes
    ----------
    calibration : fine calibration of the sensors (``_acq-calibration_meg.dat``)
    cross_talk : cross-talk between them (``_acq-crosstalk_meg.fif``)
    empty_room : a recording without a person, of the same day where there are several
    """

    calibration: Path | None = None
    cross_talk: Path | None = None
    empty_room: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Those that are there."""
        return [f for f in (self.calibration, self.cross_talk, self.empty_room) if f is not None]


def companions(path: Path, data: Path, *, empty_room: bool = True) -> Companions:
    """Fine calibration, cross-talk and empty-room recording of a BIDS MEG recording.

    Calibration and cross-talk are those of the subject (and session), as BIDS 1.9 ("MEG,
    Cross-talk and fine-calibration files") names them. The empty-room recording is the one that
    ``AssociatedEmptyRoom`` of the sidecar names, else the one that mne-bids finds: the nearest in
    time among ``sub-emptyroom``, else ``task-noise`` of the same session; it is not looked for
    without ``empty_room``.

    Raises
    ------
    DataError : ``AssociatedEmptyRoom`` names a file outside the data set, or one that is not there
    """
    root = bids_root(path, data)
    if root is None or path.parent.name != "meg":
        return Companions()
    own = entities(path.name)
    who = "_".join(f"{key}-{own[key]}" for key in ("sub", "ses") if key in own)
    calibration = path.with_name(f"{who}_acq-calibration_meg.dat")
    cross_talk = path.with_name(f"{who}_acq-crosstalk_meg.fif")
    return Companions(
        calibration if calibration.is_file() else None,
        cross_talk if cross_talk.is_file() else None,
        _empty_room(path, data, root) if empty_room else None,
    )


def site_files(section: MaxwellSection, path: Path, data: Path) -> Companions:
    """Fine calibration and cross-talk: those of the recipe, else those that BIDS associates.

    Raises
    ------
    MissingFileError : a file that the recipe names is not there
    """
    beside = companions(path, data, empty_room=False)
    found = {"calibration": beside.calibration, "cross_talk": beside.cross_talk}
    for key in found:
        named = getattr(section, key)
        if not named:
            continue
        found[key] = safe_join(data, named)
        if not found[key].is_file():
            raise MissingFileError(
                f"the {key.replace('_', '-')} file is not there",
                file=found[key],
                expected=f"the file of preprocess.emeg.maxwell.{key}",
                remedy="correct the path below the data folder",
            )
    return Companions(**found)


def _empty_room(path: Path, data: Path, root: Path) -> Path | None:
    named = merged_json(path, data, "meg").get("AssociatedEmptyRoom")
    if isinstance(named, list):
        named = named[0] if named else None
    if isinstance(named, str) and named not in ("", "n/a"):
        relative = named.removeprefix("bids::").lstrip("/")
        file = safe_join(root, relative)
        if not file.exists():
            raise DataError(
                "the empty-room recording that a sidecar names is not there", file=path,
                expected=relative, found="nothing",
                remedy="copy it too, or correct AssociatedEmptyRoom",
            )  # fmt: skip
        return file
    import mne_bids

    bids_path = mne_bids.get_bids_path_from_fname(path, check=False).update(root=root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = bids_path.find_empty_room(verbose="error")
    except (ValueError, RuntimeError, OSError, TypeError, AttributeError):
        # Without a date of measurement nothing can be matched.
        return None
    return None if found is None or not Path(found.fpath).exists() else Path(found.fpath)
