"""From EEG, MEG and fMRI recordings to decoded speech, pictures and words.

The public names are bound at their first use, so that importing the package costs next to nothing.

Functions and classes: ``load_recipe``, ``run``, ``open_signal``, ``open_events``, ``Windows``,
``BrainDecoder`` and ``retrieve``. Rooms, for the three tasks that are a room of the house:
``embed`` (with :func:`embed.embed`), ``audit`` (with :func:`audit.audit`) and ``report`` (with
:func:`report.run`). A room keeps its name whichever way it is imported first; a function of the
same name would be replaced by the module at the first ``import braindecode_pipe.embed``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_FUNCTIONS = {
    "load_recipe": "recipe",
    "run": "pipeline",
    "open_signal": "store",
    "open_events": "inspect",
    "Windows": "fitting.windows",
    "BrainDecoder": "train.decoder",
    "retrieve": "evaluate.retrieval",
}
_ROOMS = ("embed", "audit", "report")

__all__ = [
    "BrainDecoder",
    "Windows",
    "audit",
    "embed",
    "load_recipe",
    "open_events",
    "open_signal",
    "report",
    "retrieve",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        value = getattr(import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
