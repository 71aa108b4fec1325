"""Fields from far away taken out of MEG: CTF's gradient compensation, homogeneous field correction.

Both are matrices on the unit vectors of ``sensors``: MNE's own calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from braindecode_pipe.errors import DataError, RecipeError
from braindecode_pipe.preprocess.extras import warnings_into
from braindecode_pipe.preprocess.steps import Log


def apply_compensation(sensors: Any, grade: int, log: Log, path: Path | None = None) -> None:
    """Bring CTF channels to a grade of synthetic gradiometer, in place.

    ``y = x - C_grade x_ref`` (after undoing the grade that the recording has) with the weights
    ``C`` of the file. The reference channels have to be among ``sensors``; the matrix needs them
    as inputs, and they are dropped from its outputs.

    Parameters
    ----------
    sensors : Raw (n_channels, n_inputs) of unit vectors
    grade : int, 0 for none
    log : Log
    path : the recording, for messages

    Raises
    ------
    DataError : no CTF recording, or its reference channels are missing
    RecipeError : a grade for which the file has no weights
    """
    types = sensors.get_channel_types()
    if not sensors.info["comps"] or "ref_meg" not in types:
        raise DataError(
            "no gradient compensation",
            file=path,
            expected="a CTF recording with its weights and reference channels",
            found=f"{len(sensors.info['comps'])} sets of weights, "
            f"{types.count('ref_meg')} reference channels",
            remedy="leave preprocess.emeg.compensation out",
        )
    known = sorted({0, *(int(comp["kind"]) for comp in sensors.info["comps"])} & {0, 1, 2, 3})
    if grade not in known:
        raise RecipeError(
            "no weights for this grade of compensation",
            file=path,
            expected=" | ".join(map(str, known)),
            found=str(grade),
            remedy="correct preprocess.emeg.compensation",
        )
    before = int(sensors.compensation_grade or 0)
    kind_of = dict(zip(sensors.ch_names, types))
    if spoiled := [name for name in sensors.info["bads"] if kind_of[name] == "ref_meg"]:
        log.warnings.append(f"bad reference channels in the compensation: {', '.join(spoiled)}")
    sensors.apply_gradient_compensation(grade, verbose="error")
    references = [name for name, kind in zip(sensors.ch_names, types) if kind == "ref_meg"]
    with warnings_into(log, "compensation"):
        sensors.drop_channels(references)
    log.left_out |= dict.fromkeys(references, "reference of the compensation")
    log.steps.append(
        f"gradient compensation of grade {grade} (recorded with {before}) by "
        f"{len(references)} reference channels"
    )


def apply_hfc(sensors: Any, order: int, log: Log, path: Path | None = None) -> None:
    """Homogeneous field correction (Tierney et al. 2021, NeuroImage 244), in place.

    ``y = (1 - U U') x`` with ``U`` an orthonormal basis of the fields at the sensors whose sources
    are far away, spherical harmonics up to ``order``: 3 homogeneous fields, 5 gradients, 7 more.
    Bad channels neither take part nor change; the projections stay in the Info as active.

    Parameters
    ----------
    sensors : Raw (n_channels, n_inputs) of unit vectors
    order : 1, 2 or 3
    log : Log
    path : the recording, for messages

    Raises
    ------
    DataError : channels without coils, or too few of them
    """
    import mne

    types = sensors.get_channel_types()
    n_good = sum(
        kind in ("mag", "grad") and name not in sensors.info["bads"]
        for name, kind in zip(sensors.ch_names, types)
    )
    n_fields = order * (order + 2)
    if n_good <= 2 * n_fields:
        raise DataError(
            "too few MEG channels for the homogeneous field correction",
            file=path,
            expected=f"more than {2 * n_fields} good channels for order {order}",
            found=str(n_good),
            remedy="set a smaller preprocess.emeg.hfc_order, or 0",
        )
    try:
        projs = mne.preprocessing.compute_proj_hfc(sensors.info, order=order, verbose="error")
    except (RuntimeError, ValueError) as error:
        raise DataError(
            "no homogeneous field correction",
            file=path,
            expected="MEG channels with the geometry of their coils",
            found=str(error).strip().splitlines()[0],
            remedy="set preprocess.emeg.hfc_order = 0",
        ) from error
    sensors.add_proj(projs, verbose="error")
    with warnings_into(log, "homogeneous field correction"):
        sensors.apply_proj(verbose="error")
    log.steps.append(
        f"homogeneous field correction of order {order}: {n_fields} fields out of {n_good} channels"
    )
