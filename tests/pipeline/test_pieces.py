"""Words inside recorded stories, the whole way: plan, split, embedding, decoding."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import wavfile

from braindecode_pipe import pipeline
from braindecode_pipe.pipeline.cache import FileHashes
from braindecode_pipe.pipeline.stages import Stages
from braindecode_pipe.plan import build
from braindecode_pipe.recipe import parse_recipe
from braindecode_pipe.store import open_store

RECIPE = """\
[study]
name = "stories"

[plan.stimuli.word]
kind = "speech"
column = "trial_type"
file_column = "stim_file"
onset_column = "word_onset"

[split]
target = "word_file"
by = "stimulus"

[preprocess.emeg]
sfreq = "none"
l_freq = 1.0
h_freq = "none"

[embed.word]
model = "log-mel"
pooling = "time"
step_sfreq = 10.0
step_tmax = 0.3
normalize = "zscore"

[embed.story]
target = "word_file"
model = "envelope"

[train]
embeddings = ["word"]

[train.windows]
sfreq = 20.0

[evaluate]
bootstrap = 20
permutations = 39
"""


@pytest.fixture
def stories(tmp_path, make_study):
    """Two people hear the same story in each of three runs, a word a second."""
    data = make_study(tmp_path / "bids", planted=())
    (data / "stimuli").mkdir()
    rng = np.random.default_rng(0)
    for run in "123":
        wave = (0.2 * rng.standard_normal(22 * 8000)).astype(np.float32)
        wavfile.write(data / "stimuli" / f"story{run}.wav", 8000, wave)
    for events in data.rglob("*events.tsv"):
        run = events.name.split("run-")[1][0]
        rows = [f"{k + 0.5}\t0.3\tword{k % 7}\tstory{run}.wav\t{k + 0.2}" for k in range(20)]
        head = "onset\tduration\ttrial_type\tstim_file\tword_onset\n"
        events.write_text(head + "\n".join(rows) + "\n")
    return data


def _stages(stories, tmp_path, *overrides):
    recipe = parse_recipe(RECIPE, "stories.toml", overrides)
    plan = build(recipe.plan, recipe.split, stories, extent=(0.0, 0.3)).plan
    return Stages(recipe, stories, tmp_path / "out", FileHashes(tmp_path / "hashes.json")), plan


def test_words_in_stories_are_decoded(stories, tmp_path):
    result = pipeline.run(
        parse_recipe(RECIPE, "stories.toml"), stories, tmp_path / "out", quiet=True,
        ledger=tmp_path / "ledger", until="evaluate",
    )  # fmt: skip
    assert [(row.unit, row.error) for row in result.failed] == []
    stores = {row.unit: open_store(row.path) for row in result.rows if row.stage == "embed"}
    assert stores["word"]["embedding"].shape == (60, 3, 40)
    assert stores["story"]["embedding"].shape == (3, 10)
    again = pipeline.run(
        parse_recipe(RECIPE, "stories.toml"), stories, tmp_path / "out", quiet=True,
        ledger=tmp_path / "ledger", until="evaluate",
    )  # fmt: skip
    assert again.up_to_date


def test_people_share_words_and_a_split_by_story_leaves_stories_whole(stories, tmp_path):
    stages, plan = _stages(stories, tmp_path)
    assert len(plan.events) == 120
    assert plan.stimuli["target"].value_counts().to_dict() == {"word": 60, "word_file": 3}
    given = stages.embed(plan)["word"].arguments["stimuli"]
    assert given[["start", "stop"]].isna().all().all()


def test_a_split_by_time_cuts_stories_where_the_roles_change(stories, tmp_path):
    options = ["split.by=time", "split.n_folds=2", "split.overlap=purge"]
    stages, plan = _stages(stories, tmp_path, *options)
    units = stages.embed(plan)
    given = units["word"].arguments["stimuli"].sort_values(["source", "onset"])
    cut = given["stop"].dropna().unique()
    assert len(cut)
    fold = {e: tuple(plan.role[:, k]) for k, e in enumerate(plan.events["stimulus_word"])}
    for _, part in given.groupby("source"):
        roles = [fold[s] for s in part["stimulus"]]
        for k in range(len(part) - 1):
            same = part["start"].iloc[k] == part["start"].iloc[k + 1] or (
                np.isnan(part["start"].iloc[k]) and np.isnan(part["start"].iloc[k + 1])
            )
            assert same == (roles[k] == roles[k + 1])
    # The summary of a whole story reads no borders, and its key does not depend on the split.
    other, _ = _stages(stories, tmp_path)
    assert other.embed(plan)["story"].key == units["story"].key


def test_targets_of_files_are_known_to_the_recipe(tmp_path):
    from braindecode_pipe.errors import RecipeError

    with pytest.raises(RecipeError, match="lacks"):
        parse_recipe(RECIPE.replace('file_column = "stim_file"\n', ""), "stories.toml")
