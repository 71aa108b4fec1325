"""What a simulated study is made of."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from braindecode_pipe.errors import InputError

VERSION = "2"  # part of truth.json: data sets of another version are not taken for current
RESPONSE_S = 0.6  # no stimulus-related activity later than this after onset, in EEG and MEG
MODALITIES = ("eeg", "meg", "bold")


@dataclass(frozen=True)
class Settings:
    """Settings of :func:`braindecode_pipe.simulate.simulate`; every one has a default.

    Attributes
    ----------
    n_subjects : people, the same ones in all modalities
    n_pictures, n_words : distinct stimuli
    n_repeats : presentations of each picture in EEG and in MEG
    n_word_repeats : presentations of each word, in every modality
    n_bold_repeats : presentations of each picture in BOLD
    n_runs : runs per person and modality
    n_stories : stories of the words, each a further run of EEG and of MEG
    n_sentences : sentences of a story
    snr : amplitude ratio of stimulus-specific activity to noise, or one per modality. Its square is
        the mean over good sensors of (variance over pictures of the noise-free response, averaged
        over the ``RESPONSE_S`` after onset) / (variance of the sensor's noise); for BOLD, at the
        peak of the response. Noise is background activity and sensor noise; line, blinks, drift,
        bad channels and head motion do not count. 0: nothing in the recordings depends on any
        stimulus, not even that there was one.
    seed : equal settings and seed give equal files
    modalities : any of "eeg", "meg", "bold"
    sfreq : sampling rate of EEG and MEG [Hz]
    n_eeg, n_meg : sensors, spread over the head; n_meg in whole triplets
    soa : shortest interval between two onsets in EEG and MEG [s]; up to ``soa_jitter`` is added
    t_r, bold_interval : repetition time, and shortest time from onset to onset, of BOLD [s]
    grid : voxels along x, y, z, of 3 mm
    line_freq : [Hz]
    blinks : height of blinks in EEG and MEG; 1: about 150 microvolts at Fp1
    line : size of the line and its second harmonic in EEG and MEG; 1: half of a sensor's noise, and
        0.15 of it
    drift : root mean square of the drift below 0.1 Hz of EEG and MEG over that of a sensor's noise
    n_bad : bad sensors of every person in EEG and in MEG, in turn noisy, flat and loose (see
        ``noise``). With blinks, line or drift at 0 all else in the recordings stays as it is.
    nonlinear : the brain responds to products of latent dimensions (see ``latents``)
    """

    n_subjects: int = 2
    n_pictures: int = 150
    n_words: int = 20
    n_repeats: int = 3
    n_word_repeats: int = 2
    n_bold_repeats: int = 2
    n_runs: int = 4
    n_stories: int = 0
    n_sentences: int = 40
    snr: float | Mapping[str, float] = 0.3
    seed: int = 0
    modalities: tuple[str, ...] = MODALITIES
    sfreq: float = 250.0
    n_eeg: int = 64
    n_meg: int = 306
    soa: float = 0.65
    soa_jitter: float = 0.1
    t_r: float = 2.0
    bold_interval: float = 6.0
    grid: tuple[int, int, int] = (24, 24, 12)
    line_freq: float = 50.0
    blinks: float = 1.0
    line: float = 1.0
    drift: float = 3.0
    n_bad: int = 1
    nonlinear: bool = False

    def __post_init__(self) -> None:
        modalities = (self.modalities,) if isinstance(self.modalities, str) else self.modalities
        object.__setattr__(self, "modalities", tuple(dict.fromkeys(modalities)))
        object.__setattr__(self, "grid", tuple(self.grid))
        if isinstance(self.snr, Mapping):
            object.__setattr__(self, "snr", dict(self.snr))
        self._at_least(1, "n_subjects", "n_repeats", "n_word_repeats", "n_bold_repeats", "n_runs",
                       "n_sentences")  # fmt: skip
        self._at_least(0, "n_words", "n_stories", "seed", "soa_jitter", "blinks", "line", "drift",
                       "n_bad")  # fmt: skip
        self._at_least(2, "n_pictures")
        self._require(self.n_runs <= self.n_pictures, "n_runs", "no more than n_pictures")
        self._require(set(self.modalities) <= set(MODALITIES) and self.modalities, "modalities",
                      "one or more of " + ", ".join(MODALITIES))  # fmt: skip
        if isinstance(self.snr, Mapping):
            self._require(set(self.snr) == set(self.modalities), "snr", "one value per modality")
        self._require(all(math.isfinite(self.snr_of(m)) and self.snr_of(m) >= 0
                          for m in self.modalities), "snr", "0 or more")  # fmt: skip
        self._require(8 <= self.n_eeg <= 64, "n_eeg", "8 ... 64")
        self._require(24 <= self.n_meg <= 306 and self.n_meg % 3 == 0, "n_meg",
                      "24 ... 306, a multiple of 3")  # fmt: skip
        for name in ("blinks", "line", "drift"):
            self._require(math.isfinite(getattr(self, name)), name, "a finite number")
        for modality, n in (("eeg", self.n_eeg), ("meg", self.n_meg)):
            if modality in self.modalities:
                self._require(self.n_bad <= n // 4, "n_bad", f"{n // 4} or fewer of {n} sensors")
        self._require(self.sfreq > 2 * self.line_freq > 0, "sfreq", "more than twice line_freq")
        # A later onset than this would make responses overlap, and the optimal decoder inexact.
        self._require(self.soa >= RESPONSE_S, "soa", f"{RESPONSE_S} s or more")
        self._require(self.t_r > 0, "t_r", "more than 0 s")
        self._require(self.bold_interval >= self.t_r, "bold_interval", "t_r or more")
        self._require(len(self.grid) == 3 and min(self.grid) >= 6, "grid", "three numbers >= 6")

    def snr_of(self, modality: str) -> float:
        """Signal-to-noise ratio of one modality."""
        return float(self.snr[modality] if isinstance(self.snr, Mapping) else self.snr)

    def rng(self, *what: str) -> np.random.Generator:
        """The random generator of one part of the study, independent of all other parts."""
        return np.random.default_rng([self.seed, *(zlib.crc32(str(w).encode()) for w in what)])

    def as_json(self) -> dict[str, Any]:
        """All settings as JSON types."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    def _at_least(self, minimum: int, *names: str) -> None:
        for name in names:
            self._require(getattr(self, name) >= minimum, name, f"{minimum} or more")

    def _require(self, holds: object, name: str, expected: str) -> None:
        if not holds:
            raise InputError(
                f"simulate: {name} cannot be used",
                expected=expected,
                found=repr(getattr(self, name)),
                remedy=f"choose another {name}",
            )


def subject_label(index: int) -> str:
    """BIDS label of person number ``index``, from 0."""
    return f"{index + 1:02d}"
