"""Structure and function of a brain fused into a few one-dimensional tokens (Brain Harmony)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.attention import AttentionBlock


class Harmonizer(nn.Module):
    """Functional and structural tokens to latent tokens ``H``, from which both are rebuilt.

    ``L = |D_S(H) - Z_S|^2 + |D_F(H) - Z_F|^2``, where ``Z`` are the tokens of the two frozen
    encoders (Brain Harmony). The paper has 128 latents, 12 layers of 768 with 12 heads, and 8,400
    input tokens: 7,200 of function (400 parcels x 18 patches) and 1,200 of a T1 image. Inferred:
    learned latents attend to the input once, then ``depth`` times to each other (as in Jaegle et
    al. 2021, arXiv 2103.03206); a decoder is one attention of the positions to ``H``; squares are
    means over the tokens that are there and their features. Either kind may be absent, for all or
    by its mask for some: it is then neither seen nor rebuilt.

    The loss is the network's own: a call gives its two terms for every example.

    Parameters
    ----------
    width, n_latents, depth, heads : int
    """

    terms = ("structure", "function")

    def __init__(
        self, width: int = 768, *, n_latents: int = 128, depth: int = 12, heads: int = 12
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(n_latents, width) * 0.02)
        self.kinds = nn.Parameter(torch.randn(2, width) * 0.02)
        self.read = AttentionBlock(width, heads)
        self.blocks = nn.ModuleList(AttentionBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.decoders = nn.ModuleList(AttentionBlock(width, heads) for _ in range(2))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(2)
        )

    def encode(
        self,
        function: Tensor | None,
        function_position: Tensor | None = None,
        function_mask: Tensor | None = None,
        structure: Tensor | None = None,
        structure_position: Tensor | None = None,
        structure_mask: Tensor | None = None,
    ) -> Tensor:
        """Latent tokens.

        Parameters
        ----------
        function, structure : (batch, n, width), optional
            Tokens ``Z_F`` and ``Z_S``; at least one of the two.
        function_position, structure_position : (batch or 1, n, width), optional
            Added to what is read, and what the decoders ask with; default 0.
        function_mask, structure_mask : (batch, n) bool, True = keep, optional
            What is not kept is padding and may hold anything finite.

        Returns
        -------
        (batch, n_latents, width)
        """
        kinds = (
            (0, structure, structure_position, structure_mask),
            (1, function, function_position, function_mask),
        )
        read, masks = [], []
        for kind, tokens, position, mask in kinds:
            if tokens is not None:
                read.append(tokens + self.kinds[kind] + (0 if position is None else position))
                masks.append(_mask(tokens, mask))
        if not read:
            raise ModelError(
                "nothing to fuse", expected="functional or structural tokens", found="neither"
            )
        context, mask = torch.cat(read, 1), torch.cat(masks, 1)
        latents = self.read(self.latents.expand(len(context), -1, -1), context, mask)
        for block in self.blocks:
            latents = block(latents)
        return self.norm(latents)

    def decode(self, latents: Tensor, kind: str, position: Tensor) -> Tensor:
        """Tokens of ``structure`` or ``function`` at positions ``(batch or 1, n, width)``."""
        number = self.terms.index(kind)
        asked = (position + self.kinds[number]).expand(len(latents), -1, -1)
        return self.heads[number](self.decoders[number](asked, latents))

    def forward(
        self,
        function: Tensor | None,
        function_position: Tensor | None = None,
        function_mask: Tensor | None = None,
        structure: Tensor | None = None,
        structure_position: Tensor | None = None,
        structure_mask: Tensor | None = None,
    ) -> Tensor:
        """The two terms of the loss ``(batch, 2)``; parameters as for :meth:`encode`."""
        latents = self.encode(
            function, function_position, function_mask,
            structure, structure_position, structure_mask,
        )  # fmt: skip
        kinds = (
            (structure, structure_position, structure_mask),
            (function, function_position, function_mask),
        )
        errors = []
        for kind, (tokens, position, mask) in zip(self.terms, kinds):
            if tokens is None:
                errors.append(latents.new_zeros(len(latents)))
                continue
            position = torch.zeros_like(tokens) if position is None else position
            squares = (self.decode(latents, kind, position) - tokens).square().mean(-1)
            keep = _mask(tokens, mask)
            errors.append(torch.where(keep, squares, 0.0).sum(1) / keep.sum(1).clamp(min=1))
        return torch.stack(errors, 1)

    def combine(self, means: Tensor) -> Tensor:
        """The loss of the mean terms ``(2,)`` of a batch: their sum."""
        return means.sum()


def _mask(tokens: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return mask
