"""Recordings that betas are learned from, block by block: candidates scored by repeats.

Used by ``glmsingle``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from braindecode_pipe.preprocess import fracridge
from braindecode_pipe.preprocess.hrf import Kernel
from braindecode_pipe.preprocess.repeats import Repeats
from braindecode_pipe.preprocess.scratch import BLOCK_BYTES, Scratch, slices
from braindecode_pipe.preprocess.trials import (
    TOLERANCE,
    Trials,
    decomposed,
    orthonormal,
    refuse_too_many,
    residual,
)


@dataclass(frozen=True)
class Run:
    """One recording.

    Attributes
    ----------
    series : Scratch (n_times, n_sensors)
    trials : Trials
    means : (n_sensors,) over the volumes that fits may see
    gain : (n_sensors,), of the unit of the betas: 100 / means for percent
    """

    series: Scratch
    trials: Trials
    means: np.ndarray
    gain: np.ndarray

    def read(
        self, columns: slice, here: np.ndarray, kept: np.ndarray, dtype: type = np.float32
    ) -> np.ndarray:
        """Sensors ``here`` of a block on the volumes ``kept``, centred, in the unit of the betas.

        (n_kept, n_here)
        """
        values = self.series.read(columns=columns)[np.ix_(kept, here)]
        return ((values - self.means[columns][here]) * self.gain[columns][here]).astype(dtype)


@dataclass(frozen=True)
class Design:
    """Trials of one recording with one response shape, off the nuisance terms; float32.

    Attributes
    ----------
    u, s, vt : (n_times, rank), (rank,), (rank, n_trials), the singular value decomposition
    components : (n_times, n) noise components that may join the nuisance terms, orthonormal and
        off the nuisance terms, so that the first ones span the first ones
    inverses : n times (k, k), ``(I - A_k' A_k)^-1`` of ``A = U' P``, see :meth:`nested`
    """

    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray
    components: np.ndarray
    inverses: tuple[np.ndarray, ...]

    def betas(self, rotated: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
        """(n_trials, n_sensors) from ``rotated = u' y``; ridge with ``alpha`` (n_sensors,)."""
        if alpha is None:
            return self.vt.T @ (rotated / self.s[:, None])
        return self.vt.T @ fracridge.shrunk(rotated, self.s, alpha)

    def nested(self, y: np.ndarray) -> Iterator[np.ndarray]:
        """Betas with 0, 1, ... components among the nuisance terms.

        With ``A = U' P`` and ``d = (I - A' A)^-1 (P' y - A' U' y)``, the coefficients of the
        components ``P`` in the joint regression, the betas are ``V S^-1 (U' y - A d)``.
        """
        rotated, along = self.u.T @ y, self.components.T @ y
        overlap = self.u.T @ self.components
        yield self.betas(rotated)
        for n, inverse in enumerate(self.inverses, 1):
            a = overlap[:, :n]
            yield self.betas(rotated - a @ (inverse @ (along[:n] - a.T @ rotated)))


class Problem:
    """The recordings that ``fit`` learns from, read block by block."""

    def __init__(
        self,
        runs: Sequence[Run],
        good: np.ndarray,
        kernels: Sequence[Sequence[Kernel]],
    ) -> None:
        self.runs, self.good, self.kernels = runs, good, kernels
        self.kept = [np.flatnonzero(run.trials.fit_times) for run in runs]
        self.rows = [
            run.trials.fit_rows & determined(run.trials, run.trials.fit_times, shapes[0])
            for run, shapes in zip(runs, kernels)
        ]
        self.free = []
        for run, kept, rows in zip(runs, self.kept, self.rows):
            rank = orthonormal(run.trials.nuisance[kept]).shape[1]
            refuse_too_many(len(run.trials), int(run.trials.time_good.sum()) - rank)
            self.free.append(len(kept) - rank - int((~rows).sum()) - int(rows.sum()))

    def repeats(self) -> Repeats:
        """Repeats among the trials that are learned from."""
        stimulus = [run.trials.stimulus[rows] for run, rows in zip(self.runs, self.rows)]
        number = np.repeat(np.arange(len(self.runs)), [len(part) for part in stimulus])
        return Repeats.of(np.concatenate(stimulus), number)

    def most_components(self, pool: np.ndarray) -> int:
        """As many as leave volumes to spare in every recording."""
        return max(0, min(int(pool.sum()) - 1, min(self.free) // 2))

    def predictability(self, index: np.ndarray, repeats: Repeats) -> np.ndarray:
        """Cross-validated R2 (n_sensors,) of betas, about zero: the common response counts."""
        score = np.full(len(self.good), np.nan)
        for sensors, designs, y in self.groups(index, None):
            betas = _stacked(d.betas(d.u.T @ part) for d, part in zip(designs, y))
            error, total = repeats.errors(betas, betas)
            score[sensors] = 1 - error / np.where(total > 0, total, np.nan)
        return score

    def component_scores(
        self, index: np.ndarray, repeats: Repeats, components: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Cross-validated R2 (n + 1, n_sensors) with 0 to n noise components.

        The target are the betas without components; what predicts them has components.
        """
        n = min(part.shape[1] for part in components)
        scores = np.full((n + 1, len(self.good)), np.nan)
        for sensors, designs, y in self.groups(index, [part[:, :n] for part in components]):
            target = None
            for number, parts in enumerate(
                zip(*(design.nested(part) for design, part in zip(designs, y)), strict=False)
            ):
                betas = _stacked(parts)
                betas -= betas.mean(axis=0)
                target = betas if target is None else target
                error, total = repeats.errors(target, betas)
                scores[number, sensors] = 1 - error / np.where(total > 0, total, np.nan)
        return scores

    def ridge(
        self,
        index: np.ndarray,
        repeats: Repeats,
        components: Sequence[np.ndarray],
        fractions: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Fraction, penalty, scale, offset and cross-validated R2 of every sensor."""
        found = np.zeros((5, len(self.good)))
        found[[0, 2]] = 1
        found[4] = np.nan
        for sensors, designs, y in self.groups(index, components, absorbed=True):
            rotated = [design.u.T @ part for design, part in zip(designs, y)]
            whole = _stacked(d.betas(z) for d, z in zip(designs, rotated))
            grid = fracridge.penalties(np.concatenate([design.s for design in designs]))
            lengths = sum(fracridge.squared_lengths(z, d.s, grid) for d, z in zip(designs, rotated))
            alphas = fracridge.alphas_of(lengths, grid, fractions).astype(np.float32)
            best = np.full(len(sensors), np.inf)
            target, kept = whole - whole.mean(axis=0), whole.copy()
            for fraction, alpha in zip(fractions, alphas):
                betas = _stacked(d.betas(z, alpha) for d, z in zip(designs, rotated))
                error, total = repeats.errors(target, betas - betas.mean(axis=0))
                better = error < best
                best[better] = error[better]
                kept[:, better] = betas[:, better]
                found[0, sensors[better]], found[1, sensors[better]] = fraction, alpha[better]
            found[4, sensors] = 1 - best / np.where(total > 0, total, np.nan)
            found[2, sensors], found[3, sensors] = _rescaled(kept, whole)
        return tuple(found)

    def groups(
        self,
        index: np.ndarray,
        components: Sequence[np.ndarray] | None,
        absorbed: bool = False,
    ) -> Iterator[tuple[np.ndarray, list[Design], list[np.ndarray]]]:
        """Sensors that share a response shape, block by block.

        Yields
        ------
        sensors (n,); the design of every recording, components ``absorbed`` in its nuisance terms
        or beside it; the centred series (n_times, n) of every recording, on the fit's volumes
        """
        n_rows = sum(len(kept) + 6 * int(rows.sum()) for kept, rows in zip(self.kept, self.rows))
        made: dict[int, list[Design]] = {}
        for columns in slices(len(self.good), block_length(n_rows + 200)):
            here = np.flatnonzero(self.good[columns])
            if not len(here):
                continue
            blocks = [run.read(columns, here, kept) for run, kept in zip(self.runs, self.kept)]
            shapes = index[columns][here]
            for shape in np.unique(shapes):
                if shape not in made:
                    made[shape] = [
                        self._design(number, shape, components, absorbed)
                        for number in range(len(self.runs))
                    ]
                chosen = shapes == shape
                yield (columns.start + here[chosen], made[shape],
                       [np.ascontiguousarray(block[:, chosen]) for block in blocks])  # fmt: skip

    def _design(
        self, number: int, shape: int, components: Sequence[np.ndarray] | None, absorbed: bool
    ) -> Design:
        trials, kept = self.runs[number].trials, self.kept[number]
        nuisance = trials.nuisance[kept]
        beside = None if components is None else components[number][kept]
        if absorbed and beside is not None:
            nuisance, beside = np.hstack([nuisance, beside]), None
        return design_of(trials, self.kernels[number][shape], kept, self.rows[number], nuisance,
                       beside)  # fmt: skip


def design_of(
    trials: Trials,
    kernel: Kernel,
    kept: np.ndarray,
    rows: np.ndarray,
    nuisance: np.ndarray,
    components: np.ndarray | None = None,
) -> Design:
    """Design of the trials ``rows`` on the volumes ``kept``; the others are nuisance terms."""
    design = trials.regressors(kernel)
    size = float(np.linalg.norm(design, axis=0).max())
    design = design[kept]
    q = orthonormal(nuisance)
    if not rows.all():
        others = decomposed(residual(design[:, ~rows], q), size)[0]
        q = np.hstack([q, others])
    u, s, vt = decomposed(residual(design[:, rows], q), size)
    beside, inverses = np.empty((len(kept), 0)), []
    if components is not None:
        # Not pivoted: the first n columns must span the first n components.
        beside = np.linalg.qr(residual(components, q))[0]
        left = np.eye(beside.shape[1]) - (beside.T @ u) @ (u.T @ beside)
        for n in range(1, beside.shape[1] + 1):
            inverse = np.linalg.pinv(left[:n, :n], rcond=TOLERANCE, hermitian=True)
            inverses.append(inverse.astype(np.float32))
    return Design(*(part.astype(np.float32) for part in (u, s, vt, beside)), tuple(inverses))


def determined(trials: Trials, times: np.ndarray, kernel: Kernel) -> np.ndarray:
    """(n_events,) bool: the volumes ``times`` cover the response and tell it from the others."""
    design = trials.regressors(kernel)
    size = float(np.linalg.norm(design, axis=0).max())
    q = orthonormal(trials.nuisance[times])
    _, _, vt = decomposed(residual(design[times], q), size)
    alone = np.abs((vt**2).sum(axis=0) - 1) < TOLERANCE
    return alone & trials.covered(times)


def _rescaled(shrunk: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset (n_sensors,) that fit ``shrunk`` to ``whole``; 1 and 0 if it would flip."""
    mean, target = shrunk.mean(axis=0, dtype=float), whole.mean(axis=0, dtype=float)
    centred = shrunk - mean  # double precision
    power = (centred**2).sum(axis=0)
    scale = (centred * (whole - target)).sum(axis=0) / np.where(power > 0, power, 1)
    scale = np.where(power > 0, scale, 1.0)
    offset = target - scale * mean
    return np.where(scale < 0, 1.0, scale), np.where(scale < 0, 0.0, offset)


def _stacked(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts))


def block_length(n_rows: int) -> int:
    """Sensors of a block that needs ``n_rows`` float32 numbers for each."""
    return max(1, 4 * BLOCK_BYTES // (4 * n_rows))
