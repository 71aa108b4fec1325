"""What was done to the recordings, in order, as sentences: from the steps that their stores name.

The recipe says what was asked for; a store says what ran. Only the latter goes into a methods
paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import braindecode_pipe
from braindecode_pipe.errors import BraindecodePipeError
from braindecode_pipe.report import wording
from braindecode_pipe.report.document import Block, Heading, Items, Text
from braindecode_pipe.report.recording import Recording
from braindecode_pipe.report.references import REFERENCES, Cited, cited_by
from braindecode_pipe.report.study import Study
from braindecode_pipe.store import store_attrs

_NUMBER = re.compile(r"(?<![\w.])[-+±]*\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\d)", re.IGNORECASE)
FAMILIES = (
    (("eeg", "meg", "ieeg"), "EEG, MEG and intracranial recordings"),
    (("epochs",), "Recordings that came already epoched"),
    (("bold", "parcels"), "fMRI series"),
)
SCOPES = {
    "per_recording": "all good samples of the recording that it scales",
    "train_only": "the training windows of a fold alone",
    "causal": "the past of every sample alone",
}


@dataclass(frozen=True)
class Done:
    """What one recording went through.

    Attributes
    ----------
    datatype, engine, resampler : "" where the store does not say
    steps : in order
    scaler : what the scaler saw, {} where the store does not say
    """

    datatype: str
    steps: tuple[str, ...]
    engine: str = ""
    resampler: str = ""
    scaler: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, attrs: dict, datatype: str) -> Done:
        """Read from the attributes of a signal or response store."""
        scaler = attrs.get("scaler")
        scaler = scaler if isinstance(scaler, dict) else {}
        return cls(
            datatype=str(attrs.get("datatype") or datatype),
            steps=tuple(str(s) for s in attrs.get("steps") or ()),
            engine=str(attrs.get("engine") or ""),
            resampler=str(attrs.get("resampler") or ""),
            scaler=tuple((str(k), str(v)) for k, v in sorted(scaler.items())),
        )


def done_in(study: Study) -> list[Done]:
    """What every recording went through whose store can be read."""
    table = study.recordings
    datatypes = dict(zip(table["recording"].astype(str), table["datatype"].astype(str)))
    found = []
    for name, path in study.inputs.signals.items():
        with suppress(BraindecodePipeError, OSError):
            attrs = store_attrs(path)
            if not attrs.get("steps"):
                attrs = {**attrs, "steps": store_attrs(path, "qc").get("steps")}
            found.append(Done.of(attrs, datatypes.get(name, "")))
    return found


def joint_steps(recordings: Sequence[Sequence[str]]) -> list[tuple[str, int]]:
    """Steps of many recordings as one list, in order, each with how many recordings it ran in.

    Steps are the same where they differ in numbers only, or in what follows a colon: numbers that
    differ become their range, other differences are left to the quality pages.
    """
    order: list[str] = []
    texts: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for steps in recordings:
        place = 0
        for key in dict.fromkeys(map(_key, steps)):
            if key not in texts:
                order.insert(place, key)
                texts[key], counts[key] = [], 0
            place = order.index(key) + 1
            counts[key] += 1
        for step in steps:
            texts[_key(step)].append(step)
    return [(_merged(texts[key]), counts[key]) for key in order]


def _key(step: str) -> str:
    return _NUMBER.sub("#", step.partition(": ")[0])


def _merged(texts: list[str]) -> str:
    distinct = list(dict.fromkeys(texts))
    if len(distinct) == 1:
        return distinct[0]
    if len({_NUMBER.sub("#", text) for text in distinct}) > 1:
        heads = [text.partition(": ")[0] for text in distinct]
        return f"{_merged(heads)} (named on the quality pages)"
    slots = []
    for found in zip(*(_NUMBER.findall(text) for text in distinct)):
        values = sorted(set(found), key=lambda text: float(text.replace("±", "").replace("+-", "")))
        slots.append(values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}")
    return _NUMBER.sub(lambda _: slots.pop(0), distinct[0])


def say_preprocess(cited: Cited, study: Study) -> None:
    """One sentence per family of recordings, and what filtered, resampled and scaled them."""
    every = done_in(study)
    for datatypes, what in FAMILIES:
        own = [done for done in every if done.datatype in datatypes]
        if own:
            _say_family(cited, own, datatypes, what, study)


def _say_family(
    cited: Cited, own: list[Done], datatypes: tuple[str, ...], what: str, study: Study
) -> None:
    bold = "bold" in datatypes
    if bold and study.section("plan").get("derivatives") == "fmriprep":
        origin = "preprocessed by fMRIPrep"
        if study.data_origin == "simulated":
            origin = "simulated in the form of fMRIPrep's output"
        cited.say(f"The images had been {origin}.", "Esteban 2019")
    loose = bool(study.section("plan").get("files")) or "epochs" in datatypes
    keys = ["Abraham 2014"] if bold else ["Gramfort 2013"]
    if not loose:
        keys += [] if bold else ["Appelhoff 2019"]
        keys += ["Gorgolewski 2016"]
    versions = study.inputs.versions
    tool = " ".join(filter(None, ("Nilearn", versions.get("nilearn")) if bold
                           else ("MNE-Python", versions.get("mne"))))  # fmt: skip
    tool += f" in braindecode_pipe {braindecode_pipe.__version__}"
    source = "" if loose else " from BIDS"
    steps = joint_steps([done.steps for done in own])
    listed = "; ".join(
        f"({i}) {text}{'' if n == len(own) else f' [{n} of {len(own)} recordings]'}"
        for i, (text, n) in enumerate(steps, 1)
    )
    text = f"{what} were read{source} and processed with {tool}"
    cited.say(f"{text}, in this order: {listed}." if steps else f"{text}: no step.", *keys)
    _say_means(cited, own)
    rests_on = cited_by(text for text, _ in steps)
    if rests_on:
        cited.say("These steps rest on published methods.", *rests_on)


def _say_means(cited: Cited, own: list[Done]) -> None:
    engines = {
        "fast": "in one streaming pass of this package whose kernels MNE-Python designed",
        "mne": "step by step with MNE-Python",
    }
    for engine in sorted({done.engine for done in own} - {""}):
        cited.say(f"Filters and resampling ran {engines.get(engine, f'with the engine {engine}')}.")
    for resampler in sorted({done.resampler for done in own} - {""}):
        cited.say(f"Resampling: {resampler.rstrip('.')}.")
    scalers = [dict(done.scaler) for done in own]
    scopes = sorted({s.get("scope", "") for s in scalers if s.get("kind") != "none"} - {""})
    if scopes:
        seen = "; ".join(SCOPES.get(scope, scope) for scope in scopes)
        cited.say(f"The scaler saw {seen}.")


def recording_methods(recording: Recording) -> Iterable[Block]:
    """The methods paragraph of one recording, with its references."""
    cited = Cited()
    attrs = {**recording.attrs, "steps": recording.steps}
    done = Done.of(attrs, recording.datatype)
    for datatypes, _ in FAMILIES:
        if done.datatype in datatypes:
            _say_family(cited, [done], datatypes, "The samples", recording.study)
    if not cited.sentences:
        yield Text("The plan does not say what kind of recording this is.", "warning")
        return
    yield Heading("Methods paragraph")
    yield Text(" ".join(cited.sentences))
    yield Heading("References")
    yield Items(tuple(REFERENCES[key] for key in sorted(cited.keys)))


def scaler_rows(attrs: dict) -> list[tuple[str, str]]:
    """What the scaler was fitted on, as rows of a table."""
    scaler = attrs.get("scaler")
    if not isinstance(scaler, dict):
        return []
    names = {
        "kind": "Scaler", "scope": "Scaler saw", "n_samples": "Samples that the scaler saw",
        "extents_hash": "Hash of what the scaler saw (FitScope)",
        "window_s": "Scaler looks back [s]", "step_s": "Scaler is renewed every [s]",
    }  # fmt: skip
    if scaler.get("kind") == "none":
        return [("Scaler", "none")]
    rows = []
    for key in sorted(scaler, key=lambda k: ([*names, k].index(k), k)):
        value = scaler[key]
        if key == "scope":
            value = SCOPES.get(str(value), value)
        if isinstance(value, (dict, list, tuple)):
            value = f"{len(value)} entries"
        rows.append((names.get(str(key), f"Scaler: {key}"), wording.plain(value, 12)
                     if isinstance(value, (int, float)) else str(value)))  # fmt: skip
    return rows


def store_key(path: str | Path) -> str:
    """The key of a store: the name of its folder."""
    return Path(path).stem
