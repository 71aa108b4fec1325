"""Attention between tokens, with masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from braindecode_pipe.errors import ModelError


class Attention(nn.Module):
    """Multi-head attention: ``softmax(Q K^T / sqrt(d)) V`` (Vaswani et al. 2017, section 3.2).

    Keys and values are linear maps without bias, the output map has one. Tokens that the mask
    leaves out have weight exactly 0; where it leaves out all, nothing is attended to and the answer
    is the bias of the output map.

    Parameters
    ----------
    width : int, divisible by ``heads``
    heads : int
    project_queries : bool
        Whether queries are a linear map of their tokens, or the tokens themselves.
    """

    def __init__(self, width: int, heads: int, *, project_queries: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(
                "the width of an attention is shared by its heads",
                expected=f"a multiple of {heads}",
                found=str(width),
            )
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False) if project_queries else nn.Identity()
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, n, width)`` attends to ``(batch, m, width)``; mask ``(batch, m)``, True = keep.

        Returns
        -------
        (batch, n, width)
        """
        query = self._split(self.query(x))
        key, value = (self._split(part) for part in self.key_value(context).chunk(2, dim=-1))
        if mask is None:
            mixed = scaled_dot_product_attention(query, key, value)
        else:
            some = mask.any(-1)
            # A softmax over nothing is NaN: such an item attends to all, and to nothing after.
            keep = mask | ~some[:, None]
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=keep[:, None, None])
            mixed = torch.where(some[:, None, None, None], mixed, 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AttentionBlock(nn.Module):
    """``x + attention(norm(x), context)``, then ``x + MLP(norm(x))`` with one hidden GELU layer.

    Parameters
    ----------
    width, heads, project_queries : see :class:`Attention`
    expansion : int
        Hidden units of the MLP over ``width``.
    """

    def __init__(
        self, width: int, heads: int, *, expansion: int = 4, project_queries: bool = True
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, project_queries=project_queries)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Linear(expansion * width, width),
        )

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``(batch, n, width)``; without a context the tokens attend to each other."""
        normed = self.norm(x)
        x = x + self.attention(normed, normed if context is None else context, mask)
        return x + self.mlp(x)
