"""From features of an image to responses of voxels, with an embedding per voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.people import VoxelTables


class _Level(nn.Module):
    """Where a voxel looks in one block of features, and what it sees there."""

    def __init__(self, n_in: int, n_tokens: int, width: int, channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.LayerNorm(n_in), nn.Linear(n_in, channels))
        self.position = nn.Parameter(torch.randn(n_tokens, channels) * 0.02)
        self.query = nn.Linear(width, channels, bias=False)

    def forward(self, embeddings: Tensor, x: Tensor) -> Tensor:
        """``(n, n_voxels, width)`` and ``(n, n_tokens, n_in)`` to ``(n, n_voxels, channels)``."""
        seen = self.features(x)
        query = self.query(embeddings)
        return scaled_dot_product_attention(query, seen + self.position, seen, scale=1.0)


class VoxelEncoding(nn.Module):
    """Responses of voxels to images, after the encoder of Brain-IT (arXiv 2510.25976).

    For every block ``b`` of image features ``x_b`` (frozen, given as tensors) and voxel ``v``::

        s_b = Linear(LayerNorm(x_b))
        F_vb = sum_t softmax_t( proj_b(e_v) . (s_bt + pos_bt) ) s_bt
        response_v = e_v . MLP([F_v1 .. F_vB])

    Only ``e_v`` is a voxel's own; everything else is shared by voxels and people, so a further
    person costs ``width`` numbers per voxel. The paper's features are blocks 1, 6, 12, 18 and 24 of
    DINOv2 ViT-L/14, ``width`` 256 and ``channels`` 128. Inferred: attention per block, values
    without position, one hidden layer of ``width`` GELUs. Left out: the low-rank path beside the
    frozen network, which needs the network and not its features.

    Parameters
    ----------
    n_features, n_tokens : sequence of int
        Width and length of every block.
    n_voxels : sequence of int
        Voxels of each person.
    width : int
        Of a voxel's embedding.
    channels : int
        Of the features of a block after projection.
    """

    def __init__(
        self,
        n_features: Sequence[int],
        n_tokens: Sequence[int],
        *,
        n_voxels: Sequence[int] = (),
        width: int = 256,
        channels: int = 128,
    ) -> None:
        super().__init__()
        if not n_features or len(n_features) != len(n_tokens):
            raise ModelError(
                "blocks of features",
                expected="at least one, each with a width and a number of tokens",
                found=f"{len(n_features)} widths and {len(n_tokens)} lengths",
            )
        self.people = VoxelTables(width, n_voxels, scale=width**-0.5)
        self.levels = nn.ModuleList(
            _Level(n_in, n, width, channels) for n_in, n in zip(n_features, n_tokens)
        )
        self.mlp = nn.Sequential(
            nn.Linear(len(n_features) * channels, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, voxels: Tensor, subject: Tensor, *features: Tensor) -> Tensor:
        """Responses of the chosen voxels.

        Parameters
        ----------
        voxels : (n, n_chosen) int64, numbers of voxels of the person of each row
        subject : (n,) int64
        *features : (n, n_tokens, n_features) per block

        Returns
        -------
        (n, n_chosen)
        """
        if len(features) != len(self.levels):
            raise ModelError(
                "blocks of image features",
                expected=str(len(self.levels)),
                found=str(len(features)),
            )
        embeddings = self.people.rows(voxels, subject)
        seen = [level(embeddings, x) for level, x in zip(self.levels, features)]
        return (embeddings * self.mlp(torch.cat(seen, -1))).sum(-1)
