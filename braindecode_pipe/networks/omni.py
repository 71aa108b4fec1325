"""BrainOmni: an encoder over codes of latent sources, learned by predicting codes that are masked.

Follows arXiv 2505.18185, section 3.2, and the settings of the authors' code (OpenTSLab/BrainOmni,
MIT). Attention is PyTorch's own.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, normalize, scaled_dot_product_attention

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.sensors import FeedForward, RMSNorm, start_small
from braindecode_pipe.networks.tokenizer import BrainTokenizer

Rotary = Literal["rotation", "cosine"]


def rotary_frequencies(width: int) -> Tensor:
    """``10000^(-2 i / width)``, ``i = 0 .. width / 2 - 1`` (Su et al. 2021, arXiv 2104.09864)."""
    return 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)


def rotate(x: Tensor, frequencies: Tensor, how: Rotary = "rotation") -> Tensor:
    """Vectors turned by their place in time.

    The pair ``2 i, 2 i + 1`` of the width at step ``t`` turns by ``t f_i``. As in the authors' code
    the frequencies run over the whole width before it is divided into heads, so that heads turn
    at different speeds. ``cosine`` multiplies the pair with ``cos(t f_i)`` and leaves out the
    rest: what the published weights were trained with, because their cache of complex numbers
    was cast to real ones.

    Parameters
    ----------
    x : (..., n_steps, width)
    frequencies : (width / 2,)
    """
    steps = torch.arange(x.shape[-2], dtype=frequencies.dtype, device=x.device)
    angle = steps[:, None] * frequencies
    one, two = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos = angle.cos()
    if how == "cosine":
        turned = torch.stack([one * cos, two * cos], -1)
    else:
        sin = angle.sin()
        turned = torch.stack([one * cos - two * sin, one * sin + two * cos], -1)
    return turned.flatten(-2).to(x.dtype)


class _Attention(nn.Module):
    """Self-attention along the axis before the last."""

    def __init__(self, width: int, n_heads: int, dropout: float, rotary: Rotary | None) -> None:
        super().__init__()
        self.n_heads, self.dropout, self.rotary = n_heads, dropout, rotary
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        frequencies = rotary_frequencies(width) if rotary else None
        self.register_buffer("frequencies", frequencies)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        if self.rotary:
            query = rotate(query, self.frequencies, self.rotary)
            key = rotate(key, self.frequencies, self.rotary)
        shape = (self.n_heads, -1)
        query, key, value = (
            part.unflatten(-1, shape).transpose(-3, -2) for part in (query, key, value)
        )
        dropout = self.dropout if self.training else 0.0
        out = scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out(out.transpose(-3, -2).flatten(-2))


class SpatialTemporalBlock(nn.Module):
    """One half of the width attends over time, the other over sources; then feed-forward.

    ``x <- x + [space(b), time(a)]`` with ``[a, b] = rms(x)``, ``x <- x + ff(rms(x))``. The halves
    change places, as in the authors' code.

    Parameters
    ----------
    width, n_heads : int, each divided by two for the halves
    dropout : float
    rotary : see :func:`rotate`
    """

    def __init__(
        self, width: int, n_heads: int, dropout: float = 0.1, rotary: Rotary = "rotation"
    ) -> None:
        super().__init__()
        half = (width // 2, n_heads // 2, dropout)
        self.attention_norm = RMSNorm(width)
        self.time = _Attention(*half, rotary)
        self.space = _Attention(*half, None)
        self.feedforward_norm = RMSNorm(width)
        self.feedforward = FeedForward(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n_sources, n_steps, width)`` to the same shape."""
        over_time, over_space = self.attention_norm(x).chunk(2, dim=-1)
        over_space = self.space(over_space.transpose(1, 2)).transpose(1, 2)
        x = x + torch.cat([over_space, self.time(over_time)], dim=-1)
        return x + self.feedforward(self.feedforward_norm(x))


class BrainOmni(nn.Module):
    """Encoder of codes of latent sources, over sources and time.

    Codes become the vectors that they stand for, plus one per source; both come from the tokenizer,
    are buffers and stay as they are. 8,424,704 parameters ("tiny": width 256, 8 heads), 32,707,328
    ("base": width 512, 16 heads).

    Training predicts codes: half of the tokens are masked, of which about 80 % become a learned
    vector and the others that of a token from anywhere in the batch.

    Parameters
    ----------
    width, n_heads, depth : int
    n_sources, n_levels, codebook_size, token_width : int, of the tokenizer
    dropout : float
    masked : float, share of tokens
    replaced : float, share of the masked tokens that become the learned vector
    rotary : see :func:`rotate`
    """

    # What the columns of the losses are; see :meth:`combine`.
    terms = ("cross_entropy", "masked")

    def __init__(
        self,
        width: int = 256,
        n_heads: int = 8,
        depth: int = 12,
        n_sources: int = 16,
        n_levels: int = 4,
        codebook_size: int = 512,
        token_width: int = 256,
        dropout: float = 0.1,
        masked: float = 0.5,
        replaced: float = 0.8,
        rotary: Rotary = "rotation",
    ) -> None:
        super().__init__()
        if n_heads % 2 or width % (2 * n_heads):
            raise ModelError(
                "half of the heads share half of the width, in pairs",
                expected="an even n_heads and a width that is a multiple of 2 n_heads",
                found=f"n_heads = {n_heads}, width = {width}",
            )
        self.masked, self.replaced = masked, replaced
        self.n_levels, self.codebook_size = n_levels, codebook_size
        self.register_buffer("codebooks", torch.zeros(n_levels, codebook_size, token_width))
        self.register_buffer("sources", torch.zeros(n_sources, token_width))
        self.mask_token = nn.Parameter(torch.randn(token_width))
        same = token_width == width
        self.projection = nn.Identity() if same else nn.Linear(token_width, width)
        self.blocks = nn.ModuleList(
            SpatialTemporalBlock(width, n_heads, dropout, rotary) for _ in range(depth)
        )
        self.head = nn.Linear(width, n_levels * codebook_size)
        self.apply(start_small)

    @classmethod
    def of(cls, tokenizer: BrainTokenizer, **settings: object) -> BrainOmni:
        """An encoder of the codes of ``tokenizer``; further settings as above."""
        codebooks = tokenizer.quantizer.codebooks
        sources = tokenizer.gather.sources
        n_levels, size, width = codebooks.shape
        network = cls(
            n_sources=len(sources),
            n_levels=n_levels,
            codebook_size=size,
            token_width=width,
            **settings,
        )
        network.codebooks.copy_(codebooks)
        network.sources.copy_(sources.detach())
        return network

    def vectors(self, codes: Tensor) -> Tensor:
        """``(batch, n_sources, n_steps, token_width)`` that codes ``(..., n_levels)`` stand for."""
        expected = (len(self.sources), self.n_levels)
        if codes.ndim != 4 or (codes.shape[1], codes.shape[3]) != expected:
            raise ModelError(
                "codes do not fit the encoder",
                expected=f"(batch, {expected[0]}, n_steps, {expected[1]})",
                found=str(tuple(codes.shape)),
            )
        parts = zip(codes.long().unbind(-1), self.codebooks)
        return torch.stack([embedding(index, book) for index, book in parts]).sum(0)

    def encode(self, codes: Tensor, n_blocks: int = -1) -> Tensor:
        """Features ``(batch, n_sources, n_steps, width)`` of length 1 after some blocks.

        All but the last block by default, which is what the authors transfer.

        Parameters
        ----------
        codes : (batch, n_sources, n_steps, n_levels) int
        n_blocks : int, as an end of a slice
        """
        return normalize(self._encoded(self.vectors(codes), self.blocks[:n_blocks]), dim=-1)

    def predict(self, codes: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits ``(batch, n_sources, n_steps, n_levels, codebook_size)`` of all codes.

        Parameters
        ----------
        codes : (batch, n_sources, n_steps, n_levels) int
        keep : (batch, n_sources, n_steps) bool, optional
            False where the token is to be guessed from the others.
        """
        x = self.vectors(codes)
        if keep is not None:
            x = torch.where(keep[..., None], x, self.mask_token)
        return self._logits(x)

    def forward(self, codes: Tensor) -> Tensor:
        """``(batch, 2)``: sum of cross-entropies of masked codes, and how many there are.

        Which tokens are masked is drawn in training; otherwise it is every other one, over sources
        and steps like the squares of a chessboard, so that a validation does not depend on luck.
        """
        x = self.vectors(codes)
        shape = x.shape[:3]
        if self.training:
            draw = torch.rand(2, *shape, device=x.device)
            hidden = draw[0] < self.masked
            others = x.flatten(0, 2)[torch.randperm(hidden.numel(), device=x.device)]
            guess = torch.where(draw[1, ..., None] < self.replaced, self.mask_token,
                                others.view_as(x))  # fmt: skip
        else:
            rows, steps = (torch.arange(n, device=x.device) for n in shape[1:])
            hidden = ((rows[:, None] + steps) % 2 == 1).expand(shape)
            guess = self.mask_token
        logits = self._logits(torch.where(hidden[..., None], guess, x)).float()
        error = cross_entropy(logits.movedim(-1, 1), codes.long(), reduction="none").mean(-1)
        total = torch.where(hidden, error, 0.0).sum((1, 2))
        return torch.stack([total, hidden.sum((1, 2)).to(total.dtype)], dim=1)

    @staticmethod
    def combine(means: Tensor) -> Tensor:
        """Mean cross-entropy over all masked codes of a batch, of the means of :meth:`forward`."""
        total, n = means.unbind(-1)
        return total / n

    def _encoded(self, x: Tensor, blocks: nn.ModuleList) -> Tensor:
        x = self.projection(x + self.sources[:, None])
        for block in blocks:
            x = block(x)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        return self.head(self._encoded(x, self.blocks)).unflatten(-1, (self.n_levels, -1))
