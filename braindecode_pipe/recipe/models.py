"""Recipes: pydantic models of ``pipelines/*.toml``, one section per stage and one ``[split]``.

A stage sees only its own section. Every field that is not given takes the default below, and the
*resolved* section (all values) is what the cache key of a stage is made of.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Seconds = float
Volts = float
Decoder = Literal["ridge", "logistic", "mlp", "conv"]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are frozen.

    TOML has no null, so the word ``"none"`` stands for it in every field that may be ``None``, and
    no tuples, so an array stands for one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _from_toml(cls, value: Any, info: ValidationInfo) -> Any:
        options = get_args(cls.model_fields[info.field_name or ""].annotation)
        if type(None) not in options:
            return value
        if isinstance(value, list) and any(get_origin(option) is tuple for option in options):
            return tuple(None if item == "none" else item for item in value)
        return None if value == "none" else value


class StudySection(Section):
    """What the study is; printed at the head of the report, part of no cache key."""

    name: str = "study"
    title: str = ""
    description: str = ""
    citation: str = ""
    license: str = ""


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
        "", description="column with the file (speech, video) or the name of the text (text) that "
        "the stimulus is a piece of"
    )
    onset_column: str = Field(
        "", description="column with the onset inside that file [s]; of a text also word numbers"
    )
    duration_column: str = Field(
        "duration", description="column with the length of the piece [s]; with file_column"
    )
    near_duplicates: float = Field(
        0.0, ge=0, le=1,
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
    max_dropped_events: float = Field(0.05, ge=0, le=1)
    stimuli: dict[str, StimuliSpec] = {"trial_type": StimuliSpec()}


class SplitSection(Section):
    """Who is trained on and who is tested on; fixed before anything is fitted."""

    by: Literal["run", "session", "subject", "stimulus", "category", "time"] = "run"
    target: str = Field("", description="target whose stimuli are split; default: the first")
    within_subject: bool = Field(True, description="one decoder per person")
    n_folds: int = Field(0, ge=0, description="0: leave one group out")
    test_folds: int = Field(0, ge=0, description="use only the first so many folds; 0: all")
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of training groups held out for early stopping"
    )
    purge_s: Seconds = Field(
        0.0, ge=0, description="training events closer than this to a test window are left out"
    )
    overlap: Literal["error", "purge"] = Field(
        "error", description="training windows that overlap a test window in time"
    )
    shared_stimuli: Literal["error", "allow"] = Field(
        "error", description="pictures or sounds that are in training and test"
    )
    seed: int = 0


class EmegSection(Section):
    """EEG, MEG, intracranial EEG. Steps run in the order of the fields."""

    picks: list[str] = Field([], description="mne channel types or names; empty: all data channels")
    montage: str = Field("", description="standard montage when the recording has no positions")
    bads: Literal["keep", "interpolate", "drop"] = "interpolate"
    detect_bads: bool = Field(True, description="flat channels and robust amplitude outliers")
    reference: Literal["", "average"] = ""
    notch: list[float] = Field([], description="line frequencies [Hz]; harmonics are included")
    l_freq: float | None = Field(0.1, description="high-pass edge [Hz]")
    h_freq: float | None = Field(40.0, description="low-pass edge [Hz]")
    reject_amplitude: dict[str, float] = Field(
        {}, description="channel type -> absolute amplitude [SI unit] that marks a span as bad"
    )
    reject_margin_s: Seconds = Field(0.0, ge=0, description="bad spans grow by this on both sides")
    sfreq: float | None = Field(120.0, gt=0, description="output rate [Hz]")
    scaler: Literal["none", "robust"] = Field(
        "robust", description="per recording and channel: (x - median) / interquartile range"
    )
    clamp: float | None = Field(20.0, gt=0, description="after scaling, in scaler units")
    nan: Literal["raise", "mark-bad"] = "raise"


class BoldSection(Section):
    """fMRI, as volumes (masker) or as parcel time series that are already extracted."""

    mask: str = Field(
        "",
        description="mask image below the data folder; {subject} is filled in; "
        "empty: fMRIPrep's brain mask beside the image, else computed per recording",
    )
    smoothing_fwhm: float | None = Field(None, gt=0, description="[mm]")
    dummy_scans: int = Field(0, ge=0)
    detrend: bool = True
    high_pass: float | None = Field(None, description="[Hz]")
    confounds: list[str] = Field([], description="columns of fMRIPrep's confounds table")
    standardize: bool = Field(True, description="z-score every sensor over its recording")
    t_r: float | None = Field(None, gt=0, description="[s]; only when header and sidecar lack it")


class PreprocessSection(Section):
    emeg: EmegSection = EmegSection()
    bold: BoldSection = BoldSection()


class EmbedSpec(Section):
    """One embedding table of one target's stimuli."""

    target: str = Field("", description="target of [plan.stimuli]; default: the table's own name")
    model: str = Field(
        "one-hot",
        description="one-hot | minilm | efficientnet-lite0 | pixels | hog | gabor | colour | "
        "log-mel | envelope | onsets | a transformers folder or id",
    )
    revision: str = Field("", description="revision of a transformers model")
    weights_sha256: dict[str, str] = Field(
        {}, description="file of torch weights -> its SHA-256, for models without safetensors"
    )
    layer: float | int | list[int] | None = Field(
        None, description="number, fraction of depth, or several averaged; None: the model's last"
    )
    pooling: Literal["", "cls", "mean", "last", "patch_mean", "patches", "time"] = Field(
        "", description="of tokens; time: steps of the recording's time axis; empty: the model's"
    )
    step_sfreq: float | None = Field(None, gt=0, description="rate of the steps [Hz], e.g. 120.0")
    step_tmin: Seconds = Field(0.0, description="first step, after the stimulus onset")
    step_tmax: Seconds | None = Field(None, description="end of the steps, after the onset")
    context: Literal["stimulus", "file"] = Field(
        "stimulus", description="what a speech model hears: the stimulus alone, or its file as far "
        "as the split leaves it in one piece"
    )
    window_s: Seconds = Field(20.0, gt=0, description="longer sounds are passed in windows")
    overlap_s: Seconds = Field(4.0, ge=0, description="what neighbouring windows share")
    context_words: int = Field(0, ge=0, description="words before each word that a model reads")
    frames: int = Field(8, ge=1, description="frames of a video, evenly spaced")
    fps: float = Field(0.0, ge=0, description="frames per second of videos that are folders")
    texts: dict[str, str] = Field({}, description="label -> text that is embedded in its place")
    onsets_of: str = Field("", description="model onsets: target whose onsets are counted")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="arithmetic of transformers models; half is faster and less exact"
    )
    batch_size: int = Field(0, ge=0, description="stimuli at once; 0: what memory allows")
    normalize: Literal["none", "center", "zscore", "whiten"] = Field(
        "none", description="fitted on each fold's training stimuli; whiten: by their PCA"
    )
    components: int = Field(
        0, ge=0, description="whiten: principal components kept; 0: all that carry variance"
    )


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


class NetworkSection(BaseModel):
    """Arguments of the network's constructor, passed through its signature."""

    model_config = ConfigDict(extra="allow", frozen=True)


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
    select: bool = Field(False, description="choose among the decoders by nested cross-validation")
    windows: WindowSection = WindowSection()
    alphas: list[float] = Field(
        [0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0], description="ridge penalties"
    )
    mlp: NetworkSection = NetworkSection()
    conv: NetworkSection = NetworkSection()
    loss: Literal["clip", "mse"] = "clip"
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(128, ge=2)
    epochs: int = Field(50, ge=1)
    patience: int = Field(10, ge=1)
    monitor: Literal["loss", "retrieval"] = Field(
        "retrieval", description="what early stopping looks at on the validation groups"
    )
    seed: int = 0
    zero_shot: ZeroShotSection | None = None


class EvaluateSection(Section):
    top_k: list[Annotated[int, Field(ge=1)]] = [1, 5, 10]
    candidates: Literal["test", "all"] = Field(
        "test", description="de-duplicated stimuli of the test fold, or of the whole study"
    )
    bootstrap: int = Field(2000, ge=0)
    bootstrap_unit: Literal["event", "stimulus", "run", "subject"] = "event"
    permutations: int = Field(2000, ge=0)
    ci: float = Field(0.95, gt=0, lt=1)
    seed: int = 0


class ReportSection(Section):
    gallery: int = Field(12, ge=0, description="queries shown, evenly spaced over the ranks")
    qc: bool = True


class ComputeSection(Section):
    """How many threads one task uses: part of the keys, since sums depend on it."""

    threads: int = Field(1, ge=1)


class Recipe(Section):
    """A whole study."""

    study: StudySection = StudySection()
    plan: PlanSection = PlanSection()
    split: SplitSection = SplitSection()
    preprocess: PreprocessSection = PreprocessSection()
    embed: dict[str, EmbedSpec] = {}
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    report: ReportSection = ReportSection()
    compute: ComputeSection = ComputeSection()

    def target_of(self, table: str) -> str:
        """Target in ``[plan.stimuli]`` whose stimuli the table ``[embed.<table>]`` embeds."""
        return self.embed[table].target or table

    def split_target(self) -> str:
        """Target whose stimuli the split keeps apart: the one named, or the first."""
        return self.split.target or next(iter(self.plan.stimuli))
