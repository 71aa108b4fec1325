"""The section of a recipe about tokens: ``[tokenize]``."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from braindecode_pipe.recipe.section import Seconds, Section
from braindecode_pipe.recipe.training import NetworkSection


class TokenizeSection(Section):
    """Recordings as tokens in a space that all devices and people share."""

    kind: Literal["sensors"] = Field(
        "sensors", description="sensors: latent sources of EEG, MEG and iEEG arrays"
    )
    folder: str = Field(
        "", description="a fitted tokenizer, as the stage writes it, to use in place of a fit"
    )
    sfreq: float = Field(256.0, gt=0, description="rate of the recordings [Hz], as preprocessed")
    window_s: Seconds = Field(2.0, gt=0, description="length of a window [s]")
    overlap: float = Field(
        0.25, ge=0, lt=1, description="share of a window that the next repeats, in codes of whole "
        "recordings; tokens of events never overlap"
    )  # fmt: skip
    values: Literal["vectors", "codes"] = Field(
        "vectors",
        description="codes: of whole recordings, nothing else; vectors: beside them the window of "
        "every event as vectors, which decoders read",
    )
    network: NetworkSection = Field(
        NetworkSection(), description="arguments of the tokenizer's network"
    )
    windows_per_epoch: int = Field(
        0, ge=0, description="windows that an epoch draws, spread over all; 0: all of them"
    )
    validation: float = Field(
        0.1, ge=0, lt=1, description="share at the end of what is seen of each recording that only "
        "tells when to stop"
    )  # fmt: skip
    lr: float = Field(2e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps with a rising rate")
    clip_norm: float = Field(1.0, ge=0, description="longest gradient; 0: any")
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: products in bfloat16; weights, losses and sums in float32"
    )
    batch_size: int = Field(32, ge=2, description="windows")
    epochs: int = Field(20, ge=1)
    patience: int = Field(5, ge=1)
    seed: int = 0

    @property
    def window(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.sfreq)

    @property
    def hop(self) -> int:
        """Samples from the begin of one window of a recording to that of the next."""
        return max(1, round(self.window * (1 - self.overlap)))

    def windows_in(self, seconds: Seconds) -> int:
        """How many windows in a row a piece of recording fills."""
        return max(1, math.ceil(seconds / self.window_s - 1e-9))
