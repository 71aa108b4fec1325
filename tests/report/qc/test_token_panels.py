"""Panels about tokens: numbers, traces and maps of a small token store."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from braindecode_pipe.report import qc_tokens
from braindecode_pipe.report.document import Figure, Text
from braindecode_pipe.schema import SCHEMA_VERSION, table_to_dataset
from braindecode_pipe.store import write_store

KINDS = ["eeg"] * 12 + ["mag"] * 9
ATTRS = {"window_s": 2.0, "hop_s": 1.5, "n_sensors": 21, "n_sources": 3, "n_steps": 8,
         "sensors_without_position": 0}  # fmt: skip


@pytest.fixture
def make(tmp_path):
    """A recording with tokens; changes of its attributes, error of EEG, share of the sources."""

    def build(error=0.25, share=(0.1, 0.6, 0.3), **attrs):
        rng = np.random.default_rng(0)
        names = np.array([f"{kind}{i}" for i, kind in enumerate(KINDS)], object)
        place = rng.normal(size=(21, 3))
        place *= 0.1 / np.linalg.norm(place, axis=1, keepdims=True)
        usage = pd.DataFrame({"level": [1, 2], "codes": [640, 640], "used": [0.5, 0.125],
                              "perplexity": [40.25, 3.0]})  # fmt: skip
        errors = pd.DataFrame({
            "kind": ["eeg", "eeg", "mag", "mag"], "band": ["alpha", "all"] * 2,
            "low": [8.0, 0.0] * 2, "high": [13.0, 64.0] * 2, "error": [0.5, error, 0.75, 0.375],
        })  # fmt: skip
        plain = {"schema_version": SCHEMA_VERSION, "kind": "table"}
        original = rng.normal(size=(21, 256)).astype(np.float32)
        excerpt = xr.Dataset(
            {"original": (("sensor", "time"), original), "rebuilt": (("sensor", "time"),
             0.5 * original)},
            {"sensor": names, "time": np.arange(256) / 128}, plain,
        )  # fmt: skip
        sources = xr.Dataset(
            {"pattern": (("source", "sensor"), rng.normal(size=(3, 21)).astype(np.float32)),
             "share": ("source", np.array(share))},
            {"sensor": names}, plain,
        )  # fmt: skip
        groups = {"usage": table_to_dataset(usage, "level_row"), "excerpt": excerpt,
                  "errors": table_to_dataset(errors, "error_row"), "sources": sources}  # fmt: skip
        path = tmp_path / "tokens.zarr"
        write_store(path, groups, attrs={**ATTRS, **attrs})
        sensors = pd.DataFrame({"sensor": names[::-1], "kind": KINDS[::-1]})
        sensors[["x", "y", "z"]] = place[::-1]
        study = SimpleNamespace(inputs=SimpleNamespace(tokens={"one": path}))
        return SimpleNamespace(study=study, name="one", sensors=sensors, grid=None)

    return build


def test_numbers_say_what_codes_are_and_what_they_lose(make):
    text, usage, errors = qc_tokens.numbers(make())
    assert text.text.startswith("Windows of 2 s from 21 sensors become 3 x 8 tokens of 2 codes")
    assert usage.rows == (("1", "640", "50.0 %", "40.2"), ("2", "640", "12.5 %", "3.0"))
    assert [column.name for column in errors.columns] == ["Kind of sensor", "alpha", "all"]
    assert errors.rows == (("eeg", "0.50", "0.25"), ("mag", "0.75", "0.38"))


def test_a_tokenizer_that_learned_nothing_is_told(make):
    recording = make(error=1.25, share=(0.0, 1e-9, 0.0), sensors_without_position=4)
    blocks = list(qc_tokens.numbers(recording))
    told = [b.text for b in blocks if isinstance(b, Text) and b.style == "warning"]
    assert told[0].startswith("4 sensors without position") and "kind eeg" in told[1]
    (block,) = qc_tokens.sources(recording)
    assert isinstance(block, Text) and block.style == "warning"


def test_traces_and_maps_are_drawn_strongest_first(make):
    recording = make()
    (traces,) = qc_tokens.rebuilt(recording)
    assert isinstance(traces, Figure) and "8 sensors" in traces.alt
    picture = np.asarray(Image.open(io.BytesIO(traces.png)).convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # rebuilt, residual
        assert (np.abs(picture.astype(int) - colour).sum(1) < 12).sum() > 500
    figures = list(qc_tokens.sources(recording))
    assert len(figures) == 2 and figures[0].caption.startswith("EEG")
    assert "source 1, 60.0 %" in figures[0].alt
    assert figures[0].alt.index("source 1") < figures[0].alt.index("source 2")


def test_what_is_missing_is_named(make):
    recording = make()
    recording.study.inputs.tokens = {}
    assert list(qc_tokens.numbers(recording)) == []
    with pytest.raises(Exception, match="the group excerpt of the tokens is missing"):
        list(qc_tokens.rebuilt(recording))
