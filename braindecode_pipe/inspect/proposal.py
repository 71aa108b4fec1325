"""A recipe for a data set that was looked at: sensible choices, and the others as comments."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.formats import open_epochs
from braindecode_pipe.inspect.choices import Pieces, Target, choose_recordings, choose_target
from braindecode_pipe.inspect.survey import Survey, sidecar_value
from braindecode_pipe.recipe import EmegSection, toml_value
from braindecode_pipe.recipe.text import toml_key

_APART = 'scaler_scope = "train_only"  # training and test lie in one recording'
_MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
_SLOW = ("bold", "parcels")
_SEGMENT_S = 6.0  # shortest blocks of Defossez et al. 2023


def write_recipe(found: Survey) -> str:
    """A commented recipe (TOML) for what :func:`~.survey.survey` found.

    One kind of data and one column of the events are chosen; the comments name the others. Copies
    of recordings are pointed out, not excluded: that is for the reader to decide.
    """
    chosen, source = choose_recordings(found)
    events = found.events[
        (found.events["source"] == source)
        & found.events["recording"].isin(chosen["recording"].astype(str))
    ]
    target = choose_target(found, events)
    parts = [
        _study(found, target),
        _plan(found, chosen, source, target),
        _split(chosen, events, target),
        _preprocess(found, chosen, source, _divides(chosen, target)),
        _embed(target),
        _train(found, chosen, events, target),
        _evaluate(),
    ]
    lines = [line for part in parts for line in (*part, "")]
    # Names from the data stand in comments: one with a line break in it must not become a setting.
    return "\n".join(re.sub(r"[\x00-\x1f\x7f]+", " ", line) for line in lines)


# --- sections ------------------------------------------------------------------------------------


def _study(found: Survey, target: Target) -> list[str]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(found.data).resolve().name).strip("._-")
    title = str(found.description.get("Name", "") or name)
    references = found.description.get("ReferencesAndLinks", [])
    citation = "; ".join(map(str, references)) if isinstance(references, list) else str(references)
    lines = [
        "# A recipe says what a study is; `braindecode-pipe config RECIPE` prints all values.",
        "# Try it:  braindecode-pipe run RECIPE --data DIR --dry-run",
    ]
    if not target.is_decodable:
        lines += [
            "#",
            "# No event column was found whose levels repeat: there is nothing to decode yet.",
            "# Name one in [plan.stimuli] below; `check RECIPE --data DIR` says what is missing.",
        ]
    return [
        *lines,
        "",
        "[study]",
        f"name = {toml_value(name or 'study')}",
        f"title = {toml_value(title)}",
        f"citation = {toml_value(citation)}",
        f"license = {toml_value(str(found.description.get('License', '')))}",
    ]


def _plan(found: Survey, chosen: pd.DataFrame, source: str, target: Target) -> list[str]:
    section, datatype = found.sections[source], str(chosen["datatype"].iloc[0])
    lines = ["[plan]"]
    others = sorted(set(found.recordings["datatype"]) - {datatype})
    if section.files:
        lines.append(f"files = {toml_value(section.files)}")
    if others or source:
        lines.append(f"datatypes = {toml_value([datatype])}" + _also(others))
    if source:
        lines.append(f"derivatives = {toml_value(source)}")
    people = sorted(set(map(str, chosen["subject"])) - {""})
    if people:
        lines.append(f"# subjects = {toml_value(people[:5])}  # empty or absent: all")
    lines.append("# allow_truncated = true  # use what is there of recordings that are cut short")
    lines += _exclusions(found)
    column = target.column
    unused = [name for name in found.columns if name != column.name]
    lines += [
        "",
        f"[plan.stimuli.{target.name}]",
        f"kind = {toml_value(target.kind)}",
        f"column = {toml_value(column.name)}" + _also(unused),
    ]
    if target.pieces:
        lines.append(f"folder = {toml_value(target.pieces.folder)}")
        lines.append(f"file_column = {toml_value(target.pieces.file)}  # what it is a piece of")
        lines.append(f"onset_column = {toml_value(target.pieces.onset)}  # where in it [s]")
    elif target.kind != "concept":
        lines.append(f"folder = {toml_value(column.folder)}")
        lines += _category(found, target)
    if target.drop:
        lines.append(f"drop = {toml_value(list(target.drop))}  # no stimuli, or too rare to learn")
    if target.kind == "concept" and not target.is_text and target.classes:
        counts = ", ".join(f"{level} ({column.levels[level]})" for level in target.classes[:12])
        lines.append(f"# levels (events): {counts}")
        lines.append('# rename = { house = "a house" }  # level in the data -> label to use')
    return lines


def _also(names: list[str]) -> str:
    return f"  # also there: {', '.join(names[:8])}" if names else ""


def _exclusions(found: Survey) -> list[str]:
    lines = []
    for first, second in found.copies:
        lines += [
            "",
            f"# {first} and",
            f"# {second} hold the same bytes.",
            "# The plan stops there: one would test what the other taught. Leave one out:",
            "# [[plan.exclude]]",
            f"# recording = {toml_value(second)}",
            f"# reason = {toml_value(f'copy of {first}')}",
        ]
    return lines


def _category(found: Survey, target: Target) -> list[str]:
    """A column with few levels that is constant for every file is its category."""
    column = target.column.name
    for name, other in found.columns.items():
        if name == column or other.kind or not 2 <= len(other.levels) < len(target.column.levels):
            continue
        shown = found.events[found.events[column].astype(str).isin(target.column.levels)]
        if name not in shown or not 2 <= shown[name].nunique() < len(target.column.levels):
            continue
        if (shown.groupby(column)[name].nunique(dropna=False) == 1).all():
            return [f"category_column = {toml_value(name)}"]
    return []


def _split(chosen: pd.DataFrame, events: pd.DataFrame, target: Target) -> list[str]:
    runs = chosen.groupby("subject")["recording"].nunique()
    slow = str(chosen["datatype"].iloc[0]) in _SLOW
    lines = ["# Decided before anything is fitted.", "[split]"]
    purge = 'overlap = "purge"  # training windows that meet a test window are left out'
    if target.pieces:
        lines += _segments(target.pieces)
    elif target.kind != "concept":
        lines += [
            'by = "stimulus"  # what is tested was never seen in training',
            f"n_folds = {min(5, len(target.column.levels))}",
            purge,
        ]
    elif runs.min() >= 3:
        folds = "  # leave one run out" if runs.max() <= 20 else ""
        lines += [
            'by = "run"  # run | session | subject | stimulus | category | time',
            f"n_folds = {0 if runs.max() <= 20 else min(10, int(runs.min()))}{folds}",
        ]
    else:
        lines += [
            'by = "time"  # blocks of each recording; by = "run" needs several runs',
            f"n_folds = {_n_blocks(events)}",
            purge,
            # Responses to what was presented before a border last longer than filters reach.
            "purge_s = 10.0" if slow else 'purge_s = "auto"  # as far as filters reach',
        ]
    lines.append("# within_subject = false  # one decoder for all people")
    return lines


def _segments(pieces: Pieces) -> list[str]:
    """A sentence has one role for everybody; shares where there are segments enough for them."""
    column = [f"segment_column = {toml_value(pieces.segment)}"] if pieces.segment else []
    shares = "fractions = [0.7, 0.1, 0.2]  # training, validation, test; drawn by content"
    return [
        'by = "segment"  # a sentence that is tested was never heard in training',
        *column,
        f"segment_s = {toml_value(_SEGMENT_S)}  # [s]; neighbours are merged to last so long",
        shares if pieces.seconds >= 50 * _SEGMENT_S else "n_folds = 5",
        'overlap = "purge"  # training windows that meet a test window are left out',
    ]


def _n_blocks(events: pd.DataFrame) -> int:
    """Into how many blocks of equal length a recording is cut, so that five or more hold events.

    A recording with a long pause has empty blocks, which are no folds.
    """
    for n in (5, 10, 20, 40):
        held = []
        for _, onset in events.groupby("recording")["onset"]:
            edges = np.linspace(onset.min(), onset.max(), n + 1)[1:-1]
            held.append(len(set(np.searchsorted(edges, onset))))
        if held and min(held) >= 5:
            return n
    return 5


def _divides(chosen: pd.DataFrame, target: Target) -> bool:
    """Whether the split proposed has training and test in one recording."""
    return target.kind != "concept" or chosen.groupby("subject")["recording"].nunique().min() < 3


def _preprocess(
    found: Survey, chosen: pd.DataFrame, source: str, divided: bool
) -> list[str]:  # fmt: skip
    datatype = str(chosen["datatype"].iloc[0])
    if datatype in _SLOW:
        return _bold(found, chosen, source, divided)
    if datatype == "epochs":
        return [
            "[preprocess.emeg]",
            "# Epochs are used as they are: filters would run over their edges.",
            'l_freq = "none"',
            'h_freq = "none"',
            'sfreq = "none"',
            *([_APART] if divided else []),
        ]
    rate = float(chosen["sfreq"].min())
    sfreq = min(120.0, math.floor(rate)) if math.isfinite(rate) else 120.0
    first = chosen.to_dict("records")[0]
    line = sidecar_value(found, first, "PowerLineFrequency")
    positions = next((found.data / first["path"]).parent.glob("*electrodes.tsv"), None)
    lines = [
        "[preprocess.emeg]",
        "l_freq = 0.1  # high-pass edge [Hz]",
        f"h_freq = {toml_value(min(40.0, round(0.4 * sfreq, 1)))}  # low-pass edge [Hz]",
        f"sfreq = {toml_value(float(sfreq))}  # output rate [Hz]; recorded at {rate:g} Hz",
    ]
    lines += [_APART] if divided else []
    if isinstance(line, (int, float)):
        lines.append(f"# notch = [{float(line)}]  # line frequency [Hz]; for h_freq above it")
    if datatype == "eeg":
        if positions is None:
            lines.append('# montage = "standard_1005"  # the recordings bring no positions')
        lines.append("# reject_amplitude = { eeg = 100e-6 }  # [V]; marks spans as bad")
        lines.append('# reference = "average"')
    return lines


def _bold(found: Survey, chosen: pd.DataFrame, source: str, divided: bool) -> list[str]:
    lines = ["[preprocess.bold]"]
    if chosen["datatype"].iloc[0] == "bold" and not source:
        mask = next(iter(sorted(found.data.glob("derivatives/**/*_mask.nii*"))), None)
        subject = str(chosen["subject"].iloc[0])
        if mask is not None:
            pattern = mask.relative_to(found.data).as_posix()
            pattern = pattern.replace(f"sub-{subject}", "sub-{subject}")
            lines.append(f"# mask = {toml_value(pattern)}  # default: computed")
        lines.append("# smoothing_fwhm = 4.0  # [mm]")
    if divided:
        lines += [
            "# Training and test lie in one recording: what is fitted to its whole length would",
            "# carry test samples over. Decoders scale by their training windows.",
            "detrend = false",
            "standardize = false",
        ]
    else:
        lines += ["detrend = true", "# high_pass = 0.008  # [Hz]"]
    confounds = [] if divided else _confounds(found, chosen)
    if confounds:
        lines.append(f"confounds = {toml_value(confounds)}")
    if chosen["sfreq"].isna().all():
        lines.append("# t_r = 2.0  # [s]; neither header nor sidecar tells it")
    return lines


def _confounds(found: Survey, chosen: pd.DataFrame) -> list[str]:
    path = found.data / str(chosen["path"].iloc[0])
    beside = path.name.split("_space-")[0].split("_desc-")[0]
    table = path.with_name(f"{beside}_desc-confounds_timeseries.tsv")
    if not table.is_file():
        return []
    columns = pd.read_csv(table, sep="\t", nrows=0).columns
    return [name for name in _MOTION if name in columns]


def _embed(target: Target) -> list[str]:
    name = toml_key(target.name)
    lines = ["# What the decoders predict: a vector per stimulus.", f"[embed.{name}]"]
    if target.kind == "image":
        lines.append('model = "efficientnet-lite0"  # or a folder or id of a transformers model')
    elif target.kind == "speech":
        lines.append('model = "log-mel"  # or a folder or id of a transformers model')
    elif target.is_text:
        lines.append('model = "minilm"  # a sentence model; "one-hot" treats words as classes')
    else:
        lines.append('model = "one-hot"  # classes; "minilm" embeds their names')
    return lines


def _train(found: Survey, chosen: pd.DataFrame, events: pd.DataFrame, target: Target) -> list[str]:
    datatype = str(chosen["datatype"].iloc[0])
    closed = target.kind == "concept" and not target.is_text
    decoders = "ridge | logistic | mlp | conv" if closed else "ridge | mlp | conv"
    lines = [
        "[train]",
        f'decoders = ["ridge"]  # {decoders}',
        "# select = true  # choose among several decoders inside the training part",
        "",
        "[train.windows]",
    ]
    if datatype in _SLOW:
        t_r = 1 / float(chosen["sfreq"].max()) if chosen["sfreq"].notna().any() else 2.0
        blocks = len(events) and events["duration"].median() >= 2 * t_r
        lines.append("tmin = 0.0")
        if blocks:
            lines.append("# tmax = 10.0  # [s]; absent: as long as the event")
        else:
            lines.append(f"tmax = {toml_value(max(4.0, round(2 * t_r, 2)))}  # [s] after the event")
        lines.append('delay = "estimate"  # of the response, without labels; or a number [s]')
        lines.append('reduce = "mean"  # over the window; "none" keeps its time course')
    else:
        tmin, tmax = _extent(found, chosen)
        lines += [f"tmin = {tmin}  # [s] from the event's onset", f"tmax = {tmax}"]
        if tmin < 0:
            lines.append(f"baseline = [{tmin}, 0.0]")
        rate = _divisor(found, chosen)
        if rate:
            lines.append(f"sfreq = {rate}  # average down to this rate [Hz] for ridge")
    return lines


def _extent(found: Survey, chosen: pd.DataFrame) -> tuple[float, float]:
    """Times [s] around an event that decoders read; epochs may be shorter."""
    tmin, tmax = -0.1, 0.8
    if chosen["datatype"].iloc[0] == "epochs":
        for name in chosen["path"]:
            epochs = open_epochs(found.data / name)
            tmin, tmax = max(tmin, float(epochs.tmin)), min(tmax, float(epochs.tmax))
    return round(tmin, 4), round(tmax, 4)


def _divisor(found: Survey, chosen: pd.DataFrame) -> float | None:
    """The rate nearest to 20 Hz that divides the rate of the stores, if it can be less."""
    rate = float(chosen["sfreq"].min())
    if not math.isfinite(rate):
        return None
    if chosen["datatype"].iloc[0] != "epochs":
        rate = min(EmegSection().sfreq or rate, math.floor(rate))
    factor = max(1, round(rate / 20.0))
    while factor > 1 and not math.isclose(rate / factor, round(rate / factor, 3)):
        factor -= 1
    return round(rate / factor, 3) if factor > 1 else None


def _evaluate() -> list[str]:
    return [
        "[evaluate]",
        'bootstrap_unit = "event"  # event | stimulus | run | subject: what could be redrawn',
        "permutations = 2000",
    ]
