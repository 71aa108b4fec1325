"""Losses against loops, analytic values and finite differences."""

import math
from typing import get_args

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.fitting.losses import (
    Loss,
    Objective,
    clip_loss,
    clip_scores,
    cosine_loss,
    cosine_scores,
    mixco_loss,
    mse_loss,
    siglip_loss,
    soft_clip_loss,
    symmetric_clip_loss,
)


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


# --- three by three, by hand ---------------------------------------------------------------------

# Estimates and candidates whose cosines are 1, 0 and 1/sqrt(2), so that sums can be written out.
Z = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], dtype=torch.float64)
Y = torch.tensor([[5.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
H = 1 / math.sqrt(2)
COSINES = [[1.0, 0.0, H], [0.0, 1.0, H], [H, H, 1.0]]
IDS = torch.tensor([0, 1, 0])  # the third row shows the first stimulus again


def lse(values):
    return math.log(sum(math.exp(v) for v in values))


def test_cosines_by_hand():
    assert torch.allclose(cosine_scores(Z, Y), torch.tensor(COSINES, dtype=torch.float64))


def test_symmetric_clip_by_hand():
    scale = 2.0
    rows = [lse(scale * c for c in row) - scale * row[i] for i, row in enumerate(COSINES)]
    # The matrix is symmetric, so columns give the same sum.
    assert float(symmetric_clip_loss(Z, Y, None, scale)) == pytest.approx(sum(rows) / 3)
    kept = [[0, 1], [0, 1, 2], [1, 2]]
    rows = [
        lse(scale * COSINES[i][j] for j in kept[i]) - scale * COSINES[i][i] for i in range(3)
    ]  # fmt: skip
    assert float(symmetric_clip_loss(Z, Y, IDS, scale)) == pytest.approx(sum(rows) / 3)


def test_siglip_by_hand_takes_copies_as_positives():
    scale, bias = 2.0, -1.0
    same = [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    total = sum(
        math.log1p(math.exp(-(1 if same[i][j] else -1) * (scale * COSINES[i][j] + bias)))
        for i in range(3)
        for j in range(3)
    )
    assert float(siglip_loss(Z, Y, IDS, scale, bias)) == pytest.approx(total / 3)


def test_cosine_regression_by_hand():
    assert float(cosine_loss(Z, Y)) == pytest.approx(0)
    assert float(cosine_loss(Z, Y[[1, 0, 2]])) == pytest.approx(1 - (0 + 0 + 1) / 3)


def test_squared_error_less_a_tenth_of_the_cosine_by_hand():
    swapped = Y[[1, 0, 2]]
    squares = float(((Z - swapped) ** 2).mean())
    found = float(Objective("mse-cosine")(Z, swapped))
    assert found == pytest.approx(squares - 0.1 * (0 + 0 + 1) / 3)


def test_soft_clip_by_hand():
    t = 0.5
    total = 0.0
    for i in range(3):
        truth = [math.exp(COSINES[i][j] / t) for j in range(3)]
        norm = lse(COSINES[i][j] / t for j in range(3))
        total -= sum(p / sum(truth) * (COSINES[i][j] / t - norm) for j, p in enumerate(truth)) / 3
    assert float(soft_clip_loss(Z, Y, t)) == pytest.approx(total)


def test_mixco_by_hand():
    t, partner, share = 0.5, torch.tensor([1, 2, 0]), torch.tensor([0.75, 0.5, 1.0]).double()
    logs = [[COSINES[i][j] / t - lse(c / t for c in COSINES[i]) for j in range(3)]
            for i in range(3)]  # fmt: skip
    truth = [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1.0]]
    rows = -sum(truth[i][j] * logs[i][j] for i in range(3) for j in range(3)) / 3
    columns = -sum(truth[j][i] * logs[i][j] for i in range(3) for j in range(3)) / 3
    found = mixco_loss(Z, Y, partner, share, None, t)
    assert float(found) == pytest.approx((rows + columns) / 2)
    assert torch.isfinite(mixco_loss(Z, Y, partner, share, IDS, t))


def test_nothing_mixed_is_clip_at_that_temperature():
    partner, share = torch.tensor([1, 2, 0]), torch.ones(3).double()
    found = mixco_loss(Z, Y, partner, share, IDS, 0.5)
    partner_free = symmetric_clip_loss(Z, Y, None, 2.0)
    assert float(mixco_loss(Z, Y, partner, share, None, 0.5)) == pytest.approx(float(partner_free))
    assert float(found) < float(partner_free)


@pytest.mark.parametrize("kind", get_args(Loss))
def test_every_objective_has_finite_gradients_and_ignores_the_unit_of_candidates(kind):
    z, y = pair(6)
    objective = Objective(kind).double()
    ids = torch.tensor([0, 1, 2, 0, 3, 4])
    mix = (torch.tensor([1, 2, 3, 4, 5, 0]), torch.full((6,), 0.7).double())
    value = objective(z.requires_grad_(), y, ids, mix=mix if objective.mixes(0.0) else None)
    value.backward()
    assert torch.isfinite(z.grad).all() and torch.isfinite(value)
    if "mse" not in kind:
        again = objective(z.detach(), 1e6 * y, ids, mix=mix if objective.mixes(0.0) else None)
        assert float(again.detach()) == pytest.approx(float(value.detach()))


def test_objective_learns_its_scale_up_to_a_hundred():
    z, y = pair(6)
    objective = Objective("clip-symmetric").double()
    assert float(objective.logit_scale.detach()) == pytest.approx(1 / 0.07)
    objective(z, y).backward()
    assert objective.log_scale.grad is not None
    with torch.no_grad():
        objective.log_scale.fill_(99.0)
    assert float(objective.logit_scale.detach()) == pytest.approx(100.0)
    assert not Objective("clip-symmetric", learn_scale=False).log_scale.requires_grad
    assert not list(Objective("clip").parameters())


@pytest.mark.parametrize(("weight", "silent"), [(1.0, 1), (0.0, 0)])
def test_combination_gives_each_head_its_own_loss(weight, silent):
    z, y = pair(6)
    heads = torch.stack([z, z + 1], dim=1).requires_grad_()
    objective = Objective("clip+mse", weight=weight).double()
    objective(heads, y).backward()
    assert torch.equal(heads.grad[:, silent], torch.zeros_like(z))
    assert heads.grad[:, 1 - silent].abs().sum() > 0
    parts = [Objective("clip+mse", weight=w).double()(heads, y) for w in (1.0, 0.0, 0.75)]
    values = [float(part.detach()) for part in parts]
    assert values[2] == pytest.approx(0.75 * values[0] + 0.25 * values[1])


def test_soft_clip_follows_mixing_and_its_temperature_rises():
    objective = Objective("mixco+softclip")
    assert objective.mixes(0.0) and objective.mixes(0.33) and not objective.mixes(0.34)
    z, y = pair(6)
    assert float(objective(z, y, progress=1 / 3)) == pytest.approx(
        float(soft_clip_loss(z, y, 0.004))
    )
    assert float(objective(z, y, progress=1.0)) == pytest.approx(
        float(soft_clip_loss(z, y, 0.0075))
    )


@pytest.mark.parametrize("settings", [{"kind": "triplet"}, {"kind": "clip+mse", "weight": 2.0}])
def test_objective_refuses(settings):
    with pytest.raises(ModelError, match="loss"):
        Objective(**settings)
