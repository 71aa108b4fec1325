"""The normaliser of embeddings: formulas, scale, what it remembers."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.fitting.normalizer import Normalizer
from braindecode_pipe.splits import content_hash


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 3)) @ rng.normal(size=(3, 6)) + rng.normal(size=6)


def test_whitened_training_stimuli_are_uncorrelated_with_variance_one(embeddings):
    fitted = Normalizer.fit("whiten", embeddings)
    white = fitted(embeddings)
    assert white.shape == (40, 3)  # three directions carry variance
    np.testing.assert_allclose(white.T @ white / 40, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-10)


def test_whitening_equals_the_eigenvectors_of_the_covariance(embeddings):
    fitted = Normalizer.fit("whiten", embeddings, components=2)
    values, vectors = np.linalg.eigh(np.cov(embeddings.T, bias=True))
    for k in range(2):
        vector = vectors[:, -1 - k]
        vector = vector * np.sign(vector[np.abs(vector).argmax()])
        np.testing.assert_allclose(fitted.components[k], vector, atol=1e-8)
        assert fitted.scale[k] ** 2 == pytest.approx(values[-1 - k])


@pytest.mark.parametrize("kind", ["none", "center", "zscore", "whiten"])
@pytest.mark.parametrize("scale", [1e-13, 1e6])
def test_scale_only_matters_where_it_is_kept(kind, scale, embeddings):
    small, large = (Normalizer.fit(kind, s * embeddings)(s * embeddings) for s in (1.0, scale))
    factor = scale if kind in ("none", "center") else 1.0
    np.testing.assert_allclose(large / factor, small, rtol=1e-6, atol=1e-9)


def test_few_or_equal_stimuli_leave_what_there_is(embeddings):
    assert Normalizer.fit("whiten", embeddings[:2])(embeddings).shape == (40, 1)
    equal = Normalizer.fit("whiten", np.ones((5, 4)))
    np.testing.assert_array_equal(equal(np.ones((2, 4))), np.zeros((2, 1)))


def test_it_survives_the_store_and_knows_what_it_saw(embeddings):
    for kind in ("zscore", "whiten"):
        fitted = Normalizer.fit(kind, embeddings, [f"s{k}" for k in range(40)][::-1])
        dataset = fitted.to_dataset()
        again = Normalizer.from_dataset(dataset)
        np.testing.assert_array_equal(again(embeddings), fitted(embeddings))
        assert again.seen == tuple(sorted(f"s{k}" for k in range(40)))
        assert dataset.attrs["fit_stimuli"] == content_hash(sorted(f"s{k}" for k in range(40)))
