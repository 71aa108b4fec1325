"""Signal-space projections: those of the file, of blinks, of heart beats, of the empty room.

``y = (1 - U U') x`` with the columns of ``U`` the fields to remove (Uusitalo and Ilmoniemi 1997,
Med. Biol. Eng. Comput. 35), computed by MNE: principal components of the averaged artifact, or of
the covariance of the empty room. They are applied before channels are scaled one by one, as a
matrix, and stay in the Info as active, so that forward models know of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from braindecode_pipe.errors import DataError, MissingFileError, RecipeError
from braindecode_pipe.preprocess.extras import warnings_into
from braindecode_pipe.preprocess.reading import read_raw
from braindecode_pipe.preprocess.sidecars import companions
from braindecode_pipe.preprocess.steps import Log

# Vectors per channel type, as in mne-bids-pipeline; of the empty room as in MNE's tutorial.
_N_ARTIFACT = {"n_grad": 1, "n_mag": 1, "n_eeg": 1}
_N_EMPTY = {"n_grad": 3, "n_mag": 3, "n_eeg": 0}
_EMPTY_S = 60.0
_EMPTY_BYTES = 128 * 2**20


def fit_ssp(
    raw: Any,
    kinds: Sequence[str],
    log: Log,
    *,
    path: Path | None = None,
    data: Path | None = None,
    eog_channels: Sequence[str] = (),
    ecg_channel: str = "",
) -> list[Any]:
    """Projections to apply, in the order of ``kinds``.

    Parameters
    ----------
    raw : loaded Raw in SI units
        An excerpt, with its channels of type eog and ecg. MNE filters its own copy (1 to 35 Hz).
    kinds : of "file", "eog", "ecg", "empty-room"
    log : Log
    path, data : the recording and the root of its data set, for the empty room
    eog_channels, ecg_channel : names; else channels of the type, Fp1 and Fp2, or, for heart beats
        in MEG, MNE's own estimate from the magnetometers

    Raises
    ------
    RecipeError : a channel that is not there
    DataError : nothing to compute a projection from
    MissingFileError : no recording of the empty room
    """
    projs: list[Any] = []
    for kind in kinds:
        if kind == "file":
            found = [p for p in raw.info["projs"] if p["desc"] != "Average EEG reference"]
            if not found:
                log.warnings.append("no projections in the file")
        elif kind == "empty-room":
            found = _of_empty_room(raw, path, data, log)
        else:
            named = list(eog_channels) if kind == "eog" else [ecg_channel] if ecg_channel else []
            found = _of_artifact(raw, kind, named, log)
        for proj in found:
            projs.append(proj.copy())
            projs[-1]["active"] = False
    return projs


def apply_ssp(sensors: Any, projs: Sequence[Any], log: Log) -> None:
    """Apply projections to ``sensors`` in place; its Info keeps them as active.

    Those that the file brought and that are not among ``projs`` are left out of the Info.
    """
    sensors.del_proj([i for i, proj in enumerate(sensors.info["projs"]) if not proj["active"]])
    here = [proj for proj in projs if set(proj["data"]["col_names"]) & set(sensors.ch_names)]
    if not here:
        log.warnings.append("no projections for these channels")
        return
    sensors.add_proj([proj.copy() for proj in here], verbose="error")
    with warnings_into(log, "projections"):
        sensors.apply_proj()
    log.steps.append("projections: " + ", ".join(proj["desc"] for proj in here))


def _of_artifact(raw: Any, kind: str, named: list[str], log: Log) -> list[Any]:
    import mne

    missing = [name for name in named if name not in raw.ch_names]
    if missing:
        raise RecipeError(
            "a channel for the projections is not there",
            expected=", ".join(missing),
            found="no such channel in the recording",
            remedy=f"correct preprocess.emeg.ica.{kind}_channel" + ("s" if kind == "eog" else ""),
        )
    types = dict(zip(raw.ch_names, raw.get_channel_types()))
    names = named or [name for name, of in types.items() if of == kind]
    if not names and kind == "eog":
        names = [name for name in raw.ch_names if name.lower() in ("fp1", "fp2")]
    if not names and not (kind == "ecg" and {"mag", "grad"} & set(types.values())):
        raise DataError(
            f"no {kind.upper()} channel to compute projections from",
            expected=f"a channel of type {kind}" + (", or Fp1 and Fp2" if kind == "eog" else ""),
            found=", ".join(sorted(set(types.values()))),
            remedy=f"set preprocess.emeg.channel_types, or leave {kind} out of ssp",
        )
    compute = mne.preprocessing.compute_proj_eog if kind == "eog" else (
        mne.preprocessing.compute_proj_ecg
    )  # fmt: skip
    channel: Any = None
    if names:
        channel = names if kind == "eog" else names[0]
    with warnings_into(log, f"projections of {kind.upper()}"):
        projs, events = compute(
            raw, ch_name=channel, reject=None, no_proj=True, average=True, **_N_ARTIFACT,

        )  # fmt: skip
    if not projs:
        log.warnings.append(f"no projections of {kind.upper()}: no events were found")
        return []
    log.steps.append(f"{len(projs)} projections from {len(events)} {kind.upper()} events")
    return projs


def _of_empty_room(raw: Any, path: Path | None, data: Path | None, log: Log) -> list[Any]:
    import mne

    if not {"mag", "grad"} & set(raw.get_channel_types()):
        log.warnings.append("no projections of the empty room: no MEG channels")
        return []
    file = None if path is None or data is None else companions(path, data).empty_room
    if file is None:
        raise MissingFileError(
            "no recording of the empty room",
            file=path,
            expected="sub-emptyroom in the BIDS folder, or AssociatedEmptyRoom in the sidecar",
            found="none",
            remedy="add it, or leave empty-room out of preprocess.emeg.ssp",
        )
    empty, messages = read_raw(file, data, allow_truncated=False)
    log.warnings += [text for text in messages if text not in log.warnings]
    sfreq = float(empty.info["sfreq"])
    n_times = min(empty.n_times, int(_EMPTY_S * sfreq), _EMPTY_BYTES // (8 * len(empty.ch_names)))
    empty.crop(0, (n_times - 1) / sfreq).load_data(verbose="error")
    here = [name for name in empty.ch_names if name in raw.ch_names]
    if not here:
        raise DataError(
            "the empty room was recorded with other channels",
            file=file,
            expected=", ".join(raw.ch_names[:4]),
            found=", ".join(empty.ch_names[:4]),
            remedy="leave empty-room out of preprocess.emeg.ssp",
        )
    empty.pick(here, verbose="error")
    empty.info["bads"] = [name for name in raw.info["bads"] if name in here]
    with warnings_into(log, "projections of the empty room"):
        projs = mne.compute_proj_raw(empty, **_N_EMPTY)
    log.steps.append(f"{len(projs)} projections from {n_times / sfreq:.0f} s of {file.name}")
    return projs
