"""Open a recording of any vendor, lazily, with the companions that lie beside it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.errors import BraindecodePipeError, DataError
from braindecode_pipe.formats.kinds import Kind, describe, refuse
from braindecode_pipe.formats.mirror import mirrored
from braindecode_pipe.formats.names import refuse_repeated
from braindecode_pipe.formats.parts import bti_parts, kit_events, kit_parts

if TYPE_CHECKING:
    import mne

_QUIET = {"verbose": "warning"}


def open_raw(path: Path, repairs: Sequence[str] = ()) -> mne.io.BaseRaw:
    """A continuous recording, not loaded.

    ``mne.io.read_raw``, and what it leaves out: KIT with its markers and head shape, BTi/4D with
    its configuration, EGI simple binary, Nicolet, FieldTrip. A KIT recording without markers has no
    head position: its sensors stay in the frame of the device.

    With the repair ``unique-names`` a BrainVision header whose names repeat is read with numbered
    names; MNE numbers those of other formats itself, and :func:`guarded` refuses that without it.

    Raises
    ------
    DataError, MissingFileError : the file is no continuous recording
    Exception : whatever its reader raises; see :func:`guarded`
    """
    import mne

    kind = describe(path)
    if kind.form != "raw":
        raise _wrong_form(path, kind, "a continuous recording")
    suffix = path.suffix.lower()
    if suffix in (".vhdr", ".ahdr") and "unique-names" in repairs:
        return _brainvision(path)
    parts = bti_parts(path) if path.is_file() else None
    if parts is not None:
        config, head = (None if part is None else str(part) for part in parts)
        return mne.io.read_raw_bti(str(path), config, head, **_QUIET)
    if suffix in (".sqd", ".con"):
        return _kit(path)
    if suffix == ".raw":
        return mne.io.read_raw_egi(path, **_QUIET)
    if suffix == ".data":
        return mne.io.read_raw_nicolet(
            path, ch_type="eeg", eog="auto", ecg="auto", emg="auto", **_QUIET
        )
    if suffix == ".mat":
        return mne.io.read_raw_fieldtrip(path, info=None)
    return mne.io.read_raw(path, **_QUIET)


def _brainvision(path: Path) -> mne.io.BaseRaw:
    import mne

    with mirrored(path, path.parent, ("unique-names",)) as (folder, repaired):
        raw = mne.io.read_raw_brainvision(folder / path.name, **_QUIET)
        if folder != path.parent:
            raw.filenames = [path.parent / Path(part).name for part in raw.filenames]
    for text in repaired:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return raw


def _kit(path: Path) -> mne.io.BaseRaw:
    import mne

    parts = kit_parts(path)
    if not parts.files:
        raw = mne.io.read_raw_kit(path, **_QUIET)
        # MNE gives files without markers the identity, which is no head position.
        if not raw.info["dig"]:
            with raw.info._unlock():
                raw.info["dev_head_t"] = None
        return raw
    markers = [str(file) for file in parts.markers]
    return mne.io.read_raw_kit(
        path, mrk=markers if len(markers) > 1 else markers[0], elp=parts.coils, hsp=parts.head,
        **_QUIET,
    )  # fmt: skip


def open_epochs(path: Path) -> mne.BaseEpochs:
    """A recording that comes epoched, or averaged: then one epoch per condition.

    ``-epo.fif`` is not loaded; EEGLAB's, KIT's and averages are small and are.

    Raises
    ------
    DataError, MissingFileError : the file holds no epochs; averages that do not fit each other
    Exception : whatever its reader raises; see :func:`guarded`
    """
    import mne

    kind = describe(path)
    suffix = path.suffix.lower()
    if kind.form not in ("epochs", "evoked"):
        raise _wrong_form(path, kind, "epochs")
    if kind.form == "evoked":
        return _averages(path)
    if suffix == ".set":
        return mne.read_epochs_eeglab(path, **_QUIET).drop_bad(**_QUIET)
    if suffix in (".raw", ".sqd", ".con"):
        events = kit_events(path)
        if events is None:
            raise DataError(
                "KIT epochs need their list of events", file=path,
                expected=f"{re.sub(r'[-_]epochs?$', '', path.stem)}-eve.txt beside the file",
                found="nothing", remedy="write one with mne.write_events",
            )  # fmt: skip
        epochs = mne.read_epochs_kit(path, mne.read_events(events, **_QUIET), **_QUIET)
        return epochs.drop_bad(**_QUIET)
    return mne.read_epochs(path, preload=False, **_QUIET)


def _averages(path: Path) -> mne.BaseEpochs:
    """Averages as epochs: event number i is condition i, in the order of the file."""
    import mne

    if path.suffix.lower() in (".avr", ".mul"):
        found = [mne.read_evoked_besa(path, **_QUIET)]
    elif path.suffix.lower() in (".sqd", ".con", ".raw"):
        raise DataError(
            f"{path.name} is a KIT average, which no reader opens", file=path,
            expected="a continuous recording, epochs, or an average in FIF or BESA's format",
            found="a KIT average", remedy="save it as -ave.fif",
        )  # fmt: skip
    else:
        found = mne.read_evokeds(path, proj=False, **_QUIET)
    first = found[0]
    for other in found[1:]:
        if other.ch_names != first.ch_names or not np.array_equal(other.times, first.times):
            raise DataError(
                "averages of one file differ in channels or times", file=path,
                expected=f"{len(first.ch_names)} channels x {len(first.times)} samples, as in "
                f"{first.comment!r}",
                found=f"{len(other.ch_names)} x {len(other.times)} in {other.comment!r}",
                remedy="save them as one file per kind",
            )  # fmt: skip
    names: dict[str, int] = {}
    for number, evoked in enumerate(found, start=1):
        name = evoked.comment or f"condition {number}"
        names[name if name not in names else f"{name} ({number})"] = number
    # Averages have no place in time: events are one window apart.
    n_times = len(first.times)
    events = np.array([[i * n_times, 0, i + 1] for i in range(len(found))])
    return mne.EpochsArray(
        np.stack([evoked.data for evoked in found]), first.info.copy(), events,
        tmin=float(first.times[0]), event_id=names, baseline=None, proj=False, verbose="error",
    )  # fmt: skip


def _wrong_form(path: Path, kind: Kind, expected: str) -> DataError:
    if not kind.form:
        return refuse(path, kind)
    error = refuse(path, kind, expected)
    want = "epochs" if kind.form in ("epochs", "evoked") else "eeg, meg or ieeg"
    return DataError(
        error.message, file=path, expected=error.expected, found=error.found,
        remedy=f"it is read as datatype {want}; filters need continuous recordings",
    )  # fmt: skip


# --- errors and warnings -------------------------------------------------------------------------


def guarded(
    reader: Callable[[], Any], path: Path, root: Path, repairs: tuple[str, ...] = ()
) -> tuple[Any, list[str]]:
    """Call a vendor's reader; its result, and what it warned of without the folder ``root``.

    Raises
    ------
    DataError : the reader raised anything, in one line; it renamed channels that repeat
    """
    messages: list[str] = []
    with collect_warnings(path, root, messages, repairs):
        try:
            result = reader()
        except BraindecodePipeError:
            raise
        except Exception as error:  # every vendor's reader has errors of its own
            text = re.sub(r"\s+", " ", str(error)).strip() or "no message"
            for folder in (root, root.resolve()):
                text = text.replace(f"{folder}/", "")
            if len(text) > 200:
                text = text[:200] + " ..."
            raise DataError(
                f"{path.name} cannot be read as {describe(path).what}",
                file=path,
                expected="a whole file in a format that MNE reads, with its companion files",
                found=f"{type(error).__name__}: {text}",
                remedy="open it with mne.io.read_raw to see more, or exclude it in "
                "[[plan.exclude]]",
            ) from error
    return result, messages


@contextmanager
def collect_warnings(
    path: Path, root: Path, messages: list[str], repairs: tuple[str, ...] = ()
) -> Iterator[None]:
    """Append what libraries warn of inside the block to ``messages`` instead of printing it."""
    from mne.utils import catch_logging

    # mne prints its warnings beside raising them.
    with catch_logging(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    messages += [t for t in _relevant(caught, path, root, repairs) if t not in messages]


def _relevant(
    caught: list[warnings.WarningMessage], path: Path, root: Path, repairs: tuple[str, ...]
) -> list[str]:
    """Warnings about the data, once each, without the place where the data happen to lie."""
    messages = []
    for warning in caught:
        if not issubclass(warning.category, (RuntimeWarning, UserWarning)):
            continue
        text = re.sub(r"\s+", " ", str(warning.message)).strip()
        if text.startswith("Channel names are not unique"):
            found = text.split("for:", 1)[-1].split(".")[0].strip()
            if "unique-names" not in repairs:
                refuse_repeated(path, found)
            text = f"repaired: channel names that repeat are numbered: {found}"
        if text.startswith("HED annotations"):
            # Says whether an optional package is installed, nothing about the recording.
            continue
        for folder in (root, root.resolve()):
            text = text.replace(f"{folder}/", "")
        messages.append(text)
    return list(dict.fromkeys(messages))
