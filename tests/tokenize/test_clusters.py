"""Functional clusters that people share."""

import json

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from braindecode_pipe.errors import DataError, ModelError
from braindecode_pipe.fitting.checkpoint import ARRAYS, CONFIG
from braindecode_pipe.splits import FitScope
from braindecode_pipe.store import read_file, write_store
from braindecode_pipe.tokenize.clusters import Clusters, fit_clusters

SCOPE = FitScope("fold-0", ("e1", "e2"), {"r1": ((0.0, 10.0),)})


def people(n_functions=4, n=60, width=6, noise=0.05):
    """Simulated voxels of known function; lengths differ and say nothing."""
    rng = np.random.default_rng(0)
    centres = np.eye(width)[:n_functions]
    out, truth = {}, {}
    for name, size in (("01", n), ("02", n + 8)):
        truth[name] = rng.integers(n_functions, size=size)
        values = centres[truth[name]] + noise * rng.standard_normal((size, width))
        out[name] = values * rng.uniform(0.1, 10, (size, 1))
    return out, truth


@pytest.fixture(scope="module")
def fitted():
    embeddings, truth = people()
    return fit_clusters(embeddings, SCOPE, n_clusters=4, seed=1), embeddings, truth


def test_people_share_the_clusters_of_a_function(fitted):
    clusters, _, truth = fitted
    names = {label: set() for label in range(4)}
    for subject, labels in zip(clusters.subjects, clusters.labels):
        for function in range(4):
            (label,) = set(labels[truth[subject] == function])
            names[function].add(label)
    assert sorted(map(len, names.values())) == [1] * 4
    assert clusters.counts.shape == (2, 4) and clusters.counts.sum(1).tolist() == [60, 68]
    assert clusters.converged
    assert all(np.allclose(np.linalg.norm(e, axis=1), 1) for e in clusters.embeddings)


def test_a_new_person_takes_what_the_nearest_voxel_has(fitted):
    clusters, embeddings, _ = fitted
    pick = np.array([5, 59, 0, 17])
    new = np.concatenate([3 * embeddings["02"][pick], 0.2 * embeddings["01"][pick]])
    found = clusters.assign(new)
    assert found.person.tolist() == [1] * 4 + [0] * 4
    assert found.voxel.tolist() == [*pick, *pick]
    assert np.array_equal(found.labels[:4], clusters.labels[1][pick])
    assert np.allclose(found.similarity, 1)
    tables = [np.arange(60.0)[:, None], 100 + np.arange(68.0)[:, None]]
    assert found.start(tables)[:, 0].tolist() == [105, 159, 100, 117, 5, 59, 0, 17]


def test_chunks_of_voxels_change_nothing(fitted, monkeypatch):
    clusters, embeddings, _ = fitted
    new = np.random.default_rng(3).standard_normal((50, 6))
    expected = clusters.assign(new)
    reference = np.concatenate(list(embeddings.values()))
    reference = reference / np.linalg.norm(reference, axis=1, keepdims=True)
    distance = np.linalg.norm(new[:, None] / np.linalg.norm(new, axis=1)[:, None, None]
                              - reference, axis=2)  # fmt: skip
    assert np.array_equal(expected.person * 60 + expected.voxel, distance.argmin(1))
    monkeypatch.setattr("braindecode_pipe.tokenize.clusters._CHUNK", 7)
    assert np.array_equal(clusters.assign(new).voxel, expected.voxel)


def test_the_seed_and_the_length_of_embeddings(fitted):
    clusters, embeddings, _ = fitted
    again = fit_clusters({k: 7 * v for k, v in embeddings.items()}, SCOPE, n_clusters=4, seed=1)
    assert all(map(np.array_equal, again.labels, clusters.labels))


def test_saved_and_loaded_through_a_store(fitted, tmp_path):
    clusters, _, _ = fitted
    path = tmp_path / "clusters.zarr"
    write_store(path, {}, {"data_origin": "simulated"}, files=clusters.files())
    again = Clusters.load(lambda name: read_file(path, name))
    assert again.scope == SCOPE.hash() and again.seen == clusters.seen
    assert again.subjects == ("01", "02") and (again.seed, again.converged) == (1, True)
    assert all(map(np.array_equal, again.labels, clusters.labels))
    assert all(map(np.array_equal, again.embeddings, clusters.embeddings))
    assert again.files() == clusters.files()


@pytest.mark.parametrize("change", [{"seen": "0" * 64}, {"subjects": ["01"]}, {"kind": "other"}])
def test_other_files_are_no_clusters(fitted, change):
    files = fitted[0].files()
    files[CONFIG] = json.dumps(json.loads(files[CONFIG]) | change).encode()
    with pytest.raises(ModelError, match="hold no clusters of voxels"):
        Clusters.load(files.__getitem__)
    with pytest.raises(ModelError, match="checkpoint cannot be read"):
        Clusters.load({ARRAYS: b"{}", CONFIG: b"{}"}.__getitem__)


def test_embeddings_that_cannot_be_clustered_are_refused(fitted):
    embeddings, _ = people()
    flat = embeddings["01"].copy()
    flat[7] = 0
    with pytest.raises(DataError, match=r"subject 01 without direction(.|\n)*first at voxel 7"):
        fit_clusters({"01": flat}, SCOPE, n_clusters=4)
    flat[7] = np.nan
    with pytest.raises(DataError, match="the new person without direction"):
        fitted[0].assign(flat)
    with pytest.raises(DataError, match="voxel embeddings to cluster"):
        fit_clusters(embeddings, SCOPE, n_clusters=129)
    with pytest.raises(DataError, match=r"widths \[5, 6\]"):
        fit_clusters(embeddings | {"03": np.ones((9, 5))}, SCOPE, n_clusters=4)
    with pytest.raises(DataError, match="another encoding model"):
        fitted[0].assign(np.ones((3, 5)))


def test_a_fit_that_was_cut_short_says_so():
    embeddings, _ = people(noise=0.5)
    assert not fit_clusters(embeddings, SCOPE, n_clusters=4, max_iter=1).converged


def test_a_mixture_of_some_voxels_labels_all(fitted):
    clusters, embeddings, truth = fitted
    some = fit_clusters(embeddings, SCOPE, n_clusters=4, n_drawn=50, seed=1)
    assert (some.n_fitted, clusters.n_fitted) == (50, 128)
    labels = np.concatenate(some.labels)
    functions = np.concatenate([truth[subject] for subject in some.subjects])
    assert len(labels) == 128 and adjusted_rand_score(functions, labels) == 1
    with pytest.raises(DataError, match="3 voxels"):
        fit_clusters(embeddings, SCOPE, n_clusters=4, n_drawn=3)
