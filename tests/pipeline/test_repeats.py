"""Repeats of a stimulus that the chain of single-trial betas does not see are told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from braindecode_pipe.pipeline.consistency import repeat_findings
from braindecode_pipe.recipe import PreprocessSection
from braindecode_pipe.splits import StudyPlan


def plan_of(shown: dict[str, list[str]], subject: str = "01") -> StudyPlan:
    """A plan of BOLD recordings and the stimuli that each of them shows."""
    recordings = pd.DataFrame({"recording": list(shown), "datatype": "bold"})
    rows = [(name, subject, stimulus) for name, stimuli in shown.items() for stimulus in stimuli]
    events = pd.DataFrame(rows, columns=["recording", "subject", "stimulus_picture"])
    folds = pd.DataFrame({"fold": []})
    return StudyPlan(recordings, events, pd.DataFrame(), folds, np.zeros((0, len(events)), np.int8))


def findings(plan: StudyPlan, responses: str = "glmsingle", **glm) -> list[str]:
    section = PreprocessSection.model_validate({"bold": {"responses": responses, "glm": glm}})
    found = repeat_findings(plan, section)
    assert all(finding.severity == "warning" for finding in found)
    return [finding.text for finding in found]


ONCE = [f"s{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("shown", "told", "elsewhere"),
    [
        ({"a": ONCE + ONCE, "b": ONCE + ONCE}, "", False),
        ({"a": ONCE, "b": ONCE}, "2 of 2", True),
        ({"a": ONCE + ONCE, "b": ONCE}, "1 of 2", True),
        ({"a": ONCE, "b": [s + "x" for s in ONCE]}, "2 of 2", False),
        ({"a": [*ONCE, "s0", "s1", "s2"]}, "1 of 1", False),
        ({"a": [*ONCE, "s0", "s1", "s2", "s3", "", ""]}, "", False),
    ],
)
def test_repeats_that_glmsingle_does_not_see(shown, told, elsewhere):
    texts = findings(plan_of(shown))
    assert len(texts) == bool(told)
    if told:
        assert f"and {told} have fewer than 8 trials with a repeat" in texts[0]
        assert ("repeats in other recordings of the person teach nothing" in texts[0]) is elsewhere


def test_repeats_matter_to_glmsingle_and_its_target_alone():
    plan = plan_of({"a": ONCE, "b": ONCE})
    assert findings(plan, "lsa") == [] and findings(plan, "series") == []
    plan.events["stimulus_word"] = "w"
    assert findings(plan, target="word") == [] and len(findings(plan)) == 1
