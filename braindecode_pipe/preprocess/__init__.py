"""Recordings to signal and response stores: MNE for EEG, MEG and iEEG, Nilearn for fMRI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from braindecode_pipe.errors import DataError
from braindecode_pipe.recipe import PreprocessSection

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["input_files", "run"]


def run(
    section: PreprocessSection,
    recording: dict[str, Any],
    data: Path,
    out: Path,
    *,
    allow_truncated: bool,
    data_origin: str,
    events: pd.DataFrame | None = None,
    fit_extents: tuple[tuple[float, float], ...] | None = None,
) -> None:
    """Preprocess one recording and write its store.

    Continuous recordings and time series become a ``signal`` store, epochs a ``response`` store
    whose events are named ``<recording>:<position>`` with five digits; both have a group ``qc``.

    Parameters
    ----------
    section : PreprocessSection
    recording : dict
        Row of ``StudyPlan.recordings``: recording, subject, session, task, run, datatype, path
        (posix, below ``data``), content_hash.
    data : Path
        Root of the data set.
    out : Path
        The store; written at once and whole, or not at all.
    allow_truncated : bool
        Use the prefix of a recording that is shorter than declared.
    data_origin : str
        ``recorded``, ``simulated`` or ``mixed``.
    events : DataFrame, optional
        The recording's rows of ``StudyPlan.events``; single-trial betas need them.
    fit_extents : (start, stop) [s] pairs, optional
        What fits may see where the split divides the recording (``splits.fit_extents``); None:
        all of it.

    Raises
    ------
    DataError
        Or one of its kinds (missing, truncated, wrong unit): what the recording's problem is.
    RecipeError
        A setting that no recording can have.
    """
    datatype = str(recording["datatype"])
    data, out = Path(data).resolve(), Path(out)
    if datatype in ("eeg", "meg", "ieeg", "epochs"):
        from braindecode_pipe.preprocess import emeg, epochs

        stage = epochs.run_epochs if datatype == "epochs" else emeg.run_raw
        stage(section.emeg, recording, data, out, allow_truncated=allow_truncated,
              data_origin=data_origin, fit_extents=fit_extents)  # fmt: skip
    elif datatype in ("bold", "parcels"):
        from braindecode_pipe.preprocess import bold

        stage = bold.run_volumes if datatype == "bold" else bold.run_parcels
        stage(section.bold, recording, data, out, allow_truncated=allow_truncated,
              data_origin=data_origin, events=events, fit_extents=fit_extents)  # fmt: skip
    else:
        raise DataError(
            "unknown datatype",
            file=recording["path"],
            expected="eeg | meg | ieeg | epochs | bold | parcels",
            found=datatype,
        )


def input_files(section: PreprocessSection, recording: dict[str, Any], data: Path) -> list[Path]:
    """Files that :func:`run` reads and that are not part of ``recording["content_hash"]``.

    A mask, an atlas, the events of a BIDS recording (they may hold spans annotated as ``BAD``).
    The key of the stage has to depend on their content.
    """
    from braindecode_pipe.preprocess import bold
    from braindecode_pipe.preprocess.sidecars import companions
    from braindecode_pipe.store import safe_join

    data = Path(data).resolve()
    path = safe_join(data, recording["path"])
    datatype = str(recording["datatype"])
    if datatype in ("bold", "parcels"):
        files = bold.side_files(section.bold, recording, path, data)
    else:
        files = [path.with_name(path.name.split(".")[0].rsplit("_", 1)[0] + "_events.tsv")]
        maxwell = section.emeg.maxwell
        if maxwell is not None or "maxwell" in section.emeg.noisy:
            files += companions(path, data, empty_room=False).files
        if maxwell is not None:
            named = [name for name in (maxwell.calibration, maxwell.cross_talk) if name]
            files += [safe_join(data, name) for name in named]
        if "empty-room" in section.emeg.ssp:
            files += companions(path, data).files
    return [file for file in dict.fromkeys(files) if file.is_file()]
