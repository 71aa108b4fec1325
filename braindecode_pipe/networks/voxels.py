"""A multi-layer perceptron for patterns of voxels, parcels or any flat features."""

from __future__ import annotations

from torch import Tensor, nn


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
