"""Checkpoints of the release: made here with its names and shapes, and read by ours.

What is loaded is compared with the release's formulas, computed from the arrays under their
published names.
"""

import math

import pytest
import torch
from torch.nn.functional import conv1d, elu, linear, pad, selu

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.published import load_omni, load_tokenizer

WIDTH, FILTERS, SOURCES, SIZE, LEVELS, LM = 8, 4, 3, 6, 2, 16
SETTINGS = {"window": 32 * 64, "width": WIDTH, "n_sources": SOURCES, "n_heads": 2,
            "n_filters": FILTERS, "n_levels": LEVELS, "codebook_size": SIZE}  # fmt: skip


def dense(name, n_out, n_in):
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def conv(name, shape, n_out):
    return {f"{name}.weight_g": (shape[0], 1, 1), f"{name}.weight_v": shape,
            f"{name}.bias": (n_out,)}  # fmt: skip


def lstm(name, width):
    shapes = {}
    for layer in (0, 1):
        for side in ("ih", "hh"):
            shapes[f"{name}.lstm.weight_{side}_l{layer}"] = (4 * width, width)
            shapes[f"{name}.lstm.bias_{side}_l{layer}"] = (4 * width,)
    return shapes


def residual(name, width):
    return {
        **conv(f"{name}.block.1.conv.conv", (width // 2, width, 3), width // 2),
        **conv(f"{name}.block.3.conv.conv", (width, width // 2, 1), width),
        **conv(f"{name}.shortcut.conv.conv", (width, width, 1), width),
    }


def tokenizer_shapes():
    """Names and shapes of BrainTokenizer.pt, at the width of this test."""
    shapes = {
        "sensor_embed.sensor_embedding_layer.weight": (3, WIDTH),
        **dense("sensor_embed.pos_embedding_layer.0", WIDTH // 2, 6),
        **dense("sensor_embed.pos_embedding_layer.2", WIDTH, WIDTH // 2),
        **dense("sensor_embed.aggregate_mlp.layer.0", 4 * WIDTH, WIDTH),
        **dense("sensor_embed.aggregate_mlp.layer.2", WIDTH, 4 * WIDTH),
        "sensor_embed.norm.weight": (WIDTH,),
        "encoder.neuros": (SOURCES, WIDTH),
        **dense("encoder.k_proj", WIDTH, WIDTH),
        **dense("encoder.backwardsolution.v", WIDTH, WIDTH),
        **dense("encoder.backwardsolution.proj", WIDTH, WIDTH),
        **dense("decoder.forwardsolution.kv", 2 * WIDTH, WIDTH),
        **dense("decoder.forwardsolution.proj", WIDTH, WIDTH),
    }
    side = "encoder.seanet_encoder.model"
    shapes |= conv(f"{side}.0.conv.conv", (FILTERS, 1, 5), FILTERS)
    for stage, ratio in enumerate((2, 4, 8)):
        width = FILTERS * 2**stage
        shapes |= residual(f"{side}.{1 + 3 * stage}", width)
        shapes |= conv(f"{side}.{3 + 3 * stage}.conv.conv", (2 * width, width, 2 * ratio),
                       2 * width)  # fmt: skip
    shapes |= lstm(f"{side}.10", 8 * FILTERS)
    shapes |= conv(f"{side}.12.conv.conv", (WIDTH, 8 * FILTERS, 5), WIDTH)
    side = "decoder.seanet_decoder.model"
    shapes |= conv(f"{side}.0.conv.conv", (8 * FILTERS, WIDTH, 5), 8 * FILTERS)
    shapes |= lstm(f"{side}.1", 8 * FILTERS)
    for stage, ratio in enumerate((8, 4, 2)):
        width = FILTERS * 2 ** (3 - stage)
        shapes |= conv(f"{side}.{3 + 3 * stage}.convtr.convtr", (width, width // 2, 2 * ratio),
                       width // 2)  # fmt: skip
        shapes |= residual(f"{side}.{4 + 3 * stage}", width // 2)
    shapes |= conv(f"{side}.12.conv.conv", (1, FILTERS, 5), 1)
    for level in range(LEVELS):
        name = f"quantizer.rvq.layers.{level}._codebook"
        shapes |= {f"{name}.inited": (1,), f"{name}.cluster_size": (SIZE,),
                   f"{name}.embed": (SIZE, WIDTH), f"{name}.embed_avg": (SIZE, WIDTH)}  # fmt: skip
    return shapes


def omni_shapes(depth=2):
    shapes = {"mask_token": (WIDTH,), **dense("projection", LM, WIDTH),
              **dense("predict_head", LEVELS * SIZE, LM)}  # fmt: skip
    for number in range(depth):
        name = f"blocks.{number}"
        shapes |= {f"{name}.pre_attn_norm.weight": (LM,), f"{name}.pre_ff_norm.weight": (LM,)}
        for part in ("time_attn", "spatial_attn"):
            shapes |= dense(f"{name}.{part}.qkv", 3 * LM // 2, LM // 2)
            shapes |= dense(f"{name}.{part}.proj", LM // 2, LM // 2)
        shapes |= dense(f"{name}.ff.layer.0", 4 * LM, LM) | dense(f"{name}.ff.layer.2", LM, 4 * LM)
    return shapes


def turns():
    frequencies = 1.0 / (10000 ** (torch.arange(0, LM // 2, 2).float() / (LM // 2)))
    angles = torch.outer(torch.arange(240).float(), frequencies)
    return frequencies, torch.polar(torch.ones_like(angles), angles)


def checkpoint(cache="complex"):
    """A file of both networks; ``cache`` is "complex", or "cosine" as in the release."""
    generator = torch.Generator().manual_seed(0)
    arrays = {f"tokenizer.{name}": shape for name, shape in tokenizer_shapes().items()}
    arrays = {name: 0.4 * torch.randn(shape, generator=generator)
              for name, shape in (arrays | omni_shapes()).items()}  # fmt: skip
    for name in arrays:
        if name.endswith(("inited", "norm.weight")):
            arrays[name] = torch.ones_like(arrays[name])
    frequencies, rotation = turns()
    for number in (0, 1):
        name = f"blocks.{number}.time_attn.rope_embedding_layer"
        stored = {"complex": rotation, "cosine": rotation.real.contiguous()}[cache]
        arrays |= {f"{name}.rotate": stored, f"{name}.freqs": frequencies.bfloat16().float()}
    return arrays


def normed(arrays, name):
    v = arrays[f"{name}.weight_v"]
    return arrays[f"{name}.weight_g"] * v / v.flatten(1).norm(dim=1)[:, None, None]


def test_every_array_of_the_tokenizer_has_its_place():
    arrays = checkpoint()
    network = load_tokenizer(arrays, **SETTINGS)
    published = sum(v.numel() for name, v in arrays.items() if name.startswith("tokenizer."))
    assert sum(v.numel() for v in network.state_dict().values()) == published
    alone = {k.removeprefix("tokenizer."): v for k, v in arrays.items() if "tokenizer" in k}
    other = load_tokenizer(alone, **SETTINGS)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in network.state_dict().items())


@torch.no_grad()
def test_sensors_and_first_layers_compute_what_the_release_computes():
    arrays = checkpoint()
    network = load_tokenizer(arrays, **SETTINGS)
    own = {k.removeprefix("tokenizer."): v for k, v in arrays.items()}

    def layer(name, x):
        return linear(x, own[f"{name}.weight"], own[f"{name}.bias"])

    geometry, kinds = torch.randn(5, 6), torch.tensor([0, 1, 2, 2, 0])
    x = selu(layer("sensor_embed.pos_embedding_layer.0", geometry))
    x = layer("sensor_embed.pos_embedding_layer.2", x)
    x = x + own["sensor_embed.sensor_embedding_layer.weight"][kinds]
    inner = selu(layer("sensor_embed.aggregate_mlp.layer.0", x))
    x = x + layer("sensor_embed.aggregate_mlp.layer.2", inner)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * own["sensor_embed.norm.weight"]
    assert torch.allclose(network.sensors(geometry, kinds), x, atol=1e-5)

    def convolved(name, x, stride=1):
        full = f"encoder.seanet_encoder.model.{name}.conv.conv"
        kernel = own[f"{full}.weight_v"].shape[2]
        total = kernel - stride
        x = pad(x, (total - total // 2, total // 2), mode="reflect") if total else x
        return conv1d(x, normed(own, full), own[f"{full}.bias"], stride)

    signal = torch.randn(2, 1, 64)
    x = convolved("0", signal)
    x = convolved("1.shortcut", x) + convolved("1.block.3", elu(convolved("1.block.1", elu(x))))
    x = convolved("3", elu(x), stride=2)
    first = network.encoder.first(signal.transpose(1, 2))
    ours = network.encoder.stages[1](network.encoder.stages[0](first))
    assert torch.allclose(ours.transpose(1, 2), x, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("cache", ["complex", "cosine"])
def test_a_block_computes_what_the_release_computes(cache):
    arrays = checkpoint(cache)
    network = load_omni(arrays, load_tokenizer(arrays, **SETTINGS), n_heads=4).eval()
    rotation = arrays["blocks.0.time_attn.rope_embedding_layer.rotate"]

    def attention(name, x, turned):
        qkv = linear(x, arrays[f"{name}.qkv.weight"], arrays[f"{name}.qkv.bias"])
        n, heads, outs = len(x), 2, []
        query, key, value = (part.view(n, heads, -1) for part in qkv.chunk(3, dim=-1))
        if turned:
            steps = rotation[:n].view(n, heads, -1)
            query, key = (
                torch.view_as_real(
                    torch.view_as_complex(v.reshape(n, heads, -1, 2).contiguous()) * steps
                ).flatten(2)
                for v in (query, key)
            )
        for h in range(heads):
            scores = query[:, h] @ key[:, h].T / math.sqrt(query.shape[-1])
            outs.append(scores.softmax(-1) @ value[:, h])
        out = torch.cat(outs, -1)
        return linear(out, arrays[f"{name}.proj.weight"], arrays[f"{name}.proj.bias"])

    def rms(name, x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * arrays[f"{name}.weight"]

    x = torch.randn(1, SOURCES, 5, LM)
    normal, mixed = rms("blocks.0.pre_attn_norm", x), torch.zeros_like(x)
    for source in range(SOURCES):
        part = normal[0, source, :, : LM // 2]
        mixed[0, source, :, LM // 2 :] = attention("blocks.0.time_attn", part, True)
    for step in range(5):
        part = normal[0, :, step, LM // 2 :]
        mixed[0, :, step, : LM // 2] = attention("blocks.0.spatial_attn", part, False)
    y = x + mixed
    inner = rms("blocks.0.pre_ff_norm", y)
    for number in (0, 2):
        name = f"blocks.0.ff.layer.{number}"
        inner = linear(inner, arrays[f"{name}.weight"], arrays[f"{name}.bias"])
        inner = inner if number else selu(inner)
    assert torch.allclose(network.blocks[0](x), y + inner, atol=1e-4)


@torch.no_grad()
def test_a_cache_that_lost_its_sines_can_be_rebuilt():
    arrays = checkpoint("cosine")
    tokenizer = load_tokenizer(arrays, **SETTINGS)
    codes = torch.randint(0, SIZE, (1, SOURCES, 7, LEVELS))
    whole = load_omni(checkpoint(), tokenizer, n_heads=4).eval()
    rebuilt = load_omni(arrays, tokenizer, n_heads=4, rotary="rotation").eval()
    as_stored = load_omni(arrays, tokenizer, n_heads=4).eval()
    assert torch.equal(whole.predict(codes), rebuilt.predict(codes))
    assert not torch.allclose(whole.predict(codes), as_stored.predict(codes), atol=1e-3)
    with_zeros = checkpoint()
    for name in with_zeros:
        if name.endswith("rotate"):
            with_zeros[name] = torch.complex(arrays[name], torch.zeros_like(arrays[name]))
    assert torch.equal(load_omni(with_zeros, tokenizer, n_heads=4).eval().predict(codes),
                       as_stored.predict(codes))  # fmt: skip
    assert torch.equal(whole.codebooks, tokenizer.quantizer.codebooks)


@pytest.mark.parametrize("change", ["missing", "left over", "shape"])
def test_checkpoints_that_do_not_fit_are_refused(change):
    arrays = checkpoint()
    name = "tokenizer.encoder.k_proj.weight"
    if change == "missing":
        del arrays[name]
    elif change == "left over":
        arrays["tokenizer.encoder.other.weight"] = torch.zeros(2)
    else:
        arrays[name] = torch.zeros(3, 3)
    with pytest.raises(ModelError, match="does not fit the network"):
        load_tokenizer(arrays, **SETTINGS)


def test_other_angles_and_files_without_an_encoder_are_refused():
    arrays = checkpoint()
    tokenizer = load_tokenizer(arrays, **SETTINGS)
    alone = {k: v for k, v in arrays.items() if k.startswith("tokenizer.")}
    with pytest.raises(ModelError, match="no checkpoint of the encoder"):
        load_omni(alone, tokenizer, n_heads=4)
    name = "blocks.1.time_attn.rope_embedding_layer.rotate"
    arrays[name] = arrays[name].roll(1, 0)
    with pytest.raises(ModelError, match="other angles"):
        load_omni(arrays, tokenizer, n_heads=4)
