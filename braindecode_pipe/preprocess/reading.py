"""Open EEG, MEG and intracranial recordings, and refuse what the readers would hide."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.errors import DataError, RecipeError
from braindecode_pipe.formats import (
    check_declared,
    describe,
    guarded,
    open_epochs,
    open_raw,
    require,
    truncated,
)
from braindecode_pipe.formats.lengths import declared, mixed_rates
from braindecode_pipe.formats.mirror import mirrored
from braindecode_pipe.formats.opening import collect_warnings
from braindecode_pipe.preprocess.blocks import per_block
from braindecode_pipe.preprocess.scratch import Scratch, slices
from braindecode_pipe.preprocess.sensors import drop_impossible, restore_frame
from braindecode_pipe.preprocess.sidecars import bids_root, entities, merged_json, read_json
from braindecode_pipe.recipe import EmegSection

if TYPE_CHECKING:
    from braindecode_pipe.preprocess.steps import Log

__all__ = [
    "apply_names",
    "collect_warnings",
    "copy_epochs",
    "copy_raw",
    "read_epochs",
    "read_raw",
]

_ELECTRICAL = ("eeg", "meg", "ieeg")


def read_raw(
    path: Path, data: Path, allow_truncated: bool, repairs: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """A recording with its BIDS sidecars, or a loose file, not yet loaded.

    Parameters
    ----------
    path : Path
        The recording: anything that ``mne.io.read_raw`` knows, and what
        :func:`braindecode_pipe.formats.open_raw` adds.
    data : Path
        Root of the data set.
    allow_truncated : bool
        Take what is left of a cut recording, where its format has a fixed frame.
    repairs : of ``EmegSection``
        ``unique-names`` numbers channel names that repeat (``A-0``, ``A-1``), ``decimal-comma`` and
        ``text-encoding`` read channels.tsv and electrodes.tsv as if they had been written rightly.

    Returns
    -------
    mne.io.BaseRaw, and what the readers warned of; a text that starts with "truncated" or
    "repaired" belongs to the steps

    Raises
    ------
    MissingFileError, TruncatedRecordingError
    DataError : names that repeat, a file that is no recording, one that its reader refuses
    """
    repairs = tuple(repairs)
    require(path)
    cut = check_declared(path, allow_truncated, repairs)
    root = bids_root(path, data)
    raw, messages = _read(path, data, root, repairs)
    for part in raw.filenames[1:]:
        # The other files of a split recording: a cut one is read as zeros or not at all.
        if part is not None:
            check_declared(Path(part), allow_truncated=False)
    if raw.n_times < 2:
        raise DataError(
            "the recording is empty", file=path, expected="samples", found=f"{raw.n_times}"
        )
    if cut:
        _crop(raw, path)
    datatype = path.parent.name
    if root is not None and datatype in ("eeg", "ieeg"):
        messages.append(restore_frame(raw.info, _coordinate_system(path, root), datatype))
    messages = [text for text in (*messages, drop_impossible(raw.info)) if text]
    sidecar = merged_json(path, data, path.parent.name) if root is not None else {}
    cut = cut or _check_duration(raw, sidecar, path, allow_truncated)
    return raw, ([cut] if cut else []) + messages


def _read(
    path: Path, data: Path, root: Path | None, repairs: tuple[str, ...]
) -> tuple[Any, list[str]]:
    """By mne-bids where there is BIDS; what is repaired is read from outside of the data set."""
    if root is None or path.parent.name not in _ELECTRICAL or describe(path).form != "raw":
        return guarded(partial(open_raw, path, repairs), path, data, repairs)
    if not repairs:
        return guarded(partial(_read_bids, path, root), path, data)
    with mirrored(path, root, repairs) as (folder, repaired):
        reader = partial(_read_bids, folder / path.relative_to(root), folder)
        raw, messages = guarded(reader, path, folder, repairs)
        if folder != root:
            # The samples are read later, when the copy is gone.
            samples, _ = guarded(partial(open_raw, path, repairs), path, data, repairs)
            samples.info = raw.info
            raw = samples.set_annotations(raw.annotations, emit_warning=False)
    return raw, [*repaired, *messages]


def _read_bids(path: Path, root: Path) -> Any:
    import mne_bids

    bids_path = mne_bids.get_bids_path_from_fname(path, check=False).update(root=root)
    return mne_bids.read_raw_bids(bids_path, verbose="warning")


def _coordinate_system(path: Path, root: Path) -> str:
    """Name of the system that electrodes.tsv is in, "" where several are there or none is told."""
    own, found = entities(path.name), set()
    for folder in (path.parent, path.parent.parent, root):
        for file in folder.glob("*coordsystem.json"):
            theirs = {k: v for k, v in entities(file.name).items() if k != "space"}
            if theirs.items() <= own.items():
                meta = read_json(file)
                keys = (f"{kind}CoordinateSystem" for kind in ("iEEG", "EEG"))
                found |= {str(meta[key]) for key in keys if key in meta}
    return found.pop() if len(found) == 1 else ""


def read_epochs(path: Path, data: Path) -> tuple[Any, list[str]]:
    """Epochs (``-epo.fif``, EEGLAB's, KIT's) or averages, and warnings.

    Averages are epochs with one event per condition. Raises like :func:`read_raw`.
    """
    require(path)
    check_declared(path, allow_truncated=False)
    epochs, messages = guarded(partial(open_epochs, path), path, data)
    if not len(epochs):
        raise DataError("the epochs file is empty", file=path, expected="epochs", found="0")
    return epochs, messages


def apply_names(inst: Any, section: EmegSection, path: Path, log: Log) -> None:
    """Rename channels, set their types and drop positions, as the recipe says; in place.

    Parameters
    ----------
    inst : Raw or Epochs, loaded or not
    section : EmegSection
        ``rename`` comes first, so that ``channel_types`` uses the new names; then the repair
        ``drop-positions``.
    path : Path of the recording, for messages
    log : Log, whose ``steps`` say what was done

    Raises
    ------
    RecipeError : a name that no channel has, two channels of one name, a type that mne lacks
    """
    names = list(inst.ch_names)
    _known(section.rename, names, "rename", path)
    if section.rename:
        renamed = [section.rename.get(name, name) for name in names]
        twice = sorted({name for name in renamed if renamed.count(name) > 1})
        if twice:
            raise RecipeError(
                "preprocess.emeg.rename gives two channels one name", file=path,
                expected="a name of its own for every channel", found=", ".join(twice),
                remedy="correct preprocess.emeg.rename",
            )  # fmt: skip
        inst.rename_channels(section.rename, verbose="error")
        log.steps.append(
            "renamed: " + ", ".join(f"{old} -> {new}" for old, new in section.rename.items())
        )
    _known(section.channel_types, list(inst.ch_names), "channel_types", path)
    if section.channel_types:
        try:
            inst.set_channel_types(section.channel_types, on_unit_change="ignore", verbose="error")
        except (ValueError, KeyError) as error:
            raise RecipeError(
                "a channel type that cannot be set", file=path,
                expected="types of mne: eeg, seeg, ecog, dbs, eog, ecg, emg, misc, stim, ...",
                found=str(error).splitlines()[0], remedy="correct preprocess.emeg.channel_types",
            ) from error  # fmt: skip
        log.steps.append(
            "types: " + ", ".join(f"{name} {kind}" for name, kind in section.channel_types.items())
        )
    if "drop-positions" in section.repairs:
        for channel in inst.info["chs"]:
            channel["loc"][:3] = np.nan
        with inst.info._unlock():
            inst.info["dig"] = None
        log.steps.append("repaired: positions of all sensors are left out")


def _known(wanted: dict[str, str], names: list[str], key: str, path: Path) -> None:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise RecipeError(
            f"preprocess.emeg.{key} names channels that the recording lacks",
            file=path,
            expected="names of its channels: " + ", ".join(names[:12])
            + (f" and {len(names) - 12} more" if len(names) > 12 else ""),
            found=", ".join(unknown),
            remedy=f"correct preprocess.emeg.{key}",
        )  # fmt: skip


def copy_raw(raw: Any, picks: list[int], samples: Scratch, path: Path, data: Path) -> list[str]:
    """Copy channels of a recording that is not loaded into ``samples``, (channel, time).

    Read in blocks of time; channel by channel from files of several sampling rates, whose slower
    channels MNE resamples within the piece that it reads. Returns the reader's warnings.
    """
    messages: list[str] = []

    def get(**part: Any) -> np.ndarray:
        reader = partial(raw.get_data, **{"picks": picks, **part}, verbose="warning")
        values, found = guarded(reader, path, data)
        messages.extend(text for text in found if text not in messages)
        return values

    if mixed_rates(path):
        for i, pick in enumerate(picks):
            samples.write(i, 0, get(picks=[pick]))
    else:
        # Readers take all channels of the file into memory, picked or not.
        for part in slices(raw.n_times, per_block(len(raw.ch_names))):
            samples.write(0, part.start, get(start=part.start, stop=part.stop))
    return messages


def copy_epochs(
    epochs: Any, picks: list[int], samples: Scratch, path: Path, data: Path
) -> list[str]:
    """Copy channels of epochs that are not loaded into ``samples``, (channel, time).

    One epoch comes after the other. Returns the reader's warnings.
    """
    messages: list[str] = []
    n_times = len(epochs.times)
    for part in slices(len(epochs), per_block(len(epochs.ch_names) * n_times)):
        reader = partial(epochs.get_data, picks=picks, item=part, copy=False, verbose="warning")
        values, found = guarded(reader, path, data)
        samples.write(0, part.start * n_times, values.transpose(1, 0, 2).reshape(len(picks), -1))
        messages += [text for text in found if text not in messages]
    return messages


def _crop(raw: Any, path: Path) -> None:
    """Leave only whole samples of a recording whose reader believes its header."""
    whole = declared(path).n_times
    if whole is not None and 2 <= whole < raw.n_times:
        raw.crop(tmax=(whole - 1) / raw.info["sfreq"], verbose="error")


def _check_duration(raw: Any, sidecar: dict[str, Any], path: Path, allow_truncated: bool) -> str:
    """Compare the length with BIDS' ``RecordingDuration`` [s], which may be rounded to seconds."""
    stated = sidecar.get("RecordingDuration")
    if not isinstance(stated, (int, float)) or not np.isfinite(stated):
        return ""
    duration = raw.n_times / raw.info["sfreq"]
    if duration >= stated - 1.0:
        return ""
    expected, found = f"{stated:g} s (RecordingDuration)", f"{duration:g} s"
    if not allow_truncated:
        raise truncated(path, expected, found)
    return f"truncated: {found} of {expected}; the prefix is used"
