"""The map of targets and predictions: axes, shares and what lies where."""

from __future__ import annotations

import numpy as np
import pytest

from braindecode_pipe.report.embedding_map import (
    colour_groups,
    embedding_map,
    map_section,
    mean_vectors,
    principal_axes,
    share_of,
    unit,
)
from braindecode_pipe.report.study import Study
from braindecode_pipe.store import open_store


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_axes_are_those_of_a_singular_value_decomposition(shape):
    rows = np.random.default_rng(0).normal(size=shape) * np.linspace(3, 1, shape[1])
    axes, share = principal_axes(rows)
    _, values, right = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert np.abs(np.abs(axes.T @ right[:2].T) - np.eye(2)).max() < 1e-8
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum())
    assert axes.T @ axes == pytest.approx(np.eye(2), abs=1e-12)
    assert (axes[np.abs(axes).argmax(0), [0, 1]] > 0).all()


def test_share_by_hand():
    rows = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 0, 2], [0, 0, -2]])
    assert share_of(rows, np.eye(3)[:, :2]) == pytest.approx(2 / 10)
    assert share_of(np.ones((3, 3)), np.eye(3)[:, :2]) == 0


def test_rows_have_unit_length_and_zeros_stay():
    assert unit(np.array([[3.0, 4.0], [0, 0]])) == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


def test_many_categories_share_one_colour():
    names = [f"c{i:02d}" for i in range(12) for _ in range(12 - i)]
    groups = colour_groups(names)
    assert len(groups) == 7 and list(groups)[:2] == ["c00", "c01"]
    assert sum(map(len, groups.values())) == len(names)
    assert list(colour_groups(["", ""])) == ["others"]


@pytest.fixture(scope="module")
def study(make_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    return Study(make_study(folder / "in", snr=3.0, n_runs=2, n_trials=24, draws=5))


def test_means_are_those_of_the_stores(study):
    (evaluation,) = study.evaluations
    ids, targets, predictions = mean_vectors(study, evaluation)
    assert len(ids) == 24 and targets.shape == predictions.shape == (24, 12)
    table = open_store(study.inputs.embeddings[evaluation.name])
    vectors = np.asarray(table["embedding"].values, float)
    row = [str(s) for s in table["stimulus"].values].index(ids[5])
    assert targets[5] == pytest.approx(vectors[row] / np.linalg.norm(vectors[row]), abs=1e-6)
    own, chosen = [], evaluation.attrs["selected"]
    folds = study.plan.folds["fold"]
    for path, attrs in study.predictions(evaluation.name):
        if attrs["decoder"] == chosen[folds.iloc[attrs["fold"]]]:
            data = open_store(path)
            at = [str(s) == ids[5] for s in data["stimulus"].values]
            own.append(unit(np.asarray(data["prediction"].values)[at]))
    assert predictions[5] == pytest.approx(np.concatenate(own).mean(0))
    cosine = (unit(targets) * unit(predictions)).sum(1)
    assert cosine.mean() > 0.7  # they are meant to lie at one place


def test_section_draws_one_figure_per_embedding(study):
    kinds = [block.kind for block in map_section(study).blocks]
    assert kinds == ["figure"]
    block = map_section(study).blocks[0]
    assert "24 stimuli" in block.alt and len(block.png) < 120_000


def test_two_stimuli_have_no_map(study, monkeypatch):
    two = (["a", "b"], np.eye(2), np.eye(2))
    monkeypatch.setattr("braindecode_pipe.report.embedding_map.mean_vectors", lambda *_: two)
    (block,) = embedding_map(study, study.evaluations[0])
    assert block.kind == "text" and "2 tested stimuli" in block.text
