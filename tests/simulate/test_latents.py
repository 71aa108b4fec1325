from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.simulate.latents import (
    N_AUDITORY,
    N_LATENTS,
    N_VISUAL,
    make_latents,
    picture_features,
    response_variance,
    sound_features,
)
from braindecode_pipe.simulate.stimuli import choose_pictures, choose_words

VISUAL = slice(0, N_VISUAL)
AUDITORY = slice(N_VISUAL, N_VISUAL + N_AUDITORY)
SEMANTIC = slice(N_VISUAL + N_AUDITORY, N_LATENTS)


@pytest.fixture(scope="module")
def stimuli():
    pictures = choose_pictures(150, np.random.default_rng(0))
    return pictures, choose_words(pictures, 40, np.random.default_rng(1), 0.5)


@pytest.fixture(scope="module")
def latents(stimuli):
    return make_latents(*stimuli, np.random.default_rng(2))


def held_out_r2(x, y, penalty=30.0):
    """Share of the variance of ``y`` that a ridge on half of the rows explains in the others."""
    train = np.random.default_rng(0).permutation(len(x)) % 2 == 0
    test = ~train
    x = (x - x[train].mean(0)) / x[train].std(0)
    mean = y[train].mean(0)
    weights = np.linalg.solve(
        x[train].T @ x[train] + penalty * np.eye(x.shape[1]), x[train].T @ (y[train] - mean)
    )
    error = y[test] - mean - x[test] @ weights
    return 1 - (error**2).sum() / ((y[test] - mean) ** 2).sum()


def test_moments_and_blocks(latents):
    pictures, words = latents.code[:150], latents.code[150:]
    assert latents.code.shape == (190, N_LATENTS) and latents.n_pictures == 150
    assert [str(b) for b in np.unique(latents.block)] == ["auditory", "semantic", "visual"]
    for part, silent in ((pictures, AUDITORY), (words, VISUAL)):
        np.testing.assert_allclose(part.mean(0), 0, atol=1e-12)
        spread = part.std(0)
        assert not part[:, silent].any()
        np.testing.assert_allclose(np.delete(spread, np.r_[silent]), 1, atol=1e-12)


def test_code_follows_the_seed(stimuli, latents):
    again = make_latents(*stimuli, np.random.default_rng(2))
    np.testing.assert_array_equal(again.code, latents.code)
    assert not np.allclose(make_latents(*stimuli, np.random.default_rng(3)).code, latents.code)


def test_what_pictures_look_like_carries_over_to_other_pictures(stimuli, latents):
    features = picture_features(stimuli[0])
    rows = np.abs(features).max(0) > 0
    scale = features[:, rows] / features[:, rows].std(0)
    components = np.linalg.svd(scale - scale.mean(0), full_matrices=False)[0][:, :30]
    visual = latents.code[:150, VISUAL]
    assert held_out_r2(components, visual) > 0.3
    shuffled = np.random.default_rng(0).permutation(visual)
    assert held_out_r2(components, shuffled) < 0.05


def test_category_carries_over_to_other_pictures(stimuli, latents):
    names = sorted({p.category for p in stimuli[0]})
    one_hot = np.array([[p.category == n for n in names] for p in stimuli[0]], float)
    assert held_out_r2(one_hot, latents.code[:150, SEMANTIC]) > 0.3


def test_picture_and_word_of_one_concept_mean_the_same(stimuli, latents):
    pictures, words = stimuli
    row = {p.label: i for i, p in enumerate(pictures)}
    semantic = latents.code[:, SEMANTIC]
    own = [np.corrcoef(semantic[row[w.label]], semantic[150 + i])[0, 1]
           for i, w in enumerate(words)]  # fmt: skip
    other = [np.corrcoef(semantic[row[words[i - 1].label]], semantic[150 + i])[0, 1]
             for i in range(len(words))]  # fmt: skip
    assert np.mean(own) > 0.9 > 0.5 > np.mean(other)


def test_nonlinear_code_hides_from_linear_maps(stimuli, latents):
    product = make_latents(*stimuli, np.random.default_rng(2), nonlinear=True)
    z = latents.code[:150, VISUAL]
    assert held_out_r2(z, product.code[:150, VISUAL]) < 0.1
    # It is still a function of the code: its products explain it.
    pairs = z * np.roll(z, -1, axis=1)
    assert held_out_r2(np.c_[z, pairs], product.code[:150, VISUAL], penalty=1e-3) > 0.9


def test_no_words_and_one_word(stimuli):
    pictures, words = stimuli
    assert make_latents(pictures[:5], [], np.random.default_rng(0)).code.shape == (5, N_LATENTS)
    one = make_latents(pictures[:5], words[:1], np.random.default_rng(0)).code
    assert np.isfinite(one).all() and sound_features(words[:1]).shape == (1, 128)


def test_response_variance_equals_naive_loop(latents):
    rng = np.random.default_rng(0)
    specific = rng.standard_normal((N_LATENTS, 3, 4))
    responses = np.array(
        [sum(z[k] * specific[k] for k in range(N_LATENTS)) for z in latents.code[:150]]
    )
    np.testing.assert_allclose(response_variance(specific, latents), responses.var(0))
