"""The diffusion prior on a distribution that is known, and what guidance must leave alone."""

from __future__ import annotations

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting.loop import fit
from braindecode_pipe.fitting.selfsupervised import Unlabelled
from braindecode_pipe.networks.prior import DiffusionPrior, signal_share

MAP = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.8, 0.0]])  # 3 conditions -> 2 features
NOISE = 0.5


def draw(n, seed):
    generator = torch.Generator().manual_seed(seed)
    conditions = torch.randn(n, 3, generator=generator)
    targets = conditions @ MAP + NOISE * torch.randn(n, 2, generator=generator)
    return conditions, 3 + 2 * targets


@pytest.fixture(scope="module")
def prior():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    conditions, targets = draw(2000, 0)
    network = DiffusionPrior(2, 3, hidden=48, depth=2)
    network.set_statistics(conditions, targets)
    examples = Unlabelled(2000, lambda rows: (conditions[rows], targets[rows]))
    fit(network, examples, loss="own", epochs=40, batch_size=200, lr=5e-3, schedule="cosine")
    return network


def test_the_cosine_schedule_begins_clean_and_ends_in_noise():
    share = signal_share(torch.tensor([0.0, 0.5, 1.0]))
    # (cos(pi / 2 .508 / 1.008) / cos(pi / 2 .008 / 1.008))^2, by hand.
    torch.testing.assert_close(share, torch.tensor([1.0, 0.49384, 0.0]), atol=1e-4, rtol=0)


def test_a_conditional_gaussian_is_recovered(prior):
    conditions, _ = draw(400, 1)
    samples = prior.sample(conditions, seeds=range(400), steps=30)
    rest = (samples - 3) / 2 - conditions @ MAP
    assert rest.mean(0).abs().max() < 0.12
    assert (rest.std(0) / NOISE - 1).abs().max() < 0.25
    # Without condition: the marginal, whose covariance is MAP' MAP + noise.
    free = (prior.sample(None, seeds=range(400), steps=30) - 3) / 2
    expected = (MAP.T @ MAP).diagonal() + NOISE**2
    assert (free.var(0) / expected - 1).abs().max() < 0.3


def test_guidance_0_ignores_and_1_is_conditional(prior):
    conditions, _ = draw(5, 2)
    options = {"seeds": [3, 4, 5, 6, 7], "steps": 4}
    free = prior.sample(None, **options)
    assert torch.equal(prior.sample(conditions, guidance=0, **options), free)
    given = prior.sample(conditions, guidance=1, **options)
    nearly = prior.sample(conditions, guidance=1 + 1e-6, **options)
    torch.testing.assert_close(given, nearly, atol=1e-4, rtol=1e-4)
    assert (given - free).abs().max() > 0.1
    # With one step the sample is the prediction itself, so that guidance is linear.
    one = {"seeds": options["seeds"], "steps": 1}
    free, given = prior.sample(None, **one), prior.sample(conditions, **one)
    triple = prior.sample(conditions, guidance=3, **one)
    torch.testing.assert_close(triple, free + 3 * (given - free), atol=1e-4, rtol=1e-4)


def test_seeds_give_bytes_whatever_is_beside_them(prior):
    conditions, _ = draw(4, 3)
    whole = prior.sample(conditions, seeds=[9, 8, 7, 6], steps=3)
    assert torch.equal(whole, prior.sample(conditions, seeds=[9, 8, 7, 6], steps=3))
    alone = prior.sample(conditions[2:3], seeds=[7], steps=3)
    torch.testing.assert_close(alone[0], whole[2], atol=1e-6, rtol=1e-5)
    assert not torch.equal(prior.sample(conditions, seeds=[1, 2, 3, 4], steps=3), whole)


@pytest.mark.parametrize("bad", [torch.full((1, 3), float("nan")), torch.zeros(1, 4)])
def test_bad_conditions_are_refused(prior, bad):
    with pytest.raises(ModelError, match="cannot be a condition"):
        prior.sample(bad, seeds=[0])
    with pytest.raises(ModelError, match="too few steps"):
        prior.sample(None, seeds=[0], steps=0)
