"""Recipes: what a study is, as TOML. Models, the loader, and the way back to text."""

from __future__ import annotations

from braindecode_pipe.recipe.design import Exclusion, PlanSection, SplitSection, StimuliSpec
from braindecode_pipe.recipe.loader import find_recipe, load_recipe, parse_recipe
from braindecode_pipe.recipe.models import (
    BoldSection,
    ComputeSection,
    EmbedSpec,
    EmegSection,
    EvaluateSection,
    GlmSection,
    PreprocessSection,
    Recipe,
    ReportSection,
    StudySection,
    Volts,
)
from braindecode_pipe.recipe.reconstruction import ReconstructSection
from braindecode_pipe.recipe.section import Seconds, Section
from braindecode_pipe.recipe.text import recipe_json_schema, recipe_toml, toml_value
from braindecode_pipe.recipe.tokenize import TokenizeSection
from braindecode_pipe.recipe.training import (
    AugmentSection,
    Decoder,
    Loss,
    Network,
    NetworkSection,
    TrainSection,
    WindowSection,
    ZeroShotSection,
)
from braindecode_pipe.recipe.variants import Variant, pieces, variant, variants

__all__ = [
    "AugmentSection",
    "BoldSection",
    "ComputeSection",
    "Decoder",
    "EmbedSpec",
    "EmegSection",
    "EvaluateSection",
    "Exclusion",
    "GlmSection",
    "Loss",
    "Network",
    "NetworkSection",
    "PlanSection",
    "PreprocessSection",
    "Recipe",
    "ReconstructSection",
    "ReportSection",
    "Seconds",
    "Section",
    "SplitSection",
    "StimuliSpec",
    "StudySection",
    "TokenizeSection",
    "TrainSection",
    "Variant",
    "Volts",
    "WindowSection",
    "ZeroShotSection",
    "find_recipe",
    "load_recipe",
    "parse_recipe",
    "pieces",
    "recipe_json_schema",
    "recipe_toml",
    "toml_value",
    "variant",
    "variants",
]
