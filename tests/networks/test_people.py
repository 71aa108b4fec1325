"""Tables of voxel embeddings."""

import pytest
import torch
from torch import nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.people import VoxelTables, learn_only


def test_rows_of_several_people():
    tables = VoxelTables(3, [4, 6])
    voxels, subject = torch.tensor([[0, 3], [5, 5], [1, 0]]), torch.tensor([0, 1, 0])
    found = tables.rows(voxels, subject)
    for row in range(3):
        for column in range(2):
            expected = tables[int(subject[row])][voxels[row, column]]
            assert torch.equal(found[row, column], expected)
    assert torch.equal(tables.rows(voxels[[0, 2]], subject[[0, 2]]), found[[0, 2]])


def test_a_further_person_costs_its_table_and_alone_learns():
    network = nn.ModuleDict({"people": VoxelTables(3, [4]), "body": nn.Linear(3, 3)})
    before = sum(p.numel() for p in network.parameters())
    person = network["people"].add(7)
    assert sum(p.numel() for p in network.parameters()) - before == 7 * 3
    learn_only(network, network["people"], [person])
    learned = [name for name, p in network.named_parameters() if p.requires_grad]
    assert learned == ["people.tables.1"]


def test_unknown_people_and_tables_of_another_width_are_refused():
    tables = VoxelTables(3, [4])
    with pytest.raises(ModelError, match="does not know"):
        tables[1]
    with pytest.raises(ModelError, match="embeddings of the voxels"):
        tables.add(torch.zeros(4, 2))
