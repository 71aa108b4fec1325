"""What made a table, and whether a model still is what made it.

Every table stores what its model made of three built-in probes. When the model is loaded again for
that table, or for vectors of the cache, the probes are embedded again: a drift beyond rounding is
an error that names what changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.embed.interface import EmbeddingModel
from braindecode_pipe.errors import ModelError
from braindecode_pipe.store import list_groups, open_store, store_attrs

# Largest |found - stored| / |stored| (norms over a probe's features). Other processors and
# libraries round differently by some 1e-6 in float32; half precision by some 1e-2.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 3e-2}
FIELDS = (
    "model", "revision", "files", "layer", "pooling", "processor", "dtype", "time_axis", "reads",
    "packages",
)  # fmt: skip


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of installed distributions, "absent" where there is none."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def provenance(model: EmbeddingModel) -> dict[str, Any]:
    """What decides the vectors of a model, by the names of :data:`FIELDS`; no path, no clock."""
    own = model.fingerprint()
    return {
        "model": own["model"],
        "revision": own.get("revision", ""),
        "files": own.get("files", {}),
        "layer": own.get("layer"),
        "pooling": own.get("pooling", ""),
        "processor": own.get("processor", {}),
        "dtype": own.get("dtype", "float32"),
        "time_axis": own.get("time_axis", {}),
        "reads": model.reads,
        "packages": package_versions(model.packages),
    }


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What changed, one text per value: ``packages.torch: 2.6.0 -> 2.7.0``."""
    old, new = dict(_flat(stored)), dict(_flat(current))
    return [
        f"{name}: {old.get(name, 'nothing')} -> {new.get(name, 'nothing')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif prefix or name in FIELDS:
            yield f"{prefix}{name}", str(value)


def embed_probes(model: EmbeddingModel) -> tuple[list[str], np.ndarray]:
    """Names of the probes and their vectors; no names where there is nothing to check."""
    items = model.probes()
    if not items:
        return [], np.empty((0, 0), np.float32)
    names = [item.name.removeprefix("probe ") for item in items]
    return names, np.asarray(model.encode(items), np.float32)


def check_reference(
    stored: np.ndarray,
    found: np.ndarray,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    where: str | Path,
    remedy: str,
) -> None:
    """Compare what the probes gave then and now.

    Raises
    ------
    ModelError
        They differ by more than rounding; the message names what changed in between.
    """
    tolerance = TOLERANCE[str(before.get("dtype", "float32"))]
    if stored.shape == found.shape:
        flat = found.reshape(len(found), -1).astype(float), stored.reshape(len(stored), -1)
        size = np.linalg.norm(flat[1].astype(float), axis=1)
        away = np.linalg.norm(flat[0] - flat[1], axis=1)
        drift = np.divide(away, size, out=np.where(away > 0, np.inf, 0.0), where=size > 0)
        if drift.max(initial=0.0) <= tolerance:
            return
        seen = f"a difference of {drift.max():.2g} of the vector's length"
    else:
        seen = f"{found.shape[1:]} features per probe instead of {stored.shape[1:]}"
    changed = differences(before, now)
    raise ModelError(
        f"the model {now.get('model')} no longer makes what it made: its vectors must not be mixed "
        "with those that are stored",
        file=where,
        expected=f"the stored vectors of the built-in probes, within {tolerance:g}",
        found=f"{seen}; changed since: " + ("; ".join(changed) or "nothing that is recorded: "
                                            "processor, operating system or compiled libraries"),
        remedy=remedy,
    )  # fmt: skip


def verify_reference(store: str | Path, model: EmbeddingModel) -> None:
    """Check that a model still makes what it made for an embedding table.

    Parameters
    ----------
    store : path
        A store that the stage ``embed`` wrote.
    model : EmbeddingModel
        As ``build_model`` makes it, with the settings of the table.

    Raises
    ------
    ModelError
        The probes give other vectors than those in the store, or the store has none.
    """
    if "reference" not in list_groups(store):
        raise ModelError(
            "the table holds no reference to check", file=store,
            expected="the vectors of three probes", found="none",
            remedy="run the stage embed again",
        )  # fmt: skip
    stored = np.asarray(open_store(store, "reference")["embedding"].values)
    _, found = embed_probes(model)
    before = {k: v for k, v in store_attrs(store).items() if k in FIELDS}
    check_reference(
        stored, found, before, provenance(model), where=store,
        remedy="go back to the versions and files that are stored, or embed everything anew",
    )  # fmt: skip
