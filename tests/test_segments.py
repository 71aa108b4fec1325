"""The split by segment and by shares: one sentence has one role, whoever hears it."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import LeakageError, RecipeError, SplitError
from braindecode_pipe.recipe import SplitSection, parse_recipe
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import (
    StudyPlan,
    drawn,
    leaves_its_side,
    make_folds,
    segments_of,
    shared_between_roles,
)

SHARES = [0.7, 0.1, 0.2]
BY_SENTENCE = SplitSection(
    by="segment", segment_column="sentence", fractions=SHARES, within_subject=False
)


def story(n_sentences=60, n_subjects=3, pause=0.8, seed=0, file="story"):
    """People who hear one story: sentences of 4 to 9 words, one word in 0.4 s."""
    rng = np.random.default_rng(seed)
    pieces, at = [], 0.0
    for sentence in range(n_sentences):
        for word in range(rng.integers(4, 10)):
            pieces.append((f"{file}-{len(pieces)}", f"w{sentence}x{word}", at, sentence))
            at = round(at + 0.4, 3)
        at = round(at + pause, 3)
    stimuli = pd.DataFrame(
        [{"stimulus": i, "target": "word", "label": label, "onset": t, "offset": round(t + 0.3, 3),
          "source": file, "category": "", "near_duplicate_group": i} for i, label, t, _ in pieces]
    )  # fmt: skip
    events = pd.DataFrame(
        [{"event": f"{s}:{file}:{k:05d}", "recording": f"sub-{s}_{file}", "subject": str(s),
          "session": "", "run": "1", "onset": t + 2.0 + s, "duration": 0.3, "stimulus_word": i,
          "sentence": f"s{sentence}"}
         for s in range(n_subjects) for k, (i, _, t, sentence) in enumerate(pieces)]
    )  # fmt: skip
    recordings = pd.DataFrame(
        {"recording": sorted(set(events["recording"])), "datatype": "meg", "excluded": False,
         "data_origin": "simulated", "duration": at + 20.0}
    )  # fmt: skip
    return events, recordings, stimuli


def plan_of(section, tables, extent=(0.0, 0.3)):
    events, recordings, stimuli = tables
    folds, role, group = make_folds(
        events, recordings, stimuli, section, target="word", extent=extent
    )
    return StudyPlan(recordings, events.assign(group=group), stimuli, folds, role)


# --- segments ------------------------------------------------------------------------------------


def pieces(onsets, offsets, labels=None, sentences=None):
    names = [f"p{k}" for k in range(len(onsets))]
    stimuli = pd.DataFrame(
        {"stimulus": names, "target": "word", "label": labels or names, "onset": onsets,
         "offset": offsets, "source": "file"}
    )  # fmt: skip
    events = pd.DataFrame({"stimulus_word": names, "sentence": sentences or names})
    return events, stimuli


def runs(found, stimuli):
    """Lengths of the stretches of equal segments."""
    ids = [found[s] for s in stimuli["stimulus"]]
    edges = [0, *(k for k in range(1, len(ids)) if ids[k] != ids[k - 1]), len(ids)]
    return list(np.diff(edges))


@pytest.mark.parametrize(
    ("column", "seconds", "expected"),
    [
        ("sentence", 0.0, [3, 1, 4, 2]),
        ("sentence", 3.0, [4, 6]),  # 2.5 s and 0.5 s make 3.5 s; 3.5 s, and 1.5 s that are left
        ("", 2.0, [3, 3, 4]),  # a piece lasts 0.5 s, and one begins in every second
        ("", 100.0, [10]),
    ],
)
def test_segments_are_sentences_or_blocks_that_last_long_enough(column, seconds, expected):
    onsets = np.arange(10.0)
    sentences = list("aaabccccaa")  # the value "a" comes again: another sentence
    events, stimuli = pieces(onsets, onsets + 0.5, sentences=sentences)
    section = SplitSection(by="segment", segment_column=column, segment_s=seconds)
    assert runs(segments_of(events, stimuli, section, "word"), stimuli) == expected


def test_words_of_a_text_without_offsets_last_until_the_next():
    events, stimuli = pieces(np.arange(10.0), np.full(10, np.nan))
    section = SplitSection(by="segment", segment_s=3.0)
    assert runs(segments_of(events, stimuli, section, "word"), stimuli) == [3, 3, 4]


def test_a_segment_is_named_by_its_words_in_whatever_file():
    words = ["the", "cat", "sat", "the", "dog", "ran"]
    events, stimuli = pieces(np.arange(6.0), np.arange(6.0) + 0.5, words, list("aaabbb"))
    section = SplitSection(by="segment", segment_column="sentence")
    found = segments_of(events, stimuli, section, "word")
    expected = hashlib.sha256(b"segment\0the\0cat\0sat").hexdigest()[:16]
    assert found["p0"] == found["p2"] == expected != found["p3"]
    later = stimuli["onset"] * 1.3 + 7
    other = stimuli.assign(source="another voice", onset=later, offset=later + 0.6)
    assert segments_of(events, other, section, "word") == found
    bare = segments_of(events, stimuli.assign(label="word"), section, "word")
    assert len(set(bare.values())) == 2  # where labels tell nothing, sentences are still two
    moved = segments_of(events, stimuli.assign(label="word", source="b"), section, "word")
    assert set(bare.values()).isdisjoint(moved.values())


def test_segments_that_cannot_be_told_are_refused():
    events, stimuli = pieces(np.arange(4.0), np.arange(4.0) + 0.5, sentences=list("aabb"))
    section = SplitSection(by="segment", segment_column="sentence")
    with pytest.raises(SplitError, match="no pieces of something longer"):
        segments_of(events, stimuli.assign(source=""), section, "word")
    with pytest.raises(SplitError, match="no column 'phrase'"):
        segments_of(
            events, stimuli, section.model_copy(update={"segment_column": "phrase"}), "word"
        )
    twice = pd.concat([events, events.iloc[:1].assign(sentence="z")])
    with pytest.raises(SplitError, match="(?s)piece of no one segment.*found: 'a', 'z'"):
        segments_of(twice, stimuli, section, "word")
    with pytest.raises(SplitError, match="piece of no one segment"):
        segments_of(events.assign(sentence=["a", "n/a", "b", "b"]), stimuli, section, "word")


# --- shares --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "seed", "digits"),  # of: printf '<seed>|<group>' | sha256sum
    [
        ("the cat sat", 0, "6ed68738a7e8c65a"),
        ("the cat sat", 1, "6117c2056c142e39"),
        ("f3a9", 0, "b2b95667b0a73440"),
    ],
)
def test_places_are_what_they_were(group, seed, digits):
    assert drawn(group, seed) == int(digits, 16) / 2**64


def test_same_sentence_same_role_for_everybody_and_in_every_data_set():
    plan = plan_of(BY_SENTENCE, story())
    table = plan.events.assign(role=plan.role[0])
    assert (table.groupby("sentence")["role"].nunique() == 1).all()
    assert set(table["role"]) == {1, 2, 3}
    assert shared_between_roles(plan, "word") == []
    events, recordings, stimuli = story(file="other", n_subjects=1)
    kept = ~events["sentence"].isin(["s3", "s4"])  # fewer sentences, another file
    stimuli = stimuli[stimuli["stimulus"].isin(events["stimulus_word"][kept])]
    other = plan_of(BY_SENTENCE, (events[kept].reset_index(drop=True), recordings, stimuli))
    here = table.groupby("sentence")["role"].first()
    there = other.events.assign(role=other.role[0]).groupby("sentence")["role"].first()
    assert (here[there.index] == there).all()
    # Each person alone gets the same roles, too.
    alone = plan_of(BY_SENTENCE.model_copy(update={"within_subject": True}), story())
    assert list(alone.folds["fold"]) == ["sub-0_fold-01", "sub-1_fold-01", "sub-2_fold-01"]
    assert np.array_equal(alone.role.max(axis=0), plan.role[0])


def test_other_seeds_draw_other_shares():
    roles = [
        plan_of(BY_SENTENCE.model_copy(update={"seed": seed}), story()).role[0] for seed in range(3)
    ]
    assert not np.array_equal(roles[0], roles[1]) and not np.array_equal(roles[1], roles[2])


def test_shares_lie_within_binomial_bounds():
    n = 4000
    place = np.array([drawn(f"sentence {k}", 7) for k in range(n)])
    edges = np.cumsum([0.0, *SHARES])
    for low, high in zip(edges, edges[1:]):
        p = high - low
        hits = ((place >= low) & (place < high)).sum()
        assert abs(hits - n * p) < 4 * np.sqrt(n * p * (1 - p))
    plan = plan_of(BY_SENTENCE, story(n_sentences=300, n_subjects=1))
    role = plan.events.assign(role=plan.role[0]).groupby("sentence")["role"].first()
    for number, p in zip((1, 2, 3), SHARES):
        assert abs((role == number).sum() - 300 * p) < 4 * np.sqrt(300 * p * (1 - p))


def test_a_share_that_nothing_fell_into_is_refused():
    with pytest.raises(SplitError, match="(?s)no validation item.*another \\[split\\] seed"):
        plan_of(BY_SENTENCE.model_copy(update={"fractions": [0.8, 0.001, 0.199]}), story())


# --- borders -------------------------------------------------------------------------------------


def naive_crossing(onset, end, start, stop, side):
    """By looking at every pair of neighbours."""
    order = np.argsort(onset, kind="stable")
    out = np.zeros(len(onset), bool)
    for a, b in zip(order, order[1:]):
        if side[a] == side[b]:
            continue
        border = (end[a] + onset[b]) / 2 if end[a] < onset[b] else onset[b]
        for i in range(len(onset)):
            before = np.flatnonzero(order == i)[0] <= np.flatnonzero(order == a)[0]
            out[i] |= stop[i] > border if before else start[i] < border
    return out


def test_windows_that_leave_their_side_against_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(2, 30))
        onset = np.cumsum(rng.uniform(0.05, 0.8, n))
        end = onset + rng.uniform(0.0, 0.6, n)
        side = np.repeat(rng.integers(1, 4, n), rng.integers(1, 5, n))[:n]
        start, stop = onset + rng.uniform(-0.8, 0.3), onset + rng.uniform(0.31, 1.5)
        shuffled = rng.permutation(n)
        columns = [c[shuffled] for c in (onset, end, start, stop)]
        found = leaves_its_side(*columns, side[shuffled])
        assert np.array_equal(found, naive_crossing(*columns, side[shuffled]))


def test_windows_over_borders_are_purged_whatever_their_role():
    extent = (-0.5, 2.5)
    section = BY_SENTENCE.model_copy(update={"segment_s": 6.0})
    plan = plan_of(section, story(200, 2), extent)
    before = plan_of(section, story(200, 2), (0.0, 0.3)).role[0]  # nothing reaches over a border
    assert not (before == ROLES["purged"]).any()
    purged = plan.role[0] == ROLES["purged"]
    assert np.array_equal(plan.role[0][~purged], before[~purged])
    assert set(before[purged]) == {1, 2, 3}
    onset = plan.events["onset"].to_numpy()
    for name in set(plan.events["recording"]):
        here = np.flatnonzero(plan.events["recording"] == name)
        for i in here:  # a window that stays shares no time with a word of another role
            other = here[before[here] != before[i]]
            meets = (onset[other] < onset[i] + 2.5) & (onset[other] + 0.3 > onset[i] - 0.5)
            assert purged[i] or not meets.any()
    assert 0.05 < purged.mean() < 0.6
    for i in np.flatnonzero(purged)[::7]:  # and one that goes would share it, or half of a pause
        here = np.flatnonzero(plan.events["recording"] == plan.events["recording"].iloc[i])
        other = here[before[here] != before[i]]
        assert ((onset[other] < onset[i] + 2.5 + 0.45)
                & (onset[other] + 0.3 > onset[i] - 0.5 - 0.45)).any()  # fmt: skip


def test_segments_too_short_for_the_windows_say_so():
    with pytest.raises(SplitError, match="(?s)reach into another role.*segment_s"):
        plan_of(BY_SENTENCE, story(), extent=(-4.0, 4.0))


def test_overlap_lists_the_pairs():
    events, recordings, stimuli = story(6, 1)
    section = SplitSection(by="stimulus", within_subject=False, n_folds=2)
    with pytest.raises(LeakageError) as found:
        plan_of(section, (events, recordings, stimuli), extent=(0.0, 0.5))
    role = plan_of(section, (events, recordings, stimuli), extent=(0.0, 0.39)).role[0]
    first = str(found.value).split("found: ")[1].split("; ")[0].split(": ", 1)[1]
    a, b = (int(name.split(":")[-1]) for name in first.split(" and "))
    assert role[a] == ROLES["train"] and role[b] == ROLES["test"] and abs(a - b) == 1
    met = [i for i in range(len(role)) if role[i] == 1 and 3 in role[max(0, i - 1) : i + 2]]
    apart = np.diff(events["onset"]) > 0.5  # the pause between sentences keeps these apart
    met = [i for i in met if (i and role[i - 1] == 3 and not apart[i - 1])
           or (i + 1 < len(role) and role[i + 1] == 3 and not apart[i])]  # fmt: skip
    assert f"{len(met)} training windows" in str(found.value)


# --- shares of stimuli and categories ------------------------------------------------------------


def pictures(n=400, n_categories=100):
    names = [f"p{k:03d}" for k in range(n)]
    stimuli = pd.DataFrame(
        {"stimulus": names, "target": "word", "label": names, "source": "", "onset": 0.0,
         "offset": np.nan, "near_duplicate_group": names,
         "category": [f"c{k % n_categories}" for k in range(n)]}
    )  # fmt: skip
    events = pd.DataFrame(
        {"event": names, "recording": "r", "subject": "1", "session": "", "run": "1",
         "onset": np.arange(n, dtype=float), "duration": 0.3, "stimulus_word": names}
    )  # fmt: skip
    recordings = pd.DataFrame(
        {"recording": ["r"], "datatype": "eeg", "excluded": False, "duration": n + 2.0}
    )
    return events, recordings, stimuli


def test_whole_categories_are_held_out():
    section = SplitSection(by="category", fractions=[0.8, 0.1, 0.1])
    plan = plan_of(section, pictures())
    category = dict(zip(plan.stimuli["stimulus"], plan.stimuli["category"]))
    shown = plan.events["stimulus_word"].map(category).to_numpy()
    parts = [set(shown[plan.role[0] == number]) for number in (1, 2, 3)]
    assert sum(map(len, parts)) == 100 and len(set.union(*parts)) == 100
    assert set(plan.folds["groups"].iloc[0].split(",")) == parts[2]
    events, recordings, stimuli = pictures()
    stimuli.loc[3, "category"] = ""
    with pytest.raises(SplitError, match="1 of 400 without, e.g. p003"):
        plan_of(section, (events, recordings, stimuli))


RECIPE = """
[plan.stimuli.word]
kind = "{kind}"
{columns}
[split]
{split}
"""
PIECE = 'file_column = "sound"\nonset_column = "at"'


@pytest.mark.parametrize(
    ("kind", "columns", "split", "told"),
    [
        ("image", "", 'by = "category"', "category without categories|without categories"),
        ("speech", "", 'by = "segment"\nsegment_s = 6.0\nn_folds = 5', "no pieces of something"),
        ("speech", PIECE, 'by = "segment"\nn_folds = 5', "does not say what a segment is"),
        ("speech", PIECE, 'by = "segment"\nsegment_s = 6.0', "a fold of its own"),
        ("speech", PIECE, 'by = "run"\nsegment_s = 6.0', "segment_s needs segments"),
        ("speech", PIECE, 'by = "run"\nsegment_column = "s"', "segment_column needs segments"),
        ("image", "", 'by = "run"\nfractions = [0.7, 0.1, 0.2]', "drawn by what a stimulus holds"),
        ("image", "", 'by = "stimulus"\nfractions = [0.7, 0.1]', "no shares of training"),
        ("image", "", 'by = "stimulus"\nfractions = [0.7, 0.1, 0.1]', "no shares of training"),
        ("image", "", 'by = "stimulus"\nfractions = [0.9, 0.1, 0.0]', "no shares of training"),
        (
            "image",
            "",
            'by = "stimulus"\nfractions = [0.7, 0.1, 0.2]\nn_folds = 3',
            "n_folds beside",
        ),
    ],
)
def test_contradictions_of_the_split(kind, columns, split, told):
    with pytest.raises(RecipeError, match=told):
        parse_recipe(RECIPE.format(kind=kind, columns=columns, split=split), "r.toml")


def test_a_split_by_segment_is_read():
    split = 'by = "segment"\nsegment_column = "s"\nsegment_s = 6.0\nfractions = [0.7, 0.1, 0.2]'
    recipe = parse_recipe(RECIPE.format(kind="speech", columns=PIECE, split=split), "r.toml")
    assert recipe.split.fractions == SHARES
