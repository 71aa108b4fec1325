"""Codes against naive search, averages and gradients against formulas worked out by hand."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.quantizer import (
    Codebook,
    ResidualQuantizer,
    nearest,
    rotated,
    straight_through,
    usage,
)


def test_nearest_code_equals_a_naive_loop():
    torch.manual_seed(0)
    x, codes = torch.randn(57, 6), torch.randn(11, 6)
    naive = [min(range(11), key=lambda k: float((v - codes[k]).norm())) for v in x]
    assert nearest(x, codes).tolist() == naive


def test_nearest_code_where_all_lie_close_together():
    torch.manual_seed(0)
    far = torch.randn(6)
    x, codes = far + 1e-4 * torch.randn(57, 6), far + 1e-4 * torch.randn(11, 6)
    exact = torch.cdist(x.double(), codes.double()).argmin(1)
    assert (nearest(x, codes) == exact).float().mean() > 0.95


def test_of_equal_codes_the_first_is_taken_and_nothing_gives_nothing():
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert nearest(torch.tensor([[0.0, 2.0]]), codes).tolist() == [1]
    assert nearest(torch.zeros(0, 2), codes).shape == (0,)


def codebook(**settings):
    book = Codebook(2, 2, decay=0.5, **{"threshold": 0.0, "smoothing": 0.0, **settings})
    book.codes.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    book.counts.fill_(4.0)
    book.sums.copy_(4 * book.codes)
    book.started.fill_(True)
    return book


def test_moving_average_by_hand():
    book = codebook().train()
    index, chosen = book(torch.tensor([[-2.0, 0.0], [-1.0, 1.0], [3.0, 0.0]]))
    assert index.tolist() == [0, 0, 1]
    assert chosen.tolist() == [[-1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]
    assert book.counts.tolist() == [3.0, 2.5]
    assert book.sums.tolist() == [[-3.5, 0.5], [3.5, 0.0]]
    assert torch.allclose(book.codes, torch.tensor([[-3.5 / 3, 0.5 / 3], [1.4, 0.0]]))


def test_smoothing_pulls_counts_together_and_keeps_their_sum():
    book = codebook(smoothing=1.0).train()
    book(torch.tensor([[-2.0, 0.0], [-1.0, 1.0], [3.0, 0.0]]))
    smooth = torch.tensor([4.0, 3.5]) / 7.5 * 5.5
    assert torch.allclose(book.codes, book.sums / smooth[:, None])


def test_codes_do_not_move_outside_training():
    book = codebook().eval()
    before = {k: v.clone() for k, v in book.state_dict().items()}
    book(torch.randn(9, 2))
    assert all(torch.equal(before[k], v) for k, v in book.state_dict().items())


def test_a_dead_code_becomes_a_vector_of_the_batch_and_is_used_next_time():
    book = codebook(threshold=2.5).train()
    batch = torch.tensor([[-1.0, 3.0], [-1.1, 0.0], [-0.9, -3.0], [-1.0, 0.1]])
    # Code 1 gets nothing: 4 -> 2 < 2.5.
    book(batch)
    assert any(torch.equal(book.codes[1], v) for v in batch)
    assert book.counts[1] == 2.5
    assert torch.equal(book.sums[1], 2.5 * book.codes[1])
    assert 1 in book(batch)[0].tolist()


def test_k_means_finds_separate_groups_and_starts_once():
    torch.manual_seed(3)
    centres = torch.tensor([[0.0, 9.0], [9.0, 0.0], [-9.0, 0.0]])
    x = (centres[:, None] + 0.1 * torch.randn(3, 40, 2)).flatten(0, 1)
    book = Codebook(3, 2, threshold=0.0)
    book.start(x)
    order = nearest(centres, book.codes)
    assert sorted(order.tolist()) == [0, 1, 2]
    means = x.view(3, 40, 2).mean(1)
    assert torch.allclose(book.codes[order], means, atol=1e-5)
    assert book.counts.tolist() == [40.0] * 3
    book.train()
    before = book.codes.clone()
    book(x)
    assert (book.codes - before).abs().max() < 0.01


def test_fewer_vectors_than_codes_start_too():
    book = Codebook(8, 2).train()
    book(torch.randn(3, 2))
    assert torch.isfinite(book.codes).all()
    assert bool(book.started)


def test_the_seed_rules_start_and_revival():
    def run():
        torch.manual_seed(5)
        quantizer = ResidualQuantizer(4, 2, 16).train()
        for _ in range(4):
            quantizer(torch.randn(40, 4))
        return quantizer.state_dict()

    one, two = run(), run()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_state_restores_the_next_step_bit_for_bit():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(4, 2, 16).train()
    quantizer(torch.randn(64, 4))
    other = ResidualQuantizer(4, 2, 16).train()
    other.load_state_dict(quantizer.state_dict())
    x, states = torch.randn(64, 4), []
    for network in (quantizer, other):
        torch.manual_seed(1)
        network(x)
        states.append(network.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def rotation(a, b):
    """The rotation in the plane of ``a`` and ``b`` that takes one direction to the other."""
    a, b = a / a.norm(), b / b.norm()
    r = (a + b) / (a + b).norm()
    return torch.eye(len(a), dtype=a.dtype) - 2 * torch.outer(r, r) + 2 * torch.outer(b, a)


def test_rotation_trick_value_and_gradient():
    torch.manual_seed(0)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 5, dtype=torch.float64)
    out = rotated(x, target)
    assert torch.equal(out, target)
    upstream = torch.randn(3, 5, dtype=torch.float64)
    out.backward(upstream)
    for row in range(3):
        jacobian = rotation(x[row].detach(), target[row]) * (target[row].norm() / x[row].norm())
        assert torch.allclose(jacobian @ x[row].detach(), target[row])
        assert torch.allclose(x.grad[row], jacobian.T @ upstream[row])


def test_rotation_trick_moves_with_the_input_as_a_frozen_map_does():
    torch.manual_seed(1)
    x = torch.randn(4, dtype=torch.float64)
    target = torch.randn(4, dtype=torch.float64)
    jacobian = rotation(x, target) * (target.norm() / x.norm())
    step = 1e-6 * torch.randn(4, dtype=torch.float64)
    finite = (jacobian @ (x + step) - jacobian @ x) / step.norm()
    moved = x.clone().requires_grad_()
    weights = torch.randn(4, dtype=torch.float64)
    (rotated(moved, target) @ weights).backward()
    assert torch.allclose(moved.grad @ (step / step.norm()), finite @ weights, rtol=1e-6)


@pytest.mark.parametrize("target", [[0.0, 0.0], [-2.0, 0.0]])
def test_without_a_plane_the_gradient_passes_as_it_is(target):
    x = torch.tensor([1.0, 0.0], requires_grad=True)
    rotated(x, torch.tensor(target)).backward(torch.tensor([3.0, 4.0]))
    assert x.grad.tolist() == [3.0, 4.0]


def test_straight_through_value_and_gradient():
    x = torch.randn(2, 3, requires_grad=True)
    target, upstream = torch.randn(2, 3), torch.randn(2, 3)
    out = straight_through(x, target)
    assert torch.equal(out, target)
    out.backward(upstream)
    assert torch.equal(x.grad, upstream)


def test_residual_levels_equal_a_naive_loop():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(5, 3, 7).eval()
    x = 100 * torch.randn(2, 4, 5)
    out = quantizer(x)
    left, total, loss = normalize(x, dim=-1), torch.zeros(2, 4, 5), torch.zeros(2, 4)
    for level in range(3):
        book = quantizer.codebooks[level]
        index = ((left[:, :, None] - book) ** 2).sum(-1).argmin(-1)
        assert torch.equal(out.codes[..., level], index)
        loss += 0.25 * ((left - book[index]) ** 2).mean(-1) / 3
        left, total = left - book[index], total + book[index]
    assert torch.allclose(out.vectors, total)
    assert torch.allclose(out.commitment, loss)
    assert torch.equal(quantizer.decode(out.codes), out.vectors)
    assert torch.allclose(
        quantizer.decode(out.codes[..., :1]), quantizer.codebooks[0][index_of(out)]
    )


def index_of(out):
    return out.codes[..., 0]


@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_normalized_input_has_no_scale(scale):
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(5, 2, 7).eval()
    x = torch.randn(30, 5)
    assert torch.equal(quantizer(x).codes, quantizer(scale * x).codes)


@pytest.mark.parametrize("gradient", ["rotation", "straight-through"])
def test_commitment_pulls_the_input_to_its_code(gradient):
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(3, 1, 4, gradient=gradient, normalize=False).eval()
    x = torch.randn(6, 3, requires_grad=True)
    out = quantizer(x)
    out.commitment.sum().backward()
    assert torch.allclose(x.grad, 0.25 * 2 / 3 * (x - out.vectors).detach())


def test_training_uses_up_the_residual():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(6, 3, 32).train()
    batches = [torch.randn(512, 6) @ torch.diag(torch.arange(1.0, 7)) for _ in range(20)]
    for x in batches:
        quantizer(x)
    quantizer.eval()
    x = torch.cat(batches)
    out = quantizer(x)
    error = [
        float((quantizer.decode(out.codes[:, :n]) - normalize(x, dim=-1)).square().sum(1).mean())
        for n in (1, 2, 3)
    ]
    assert error[0] < 0.4
    assert error[1] < 0.6 * error[0]
    assert error[2] < 0.6 * error[1]
    assert (usage(out.codes, 32).perplexity > 16).all()


def test_perplexity_and_use_by_hand():
    codes = torch.tensor([[0, 3], [0, 2], [1, 1], [1, 0]])
    result = usage(codes, 4)
    assert torch.allclose(result.perplexity, torch.tensor([2.0, 4.0]).double())
    assert result.used.tolist() == [0.5, 1.0]
    skewed = usage(torch.tensor([[0], [0], [0], [1]]), 4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(skewed.perplexity) == pytest.approx(math.exp(entropy))
    assert torch.isnan(usage(torch.zeros(0, 2), 4).perplexity).all()


def test_bad_settings_are_named():
    with pytest.raises(ModelError, match="gradient of a quantiser"):
        ResidualQuantizer(4, gradient="soft")
    with pytest.raises(ModelError, match="do not fit the codebooks"):
        ResidualQuantizer(4)(torch.randn(2, 3))
