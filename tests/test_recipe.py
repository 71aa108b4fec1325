"""Recipes: loading, what errors say, overrides, and the way back to text."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.recipe import (
    EmbedSpec,
    Recipe,
    WindowSection,
    find_recipe,
    load_recipe,
    parse_recipe,
    recipe_json_schema,
    recipe_toml,
)
from braindecode_pipe.recipe.lines import line_of
from braindecode_pipe.recipe.text import toml_value

GOOD = """\
# a study
[study]
name = "faces"

[[plan.exclude]]
recording = "sub-01_run-01_eeg"
reason = "copy"

[[plan.exclude]]
recording = "sub-01_run-02_eeg"
reason = "asleep"

[plan.stimuli.picture]
column = "trial_type"
drop = [
  "rest",
  "button",
]

[preprocess.emeg]
l_freq = "none"
h_freq = 30
reject_amplitude = { eeg = 100e-6 }

[embed.picture]
texts = { face = "a face", house = "a house" }

[train.windows]
tmin = -0.1
baseline = ["none", 0.0]
"""


def failing(text: str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.toml", overrides)
    assert caught.value.exit_code == 2
    return caught.value


def test_values_are_read_and_defaults_filled_in():
    recipe = parse_recipe(GOOD, "r.toml")
    assert recipe.preprocess.emeg.l_freq is None
    assert recipe.preprocess.emeg.h_freq == 30.0
    assert recipe.preprocess.emeg.sfreq == 120.0
    assert recipe.train.windows.baseline == (None, 0.0)
    assert recipe.plan.stimuli["picture"].drop == ["rest", "button"]
    assert [e.reason for e in recipe.plan.exclude] == ["copy", "asleep"]
    assert recipe.target_of("picture") == recipe.split_target() == "picture"


def test_target_of_a_table_may_have_another_name():
    text = GOOD + '\n[embed.prompts]\ntarget = "picture"\n'
    assert parse_recipe(text, "r.toml").target_of("prompts") == "picture"


def test_models_survive_json_and_python_leniency():
    recipe = parse_recipe(GOOD, "r.toml")
    again = Recipe.model_validate(json.loads(recipe.model_dump_json()))
    assert again == recipe
    assert EmbedSpec(layer=None).layer is None


# --- errors name the line and the cure -----------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "replaced", "number", "remedy"),
    [
        ("h_freq = 30", "h_frek = 30", 22, '"h_freq"'),
        ('reason = "asleep"', 'reason = "asleep"\nreazon = "x"', 12, '"reason"'),
        ("[train.windows]", "[train.window]", 28, '"windows"'),
        ("[study]", "[studdy]", 2, '"study"'),
        ("tmin = -0.1", "batch_sise = 3", 29, "config RECIPE"),
        ("tmin = -0.1", "h_freq = 3", 29, "preprocess.emeg.h_freq"),
        ('column = "trial_type"', 'colum = "trial_type"', 14, '"column"'),
        ("[embed.picture]", '[embed.picture]\nmodell = "minilm"', 26, '"model"'),
    ],
)
def test_unknown_key_names_line_and_nearest(line, replaced, number, remedy):
    error = failing(GOOD.replace(line, replaced))
    assert error.message.startswith("unknown key")
    assert error.file == f"r.toml:{number}"
    assert remedy in error.remedy


def test_misspelt_required_key_is_told_before_the_missing_one():
    error = failing(GOOD.replace('reason = "copy"', 'reson = "copy"'))
    assert error.message.startswith("unknown key 'reson' in [plan.exclude.0]")
    assert "plan.exclude.0.reason at r.toml:5" in error.message
    assert error.file == "r.toml:7"


@pytest.mark.parametrize(
    ("line", "replaced", "number", "expected", "found"),
    [
        ("h_freq = 30", 'h_freq = "30"', 22, "a valid number", "'30'"),
        ("h_freq = 30", "h_freq = true", 22, "a valid number", "True"),
        ("h_freq = 30", "sfreq = 0", 22, "greater than 0", "0"),
        ("tmin = -0.1", 'delay = "guess"', 29, "a valid number or 'estimate'", "'guess'"),
        ("tmin = -0.1", 'reduce = "max"', 29, "'none' or 'mean'", "'max'"),
        ('  "rest",', "  7,", 15, "a valid string", "7"),
        ('house = "a house"', "house = 4", 26, "a valid string", "4"),
        ("[embed.picture]", '[embed.picture]\nlayer = "two"', 26, "a valid number", "'two'"),
        ('[study]\nname = "faces"', "study = 3", 2, "a valid dictionary", "3"),
    ],
)
def test_wrong_value_names_line_expected_and_found(line, replaced, number, expected, found):
    error = failing(GOOD.replace(line, replaced))
    assert error.file == f"r.toml:{number}"
    assert expected in error.expected
    assert error.found == found


def test_all_problems_are_named_at_once():
    error = failing(GOOD.replace("h_freq = 30", "h_frek = 30").replace("tmin = -0.1", "tmin = []"))
    assert error.file == "r.toml:22"
    assert "and 1 more: train.windows.tmin at r.toml:29" in error.message


@pytest.mark.parametrize(
    ("text", "line"),
    [("[study]\nname = \n", 2), ("a = 1\na = 2\n", 2), ("\n\n[study\n", 3), ('a = """x\n\n', 2)],
)
def test_syntax_error_names_the_line(text, line):
    error = failing(text)
    assert error.message == "the recipe is not valid TOML"
    assert error.file == f"r.toml:{line}"


def test_no_text_and_no_file(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"[study]\nname = '\xe9'\n")
    with pytest.raises(RecipeError, match="not text"):
        load_recipe(tmp_path / "latin.toml")
    with pytest.raises(RecipeError, match="no such recipe(.|\n)*found: a folder"):
        load_recipe(tmp_path)


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_recipe(path) == parse_recipe(GOOD, "r.toml")
    path.write_bytes(GOOD.replace("h_freq", "h_frek").replace("\n", "\r\n").encode())
    with pytest.raises(RecipeError, match="unknown key") as caught:
        load_recipe(path)
    assert caught.value.file == f"{path}:22"


# --- contradictions ------------------------------------------------------------------------------

ZERO_SHOT = """
[train.zero_shot]
target = "picture"
categories = ["cat", "shoe", "face", "house"]
embeddings = ["picture"]
"""


@pytest.mark.parametrize(
    ("line", "replaced", "message", "number"),
    [
        ("[embed.picture]", "[embed.word]", r"\[embed.word\] embeds a target", 25),
        ("[embed.picture]", '[embed.a]\ntarget = "b"', r"\[embed.a\] embeds a target", 26),
        ("[train.windows]", 'train.embeddings = ["x"]\n[train.windows]', "train.embeddings", 28),
        ("tmin = -0.1", "tmin = 1.0\ntmax = 0.5", "ends before it begins", 30),
        ('baseline = ["none", 0.0]', "baseline = [0.0, -0.1]", "baseline ends", 30),
        ("[train.zero_shot]", "[train.augment]\nshift_s = 0.1\n[train.zero_shot]", "not moved", 33),
        ("h_freq = 30", "h_freq = 70", "above half of the output rate", 22),
        ('l_freq = "none"', "l_freq = 31", "below the high-pass edge", 22),
        ('l_freq = "none"', "l_freq = 0", "is no frequency", 21),
        ('l_freq = "none"', "notch = [0]", "notch holds no frequency", 21),
        ('name = "faces"', 'name = "../faces"', "name of a folder", 3),
        ('name = "faces"', 'name = ""', "name of a folder", 3),
        ("[plan.stimuli.picture]", "[plan.stimuli.'a b']", "name of a folder", 13),
        ('categories = ["cat", ', 'categories = ["face", ', "two categories are left out", 34),
        ('["cat", "shoe", "face", "house"]', '["cat"]', "two categories are left out", 34),
        ('["cat", "shoe"', '["rest", "shoe"', "category rest is excluded", 34),
        ('embeddings = ["picture"]', 'embeddings = ["x"]', "zero-shot decoding names a table", 35),
        ('embeddings = ["picture"]', "embeddings = []", "without embedding", 35),
        ('target = "picture"', 'target = "x"', "zero-shot decoding names a target", 33),
    ],
)
def test_contradictions_name_the_line(line, replaced, message, number):
    whole = GOOD + ZERO_SHOT
    assert parse_recipe(whole, "r.toml").train.zero_shot is not None
    if line == "[train.windows]":
        replaced = '[train]\nembeddings = ["x"]\n[train.windows]'
        number += 1
    error = failing(whole.replace(line, replaced, 1))
    assert re.search(message, error.message)
    assert error.file == f"r.toml:{number}"
    assert error.expected


def test_windows_that_move_in_time_are_kept_further_apart():
    text = GOOD.replace("tmin = -0.1", "tmin = -0.1\ntmax = 0.5")
    assert parse_recipe(text, "r.toml").train.extent == (-0.1, 0.5)
    moved = parse_recipe(text + "\n[train.augment]\nshift_s = 0.25\n", "r.toml")
    assert moved.train.extent == (-0.35, 0.75)


@pytest.mark.parametrize("settings, extent", [
    ({"tmin": -0.5, "tmax": 2.5, "delay": 0.15}, (-0.35, 2.65)),
    ({"tmax": 2.0, "delay": "estimate", "delay_max": 8.0}, (0.0, 10.0)),
    ({"delay": 5.0}, (5.0, None, 5.0)),
    ({"tmin": 1.0}, (1.0, None)),
])  # fmt: skip
def test_windows_lie_after_the_response_delay(settings, extent):
    assert WindowSection(**settings).extent == pytest.approx(extent)


def test_split_names_a_target_that_exists():
    error = failing(GOOD + '\n[split]\ntarget = "word"\n')
    assert error.message == "the split names a target that [plan.stimuli] lacks"
    assert (error.expected, error.found, error.file) == ("picture", "word", "r.toml:33")


def test_table_of_the_zero_shot_evaluation_keeps_its_name():
    error = failing(GOOD + '\n[embed.zero_shot]\ntarget = "picture"\n')
    assert "zero-shot evaluation" in error.message


# --- overrides -----------------------------------------------------------------------------------


def test_overrides_are_toml_or_strings():
    recipe = parse_recipe(
        GOOD,
        "r.toml",
        [
            "preprocess.emeg.h_freq=20",
            "evaluate.top_k=[1, 3]",
            "split.by=session",
            "train.windows.baseline=none",
            'embed.picture.texts."big face"=a big face',
            "embed.again={target = 'picture'}",
        ],
    )
    assert recipe.preprocess.emeg.h_freq == 20.0
    assert recipe.evaluate.top_k == [1, 3]
    assert recipe.split.by == "session"
    assert recipe.train.windows.baseline is None
    assert recipe.embed["picture"].texts["big face"] == "a big face"
    assert recipe.embed["again"].target == "picture"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preprocess.emeg.h_frek=3", "unknown key 'h_frek'"),
        ("preprocess.emeg.h_freq=high", "cannot have this value"),
        ("preprocess.emeg.h_freq=90", "above half of the output rate"),
        ("trian.epochs=3", "unknown key 'trian'"),
        ("study.name.x=3", "name is a value, not a section"),
        ("nothing", "cannot be read"),
        ("=3", "cannot be read"),
        ("a b=3", "cannot be read"),
    ],
)
def test_wrong_override_is_named(override, message):
    error = failing(GOOD, override)
    assert message in error.message
    assert error.file == f"--set {override}"


# --- names of recipes ----------------------------------------------------------------------------


def test_recipes_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("fmri_objects") == find_recipe("fmri_objects.toml")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "fmri_objects.toml").write_text(GOOD)
    assert load_recipe("fmri_objects").study.name == "faces"
    with pytest.raises(RecipeError, match="no such recipe") as caught:
        find_recipe("fmri_objcts")
    assert caught.value.remedy == 'did you mean "fmri_objects"?'


def test_every_shipped_recipe_loads():
    folder = find_recipe("fmri_objects").parent
    names = sorted(path.stem for path in folder.glob("*.toml"))
    assert {"fmri_objects", "eeg_faces", "eeg_words"} <= set(names)
    for name in names:
        recipe = load_recipe(name)
        assert recipe.study.name == name
        assert parse_recipe(recipe_toml(recipe), name) == recipe


# --- lines ---------------------------------------------------------------------------------------

NESTED = """\
a.b = 1

[[x]]
y = 1
[[x.z]]
w = 1
[[x.z]]
w = 2
[[x]]
y = [
  1,
]
[[x.z]]
w = '''
[not.a.table]
'''
"q.r" = { s = { t = 1 } }
"""


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("a", "b"), 1),
        (("x", 0, "y"), 4),
        (("x", 0, "z", 0, "w"), 6),
        (("x", 0, "z", 1, "w"), 8),
        (("x", 1, "y"), 10),
        (("x", 1, "y", 0), 10),
        (("x", 1, "z", 0, "w"), 14),
        (("x", 1, "z", 0, "q.r", "s", "t"), 17),
        (("x", 1, "z", 0, "missing"), 13),
        (("nowhere",), None),
    ],
)
def test_lines_of_nested_tables(location, line):
    assert line_of(NESTED, location) == line


# --- text ----------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_toml(text):
    assert tomllib.loads(f"x = {toml_value(text)}")["x"] == text


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text("a\"'\n#=]")))
def test_any_texts_of_an_embedding_survive(texts):
    recipe = parse_recipe(GOOD, "r.toml").model_copy(update={"embed": {}})
    spec = EmbedSpec(target="picture", texts=texts)
    recipe = recipe.model_copy(update={"embed": {"t": spec}})
    assert parse_recipe(recipe_toml(recipe), "again") == recipe


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["embed.picture.layer=[1,2]", "preprocess.bold.t_r=2.5", "train.network.conv.hidden=8"],
        ["train.alphas=[1e-300, 1e300]", "train.windows.delay=estimate", "plan.exclude=[]"],
    ],
)
def test_resolved_recipe_round_trips(overrides):
    recipe = parse_recipe(GOOD + ZERO_SHOT, "r.toml", overrides)
    text = recipe_toml(recipe)
    assert parse_recipe(text, "again") == recipe
    assert recipe_toml(parse_recipe(text, "again")) == text


def test_resolved_recipe_shows_every_key_with_its_meaning():
    text = recipe_toml(parse_recipe(GOOD, "r.toml"))
    assert '# high-pass edge [Hz]\nl_freq = "none"' in text
    kinds = "run | session | subject | stimulus | category | segment | time | column | none"
    assert f"{kinds}\nby =" in text
    assert "bootstrap = 2000" in text


def test_default_recipe_is_valid():
    assert parse_recipe("", "empty") == Recipe()
    assert parse_recipe(recipe_toml(Recipe()), "again") == Recipe()


def test_json_schema_knows_the_word_for_nothing():
    schema = recipe_json_schema()
    emeg = schema["$defs"]["EmegSection"]
    assert {"const": "none"} in emeg["properties"]["l_freq"]["anyOf"]
    assert emeg["additionalProperties"] is False
    assert '"null"' not in json.dumps(schema)
    assert schema["$defs"]["WindowSection"]["properties"]["tmax"]["default"] == "none"
