"""BrainTokenizer: counts of the paper, sensors in any order and number, losses by hand."""

import math

import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.sensors import normalize_signal, sensor_geometry
from braindecode_pipe.networks.tokenizer import (
    BrainTokenizer,
    Gather,
    correlation,
    spectral_errors,
    standardized,
)

SMALL = {"window": 32, "width": 16, "n_sources": 3, "n_heads": 2, "n_filters": 4, "ratios": (4, 2),
         "kernel": 3, "n_levels": 2, "codebook_size": 16}  # fmt: skip


def array(n, seed=0):
    """Geometry and kinds of ``n`` sensors."""
    generator = torch.Generator().manual_seed(seed)
    positions, orientations = torch.randn(2, n, 3, generator=generator).unbind(0)
    kinds = torch.randint(0, 3, (n,), generator=generator)
    return sensor_geometry(positions, orientations, kinds), kinds


@pytest.fixture
def small():
    torch.manual_seed(0)
    network = BrainTokenizer(**SMALL)
    # Start weights of 0.02 are for widths of hundreds; at this one attention would be flat.
    for part in (network.sensors, network.gather, network.spread):
        for p in part.parameters():
            p.data.mul_(8.0)
    return network.eval()


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return BrainTokenizer().eval()


def test_parameters_and_codebooks_of_the_paper(paper):
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in
             paper.named_children()}  # fmt: skip
    assert sum(count.values()) == 5_050_338
    assert count["sensors"] == 560_512
    assert count["encoder"] + count["gather"] == 2_247_104
    assert count["decoder"] + count["spread"] == 2_242_722
    assert count["quantizer"] == 0
    assert sum(b.numel() for b in paper.buffers()) == 1_050_628
    assert paper.quantizer.codebooks.shape == (4, 512, 256)


@torch.no_grad()
def test_two_seconds_are_16_by_8_tokens_of_4_codes_for_any_montage(paper):
    for n in (1, 19):
        geometry, kinds = array(n)
        tokens = paper.encode(torch.randn(1, n, 512), geometry, kinds)
        assert tokens.codes.shape == (1, 16, 8, 4)
        assert tokens.vectors.shape == (1, 16, 8, 256)
        assert torch.allclose(paper.quantizer.decode(tokens.codes), tokens.vectors)
    geometry, kinds = array(33, seed=1)
    assert paper.decode(tokens.codes, geometry, kinds).shape == (1, 33, 512)


@torch.no_grad()
def test_order_of_sensors_does_not_matter(paper):
    geometry, kinds = array(12)
    x, order = torch.randn(2, 12, 512), torch.randperm(12)
    one = paper.gather(
        paper.encoder(x.flatten(0, 1)).unflatten(0, (2, 12)),
        paper.sensors(geometry, kinds)[None].expand(2, -1, -1),
        torch.ones(2, 12, dtype=torch.bool),
    )
    two = paper.gather(
        paper.encoder(x[:, order].flatten(0, 1)).unflatten(0, (2, 12)),
        paper.sensors(geometry, kinds)[None, order].expand(2, -1, -1),
        torch.ones(2, 12, dtype=torch.bool),
    )
    assert (one - two).abs().max() < 1e-6
    tokens = paper.encode(x, geometry, kinds)
    turned = paper.encode(x[:, order], geometry[order], kinds[order])
    assert torch.equal(tokens.codes, turned.codes)
    assert (tokens.vectors - turned.vectors).abs().max() < 1e-6
    signals = paper.decode(tokens.vectors, geometry, kinds)
    assert (signals[:, order] - paper.decode(tokens.vectors, geometry[order], kinds[order])
            ).abs().max() < 1e-6  # fmt: skip


@torch.no_grad()
def test_masked_flat_and_broken_sensors_are_as_if_they_were_not_there(small):
    geometry, kinds = array(6)
    x = torch.randn(2, 6, 64)
    few = [0, 2, 3, 5]
    expected = small.encode(x[:, few], geometry[few], kinds[few])
    broken = x.clone()
    broken[:, 1], broken[:, 4, 7] = 3.0, torch.nan
    broken[:, 4, 40] = torch.inf
    mask = torch.tensor([True, False, True, True, False, True]).expand(2, -1)
    for out in (small.encode(broken, geometry, kinds), small.encode(x, geometry, kinds, mask)):
        assert torch.equal(out.codes, expected.codes)
        assert torch.allclose(out.vectors, expected.vectors, atol=1e-6)


@torch.no_grad()
def test_a_sensor_that_breaks_in_one_window_is_left_out_of_that_window_only(small):
    geometry, kinds = array(4)
    x = torch.randn(1, 4, 64)
    broken = x.clone()
    broken[0, 2, 40] = torch.nan
    tokens = small.encode(broken, geometry, kinds)
    few = [0, 1, 3]
    assert torch.equal(tokens.codes[:, :, :4], small.encode(x[..., :32], geometry, kinds).codes)
    without = small.encode(x[:, few, 32:], geometry[few], kinds[few])
    assert torch.equal(tokens.codes[:, :, 4:], without.codes)


@torch.no_grad()
def test_without_any_sensor_the_tokens_are_those_of_nothing(small):
    geometry, kinds = array(3)
    out = small.encode(torch.full((1, 3, 32), torch.nan), geometry, kinds)
    assert torch.isfinite(out.vectors).all()
    assert torch.equal(out.codes, small.encode(torch.zeros(1, 3, 32), geometry, kinds).codes)


@torch.no_grad()
def test_batches_windows_and_own_or_shared_geometry_give_the_same_tokens(small):
    geometry, kinds = array(5)
    x = torch.randn(4, 5, 96)
    whole = small.encode(x, geometry, kinds)
    one = small.encode(x[2:3, :, 32:64], geometry, kinds)
    assert torch.equal(one.codes, whole.codes[2:3, :, 4:8])
    own = small.encode(x, geometry.expand(4, -1, -1), kinds.expand(4, -1))
    assert torch.equal(own.codes, whole.codes)
    signals = small.decode(whole.codes, geometry, kinds)
    assert signals.shape == (4, 5, 96)
    assert torch.allclose(small.decode(one.codes, geometry, kinds), signals[2:3, :, 32:64],
                          atol=1e-5)  # fmt: skip


@torch.no_grad()
def test_overlap_of_a_quarter_gives_24_steps_in_4_seconds(small):
    """Three windows of 2 s in 5 s, as the paper counts 24 tokens for padded 4 s."""
    geometry, kinds = array(2)
    x = torch.randn(1, 2, 32 + 2 * 24)
    tokens = small.encode(x, geometry, kinds, overlap=0.25)
    assert tokens.codes.shape == (1, 3, 3 * 4, 2)
    assert torch.equal(tokens.codes[:, :, 4:8], small.encode(x[..., 24:56], geometry, kinds).codes)


@torch.no_grad()
def test_gathering_equals_attention_as_the_paper_writes_it():
    torch.manual_seed(0)
    gather = Gather(8, 3, 2)
    x, sensors = torch.randn(2, 5, 4, 8), torch.randn(1, 5, 8)
    mask = torch.rand(2, 5) < 0.7
    mask[:, 0] = True
    key, value = gather.key(x + sensors[:, :, None]), gather.value(x)
    out = torch.zeros(2, 4, 3, 8)
    for head in (slice(0, 4), slice(4, 8)):
        scores = torch.einsum("qd,bctd->btqc", gather.sources[:, head], key[..., head]) / 2
        weights = scores.masked_fill(~mask[:, None, None], -math.inf).softmax(-1)
        out[..., head] = torch.einsum("btqc,bctd->btqd", weights, value[..., head])
    assert torch.allclose(gather(x, sensors, mask), gather.out(out), atol=1e-5)


def test_losses_equal_their_formula(small):
    geometry, kinds = array(5)
    x = torch.randn(2, 5, 64)
    terms = small(x, geometry, kinds)
    target = standardized(x.unflatten(2, (2, 32)))
    # Of five sensors the fourth is hidden.
    mask = torch.tensor([True, True, True, False, True]).expand(2, -1)
    tokens = small.encode(x, geometry, kinds, mask)
    rebuilt = small.decode(tokens.vectors, geometry, kinds).unflatten(2, (2, 32))
    time = (rebuilt - target).abs().mean((1, 2, 3))
    r = correlation(rebuilt, target).mean((1, 2))
    amplitude, phase = (e.mean((1, 2)) for e in spectral_errors(rebuilt, target))
    for column, expected in enumerate((time, r, amplitude, phase)):
        assert torch.allclose(terms[:, column], expected, atol=1e-5), small.terms[column]
    means = terms.mean(0)
    total = time.mean() + torch.exp(-r.mean()) + amplitude.mean() + phase.mean() / 2 + means[4]
    assert torch.allclose(small.combine(means), total, atol=1e-5)


def test_spectral_errors_and_correlation_by_hand():
    n = torch.arange(64)
    wave = torch.cos(2 * math.pi * 8 * n / 64)
    amplitude, phase = spectral_errors(2 * wave, wave)
    window = torch.hamming_window(64)
    expected = torch.fft.rfft(window * wave, norm="ortho").abs().mean()
    assert torch.allclose(amplitude, expected, atol=1e-6)
    assert phase < 1e-5
    noise = torch.randn(64)
    assert torch.allclose(spectral_errors(-noise, noise)[1], torch.tensor(math.pi), atol=1e-4)
    assert torch.allclose(correlation(-3 * noise + 1, noise), torch.tensor(-1.0))
    assert correlation(torch.ones(64), noise) == 0
    y = torch.randn(64)
    assert correlation(noise, y) == pytest.approx(torch.corrcoef(torch.stack([noise, y]))[0, 1])


def test_flat_and_hidden_sensors_have_finite_gradients(small):
    geometry, kinds = array(4)
    x = torch.randn(3, 4, 32)
    x[0], x[1, 2], x[2, 1, 3] = 0.0, 1.0, torch.nan
    small.train()
    small.combine(small(x, geometry, kinds).mean(0)).backward()
    for name, p in small.named_parameters():
        # The bias of the keys moves all scores alike and has no gradient.
        assert name == "gather.key.bias" or torch.isfinite(p.grad).all(), name


def test_a_quarter_is_hidden_anew_in_training_and_never_the_only_sensor(small):
    small.train()
    present = torch.ones(200, 8, dtype=torch.bool)
    present[0, 1:], present[1, 2:] = False, False
    hidden = small._hide(present)
    assert not (hidden & ~present).any()
    assert hidden.sum(1).tolist() == [0, 1] + [2] * 198
    share = hidden[2:].float().mean(0)
    assert (share - 0.25).abs().max() < 0.15
    assert small.eval()._hide(present).sum(1).tolist() == [0, 1] + [2] * 198


def test_bfloat16_changes_few_codes(small):
    geometry, kinds = array(6)
    x = normalize_signal(torch.randn(4, 6, 64), kinds.expand(4, -1))
    with torch.no_grad():
        exact = small.encode(x, geometry, kinds)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = small.encode(x, geometry, kinds)
    assert half.vectors.dtype == torch.float32
    assert (exact.codes[..., 0] == half.codes[..., 0]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 30}, "does not fit the convolutions"),
        ({"window": 8}, "does not fit the convolutions"),
        ({"n_heads": 3}, "share the width"),
        ({"hidden": 1.0}, "must be seen"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ModelError, match=message):
        BrainTokenizer(**{**SMALL, **settings})


def test_bad_input_is_named(small):
    geometry, kinds = array(3)
    with pytest.raises(ModelError, match="do not fill whole windows"):
        small.encode(torch.randn(1, 3, 40), geometry, kinds)
    with pytest.raises(ModelError, match="do not fit the signals"):
        small.encode(torch.randn(1, 4, 32), geometry, kinds)
    with pytest.raises(ModelError, match="not finite"):
        small.encode(torch.randn(1, 3, 32), geometry * torch.nan, kinds)
