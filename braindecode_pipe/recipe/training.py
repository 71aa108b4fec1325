"""The section of a recipe about decoders: ``[train]``, its windows, networks and losses."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from braindecode_pipe.recipe.section import Seconds, Section

# Networks are named by what they are made for; the class of each stands in ``train.networks``.
Network = Literal["mlp", "mixer", "conv", "conv-image", "nice", "atm", "eegnet"]
Decoder = Literal["ridge", "logistic"] | Network
Loss = Literal[
    "clip", "clip-symmetric", "siglip", "mse", "cosine", "mse-cosine", "clip+mse", "mixco+softclip"
]

# Begin and end of windows after the onset [s]; end None: the end of the event, and a third number
# says how long after it.
Extent = tuple[Seconds, Seconds | None] | tuple[Seconds, None, Seconds]


class WindowSection(Section):
    """The piece of recording that belongs to an event."""

    tmin: Seconds = 0.0
    tmax: Seconds | None = Field(None, description="None: onset + duration of the event")
    baseline: tuple[float | None, float | None] | None = None
    delay: Seconds | Literal["estimate"] = Field(
        0.0, description="response delay; estimate: by stimulus-versus-rest on training runs"
    )
    delay_max: Seconds = Field(12.0, gt=0, description="largest delay that estimate looks at")
    reduce: Literal["none", "mean"] = Field("none", description="mean over the window's time")
    sfreq: float | None = Field(None, gt=0, description="average down to this rate for ridge")
    whiten: Literal["none", "mvnn"] = Field(
        "none",
        description="mvnn: sensors made white by the noise covariance of each fold's training "
        "windows (multivariate noise normalisation)",
    )

    sliding_s: Seconds | None = Field(
        None,
        gt=0,
        description="time-resolved: one decoder for each piece of this length [s] of "
        "the window, beside the one that reads it whole",
    )
    sliding_step_s: Seconds | None = Field(
        None, gt=0, description="from the begin of one piece to that of the next; none: sliding_s"
    )  # fmt: skip
    repeats: Literal["single", "average"] = Field(
        "single",
        description="test and training windows of one stimulus: each by itself, or their mean per "
        "person and role",
    )

    @property
    def extent(self) -> Extent:
        """Times [s] around an event that are read: with baseline, after the response delay.

        A delay that each fold estimates may be anything up to ``delay_max``.
        """
        begin, end = self.baseline or (None, None)
        first = min(self.tmin, self.tmin if begin is None else begin)
        last = self.tmax if self.tmax is None or end is None else max(self.tmax, end)
        if self.delay == "estimate":
            early, late = 0.0, self.delay_max
        else:
            early = late = self.delay
        if last is not None:
            return first + early, last + late
        return (first + early, None, late) if late else (first + early, None)


class NetworkSection(BaseModel):
    """Arguments of the network's constructor, passed through its signature."""

    model_config = ConfigDict(extra="allow", frozen=True)


class AugmentSection(Section):
    """What is done to training windows after they are read, drawn anew in every epoch."""

    shift_s: Seconds = Field(0.0, ge=0, description="largest shift in time, to both sides [s]")
    channel_dropout: float = Field(0.0, ge=0, lt=1, description="share of sensors set to zero")
    noise: float = Field(
        0.0, ge=0, description="s.d. of white noise that is added, in s.d. of the scaled sensor"
    )
    mixup: float = Field(
        0.0, ge=0, description="a of Beta(a, a), by which windows of one person and their targets "
        "are mixed in pairs; 0: never"
    )  # fmt: skip


class ZeroShotSection(Section):
    """Leave-two-categories-out decoding from an embedding of category names."""

    target: str
    categories: list[str]
    embeddings: list[str] = Field(description="tables of [embed], one per prompt set")
    alphas: list[float] = [1.0, 10.0, 100.0, 1000.0, 10000.0]


class TrainSection(Section):
    """Decoders, each fitted on every fold's training events."""

    embeddings: list[str] = Field([], description="tables of [embed] to decode into; empty: all")
    decoders: list[Decoder] = ["ridge"]
    decoders_of: dict[str, list[Decoder]] = Field(
        {}, description="table of [embed] -> its own decoders, in place of the list above"
    )
    inputs: Literal["signals", "tokens"] = Field(
        "signals", description="what decoders read: recordings, or what [tokenize] makes of them"
    )
    select: bool = Field(False, description="choose among the decoders by nested cross-validation")
    windows: WindowSection = WindowSection()
    alphas: list[float] = Field(
        [0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0], description="ridge penalties"
    )
    network: dict[Network, NetworkSection] = Field(
        {}, description="decoder -> arguments of its network, e.g. [train.network.conv]"
    )
    layout: Literal["plane", "space"] = Field(
        "plane",
        description="where networks see the sensors: on a plane, as in the papers, or in "
        "three dimensions, so that devices can be mixed",
    )
    augment: AugmentSection = AugmentSection()
    loss: Loss = "clip"
    logit_scale: float | None = Field(
        None, gt=0, description="inverse temperature to begin with; none: that of the loss's paper"
    )
    learn_scale: bool = Field(True, description="whether the temperature is learned")
    loss_weight: float = Field(0.75, ge=0, le=1, description="clip+mse: share of the contrast")
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["auto", "cosine", "constant"] = Field(
        "auto",
        description="of the learning rate; auto: constant where validation stops the fit, "
        "else falling to zero along a cosine",
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps with a rising rate")
    clip_norm: float = Field(0.0, ge=0, description="longest gradient; 0: any")
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: products in bfloat16; weights, losses and sums in float32"
    )
    batch_size: int = Field(128, ge=2)
    micro_batch: int = Field(
        0,
        ge=0,
        description="windows that pass through the network at a time; the contrast still "
        "goes over the whole batch; 0: all of it",
    )
    epochs: int = Field(50, ge=1)
    patience: int = Field(10, ge=1)
    monitor: Literal["loss", "retrieval"] = Field(
        "retrieval", description="what early stopping looks at on the validation groups"
    )
    seed: int = 0
    seeds: int = Field(
        1, ge=1, description="networks are fitted with so many seeds, from seed on, each reported"
    )
    zero_shot: ZeroShotSection | None = None

    @property
    def extent(self) -> Extent:
        """Times [s] around an event that decoders read, with the shifts of training windows."""
        begin, end, *late = self.windows.extent
        shift = self.augment.shift_s
        return (begin - shift, None if end is None else end + shift, *late)
