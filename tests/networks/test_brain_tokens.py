"""Voxels to brain tokens to target tokens: Brain-IT's counts and checks."""

import math

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.brain_tokens import BrainInteraction, BrainTokens, TokenDecoder


def count(network):
    return sum(p.numel() for p in network.parameters())


def tokens(n_voxels=(40, 30), n_clusters=5, width=8, **options):
    torch.manual_seed(0)
    network = BrainTokens(n_clusters, width, n_voxels=n_voxels, **options)
    for person, n in enumerate(n_voxels):
        # The last cluster stays empty.
        network.set_clusters(person, torch.randint(0, n_clusters - 1, (n,)))
    return network


def naive(network, x, person):
    """The formula, voxel by voxel; keys and values as linear maps of ``a_j e_j``."""
    labels = getattr(network, f"cluster_{person}")
    out = []
    for cluster, centre in enumerate(network.centres):
        members = [
            network.people[person][j] * x[j] for j in range(len(labels)) if labels[j] == cluster
        ]
        token = network.root(centre)
        if members:
            query = network.query(centre)
            scores = [query @ network.key(m) / math.sqrt(network.width) for m in members]
            weights = torch.stack(scores).softmax(0)
            token = token + sum(w * network.value(m) for w, m in zip(weights, members))
        out.append(network.norm(torch.relu(token)))
    return torch.stack(out)


@pytest.mark.parametrize(
    ("n_tokens", "n_out", "published"), [(256, 1664, 35_188_352), (7190, 512, 38_147_584)]
)
def test_published_numbers_of_parameters(n_tokens, n_out, published):
    with torch.device("meta"):
        assert count(BrainInteraction(n_tokens, n_out)) == published
        with_people = BrainInteraction(n_tokens, n_out, n_voxels=[1000, 234])
    assert count(with_people) == published + 512 * 1234


def test_there_are_128_brain_tokens_of_512():
    with torch.device("meta"):
        network = BrainTokens(n_voxels=[50])
    assert network.centres.shape == (128, 512)
    small = tokens()
    assert small(torch.randn(3, 40), torch.tensor([0, 1, 0])).shape == (3, 5, 8)


def test_equals_the_formula_for_several_people_and_with_padding():
    network = tokens()
    x, subject = torch.randn(3, 45), torch.tensor([1, 0, 1])
    found = network(x, subject)
    for row in range(3):
        expected = naive(network, x[row], int(subject[row]))
        assert torch.allclose(found[row], expected, atol=1e-5)


def test_the_order_of_voxels_changes_nothing():
    network, x = tokens((400,)), torch.randn(4, 400)
    expected = network(x)
    order = torch.randperm(400)
    moved = tokens((400,))
    moved.load_state_dict(network.state_dict())
    moved.people.tables[0].data = network.people[0].detach()[order]
    moved.set_clusters(0, network.cluster_0[order])
    assert (moved(x[:, order]) - expected).abs().max() < 1e-5


def test_an_activation_of_zero_brings_a_zero_key_and_value():
    network = tokens((6,), n_clusters=2)
    network.set_clusters(0, torch.zeros(6, dtype=torch.int64))
    assert network.key.bias is None and network.value.bias is None
    x = torch.randn(1, 6)
    x[0, 3] = 0
    before = network(x)
    network.people.tables[0].data[3] = 1e3
    # What such a voxel is can make no difference, only that it is there.
    assert torch.equal(network(x), before)


def test_an_empty_cluster_gives_the_token_of_its_centre():
    network = tokens()
    x = torch.randn(2, 40)
    found = network(x)
    expected = network.norm(torch.relu(network.root(network.centres[4])))
    assert torch.isfinite(found).all()
    assert torch.allclose(found[:, 4], expected.expand(2, -1), atol=1e-6)
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_training_sees_a_draw_of_the_voxels():
    network, x = tokens(n_drawn=10), torch.randn(2, 40)
    network.train()
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_chosen_output_tokens_are_those_of_all():
    torch.manual_seed(0)
    decoder, brain = TokenDecoder(9, 4, width=8, heads=2, depth=2), torch.randn(3, 5, 8)
    everything = decoder(brain)
    assert everything.shape == (3, 9, 4)
    chosen = torch.tensor([7, 0, 3])
    assert torch.allclose(decoder(brain, chosen), everything[:, chosen], atol=1e-6)
    own = torch.tensor([[7, 0], [1, 2], [8, 8]])
    rows = torch.arange(3)[:, None]
    assert torch.allclose(decoder(brain, own), everything[rows, own], atol=1e-6)


def test_the_order_of_brain_tokens_changes_nothing():
    torch.manual_seed(0)
    decoder, brain = TokenDecoder(9, 4, width=8, heads=2, depth=2), torch.randn(3, 5, 8)
    moved = decoder(brain[:, torch.tensor([4, 2, 0, 1, 3])])
    assert torch.allclose(moved, decoder(brain), atol=1e-5)


def test_a_person_keeps_clusters_and_embeddings_in_the_state():
    network = tokens()
    person = network.add_person(torch.tensor([0, 3, 3]))
    again = BrainTokens(5, 8, n_voxels=[40, 30, 3])
    again.load_state_dict(network.state_dict())
    x, subject = torch.randn(2, 40), torch.tensor([person, 0])
    assert torch.equal(again(x, subject), network(x, subject))


@pytest.mark.parametrize(
    "labels", [torch.zeros(3, dtype=torch.int64), torch.full((40,), 5), torch.zeros(40)]
)
def test_clusters_that_do_not_fit_are_refused(labels):
    with pytest.raises(ModelError, match="clusters of the voxels of person 0"):
        tokens().set_clusters(0, labels)


def test_a_pattern_with_too_few_voxels_is_refused():
    with pytest.raises(ModelError, match="shorter than the person has voxels"):
        tokens()(torch.randn(1, 39))
