"""The optional section ``[reconstruct]``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from braindecode_pipe.recipe.section import Section


class ReconstructSection(Section):
    """Pictures back from predicted embeddings, beside those of noise and of shuffled brains."""

    embeddings: list[str] = Field(
        [], description="decoded tables of [embed]; empty: all whose stimuli are pictures"
    )
    decoder: str = Field("", description="whose predictions are used; empty: the first")
    generator: str = Field(
        "embedded",
        description="embedded (a decoder fitted on the training pictures) | nearest (the most "
        "similar training picture) | folder or id of a pipeline of diffusers",
    )
    device: str = Field("cpu", description="of torch: cpu, cuda, cuda:1, mps")
    side: int = Field(64, ge=16, description="pictures of embedded and nearest [pixels]")
    steps: int = Field(1200, ge=1, description="batches that embedded is fitted on")
    draws: int = Field(20, ge=1, description="denoising steps of a pipeline, and of the prior")
    guidance: float = Field(5.0, ge=0, description="classifier-free guidance of a pipeline")
    prior: Literal["none", "diffusion"] = Field(
        "none", description="diffusion: embeddings drawn given the prediction, not the prediction"
    )
    prior_steps: int = Field(2000, ge=1, description="batches that the prior is fitted on")
    prior_guidance: float = Field(1.0, ge=0)
    samples: int = Field(
        1,
        ge=1,
        description="embeddings drawn per item with a prior; kept is the one most like the "
        "prediction (cosine), whatever the target",
    )
    renormalise: bool = Field(
        True, description="predictions get mean and deviation of the training stimuli"
    )
    average: bool = Field(
        True,
        description="one item per person and stimulus, its events averaged; false: "
        "one per event, equal targets tie",
    )
    items: int = Field(50, ge=2, description="most items per fold and person, evenly spaced")
    batch_size: int = Field(16, ge=1, description="pictures drawn at a time")
    metrics: Literal["offline", "mindeye2", "neuropictor"] = Field(
        "offline", description="offline: EfficientNet-Lite0 stands in for the field's networks"
    )
    networks: str = Field("", description="folder of the networks that the metrics need")
    permutations: int = Field(2000, ge=0)
    bootstrap: int = Field(2000, ge=0)
    ci: float = Field(0.95, gt=0, lt=1)
    seed: int = Field(0, ge=0)
