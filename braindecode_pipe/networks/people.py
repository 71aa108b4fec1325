"""What belongs to one person in a network that people share: an embedding for each voxel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError


class VoxelTables(nn.Module):
    """One table ``(n_voxels, width)`` of learned embeddings per person.

    Parameters
    ----------
    width : int
    n_voxels : sequence of int, voxels of each person
    scale : float
        Standard deviation of the start.
    """

    def __init__(self, width: int, n_voxels: Sequence[int] = (), *, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.tables = nn.ParameterList(torch.randn(int(n), width) * scale for n in n_voxels)

    def __len__(self) -> int:
        return len(self.tables)

    def __getitem__(self, person: int) -> Tensor:
        if not 0 <= person < len(self.tables):
            raise ModelError(
                "a person that this network does not know",
                expected=f"a number below {len(self.tables)}",
                found=str(person),
                remedy="add the person first",
            )
        return self.tables[person]

    def add(self, start: Tensor | int) -> int:
        """A further person, from embeddings ``(n_voxels, width)`` or drawn; the person's number."""
        if isinstance(start, int):
            like = next(iter(self.tables), torch.empty(0))
            start = torch.randn(start, self.width).to(like) * self.scale
        if start.ndim != 2 or start.shape[1] != self.width:
            raise ModelError(
                "embeddings of the voxels of a person",
                expected=f"(n_voxels, {self.width})",
                found=str(tuple(start.shape)),
            )
        self.tables.append(nn.Parameter(start.detach().clone()))
        return len(self.tables) - 1

    def rows(self, voxels: Tensor, subject: Tensor) -> Tensor:
        """Embeddings ``(n, n_chosen, width)`` of voxels ``(n, n_chosen)`` of persons ``(n,)``."""
        people = subject.unique().tolist()
        if len(people) == 1:
            return self[people[0]][voxels]
        out = self[people[0]].new_empty(*voxels.shape, self.width)
        for person in people:
            mine = subject == person
            out[mine] = self[person][voxels[mine]]
        return out


def learn_only(network: nn.Module, tables: VoxelTables, people: Iterable[int]) -> None:
    """Freeze all of ``network`` but the embeddings of some people."""
    network.requires_grad_(False)
    for person in people:
        tables[person].requires_grad_(True)
