"""Three stimuli per modality, made by formula: what a model makes of them shows whether it is
still the model that made a table.

Pictures are integers by integer arithmetic, sounds differ by rounding of ``sin`` at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from braindecode_pipe.embed.audio import Clip
from braindecode_pipe.embed.interface import Item, Text

SFREQ = 16000
_SIDE = 240


def probes(reads: str) -> list[Item]:
    """The probes of what a model reads: text, image, audio, video; none for anything else."""
    make = {"text": _texts, "image": _pictures, "audio": _sounds, "video": _videos}.get(reads)
    return [Item(f"probe {name}", value) for name, value in make().items()] if make else []


def _texts() -> dict[str, Any]:
    return {
        "word": Text("house"),
        "sentence": Text("A dog runs over the wet grass, and nobody calls it back."),
        "in context": Text("morning", "They left the old house early in the"),
    }


def _pictures() -> dict[str, Any]:
    from PIL import Image

    y, x = np.mgrid[:_SIDE, :_SIDE]
    far = (x - 120) ** 2 + (y - 90) ** 2
    planes = {
        "gradient": (x, y, (x + y) // 2),
        "checks": (255 * ((x // 30 + y // 30) % 2), 40 + 0 * x, 200 * (x // 60 % 2)),
        "rings": (far // 7 % 256, 255 - far // 11 % 256, x * y // 97 % 256),
    }
    return {
        name: Image.fromarray(np.stack(plane, 2).astype(np.uint8)) for name, plane in planes.items()
    }


def _sounds() -> dict[str, Any]:
    n = np.arange(2 * SFREQ)
    t = n / SFREQ
    voice = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12))
    waves = {
        "sweep": np.sin(2 * np.pi * (100 * t + 900 * t**2)),
        "syllables": voice * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * t)) / 3,
        "noise": (n * n * 7919 + n * 104729) % 65537 / 32768.5 - 1,
    }
    return {
        name: Clip(samples=0.5 * wave, sfreq=float(SFREQ), onset=0.25, offset=1.25)
        for name, wave in waves.items()
    }


def _videos() -> dict[str, Any]:
    return {
        name: [picture.rotate(90 * turn) for turn in range(4)]
        for name, picture in _pictures().items()
    }
