"""Functional clusters of voxels that people share (Brain-IT, arXiv 2510.25976)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from braindecode_pipe.errors import DataError, ModelError
from braindecode_pipe.fitting.checkpoint import checkpoint_files, load_checkpoint
from braindecode_pipe.splits import FitScope

_CHUNK = 2048


@dataclass(frozen=True)
class Assignment:
    """Where the voxels of a new person belong.

    Attributes
    ----------
    labels : (n_voxels,) int64, cluster of the nearest reference voxel
    person, voxel : (n_voxels,) int64, which reference voxel that is
    similarity : (n_voxels,) float32, cosine with it
    """

    labels: np.ndarray
    person: np.ndarray
    voxel: np.ndarray
    similarity: np.ndarray

    def start(self, tables: Sequence[np.ndarray]) -> np.ndarray:
        """Rows of the tables ``(n_voxels_of_person, width)`` that belong to the nearest voxels."""
        width = tables[0].shape[1]
        out = np.empty((len(self.labels), width), tables[0].dtype)
        for person in np.unique(self.person):
            mine = self.person == person
            out[mine] = tables[person][self.voxel[mine]]
        return out


@dataclass(frozen=True)
class Clusters:
    """A Gaussian mixture over voxels, as labels of the voxels it was fitted on.

    Attributes
    ----------
    n_clusters : int
    subjects : names of the people
    embeddings : (n_voxels, width) float32 per person, of length 1
    labels : (n_voxels,) int64 per person, 0 to ``n_clusters - 1``
    scope : hash of the ``FitScope`` of what the embeddings were learned from
    seen : SHA-256 of the embeddings
    converged : whether the fit of the mixture ended before its last iteration
    n_fitted : voxels that the mixture was fitted on
    seed : int
    """

    n_clusters: int
    subjects: tuple[str, ...]
    embeddings: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    scope: str
    seen: str
    converged: bool
    n_fitted: int
    seed: int

    @property
    def counts(self) -> np.ndarray:
        """Voxels ``(n_subjects, n_clusters)`` of each person in each cluster."""
        return np.array([np.bincount(one, minlength=self.n_clusters) for one in self.labels])

    def assign(self, embeddings: np.ndarray) -> Assignment:
        """Nearest reference voxel by cosine of each voxel of a new person; ties: the first.

        This is not the mixture's own prediction: a new person's voxel takes over what its nearest
        voxel has, the cluster and where its embedding in the decoder starts.

        Parameters
        ----------
        embeddings : (n_voxels, width) of the same encoding model
        """
        new = unit_rows(embeddings, "the new person")
        reference = np.concatenate(self.embeddings)
        if new.shape[1] != reference.shape[1]:
            raise DataError(
                "embeddings of another encoding model",
                expected=f"width {reference.shape[1]}",
                found=f"width {new.shape[1]}",
            )
        index, similarity = np.empty(len(new), np.int64), np.empty(len(new), np.float32)
        for start in range(0, len(new), _CHUNK):
            cosines = new[start : start + _CHUNK] @ reference.T
            best = cosines.argmax(1)
            index[start : start + _CHUNK] = best
            similarity[start : start + _CHUNK] = np.take_along_axis(cosines, best[:, None], 1)[:, 0]
        ends = np.cumsum([len(one) for one in self.embeddings])
        person = np.searchsorted(ends, index, side="right")
        first = np.concatenate([[0], ends[:-1]])
        labels = np.concatenate(self.labels)[index]
        return Assignment(labels, person, index - first[person], similarity)

    def files(self) -> dict[str, bytes]:
        """Two files, safetensors and JSON, for ``store.write_store(files=...)``."""
        arrays = {f"embeddings.{i}": e for i, e in enumerate(self.embeddings)}
        arrays |= {f"labels.{i}": e for i, e in enumerate(self.labels)}
        config = {
            "kind": "clusters",
            "n_clusters": self.n_clusters,
            "subjects": list(self.subjects),
            "fit_scope": self.scope,
            "seen": self.seen,
            "converged": self.converged,
            "n_fitted": self.n_fitted,
            "seed": self.seed,
        }
        return checkpoint_files(arrays, config)

    @classmethod
    def load(cls, read: Callable[[str], bytes]) -> Clusters:
        """What :meth:`files` wrote.

        Parameters
        ----------
        read : name of a file -> its bytes
            For a store: ``functools.partial(store.read_file, path)``.

        Raises
        ------
        ModelError
            When the files hold no clusters, or embeddings that are not those they name.
        """
        arrays, config = load_checkpoint(read)
        try:
            subjects = tuple(config["subjects"])
            embeddings = tuple(arrays[f"embeddings.{i}"] for i in range(len(subjects)))
            labels = tuple(arrays[f"labels.{i}"] for i in range(len(subjects)))
            found = _hash(subjects, embeddings)
            if config["kind"] != "clusters" or found != config["seen"]:
                raise ValueError(f"{config['kind']!r}, embeddings {found[:16]}")
            return cls(
                config["n_clusters"], subjects, embeddings, labels, config["fit_scope"],
                config["seen"], config["converged"], config["n_fitted"], config["seed"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "these files hold no clusters of voxels",
                expected="what Clusters.files gave",
                found=repr(error),
                remedy="fit the clusters again",
            ) from error


def fit_clusters(
    embeddings: Mapping[str, np.ndarray],
    scope: FitScope,
    *,
    n_clusters: int = 128,
    n_drawn: int = 0,
    seed: int = 0,
    max_iter: int = 100,
) -> Clusters:
    """Clusters of the voxels of all people together, by function.

    Embeddings of an encoding model (``networks.voxel_encoding``) are brought to length 1; a
    Gaussian mixture with full covariances is fitted to all of them (k-means start, seeded), and
    every voxel takes its likeliest component. A component may end without voxels.

    Parameters
    ----------
    embeddings : subject -> (n_voxels, width)
    scope : FitScope
        What the encoding model was fitted on.
    n_clusters : int, 128 in the paper
    n_drawn : int
        Voxels that the mixture is fitted on, drawn evenly over all; the others only take their
        component. 0: all, as in the paper. An iteration costs about
        ``4 * voxels * n_clusters * width^2`` operations.
    seed, max_iter : int

    Raises
    ------
    DataError
        For an embedding that is not finite or of length 0, differing widths, or fewer voxels than
        clusters.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rows = tuple(unit_rows(values, f"subject {name}") for name, values in embeddings.items())
    widths = sorted({one.shape[1] for one in rows})
    n = sum(map(len, rows))
    used = n_drawn if 0 < n_drawn < n else n
    if len(widths) != 1 or used < max(n_clusters, 2):
        raise DataError(
            "voxel embeddings to cluster",
            expected=f"one width, and at least {max(n_clusters, 2)} voxels",
            found=f"widths {widths}, {used} voxels",
        )
    mixture = GaussianMixture(n_clusters, random_state=seed, max_iter=max_iter)
    with warnings.catch_warnings():
        # Whether it converged is part of the result.
        warnings.simplefilter("ignore", ConvergenceWarning)
        joined = np.concatenate(rows).astype(np.float64)
        drawn = joined
        if 0 < n_drawn < n:
            chosen = np.random.default_rng(seed).choice(n, n_drawn, replace=False)
            drawn = joined[np.sort(chosen)]
        labels = mixture.fit(drawn).predict(joined).astype(np.int64)
    parts = tuple(np.split(labels, np.cumsum([len(one) for one in rows])[:-1]))
    subjects = tuple(map(str, embeddings))
    return Clusters(
        n_clusters, subjects, rows, parts, scope.hash(), _hash(subjects, rows),
        bool(mixture.converged_), len(drawn), seed,
    )  # fmt: skip


def unit_rows(values: np.ndarray, whose: str) -> np.ndarray:
    """Rows of length 1, float32.

    Raises
    ------
    DataError
        When a row is not finite or has length 0.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise DataError(
            f"voxel embeddings of {whose}",
            expected="(n_voxels, width)",
            found=str(values.shape),
        )
    length = np.linalg.norm(values, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(length[:, 0]) | (length[:, 0] == 0))
    if len(bad):
        raise DataError(
            f"voxel embeddings of {whose} without direction",
            expected="finite rows that are not all 0",
            found=f"{len(bad)} of {len(values)}, first at voxel {bad[0]}",
            remedy="leave these voxels out, or fit the encoding model again",
        )
    return (values / length).astype(np.float32)


def _hash(subjects: Sequence[str], embeddings: Sequence[np.ndarray]) -> str:
    digest = sha256()
    for name, values in zip(subjects, embeddings):
        digest.update(f"{name}\0{values.shape}\0".encode())
        digest.update(np.ascontiguousarray(values, "<f4").tobytes())
    return digest.hexdigest()
