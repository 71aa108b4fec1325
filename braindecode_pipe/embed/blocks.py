"""Vectors of many stimuli: block by block, kept as they finish, checked against the reference."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.embed.cache import VectorCache, cache_root
from braindecode_pipe.embed.interface import EmbeddingModel, Item
from braindecode_pipe.embed.models import checked
from braindecode_pipe.embed.provenance import (
    check_reference,
    differences,
    embed_probes,
    provenance,
)

# Stimuli of one block: what a kill can cost.
BLOCK = 32
_EVERY_S = 5.0
# Vectors of models without a cache that are held in memory; more go to a temporary folder.
IN_MEMORY_BYTES = 128 << 20

log = logging.getLogger("braindecode_pipe.embed")


@dataclass(frozen=True)
class Computed:
    """Vectors that can be read by the identity of their stimulus.

    Attributes
    ----------
    read : identities -> (n, ...) float32
    provenance : what made the vectors
    probes, reference : names of the built-in probes and (n_probes, ...) what the model made of them
    """

    read: Callable[[Sequence[str]], np.ndarray]
    provenance: dict[str, Any]
    probes: list[str]
    reference: np.ndarray


def computed(model: EmbeddingModel, unique: Mapping[str, Item], name: str) -> Computed:
    """Embed every stimulus that was not embedded before, with the same model and settings.

    Vectors are computed in blocks of 32 stimuli in the model's own order, so that a run that was
    killed goes on at the block it was in, and its result equals that of a run that was not.

    Parameters
    ----------
    model : EmbeddingModel
    unique : identity -> stimulus
    name : of the table, for messages

    Raises
    ------
    ModelError
        The model no longer makes of the probes what it made when vectors in the cache were made;
        or NaN.
    """
    root = cache_root() if model.cached else None
    if root is None:
        return _not_kept(model, unique, name)
    cache = VectorCache.of(model.fingerprint(), root)
    now = provenance(model)
    missing = _missing(_blocks(model, unique), cache)
    stored = cache.reference()
    # A table whose vectors are all there does not load the model, unless a version changed.
    if missing or stored is None or differences(stored[0]["provenance"], now):
        probes, found = embed_probes(model)
        if stored is None:
            cache.keep_reference(now, probes, found)
        else:
            check_reference(
                stored[1], found, stored[0]["provenance"], now, where=cache.folder,
                remedy="go back to what is stored, or delete that folder to embed everything anew",
            )  # fmt: skip
    progress = Progress(name, len(unique), sum(map(len, missing)))
    for block in missing:
        items = [unique[i] for i in block]
        vectors = checked(model.encode(items), items)
        # Half precision is kept as such; bfloat16 has no type of its own in numpy.
        half = now["dtype"] == "float16"
        cache.write(block, vectors.astype(np.float16) if half else vectors)
        progress.advance(len(block))
    header, reference = cache.reference() or ({"provenance": now, "probes": []}, np.empty((0, 0)))
    return Computed(cache.read, header["provenance"], list(header["probes"]),
                    np.asarray(reference, np.float32))  # fmt: skip


def _missing(blocks: list[list[str]], cache: VectorCache) -> list[list[str]]:
    """Blocks of what is not in the cache; those of which nothing is there stay as they are."""
    whole = [block for block in blocks if all(name not in cache for name in block)]
    rest = [name for block in blocks if block not in whole for name in block if name not in cache]
    return whole + [rest[k : k + BLOCK] for k in range(0, len(rest), BLOCK)]


def _blocks(model: EmbeddingModel, unique: Mapping[str, Item]) -> list[list[str]]:
    """Identities in the model's order, in blocks."""
    # Sorted by content first: the order of events must not decide which stimuli share a batch.
    names = sorted(unique)
    order = model.order([unique[i] for i in names])
    ordered = [names[k] for k in order]
    return [ordered[k : k + BLOCK] for k in range(0, len(ordered), BLOCK)]


def _not_kept(model: EmbeddingModel, unique: Mapping[str, Item], name: str) -> Computed:
    """Vectors that are quick to make again; many of them wait in a temporary folder."""
    progress = Progress(name, len(unique), len(unique))
    # One-hot counts its labels in the order of the table, and all of them at once.
    whole = model.reads == "text" and not model.cached
    blocks = [list(unique)] if whole else _blocks(model, unique)
    values: dict[str, np.ndarray] = {}
    scratch: VectorCache | None = None
    for block in blocks:
        items = [unique[i] for i in block]
        vectors = checked(model.encode(items), items)
        if scratch is None and not values and vectors[0].nbytes * len(unique) > IN_MEMORY_BYTES:
            scratch = _scratch()
        if scratch is None:
            values |= zip(block, vectors)
        else:
            scratch.write(block, vectors)
        progress.advance(len(block))
    probes, reference = embed_probes(model)
    read = scratch.read if scratch else lambda names: np.stack([values[i] for i in names])
    return Computed(read, provenance(model), probes, reference)


def _scratch() -> VectorCache:
    """A cache in a temporary folder that goes when nobody reads it any more."""
    folder = Path(tempfile.mkdtemp(prefix="braindecode_pipe-"))
    cache = VectorCache(folder)
    weakref.finalize(cache, shutil.rmtree, folder, ignore_errors=True)
    return cache


class Progress:
    """Lines of the log ``braindecode_pipe.embed``: how many, how fast, until when."""

    def __init__(self, name: str, total: int, left: int) -> None:
        self.name, self.total, self.left = name, total, left
        self.done, self.began, self.told = 0, time.monotonic(), -np.inf
        if total > left:
            log.info("%s: %d of %d stimuli were embedded before", name, total - left, total)

    def advance(self, n: int) -> None:
        """``n`` more are done."""
        self.done += n
        now = time.monotonic()
        if now - self.told < _EVERY_S and self.done < self.left:
            return
        self.told = now
        rate = self.done / max(now - self.began, 1e-9)
        ends = time.localtime(time.time() + (self.left - self.done) / rate)
        log.info(
            "%s: %d of %d stimuli, %.3g per second, ends at %s",
            self.name, self.total - self.left + self.done, self.total, rate,
            time.strftime("%H:%M:%S", ends),
        )  # fmt: skip
