"""Stages and their units of work: what each sees, where its result lies, what keys it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braindecode_pipe.executor import Task
from braindecode_pipe.pipeline.cache import unit_key
from braindecode_pipe.splits import content_hash


@dataclass(frozen=True)
class Stage:
    """A stage: the sections of the recipe that it sees, its code, its libraries."""

    name: str
    sections: tuple[str, ...]
    rooms: tuple[str, ...]
    packages: tuple[str, ...]


FIT_SUFFIX = ".fit"
STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "plan",
            (
                "plan",
                "split",
                "train.windows.tmin",
                "train.windows.tmax",
                "train.windows.baseline",
                "train.windows.delay",
                "train.augment.shift_s",
                "preprocess.emeg.repairs",
            ),
            ("plan", "splits", "formats", "preprocess/reach"),
            ("mne", "nibabel", "pandas"),
        ),
        Stage(
            "preprocess",
            ("preprocess", "plan.allow_truncated", "compute.threads"),
            ("preprocess", "formats"),
            ("mne", "mne-bids", "nilearn", "nibabel", "numpy", "scipy"),
        ),
        Stage(
            "embed",
            ("embed", "compute.threads"),
            ("embed",),
            ("torch", "numpy", "scipy", "pillow", "transformers", "tokenizers"),
        ),
        Stage(
            "tokenize",
            (
                "tokenize",
                "train.windows.tmin",
                "train.windows.tmax",
                "train.windows.baseline",
                "train.windows.delay",
                "compute.threads",
            ),
            ("tokenize", "fitting", "networks"),
            ("torch", "numpy"),
        ),
        Stage(
            "train",
            ("train", "embed.*.normalize", "embed.*.components", "compute.threads"),
            ("train", "fitting", "networks"),
            ("torch", "numpy", "scipy", "scikit-learn", "himalaya"),
        ),
        Stage("evaluate", ("evaluate",), ("evaluate",), ("numpy", "scipy")),
        Stage(
            "reconstruct",
            ("reconstruct", "compute.threads"),
            ("reconstruct", "evaluate", "embed", "fitting", "networks"),
            ("torch", "numpy", "scipy", "pillow"),
        ),
        Stage(
            "report",
            (
                "study",
                "plan",
                "split",
                "preprocess",
                "embed",
                "tokenize",
                "train",
                "evaluate",
                "reconstruct",
                "report",
            ),
            ("report", "fitting"),
            ("matplotlib", "jinja2", "mne"),
        ),
    )
}


@dataclass(frozen=True)
class Unit:
    """One stage on one recording, table or fold.

    ``together``: it fits a network, which all processes of ``torchrun`` do, and which keeps
    checkpoints on the way.
    """

    stage: str
    name: str
    parts: Mapping[str, str]
    folder: Path
    function: str
    arguments: Mapping[str, Any] = field(repr=False)
    threads: int = 1
    together: bool = False

    @property
    def key(self) -> str:
        """Cache key."""
        return unit_key(self.stage, self.name, dict(self.parts))

    @property
    def path(self) -> Path:
        """Where the result is, or will be."""
        return self.folder / self.stage / slug(self.name) / f"{self.key}.zarr"

    @property
    def fit_folder(self) -> Path:
        """Where the fit of a network keeps checkpoints until the result is there."""
        return self.path.with_suffix(FIT_SUFFIX)

    def task(self) -> Task:
        """The work, for an executor."""
        places = {"out": self.path} | ({"folder": self.fit_folder} if self.together else {})
        return Task(
            f"{self.stage}/{self.name}",
            self.function,
            {**self.arguments, **places},
            self.threads,
            self.together,
        )


def slug(name: str) -> str:
    """A file name for a unit: letters, digits, ``._+-``; other names get a hash at the end."""
    clean = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip(".-")[:80]
    return clean if clean == name else f"{clean}-{content_hash(name)[:8]}"
