"""A finished run, scored again without each sensor."""

from __future__ import annotations

import json

import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.errors import MissingFileError


def test_ablation_needs_a_run_and_writes_what_every_sensor_costs(again, tmp_path, capsys, words):
    table = pipeline.ablate(words(), again.data, again.out, "sensor")
    assert set(table["group"]) == {"", "E1", "E2", "E3", "E4"}
    rows = json.loads((again.out / "ablation-sensor.json").read_text())
    assert [r["group"] for r in rows] == list(table["group"])
    whole = next(r for r in rows if r["group"] == "")
    assert whole["loss"] == 0 and whole["q_value"] is None
    assert max(r["loss"] for r in rows if r["group"]) > 0.02
    with pytest.raises(MissingFileError, match="run it first"):
        pipeline.ablate(words("train.alphas=[1.0]"), again.data, again.out, "sensor")
    with pytest.raises(MissingFileError, match="run it first"):
        pipeline.ablate(words(), again.data, tmp_path / "empty", "sensor")
