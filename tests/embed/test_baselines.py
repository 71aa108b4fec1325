"""Features of pictures without weights, against naive loops."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from braindecode_pipe.embed import BUILT_IN, embed, model_fingerprint
from braindecode_pipe.embed.baselines import gabor_bank, gabor_energy, oriented_gradients
from braindecode_pipe.embed.loading import BUILT_IN_NAMES
from braindecode_pipe.errors import ModelError
from braindecode_pipe.recipe import EmbedSpec


def _grating(angle, frequency, size=64):
    y, x = np.mgrid[:size, :size]
    phase = 2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))
    return 0.5 + 0.5 * np.sin(phase)


def test_gradients_equal_a_naive_loop():
    grey = np.random.default_rng(0).random((24, 32))
    cells = np.zeros((3, 4, 9))
    for y in range(24):
        for x in range(32):
            dx = grey[y, min(x + 1, 31)] - grey[y, max(x - 1, 0)]
            dy = grey[min(y + 1, 23), x] - grey[max(y - 1, 0), x]
            place = np.arctan2(dy, dx) % np.pi / np.pi * 9 - 0.5
            low = int(np.floor(place))
            for number, share in ((low, 1 - (place - low)), (low + 1, place - low)):
                cells[y // 8, x // 8, number % 9] += np.hypot(dx, dy) * share
    expected = []
    for y in range(2):
        for x in range(3):
            block = np.concatenate([cells[y, x], cells[y, x + 1], cells[y + 1, x],
                                    cells[y + 1, x + 1]])  # fmt: skip
            expected += list(block / np.linalg.norm(block))
    np.testing.assert_allclose(oriented_gradients(grey), expected, atol=1e-10)
    np.testing.assert_allclose(oriented_gradients(1e-13 * grey), expected, atol=1e-10)
    assert (oriented_gradients(np.ones((16, 16))) == 0).all()


def test_gabor_energy_equals_convolution_and_finds_its_grating():
    grey = np.random.default_rng(0).random((16, 16))
    bank = gabor_bank(16)
    found = gabor_energy(grey, grid=4).reshape(len(bank), 4, 4)
    for k in (0, 13, 31):
        kernel = np.fft.ifft2(bank[k])
        response = np.zeros((16, 16), complex)
        for dy in range(16):
            for dx in range(16):
                response += kernel[dy, dx] * np.roll(grey, (dy, dx), (0, 1))
        energy = np.abs(response).reshape(4, 4, 4, 4).mean((1, 3))
        np.testing.assert_allclose(found[k], energy, atol=1e-10)
    for number in (0, 3, 6):
        energy = gabor_energy(_grating(np.pi * number / 8, 1 / 16)).reshape(4, 8, -1).mean(2)
        assert np.unravel_index(energy.argmax(), energy.shape) == (1, number)
    assert np.abs(gabor_energy(np.full((16, 16), 0.7))).max() < 1e-12


def test_colours_are_counted():
    picture = Image.new("RGB", (32, 32), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 32, 8))
    (vector,) = embed([picture], "colour")
    assert vector[48] == pytest.approx(0.75) and vector[3] == pytest.approx(0.25)
    np.testing.assert_allclose(vector[64:67], [0.75, 0, 0.25], atol=1e-6)
    assert vector[:64].sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["pixels", "hog", "gabor", "colour"])
def test_pictures_of_any_size_have_equal_features(name, pictures):
    found = embed([*pictures, Image.new("L", (300, 5))], name)
    assert found.shape[0] == 6 and np.isfinite(found).all() and found.std(0).max() > 0
    with pytest.raises(ModelError, match=f"{name} has no layers"):
        embed(pictures, name, layer=1)
    assert model_fingerprint(EmbedSpec(model=name))["model"] == name


def test_every_built_in_name_is_listed_once():
    assert tuple(BUILT_IN) == BUILT_IN_NAMES
    text = EmbedSpec.model_fields["model"].description
    assert all(name in text for name in BUILT_IN)
