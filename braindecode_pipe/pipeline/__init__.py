"""The whole way: which units of which stages run, why, where, and what is kept.

``run`` runs a recipe, ``run_bids`` preprocesses in the form of a BIDS app, ``check`` reads
everything and writes nothing, ``clean`` deletes results that the present recipe does not use,
``demo`` simulates people and decodes them, ``rehearse`` does so by a published recipe.
"""

from __future__ import annotations

from braindecode_pipe.pipeline.ablation import ablate
from braindecode_pipe.pipeline.auditing import audit_recipe
from braindecode_pipe.pipeline.bids import run_bids
from braindecode_pipe.pipeline.housekeeping import check, clean
from braindecode_pipe.pipeline.launch import run
from braindecode_pipe.pipeline.result import RunResult, UnitResult
from braindecode_pipe.pipeline.showcase import demo, rehearse
from braindecode_pipe.pipeline.units import STAGES

__all__ = [
    "STAGES",
    "RunResult",
    "UnitResult",
    "ablate",
    "audit_recipe",
    "check",
    "clean",
    "demo",
    "rehearse",
    "run",
    "run_bids",
]
