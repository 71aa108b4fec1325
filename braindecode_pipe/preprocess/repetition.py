"""The repetition time of a series: stated in several places, which must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, UnitError

_RANGE_S = (0.1, 20.0)
_UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def header_time(image: Any) -> tuple[float, str]:
    """Time between volumes in a NIfTI header, and its unit in nibabel's words."""
    return float(image.header.get_zooms()[3]), str(image.header.get_xyzt_units()[1])


def repetition_time(
    header: tuple[float, str] | None, sidecar: dict[str, Any], given: float | None, path: Path
) -> float:
    """Repetition time [s] from the header and the sidecar, which must agree to 1 %.

    Parameters
    ----------
    header : (value, unit), or None; it counts when the unit is one of time
    sidecar : dict with ``RepetitionTime`` [s], perhaps
    given : float [s], of the recipe, for recordings that have neither
    path : Path, for the messages

    Raises
    ------
    UnitError : outside 0.1 to 20 s
    DataError : absent or 0 everywhere; contradictory
    """
    found: dict[str, float] = {}
    if header is not None and header[1] in _UNITS:
        found["header"] = header[0] * _UNITS[header[1]]
    value = sidecar.get("RepetitionTime")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found["sidecar"] = float(value)
    if given is not None:
        found["recipe"] = given
    found = {source: t_r for source, t_r in found.items() if np.isfinite(t_r) and t_r > 0}
    if not found:
        raise DataError(
            "no repetition time",
            file=path,
            expected="a time above 0 in the image's header or RepetitionTime in the JSON sidecar",
            found=f"sidecar: {value!r}"
            + ("" if header is None else f", header: {header[0]:g} {header[1]}"),
            remedy="set preprocess.bold.t_r [s]",
        )
    low, high = _RANGE_S
    for source, t_r in found.items():
        if not low <= t_r <= high:
            guess = " (fits after multiplication by 1e-3)" if low <= t_r / 1000 <= high else ""
            raise UnitError(
                f"the repetition time in the {source} cannot be in seconds",
                file=path,
                expected=f"{low:g} to {high:g} s",
                found=f"{t_r:g}{guess}",
                remedy="correct it there",
            )
    t_r = found.get("sidecar", next(iter(found.values())))
    if any(abs(other - t_r) > 0.01 * t_r for other in found.values()):
        raise DataError(
            "repetition times disagree",
            file=path,
            expected="the same time everywhere, to 1 %",
            found=", ".join(f"{source} {value:g} s" for source, value in found.items()),
            remedy="correct the sidecar, or the header",
        )
    return t_r
