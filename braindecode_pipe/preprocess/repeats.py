"""Cross-validation of single-trial betas over the repeats of a stimulus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Repeats:
    """Which trials can be predicted from other presentations of their stimulus.

    The prediction of a trial is the mean beta of its stimulus in the *other recordings*, or, where
    the stimulus is in one recording only, the mean over its other trials there.

    Attributes
    ----------
    rows : (n_predicted,) positions of the trials that have a prediction
    sums : sparse (n_stimuli, n_trials), adds up the trials of a stimulus
    left_out : sparse (n_predicted, n_trials), adds up what a prediction must not see
    stimulus : (n_predicted,) row of ``sums``
    count : (n_predicted,) trials that a prediction averages
    """

    rows: np.ndarray
    sums: Any
    left_out: Any
    stimulus: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, stimulus: np.ndarray, recording: np.ndarray) -> Repeats:
        """
        Parameters
        ----------
        stimulus : (n_trials,) ids, "" where there is none
        recording : (n_trials,) number of the recording
        """
        from scipy.sparse import csr_matrix

        shown = np.asarray(stimulus).astype(str)
        _, code = np.unique(shown, return_inverse=True)
        n, n_stimuli = len(code), int(code.max(initial=-1)) + 1
        known = shown != ""
        place = np.unique(np.stack([code, recording])[:, known], axis=1)
        n_recordings = np.bincount(place[0], minlength=n_stimuli)
        spread = n_recordings[code] > 1 if n else np.empty(0, bool)
        # What is left out with a trial: its recording, or itself.
        group = np.where(spread, recording, n + np.arange(n))
        _, member = np.unique(np.stack([code, group]), axis=1, return_inverse=True)
        member = member.reshape(-1)
        total = np.bincount(code[known], minlength=n_stimuli)
        together = np.bincount(member, minlength=n)
        count = np.where(known, total[code] - together[member], 0)
        rows = np.flatnonzero(count > 0)
        one = np.ones(int(known.sum()), np.float32)
        trial = np.flatnonzero(known)
        sums = csr_matrix((one, (code[known], trial)), shape=(n_stimuli, n))
        groups = csr_matrix((np.ones(n, np.float32), (member, np.arange(n))),
                            shape=(int(member.max(initial=-1)) + 1, n))  # fmt: skip
        return cls(rows, sums, groups[member[rows]], code[rows], count[rows])

    def predict(self, betas: np.ndarray) -> np.ndarray:
        """Predictions (n_predicted, n_sensors) from ``betas`` (n_trials, n_sensors)."""
        others = (self.sums @ betas)[self.stimulus] - self.left_out @ betas
        return others / self.count[:, None].astype(betas.dtype)

    def errors(self, target: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared error of predictions, and the squares that a score relates it to.

        ``R2 = 1 - error / total``: ``error`` sums ``(target - prediction)^2`` over the trials that
        have a prediction, ``total`` sums ``target^2``.

        Parameters
        ----------
        target : (n_trials, n_sensors), what is to be predicted
        betas : (n_trials, n_sensors), what the predictions average

        Returns
        -------
        error, total : (n_sensors,)
        """
        wanted = target[self.rows]
        missed = wanted - self.predict(betas)
        return (
            np.einsum("ev,ev->v", missed, missed, dtype=float),
            np.einsum("ev,ev->v", wanted, wanted, dtype=float),
        )
