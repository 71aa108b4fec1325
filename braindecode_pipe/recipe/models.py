"""Recipes: pydantic models of ``pipelines/*.toml``, one section per stage and one ``[split]``.

A stage sees only its own section. Every field that is not given takes the default below, and the
*resolved* section (all values) is what the cache key of a stage is made of.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from braindecode_pipe.recipe.design import PlanSection, SplitSection
from braindecode_pipe.recipe.reconstruction import ReconstructSection
from braindecode_pipe.recipe.section import Seconds, Section
from braindecode_pipe.recipe.tokenize import TokenizeSection
from braindecode_pipe.recipe.training import Extent, TrainSection

Volts = float


class StudySection(Section):
    """What the study is; printed at the head of the report, part of no cache key."""

    name: str = "study"
    title: str = ""
    description: str = ""
    citation: str = ""
    license: str = ""


class MaxwellSection(Section):
    """Signal-space separation of MEG (``mne.preprocessing.maxwell_filter``)."""

    st_duration_s: Seconds | None = Field(
        10.0, gt=0, description="buffer of the temporal extension (tSSS) [s]; none: SSS alone"
    )
    st_correlation: float = Field(0.98, gt=0, le=1)
    int_order: int = Field(8, ge=1)
    ext_order: int = Field(3, ge=0)
    coord_frame: Literal["head", "meg"] = "head"
    origin: tuple[float, float, float] | None = Field(
        None, description="[m]; none: fitted to the digitised head"
    )
    calibration: str = Field(
        "", description="fine calibration below the data folder; empty: BIDS' acq-calibration"
    )
    cross_talk: str = Field(
        "", description="cross-talk file below the data folder; empty: BIDS' acq-crosstalk"
    )
    movement: Literal["none", "chpi"] = Field(
        "none", description="head position from continuous HPI coils, compensated and shown"
    )


class IcaSection(Section):
    """Independent components, fitted on a high-passed excerpt, removed as one matrix."""

    method: Literal["picard", "fastica", "infomax"] = "picard"
    n_components: int | float | None = Field(
        0.99, gt=0, description="number, or explained variance; none: the rank of the data"
    )
    l_freq: float = Field(1.0, gt=0, description="high-pass of the excerpt [Hz]")
    h_freq: float = Field(100.0, gt=0, description="low-pass of the excerpt [Hz]")
    sfreq: float = Field(250.0, gt=0, description="rate of the excerpt [Hz]")
    max_s: Seconds = Field(1200.0, gt=0, description="longest excerpt, evenly chosen pieces")
    find: list[Literal["iclabel", "eog", "ecg"]] = Field(
        ["iclabel"], description="what says which components are artifacts; iclabel: EEG only"
    )
    labels: list[
        Literal["muscle artifact", "eye blink", "heart beat", "line noise", "channel noise"]
    ] = Field(["eye blink", "heart beat"], description="ICLabel's classes that are removed")
    threshold: float = Field(0.8, gt=0, le=1, description="least probability of that class")
    eog_channels: list[str] = Field([], description="empty: channels of type eog, else Fp1 and Fp2")
    ecg_channel: str = ""
    seed: int = 0


class EmegSection(Section):
    """EEG, MEG, intracranial EEG. Steps run in the order of the fields."""

    rename: dict[str, str] = Field({}, description="channel name in the data -> name to use")
    channel_types: dict[str, str] = Field({}, description="channel name -> mne channel type")
    picks: list[str] = Field([], description="mne channel types or names; empty: all data channels")
    repairs: list[
        Literal[
            "unique-names",
            "drop-positions",
            "decimal-comma",
            "negative-durations",
            "text-encoding",
        ]
    ] = Field(
        [],
        description="what `check` proposes and the recipe has to ask for; those of tables hold for "
        "event tables of fMRI as well",
    )
    montage: str = Field("", description="standard montage when the recording has no positions")
    nan: Literal["raise", "interpolate", "mark-bad"] = Field(
        "raise", description="samples that are not finite; interpolate: over time, spans marked bad"
    )
    bads: Literal["keep", "interpolate", "drop"] = "interpolate"
    detect_bads: bool = Field(
        True, description="flat, clipped and copied channels, robust amplitude outliers"
    )
    noisy: list[Literal["pyprep", "ransac", "maxwell"]] = Field(
        [], description="further detection: PREP (EEG), its RANSAC, mne's by SSS (MEG)"
    )
    compensation: int | None = Field(None, ge=0, description="CTF gradient compensation grade")
    hfc_order: int = Field(
        0, ge=0, le=3, description="homogeneous field correction of OPM arrays; 0: none"
    )
    maxwell: MaxwellSection | None = None
    ssp: list[Literal["file", "eog", "ecg", "empty-room"]] = Field(
        [], description="signal-space projections: those of the file, or computed"
    )
    reference: Literal["", "average", "REST", "bipolar", "laplacian", "channels"] = Field(
        "", description="bipolar, laplacian: along the shafts or strips of iEEG"
    )
    reference_channels: list[str] = Field([], description='with reference = "channels"')
    bipolar_pairs: list[list[str]] = Field(
        [], description="[anode, cathode]; empty: neighbours on a shaft by name"
    )
    notch: list[float] = Field([], description="line frequencies [Hz]; harmonics are included")
    line_removal: Literal["notch", "zapline"] = Field(
        "notch", description="how the lines of notch are removed"
    )
    zapline_components: int = Field(0, ge=0, description="0: by an outlier rule on their power")
    ica: IcaSection | None = None
    l_freq: float | None = Field(0.1, description="high-pass edge [Hz]")
    h_freq: float | None = Field(40.0, description="low-pass edge [Hz]")
    engine: Literal["fast", "mne"] = Field(
        "fast", description="filter and resample: one streaming pass, or mne step by step"
    )
    reject_amplitude: dict[str, float] = Field(
        {}, description="channel type -> absolute amplitude [SI unit] that marks a span as bad"
    )
    reject_margin_s: Seconds = Field(0.0, ge=0, description="bad spans grow by this on both sides")
    autoreject: Literal["none", "global", "local"] = Field(
        "none", description="thresholds by cross-validation over pieces of the recording"
    )
    autoreject_s: Seconds = Field(1.0, gt=0, description="length of those pieces")
    sfreq: float | None = Field(120.0, gt=0, description="output rate [Hz]")
    scaler: Literal["none", "robust", "standard"] = Field(
        "robust", description="(x - median) / interquartile range, or (x - mean) / s.d., a channel"
    )
    scaler_scope: Literal["per_recording", "train_only", "causal"] = Field(
        "per_recording",
        description="what the scaler sees: all good samples of the recording; each fold's "
        "training windows; the past",
    )
    scaler_window_s: Seconds = Field(
        60.0, gt=0, description="with causal: how far back it looks; the first so many seconds "
        "are scaled by themselves and marked as not good"
    )  # fmt: skip
    clamp: float | None = Field(20.0, gt=0, description="after scaling, in scaler units")


class GlmSection(Section):
    """Single-trial betas: one regressor per event that presents a stimulus."""

    hrf: Literal["spm", "glover", "library"] | None = Field(
        None,
        description="none: glover; with glmsingle and repeats the library, the best of 20 per "
        "sensor",
    )
    high_pass: float | None = Field(0.01, gt=0, description="cosine drift terms [Hz]")
    lss_others: Literal["condition", "together"] = Field(
        "condition", description="lss: the other trials in one regressor per trial_type, or in one"
    )
    nuisance_events: list[str] = Field(
        [], description="trial types without stimulus that get a regressor; others are baseline"
    )
    noise_components: int = Field(10, ge=0, description="glmsingle: most that are tried")
    fallback_components: int = Field(
        5, ge=0, description="glmsingle: their number where no stimulus repeats"
    )
    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05], min_length=1,
        description="glmsingle: fractions of the unregularised length that ridge may keep",
    )  # fmt: skip
    target: str = Field(
        "", description="target of [plan.stimuli] whose repeats cross-validate; default: the first"
    )
    percent: bool = Field(True, description="betas in percent of a voxel's mean")


class BoldSection(Section):
    """fMRI, as volumes (masker) or as parcel time series that are already extracted."""

    sensors: Literal["voxels", "parcels", "vertices"] = Field(
        "voxels", description="what a sensor is; surfaces and parcel tables are what they are"
    )
    mask: str = Field(
        "",
        description="mask image below the data folder; {subject} is filled in; "
        "empty: fMRIPrep's brain mask beside the image, else computed per recording",
    )
    atlas: str = Field(
        "", description="with parcels: label image (3-D) or maps (4-D) below the data folder"
    )
    surface: str = Field(
        "fsaverage5", description="with vertices: mesh that volumes in MNI space are projected to"
    )
    resample: bool = Field(
        False, description="bring a mask or atlas to the grid of the recording (nearest, linear)"
    )
    smoothing_fwhm: float | None = Field(None, gt=0, description="[mm]")
    dummy_scans: int = Field(0, ge=0)
    detrend: bool = True
    high_pass: float | None = Field(None, description="[Hz]")
    low_pass: float | None = Field(None, gt=0, description="[Hz], Butterworth by nilearn")
    confounds: list[str] = Field([], description="columns of fMRIPrep's confounds table")
    confounds_strategy: list[
        Literal[
            "motion", "wm_csf", "global_signal", "compcor", "ica_aroma", "scrub", "high_pass",
            "non_steady_state",
        ]
    ] = Field([], description="nilearn.interfaces.fmriprep.load_confounds strategies")  # fmt: skip
    confounds_options: dict[str, str | float | int] = Field(
        {}, description="arguments of load_confounds: motion, scrub, fd_threshold, compcor ..."
    )
    standardize: bool = Field(True, description="z-score every sensor over its recording")
    t_r: float | None = Field(None, gt=0, description="[s]; only when header and sidecar lack it")
    responses: Literal["series", "lsa", "lss", "glmsingle"] = Field(
        "series", description="the time series, or one beta per event"
    )
    glm: GlmSection = GlmSection()


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
        "stimulus",
        description="what a speech model hears: the stimulus alone, or its file as far "
        "as the split leaves it in one piece",
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


class EvaluateSection(Section):
    protocol: Literal[
        "", "defossez", "benchetrit-large", "benchetrit-small", "nice", "atm", "brainflora",
        "mindeye2", "neuralbench",
    ] = Field("", description="candidates, averaging and sampling as in a paper")  # fmt: skip
    top_k: list[Annotated[int, Field(ge=1)]] = [1, 5, 10]
    candidates: Literal["test", "all", "prototypes", "frequent"] = Field(
        "test",
        description="stimuli of the test fold, of the whole study, one mean per class, or the "
        "n_frequent that the test fold shows most often",
    )
    n_frequent: int = Field(250, ge=2)
    aggregate: Literal["none", "repetitions", "subjects"] = Field(
        "none", description="predictions averaged into one query"
    )
    direction: Literal["query", "both"] = Field(
        "query", description="both: stimuli also look for the response that they evoked"
    )
    n_way: list[Annotated[int, Field(ge=2)]] = Field(
        [], description="numbers of candidates to sample, the true one among them"
    )
    pool: Literal["query", "shared"] = Field(
        "query", description="sampled anew for every query, or one pool per draw for all"
    )
    draws: int = Field(30, ge=1, description="samples of distractors, for the interval over draws")
    bootstrap: int = Field(2000, ge=0)
    bootstrap_unit: Literal["event", "stimulus", "run", "subject"] = "event"
    permutations: int = Field(2000, ge=0)
    exchange: Literal["auto", "shift"] = Field(
        "auto",
        description="null: stimuli of a fold, or of single queries within a run; or shifted "
        "against time within a run, which keeps their order",
    )
    controls: list[Literal["noise", "probe", "low-level"]] = Field(
        ["noise", "probe"],
        description="beside every decoder: itself on noise in place of the test windows; what its "
        "predictions tell of run, session and time of run; low-level: pixels of pictures, envelope "
        "and log-mel of sounds, decoded as tables of their own",
    )
    ci: float = Field(0.95, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _one_protocol(self) -> EvaluateSection:
        """A preset is a paper's: what it fixes is not to be changed beside it."""
        fixed = ("candidates", "n_frequent", "aggregate", "direction", "n_way", "pool", "draws")
        changed = [k for k in fixed if getattr(self, k) != type(self).model_fields[k].default]
        if self.protocol and changed:
            raise ValueError(
                f'protocol = "{self.protocol}" fixes {", ".join(changed)}: leave out either it or '
                "them"
            )
        return self


class ReportSection(Section):
    gallery: int = Field(
        12, ge=0, description="queries shown: the best, around the median, and the worst"
    )
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
    tokenize: TokenizeSection | None = None
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    reconstruct: ReconstructSection | None = None
    report: ReportSection = ReportSection()
    compute: ComputeSection = ComputeSection()

    @property
    def extent(self) -> Extent:
        """Times [s] around an event that decoders read; of tokens, whole windows."""
        first, last, *late = self.train.extent
        if self.train.inputs == "tokens" and self.tokenize is not None and last is not None:
            last = first + self.tokenize.windows_in(last - first) * self.tokenize.window_s
        return (first, last, *late)

    @model_serializer(mode="wrap")
    def _without_stages_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A section that is not there leaves no mark on keys and records."""
        whole: dict[str, Any] = dump(self)
        if whole.get("reconstruct", 0) is None:
            del whole["reconstruct"]
        return whole

    def target_of(self, table: str) -> str:
        """Target in ``[plan.stimuli]`` whose stimuli the table ``[embed.<table>]`` embeds."""
        return self.embed[table].target or table

    def split_target(self) -> str:
        """Target whose stimuli the split keeps apart: the one named, or the first."""
        return self.split.target or next(iter(self.plan.stimuli))
