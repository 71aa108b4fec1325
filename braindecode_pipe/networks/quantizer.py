"""Vectors to codes: residual vector quantisation with codebooks that are moving averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, distributed, nn

from braindecode_pipe.errors import ModelError

# Vectors whose distances to a codebook are held at a time.
_BLOCK = 1 << 15
_START_VECTORS = 4096


@dataclass(frozen=True)
class Quantized:
    """Vectors that went through a quantiser.

    Attributes
    ----------
    vectors : (..., dim), sums of codes; in training, gradients flow to the input
    codes : (..., n_levels) int64
    commitment : (...,) mean over levels and ``dim`` of the squared difference of what a level was
        given and its code, times 0.25; gradients flow to the input
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor


@dataclass(frozen=True)
class Usage:
    """How evenly codes are in use.

    Attributes
    ----------
    perplexity : (n_levels,) float64, ``exp(H)`` of the distribution over codes: 1 where one code
        does it all, the size of the codebook where all are equally frequent; NaN without codes
    used : (n_levels,) float64, share of the codebook that occurs at all
    """

    perplexity: Tensor
    used: Tensor


def usage(codes: Tensor, codebook_size: int) -> Usage:
    """Perplexity and share of codes in use, level by level.

    ``exp(-sum_k p_k log p_k)`` with ``p_k`` the share of code ``k``; ``0 log 0 = 0``.

    Parameters
    ----------
    codes : (..., n_levels) int
    codebook_size : int
    """
    levels = codes.reshape(-1, codes.shape[-1]).long()
    counts = torch.stack([torch.bincount(c, minlength=codebook_size) for c in levels.unbind(-1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    entropy = torch.special.entr(shares).sum(1)
    return Usage(entropy.exp(), (counts > 0).double().mean(1))


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index ``(n,)`` of the code next to each of ``vectors (n, dim)``; of equals the first.

    ``argmin |x - e|^2 = argmax x . e - |e|^2 / 2``, in blocks, so that the memory does not grow
    with ``n * codebook_size``. Both are taken about the mean of the codes: early in training all
    lie close together, and the products would lose their differences.
    """
    centre = codebook.mean(0)
    codebook = codebook - centre
    offset = codebook.square().sum(1) / -2
    found = [
        torch.addmm(offset, part - centre, codebook.T).argmax(1) for part in vectors.split(_BLOCK)
    ]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=vectors.device)


def rotated(x: Tensor, target: Tensor) -> Tensor:
    """``target``, with the gradient of ``x`` turned and stretched onto it.

    The value is ``target``. With ``R`` the rotation in the plane of both that takes ``x/|x|`` to
    ``q/|q|``, the Jacobian for ``x`` is ``|q|/|x| R``; ``R v = v - 2 (r.v) r + 2 (x.v) q`` for unit
    ``x``, ``q`` and ``r = (x + q)/|x + q|`` (the rotation trick, Fifty et al. 2025, arXiv
    2410.06424, section 4.2). Where ``x`` or ``q`` has no direction, or both point in opposite
    ones, the gradient passes as it is.

    Parameters
    ----------
    x, target : (..., dim); ``target`` gets no gradient
    """
    with torch.no_grad():
        length, wanted = x.norm(dim=-1, keepdim=True), target.norm(dim=-1, keepdim=True)
        tiny = torch.finfo(x.dtype).tiny
        a, b = x / length.clamp_min(tiny), target / wanted.clamp_min(tiny)
        half = a + b
        size = half.norm(dim=-1, keepdim=True)
        # Below this the bisector is rounding noise of two unit vectors.
        sound = (length > 0) & (wanted > 0) & (size > 8 * torch.finfo(x.dtype).eps)
        r = half / torch.where(sound, size, torch.ones_like(size))
        stretch = wanted / torch.where(sound, length, torch.ones_like(length))
    turned = x - 2 * (r * x).sum(-1, keepdim=True) * r + 2 * (a * x).sum(-1, keepdim=True) * b
    moving = torch.where(sound, stretch * turned, x)
    return target.detach() + (moving - moving.detach())


def straight_through(x: Tensor, target: Tensor) -> Tensor:
    """``target``, with the gradient of ``x`` as it is (van den Oord et al. 2017, 1711.00937)."""
    return target.detach() + (x - x.detach())


_GRADIENTS = {"rotation": rotated, "straight-through": straight_through}


def _sum(values: Tensor) -> Tensor:
    """Sum over the processes of a fit, in place; the values themselves in one process."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(values)
    return values


def _drawn(vectors: Tensor, n: int) -> Tensor:
    """``n`` of ``vectors (m, dim)`` at random, the same in all processes: those of the first.

    Without replacement while ``m >= n``; beyond that vectors come again.
    """
    first = not (distributed.is_available() and distributed.is_initialized())
    first = first or distributed.get_rank() == 0
    # The generator of the CPU draws, so that a seed gives the same order on every device.
    order = torch.cat([torch.randperm(len(vectors)) for _ in range(-(-n // len(vectors)))])[:n]
    chosen = vectors[order.to(vectors.device)]
    return _sum(chosen.clone() if first else torch.zeros_like(chosen))


class Codebook(nn.Module):
    """Codes that follow the vectors which they stand for, by exponential moving averages.

    After a batch that gave code ``k`` the ``n_k`` vectors of sum ``s_k``: ``N_k <- d N_k + (1 - d)
    n_k``, ``m_k <- d m_k + (1 - d) s_k``, ``e_k = m_k / N_k`` (van den Oord et al. 2017, arXiv
    1711.00937, appendix A.1), with ``N_k`` smoothed towards equal counts. The first batch in
    training starts the codes by k-means. A code with ``N_k`` below ``threshold`` is dead and
    becomes a vector drawn from the batch, with ``N_k = threshold``. The authors of BrainOmni
    (arXiv 2505.18185) replace the dead code before the average is taken, which then overwrites it;
    here it stays.

    Nothing is a parameter: codes, sums and counts are buffers. In several processes counts and
    sums go over all of them, and draws are those of the first process.

    Parameters
    ----------
    size, dim : int
    decay : float, ``d``
    threshold : float, vectors per batch; 0: no code is dead
    iterations : int, of k-means
    smoothing : float, vectors added to each ``N_k``
    """

    def __init__(
        self,
        size: int,
        dim: int,
        decay: float = 0.99,
        threshold: float = 2.0,
        iterations: int = 10,
        smoothing: float = 1e-6,
    ) -> None:
        super().__init__()
        self.decay, self.threshold, self.iterations = decay, threshold, iterations
        self.smoothing = smoothing
        start = nn.functional.normalize(torch.randn(size, dim), dim=-1)
        self.register_buffer("codes", start)
        self.register_buffer("sums", start.clone())
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Indices ``(n,)`` and codes ``(n, dim)`` of ``x (n, dim)``.

        In training the codebook moves afterwards; the codes are those that were chosen.
        """
        if self.training and not bool(self.started):
            self.start(x)
        index = nearest(x, self.codes)
        chosen = nn.functional.embedding(index, self.codes)
        if self.training:
            self._move(x, index)
        return index, chosen

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Set the codes to the centres of k-means over up to 4096 of ``x (n, dim)``.

        Lloyd's iterations from vectors of the batch; a centre that loses all its vectors stays.
        """
        size = len(self.codes)
        order = torch.randperm(len(x))[:_START_VECTORS].to(x.device)
        part = x[order]
        centres = _drawn(part, size)
        for _ in range(self.iterations):
            counts, sums = self._statistics(part, nearest(part, centres))
            centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
        counts, _ = self._statistics(part, nearest(part, centres))
        self.codes.copy_(centres)
        self.counts.copy_(counts.clamp_min(1))
        self.sums.copy_(centres * self.counts[:, None])
        self.started.fill_(True)

    def _statistics(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of each code, and their sums, over all processes."""
        both = x.new_zeros(len(self.codes), x.shape[1] + 1)
        both.index_add_(0, index, torch.cat([x, x.new_ones(len(x), 1)], dim=1))
        both = _sum(both)
        return both[:, -1], both[:, :-1]

    @torch.no_grad()
    def _move(self, x: Tensor, index: Tensor) -> None:
        counts, sums = self._statistics(x, index)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + self.smoothing) / (total + len(counts) * self.smoothing) * total
        self.codes.copy_(self.sums / smooth[:, None])
        dead = self.counts < self.threshold
        if bool(dead.any()):
            fresh = _drawn(x, int(dead.sum()))
            self.codes[dead] = fresh
            self.counts[dead] = self.threshold
            self.sums[dead] = fresh * self.threshold


class ResidualQuantizer(nn.Module):
    """Sums of one code per level, each level given what the levels before left over.

    ``r_1 = x``, ``q_l = e_l[k_l]`` next to ``r_l``, ``r_(l+1) = r_l - q_l``, ``q = sum_l q_l``
    (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1). One level is plain vector quantisation.
    Gradients go from ``q`` to ``x`` once; the authors of BrainOmni do it at every level and so
    count the gradient once per level.

    Parameters
    ----------
    dim : int
    n_levels, codebook_size : int
    gradient : "rotation", see :func:`rotated`, or "straight-through"
    normalize : bool
        Give vectors length 1 first (BrainTokenizer, arXiv 2505.18185, does).
    **codebook : settings of :class:`Codebook`
    """

    # Codes depend on the batches seen, so parts of a batch cannot go through one by one.
    batch_statistics = True

    def __init__(
        self,
        dim: int,
        n_levels: int = 4,
        codebook_size: int = 512,
        gradient: Literal["rotation", "straight-through"] = "rotation",
        normalize: bool = True,
        **codebook: float,
    ) -> None:
        super().__init__()
        if gradient not in _GRADIENTS:
            raise ModelError(
                "unknown gradient of a quantiser",
                expected=" | ".join(_GRADIENTS),
                found=repr(gradient),
            )
        self.dim, self.codebook_size, self.normalize = dim, codebook_size, normalize
        self.gradient = gradient
        self.levels = nn.ModuleList(
            Codebook(codebook_size, dim, **codebook) for _ in range(n_levels)
        )

    @property
    def codebooks(self) -> Tensor:
        """``(n_levels, codebook_size, dim)``."""
        return torch.stack([level.codes for level in self.levels])

    def forward(self, x: Tensor) -> Quantized:
        """Quantise ``x (..., dim)``, in float32 whatever is cast automatically around it.

        Raises
        ------
        ModelError
            When vectors have another width.
        """
        if x.shape[-1] != self.dim:
            raise ModelError(
                "vectors do not fit the codebooks",
                expected=f"(..., {self.dim})",
                found=str(tuple(x.shape)),
            )
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(self.levels[0].codes.dtype)
            if self.normalize:
                wide = nn.functional.normalize(wide, dim=-1, eps=torch.finfo(wide.dtype).tiny)
            flat = wide.reshape(-1, self.dim)
            left, total, codes, commitment = flat, torch.zeros_like(flat), [], 0.0
            for level in self.levels:
                index, chosen = level(left.detach())
                commitment = commitment + (left - chosen).square().mean(-1)
                left, total = left - chosen, total + chosen
                codes.append(index)
            if torch.is_grad_enabled() and flat.requires_grad:
                total = _GRADIENTS[self.gradient](flat, total)
        shape = x.shape[:-1]
        return Quantized(
            total.view(*shape, self.dim),
            torch.stack(codes, -1).view(*shape, len(self.levels)),
            (0.25 / len(self.levels) * commitment).view(shape),
        )

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors ``(..., dim)`` of ``codes (..., n_levels)``; fewer levels give coarser ones."""
        total = 0.0
        for level, index in zip(self.levels, codes.long().unbind(-1)):
            total = total + nn.functional.embedding(index, level.codes)
        return total
