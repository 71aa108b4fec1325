"""Attention with masks."""

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.attention import Attention, AttentionBlock


@pytest.mark.parametrize("project", [True, False])
def test_equals_the_formula(project):
    torch.manual_seed(0)
    layer = Attention(8, 2, project_queries=project)
    x, context = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    key, value = (context @ layer.key_value.weight.T).split(8, -1)
    query = x @ layer.query.weight.T if project else x
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (query[..., head] @ key[..., head].transpose(1, 2) / 2).softmax(-1)
        heads.append(weights @ value[..., head])
    expected = layer.out(torch.cat(heads, -1))
    assert torch.allclose(layer(x, context), expected, atol=1e-6)


def test_what_the_mask_leaves_out_changes_nothing():
    torch.manual_seed(0)
    block = AttentionBlock(8, 2)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 6, 8)
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    found = block(x, context, mask)
    assert torch.allclose(found[:1], block(x[:1], context[:1, :4]), atol=1e-6)
    assert torch.allclose(found[1:], block(x[1:], context[1:]), atol=1e-6)


def test_an_empty_context_is_finite_and_has_finite_gradients():
    block = AttentionBlock(8, 2)
    x = torch.randn(2, 3, 8, requires_grad=True)
    mask = torch.tensor([[False] * 4, [True] * 4])
    found = block(x, torch.randn(2, 4, 8), mask)
    found.sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(x.grad).all()
    assert torch.equal(
        block.attention(x, torch.ones(2, 4, 8), mask)[0], block.attention.out.bias.expand(3, 8)
    )


def test_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ModelError, match="shared by its heads"):
        Attention(10, 4)
