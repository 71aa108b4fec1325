"""Sections of a recipe that are decided before anything is fitted: ``[plan]`` and ``[split]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from braindecode_pipe.recipe.section import Seconds, Section


class Exclusion(Section):
    """A recording left out by name, with the reason that the report prints."""

    recording: str
    reason: str


class StimuliSpec(Section):
    """Which column of the event tables names the stimuli of one target, and what they are.

    With ``file_column`` a stimulus is a piece of something longer: a word of a recorded story, a
    word of a sentence. Every piece is a stimulus of this target, and every whole one of the target
    ``<name>_file``.
    """

    kind: Literal["concept", "image", "speech", "text", "video"] = "concept"
    column: str = "trial_type"
    folder: str = Field("stimuli", description="where stimulus files lie, below the data folder")
    where: dict[str, str] = Field(
        {}, description='column -> value that an event must have, e.g. trial_type = "picture"'
    )
    only: list[str] = Field([], description="keep only these levels; empty keeps all")
    drop: list[str] = Field([], description="levels that are no stimuli (rest, button, ...)")
    rename: dict[str, str] = Field({}, description="level in the data -> label to use")
    category_column: str = Field("", description="column with the category of each stimulus")
    file_column: str = Field(
        "",
        description="column with the file (speech, video) or the name of the text (text) that "
        "the stimulus is a piece of",
    )
    onset_column: str = Field(
        "", description="column with the onset inside that file [s]; of a text also word numbers"
    )
    duration_column: str = Field(
        "duration", description="column with the length of the piece [s]; with file_column"
    )
    near_duplicates: float = Field(
        0.0,
        ge=0,
        le=1,
        description="pictures whose 32 x 32 grey thumbnails correlate at least so much stay on one "
        "side of a split by stimulus; 0: only equal files do",
    )


class PlanSection(Section):
    """Which recordings, which events, which stimuli."""

    datatypes: list[Literal["eeg", "meg", "ieeg", "bold", "parcels", "epochs"]] = Field(
        [], description="empty: all that are found"
    )
    subjects: list[str] = []
    sessions: list[str] = []
    tasks: list[str] = []
    runs: list[str] = []
    derivatives: str = Field("", description='e.g. "fmriprep": read BOLD from derivatives/<name>')
    files: list[str] = Field([], description="glob patterns of loose files, instead of BIDS")
    columns: dict[str, str] = Field(
        {}, description="column of the data set -> onset | duration | trial_type | any new name"
    )
    exclude: list[Exclusion] = []
    duplicates: Literal["error", "allow"] = "error"
    allow_truncated: bool = False
    event_source: Literal["auto", "table", "stim", "annotations"] = Field(
        "auto",
        description="auto: events.tsv, compared with the device's triggers, which win; without a "
        "table the stim channel, else annotations. table: the table stands as it is",
    )
    stim_channel: str = Field("", description="channel(s) of triggers, by comma; empty: by type")
    stim_min_duration_s: Seconds = Field(0.0, ge=0, description="shorter pulses are none")
    stim_mask: int | None = Field(None, gt=0, description="bits of the stim channel that count")
    stim_consecutive: Literal["increasing", "all", "none"] = Field(
        "increasing", description="steps between two codes without a zero that are triggers"
    )
    event_codes: dict[str, str] = Field(
        {}, description="trigger code or annotation -> trial_type; empty: every one, as it is"
    )
    event_tolerance_s: Seconds = Field(
        0.02, gt=0, description="jitter allowed between an event table and the device's triggers"
    )
    max_dropped_events: float = Field(
        0.05, ge=0, le=1, description="share of events outside the recording that is dropped"
    )
    max_dropped_middle: float = Field(
        0.01, ge=0, le=1, description="the same, between events that are inside"
    )
    stimuli: dict[str, StimuliSpec] = {"trial_type": StimuliSpec()}


class SplitSection(Section):
    """Who is trained on and who is tested on; fixed before anything is fitted."""

    # With "none" recordings are preprocessed and nothing is decoded.
    by: Literal[
        "run", "session", "subject", "stimulus", "category", "segment", "time", "column", "none"
    ] = "run"
    target: str = Field("", description="target whose stimuli are split; default: the first")
    within_subject: bool = Field(True, description="one decoder per person")
    column: str = Field(
        "", description="by column: that of the event tables that says train, validation or test"
    )
    zero_shot: Literal["off", "small", "large"] = Field(
        "off",
        description="by column: training leaves out all categories that are tested; large: what "
        "is left out so is tested, in place of the events that the column names",
    )
    segment_column: str = Field(
        "", description="by segment, of stimuli with file_column: column that names their sentences"
    )
    segment_s: Seconds = Field(
        0.0,
        ge=0,
        description="neighbouring segments are merged until they last so long; without "
        "segment_column: neighbouring pieces",
    )
    fractions: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [],
        description="[train, validation, test]: one fold, whose shares are drawn by content; with "
        "segment, stimulus or category; empty: folds",
    )
    n_folds: int = Field(0, ge=0, description="0: leave one group out")
    test_folds: int = Field(0, ge=0, description="use only the first so many folds; 0: all")
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of training groups held out for early stopping"
    )
    purge_s: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="training windows closer than this [s] to a test window are left out; auto: "
        'as far as filters reach where by = "time", else 0',
    )
    overlap: Literal["error", "purge"] = Field(
        "error", description="training windows that overlap a test window in time"
    )
    shared_stimuli: Literal["error", "allow"] = Field(
        "error", description="pictures or sounds that are in training and test"
    )
    seed: int = 0
