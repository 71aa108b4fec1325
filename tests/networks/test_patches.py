"""Patches of a fixed duration at any repetition time."""

import numpy as np
import pytest
import torch

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.patches import (
    PatchEmbedding,
    PatchPositions,
    VertexPatchEmbedding,
    VolumePatchEmbedding,
    patch_length,
    resample_kernel,
    resize_matrix,
    split_patches,
)
from braindecode_pipe.tokenize.patches import downsample, parcel_series

T_R = 0.735


def slow_series(n_places, n_times, t_r, seed=0):
    """Simulated noise below 0.1 Hz, as BOLD has it."""
    noise = np.fft.rfft(np.random.default_rng(seed).standard_normal((n_places, n_times)))
    noise[:, np.fft.rfftfreq(n_times, t_r) > 0.1] = 0
    series = np.fft.irfft(noise, n_times)
    return (series / series.std(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("t_r", "length"), [(0.735, 48), (1.47, 24), (2.205, 16), (2.94, 12), (0.72, 49), (2.0, 18)]
)
def test_length_is_the_duration_over_the_repetition_time(t_r, length):
    assert patch_length(t_r) == length == round(35.28 / t_r)


@pytest.mark.parametrize("t_r", [0.0, -1.0, float("nan"), float("inf"), 735.0])
def test_repetition_times_without_a_patch_are_refused(t_r):
    with pytest.raises(ModelError, match="a patch without samples"):
        patch_length(t_r)


def test_interpolation_by_hand():
    # A triangle of half-width 2 around the middle of two samples; the first row is cut.
    inner, cut = torch.tensor([1, 3, 3, 1]) / 8, torch.tensor([3, 3, 1]) / 7
    halved = resize_matrix(8, 4, "linear").float()
    assert torch.allclose(halved[1, 1:5], inner) and torch.allclose(halved[0, :3], cut)
    doubled = resize_matrix(4, 8, "linear").float()
    assert torch.allclose(doubled[3], torch.tensor([0, 0.75, 0.25, 0]))
    for how in ("linear", "bicubic"):
        assert torch.allclose(resize_matrix(48, 17, how).sum(1), torch.ones(17).double())
        assert torch.allclose(resize_matrix(9, 9, how), torch.eye(9).double())
    with pytest.raises(ModelError, match="unknown interpolation"):
        resize_matrix(8, 4, "nearest")


@pytest.mark.parametrize("how", ["linear", "bicubic"])
def test_kernels_are_resampled_by_the_pseudo_inverse(how):
    torch.manual_seed(0)
    kernel, x = torch.randn(5, 48, dtype=torch.float64), torch.randn(48, dtype=torch.float64)
    assert resample_kernel(kernel, 48, how) is kernel
    # More samples: the answer is the same for every signal.
    finer = resize_matrix(48, 96, how)
    assert torch.allclose(resample_kernel(kernel, 96, how) @ (finer @ x), kernel @ x)
    # Fewer: least squares, found here from the normal equations.
    coarser = resize_matrix(48, 24, how)
    expected = torch.linalg.solve(coarser @ coarser.T, coarser @ kernel.T).T
    assert torch.allclose(resample_kernel(kernel, 24, how), expected)


def test_nothing_changes_at_the_repetition_time_of_the_kernels():
    torch.manual_seed(0)
    embedding, x = PatchEmbedding(16), torch.randn(2, 3, 100)
    tokens, keep = embedding(x, T_R)
    expected = x[..., :96].unflatten(-1, (2, 48)) @ embedding.kernel.T + embedding.bias
    assert tokens.shape == (2, 3, 2, 16) and keep.all()
    assert torch.allclose(tokens, expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bicubic", "linear"])
@pytest.mark.parametrize(
    ("how", "factor", "least"),
    [("mean", 2, 0.998), ("mean", 3, 0.99), ("mean", 4, 0.98), ("every", 2, 0.98)],
)
def test_the_same_signal_at_another_repetition_time_gives_close_tokens(
    interpolation, how, factor, least
):
    torch.manual_seed(0)
    embedding = PatchEmbedding(64, interpolation=interpolation)
    x = slow_series(20, 48 * 6, T_R)
    slower, t_r = downsample(x, T_R, factor, how)
    with torch.no_grad():
        fine = embedding(torch.from_numpy(x)[None], T_R)[0].flatten(0, 2)
        coarse = embedding(torch.from_numpy(slower)[None], t_r)[0].flatten(0, 2)
        plain = torch.from_numpy(slower).reshape(-1, 48 // factor)
        unresampled = plain @ embedding.kernel[:, : 48 // factor].T
    cosine = torch.nn.functional.cosine_similarity(fine, coarse, dim=1)
    control = torch.nn.functional.cosine_similarity(fine, unresampled, dim=1)
    print(f"\n{interpolation} {how} x{factor}: {cosine.mean():.4f}, cut {control.mean():.4f}")
    assert cosine.mean() > least
    assert 0.95 < coarse.norm() / fine.norm() < 1.1
    assert control.mean() < 0.6


def test_7200_functional_tokens():
    with torch.device("meta"):
        embedding, positions = PatchEmbedding(768), PatchPositions(230, 768)
        for t_r, n_times in ((0.735, 864), (1.47, 432), (2.205, 288), (2.94, 216)):
            tokens, keep = embedding(torch.empty(1, 400, n_times), t_r)
            assert tokens.shape == (1, 400, 18, 768)
            assert tokens.flatten(1, 2).shape[1] == keep.flatten(1).shape[1] == 7200
        assert positions(torch.empty(400, 230), 18).flatten(0, 1).shape == (7200, 768)


def test_patches_with_a_masked_sample_are_left_out_whatever_it_holds():
    torch.manual_seed(0)
    embedding, x = PatchEmbedding(4, t_r=5.0), torch.randn(2, 3, 22)
    mask = torch.ones(2, 22, dtype=torch.bool)
    mask[0, 8], mask[1, 21] = False, False
    x_bad = x.clone()
    x_bad[0, :, 8] = torch.nan
    tokens, keep = embedding(x_bad, 5.0, mask)
    assert keep[0].tolist() == [[True, False, True]] * 3 and keep[1].all()
    expected = embedding(x, 5.0)[0]
    assert torch.equal(tokens[keep], expected[keep]) and not tokens[~keep].any()
    per_place = mask[:, None].repeat(1, 3, 1)
    per_place[0, 1] = True
    assert split_patches(x, 5.0, mask=per_place)[1][0].tolist()[1] == [True] * 3
    tokens.sum().backward()
    assert torch.isfinite(embedding.kernel.grad).all()


@pytest.mark.parametrize("t_r", [0.735, 0.8, 2.0, 2.5, 3.0, 7.5])
def test_patches_do_not_drift(t_r):
    n_times, length = round(20 * 35.28 / t_r), patch_length(t_r)
    times = torch.arange(n_times, dtype=torch.float64)[None, None] * t_r
    patches, keep = split_patches(times, t_r)
    starts = patches[0, 0, :, 0]
    expected = 35.28 * torch.arange(len(starts), dtype=torch.float64)
    assert (starts - expected).abs().max() <= t_r / 2 + 1e-9
    assert keep.all() and len(starts) >= 19
    assert patches[0, 0, -1, -1] <= times.max()
    assert torch.allclose(patches.diff(dim=-1), torch.tensor(t_r).double())
    if round(35.28 / t_r, 9).is_integer():
        whole = times[0, 0, : len(starts) * length].view(-1, length)
        assert torch.equal(patches[0, 0], whole)


def test_a_series_shorter_than_a_patch_is_refused():
    with pytest.raises(ModelError, match="shorter than one patch"):
        PatchEmbedding(4)(torch.zeros(1, 1, 47), T_R)


def test_positions_are_place_plus_time():
    torch.manual_seed(0)
    positions, places = PatchPositions(5, 8), torch.randn(4, 5)
    found = positions(places, 3)
    time = found - positions.place(places)[:, None]
    assert torch.allclose(time, time[:1].expand(4, -1, -1), atol=1e-6)
    assert torch.allclose(time[0, 0], torch.tensor([0.0] * 4 + [1.0] * 4), atol=1e-6)
    assert torch.allclose(time[0, 2, [0, 4]], torch.tensor([2.0, 2.0]).sin().where(
        torch.tensor([True, False]), torch.tensor([2.0, 2.0]).cos()), atol=1e-6)  # fmt: skip
    with pytest.raises(ModelError, match="an even width"):
        PatchPositions(5, 7)


def test_1200_structural_tokens():
    with torch.device("meta"):
        assert VolumePatchEmbedding(16, 768)(torch.empty(1, 160, 192, 160)).shape == (1, 1200, 768)


def test_a_token_of_a_volume_is_a_cube():
    torch.manual_seed(0)
    embedding, volume = VolumePatchEmbedding(2, 3), torch.randn(1, 4, 2, 6)
    found = embedding(volume)
    assert found.shape == (1, 2 * 1 * 3, 3)
    cube = volume[0, 2:4, 0:2, 2:4].flatten()
    assert torch.allclose(found[0, 1 * 3 + 1], embedding.linear(cube), atol=1e-6)
    for bad in (torch.zeros(1, 4, 2, 5), torch.zeros(4, 2, 6)):
        with pytest.raises(ModelError, match="cubes do not fill"):
            embedding(bad)


def test_vertices_of_a_patch_and_its_padding():
    torch.manual_seed(0)
    embedding, x = VertexPatchEmbedding(3, 4), torch.randn(2, 5, 3)
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[1, 2] = mask[4] = False
    x_bad = torch.where(mask, x, torch.nan)
    tokens, keep = embedding(x_bad, mask)
    assert keep.tolist() == [[True] * 4 + [False]] * 2
    assert torch.equal(tokens[:, 0], embedding.linear(x[:, 0])) and not tokens[:, 4].any()
    x[:, 1, 2] = 0
    assert torch.allclose(tokens[:, 1], embedding.linear(x[:, 1]), atol=1e-6)


@pytest.mark.data
def test_parcels_of_a_real_run_are_found_again_at_twice_the_repetition_time(shared_data):
    nibabel = pytest.importorskip("nibabel")
    run = "haxby2001-lowres/sub-01/func/sub-01_task-objectviewing_run-02_bold.nii.gz"
    if not (shared_data / run).is_file():
        pytest.skip(f"{run} is not among the small real recordings")
    x = np.asarray(nibabel.load(shared_data / run).dataobj, np.float32)
    mask = x.mean(-1) > 0.5 * np.percentile(x.mean(-1), 98)
    _, cube = np.unique(np.argwhere(mask) // 3, axis=0, return_inverse=True)
    series = parcel_series(x[mask], 1 + cube.ravel()).values
    series = (series - series.mean(1, keepdims=True)) / series.std(1, keepdims=True)
    slower, t_r = downsample(series, 2.5, 2)
    torch.manual_seed(0)
    embedding = PatchEmbedding(64)
    with torch.no_grad():
        fine, coarse = (
            embedding(torch.from_numpy(values)[None], seconds)[0][0, :, 0]
            for values, seconds in ((series, 2.5), (slower, t_r))
        )
    cosine = torch.nn.functional.cosine_similarity(fine[:, None], coarse[None], dim=2)
    found = (cosine.argmax(1) == torch.arange(len(cosine))).float().mean()
    print(f"\n{len(cosine)} parcels: cosine {cosine.diag().mean():.3f}, found again {found:.2f}")
    assert len(cosine) >= 10 and found > 0.8
