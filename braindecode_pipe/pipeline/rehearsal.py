"""Published designs, small, on simulated people: one command each, without a network.

A rehearsal is a recipe of ``pipelines/`` with a few values changed: embeddings that come with the
package in place of models that have to be fetched, small networks, and few epochs. What is changed
is listed here and nowhere else; the recipe that results is written beside the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from braindecode_pipe.errors import InputError

_PEOPLE = {"n_subjects": 2, "snr": 0.5, "n_words": 0, "n_eeg": 32, "n_meg": 60}
_STORIES = {
    **_PEOPLE, "n_pictures": 80, "n_words": 30, "n_repeats": 1, "n_word_repeats": 1, "n_runs": 1,
    "n_stories": 4,
}  # fmt: skip
# All the pictures there are: a decoder of new pictures learns from how many it saw.
_PICTURES = {**_PEOPLE, "snr": 1.0, "n_pictures": 231, "n_repeats": 2}
_CONV = ("n_virtual=32", "hidden=48", "n_fourier=288")
_SPEECH = (
    'plan.tasks=["story"]',
    "embed.word.model=log-mel",
    "embed.word.layer=none",
    "embed.word.context=stimulus",
    "embed.word.step_sfreq=20.0",
    *(f"train.network.conv.{setting}" for setting in (*_CONV, "depth=4")),
    "train.lr=1e-3",
    "train.batch_size=64",
    "train.epochs=15",
)
# Every simulated picture is a concept of its own, as a test picture of THINGS is.
_IMAGES = (
    "plan.stimuli.picture.category_column=label",
    "split.fractions=[0.7, 0.15, 0.15]",
    "embed.picture.model=efficientnet-lite0",
    "embed.picture.normalize=center",
)


@dataclass(frozen=True)
class Rehearsal:
    """What is simulated, and what of the published recipe is changed.

    Attributes
    ----------
    simulation : settings of :func:`braindecode_pipe.simulate.simulate`
    overrides : ``"section.key=value"``
    """

    simulation: Mapping[str, Any]
    overrides: Sequence[str] = field(default=())


REHEARSALS: dict[str, Rehearsal] = {
    "speech_meg": Rehearsal({**_STORIES, "modalities": ("meg",)}, _SPEECH),
    "speech_eeg": Rehearsal({**_STORIES, "modalities": ("eeg",)}, _SPEECH),
    "images_meg": Rehearsal(
        {**_PICTURES, "modalities": ("meg",), "soa": 1.5},
        (
            *_IMAGES,
            "embed.picture.pooling=",
            *(f"train.network.conv-image.{s}" for s in (*_CONV, "depth=2", "n_backbone=128")),
            "train.lr=1e-3",
            "train.batch_size=64",
            "train.epochs=60",
            "train.patience=60",
        ),
    ),
    "images_eeg": Rehearsal(
        {**_PICTURES, "modalities": ("eeg",), "soa": 1.3, "n_eeg": 16},
        (
            *_IMAGES,
            "train.network.nice.width=16",
            "train.lr=1e-3",
            "train.batch_size=64",
            "train.epochs=40",
        ),
    ),
    "images_fmri": Rehearsal(
        # Two repeats in each run, so that GLMsingle has something to cross-validate on.
        {**_PICTURES, "modalities": ("bold",), "n_pictures": 120, "n_bold_repeats": 4, "n_runs": 2},
        (
            "split.fractions=[0.7, 0.1, 0.2]",
            "embed.picture.model=efficientnet-lite0",
            "embed.picture.normalize=center",
            "train.network.mixer.hidden=256",
            "train.network.mixer.depth=1",
            "train.lr=1e-3",
            "train.epochs=30",
        ),
    ),
}


def rehearsal(name: str) -> Rehearsal:
    """The rehearsal of a recipe.

    Raises
    ------
    InputError
        There is none.
    """
    if name not in REHEARSALS:
        raise InputError(
            "this recipe has no rehearsal on simulated people",
            expected=" | ".join(REHEARSALS),
            found=name,
            remedy="`braindecode-pipe demo` without a name shows EEG, MEG and fMRI",
        )
    return REHEARSALS[name]
