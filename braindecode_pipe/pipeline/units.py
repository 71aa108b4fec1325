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
                "train",
                "evaluate",
                "reconstruct",
                "report",
            ),  # fmt: skip
            ("report", "fitting"),
            ("matplotlib", "jinja2", "mne"),
        ),
    )
}


@dataclass(frozen=True)
class Unit:
    """One stage on one recording, table or fold."""

    stage: str
    name: str
    parts: Mapping[str, str]
    folder: Path
    function: str
    arguments: Mapping[str, Any] = field(repr=False)
    threads: int = 1

    @property
    def key(self) -> str:
        """Cache key."""
        return unit_key(self.stage, self.name, dict(self.parts))

    @property
    def path(self) -> Path:
        """Where the result is, or will be."""
        return self.folder / self.stage / slug(self.name) / f"{self.key}.zarr"

    def task(self) -> Task:
        """The work, for an executor."""
        return Task(
            f"{self.stage}/{self.name}",
            self.function,
            {**self.arguments, "out": self.path},
            self.threads,
        )


def slug(name: str) -> str:
    """A file name for a unit: letters, digits, ``._+-``; other names get a hash at the end."""
    clean = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip(".-")[:80]
    return clean if clean == name else f"{clean}-{content_hash(name)[:8]}"
