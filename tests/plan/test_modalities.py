"""F-22: what recordings of different kinds have in common."""

from __future__ import annotations

import pandas as pd
import pytest

from braindecode_pipe.errors import SplitError
from braindecode_pipe.plan.modalities import join_modalities

RECORDINGS = pd.DataFrame({"recording": ["a", "b", "c"], "datatype": ["eeg", "eeg", "meg"]})


def events(rows):
    return pd.DataFrame(rows, columns=["recording", "subject", "stimulus_picture"])


def test_f22_people_and_stimuli_are_counted_left_right_and_both():
    table = events([("a", "01", "x"), ("b", "02", "y"), ("b", "02", "z"), ("c", "02", "z"),
                    ("c", "03", "w"), ("c", "04", "")])  # fmt: skip
    (found,) = join_modalities(RECORDINGS, table, "picture")
    assert found == {"left": "eeg", "right": "meg", "subjects": [1, 1, 1], "stimuli": [2, 1, 1]}


def test_f22_stimuli_alone_join():
    table = events([("a", "01", "x"), ("c", "02", "x")])
    assert join_modalities(RECORDINGS, table, "picture")[0]["stimuli"] == [0, 0, 1]


def test_f22_nothing_in_common_is_an_error_before_any_work():
    table = events([("a", "01", "x"), ("b", "02", "y"), ("c", "sub02", "z")])
    with pytest.raises(SplitError, match="2 people and 2 stimuli in eeg alone, 1 and 1 in meg"):
        join_modalities(RECORDINGS, table, "picture")


def test_one_modality_has_nothing_to_join():
    assert (
        join_modalities(RECORDINGS, events([("a", "01", "x"), ("b", "01", "y")]), "picture") == []
    )
