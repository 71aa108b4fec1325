"""Training windows changed at random after they are read, the same way whenever they are read.

What happens to a row in an epoch hangs on the seed, the epoch and the row alone: each has a stream
of random numbers of its own (Philox, a generator that counts: Salmon et al. 2011). So a fit that
was stopped draws what it would have drawn, whatever thread reads ahead and however far.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from braindecode_pipe.recipe import AugmentSection


class Purpose(IntEnum):
    """What random numbers are for: switching one of them on does not change the others."""

    SHIFT, MIXUP, NOISE, DROPOUT = range(4)


class Draws:
    """Random numbers for some rows in one epoch.

    Parameters
    ----------
    seed, epoch : int
    rows : (n,) int, below 2^32
    """

    def __init__(self, seed: int, epoch: int, rows: Sequence[int] | np.ndarray) -> None:
        self.rows = np.asarray(rows, np.int64)
        self._seed, self._epoch = int(seed) % 2**64, int(epoch) % 2**32

    def stream(self, place: int, purpose: Purpose) -> np.random.Generator:
        """The stream of the row at a place."""
        row = int(self.rows[place])
        key = np.array([self._seed, self._epoch << 32 | row], np.uint64)
        counter = np.array([0, 0, 0, purpose], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def shifts(self, largest_s: float) -> np.ndarray:
        """Shifts in time ``(n,)`` [s], uniform within ``largest_s`` to both sides."""
        n = range(len(self.rows))
        return largest_s * np.array([self.stream(k, Purpose.SHIFT).uniform(-1, 1) for k in n])

    def pairs(self, mates: np.ndarray, a: float) -> tuple[np.ndarray, np.ndarray]:
        """Whom each row is mixed with, and its own share.

        Rows with equal ``mates`` are put in random order and paired with their neighbour; of an
        odd number one stays alone. The share is ``max(b, 1 - b)``, ``b ~ Beta(a, a)`` (Zhang et
        al. 2018, arXiv 1710.09412; at least one half as in Berthelot et al. 2019, arXiv
        1905.02249), so a mixture remains an example of its own stimulus.

        Returns
        -------
        partner : (n,) int, places; its own for who stays alone
        share : (n,), 1/2 to 1
        """
        streams = [self.stream(k, Purpose.MIXUP) for k in range(len(self.rows))]
        rank = np.array([stream.random() for stream in streams])
        share = np.array([stream.beta(a, a) for stream in streams])
        partner = np.arange(len(streams))
        for group in np.unique(mates):
            own = np.flatnonzero(mates == group)
            own = own[np.argsort(rank[own], kind="stable")]
            even = own[: len(own) // 2 * 2].reshape(-1, 2)
            partner[even] = even[:, ::-1]
        return partner, np.maximum(share, 1 - share)


def mix(x: np.ndarray, partner: np.ndarray, share: np.ndarray) -> None:
    """Mix windows ``(n, ...)`` float32 in pairs, in place: ``share x + (1 - share) x[partner]``."""
    for i, j in enumerate(partner.tolist()):
        if i < j:
            first, second = np.float32(share[i]), np.float32(share[j])
            kept = x[i].copy()
            x[i] = first * x[i] + (1 - first) * x[j]
            x[j] = second * x[j] + (1 - second) * kept


def spoil(x: np.ndarray, draws: Draws, augment: AugmentSection, present: np.ndarray) -> None:
    """Add noise to scaled windows and silence sensors, in place.

    Parameters
    ----------
    x : (n, n_sensors, n_times) float32, every sensor with s.d. 1 over the training windows
    draws : Draws, of these rows
    augment : AugmentSection
        ``noise`` is the s.d. of white noise; each sensor of each window is set to zero (its mean)
        with probability ``channel_dropout``.
    present : (n, n_sensors) bool
        Sensors that are there; the others stay zero.
    """
    n_sensors = x.shape[1]
    for k in range(len(x)):
        if augment.noise:
            noise = draws.stream(k, Purpose.NOISE).standard_normal(x.shape[1:], np.float32)
            noise *= np.float32(augment.noise)
            x[k] += noise
            x[k, ~present[k]] = 0
        if augment.channel_dropout:
            chance = draws.stream(k, Purpose.DROPOUT).random(n_sensors)
            x[k, chance < augment.channel_dropout] = 0
