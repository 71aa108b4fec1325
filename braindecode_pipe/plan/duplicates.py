"""Find recordings that hold the same samples, whole, in part or shifted in time.

Every sample vector (all sensors at one time) is hashed to 64 bits; a polynomial rolling hash over
``WIDTH`` samples then names every position by what it holds, wherever it lies. Positions whose hash
falls in a fixed share of the range are kept as anchors (content-defined sampling, as in rsync-like
chunking; Karp & Rabin 1987 for the rolling hash). Two recordings that share a stretch share its
anchors, at any shift.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from braindecode_pipe.formats import open_epochs, open_raw

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(int(_MULTIPLIER), -1, 1 << 64))
WIDTH = {"bold": 2, "parcels": 4}
KEEP_ONE_IN = {"bold": 1, "parcels": 1}
MIN_ANCHORS = 8
MIN_SHARE = 0.02


def _powers(base: np.uint64, n: int) -> np.ndarray:
    out = np.full(n, base, np.uint64)
    out[0] = 1
    return np.cumprod(out, dtype=np.uint64)


def _mix(values: np.ndarray) -> np.ndarray:
    """One 64-bit hash per row of a (n, k) array of 8-byte values."""
    words = np.ascontiguousarray(values).view(np.uint64)
    weights = _powers(np.uint64(0xD6E8FEB86659FD93), words.shape[1] + 1)[1:]
    mixed = (words ^ (words >> np.uint64(32))) * weights
    total = mixed.sum(axis=1, dtype=np.uint64)
    total ^= total >> np.uint64(29)
    total *= np.uint64(0xBF58476D1CE4E5B9)
    return total ^ (total >> np.uint64(32))


def anchors(blocks: Iterable[np.ndarray], width: int = 32, keep_one_in: int = 32) -> np.ndarray:
    """Sorted unique anchor hashes of a recording.

    Parameters
    ----------
    blocks : iterable of (n_times, n_sensors) float64 arrays, in order
        Consecutive pieces of the recording; only one is in memory at a time.
    width : int
        Samples that one hash covers.
    keep_one_in : int
        Share of positions that become anchors.

    Returns
    -------
    (n_anchors,) uint64. Stretches that do not change over ``width`` samples give none, so that
    silence and zero padding are no copies of each other.
    """
    found, tail = [], np.empty(0, np.uint64)
    for block in blocks:
        mixed = np.concatenate([tail, _mix(np.asarray(block, np.float64))])
        n = len(mixed) - width + 1
        if n < 1:
            tail = mixed
            continue
        prefix = np.zeros(len(mixed) + 1, np.uint64)
        prefix[1:] = np.cumsum(mixed * _powers(_MULTIPLIER, len(mixed)), dtype=np.uint64)
        rolled = (prefix[width:] - prefix[:-width]) * _powers(_INVERSE, n)
        rolled ^= rolled >> np.uint64(31)
        rolled *= np.uint64(0x94D049BB133111EB)
        changes = np.concatenate([[0], np.cumsum(mixed[1:] != mixed[:-1])])
        moving = changes[width - 1 :] > changes[:n]
        keep = moving & (rolled % np.uint64(keep_one_in) == 0)
        found.append(rolled[keep])
        tail = mixed[n:]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)


def read_blocks(path: Path, datatype: str, block: int = 50_000) -> Iterator[np.ndarray]:
    """Consecutive (n_times, n_sensors) pieces of a recording, at most 16 sensors of M/EEG."""
    if datatype == "bold":
        import nibabel

        image = nibabel.load(path)
        if image.ndim != 4:
            return
        step = max(1, int(5e7 // max(1, np.prod(image.shape[:3]) * 8)))
        for start in range(0, image.shape[3], step):
            volumes = np.asanyarray(image.dataobj[..., start : start + step])
            yield volumes.reshape(-1, volumes.shape[3]).T.astype(np.float64)
    elif datatype == "parcels":
        import pandas as pd

        for piece in pd.read_csv(path, sep="\t", chunksize=10_000):
            yield piece.to_numpy(np.float64)
    else:
        import mne

        if datatype == "epochs":
            epochs = open_epochs(path)
            for index in range(len(epochs)):
                with mne.use_log_level("error"):
                    epoch = epochs[index].get_data(copy=False)[0].T
                yield epoch
            return
        with warnings.catch_warnings():
            # The reader's warnings belong to the stage that preprocesses the recording.
            warnings.simplefilter("ignore")
            raw = open_raw(path, ("unique-names",))
        picks = mne.pick_types(raw.info, meg=True, eeg=True, seeg=True, ecog=True, dbs=True)
        picks = picks[np.unique(np.linspace(0, len(picks) - 1, 16).astype(int))]
        for start in range(0, raw.n_times, block):
            yield raw.get_data(picks, start, min(raw.n_times, start + block)).T


def recording_anchors(path: Path, datatype: str) -> np.ndarray:
    """Anchors of one recording on disk."""
    return anchors(
        read_blocks(path, datatype), WIDTH.get(datatype, 32), KEEP_ONE_IN.get(datatype, 32)
    )


def find_copies(found: dict[str, np.ndarray]) -> list[tuple[str, str, float]]:
    """Pairs of recordings that share samples, with the share of the shorter one's anchors.

    A pair counts from ``MIN_SHARE`` on, and at least ``min(MIN_ANCHORS, all)`` anchors.
    """
    names = sorted(found)
    pairs = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            a, b = found[first], found[second]
            shorter = min(len(a), len(b))
            if not shorter:
                continue
            common = len(np.intersect1d(a, b, assume_unique=True))
            if common >= min(MIN_ANCHORS, shorter) and common >= MIN_SHARE * shorter:
                pairs.append((first, second, common / shorter))
    return pairs
