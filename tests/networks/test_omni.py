"""BrainOmni: counts of the paper, attention and rotation against naive forms, masked codes."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.omni import (
    BrainOmni,
    SpatialTemporalBlock,
    rotary_frequencies,
    rotate,
)
from braindecode_pipe.networks.tokenizer import BrainTokenizer

SMALL = {"width": 16, "n_heads": 4, "depth": 2, "n_sources": 3, "n_levels": 2, "codebook_size": 8,
         "token_width": 12}  # fmt: skip


@pytest.fixture
def small():
    torch.manual_seed(0)
    network = BrainOmni(**SMALL)
    network.codebooks.normal_()
    network.sources.normal_()
    return network


@pytest.mark.parametrize(
    ("width", "n_heads", "count"), [(256, 8, 8_424_704), (512, 16, 32_707_328)]
)
def test_parameters_of_the_paper(width, n_heads, count):
    network = BrainOmni(width=width, n_heads=n_heads)
    assert sum(p.numel() for p in network.parameters()) == count


def test_rotation_is_a_product_with_complex_numbers():
    x = torch.randn(2, 7, 12)
    frequencies = rotary_frequencies(12)
    assert torch.allclose(frequencies, torch.tensor([10000 ** (-2 * i / 12) for i in range(6)]))
    turns = torch.polar(torch.ones(7, 6), torch.outer(torch.arange(7.0), frequencies))
    pairs = torch.view_as_complex(x.unflatten(-1, (6, 2)))
    assert torch.allclose(
        rotate(x, frequencies), torch.view_as_real(pairs * turns).flatten(-2), atol=1e-6
    )
    assert torch.allclose(
        rotate(x, frequencies, "cosine"), torch.view_as_real(pairs * turns.real).flatten(-2)
    )


def test_rotated_products_depend_on_the_distance_only():
    frequencies = rotary_frequencies(8)
    one, two = torch.randn(8).expand(9, 8), torch.randn(8).expand(9, 8)
    products = rotate(one, frequencies) @ rotate(two, frequencies).T
    assert torch.allclose(products[2, 5], products[4, 7], atol=1e-5)
    assert not torch.allclose(products[2, 5], products[2, 7], atol=1e-3)


def naive_attention(layer, x, frequencies=None):
    """Of ``x (n, width)``, one head at a time."""
    query, key, value = layer.qkv(x).chunk(3, dim=-1)
    if frequencies is not None:
        query, key = rotate(query, frequencies), rotate(key, frequencies)
    size = x.shape[-1] // layer.n_heads
    heads = []
    for head in range(layer.n_heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        heads.append(scores.softmax(-1) @ value[:, part])
    return layer.out(torch.cat(heads, -1))


def test_halves_attend_over_time_and_over_sources_and_change_places():
    torch.manual_seed(0)
    block = SpatialTemporalBlock(16, 4).eval()
    x = torch.randn(2, 3, 5, 16)
    normed = block.attention_norm(x)
    mixed = torch.zeros_like(x)
    for item in range(2):
        for source in range(3):
            mixed[item, source, :, 8:] = naive_attention(
                block.time, normed[item, source, :, :8], block.time.frequencies
            )
        for step in range(5):
            mixed[item, :, step, :8] = naive_attention(block.space, normed[item, :, step, 8:])
    y = x + mixed
    expected = y + block.feedforward(block.feedforward_norm(y))
    assert torch.allclose(block(x), expected, atol=1e-5)


def test_codes_and_sources_come_from_the_tokenizer():
    tokenizer = BrainTokenizer(window=32, width=8, n_sources=3, n_heads=2, n_filters=4,
                               ratios=(4, 2), kernel=3, n_levels=2, codebook_size=8)  # fmt: skip
    network = BrainOmni.of(tokenizer, width=8, n_heads=2, depth=1)
    codes = torch.randint(0, 8, (2, 3, 4, 2))
    assert torch.equal(network.vectors(codes), tokenizer.quantizer.decode(codes))
    assert torch.equal(network.sources, tokenizer.gather.sources)
    assert not network.sources.requires_grad


def test_features_have_length_one_and_know_source_and_time(small):
    small.eval()
    codes = torch.zeros(1, 3, 5, 2, dtype=torch.int64)
    features = small.encode(codes)
    assert features.shape == (1, 3, 5, 16)
    assert torch.allclose(features.norm(dim=-1), torch.ones(1, 3, 5))
    assert not torch.allclose(features[0, 0], features[0, 1], atol=1e-3)
    moved = codes.clone()
    moved[0, 1, 2] = 5
    changed = (small.encode(moved) - features).norm(dim=-1)[0]
    # One block carries news along the row and the column of a token, two carry them everywhere.
    cross = torch.zeros(3, 5, dtype=torch.bool)
    cross[1], cross[:, 2] = True, True
    assert torch.equal(changed > 0, cross)
    assert ((small.encode(moved, 2) - small.encode(codes, 2)).norm(dim=-1) > 0).all()


def test_loss_of_masked_codes_by_hand(small):
    small.eval()
    codes = torch.randint(0, 8, (2, 3, 4, 2))
    hidden = (torch.arange(3)[:, None] + torch.arange(4)) % 2 == 1
    logits = small.predict(codes, ~hidden.expand(2, 3, 4))
    expected = cross_entropy(logits[:, hidden].flatten(0, 2), codes[:, hidden].flatten())
    terms = small(codes)
    assert terms[:, 1].tolist() == [6.0, 6.0]
    assert torch.allclose(small.combine(terms.mean(0)), expected, atol=1e-6)


def test_masked_tokens_are_hidden_from_the_network(small):
    small.eval()
    codes = torch.randint(0, 8, (1, 3, 4, 2))
    keep = torch.ones(1, 3, 4, dtype=torch.bool)
    keep[0, 1, 2] = False
    other = codes.clone()
    other[0, 1, 2] = (codes[0, 1, 2] + 1) % 8
    assert torch.equal(small.predict(codes, keep), small.predict(other, keep))
    assert not torch.equal(small.predict(codes), small.predict(other))


def test_half_is_masked_anew_in_training(small):
    small.train()
    codes = torch.randint(0, 8, (64, 3, 20, 2))
    counts = small(codes)[:, 1].detach()
    assert counts.std() > 0
    assert float(counts.mean()) / 60 == pytest.approx(0.5, abs=0.05)


def test_learns_codes_that_repeat_over_time():
    """A source repeats its code at every step, so that neighbours tell what is masked."""
    torch.manual_seed(0)
    network = BrainOmni(**{**SMALL, "width": 32, "depth": 1, "dropout": 0.0})
    network.codebooks.normal_()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)

    def draw(n):
        return torch.randint(0, 8, (n, 3, 1, 2)).expand(-1, -1, 6, -1)

    def error():
        with torch.no_grad():
            return float(network.combine(network.eval()(draw(64)).mean(0)))

    assert error() == pytest.approx(math.log(8), abs=0.1)
    for _ in range(70):
        optimizer.zero_grad()
        network.combine(network.train()(draw(16)).mean(0)).backward()
        optimizer.step()
    assert error() < 1.4


def test_bad_codes_and_heads_are_named(small):
    with pytest.raises(ModelError, match="codes do not fit"):
        small.encode(torch.zeros(1, 4, 5, 2, dtype=torch.int64))
    with pytest.raises(ModelError, match="half of the heads"):
        BrainOmni(width=16, n_heads=3)
