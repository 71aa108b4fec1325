"""Pictures whose embedding says what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from braindecode_pipe.reconstruct.embedded import TrainingPictures
from braindecode_pipe.splits import FitScope


def discs(code: np.ndarray, side: int = 16) -> np.ndarray:
    """(n, 5) in 0 to 1 -> (n, side, side, 3): a disc's place and its colour."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    made = np.ones((len(code), side, side, 3))
    for picture, (a, b, *colour) in zip(made, code):
        inside = (x - 0.2 - 0.6 * a) ** 2 + (y - 0.2 - 0.6 * b) ** 2 < 0.06
        picture[inside] = colour
    return np.round(made * 255).astype(np.uint8)


@pytest.fixture(scope="session", name="discs")
def _discs():
    """Writer of such pictures."""
    return discs


@pytest.fixture(scope="session")
def study():
    """80 training and 20 test pictures with embeddings that are linear in what they show."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    code = rng.random((100, 5))
    embeddings = (code - 0.5) @ rng.normal(size=(5, 12)) * 3 + 1
    pictures = discs(code)
    training = TrainingPictures(
        [f"s{i}" for i in range(80)], pictures[:80], embeddings[:80],
        FitScope("0", ("e1", "e2")), [f"s{i}" for i in range(80, 100)],
    )  # fmt: skip
    return training, embeddings[80:], pictures[80:]
