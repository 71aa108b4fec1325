"""What a stimulus may be embedded with: borders of the split, words before, one row per piece."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile

from braindecode_pipe.embed import build_model, run, split_spans
from braindecode_pipe.embed.context import preceding_words
from braindecode_pipe.embed.interface import Item, Text
from braindecode_pipe.errors import ModelError, StimulusError
from braindecode_pipe.recipe import EmbedSpec
from braindecode_pipe.schema import ROLES
from braindecode_pipe.store import open_store


def _plan(n, roles, offsets=0.4):
    """Words one per second; ``roles`` of each event in every fold."""
    names = [f"w{k}" for k in range(n)]
    stimuli = pd.DataFrame(
        {"stimulus": names, "target": "word", "kind": "speech", "label": list("abcdefghij")[:n],
         "path": "story.wav", "onset": np.arange(n, dtype=float),
         "offset": np.arange(n) + offsets, "source": "story"}
    )  # fmt: skip
    events = pd.DataFrame({"event": names, "group": names, "stimulus_word": names})
    role = np.array([[ROLES[r] for r in fold] for fold in roles], np.int8)
    return SimpleNamespace(stimuli=stimuli, events=events, role=role)


def test_borders_lie_between_roles():
    plan = _plan(5, [["train", "train", "test", "test", "train"],
                     ["train", "train", "train", "train", "test"]])  # fmt: skip
    spans = split_spans(plan, "word")
    np.testing.assert_allclose(spans["start"], [np.nan, np.nan, 1.7, 1.7, 3.7])
    np.testing.assert_allclose(spans["stop"], [1.7, 1.7, 3.7, 3.7, np.nan])


def test_without_a_difference_there_is_no_border():
    plan = _plan(4, [["test"] * 4, ["train"] * 4, ["unused"] * 4])
    assert split_spans(plan, "word")[["start", "stop"]].isna().all().all()


def test_purged_words_stay_on_the_side_of_what_they_are_kept_together_with():
    plan = _plan(6, [["train", "purged", "purged", "test", "purged", "purged"]])
    plan.events["group"] = ["a", "a", "b", "b", "c", "c"]
    spans = split_spans(plan, "word")
    # All of c is purged: nothing says where it belongs, so it stays alone.
    np.testing.assert_allclose(spans["stop"], [1.7, 1.7, 3.7, 3.7, np.nan, np.nan])


def test_overlapping_words_are_cut_at_the_onset_of_the_next():
    plan = _plan(3, [["train", "test", "test"]], offsets=1.5)
    spans = split_spans(plan, "word")
    np.testing.assert_allclose(spans["stop"], [1.0, np.nan, np.nan])


def test_every_word_alone_where_words_are_dealt_out():
    plan = _plan(4, [["train", "test", "train", "test"], ["test", "train", "test", "train"]])
    spans = split_spans(plan, "word")
    assert (spans["start"].iloc[1:].to_numpy() == spans["stop"].iloc[:-1].to_numpy()).all()
    assert preceding_words(spans, 3, {}) == ["", "", "", ""]


def test_words_before_stay_in_their_source_and_on_their_side():
    plan = _plan(5, [["train", "train", "train", "test", "test"]])
    spans = split_spans(plan, "word").iloc[::-1].reset_index(drop=True)
    other = spans.iloc[:1].assign(stimulus="x", label="z", source="other")
    table = pd.concat([spans, other], ignore_index=True)
    found = dict(zip(table["stimulus"], preceding_words(table, 2, {"b": "bee"})))
    assert found == {"w0": "", "w1": "a", "w2": "a bee", "w3": "", "w4": "d", "x": ""}
    with pytest.raises(StimulusError, match="need to know what they are a part of"):
        preceding_words(table.drop(columns="source"), 2, {})


def test_the_stage_reads_words_with_what_was_before(tiny, tmp_path):
    plan = _plan(4, [["train", "train", "train", "test"]])
    table = split_spans(plan, "word").assign(kind="text", label=["cat", "in", "the", "house"])
    spec = EmbedSpec(model=str(tiny / "gpt2"), context_words=2, layer=0.67)
    run("word", spec, table, tmp_path, tmp_path / "a.zarr", data_origin="simulated")
    found = open_store(tmp_path / "a.zarr")["embedding"].values
    items = [Text("cat"), Text("in", "cat"), Text("the", "cat in"), Text("house")]
    expected = build_model(str(tiny / "gpt2"), layer=0.67).encode([Item("i", t) for t in items])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(ModelError, match="reads no words of context"):
        run("word", EmbedSpec(context_words=2), table, tmp_path, tmp_path / "b.zarr",
            data_origin="simulated")  # fmt: skip


def test_the_stage_hears_up_to_the_border(tiny, tmp_path):
    """The whole way: words of a file with a border; what is behind it changes nothing before."""
    rng = np.random.default_rng(0)
    wave = rng.normal(size=16000 * 4).astype(np.float32)
    plan = _plan(4, [["train", "train", "test", "test"]])
    spec = EmbedSpec(model=str(tiny / "wav2vec2"), context="file", pooling="time", step_sfreq=50.0,
                     step_tmax=0.8, window_s=1.5, overlap_s=0.5)  # fmt: skip
    found = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        wavfile.write(folder / "story.wav", 16000, wave)
        run("word", spec, split_spans(plan, "word"), folder, folder / "out.zarr",
            data_origin="simulated")  # fmt: skip
        dataset = open_store(folder / "out.zarr")
        found.append(dataset["embedding"].values)
        wave[round(1.7 * 16000) :] *= -0.3
    assert found[0].shape == (4, 40, 16)
    np.testing.assert_allclose(dataset["step_time"].values, np.arange(40) / 50)
    np.testing.assert_array_equal(found[0][:2], found[1][:2])
    assert np.abs(found[0][2:] - found[1][2:]).max() > 1e-3


def test_onsets_are_those_of_the_same_source(tmp_path):
    plan = _plan(4, [["train"] * 3 + ["test"]])
    spec = EmbedSpec(model="onsets", step_sfreq=2.0, step_tmax=3.0)
    run("word", spec, split_spans(plan, "word"), tmp_path, tmp_path / "a.zarr",
        data_origin="simulated")  # fmt: skip
    counts = open_store(tmp_path / "a.zarr")["embedding"].values[..., 0]
    expected = [[1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(counts, expected)


def test_time_axes_that_nobody_reads_are_errors(tiny, tmp_path):
    table = _plan(1, [["train"]]).stimuli.assign(start=np.nan, stop=np.nan)
    for spec, text in (
        (EmbedSpec(model="log-mel", step_sfreq=10.0), "are not asked for"),
        (EmbedSpec(model="log-mel", pooling="time", step_sfreq=10.0), "needs a time axis"),
    ):
        with pytest.raises(ModelError, match=text):
            run("word", spec, table, tmp_path, tmp_path / "a.zarr", data_origin="simulated")


def test_the_recipe_in_the_readme_is_one():
    import re
    from pathlib import Path

    from braindecode_pipe.recipe import parse_recipe

    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    text = re.search(r"```toml\n(.*?file_column.*?)```", readme, re.DOTALL)[1]
    recipe = parse_recipe(text, "README.md")
    assert recipe.embed["word"].layer == [14, 15, 16, 17, 18]
