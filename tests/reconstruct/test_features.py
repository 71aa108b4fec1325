"""Presets and features: what the papers' code does to a picture, and golden values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from braindecode_pipe.errors import DataError, ModelError, RecipeError
from braindecode_pipe.evaluate.reconstruction import own
from braindecode_pipe.networks.imagenet import AlexNet
from braindecode_pipe.reconstruct.features import (
    FeatureNetworks,
    convert,
    describe,
    load_weights,
    resized,
    score_pictures,
    seen,
)
from braindecode_pipe.reconstruct.presets import PRESETS, Preset, preset_of


def fixed_pictures(n=4, side=64):
    """Discs and stripes whose every pixel follows from a formula."""
    y, x = np.mgrid[:side, :side] / side
    made = []
    for k in range(n):
        disc = (x - 0.3 - 0.1 * k) ** 2 + (y - 0.5) ** 2 < 0.04
        stripes = (np.sin(2 * np.pi * (k + 1) * (x + y)) + 1) / 2
        made.append(np.stack([disc * 1.0, stripes, 0.2 * k + 0 * x], -1))
    return np.round(np.array(made) * 255).astype(np.uint8)


def only(name, *metrics):
    preset = PRESETS[name]
    kept = tuple(c for c in preset.comparisons if c.metric.name in metrics)
    return Preset(preset.name, preset.side, preset.antialias, kept)


def test_the_eight_metrics_of_the_field():
    for name in ("mindeye2", "neuropictor"):
        sizes = {c.metric.name: (c.metric.kind, c.view.side, c.view.mode, c.node)
                 for c in PRESETS[name].comparisons}  # fmt: skip
        clip = "bilinear" if name == "mindeye2" else "bicubic"
        assert sizes == {
            "PixCorr": ("correlation", 425, "bilinear", ""),
            "SSIM": ("ssim", 425, "bilinear", ""),
            "AlexNet(2)": ("two-way", 256, "bilinear", "features.4"),
            "AlexNet(5)": ("two-way", 256, "bilinear", "features.11"),
            "Inception": ("two-way", 342, "bilinear", "avgpool"),
            "CLIP": ("two-way", 224, clip, "image_embeds"),
            "EffNet-B": ("distance", 255, "bilinear", "avgpool"),
            "SwAV": ("distance", 224, "bilinear", "avgpool"),
        }
    assert not PRESETS["mindeye2"].antialias


def test_the_stand_in_never_bears_the_names_of_the_field():
    field = {c.metric.name for c in PRESETS["mindeye2"].comparisons} - {"PixCorr", "SSIM"}
    stand_ins = [c.metric for c in PRESETS["offline"].comparisons if c.metric.stand_in_for]
    assert {m.stand_in_for for m in stand_ins} == field
    assert all("Lite0" in m.name and "lite0" in m.feature for m in stand_ins)
    with pytest.raises(RecipeError, match="no such preset"):
        preset_of("mindeye3")


def test_resizing_without_antialias_samples_where_torchvision_did():
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) / 8
    # Centres of 4 pixels among 8: 0.5, 2.5, 4.5, 6.5, each halfway between two.
    expected = torch.tensor([0.5, 2.5, 4.5, 6.5]) / 8
    torch.testing.assert_close(resized(ramp, 4, "bilinear", False)[0, 0, 0], expected)
    # Averaging where it shrinks reaches further, so that the ends differ.
    assert not torch.allclose(resized(ramp, 4, "bilinear", True)[0, 0, 0], expected)
    view = PRESETS["mindeye2"].comparisons[5].view
    grey = seen(torch.full((1, 3, 224, 224), 0.5), view, False)
    torch.testing.assert_close(
        grey[0, :, 0, 0],
        torch.tensor([(0.5 - m) / s for m, s in zip(view.mean, view.std)]),
    )


def test_golden_values_of_fixed_pictures():
    """PixCorr and SSIM agree with numpy and scikit-image, which gave .53873 and .36274."""
    pictures = fixed_pictures(6)
    moved = np.roll(pictures, (7, 9), axis=(1, 2))
    targets = moved[[1, 0, 2, 3, 5, 4]] // 2 + moved // 2
    networks = FeatureNetworks()
    pool = score_pictures(PRESETS["offline"], pictures, targets, networks, {"same": targets})
    found = {name: float(own(matrix).mean()) for name, matrix in pool.scores.items()}
    assert found == pytest.approx(GOLDEN, abs=2e-4)
    best = {name: float(values.mean()) for name, values in pool.controls["same"].items()}
    # Targets 0 and 1, 4 and 5 are equal: four of the six have one tie among five others.
    for name, value in best.items():
        exact = 0.0 if "distance" in name else (4 * 0.9 + 2) / 6 if "two-way" in name else 1.0
        assert value == pytest.approx(exact, abs=1e-6), name


GOLDEN = {
    "PixCorr": 0.53873,
    "SSIM": 0.36274,
    "Lite0 blocks.2 two-way": 0.63333,
    "Lite0 blocks.4 two-way": 0.66667,
    "Lite0 head two-way": 0.86667,
    "Lite0 logits two-way": 0.86667,
    "Lite0 head distance": 0.11882,
    "Lite0 blocks.15 distance": 0.21912,
}


def test_weights_come_from_a_folder_and_must_fit(tmp_path):
    torch.manual_seed(0)
    network = AlexNet()
    whole = {**network.state_dict(), "classifier.1.weight": torch.zeros(2, 2)}
    torch.save({f"module.{k}": v for k, v in whole.items()}, tmp_path / "published.pth")
    file = convert(tmp_path / "published.pth", "alexnet", tmp_path)
    found = load_weights("alexnet", file)
    pictures = fixed_pictures(2)
    preset = only("mindeye2", "AlexNet(2)", "AlexNet(5)")
    features = describe(preset, pictures, FeatureNetworks(tmp_path))
    with torch.inference_mode():
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
        x = seen(resized(x, 256, "bilinear", False), preset.comparisons[0].view, False)
        expected = found.nodes(x, ["features.4"])["features.4"].flatten(1).numpy()
    np.testing.assert_array_equal(features["AlexNet(2)"], expected)
    assert features["AlexNet(2)"].shape == (2, 192 * 31 * 31)
    file.rename(tmp_path / "swav_resnet50.safetensors")
    with pytest.raises(ModelError, match="not the weights of swav_resnet50"):
        load_weights("swav_resnet50", tmp_path / "swav_resnet50.safetensors")
    with pytest.raises(ModelError, match="missing"):
        load_weights("alexnet", file)
    (tmp_path / "alexnet.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights("alexnet", file)


def test_missing_networks_and_wrong_pictures_are_told(tmp_path):
    with pytest.raises(ModelError, match="folder of the metrics"):
        FeatureNetworks(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="need the network alexnet"):
        describe(only("mindeye2", "AlexNet(2)"), fixed_pictures(2), FeatureNetworks())
    with pytest.raises(DataError, match="no pictures"):
        describe(PRESETS["offline"], fixed_pictures().astype(float), FeatureNetworks())
