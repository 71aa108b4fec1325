"""Forward pass of BERT encoders, as functions of their weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F


def bert_hidden_states(
    weights: Mapping[str, torch.Tensor],
    ids: torch.Tensor,
    mask: torch.Tensor,
    n_heads: int,
    layer_norm_eps: float = 1e-12,
) -> list[torch.Tensor]:
    """Hidden states of a BERT encoder with post-norm blocks (Devlin et al., 2019).

    Per block: ``x = LN(x + Attention(x))``, then ``x = LN(x + W2 gelu(W1 x))``.

    Parameters
    ----------
    weights : mapping
        Tensors under the names of the released checkpoints (``embeddings.*``,
        ``encoder.layer.<k>.*``).
    ids : (n_texts, n_tokens) int64
    mask : (n_texts, n_tokens) bool
        True for tokens, False for padding.
    n_heads : int

    Returns
    -------
    list of (n_texts, n_tokens, n_features) tensors: the embedding, then every block's output.
    """

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(x, gain.shape, gain, bias, layer_norm_eps)

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)

    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    states = [x]
    while f"encoder.layer.{len(states) - 1}.output.dense.weight" in weights:
        name = f"encoder.layer.{len(states) - 1}"
        attended = F.scaled_dot_product_attention(
            *(heads(linear(x, f"{name}.attention.self.{p}")) for p in ("query", "key", "value")),
            attn_mask=mask[:, None, None, :],
        )
        attended = attended.transpose(1, 2).flatten(2)
        attended = linear(attended, f"{name}.attention.output.dense")
        x = norm(x + attended, f"{name}.attention.output.LayerNorm")
        inner = F.gelu(linear(x, f"{name}.intermediate.dense"))
        x = norm(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        states.append(x)
    return states


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that ``mask`` keeps: (n, tokens, features) -> (n, features)."""
    weight = mask.to(states.dtype).unsqueeze(-1)
    return (states * weight).sum(1) / weight.sum(1)
