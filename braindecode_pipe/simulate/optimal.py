"""The optimal decoder: how well the stimulus could be told if everything were known.

The noise is Gaussian with covariance ``C = S (x) T + diag(w^2) (x) I`` over (sensor, time): ongoing
activity with spatial covariance ``S`` and temporal covariance ``T``, and noise of the sensors.
Line, blinks, drifts and head motion have known directions and unknown sizes; they are projected
out. With the known response ``m_s`` of every candidate, maximum likelihood picks
``argmax_s <m_s, C^-1 x> - <m_s, C^-1 m_s> / 2``, which no decoder of single trials can beat when
all candidates are equally likely. Responses are linear in the latent code,
``m_s = sum_k z_sk r_k``, so all that is needed of a trial are the numbers ``u_k = <r_k, C^-1 x>``
and the Gram matrix ``G_kl = <r_k, C^-1 r_l>``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Whitener:
    """Square root of ``C^-1`` on (sensor, time): ``space.T @ x @ time * weight**0.5``.

    Attributes
    ----------
    space : (n_sensors, n_components)
    time : (n_times, n_courses)
    weight : (n_components, n_courses) inverse variance of the noise in this basis
    """

    space: np.ndarray
    time: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls,
        background: np.ndarray,
        white: np.ndarray,
        temporal: np.ndarray,
        null_times: np.ndarray,
        null_sensors: np.ndarray | None = None,
    ) -> Whitener:
        """Whitener of ``S = background background'``, ``w = white``, ``T = temporal``.

        Parameters
        ----------
        background : (n_sensors, rank)
        white : (n_sensors,) positive
        temporal : (n_times, n_times)
        null_times : (n_times, q) time courses to project out
        null_sensors : (n_sensors, p) topographies to project out; none by default
        """
        scaled = background / white[:, None]
        if null_sensors is None:
            basis, singular, _ = np.linalg.svd(scaled, full_matrices=True)
        else:
            outside = _complement(null_sensors / white[:, None])
            basis, singular, _ = np.linalg.svd(outside.T @ scaled, full_matrices=True)
            basis = outside @ basis
        spatial = np.zeros(basis.shape[1])
        spatial[: len(singular)] = singular**2
        kept = _complement(null_times)
        power, courses = np.linalg.eigh(kept.T @ temporal @ kept)
        return cls(
            space=basis / white[:, None],
            time=kept @ courses,
            weight=1 / (np.outer(spatial, np.maximum(power, 0.0)) + 1.0),
        )

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """``C^-1 x`` for ``x`` (..., n_sensors, n_times)."""
        return self.space @ (self.weight * (self.space.T @ x @ self.time)) @ self.time.T


def identify(u: np.ndarray, gram: np.ndarray, code: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Number of candidates that are likelier than the stimulus that was shown.

    Parameters
    ----------
    u : (n_trials, n_latents)
    gram : (n_latents, n_latents) or (n_trials, n_latents, n_latents)
    code : (n_candidates, n_latents)
    shown : (n_trials,) rows of ``code``

    Returns
    -------
    (n_trials, 2) int: strictly likelier candidates, and others that are equally likely
    """
    energy = np.einsum("sk,...kl,sl->...s", code, gram, code)
    likelihood = u @ code.T - energy / 2
    own = likelihood[np.arange(len(u)), shown][:, None]
    equal = (likelihood == own).sum(1) - 1
    return np.stack([(likelihood > own).sum(1), equal], axis=1)


def score(ranks: Iterable[np.ndarray], n_candidates: int) -> dict[str, Any]:
    """Share of trials identified, from the results of :func:`identify` of all people.

    Ties count ``1 / (number of tied)``. For fewer candidates the expectation over random subsets
    that hold the true one is taken: ``prod_i (N - 1 - r - i) / (N - 1 - i)`` with ``r`` likelier
    ones; ties are broken at random there.

    Returns
    -------
    dict : top1, n_candidates, n_trials, ci (Wilson, 95 %), chance, top1_by_n_candidates
    """
    better, equal = np.concatenate(list(ranks)).T
    n_trials = len(better)
    top1 = float(np.mean((better == 0) / (1 + equal)))
    by_n = {}
    for n in sorted({2, 10, 20, 30, 50, 100, n_candidates}):
        if n <= n_candidates:
            by_n[str(n)] = _top1_among(better, equal, n, n_candidates)
    low, high = _wilson(top1, n_trials)
    return {
        "top1": top1,
        "n_candidates": n_candidates,
        "n_trials": n_trials,
        "ci": [low, high],
        "chance": 1 / n_candidates,
        "top1_by_n_candidates": by_n,
    }


def _top1_among(better: np.ndarray, equal: np.ndarray, n: int, n_candidates: int) -> float:
    """Expected score among the true candidate and ``n - 1`` others drawn at random."""
    others = n_candidates - 1
    # Ties broken at random: average over the place of the true one among its equals.
    total = np.zeros(len(better))
    for place in range(int(equal.max(initial=0)) + 1):
        ahead = better + place
        i = np.arange(n - 1)
        left = np.maximum(others - ahead[:, None] - i, 0) / (others - i)
        total += np.where(place <= equal, left.prod(1), 0.0)
    return float(np.mean(total / (1 + equal)))


def _wilson(share: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # At 0 and 1 the bounds miss the share itself by rounding.
    return float(min(max(centre - half, 0.0), share)), float(max(min(centre + half, 1.0), share))


def _complement(vectors: np.ndarray) -> np.ndarray:
    """Orthonormal basis of what is orthogonal to the columns of ``vectors`` (n, p)."""
    left, singular, _ = np.linalg.svd(vectors, full_matrices=True)
    rank = int((singular > 1e-10 * singular.max(initial=0.0)).sum())
    return left[:, rank:]
