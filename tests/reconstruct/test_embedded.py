"""Generators without a download, and what every generator must refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from braindecode_pipe.errors import DataError, LeakageError, ModelError
from braindecode_pipe.evaluate.reconstruction import correlation_matrix, own
from braindecode_pipe.networks.pictures import PictureDecoder
from braindecode_pipe.reconstruct.embedded import EmbeddedGenerator, NearestPictures
from braindecode_pipe.reconstruct.interface import generate_in_batches, row_seeds
from braindecode_pipe.reconstruct.latents import (
    Statistics,
    derangement,
    noise_input,
    renormalise,
)


@pytest.fixture(scope="module")
def fitted(study):
    return EmbeddedGenerator(study[0], steps=350, channels=32)


def arrays(images):
    return np.stack([np.asarray(image) for image in images])


def test_unseen_pictures_come_back_from_their_embedding(study, fitted):
    _, embeddings, pictures = study
    made = arrays(fitted.generate(embeddings))
    assert made.shape == pictures.shape and made.dtype == np.uint8
    similar = correlation_matrix(made, pictures)
    others = (similar.sum(1) - own(similar)) / (len(similar) - 1)
    assert own(similar).mean() > 0.7 and (own(similar) > others).all()
    # A blurred picture beside the embedding helps where the embedding is nothing but noise.
    wrong = noise_input(20, Statistics.fit(study[0].embeddings), np.random.default_rng(1))
    alone = own(correlation_matrix(arrays(fitted.generate(wrong)), pictures)).mean()
    helped = arrays(fitted.generate(wrong, pictures / 255))
    assert own(correlation_matrix(helped, pictures)).mean() > alone + 0.3


def test_equal_seeds_give_equal_bytes(study):
    training, embeddings, _ = study
    one, two, other = (
        arrays(EmbeddedGenerator(training, steps=5, channels=16, seed=s).generate(embeddings))
        for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_the_nearest_picture_is_that_of_the_largest_cosine(study):
    training, embeddings, _ = study
    found = arrays(NearestPictures(training).generate(embeddings))
    mean = training.embeddings.mean(0)
    for row, picture in zip(embeddings - mean, found):
        cosines = [v @ row / np.linalg.norm(v) for v in training.embeddings - mean]
        np.testing.assert_array_equal(picture, training.pictures[int(np.argmax(cosines))])
    own_row = NearestPictures(training).generate(training.embeddings[3:4])
    np.testing.assert_array_equal(own_row[0], training.pictures[3])


def test_a_generator_never_sees_tested_pictures(study, fitted):
    training = study[0]
    with pytest.raises(LeakageError, match="s5"):
        replace(training, tested=["s5"])
    with pytest.raises(DataError, match="cannot be made"):
        replace(training, stimuli=training.stimuli[:1], pictures=training.pictures[:1],
                embeddings=training.embeddings[:1])  # fmt: skip
    assert fitted.facts["fit_scope"] == training.scope.hash()
    assert fitted.facts["n_pictures"] == 80


def test_wrong_widths_and_nan_are_refused(study, fitted):
    _, embeddings, _ = study
    for generator in (fitted, NearestPictures(study[0])):
        with pytest.raises(ModelError, match="another width"):
            generator.generate(embeddings[:, :-1])
        broken = embeddings.copy()
        broken[3, 2] = np.nan
        with pytest.raises(DataError, match="1 of 20 rows, first 3"):
            generator.generate(broken)
    with pytest.raises(ModelError, match="power of two"):
        PictureDecoder(4, side=48)


class Hungry:
    """A generator that takes three pictures at a time and no more."""

    width, facts = 2, {"generator": "hungry"}

    def __init__(self, most=3, error=None):
        self.most, self.sizes = most, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def generate(self, embedding, low_level=None, *, seed=0):
        if len(embedding) > self.most:
            raise self.error
        self.sizes.append(len(embedding))
        return list(seed)


def test_out_of_memory_means_smaller_batches_and_is_told():
    told, generator = [], Hungry()
    made = generate_in_batches(generator, np.zeros((10, 2)), seed=7, batch=8, say=told.append)
    assert made == row_seeds(7, 10) and len(set(made)) == 10
    assert generator.sizes == [2] * 5
    assert told == [f"out of memory: from here on {n} pictures at a time" for n in (4, 2)]
    with pytest.raises(ModelError, match="not even one"):
        generate_in_batches(Hungry(0), np.zeros((2, 2)))
    with pytest.raises(RuntimeError, match="a bug"):
        generate_in_batches(Hungry(0, RuntimeError("a bug")), np.zeros((2, 2)))


def test_renormalised_latents_have_the_training_moments():
    rng = np.random.default_rng(2)
    training = Statistics.fit(rng.normal(5, 3, (200, 4)))
    predictions = rng.normal(0, 0.1, (50, 4))
    predictions[:, 3] = 0.7
    found = renormalise(predictions, training)
    np.testing.assert_allclose(found[:, :3].mean(0), training.mean[:3])
    np.testing.assert_allclose(found[:, :3].std(0), training.scale[:3])
    np.testing.assert_allclose(found[:, 3], training.mean[3])
    for scale in (1e-13, 1e6):
        np.testing.assert_allclose(renormalise(predictions * scale, training), found)
    with pytest.raises(DataError, match="no spread"):
        renormalise(predictions[:1], training)


def test_shuffled_brains_are_nobodys_own():
    rng = np.random.default_rng(3)
    drawn = np.array([derangement(3, rng) for _ in range(400)])
    assert (drawn != np.arange(3)).all()
    # Three items have two derangements, equally likely.
    assert 0.4 < (drawn[:, 0] == 1).mean() < 0.6
    with pytest.raises(DataError, match="exchanged"):
        derangement(1, rng)
