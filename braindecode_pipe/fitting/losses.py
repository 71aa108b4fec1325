"""Losses between estimates and target embeddings.

Functions first; :class:`Objective` adds what is learned (the temperature) and what changes during
a fit. Every contrastive loss knows which rows of a batch show the same stimulus: such a pair is
never a negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from braindecode_pipe.errors import ModelError
from braindecode_pipe.recipe import Loss


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
    return estimates.flatten(1) @ _unit(candidates).T


def cosine_scores(estimates: Tensor, candidates: Tensor) -> Tensor:
    """Cosines ``(n, m)`` over features (and time); whatever has length 0 scores 0."""
    return _unit(estimates) @ _unit(candidates).T


def _unit(values: Tensor) -> Tensor:
    values = values.flatten(1)
    length = values.norm(dim=1, keepdim=True)
    return values / torch.where(length > 0, length, torch.ones_like(length))


def copies_of(stimuli: Tensor | None, n: int, m: int, device: torch.device) -> Tensor:
    """(n, m) bool: where candidate ``j`` shows the stimulus of row ``i`` and is not its own."""
    if stimuli is None:
        return torch.zeros(n, m, dtype=torch.bool, device=device)
    copies = stimuli[:n, None] == stimuli[None, :m]
    index = torch.arange(min(n, m), device=copies.device)
    copies[index, index] = False
    return copies


def _rows(scores: Tensor, copies: Tensor) -> Tensor:
    """Mean cross-entropy of the rows with the diagonal as truth, copies left out."""
    truth = torch.arange(len(scores), device=scores.device)
    return functional.cross_entropy(scores.masked_fill(copies, -math.inf), truth)


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
    return _contrastive(clip_scores(estimates, candidates), stimuli, symmetric)


def symmetric_clip_loss(
    estimates: Tensor, candidates: Tensor, stimuli: Tensor | None, logit_scale: Tensor | float
) -> Tensor:
    """CLIP's loss (Radford et al. 2021, arXiv 2103.00020, figure 3): mean over rows and columns.

    Scores are ``logit_scale * cos(Z_i, Y_j)``. Parameters as in :func:`clip_loss`.
    """
    return _contrastive(logit_scale * cosine_scores(estimates, candidates), stimuli, True)


def _contrastive(scores: Tensor, stimuli: Tensor | None, symmetric: bool) -> Tensor:
    n = len(scores)
    copies = copies_of(stimuli, n, scores.shape[1], scores.device)
    loss = _rows(scores, copies)
    if symmetric:
        loss = (loss + _rows(scores[:, :n].T, copies[:, :n].T)) / 2
    return loss


def siglip_loss(
    estimates: Tensor,
    candidates: Tensor,
    stimuli: Tensor | None,
    logit_scale: Tensor | float,
    bias: Tensor | float,
) -> Tensor:
    """Sigmoid loss (Zhai et al. 2023, arXiv 2303.15343, algorithm 1).

    ``L = -1/n sum_ij log sigmoid( z_ij (logit_scale cos_ij + bias) )`` with ``z_ij`` 1 where row
    and candidate show the same stimulus, -1 elsewhere: all copies are positives.
    """
    logits = logit_scale * cosine_scores(estimates, candidates) + bias
    n, m = logits.shape
    same = copies_of(stimuli, n, m, logits.device)
    index = torch.arange(n, device=logits.device)
    same[index, index] = True
    sign = torch.where(same, 1.0, -1.0).to(logits.dtype)
    return -functional.logsigmoid(sign * logits).sum() / n


def mse_loss(estimates: Tensor, candidates: Tensor, stimuli: Tensor | None = None) -> Tensor:
    """Mean squared error over everything; ``stimuli`` is taken so that losses look alike.

    Candidates beyond the number of estimates are not looked at.
    """
    return functional.mse_loss(estimates, candidates[: len(estimates)])


def cosine_loss(estimates: Tensor, candidates: Tensor) -> Tensor:
    """``1 - mean_i cos(Z_i, Y_i)`` over features (and time)."""
    candidates = candidates[: len(estimates)]
    return 1 - (_unit(estimates) * _unit(candidates)).sum(1).mean()


def soft_clip_loss(estimates: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """SoftCLIP (Scotti et al. 2023, arXiv 2305.18274, eq. 2), mean over rows and columns.

    The truth of row ``i`` is ``softmax_j( cos(Y_i, Y_j) / temperature )``, so copies of a stimulus
    share it. Candidates beyond the number of estimates are not looked at.
    """
    candidates = candidates[: len(estimates)]
    truth = (cosine_scores(candidates, candidates) / temperature).softmax(1)
    scores = cosine_scores(estimates, candidates) / temperature
    rows = -(scores.log_softmax(1) * truth).sum(1).mean()
    columns = -(scores.T.log_softmax(1) * truth).sum(1).mean()
    return (rows + columns) / 2


def mixco_loss(
    estimates: Tensor,
    candidates: Tensor,
    partner: Tensor,
    share: Tensor,
    stimuli: Tensor | None,
    temperature: float,
) -> Tensor:
    """BiMixCo (Scotti et al. 2023, arXiv 2305.18274, eq. 1), mean over rows and columns.

    Row ``i`` is the estimate from ``share_i x_i + (1 - share_i) x_partner(i)``; its truth is
    ``share_i`` on candidate ``i`` and the rest on ``partner(i)``. Candidates that show the
    stimulus of either are left out.

    Parameters
    ----------
    estimates, candidates : (n, n_features)
    partner : (n,) int64, a permutation
    share : (n,) in [0, 1]
    stimuli : (n,) int64, optional
    temperature : float
    """
    n = len(estimates)
    scores = cosine_scores(estimates, candidates[:n]) / temperature
    index = torch.arange(n, device=scores.device)
    truth = torch.zeros_like(scores)
    truth[index, index] = share.to(scores.dtype)
    truth[index, partner] += 1 - share.to(scores.dtype)
    copies = copies_of(stimuli, n, n, scores.device)
    left_out = (copies | copies[partner]) & (truth == 0)
    left_out[index, index] = False
    scores_rows = scores.masked_fill(left_out, -math.inf).log_softmax(1)
    scores_columns = scores.T.masked_fill(left_out.T, -math.inf).log_softmax(1)
    # 0 * -inf is NaN: what carries no truth is not summed.
    rows = -torch.where(truth > 0, scores_rows * truth, 0.0).sum(1).mean()
    turned = -torch.where(truth.T > 0, scores_columns * truth.T, 0.0).sum(1).mean()
    return (rows + turned) / 2


class Objective(nn.Module):
    """A loss with what it learns and what changes during a fit.

    Parameters
    ----------
    kind : {"clip", "clip-symmetric", "siglip", "mse", "cosine", "mse-cosine", "clip+mse",
            "mixco+softclip"}
        ``clip``: :func:`clip_loss`, one direction, no temperature (Defossez et al. 2023).
        ``clip-symmetric``: :func:`symmetric_clip_loss`. ``siglip``: :func:`siglip_loss`.
        ``mse-cosine``: ``mse - 0.1 mean_i cos(Z_i, Y_i)``, as responses of voxels are fitted in
        Brain-IT (arXiv 2510.25976).
        ``clip+mse``: ``weight * clip-symmetric + (1 - weight) * mse``, each on its own head where
        the estimates have two (Benchetrit et al. 2024, section 2.2). ``mixco+softclip``: BiMixCo
        for the first third of a fit, then SoftCLIP, whose temperature goes from 0.004 to 0.0075
        along a cosine (Scotti et al. 2024, arXiv 2403.11207, section 2.3).
    logit_scale : float, optional
        Start of the temperature's inverse; default 1/0.07, for siglip 10.
    learn_scale : bool
        Whether it is learned, as its logarithm, at most 100.
    weight : float in [0, 1]
        Of the contrastive part of ``clip+mse``.
    """

    COSINE = 0.1
    MIX_UNTIL = 1 / 3
    SOFT = (0.004, 0.0075)
    MIX_TEMPERATURE = 0.006

    def __init__(
        self,
        kind: Loss = "clip",
        *,
        logit_scale: float | None = None,
        learn_scale: bool = True,
        weight: float = 0.75,
    ) -> None:
        super().__init__()
        if kind not in get_args(Loss):
            raise ModelError("unknown loss", expected=" | ".join(get_args(Loss)), found=repr(kind))
        if not 0 <= weight <= 1:
            raise ModelError("the weight of a loss", expected="0 to 1", found=str(weight))
        self.kind, self.weight = kind, weight
        scaled = kind in ("clip-symmetric", "siglip", "clip+mse")
        start = logit_scale if logit_scale is not None else (10.0 if kind == "siglip" else 1 / 0.07)
        self.log_scale = (
            nn.Parameter(torch.tensor(math.log(start)), requires_grad=learn_scale)
            if scaled
            else None
        )
        self.bias = nn.Parameter(torch.tensor(-10.0)) if kind == "siglip" else None

    @property
    def logit_scale(self) -> Tensor:
        """What multiplies the cosines; at most 100, as in CLIP."""
        return self.log_scale.clamp(max=math.log(100.0)).exp()

    def mixes(self, progress: float) -> bool:
        """Whether the inputs of a batch have to be mixed at this point of the fit."""
        return self.kind == "mixco+softclip" and progress < self.MIX_UNTIL

    def forward(
        self,
        estimates: Tensor,
        candidates: Tensor,
        stimuli: Tensor | None = None,
        *,
        progress: float = 1.0,
        mix: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        estimates : (n, n_features[, n_times]), or (n, 2, n_features) of two heads for clip+mse
        candidates : (m, n_features[, n_times]), ``m >= n``; the first ``n`` are the targets
        stimuli : (m,) int64, optional
        progress : share of the fit that is done, 0 to 1
        mix : (partner, share) of :func:`mixco_loss` where the inputs were mixed
        """
        if self.kind == "clip":
            return clip_loss(estimates, candidates, stimuli)
        if self.kind == "clip-symmetric":
            return symmetric_clip_loss(estimates, candidates, stimuli, self.logit_scale)
        if self.kind == "siglip":
            return siglip_loss(estimates, candidates, stimuli, self.logit_scale, self.bias)
        if self.kind == "mse":
            return mse_loss(estimates, candidates)
        if self.kind == "cosine":
            return cosine_loss(estimates, candidates)
        if self.kind == "mse-cosine":
            cosine = 1 - cosine_loss(estimates, candidates)
            return mse_loss(estimates, candidates) - self.COSINE * cosine
        if self.kind == "clip+mse":
            first, second = self._heads(estimates, candidates)
            contrast = symmetric_clip_loss(first, candidates, stimuli, self.logit_scale)
            return self.weight * contrast + (1 - self.weight) * mse_loss(second, candidates)
        if mix is not None:
            return mixco_loss(estimates, candidates, *mix, stimuli, self.MIX_TEMPERATURE)
        low, high = self.SOFT
        done = min(max((progress - self.MIX_UNTIL) / (1 - self.MIX_UNTIL), 0.0), 1.0)
        temperature = high - (high - low) * (1 + math.cos(math.pi * done)) / 2
        return soft_clip_loss(estimates, candidates, temperature)

    @staticmethod
    def _heads(estimates: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        two = estimates.ndim == candidates.ndim + 1 and estimates.shape[1] == 2
        return (estimates[:, 0], estimates[:, 1]) if two else (estimates, estimates)
