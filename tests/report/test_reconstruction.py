"""The section on reconstruction: what it says of how pictures came about, and which it shows."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from braindecode_pipe.report.document import Failed, Gallery, Item, Items, Table
from braindecode_pipe.report.reconstruction import best_median_worst, reconstruction_section
from braindecode_pipe.schema import SCHEMA_VERSION, table_to_dataset
from braindecode_pipe.store import write_store

METRICS = (("PixCorr", ""), ("Lite0 head two-way", "Inception"))


@pytest.fixture
def store(tmp_path):
    """Nine items; item k is drawn in grey 10 k from the brain."""
    rng, n = np.random.default_rng(0), 9
    pictures = rng.integers(0, 256, (3, n, 8, 8, 3)).astype(np.uint8)
    scores = rng.random((3, 2, n))
    scores[0, 1] = [0.5, 0.9, 0.1, 0.9, 0.2, 0.3, 0.4, 0.6, 0.7]
    scores[0, 0, [1, 3]] = [0.2, 0.8]
    table = {"schema_version": SCHEMA_VERSION, "kind": "table"}
    inputs = ("input", np.array(["brain", "noise", "shuffled"], object))
    items = pd.DataFrame(
        {"fold": "0", "subject": "01", "stimulus": [f"s{k}" for k in range(n)], "n_events": 2,
         "sample": 0}
    )  # fmt: skip
    groups = {
        "items": table_to_dataset(items, "item"),
        "pictures": xr.Dataset(
            {"pictures": (("input", "item", "y", "x", "channel"), pictures)}, {"input": inputs},
            table,
        ),
        "scores": xr.Dataset(
            {"scores": (("input", "metric", "item"), scores)},
            {"input": inputs, "metric": ("metric", np.array([m for m, _ in METRICS], object))},
            table,
        ),
    }  # fmt: skip
    records = [
        {"metric": m, "stand_in_for": s, "kind": "two-way" if s else "correlation",
         "larger_is_better": True, "value": 0.6, "ci_low": 0.5, "ci_high": 0.7, "p_value": 0.004,
         "noise": 0.5, "p_noise": 0.01, "shuffled": 0.4, "p_shuffled": 0.02, "n_items": n}
        for m, s in METRICS
    ]  # fmt: skip
    generator = {"generator": "embedded", "description": "a decoder", "n_pictures": 30}
    attrs = {
        "kind": "table", "decoder": "ridge", "generators": [generator], "samples": 4,
        "chosen_by": "cosine", "input": "as they are", "prior": "none", "mixing": "none",
        "contrast": "unchanged", "refiner": "none", "preset": "offline", "notes": ["a note"],
    }  # fmt: skip
    path = tmp_path / "pictures.zarr"
    write_store(path, groups, attrs=attrs, files={"metrics.json": json.dumps(records).encode()})
    return path


class Shelf(dict):
    def __missing__(self, stimulus):
        return Item(stimulus)


def section(stores, recipe=None, gallery=9):
    inputs = SimpleNamespace(reconstructions=stores)
    study = SimpleNamespace(
        recipe={"reconstruct": {}} if recipe is None else recipe, inputs=inputs,
        section=lambda name: {"gallery": gallery},
    )  # fmt: skip
    return reconstruction_section(study, Shelf())


def test_the_gallery_is_best_median_and_worst_with_its_controls(store):
    blocks = section({"pictures": store}).blocks
    [gallery] = [b for b in blocks if isinstance(b, Gallery)]
    shown = [q.truth.label for q in gallery.queries]
    # By the two-way share, ties (items 1 and 3) by PixCorr: 3 1 8 | 7 0 6 | 5 4 2.
    assert shown == ["s3", "s1", "s8", "s7", "s0", "s6", "s5", "s4", "s2"]
    titles = [q.title.split(":")[0] for q in gallery.queries]
    assert titles == ["Best"] * 3 + ["Median"] * 3 + ["Worst"] * 3
    for query in gallery.queries:
        assert [item.label for item, _, _ in query.top] == [
            "from the brain", "from noise", "shuffled brain",
        ]  # fmt: skip
        assert all(item.jpeg[:2] == b"\xff\xd8" for item, _, _ in query.top)
        assert not any(hit for _, _, hit in query.top)


def test_what_was_done_and_what_stands_in_is_said(store):
    blocks = section({"pictures": store}).blocks
    [table] = [b for b in blocks if isinstance(b, Table)]
    assert [row[0] for row in table.rows] == [
        "PixCorr", "Lite0 head two-way (stands in for Inception)",
    ]  # fmt: skip
    assert any("cannot be put beside published ones" in note for note in table.notes)
    text = " ".join(next(b for b in blocks if isinstance(b, Items)).items)
    assert "samples per item: 4, kept by cosine" in text and "refiner none" in text
    assert "a note" in text


def test_nothing_asked_for_and_nothing_there(store):
    assert section({}, recipe={}) is None
    [block] = section({}).blocks
    assert "Nothing was reconstructed" in block.text
    (store / "MANIFEST.json").unlink()
    assert any(isinstance(b, Failed) for b in section({"pictures": store}).blocks)


@pytest.mark.parametrize("n", range(2, 14))
@pytest.mark.parametrize("wanted", [1, 3, 7, 12])
def test_no_item_is_shown_twice(n, wanted):
    found = best_median_worst(n, wanted)
    ranks = [r for part in found.values() for r in part]
    assert len(set(ranks)) == len(ranks) <= max(3, wanted)
    assert found["Best"][0] == 0 and max(ranks) == n - 1
