"""Stimuli: whole files, words inside files, captions; what is missing, empty or outside."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter
from scipy.io import wavfile

from braindecode_pipe.errors import (
    EventError,
    MissingFileError,
    StimulusError,
    UnsafePathError,
)
from braindecode_pipe.plan.near import near_groups
from braindecode_pipe.plan.stimuli import match_stimuli
from braindecode_pipe.recipe import StimuliSpec

STORY = {"kind": "speech", "column": "word", "file_column": "stim_file",
         "onset_column": "word_onset"}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    (tmp_path / "stimuli").mkdir()
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        wave = rng.normal(size=8000).astype(np.float32)
        wavfile.write(tmp_path / "stimuli" / f"{name}.wav", 8000, wave)
    return tmp_path


def _events(rows, columns=("word", "stim_file", "word_onset", "duration")):
    table = pd.DataFrame(rows, columns=list(columns))
    table.insert(0, "event", [f"e{k}" for k in range(len(table))])
    return table


WORDS = [
    ("the", "one.wav", "0.1", 0.2), ("cat", "one.wav", "0.4", 0.1), ("the", "two.wav", "0.1", 0.2),
    # Another person hears the first story, its onsets written with other rounding.
    ("the", "one.wav", "0.10004", 0.2), ("cat", "stimuli/one.wav", "0.4", 0.1),
]  # fmt: skip


def test_a_row_for_every_word_and_one_for_every_file(data):
    ids, table = match_stimuli("word", StimuliSpec(**STORY), _events(WORDS), data)
    words = table[table["target"] == "word"].set_index("stimulus")
    files = table[table["target"] == "word_file"].set_index("stimulus")
    assert list(ids) == ["word", "word_file"]
    assert len(words) == 3 and sorted(files["label"]) == ["one", "two"]
    own = words.loc[ids["word"]]
    assert list(own["label"]) == ["the", "cat", "the", "the", "cat"]
    np.testing.assert_allclose(own["onset"], [0.1, 0.4, 0.1, 0.1, 0.4])
    np.testing.assert_allclose(own["offset"], [0.3, 0.5, 0.3, 0.3, 0.5])
    assert list(own["path"]) == [f"stimuli/{n}.wav" for n in ("one", "one", "two", "one", "one")]
    assert list(own["source"]) == list(ids["word_file"])
    assert set(files["path"]) == {"stimuli/one.wav", "stimuli/two.wav"}
    assert files["offset"].isna().all() and (files["source"] == "").all()
    assert ids["word"][0] == ids["word"][3] != ids["word"][2]


def test_names_of_files_are_no_part_of_the_identity(data):
    (data / "stimuli" / "copy.wav").write_bytes((data / "stimuli" / "one.wav").read_bytes())
    rows = [WORDS[0], ("the", "copy.wav", "0.1", 0.2)]
    ids, table = match_stimuli("word", StimuliSpec(**STORY), _events(rows), data)
    assert ids["word"].nunique() == 1 and len(table) == 2


def test_captions_are_the_words_that_they_are_made_of(data):
    rows = [("dog", "s2", "1"), ("a", "s2", "0"), ("a", "s1", "0"), ("cat", "s1", "1"),
            ("dog", "s2", "1")]  # fmt: skip
    spec = StimuliSpec(kind="text", column="word", file_column="sentence", onset_column="number")
    ids, table = match_stimuli("w", spec, _events(rows, ("word", "sentence", "number")), data)
    texts = table[table["target"] == "w_file"].set_index("stimulus")["label"]
    assert sorted(texts) == ["a cat", "a dog"]
    assert list(texts[ids["w_file"]]) == ["a dog", "a dog", "a cat", "a cat", "a dog"]
    assert len(table[table["target"] == "w"]) == 4
    # The same sentence under another name is the same sentence.
    again = _events([(w, s.replace("s2", "x"), n) for w, s, n in rows],
                    ("word", "sentence", "number"))  # fmt: skip
    assert list(match_stimuli("w", spec, again, data)[0]["w"]) == list(ids["w"])


def test_what_is_wrong_with_pieces_is_named(data):
    def match(change, **spec):
        rows = [list(row) for row in WORDS]
        for (row, column), value in change.items():
            rows[row][column] = value
        return match_stimuli("word", StimuliSpec(**{**STORY, **spec}), _events(rows), data)

    with pytest.raises(StimulusError, match=r"has no length(.|\n)*0 s at event e1"):
        match({(1, 3): 0.0})
    with pytest.raises(EventError, match=r"word_onset holds something that is no number"):
        match({(2, 2): "n/a"})
    with pytest.raises(EventError, match=r"what it is a piece of(.|\n)*nothing at event e3"):
        match({(3, 1): "n/a"})
    with pytest.raises(MissingFileError, match=r"gone.wav(.|\n)*event e2 presents it"):
        match({(2, 1): "gone.wav"})
    with pytest.raises(UnsafePathError):
        match({(2, 1): "../secret.wav"})
    with pytest.raises(EventError, match="no column 'onset_column'"):
        match({}, onset_column="")
    with pytest.raises(EventError, match=r"stimuli without parts(.|\n)*kind = 'image'"):
        match({}, kind="image")


@pytest.mark.parametrize("path", ["../a.wav", "/etc/passwd", "~/a.wav", "a/../../b.wav", "C:\\a"])
def test_files_outside_of_the_folder_are_refused(data, path):
    spec = StimuliSpec(kind="speech", column="stim_file")
    with pytest.raises((UnsafePathError, MissingFileError), match=r"(?s)."):
        match_stimuli("sound", spec, _events([("x", path, "0", 1.0)]), data)
    if "C:" not in path:
        with pytest.raises(UnsafePathError):
            match_stimuli("sound", spec, _events([("x", path, "0", 1.0)]), data)


def test_links_that_leave_the_folder_are_refused(data, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "a.wav"
    outside.write_bytes(b"x")
    (data / "stimuli" / "link.wav").symlink_to(outside)
    with pytest.raises(UnsafePathError):
        match_stimuli("sound", StimuliSpec(kind="speech", column="stim_file"),
                      _events([("x", "link.wav", "0", 1.0)]), data)  # fmt: skip


def test_missing_files_name_the_event(data):
    rows = [("x", "one.wav", "0", 1.0), ("x", "lost.wav", "0", 1.0)]
    with pytest.raises(MissingFileError, match=r"lost.wav(.|\n)*nothing; event e1 presents it"):
        match_stimuli("s", StimuliSpec(kind="speech", column="stim_file"), _events(rows), data)


def test_empty_captions_are_errors_where_a_caption_is_due(data):
    rows = [("caption", "a dog"), ("caption", " "), ("picture", "")]
    events = _events(rows, ("trial_type", "text"))
    spec = {"kind": "text", "column": "text"}
    with pytest.raises(StimulusError, match=r"target 'c' is empty(.|\n)*at event e1 \(1 such"):
        match_stimuli("c", StimuliSpec(**spec, where={"trial_type": "caption"}), events, data)
    ids, table = match_stimuli("c", StimuliSpec(**spec), events, data)
    assert list(table["label"]) == ["a dog"] and (ids["c"] != "").tolist() == [True, False, False]


def test_videos_are_files_or_folders_of_frames(data):
    (data / "stimuli" / "film").mkdir()
    for k in range(2):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(data / "stimuli" / "film" / f"{k}.png")
    spec = StimuliSpec(kind="video", column="stim_file")
    ids, table = match_stimuli("v", spec, _events([("x", "film", "0", 1.0)]), data)
    assert list(table["path"]) == ["stimuli/film"]
    Image.new("RGB", (4, 4), (9, 0, 0)).save(data / "stimuli" / "film" / "1.png")
    changed, _ = match_stimuli("v", spec, _events([("x", "film", "0", 1.0)]), data)
    assert changed["v"][0] != ids["v"][0]


def test_near_duplicates_among_pictures_stay_together(data):
    rng = np.random.default_rng(0)
    folder = data / "stimuli"
    for k in range(3):
        blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{k}.png")
    first = Image.open(folder / "0.png")
    first.save(folder / "jpeg.jpg", quality=60)
    first.resize((60, 60)).filter(ImageFilter.GaussianBlur(1)).save(folder / "small.png")
    Image.new("RGB", (9, 9), (50, 50, 50)).save(folder / "flat.png")
    names = ["0.png", "1.png", "2.png", "jpeg.jpg", "small.png", "flat.png"]
    events = _events([("x", name, "0", 1.0) for name in names])
    spec = StimuliSpec(kind="image", column="stim_file", near_duplicates=0.97)
    ids, table = match_stimuli("p", spec, events, data)
    group = table.set_index("stimulus")["near_duplicate_group"][ids["p"]].tolist()
    assert group[0] == group[3] == group[4] and len(set(group)) == 4
    alone = match_stimuli("p", spec.model_copy(update={"near_duplicates": 0.0}), events, data)[1]
    assert (alone["near_duplicate_group"] == alone["stimulus"]).all()
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises(StimulusError, match="broken.png"):
        near_groups([folder / "broken.png"], ["a"], 0.9)
