"""Losses between estimates and target embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clip_scores(estimates: Tensor, candidates: Tensor) -> Tensor:
    """Scores ``S_ij = <Z_i, Y_j> / |Y_j|`` over features (and time, if there).

    Only candidates are normalised (arXiv 2208.12266, section 2.2), so the length of an estimate
    is its confidence. A candidate of length 0 scores 0.

    Parameters
    ----------
    estimates : (n, n_features[, n_times])
    candidates : (m, n_features[, n_times])

    Returns
    -------
    (n, m)
    """
    z, y = estimates.flatten(1), candidates.flatten(1)
    length = y.norm(dim=1, keepdim=True)
    return z @ (y / torch.where(length > 0, length, torch.ones_like(length))).T


def clip_loss(
    estimates: Tensor,
    candidates: Tensor,
    stimuli: Tensor | None = None,
    symmetric: bool = False,
) -> Tensor:
    """Contrastive loss: cross-entropy of the rows of ``S`` with the diagonal as truth.

    ``L = -1/n sum_i log( exp S_ii / sum_j exp S_ij )`` (arXiv 2208.12266, eq. 1). The sum over
    ``j`` leaves out ``j != i`` that hold the same stimulus as ``i``: they are no negatives.

    Parameters
    ----------
    estimates : (n, n_features[, n_times])
    candidates : (m, n_features[, n_times]), ``m >= n``
        The first ``n`` belong to the estimates, the others are further negatives.
    stimuli : (m,) int64, optional
        Stimulus of each candidate; default: all differ.
    symmetric : bool
        Mean with the loss over columns (of the first ``n`` candidates).
    """
    scores = clip_scores(estimates, candidates)
    n = len(scores)
    if stimuli is not None:
        copies = stimuli[:n, None] == stimuli[None, :]
        copies[torch.arange(n), torch.arange(n)] = False
        scores = scores.masked_fill(copies, -math.inf)
    truth = torch.arange(n, device=scores.device)
    loss = torch.nn.functional.cross_entropy(scores, truth)
    if symmetric:
        loss = (loss + torch.nn.functional.cross_entropy(scores[:, :n].T, truth)) / 2
    return loss


def mse_loss(estimates: Tensor, candidates: Tensor, stimuli: Tensor | None = None) -> Tensor:
    """Mean squared error over everything; ``stimuli`` is taken so that losses look alike."""
    return torch.nn.functional.mse_loss(estimates, candidates)


LOSSES = {"clip": clip_loss, "mse": mse_loss}
