"""What is projected out of every time series: constant, trend, drift and confounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.errors import DataError, LeakageError

# A column whose part orthogonal to those before it is shorter than this share is no new one.
_RANK_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Projection:
    """A regression that is fitted on some volumes and subtracted from all.

        y = x - T Q' x_F

    with ``Q`` (n_fitted, rank) an orthonormal basis of the regressors on the fitted volumes ``F``
    and ``T`` (n_times, rank) the same columns on all volumes, so that ``T`` equals ``Q`` on ``F``.
    On ``F`` this is ``nilearn.signal.clean`` (Friston et al. 1994): removing the confounds after
    the trend was removed from both equals removing them together.

    Attributes
    ----------
    basis : (n_fitted, rank) float64
    columns : (n_times, rank) float64
    fitted : (n_times,) bool
    """

    basis: np.ndarray
    columns: np.ndarray
    fitted: np.ndarray

    @classmethod
    def of(cls, regressors: np.ndarray, fitted: np.ndarray) -> Projection:
        """QR with pivoting of the regressors (n_times, n_regressors) on the volumes ``fitted``.

        Invariant to the scale of each regressor; one that depends on others adds nothing.
        """
        from scipy.linalg import qr, solve_triangular

        length = np.linalg.norm(regressors[fitted], axis=0)
        scaled = regressors[:, length > 0] / length[length > 0]
        basis, triangle, order = qr(scaled[fitted], mode="economic", pivoting=True)
        size = np.abs(np.diag(triangle))
        rank = int((size > _RANK_TOLERANCE * size.max(initial=0.0)).sum())
        columns = solve_triangular(
            triangle[:rank, :rank], scaled[:, order[:rank]].T, trans="T"
        ).T  # fmt: skip
        columns[fitted] = basis[:, :rank]
        return cls(basis[:, :rank], columns, fitted)

    @property
    def rank(self) -> int:
        """Number of dimensions that are removed."""
        return self.basis.shape[1]

    def remove(self, values: np.ndarray) -> None:
        """Subtract the regression from values (n_times, n_sensors), in place."""
        basis = np.ascontiguousarray(self.basis.T, values.dtype)
        columns = np.ascontiguousarray(self.columns, values.dtype)
        values -= columns @ (basis @ (values if self.fitted.all() else values[self.fitted]))


def trend(n_times: int) -> np.ndarray:
    """(n_times, 1), linear in time from -1 to 1."""
    return np.linspace(-1.0, 1.0, n_times)[:, None]


def drift(high_pass: float, n_times: int, t_r: float) -> np.ndarray:
    """Cosine drift terms below ``high_pass`` [Hz], (n_times, n_terms), without the constant.

    Regressed out together with the confounds: ``clean(filter="cosine")`` leaves its drift terms
    out as soon as one confound resembles one of them, as head motion often does.
    """
    from nilearn.glm.first_level.design_matrix import create_cosine_drift

    return create_cosine_drift(high_pass, np.arange(n_times) * t_r)[:, :-1]


def fitted_volumes(
    time_good: np.ndarray,
    first_time: float,
    t_r: float,
    fit_extents: tuple[tuple[float, float], ...] | None,
) -> np.ndarray:
    """(n_times,) bool: volumes that regressions and scalers may be fitted on.

    Those that are good and, where the split divides the recording, whose whole repetition time
    lies in what may be seen.
    """
    if fit_extents is None:
        return time_good.copy()
    start = first_time + t_r * np.arange(len(time_good))
    # Onsets and repetition times are decimal numbers: a rounding error decides nothing.
    slack = 1e-6 * t_r
    seen = np.zeros(len(time_good), bool)
    for low, high in fit_extents:
        seen |= (start >= low - slack) & (start + t_r <= high + slack)
    return time_good & seen


def refuse_few(fitted: np.ndarray, rank: int, divided: bool, file: object) -> None:
    """Raise when the volumes to be fitted on do not outnumber what is to be fitted.

    Raises
    ------
    LeakageError : because of the split
    DataError : because of scrubbing, or of a short recording
    """
    n_fitted = int(fitted.sum())
    if n_fitted > rank + 1:
        return
    if divided:
        raise LeakageError(
            "too little of a divided recording is left to clean it with",
            file=str(file),
            expected=f"more than {rank + 1} volumes that no fold tests on",
            found=f"{n_fitted}",
            remedy="split by run, session or subject, give [train.windows] delay as a number, or "
            "leave out confounds and filters",
        )
    raise DataError(
        "too few volumes to regress the confounds out",
        file=str(file),
        expected=f"more than {rank + 1} good volumes for {rank} regressors",
        found=f"{n_fitted}",
        remedy="scrub less, or leave out confounds",
    )
