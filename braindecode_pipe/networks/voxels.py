"""Networks for patterns of voxels, parcels or any flat features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError


class VoxelMLP(nn.Module):
    """Linear -> ``depth`` x (LayerNorm, GELU, dropout, Linear, residual) -> LayerNorm -> Linear.

    Parameters
    ----------
    n_in, n_out : int
        Features of the pattern and of the target.
    hidden : int
        Width.
    depth : int
        Residual blocks; 0 leaves two linear layers with a norm and a GELU between.
    dropout : float
        Of the hidden units.
    input_dropout : float
        Of the features of the pattern.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        hidden: int = 256,
        depth: int = 0,
        dropout: float = 0.5,
        input_dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Dropout(input_dropout), nn.Linear(n_in, hidden))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, hidden)
            )
            for _ in range(depth)
        )
        self.last = nn.Sequential(
            nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, n_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n_in)`` to ``(batch, n_out)``."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


class SubjectMixer(nn.Module):
    """Voxels of many people into one trunk, after MindEye2 (Scotti et al. 2024, arXiv 2403.11207).

    A linear layer per person, from that person's voxels to ``hidden`` -> ``depth`` residual
    perceptrons -> linear to ``n_tokens * n_out`` -> a projector. The weight decay that makes the
    first layers a ridge regression is the optimiser's. Where the paper's trunk also mixes along
    a sequence of length 1, nothing is left to mix, and that part is left out.

    Parameters
    ----------
    n_out : int
        Features of a target token.
    n_voxels : sequence of int
        Voxels of each person; windows are padded to the largest.
    hidden, depth : int
        4096 and 4 in the paper; 1024 in its smallest setting.
    n_tokens : int
        Tokens of the target; 256 in the paper. 1: one vector.
    projector : int
        Width of the projector; 0: none.
    dropout : float
        Of the trunk; 0.15 in the paper.
    """

    def __init__(
        self,
        n_out: int,
        *,
        n_voxels: Sequence[int],
        hidden: int = 1024,
        depth: int = 4,
        n_tokens: int = 1,
        projector: int = 0,
        dropout: float = 0.15,
    ) -> None:
        super().__init__()
        self.n_voxels, self.n_tokens = tuple(int(n) for n in n_voxels), n_tokens
        self.people = nn.ModuleList(nn.Linear(n, hidden) for n in self.n_voxels)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, hidden),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
            )
            for _ in range(depth)
        )
        self.backbone = nn.Linear(hidden, n_tokens * n_out)
        self.projector = (
            nn.Sequential(
                nn.LayerNorm(n_out), nn.GELU(), nn.Linear(n_out, projector),
                nn.LayerNorm(projector), nn.GELU(), nn.Linear(projector, projector),
                nn.LayerNorm(projector), nn.GELU(), nn.Linear(projector, n_out),
            )
            if projector
            else None
        )  # fmt: skip

    def forward(self, x: Tensor, subject: Tensor | None = None) -> Tensor:
        """Patterns to target tokens.

        Parameters
        ----------
        x : (batch, n) with ``n >= max(n_voxels)``
            Further columns are padding and are not looked at.
        subject : (batch,) int64; default 0

        Returns
        -------
        (batch, n_out), or (batch, n_tokens, n_out)

        Raises
        ------
        ModelError
            When a person has more voxels than the pattern has columns.
        """
        if subject is None:
            subject = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        out = x.new_zeros(len(x), self.backbone.in_features)
        for number in subject.unique().tolist():
            n, rows = self.n_voxels[number], subject == number
            if x.shape[1] < n:
                raise ModelError(
                    "a pattern is shorter than the person has voxels",
                    expected=f"{n} voxels of person {number}",
                    found=str(x.shape[1]),
                )
            out[rows] = self.people[number](x[rows, :n]).to(out.dtype)
        for block in self.blocks:
            out = out + block(out)
        out = self.backbone(out).view(len(x), self.n_tokens, -1)
        out = out if self.projector is None else self.projector(out)
        return out[:, 0] if self.n_tokens == 1 else out
