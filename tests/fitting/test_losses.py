"""Losses against loops, analytic values and finite differences."""

import math

import pytest
import torch

from braindecode_pipe.fitting.losses import clip_loss, clip_scores, mse_loss


def pair(n=6, shape=(4,), m=None):
    torch.manual_seed(n)
    return (
        torch.randn(n, *shape, dtype=torch.float64),
        torch.randn(m or n, *shape, dtype=torch.float64),
    )


def loop_loss(z, y, stimuli=None):
    total = 0.0
    for i in range(len(z)):
        scores = [float((z[i] * y[j]).sum() / y[j].norm()) for j in range(len(y))]
        kept = [
            j
            for j in range(len(y))
            if j == i or stimuli is None or int(stimuli[j]) != int(stimuli[i])
        ]
        total -= scores[i] - math.log(sum(math.exp(scores[j]) for j in kept))
    return total / len(z)


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_matches_the_naive_loop(shape):
    z, y = pair(shape=shape)
    assert float(clip_loss(z, y)) == pytest.approx(loop_loss(z, y))


def test_further_candidates_are_negatives():
    z, y = pair(5, m=9)
    assert float(clip_loss(z, y)) == pytest.approx(loop_loss(z, y))
    assert float(clip_loss(z, y)) > float(clip_loss(z, y[:5]))


def test_scale_of_candidates_does_not_matter_and_that_of_estimates_does():
    z, y = pair()
    lengths = torch.rand(6, 1, dtype=torch.float64) * 1e6 + 1e-13
    assert float(clip_loss(z, y * lengths)) == pytest.approx(float(clip_loss(z, y)))
    assert float(clip_loss(3 * z, y)) != pytest.approx(float(clip_loss(z, y)))


def test_candidate_without_length_scores_zero():
    z, y = pair()
    y[2] = 0
    assert torch.equal(clip_scores(z, y)[:, 2], torch.zeros(6, dtype=torch.float64))


def test_gradient_of_estimates_matches_finite_differences():
    z, y = pair(4)
    stimuli = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda e: clip_loss(e, y, stimuli), z.requires_grad_())


def test_f45_copies_of_the_positive_are_no_negatives():
    z, y = pair(3)
    ids = torch.arange(3)
    once = clip_loss(z, y, ids)
    twice = clip_loss(torch.cat([z, z]), torch.cat([y, y]), torch.cat([ids, ids]))
    # Each row loses its own copy but meets both copies of the two other stimuli.
    scores = clip_scores(z, y)
    analytic = 0.0
    for i in range(3):
        others = sum(2 * float(scores[i, j].exp()) for j in range(3) if j != i)
        analytic -= math.log(float(scores[i, i].exp()) / (float(scores[i, i].exp()) + others)) / 3
    assert float(twice) == pytest.approx(analytic)
    assert float(twice) == pytest.approx(
        loop_loss(torch.cat([z, z]), torch.cat([y, y]), torch.cat([ids, ids]))
    )
    assert float(clip_loss(torch.cat([z, z]), torch.cat([y, y]))) > float(twice) > float(once)


def test_batch_of_one_stimulus_has_loss_zero():
    z, y = pair(4)
    same = torch.zeros(4, dtype=torch.int64)
    assert float(clip_loss(z, y[:1].expand(4, -1), same)) == pytest.approx(0, abs=1e-12)


def test_symmetric_is_the_mean_of_rows_and_columns():
    z, y = pair(5)
    s = clip_scores(z, y)
    columns = -(s.diagonal() - s.logsumexp(0)).mean()
    expected = (float(clip_loss(z, y)) + float(columns)) / 2
    assert float(clip_loss(z, y, symmetric=True)) == pytest.approx(expected)


def test_mse_is_the_mean_of_squares():
    z, y = pair()
    assert float(mse_loss(z, y)) == pytest.approx(float(((z - y) ** 2).mean()))
