"""Bad channels that need more than one channel's samples: PREP, RANSAC, and SSS for MEG.

What one channel tells by itself (flat, clipped, a copy, far too large) is the matter of
:func:`braindecode_pipe.preprocess.quality.find_bad_channels`; this adds, by the field's own code,

- ``pyprep``: amplitude, high-frequency noise and correlation with the other channels of PREP
  (Bigdely-Shamlo et al. 2015, Front. Neuroinform. 9), by :class:`pyprep.NoisyChannels`. Its look at
  the power spectrum is no part of PREP, and left out: it called 2 of 192 good channels bad in
  simulated EEG, the rest none;
- ``ransac``: PREP's prediction of every channel from random subsets of the others by spherical
  splines; bad where the correlation is below 0.75 in 40 % of the windows of 5 s;
- ``maxwell``: :func:`mne.preprocessing.find_bad_channels_maxwell`, the channels of MEG that the
  inner expansion of SSS does not explain.

They look at the excerpt that they are given, so that memory and time are bounded by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess.extras import require, warnings_into
from braindecode_pipe.preprocess.sensors import sensor_geometry
from braindecode_pipe.preprocess.sidecars import Companions
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe.models import MaxwellSection

_PREP = {
    "bad_by_deviation": "amplitude unlike that of the other channels",
    "bad_by_hf_noise": "more noise above 50 Hz than the other channels",
    "bad_by_correlation": "not correlated with any other channel",
    "bad_by_dropout": "drops out",
    "bad_by_flat": "flat",
    "bad_by_nan": "not finite",
}
# With fewer, the robust statistics over channels and the quarter that RANSAC draws are too few.
_MIN_CHANNELS = 12
_MAXWELL_S = 5.0
_ORIGIN = {"head": (0.0, 0.0, 0.04), "meg": (0.0, 0.0, 0.0)}


def find_noisy(
    raw: Any,
    methods: Sequence[str],
    seed: int,
    log: Log,
    *,
    path: Path | None = None,
    maxwell: MaxwellSection | None = None,
    site: Companions | None = None,
) -> dict[str, str]:
    """Bad channels and why, by the methods of ``preprocess.emeg.noisy``.

    Parameters
    ----------
    raw : loaded Raw in SI units
        An excerpt, band-passed and decimated as fits the method; those that are bad already
        (``info["bads"]``) are left out.
    methods : of "pyprep", "ransac", "maxwell"
    seed : of the random subsets of RANSAC
    log : Log
    path : the recording, for messages
    maxwell : orders, frame and origin of the SSS expansion; default: those of the section
    site : fine calibration and cross-talk for SSS

    Returns
    -------
    dict from name to reason, in the order of the channels

    Raises
    ------
    RecipeError : pyprep is not installed
    DataError : SSS is not possible with this MEG
    """
    found: dict[str, list[str]] = {}
    for method in methods:
        if method == "maxwell":
            reasons = _by_maxwell(raw, log, path, maxwell or MaxwellSection(), site or Companions())
        else:
            reasons = _by_prep(raw, method, seed, log)
        for name, reason in reasons.items():
            found.setdefault(name, []).append(reason)
    return {name: "; ".join(found[name]) for name in raw.ch_names if name in found}


def _by_prep(raw: Any, method: str, seed: int, log: Log) -> dict[str, str]:
    pyprep = require("pyprep", "preprocess.emeg.noisy")
    names = [
        name
        for name, kind in zip(raw.ch_names, raw.get_channel_types())
        if kind == "eeg" and name not in raw.info["bads"]
    ]
    if method == "ransac":
        place = dict(zip(raw.ch_names, np.isfinite(sensor_geometry(raw.info)[0]).all(axis=1)))
        lost = [name for name in names if not place[name]]
        if lost:
            log.warnings.append(
                f"RANSAC without {len(lost)} electrodes of unknown position: {', '.join(lost[:8])}"
            )
            names = [name for name in names if place[name]]
    if len(names) < _MIN_CHANNELS:
        log.warnings.append(
            f"no {method}: {len(names)} good electrodes"
            f"{' with positions' if method == 'ransac' else ''}, {_MIN_CHANNELS} are needed"
        )
        return {}
    eeg = raw.copy().pick(names, verbose="error")
    with warnings_into(log, method):
        prep = pyprep.NoisyChannels(eeg, do_detrend=True, random_state=seed, ransac=False)
        if method == "ransac":
            try:
                prep.find_bad_by_ransac(channel_wise=False)
            except (OSError, ValueError) as error:
                log.warnings.append(f"no ransac: {str(error).splitlines()[0]}")
                return {}
            reason = "not predicted by the other channels (RANSAC)"
            found = {str(name): reason for name in prep.bad_by_ransac}
        else:
            prep.find_bad_by_deviation()
            prep.find_bad_by_hfnoise()
            prep.find_bad_by_correlation()
            found = {}
            for key, text in _PREP.items():
                for name in getattr(prep, key):
                    found[str(name)] = f"{found[str(name)]}, {text}" if str(name) in found else text
            found = {name: f"{text} (PREP)" for name, text in found.items()}
    log.steps.append(f"{'RANSAC' if method == 'ransac' else 'PREP'}: {_told(found, len(names))}")
    return found


def _by_maxwell(
    raw: Any, log: Log, path: Path | None, section: MaxwellSection, site: Companions
) -> dict[str, str]:
    import mne

    if not {"mag", "grad"} & set(raw.get_channel_types()):
        log.warnings.append("no bad channels by SSS: no MEG channels")
        return {}
    if raw.n_times < _MAXWELL_S * raw.info["sfreq"]:
        log.warnings.append(f"no bad channels by SSS: less than {_MAXWELL_S:g} s")
        return {}
    meg = raw.copy().pick(["meg", "ref_meg"], exclude=(), verbose="error")
    frame = section.coord_frame if meg.info["dev_head_t"] is not None else "meg"
    origin: Any = "auto"
    if section.origin is not None and frame == section.coord_frame:
        origin = section.origin
    else:
        try:
            mne.bem.fit_sphere_to_headshape(meg.info, verbose="error")
            fits = frame == "head"
        except (RuntimeError, ValueError):
            fits = False
        if not fits:
            # The expansion needs a centre near that of the head, not its exact place.
            origin = _ORIGIN[frame]
            log.warnings.append(
                f"bad channels by SSS around {origin} m ({frame} frame): no digitised head"
            )
    with warnings_into(log, "bad channels by SSS"):
        try:
            noisy, flat = mne.preprocessing.find_bad_channels_maxwell(
                meg, origin=origin, coord_frame=frame, int_order=section.int_order,
                ext_order=section.ext_order, duration=_MAXWELL_S,
                calibration=None if site.calibration is None else str(site.calibration),
                cross_talk=None if site.cross_talk is None else str(site.cross_talk),
                ignore_ref=bool(meg.compensation_grade),
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise DataError(
                "bad channels cannot be found by SSS",
                file=path,
                expected="MEG with the geometry of its coils and a digitised head",
                found=str(error).strip().splitlines()[0],
                remedy='leave "maxwell" out of preprocess.emeg.noisy, or set maxwell.origin',
            ) from error
    found = dict.fromkeys(flat, "flat (SSS)")
    found |= dict.fromkeys(noisy, "not explained by sources in the head (SSS)")
    used = [name for name in ("calibration", "cross_talk") if getattr(site, name)]
    how = f", with {' and '.join(used).replace('_', '-')}" if used else ""
    log.steps.append(f"bad channels by SSS{how}: {_told(found, len(meg.ch_names))}")
    return found


def _told(found: dict[str, str], n_channels: int) -> str:
    names = f": {', '.join(found)}" if found else ""
    return f"{len(found)} of {n_channels} channels are bad{names}"
