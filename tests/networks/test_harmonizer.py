"""Function and structure fused into latent tokens."""

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.harmonizer import Harmonizer


def small(depth=1):
    torch.manual_seed(0)
    return Harmonizer(16, n_latents=4, depth=depth, heads=2)


def example(n=3, n_function=6, n_structure=5):
    torch.manual_seed(1)
    return {
        "function": torch.randn(n, n_function, 16),
        "function_position": torch.randn(n, n_function, 16),
        "structure": torch.randn(n, n_structure, 16),
        "structure_position": torch.randn(n, n_structure, 16),
    }


def test_8400_tokens_become_128():
    with torch.device("meta"):
        network = Harmonizer()
        function, structure = torch.empty(1, 7200, 768), torch.empty(1, 1200, 768)
        assert network.encode(function, structure=structure).shape == (1, 128, 768)
        assert network(function, structure=structure).shape == (1, 2)
    seen = []
    network.read.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1].shape[1]))
    with torch.device("meta"):
        network.encode(function, structure=structure)
    assert seen == [7200 + 1200]


def test_the_loss_is_that_of_the_formula():
    network, one = small(), example()
    latents = network.encode(**one)
    terms = network(**one)
    for number, kind in enumerate(network.terms):
        rebuilt = network.decode(latents, kind, one[f"{kind}_position"])
        expected = (rebuilt - one[kind]).square().mean((1, 2))
        assert torch.allclose(terms[:, number], expected, atol=1e-6)
    assert torch.equal(network.combine(terms.mean(0)), terms.mean(0).sum())


def test_padding_changes_nothing():
    network, one = small(), example()
    padded = dict(one)
    for kind in ("function", "structure"):
        n = one[kind].shape[1]
        for name in (kind, f"{kind}_position"):
            padded[name] = torch.cat([one[name], torch.full((3, 2, 16), 1e3)], 1)
        padded[f"{kind}_mask"] = (torch.arange(n + 2) < n).expand(3, -1)
    assert torch.allclose(network.encode(**padded), network.encode(**one), atol=1e-5)
    assert torch.allclose(network(**padded), network(**one), atol=1e-5)


def test_structure_is_optional_for_all_and_for_some():
    network, one = small(), example()
    alone = {k: v for k, v in one.items() if k.startswith("function")}
    expected = network(**alone)
    assert torch.equal(expected[:, 0], torch.zeros(3))
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    found = network(**one, structure_mask=mask)
    assert torch.allclose(found[1], expected[1], atol=1e-5)
    assert torch.allclose(found[[0, 2]], network(**one)[[0, 2]], atol=1e-5)
    with pytest.raises(ModelError, match="nothing to fuse"):
        network.encode(None)


def test_a_fit_rebuilds_what_the_latents_must_carry():
    """Simulated tokens of rank 2: four latents can hold them, a mean over examples cannot."""
    network = small()
    basis = torch.randn(2, 11, 16)
    tokens = torch.einsum("nk,ktd->ntd", torch.randn(64, 2), basis)
    position = torch.randn(1, 11, 16)
    arguments = (
        tokens[:, :6], position[:, :6], None, tokens[:, 6:], position[:, 6:], None
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        loss = network.combine(network(*arguments).mean(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mean = (tokens - tokens.mean(0)).square()
    baseline = mean[:, :6].mean() + mean[:, 6:].mean()
    print(f"\nrebuilt {loss.item():.3f}, mean over examples {baseline.item():.3f}")
    assert loss < 0.5 * baseline
