"""What decoders are fitted as: labels, seeds, and pieces of the window."""

from __future__ import annotations

import pytest

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.pipeline.units import slug
from braindecode_pipe.recipe import (
    TrainSection,
    Variant,
    WindowSection,
    parse_recipe,
    pieces,
    variant,
    variants,
)

SLIDING = WindowSection(tmin=-0.1, tmax=0.5, sliding_s=0.25, sliding_step_s=0.1)


def test_seeds_then_pieces_with_the_first_seed():
    section = TrainSection(seed=7, seeds=3, windows=SLIDING)
    found = variants(section, "conv")
    assert [(v.label, v.seed, v.role) for v in found] == [
        ("conv", 7, "decoder"), ("conv.s1", 8, "seed"), ("conv.s2", 9, "seed"),
        ("conv.t-0.1to0.15", 7, "piece"), ("conv.t0to0.25", 7, "piece"),
        ("conv.t0.1to0.35", 7, "piece"), ("conv.t0.2to0.45", 7, "piece"),
    ]  # fmt: skip
    assert [v.window for v in found[:4]] == [None, None, None, (-0.1, 0.15)]
    assert all(slug(v.label) == v.label for v in found)
    assert [variant(section, "conv", v.seed, v.window) for v in found] == found


def test_linear_decoders_have_no_seeds():
    found = variants(TrainSection(seeds=5, windows=SLIDING), "ridge")
    assert {v.seed for v in found} == {None}
    assert [v.label for v in found][:2] == ["ridge", "ridge.t-0.1to0.15"] and len(found) == 5
    assert variants(TrainSection(seeds=5), "logistic") == [Variant("logistic")]


def test_pieces_lie_whole_in_the_window():
    assert pieces(WindowSection(tmax=1.0)) == []
    assert pieces(WindowSection(tmax=1.0, sliding_s=0.4)) == [(0.0, 0.4), (0.4, 0.8)]
    thirds = pieces(WindowSection(tmin=-0.3, tmax=0.3, sliding_s=0.1))
    assert thirds[-1] == (0.2, 0.3) and len(thirds) == 6  # 0.1 is no binary fraction
    assert str(thirds[3][0]) == "0.0"


@pytest.mark.parametrize(
    ("keys", "found"),
    [("sliding_s = 0.2", "no tmax"), ("tmax = 0.2\nsliding_s = 0.2", "0.2 s")],
)
def test_windows_that_cannot_be_divided_are_refused_by_line(keys, found):
    text = f'[study]\nname = "x"\n[plan.stimuli.w]\n[embed.w]\n[train.windows]\n{keys}\n'
    with pytest.raises(RecipeError, match="cannot be divided into pieces") as caught:
        parse_recipe(text, "x.toml")
    assert f"found: {found}" in str(caught.value)
    assert f"x.toml:{text.splitlines().index('sliding_s = 0.2') + 1}" in str(caught.value)
