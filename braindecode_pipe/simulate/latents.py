"""The latent code of every stimulus: what the simulated brains respond to.

``z = standardise(tanh(A f))`` in three blocks that share one vector per stimulus:

* *visual*: ``f`` = principal components of low-level picture features (colours,
  edges, silhouette), for pictures only;
* *auditory*: ``f`` = principal components of a coarse log-mel spectrogram, for words only;
* *semantic*: ``f`` = the category and a part of the concept's own, equal for a picture and the
  word that names it.

``A`` is a random square matrix per block, and a share ``IDIOSYNCRATIC`` of the variance of every
block is noise that no picture, sound or category predicts. So the code is none of the embeddings
that decoders aim at, yet pictures that look or mean alike have similar codes: what a decoder
learns on some pictures carries over, imperfectly, to others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braindecode_pipe.simulate.speech import SPEECH_SFREQ
from braindecode_pipe.simulate.stimuli import CATEGORIES, Picture, Word

N_VISUAL, N_AUDITORY, N_SEMANTIC = 18, 6, 8
N_LATENTS = N_VISUAL + N_AUDITORY + N_SEMANTIC
IDIOSYNCRATIC = 0.1  # share of variance
_OWN_MEANING = 0.35  # share of the semantic variance that a concept does not share


@dataclass(frozen=True)
class LatentCode:
    """Codes of all stimuli: rows in the order of the stimulus table, pictures first.

    Attributes
    ----------
    code : (n_stimuli, N_LATENTS) zero mean and unit variance over pictures and over words, zero
        in the block of the sense that is not addressed
    block : (N_LATENTS,) of "visual" | "auditory" | "semantic"
    n_pictures : the first so many rows are pictures
    """

    code: np.ndarray
    block: np.ndarray
    n_pictures: int


def response_variance(specific: np.ndarray, latents: LatentCode) -> np.ndarray:
    """Variance over pictures of responses that are linear in the code: ``r' cov(z) r``.

    Parameters
    ----------
    specific : (N_LATENTS, ...) response per unit of each latent dimension

    Returns
    -------
    (...)
    """
    covariance = np.cov(latents.code[: latents.n_pictures].T, bias=True)
    return (np.tensordot(covariance, specific, axes=1) * specific).sum(0)


def make_latents(
    pictures: list[Picture], words: list[Word], rng: np.random.Generator, nonlinear: bool = False
) -> LatentCode:
    """Latent codes of ``pictures`` and ``words``.

    Parameters
    ----------
    nonlinear : bool
        The brain responds to the products of pairs of latent dimensions in place of the
        dimensions: ``z_i <- z_i z_(i+1)``, cyclic in each block, standardised again. Linear maps
        from the response to what a stimulus looks like or means then find little.
    """
    visual = _block(_components(picture_features(pictures), N_VISUAL), rng)
    auditory = _block(_components(sound_features(words), N_AUDITORY), rng)
    concepts = {item.label: item.category for item in [*pictures, *words]}
    semantic = _block(_meaning(concepts, rng), rng)
    row = {label: i for i, label in enumerate(concepts)}
    blocks = [
        np.concatenate([visual, np.zeros((len(words), N_VISUAL))]),
        np.concatenate([np.zeros((len(pictures), N_AUDITORY)), auditory]),
        semantic[[row[item.label] for item in [*pictures, *words]]],
    ]
    if nonlinear:
        blocks = [b * np.roll(b, -1, axis=1) for b in blocks]
    code = np.concatenate(blocks, axis=1)
    n = len(pictures)
    names = ("visual", "auditory", "semantic")
    return LatentCode(
        code=np.concatenate([_standardise(code[:n]), _standardise(code[n:])]),
        block=np.repeat(names, (N_VISUAL, N_AUDITORY, N_SEMANTIC)),
        n_pictures=n,
    )


def picture_features(pictures: list[Picture]) -> np.ndarray:
    """Low-level features of pictures.

    Returns
    -------
    (n_pictures, 237): luminance and two opponent colours on a 4 x 4 grid (48), a colour histogram
    of 4 x 4 x 4 bins less the last (63), energy of edges of six orientations at four scales in
    the whole picture and its quarters (120), area, extent and spread of what is not white (6).
    """
    return np.array([_picture_features(picture.image) for picture in pictures])


def _picture_features(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    size = 112
    small = Image.fromarray(image).resize((size, size), Image.Resampling.BOX)
    rgb = np.asarray(small, float) / 255
    red, green, blue = np.moveaxis(rgb, 2, 0)
    luminance = 0.3 * red + 0.6 * green + 0.1 * blue
    opponent = np.stack([luminance, red - green, blue - (red + green) / 2])
    layout = opponent.reshape(3, 4, size // 4, 4, size // 4).mean((2, 4)).ravel()

    bins = np.minimum((rgb * 4).astype(int), 3) @ [16, 4, 1]
    colours = np.sqrt(np.bincount(bins.ravel(), minlength=64)[:63] / bins.size)

    angle = (np.arange(6) * np.pi / 6)[:, None, None]
    edges = []
    for scale in (1, 2, 4, 8):
        n = size // scale
        dy, dx = np.gradient(luminance.reshape(n, scale, n, scale).mean((1, 3)))
        energy = np.abs(np.cos(angle) * dx + np.sin(angle) * dy)
        quarters = energy.reshape(6, 2, n // 2, 2, n // 2).mean((2, 4))
        edges += [quarters.mean((1, 2)), quarters.ravel()]

    figure = rgb.min(2) < 0.97
    y, x = np.nonzero(figure)
    shape = [figure.mean(), np.ptp(x) / size, np.ptp(y) / size, x.std() / size, y.std() / size]
    tilt = np.mean((x - x.mean()) * (y - y.mean())) / size**2
    return np.concatenate([layout, colours, *edges, shape, [tilt]])


def sound_features(words: list[Word]) -> np.ndarray:
    """Log energy in 16 mel bands and 8 equal parts of each sound: ``(n_words, 128)``."""
    if not words:
        return np.zeros((0, 128))
    window = np.hanning(400)
    mel = np.linspace(0, 2595 * np.log10(1 + SPEECH_SFREQ / 2 / 700), 17)
    edges = np.searchsorted(
        np.fft.rfftfreq(400, 1 / SPEECH_SFREQ), 700 * (10 ** (mel / 2595) - 1)[:-1]
    )
    edges = np.maximum(edges, np.arange(16))  # no empty band at the low end
    rows = []
    for word in words:
        frames = np.lib.stride_tricks.sliding_window_view(word.sound, 400)[::160]
        power = np.abs(np.fft.rfft(frames * window)) ** 2
        bands = np.add.reduceat(power, edges, axis=1)
        parts = np.array([p.mean(0) for p in np.array_split(bands, 8)])
        # Floor at -60 dB of the word's loudest band: silence has no logarithm.
        rows.append(np.log(np.maximum(parts, 1e-6 * parts.max())).ravel())
    return np.array(rows)


def _meaning(concepts: dict[str, str], rng: np.random.Generator) -> np.ndarray:
    """``(n_concepts, N_SEMANTIC)``: a direction per category plus a part of the concept's own."""
    shared = {name: rng.standard_normal(N_SEMANTIC) for name in CATEGORIES}
    own = rng.standard_normal((len(concepts), N_SEMANTIC))
    category = np.array([shared[c] for c in concepts.values()])
    return np.sqrt(1 - _OWN_MEANING) * category + np.sqrt(_OWN_MEANING) * own


def _components(features: np.ndarray, n: int) -> np.ndarray:
    """Scores on the first ``n`` principal components, scaled as one; zeros beyond the rank.

    Their spectrum is flattened to its square root, so that the code is not ruled by the first two.
    """
    if len(features) < 2:
        return np.zeros((len(features), n))
    u, s, _ = np.linalg.svd(_standardise(features), full_matrices=False)
    signs = np.sign(u[np.abs(u).argmax(0), np.arange(u.shape[1])])
    scores = (u * signs * np.sqrt(s))[:, :n]
    out = np.zeros((len(features), n))
    out[:, : scores.shape[1]] = scores
    return out / (out.std() or 1.0)


def _block(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The random non-linear map, plus the idiosyncratic part."""
    n, dim = features.shape
    mixing = rng.standard_normal((dim, dim)) / np.sqrt(dim)
    noise = rng.standard_normal((n, dim))
    mapped = _standardise(np.tanh(features @ mixing))
    return np.sqrt(1 - IDIOSYNCRATIC) * mapped + np.sqrt(IDIOSYNCRATIC) * noise


def _standardise(values: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance per column; constant columns become zero."""
    if len(values) == 0:
        return values
    centred = values - values.mean(0)
    scale = centred.std(0)
    constant = scale <= 1e-12 * np.abs(values).max(initial=0.0)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, scale))
