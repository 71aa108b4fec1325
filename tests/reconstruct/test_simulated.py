"""Reconstruction from simulated EEG, by the benchmark's own study: a campaign of minutes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "bench_reconstruct.py"


@pytest.mark.slow
def test_simulated_brains_beat_shuffled_ones_on_every_metric(tmp_path):
    spec = importlib.util.spec_from_file_location("bench_reconstruct", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    _, records = benchmark.study(tmp_path, 1.0)
    assert len(records) == 8 and records[0]["n_items"] == 150
    for record in records:
        for p in ("p_value", "p_shuffled", "p_noise"):
            assert record[p] < 0.01, (record["metric"], p)
