"""Open EEG, MEG and intracranial recordings, and refuse what the readers would hide."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import BraindecodePipeError, DataError, MissingFileError
from braindecode_pipe.preprocess import scratch
from braindecode_pipe.preprocess.scratch import Scratch, slices
from braindecode_pipe.preprocess.sidecars import (
    bids_root,
    check_declared,
    merged_json,
    mixed_rates,
    truncated,
)

_ELECTRICAL = ("eeg", "meg", "ieeg")


def read_raw(path: Path, data: Path, allow_truncated: bool) -> tuple[Any, list[str]]:
    """A recording with its BIDS sidecars, or a loose file, not yet loaded.

    Parameters
    ----------
    path : Path
        The recording: anything that ``mne.io.read_raw`` knows.
    data : Path
        Root of the data set.
    allow_truncated : bool
        Take what is left of a cut recording.

    Returns
    -------
    mne.io.BaseRaw, and what the readers warned of

    Raises
    ------
    MissingFileError, TruncatedRecordingError
    DataError : names that repeat, or a file that its reader refuses
    """
    import mne

    if not path.exists():
        raise MissingFileError("the recording is not there", file=path, expected="a recording")
    cut = check_declared(path, allow_truncated)
    root = bids_root(path, data)
    if root is not None and path.parent.name in _ELECTRICAL:
        import mne_bids

        bids_path = mne_bids.get_bids_path_from_fname(path, check=False).update(root=root)
        reader = partial(mne_bids.read_raw_bids, bids_path, verbose="warning")
    else:
        reader = partial(mne.io.read_raw, path, verbose="warning")
    raw, messages = guarded(reader, path, data)
    if raw.n_times < 2:
        raise DataError(
            "the recording is empty", file=path, expected="samples", found=f"{raw.n_times}"
        )
    sidecar = merged_json(path, data, path.parent.name) if root is not None else {}
    cut = cut or _check_duration(raw, sidecar, path, allow_truncated)
    return raw, ([cut] if cut else []) + messages


def read_epochs(path: Path, data: Path) -> tuple[Any, list[str]]:
    """An ``-epo.fif`` file, not yet loaded, and warnings. Raises like :func:`read_raw`."""
    import mne

    if not path.exists():
        raise MissingFileError("the recording is not there", file=path, expected="an epochs file")
    check_declared(path, allow_truncated=False)
    reader = partial(mne.read_epochs, path, preload=False, verbose="warning")
    epochs, messages = guarded(reader, path, data)
    if not len(epochs):
        raise DataError("the epochs file is empty", file=path, expected="epochs", found="0")
    return epochs, messages


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
        for part in slices(raw.n_times, _per_block(len(raw.ch_names))):
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
    for part in slices(len(epochs), _per_block(len(epochs.ch_names) * n_times)):
        reader = partial(epochs.get_data, picks=picks, item=part, copy=False, verbose="warning")
        values, found = guarded(reader, path, data)
        samples.write(0, part.start * n_times, values.transpose(1, 0, 2).reshape(len(picks), -1))
        messages += [text for text in found if text not in messages]
    return messages


def _per_block(n: int) -> int:
    """How many pieces of ``n`` float64 values fit into memory, at least one."""
    return max(1, scratch.BLOCK_BYTES // (8 * n))


def guarded(reader: Callable[[], Any], path: Path, data: Path) -> tuple[Any, list[str]]:
    """What ``reader`` returns, and its warnings; its errors become :class:`DataError`."""
    messages: list[str] = []
    with collect_warnings(path, data, messages):
        try:
            result = reader()
        except BraindecodePipeError:
            raise
        except Exception as error:  # every vendor's reader has errors of its own
            lines = str(error).strip().splitlines() or ["no message"]
            raise DataError(
                "the recording cannot be read",
                file=path,
                expected="a whole file in a format that MNE reads, with its companion files",
                found=f"{type(error).__name__}: {lines[0]}",
                remedy="open it with mne.io.read_raw to see more, or exclude it in "
                "[[plan.exclude]]",
            ) from error
    return result, messages


@contextmanager
def collect_warnings(path: Path, data: Path, messages: list[str]) -> Iterator[None]:
    """Append what libraries warn of inside the block to ``messages`` instead of printing it."""
    from mne.utils import catch_logging

    # mne prints its warnings beside raising them.
    with catch_logging(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    messages += [text for text in _relevant(caught, path, data) if text not in messages]


def _relevant(caught: list[warnings.WarningMessage], path: Path, data: Path) -> list[str]:
    """Warnings about the data, once each, without the place where the data happen to lie."""
    messages = []
    for warning in caught:
        if not issubclass(warning.category, (RuntimeWarning, UserWarning)):
            continue
        text = re.sub(r"\s+", " ", str(warning.message)).strip()
        if text.startswith("Channel names are not unique"):
            raise DataError(
                "channel names repeat",
                file=path,
                expected="unique channel names",
                found=text.split("for:", 1)[-1].split(".")[0].strip(),
                remedy="rename the channels in the header; which one is meant cannot be guessed",
            )
        if text.startswith("HED annotations"):
            # Says whether an optional package is installed, nothing about the recording.
            continue
        for root in (data, data.resolve()):
            text = text.replace(f"{root}/", "")
        messages.append(text)
    return list(dict.fromkeys(messages))


def _check_duration(raw: Any, sidecar: dict[str, Any], path: Path, allow_truncated: bool) -> str:
    """Compare the length with BIDS' ``RecordingDuration`` [s], which may be rounded to seconds."""
    declared = sidecar.get("RecordingDuration")
    if not isinstance(declared, (int, float)) or not np.isfinite(declared):
        return ""
    duration = raw.n_times / raw.info["sfreq"]
    if duration >= declared - 1.0:
        return ""
    expected, found = f"{declared:g} s (RecordingDuration)", f"{duration:g} s"
    if not allow_truncated:
        raise truncated(path, expected, found)
    return f"truncated: {found} of {expected}; the prefix is used"
