"""Voxels of any person to a fixed number of brain tokens, and those to the tokens of a target."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.attention import AttentionBlock
from braindecode_pipe.networks.people import VoxelTables


class BrainTokens(nn.Module):
    """A pattern of voxels to one token per functional cluster, after Brain-IT (arXiv 2510.25976).

    Voxel ``j`` of cluster ``c`` with activation ``a_j`` and embedding ``e_j`` brings
    ``x_j = a_j e_j`` to the learned centre ``m_c`` by graph attention with one head (Shi et al.
    2021, arXiv 2009.03509, eq. 3-4)::

        w_j = softmax_{j in c}( (W_q m_c + b_q) . W_k x_j / sqrt(width) )
        token_c = LayerNorm(ReLU( W_r m_c + b_r + sum_{j in c} w_j W_v x_j ))

    A cluster without voxels keeps the token of its centre. Keys and values have no bias (inferred:
    an activation of zero brings a zero key and value), so ``x_j`` is never formed: scores are
    ``a_j (e_j . W_k^T q_c)`` and sums are taken over ``e_j`` before ``W_v``. That needs
    ``batch * n_voxels`` numbers instead of ``batch * n_voxels * width``.

    Parameters
    ----------
    n_clusters, width : int
        128 and 512 in the paper.
    n_voxels : sequence of int
        Voxels of each person.
    n_drawn : int
        Voxels that a forward pass in training sees, drawn per person; 15,000 in the paper. 0: all.
    """

    def __init__(
        self,
        n_clusters: int = 128,
        width: int = 512,
        *,
        n_voxels: Sequence[int] = (),
        n_drawn: int = 0,
    ) -> None:
        super().__init__()
        self.n_clusters, self.width, self.n_drawn = n_clusters, width, n_drawn
        self.people = VoxelTables(width, n_voxels)
        for person, n in enumerate(n_voxels):
            self.register_buffer(f"cluster_{person}", torch.zeros(int(n), dtype=torch.int64))
        self.centres = nn.Parameter(torch.randn(n_clusters, width))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.root = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def set_clusters(self, person: int, labels: Tensor) -> None:
        """Say to which cluster, 0 to ``n_clusters - 1``, each voxel of a person belongs."""
        n = len(self.people[person])
        fits = labels.shape == (n,) and not labels.is_floating_point()
        if not fits or (n and not 0 <= int(labels.min()) <= int(labels.max()) < self.n_clusters):
            raise ModelError(
                f"clusters of the voxels of person {person}",
                expected=f"{n} whole numbers from 0 to {self.n_clusters - 1}",
                found=f"{tuple(labels.shape)} {labels.dtype}"
                + (f", {labels.min()} to {labels.max()}" if labels.numel() else ""),
            )
        labels = labels.to(self.people[person].device, torch.int64, copy=True)
        self.register_buffer(f"cluster_{person}", labels)

    def add_person(self, labels: Tensor, start: Tensor | None = None) -> int:
        """A further person with the clusters, and embeddings, of its voxels; its number."""
        person = self.people.add(len(labels) if start is None else start)
        self.set_clusters(person, labels)
        return person

    def forward(self, x: Tensor, subject: Tensor | None = None) -> Tensor:
        """Patterns to brain tokens.

        Parameters
        ----------
        x : (batch, n) with ``n >= n_voxels`` of each person that is there
            Further columns are padding and are not looked at.
        subject : (batch,) int64; default 0

        Returns
        -------
        (batch, n_clusters, width)
        """
        if subject is None:
            subject = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        queries = self.query(self.centres) @ self.key.weight / math.sqrt(self.width)
        gathered = self.centres.new_zeros(len(x), self.n_clusters, self.width)
        for person in subject.unique().tolist():
            mine = subject == person
            gathered[mine] = self._gather(x[mine], person, queries).to(gathered.dtype)
        return self.norm(torch.relu(self.root(self.centres) + self.value(gathered)))

    def _gather(self, x: Tensor, person: int, queries: Tensor) -> Tensor:
        """``sum_j w_j a_j e_j`` per cluster, ``(batch, n_clusters, width)``, of one person."""
        embeddings, labels = self.people[person], self.get_buffer(f"cluster_{person}")
        n = len(embeddings)
        if x.shape[1] < n:
            raise ModelError(
                "a pattern is shorter than the person has voxels",
                expected=f"{n} voxels of person {person}",
                found=str(x.shape[1]),
            )
        order = torch.argsort(labels, stable=True)
        if self.training and 0 < self.n_drawn < n:
            drawn = torch.zeros(n, dtype=torch.bool, device=x.device)
            drawn[torch.randperm(n, device=x.device)[: self.n_drawn]] = True
            order = order[drawn[order]]
        sizes = torch.bincount(labels[order], minlength=self.n_clusters).tolist()
        activations, embeddings = x[:, order].split(sizes, 1), embeddings[order].split(sizes)
        sums = []
        for query, a, e in zip(queries, activations, embeddings):
            weights = (a * (e @ query)).softmax(1)
            sums.append((weights * a) @ e)
        return torch.stack(sums, 1)


class TokenDecoder(nn.Module):
    """Brain tokens to the tokens of a target, after Brain-IT (arXiv 2510.25976).

    Learned output tokens attend to the brain tokens once; then ``depth`` times the brain tokens
    attend to each other and the output tokens to them. Output tokens are their own queries. Last, a
    linear map to the width of the target. With :class:`BrainTokens` of 128 x 512 this makes
    35,188,352 parameters for 256 x 1664 and 38,147,584 for 7,190 x 512, as published, beside the
    embeddings of voxels. Inferred from these numbers: norms before attention and MLP, no bias in
    keys and values, a last norm.

    Parameters
    ----------
    n_tokens, n_out : int
        Tokens of the target, and their width.
    width, heads, depth : int
        512, 8 and 5 in the paper.
    """

    def __init__(
        self, n_tokens: int, n_out: int, *, width: int = 512, heads: int = 8, depth: int = 5
    ) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.randn(n_tokens, width) * 0.02)
        self.first = AttentionBlock(width, heads, project_queries=False)
        self.brain = nn.ModuleList(AttentionBlock(width, heads) for _ in range(depth))
        self.update = nn.ModuleList(
            AttentionBlock(width, heads, project_queries=False) for _ in range(depth)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_out))

    def forward(self, brain: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Tokens of the target.

        Parameters
        ----------
        brain : (batch, n_brain_tokens, width)
        chosen : (n_chosen,) or (batch, n_chosen) int64, optional
            Output tokens to compute; they do not see each other, so the others change nothing.

        Returns
        -------
        (batch, n_tokens or n_chosen, n_out)
        """
        outputs = self.outputs if chosen is None else self.outputs[chosen]
        outputs = outputs.expand(len(brain), -1, -1)
        outputs = self.first(outputs, brain)
        for mix, update in zip(self.brain, self.update):
            brain = mix(brain)
            outputs = update(outputs, brain)
        return self.last(outputs)


class BrainInteraction(nn.Module):
    """:class:`BrainTokens`, then :class:`TokenDecoder`: a pattern of voxels to target tokens.

    Parameters
    ----------
    n_tokens, n_out : int
        256 and 1664 for the tokens of OpenCLIP bigG, 7,190 and 512 for levels of VGG16
        (``feature_levels``).
    n_voxels : sequence of int
        Voxels of each person.
    n_clusters, width, heads, depth, n_drawn : see the two parts
    """

    def __init__(
        self,
        n_tokens: int,
        n_out: int,
        *,
        n_voxels: Sequence[int] = (),
        n_clusters: int = 128,
        width: int = 512,
        heads: int = 8,
        depth: int = 5,
        n_drawn: int = 0,
    ) -> None:
        super().__init__()
        self.tokens = BrainTokens(n_clusters, width, n_voxels=n_voxels, n_drawn=n_drawn)
        self.decoder = TokenDecoder(n_tokens, n_out, width=width, heads=heads, depth=depth)

    def forward(
        self, x: Tensor, subject: Tensor | None = None, chosen: Tensor | None = None
    ) -> Tensor:
        """``(batch, n)`` to ``(batch, n_tokens or n_chosen, n_out)``."""
        return self.decoder(self.tokens(x, subject), chosen)
