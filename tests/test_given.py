"""Roles that a data set gives its events itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.errors import LeakageError, SplitError
from braindecode_pipe.recipe import SplitSection
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import make_folds

N_CATEGORIES, PER_CATEGORY, N_TESTED, REPEATS = 1854, 12, 200, 12


def tables(shown):
    """Events and stimuli of one person from rows (stimulus, category, split)."""
    shown = pd.DataFrame(shown, columns=["stimulus_picture", "category", "split"])
    n = len(shown)
    events = pd.DataFrame(
        {"event": [f"e{i}" for i in range(n)], "recording": "sub-01_meg", "subject": "01",
         "session": "", "onset": 1.5 * np.arange(n), "duration": 0.5,
         "stimulus_picture": shown["stimulus_picture"], "split": shown["split"]}
    )  # fmt: skip
    stimuli = shown.drop_duplicates("stimulus_picture")
    stimuli = pd.DataFrame(
        {"stimulus": stimuli["stimulus_picture"], "target": "picture", "kind": "image",
         "label": stimuli["stimulus_picture"], "category": stimuli["category"],
         "near_duplicate_group": stimuli["stimulus_picture"]}
    )  # fmt: skip
    recordings = pd.DataFrame({"recording": ["sub-01_meg"], "datatype": ["meg"]})
    return events, recordings, stimuli


@pytest.fixture(scope="module")
def things():
    """A table of the size of one person of THINGS-MEG, in random order."""
    rows = [(f"p{c}-{i}", f"c{c}", "exp") for c in range(N_CATEGORIES) for i in range(PER_CATEGORY)]
    rows = [(s, c, "train") for s, c, _ in rows]
    rows += [(f"t{c}", f"c{c}", "test") for c in range(N_TESTED)] * REPEATS
    rows += [("catch", "", "catch")] * 10
    order = np.random.default_rng(0).permutation(len(rows))
    return tables([rows[i] for i in order])


def roles(made, **settings):
    events, recordings, stimuli = made
    section = SplitSection(by="column", column="split", overlap="purge", **settings)
    folds, role, _ = make_folds(
        events, recordings, stimuli, section, target="picture", extent=(0.0, 1.0)
    )
    assert list(folds["fold"]) == ["sub-01_given"]
    return role[0]


@pytest.mark.parametrize(
    ("zero_shot", "n_train", "n_test", "n_pictures"),
    [("off", 22_248, 2_400, 200), ("small", 19_848, 2_400, 200), ("large", 19_848, 2_400, 2_400)],
)
def test_things_meg_is_split_as_published(things, zero_shot, n_train, n_test, n_pictures):
    events, _, stimuli = things
    role = roles(things, zero_shot=zero_shot)
    train, test = (events[role == ROLES[name]] for name in ("train", "test"))
    assert (len(train), len(test)) == (n_train, n_test)
    assert test["stimulus_picture"].nunique() == n_pictures
    category = dict(zip(stimuli["stimulus"], stimuli["category"]))
    both = set(train["stimulus_picture"].map(category)) & set(
        test["stimulus_picture"].map(category)
    )
    assert len(both) == (N_TESTED if zero_shot == "off" else 0)
    assert (role[(events["split"] == "catch").to_numpy()] == 0).all()


def test_a_share_of_the_training_stimuli_validates(things):
    events = things[0]
    role = roles(things, zero_shot="small", validation=0.2)
    held = events["stimulus_picture"][role == ROLES["validation"]]
    assert len(held) == round(0.2 * 19_848)
    assert not set(held) & set(events["stimulus_picture"][role == ROLES["train"]])


def test_given_validation_stays():
    role = roles(tables([("a", "x", "train"), ("b", "x", "Val"), ("c", "y", "TEST")]),
                 validation=0.5)  # fmt: skip
    assert list(role) == [ROLES["train"], ROLES["validation"], ROLES["test"]]


def test_a_stimulus_on_both_sides_is_named():
    made = tables([("a", "x", "train"), ("b", "x", "train"), ("a", "x", "test")])
    with pytest.raises(LeakageError, match="e0 and e2"):
        roles(made)


def test_what_the_column_lacks_is_said():
    made = tables([("a", "x", "train"), ("b", "", "test")])
    with pytest.raises(SplitError, match="no category(.|\n)*e1"):
        roles(made, zero_shot="small")
    events, *others = made
    with pytest.raises(SplitError, match=r"no column(.|\n)*'split'"):
        roles((events.drop(columns="split"), *others))
