"""Download public data sets and models: the only room that touches the network.

Downloading itself is done by the field's own fetchers, which resume and check hashes (nilearn for
Haxby 2001, mne for its sample recording, openneuro-py for OpenNeuro, huggingface_hub for models).
Data sets arrive as BIDS folders; ``SHA256SUMS`` lists what was written and is checked when the same
data set is asked for again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from braindecode_pipe.errors import CorruptStoreError, InputError, ModelError
from braindecode_pipe.plan.recordings import hash_file

T_R_HAXBY = 2.5
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


def fetch(name: str, out: str | Path) -> Path:
    """Download a data set (or ``model:ID``) to ``out``, or check what is there already.

    Parameters
    ----------
    name : ``haxby2001`` | ``mne-sample`` | ``openneuro:ds000000`` | ``model:ID``
        Of a model also ``model:ID@REVISION`` (default: what "main" is now), and ``#FILE`` behind it
        for torch weights of a model that has no safetensors; ``SHA256SUMS`` then holds the hash
        that the recipe must pin in ``weights_sha256``.
    out : folder of the BIDS data set; for a model the folder that recipes then name

    Returns
    -------
    Path of the folder.

    Raises
    ------
    InputError : unknown name, or the network cannot be reached
    CorruptStoreError : files are not those that were downloaded
    """
    out = Path(out)
    kind, _, argument = name.partition(":")
    if kind not in FETCHERS or (kind in ("openneuro", "model")) != bool(argument):
        raise InputError(
            "no such data set",
            expected="haxby2001, mne-sample, openneuro:dsNNNNNN or model:ID",
            found=name,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    # Whoever asks for the same folder at the same time waits, and finds it complete.
    with FileLock(out.with_name(f"{out.name}.lock")):
        if not (out / "SHA256SUMS").is_file():
            _download(name, FETCHERS[kind], argument, out)
            return out
    check_sums(out)
    return out


def _download(name: str, fetcher: Callable[[str, Path], None], argument: str, out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise InputError(
            "the folder holds something else already", file=out, expected="a new or empty folder",
            remedy="give another folder, or delete this one",
        )  # fmt: skip
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        fetcher(argument, temporary)
    except (OSError, TimeoutError) as error:
        raise InputError(
            f"{name} could not be downloaded",
            expected="a connection to its server",
            found=f"{type(error).__name__}: {error}",
            remedy="try again where there is a network; what was complete is kept by the fetcher",
        ) from error
    write_sums(temporary)
    if out.exists():
        out.rmdir()
    temporary.rename(out)


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS``, in the format of ``sha256sum``."""
    lines = [
        f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Raise :class:`CorruptStoreError` where a file is missing or has changed."""
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        found = hash_file(path) if path.is_file() else "missing"
        if found != expected:
            raise CorruptStoreError(
                "a downloaded file is not what it was", file=path, expected=expected, found=found,
                remedy="delete the folder and fetch it again",
            )  # fmt: skip


def _haxby(_: str, out: Path) -> None:
    from nilearn.datasets import fetch_haxby

    cache = out.parent / f"{out.name}-download"
    found = fetch_haxby(data_dir=str(cache), subjects=[1, 2, 3, 4, 5, 6])
    for number, (image, labels, mask) in enumerate(
        zip(found.func, found.session_target, found.mask_vt), start=1
    ):
        haxby_to_bids(Path(image), Path(labels), Path(mask), f"{number:02d}", out)
    shutil.rmtree(cache, ignore_errors=True)


def haxby_to_bids(image: Path, labels: Path, mask: Path, subject: str, out: Path) -> None:
    """One person of PyMVPA's Haxby 2001 (one 4-D image, one label per volume) as BIDS runs.

    Parameters
    ----------
    image : 4-D NIfTI of all runs, one after the other
    labels : text with the columns ``labels`` and ``chunks``, one row per volume
    mask : ventral temporal mask
    subject : BIDS label
    out : root of the BIDS data set
    """
    import nibabel

    table = pd.read_csv(labels, sep=r"\s+")
    volumes = nibabel.load(image)
    if len(table) != volumes.shape[3]:
        raise InputError(
            "labels and volumes differ in number", file=labels, expected=str(volumes.shape[3]),
            found=str(len(table)),
        )  # fmt: skip
    func = out / f"sub-{subject}" / "func"
    func.mkdir(parents=True, exist_ok=True)
    for chunk, rows in table.groupby("chunks"):
        stem = f"sub-{subject}_task-objectviewing_run-{int(chunk) + 1:02d}"
        first, last = rows.index[0], rows.index[-1] + 1
        run = volumes.slicer[..., first:last]
        run.header.set_zooms((*run.header.get_zooms()[:3], T_R_HAXBY))
        nibabel.save(run, func / f"{stem}_bold.nii.gz")
        names = rows["labels"].to_numpy(str)
        starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
        lengths = np.diff(np.r_[starts, len(names)])
        shown = [(s, n, names[s]) for s, n in zip(starts, lengths) if names[s] != "rest"]
        pd.DataFrame(
            [(s * T_R_HAXBY, n * T_R_HAXBY, name) for s, n, name in shown],
            columns=["onset", "duration", "trial_type"],
        ).to_csv(func / f"{stem}_events.tsv", sep="\t", index=False)
    masks = out / "derivatives" / "masks" / f"sub-{subject}" / "func"
    masks.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.load(mask), masks / f"sub-{subject}_desc-vt_mask.nii.gz")
    _describe(out, "Haxby 2001 visual object recognition", "CC BY-SA 3.0")
    (out / "task-objectviewing_bold.json").write_text(
        json.dumps({"TaskName": "objectviewing", "RepetitionTime": T_R_HAXBY})
    )


def _describe(out: Path, name: str, licence: str) -> None:
    (out / "dataset_description.json").write_text(
        json.dumps({"Name": name, "BIDSVersion": "1.9.0", "DatasetType": "raw", "License": licence})
    )


def _mne_sample(_: str, out: Path) -> None:
    import mne
    import mne_bids

    folder = Path(mne.datasets.sample.data_path(path=str(out.parent / "mne_data")))
    raw = mne.io.read_raw_fif(folder / "MEG" / "sample" / "sample_audvis_raw.fif", verbose="error")
    events = mne.find_events(raw, stim_channel="STI 014", verbose="error")
    names = {"auditory left": 1, "auditory right": 2, "visual left": 3, "visual right": 4,
             "smiley": 5, "button": 32}  # fmt: skip
    path = mne_bids.BIDSPath(subject="01", task="audvis", run="01", datatype="meg", root=out)
    mne_bids.write_raw_bids(raw, path, events=events, event_id=names, verbose="error")


def _openneuro(accession: str, out: Path) -> None:
    try:
        import openneuro
    except ImportError as error:
        raise InputError(
            "OpenNeuro's fetcher is not installed", expected="the package openneuro-py",
            remedy="pip install openneuro-py",
        ) from error  # fmt: skip
    openneuro.download(dataset=accession, target_dir=out)


def _model(identifier: str, out: Path) -> None:
    """A model's configuration, processor and safetensors, at one commit, named in a file."""
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        unknown = (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError,
                   HFValidationError)  # fmt: skip
    except ImportError as error:
        raise ModelError(
            "the hub's fetcher is not installed", expected="the package huggingface_hub",
            remedy="pip install 'braindecode-pipe[transformers]'",
        ) from error  # fmt: skip
    named, _, weights = identifier.partition("#")
    named, _, revision = named.partition("@")
    hub = {"endpoint": os.environ.get("HF_ENDPOINT")}
    try:
        commit = HfApi(**hub).model_info(named, revision=revision or None, timeout=30).sha
        # Weights as safetensors only, unless a file is named: loading it needs its hash pinned.
        snapshot_download(
            named, revision=commit, local_dir=out, **hub,
            allow_patterns=[*_MODEL_FILES, *([weights] if weights else [])],
        )  # fmt: skip
    except unknown as error:
        raise ModelError(
            f"the hub does not give {named}", expected="the id of a public model and its revision",
            found=str(error).strip().split("\n")[0],
            remedy="look the id up; for gated models accept their terms and set HF_TOKEN",
        ) from error  # fmt: skip
    except Exception as error:
        # Which library of HTTP is below, and so whose exceptions these are, differs by version.
        if isinstance(error, (OSError, HfHubHTTPError)) or "http" in type(error).__module__:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        raise
    shutil.rmtree(out / ".cache", ignore_errors=True)
    if not any(out.glob("*.safetensors")) and not (weights and (out / weights).is_file()):
        raise ModelError(
            f"{named} has no weights that are safe to load", expected="*.safetensors",
            found="none", remedy=f"fetch model:{named}#pytorch_model.bin, and pin the SHA-256 of "
            "that file (it stands in SHA256SUMS) as weights_sha256 in the recipe",
        )  # fmt: skip
    source = {"id": named, "revision": commit}
    (out / "model_source.json").write_text(json.dumps(source), encoding="utf-8")


FETCHERS: dict[str, Callable[[str, Path], None]] = {
    "haxby2001": _haxby,
    "mne-sample": _mne_sample,
    "openneuro": _openneuro,
    "model": _model,
}
