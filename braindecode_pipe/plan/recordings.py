"""Find the recordings of a data set, hash what they hold, and find copies among them."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braindecode_pipe.errors import BraindecodePipeError, DataError, MissingFileError
from braindecode_pipe.formats import companion_files, describe, guarded, open_epochs, open_raw
from braindecode_pipe.plan.images import image_header, is_surface, parts, recordings_among, run_of
from braindecode_pipe.recipe import PlanSection

_FOLDERS = {"eeg": "eeg", "meg": "meg", "ieeg": "ieeg", "func": "bold"}
_EXTENSIONS = {
    "eeg": (".vhdr", ".edf", ".bdf", ".set", ".fif"),
    "meg": (".fif", ".ds", ".sqd", ".con", ".kdf", ".pdf"),
    "ieeg": (".vhdr", ".edf", ".set", ".nwb", ".mefd"),
    "bold": (".nii.gz", ".nii"),
}
_MEG_FORMATS = (".fif", ".fif.gz", ".ds", ".sqd", ".con", ".bin", ".chl")
# Formats whose companions do not make a BTi/4D recording of them.
_KNOWN = (
    ".vhdr", ".ahdr", ".set", ".raw", ".data", ".avr", ".mul", ".cdt", ".dap", ".edf", ".bdf",
)  # fmt: skip
_MEG, _INTRACRANIAL = {"mag", "grad", "ref_meg"}, {"seeg", "ecog", "dbs"}
_COLUMNS = (
    "recording", "subject", "session", "task", "run", "datatype", "path", "content_hash",
    "sfreq", "n_times", "n_sensors", "duration", "excluded", "exclude_reason", "data_origin",
    "problem",
)  # fmt: skip

Hasher = Callable[[Path], str]


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; of a folder's files in the order of their names."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def entities(name: str) -> dict[str, str]:
    """BIDS entities of a file name: ``sub-01_task-x_bold.nii.gz`` -> {"sub": "01", "task": "x"}."""
    return dict(re.findall(r"(?:^|_)([a-zA-Z]+)-([a-zA-Z0-9+]+)", name.split(".")[0]))


def stem(name: str) -> str:
    """File name without its extension(s), ``.nii.gz`` included."""
    return name.split(".")[0]


def sidecars(path: Path, root: Path, suffix: str, extension: str) -> list[Path]:
    """Files that apply to ``path`` by BIDS inheritance, the nearest last.

    A sidecar applies when it has the suffix and every entity in its name agrees with the
    recording's (BIDS 1.9, "The inheritance principle"); positions may have a ``space`` of their
    own.
    """
    own = entities(path.name)
    free = {"space"} if suffix in ("electrodes", "coordsystem") else set()
    found = []
    folder = path.parent
    while True:
        here = [
            candidate
            for candidate in sorted(folder.glob(f"*{suffix}{extension}"))
            if candidate.name in (f"{suffix}{extension}",)
            or (
                candidate.name.endswith(f"_{suffix}{extension}")
                and all(
                    own.get(name) == value or name in free
                    for name, value in entities(candidate.name).items()
                )
            )
        ]
        here.sort(key=lambda candidate: len(entities(candidate.name)))
        found = here + found
        if folder == root or root not in folder.parents:
            return found
        folder = folder.parent


def dataset_description(data: Path) -> dict[str, Any]:
    """Content of ``dataset_description.json``, empty when there is none."""
    path = data / "dataset_description.json"
    if not path.is_file():
        return {}
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(
            "dataset_description.json cannot be read", file=path, expected="JSON", found=str(error)
        ) from error
    return description if isinstance(description, dict) else {}


def find_recordings(section: PlanSection, data: Path, hasher: Hasher = hash_file) -> pd.DataFrame:
    """Table of recordings of a BIDS data set, or of loose files.

    Parameters
    ----------
    section : PlanSection
        Filters (subjects, tasks, ...), ``files`` for loose files, ``exclude``.
    data : Path
        Root of the data set.
    hasher : callable
        Content hash of a file; a caching one can be passed.

    Returns
    -------
    DataFrame with the columns of ``StudyPlan.recordings`` and ``problem``: the text of the error
    that reading the header gave, "" when it can be read.

    Raises
    ------
    MissingFileError : no folder, or nothing in it that is asked for
    DataError : an exclusion that names no recording; several spaces of one run
    """
    if not data.is_dir():
        raise MissingFileError(
            "the data folder does not exist",
            file=data,
            expected="a BIDS data set or a folder of recordings",
            remedy="give it with --data DIR",
        )
    origin = "simulated" if dataset_description(data).get("SimulatedData") is True else "recorded"
    excluded = {exclusion.recording: exclusion.reason for exclusion in section.exclude}
    rows = []
    for path, datatype in candidates(section, data):
        rows.append(_row(path, datatype, data, section, hasher, origin))
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    if table.empty:
        raise MissingFileError(
            "no recording found",
            file=data,
            expected=_asked_for(section),
            found=_what_is_there(data),
            remedy="look at it with `braindecode-pipe init DATA`, or name files in [plan] files",
        )
    _tell_apart(table)
    unknown = sorted(set(excluded) - set(table["recording"]))
    if unknown:
        raise DataError(
            "an excluded recording does not exist",
            file=data,
            expected="one of " + ", ".join(table["recording"]),
            found=", ".join(unknown),
            remedy="correct the names in [[plan.exclude]]",
        )
    table["excluded"] = table["recording"].isin(list(excluded))
    table["exclude_reason"] = [excluded.get(name, "") for name in table["recording"]]
    return table.sort_values("recording", ignore_index=True)


def _tell_apart(table: pd.DataFrame) -> None:
    """Loose files of one name in several folders, or formats, are named by their whole path."""
    for short in (lambda path: stem(path.name), lambda path: path.name):
        twice = table["recording"].duplicated(keep=False)
        table.loc[twice, "recording"] = [
            "_".join([*Path(path).parent.parts, short(Path(path))])
            for path in table.loc[twice, "path"]
        ]


def _asked_for(section: PlanSection) -> str:
    if section.files:
        return "files like " + ", ".join(section.files)
    wanted = section.datatypes or ["eeg", "meg", "ieeg", "bold", "parcels"]
    filters = [
        f"{name} in {values}"
        for name in ("subjects", "sessions", "tasks", "runs")
        if (values := getattr(section, name))
    ]
    where = f" in derivatives/{section.derivatives}" if section.derivatives else ""
    return f"BIDS recordings of {', '.join(wanted)}{where}" + "".join(f", {f}" for f in filters)


def _what_is_there(data: Path) -> str:
    names = sorted(p.name for p in data.iterdir())[:8]
    return ", ".join(names) if names else "an empty folder"


def candidates(section: PlanSection, data: Path) -> Iterator[tuple[Path, str]]:
    """Paths and datatypes of the recordings that a section asks for; nothing is opened."""
    if section.files:
        for pattern in section.files:
            for path in sorted(data.glob(pattern)):
                yield path, _loose_datatype(path)
        return
    root = data / "derivatives" / section.derivatives if section.derivatives else data
    seen: dict[str, Path] = {}
    for subject in sorted(root.glob("sub-*")):
        for folder in sorted([*subject.glob("*"), *subject.glob("ses-*/*")]):
            if folder.name not in _FOLDERS or not folder.is_dir():
                continue
            for path, datatype in _in_folder(folder, section):
                if not _passes(path, datatype, section):
                    continue
                if datatype == "bold" and section.derivatives:
                    _one_space(path, seen, data)
                yield path, datatype


def _loose_datatype(path: Path) -> str:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz", ".gii")):
        return "bold"
    if name.endswith("_timeseries.tsv"):
        return "parcels"
    try:
        form = describe(path).form
    except MissingFileError:
        form = "raw"
    if form in ("epochs", "evoked"):
        return "epochs"
    has_parts = path.suffix.lower() not in _KNOWN and bool(companion_files(path))
    return "meg" if name.endswith(_MEG_FORMATS) or has_parts else "eeg"


def _actual_datatype(path: Path, datatype: str, kinds: set[str], is_loose: bool) -> str:
    """What a recording turned out to hold: EEGLAB epochs; FIF files of EEG or intracranial EEG."""
    if path.suffix.lower() == ".set" and datatype in ("eeg", "ieeg"):
        return "epochs" if describe(path).form == "epochs" else datatype
    if is_loose and datatype == "meg" and kinds and not kinds & _MEG:
        return "ieeg" if kinds & _INTRACRANIAL else "eeg"
    return datatype


def _in_folder(folder: Path, section: PlanSection) -> Iterator[tuple[Path, str]]:
    datatype = _FOLDERS[folder.name]
    series = recordings_among([path.name for path in folder.iterdir()], bool(section.derivatives))
    for path in sorted(folder.iterdir()):
        name = path.name
        if datatype == "bold":
            if name.endswith("_timeseries.tsv") and "confounds" not in name:
                yield path, "parcels"
            elif name in series:
                yield path, "bold"
        elif name.endswith(
            tuple(f"_{datatype}{extension}" for extension in _EXTENSIONS[datatype])
        ) and entities(name).get("split", "01") in ("01", "1"):
            yield path, datatype


def _passes(path: Path, datatype: str, section: PlanSection) -> bool:
    own = entities(path.name)
    wanted = (
        (section.subjects, "sub"), (section.sessions, "ses"),
        (section.tasks, "task"), (section.runs, "run"),
    )  # fmt: skip
    return (not section.datatypes or datatype in section.datatypes) and all(
        not values or own.get(key, "") in values for values, key in wanted
    )


def _one_space(path: Path, seen: dict[str, Path], data: Path) -> None:
    run = run_of(path.name)
    if run in seen:
        raise DataError(
            "one run is there in several spaces",
            file=path,
            expected="one preprocessed image per run",
            found=f"{seen[run].relative_to(data)} and {path.relative_to(data)}",
            remedy='choose them by name: [plan] files = ["**/*space-NAME*_bold.nii.gz"]',
        )
    seen[run] = path


def _row(
    path: Path,
    datatype: str,
    data: Path,
    section: PlanSection,
    hasher: Hasher,
    origin: str,
) -> dict[str, Any]:
    own = entities(path.name)
    recording = stem(path.name)
    problem, header = "", {"sfreq": np.nan, "n_times": 0, "n_sensors": 0, "duration": np.nan}
    try:
        datatype = _actual_datatype(path, datatype, set(), False)
        header = read_header(path, datatype, data)
        datatype = _actual_datatype(path, datatype, header.pop("kinds"), bool(section.files))
    except BraindecodePipeError as error:
        problem = str(error)
    except Exception as error:  # any reader of any vendor's format, each with its own errors
        problem = f"{path.name} cannot be opened: {type(error).__name__}: {error}"
    return {
        "recording": recording,
        "subject": own.get("sub", recording if section.files else ""),
        "session": own.get("ses", ""),
        "task": own.get("task", ""),
        "run": own.get("run", ""),
        "datatype": datatype,
        "path": path.relative_to(data).as_posix(),
        "content_hash": content_of(path, datatype, data, hasher),
        **header,
        "excluded": False,
        "exclude_reason": "",
        "data_origin": origin,
        "problem": problem,
    }


def recording_files(path: Path, datatype: str, data: Path) -> list[Path]:
    """All files that decide what a recording holds: data, companions, sidecars (no events)."""
    files = [path]
    if path.is_file():
        files += companion_files(path)
        if "_split-" in path.name:
            files += sorted(path.parent.glob(re.sub(r"_split-0*1", "_split-*", path.name)))
        elif path.suffix == ".fif":
            # mne names the parts of a loose recording NAME-1.fif, NAME-2.fif.
            files += sorted(path.parent.glob(f"{glob.escape(path.stem)}-[0-9]*.fif"))
    suffix = stem(path.name).rsplit("_", 1)[-1]
    for kind, extension in (
        (suffix, ".json"), ("channels", ".tsv"), ("electrodes", ".tsv"),
        ("coordsystem", ".json"), ("desc-confounds_timeseries", ".tsv"),
    ):  # fmt: skip
        files += sidecars(path, data, kind, extension)
    if datatype == "bold":
        files += parts(path)
    if datatype == "bold" and ("desc-preproc_bold" in path.name or is_surface(path.name)):
        files += sorted(path.parent.glob(f"{run_of(path.name)}_desc-confounds_timeseries.tsv"))
        files += sorted(path.parent.glob(path.name.replace("desc-preproc_bold", "desc-brain_mask")))
    return list(dict.fromkeys(files))


def content_of(path: Path, datatype: str, data: Path, hasher: Hasher = hash_file) -> str:
    """SHA-256 over the content of a recording's files; folder names do not count."""
    digest = hashlib.sha256()
    for file in recording_files(path, datatype, data):
        digest.update(f"{file.name}\0{hasher(file)}\n".encode())
    return digest.hexdigest()


def read_header(path: Path, datatype: str, data: Path) -> dict[str, Any]:
    """Sampling rate [Hz], length, number and kinds of sensors, from the header alone."""
    kinds: set[str] = set()
    if datatype == "bold":
        n_sensors, n_times, t_r = image_header(path)
        for sidecar in sidecars(path, data, "bold", ".json"):
            t_r = float(json.loads(sidecar.read_text()).get("RepetitionTime", t_r) or t_r)
        sfreq = 1.0 / t_r if t_r > 0 else np.nan
    elif datatype == "parcels":
        n_sensors, n_times = _table_shape(path)
        sfreq = np.nan
        for sidecar in sidecars(path, data, "timeseries", ".json"):
            meta = json.loads(sidecar.read_text())
            if "RepetitionTime" in meta:
                sfreq = 1.0 / float(meta["RepetitionTime"])
            sfreq = float(meta.get("SamplingFrequency", sfreq))
    else:
        # Names that repeat and lengths are judged where the recipe's repairs are known.
        numbered = ("unique-names",)
        opener = open_epochs if datatype == "epochs" else partial(open_raw, repairs=numbered)
        inst, _ = guarded(partial(opener, path), path, data, numbered)
        n_times = len(inst) * len(inst.times) if datatype == "epochs" else inst.n_times
        sfreq, n_sensors = float(inst.info["sfreq"]), len(inst.ch_names)
        kinds = set(inst.get_channel_types())
    return {
        "sfreq": sfreq,
        "n_times": int(n_times),
        "n_sensors": int(n_sensors),
        "kinds": kinds,
        "duration": n_times / sfreq if sfreq and np.isfinite(sfreq) else np.nan,
    }


def _table_shape(path: Path) -> tuple[int, int]:
    with path.open("rb") as stream:
        n_columns = len(stream.readline().split(b"\t"))
        return n_columns, sum(1 for line in stream if line.strip())
