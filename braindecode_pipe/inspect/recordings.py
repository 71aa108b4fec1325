"""What is wrong with one recording; headers are read, samples for a moment.

Every function yields :class:`~braindecode_pipe.inspect.faults.Fault` and raises nothing for bad
input.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import (
    BraindecodePipeError,
    MissingFileError,
    TruncatedRecordingError,
    UnitError,
)
from braindecode_pipe.formats import brainvision, declared, guarded, open_epochs, open_raw, repeated
from braindecode_pipe.formats.kinds import describe
from braindecode_pipe.inspect.faults import Fault, Header
from braindecode_pipe.preprocess.quality import check_units

_EXCERPT_S = 2.0
_COUNTS = ("EEG", "EOG", "ECG", "EMG", "MISC", "Misc", "Trigger", "MEG", "MEGREF", "SEEG", "ECOG",
           "iEEG", "DBS")  # fmt: skip


def recording_faults(
    path: Path, name: str, datatype: str, sidecar: dict[str, Any], kinds: dict[str, str]
) -> tuple[list[Fault], Header]:
    """Faults of a recording, and its header.

    Parameters
    ----------
    path, name : the recording; its path below the data set
    datatype : as the plan names it
    sidecar : its JSON, inherited
    kinds : channel name -> type in channels.tsv, empty without one
    """
    header, faults = Header(path, datatype), []
    if datatype == "bold":
        return list(_image_faults(path, name, sidecar, header)), header
    if datatype == "parcels":
        return [], header
    try:
        faults += _declared_faults(path, name)
        if path.suffix.lower() == ".set" and describe(path).form == "epochs":
            datatype = header.datatype = "epochs"
            faults.append(Fault(
                name, "note", "epoched", "EEGLAB epochs: no filter is applied to them",
                "give the continuous recording where there is one",
            ))  # fmt: skip
        numbered = ("unique-names",)
        opener = open_epochs if datatype == "epochs" else partial(open_raw, repairs=numbered)
        inst, _ = guarded(partial(opener, path), path, path.parent, numbered)
    except BraindecodePipeError as error:
        if not any(fault.severity == "error" for fault in faults):
            what = f"{error.message}: {error.found}" if error.found else error.message
            faults.append(Fault(name, "error", "unreadable", what, str(error.remedy or "")))
        return faults, header
    header.names, header.sfreq = list(inst.ch_names), float(inst.info["sfreq"])
    if datatype != "epochs":
        header.duration = inst.n_times / header.sfreq
        faults += _unit_faults(inst, name, kinds)
    faults += _sidecar_faults(name, sidecar, header)
    return faults, header


def _declared_faults(path: Path, name: str) -> Iterator[Fault]:
    """Cut files, missing parts, names that repeat."""
    try:
        found = declared(path)
    except MissingFileError as error:
        what = f"{error.message}: {error.expected}"
        yield Fault(name, "error", "missing", what, str(error.remedy or "copy it too"))
        return
    if path.suffix.lower() in (".vhdr", ".ahdr"):
        markers = brainvision.read_header(path).markers
        if markers is not None and not markers.is_file():
            yield Fault(
                name, "error", "missing", f"the marker file {markers.name} is not there",
                "copy it too, or name the right one in the header",
            )  # fmt: skip
    if twice := repeated(found.names):
        yield Fault(
            name, "error", "repeated", f"channel names repeat: {twice}",
            "rename them in the header", "unique-names",
        )  # fmt: skip
    if found.truncated:
        keep = "" if found.n_times == 0 else ", or use the prefix: plan.allow_truncated = true"
        yield Fault(
            name, "error", TruncatedRecordingError.__name__,
            f"cut short: {found.found} of {found.expected}", f"copy it again{keep}",
        )  # fmt: skip


def _unit_faults(raw: Any, name: str, kinds: dict[str, str]) -> Iterator[Fault]:
    """Amplitudes of an excerpt from the middle that no volt or tesla can have."""
    sfreq = float(raw.info["sfreq"])
    n = min(raw.n_times, max(2, round(_EXCERPT_S * sfreq)))
    start = (raw.n_times - n) // 2
    types = [
        {"EEG": "eeg", "SEEG": "seeg", "ECOG": "ecog", "DBS": "dbs"}.get(kinds[n].upper(), "misc")
        if n in kinds and kind in ("eeg", "seeg", "ecog", "dbs") else kind
        for n, kind in zip(raw.ch_names, raw.get_channel_types())
    ]  # fmt: skip
    reader = partial(raw.get_data, start=start, stop=start + n, verbose="error")
    try:
        values, _ = guarded(reader, Path(name), Path("."))
        check_units(np.nan_to_num(values).std(axis=1), types, name)
    except UnitError as error:
        yield Fault(
            name, "error", "unit", f"{error.message}: {error.found}", str(error.remedy or "")
        )
    except BraindecodePipeError as error:
        yield Fault(name, "error", "unreadable", error.line, str(error.remedy or ""))


def _sidecar_faults(name: str, sidecar: dict[str, Any], header: Header) -> Iterator[Fault]:
    """Rate, length and channel counts of the sidecar against those of the header."""
    stated = sidecar.get("SamplingFrequency")
    if isinstance(stated, (int, float)) and abs(stated - header.sfreq) > 1e-3 * header.sfreq:
        yield Fault(
            name, "error", "sidecar rate",
            f"SamplingFrequency is {stated:g} Hz in the sidecar, {header.sfreq:g} Hz in the header",
            "correct the one that is wrong",
        )  # fmt: skip
    stated = sidecar.get("RecordingDuration")
    if isinstance(stated, (int, float)) and np.isfinite(header.duration):
        longer = header.duration - stated
        if abs(longer) > max(1.0 if longer < 0 else 0.5, 0.01 * stated):
            yield Fault(
                name, "error" if longer < 0 else "warning", "sidecar length",
                f"RecordingDuration is {stated:g} s in the sidecar, the recording lasts "
                f"{header.duration:g} s",
                "copy it again" if longer < 0 else "is the number format of the header right?",
            )  # fmt: skip
    counts = [sidecar.get(f"{kind}ChannelCount") for kind in _COUNTS]
    known = [count for count in counts if isinstance(count, int)]
    if known and header.names and sum(known) > len(header.names):
        yield Fault(
            name, "warning", "sidecar channels",
            f"the sidecar counts {sum(known)} channels, the header {len(header.names)}",
            "correct the one that is wrong",
        )  # fmt: skip


def _image_faults(
    path: Path, name: str, sidecar: dict[str, Any], header: Header
) -> Iterator[Fault]:
    """Shape, length of the file and repetition time of an image."""
    import nibabel

    try:
        image = nibabel.load(path)
        shape, zooms = image.shape, image.header.get_zooms()
        unit = image.header.get_xyzt_units()[1] if hasattr(image.header, "get_xyzt_units") else ""
    except Exception as error:  # nibabel has errors of its own, and passes on those of gzip
        text = str(error).splitlines()[0] if str(error) else ""
        what = f"cannot be opened: {type(error).__name__}: {text}"
        yield Fault(name, "error", "unreadable", what, "copy it again")
        return
    if len(shape) != 4:
        yield Fault(name, "error", "no series", f"no time series: {len(shape)} dimensions",
                    "give the 4-D image")  # fmt: skip
        return
    t_r = float(zooms[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    stated = sidecar.get("RepetitionTime")
    if isinstance(stated, (int, float)) and stated > 0:
        if t_r > 0 and abs(t_r - stated) > 1e-3 * stated:
            yield Fault(name, "error", "sidecar TR", f"RepetitionTime is {stated:g} s in the "
                        f"sidecar, {t_r:g} s in the header", "correct the one that is wrong",
                        )  # fmt: skip
        t_r = float(stated)
    if not 0.1 <= t_r <= 20:
        guess = " (milliseconds?)" if t_r > 20 else ""
        yield Fault(name, "error", "TR", f"the repetition time is {t_r:g} s{guess}",
                    "write RepetitionTime [s] in the sidecar, or set preprocess.bold.t_r",
                    )  # fmt: skip
    else:
        header.sfreq, header.duration = 1 / t_r, shape[3] * t_r
    if path.suffix == ".nii":
        offset = int(image.dataobj.offset)
        needed = offset + int(np.prod(shape)) * image.get_data_dtype().itemsize
        size = path.stat().st_size
        if size < needed:
            yield Fault(name, "error", TruncatedRecordingError.__name__,
                        f"cut short: {size} of {needed} bytes", "copy it again")  # fmt: skip
