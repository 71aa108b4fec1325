"""One small simulated study of all modalities, read by many tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braindecode_pipe.simulate import simulate_tiny

STUDY = {
    "modalities": ("eeg", "meg", "bold"),
    "n_words": 6,
    "n_repeats": 6,
    "n_word_repeats": 3,
    "snr": 0.5,
    "seed": 7,
}


@pytest.fixture(scope="session")
def study_settings() -> dict:
    return STUDY


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "study"
    simulate_tiny(out, **STUDY)
    return out


@pytest.fixture(scope="session")
def truth(study) -> dict:
    return json.loads((study / "truth.json").read_text(encoding="utf-8"))
