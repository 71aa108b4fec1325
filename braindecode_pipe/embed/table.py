"""The stage ``embed``: the stimuli of one target to an embedding store."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.embed.interface import Item
from braindecode_pipe.embed.models import encode_unique, model_of
from braindecode_pipe.embed.speech import Clip
from braindecode_pipe.embed.weights import package_versions
from braindecode_pipe.errors import RecipeError, StimulusError
from braindecode_pipe.schema import embedding_dataset
from braindecode_pipe.store import safe_join, write_store

if TYPE_CHECKING:
    import pandas as pd

    from braindecode_pipe.recipe import EmbedSpec


def run(
    name: str,
    spec: EmbedSpec,
    stimuli: pd.DataFrame,
    data: Path,
    out: Path,
    *,
    data_origin: str,
) -> None:
    """Embed every stimulus of one target and write the store ``out``.

    Models of texts read the label of a stimulus, or the text that ``spec.texts`` gives for it;
    models of pictures and sounds read its file. ``spec.normalize`` is not applied here: it is
    fitted on each fold's training stimuli.

    Parameters
    ----------
    name : str
        Name of the table of [embed].
    spec : EmbedSpec
    stimuli : table with the columns stimulus, kind, label, path, onset, offset
        ``path`` is relative to ``data``; ``onset`` and ``offset`` [s] name a piece of a sound file
        and may be NaN. The rows of the store keep this order.
    data : path
        The study's data folder.
    out : path
        The store to write.
    data_origin : "recorded" | "simulated" | "mixed"
        Where the stimuli are from.

    Raises
    ------
    StimulusError
        No stimuli, ids that repeat, files that are missing or cannot be decoded, empty labels.
    RecipeError
        ``spec.texts`` names a label that no stimulus has.
    ModelError
        The model is missing, is not the pinned one, or has no such layer or pooling.
    UnsafePathError
        A path leaves the data folder.
    """
    if stimuli.empty:
        raise StimulusError(
            f"[embed.{name}] has no stimuli to embed",
            expected="at least one stimulus",
            found="an empty table",
            remedy=f"check [plan.stimuli.{spec.target or name}]",
        )
    twice = stimuli["stimulus"][stimuli["stimulus"].duplicated()].astype(str)
    if len(twice):
        raise StimulusError(
            f"[embed.{name}]: stimulus ids repeat",
            expected="one row per stimulus",
            found=", ".join(sorted(set(twice))[:5]),
        )
    kinds = sorted(set(stimuli["kind"].astype(str)))
    if len(kinds) > 1:
        raise StimulusError(
            f"[embed.{name}] mixes stimuli", expected="one kind", found=", ".join(kinds)
        )
    model = model_of(spec, kinds[0])
    vectors = encode_unique(model, stimulus_items(spec, stimuli, Path(data), model.reads, name))
    fingerprint = model.fingerprint()
    dataset = embedding_dataset(
        vectors,
        [str(stimulus) for stimulus in stimuli["stimulus"]],
        {
            "name": name,
            "target": spec.target or name,
            "stimulus_kind": kinds[0],
            "model": fingerprint["model"],
            "revision": fingerprint.get("revision", ""),
            "files": fingerprint.get("files", {}),
            "layer": fingerprint.get("layer"),
            "pooling": fingerprint.get("pooling", ""),
            "processor": fingerprint.get("processor", {}),
            "reads": model.reads,
            "texts": dict(spec.texts) if model.reads == "text" else {},
            "labels": [str(label) for label in stimuli["label"]],
            "dtype": "float32",
            "packages": package_versions(model.packages),
            "data_origin": data_origin,
        },
    )
    write_store(out, {"": dataset})


def stimulus_items(
    spec: EmbedSpec, stimuli: pd.DataFrame, data: Path, reads: str, name: str
) -> list[Item]:
    """What the model is given for each row of ``stimuli``; see :func:`run`."""
    rows = stimuli.to_dict("records")
    names = [f"stimulus {row['stimulus']!r} (row {number})" for number, row in enumerate(rows, 1)]
    if reads == "text":
        _check_texts(spec, {str(row["label"]) for row in rows}, name)
        return [
            Item(called, spec.texts.get(_text(row["label"]), _text(row["label"])))
            for called, row in zip(names, rows)
        ]
    items = []
    for called, row in zip(names, rows):
        if not _text(row["path"]):
            raise StimulusError(
                f"{called}, label {row['label']!r}, has no file",
                expected=f"a file, since {spec.model} reads {reads}",
                found="an empty path",
                remedy=f"give [embed.{name}] a model that reads texts, such as minilm or one-hot",
            )
        path = safe_join(data, row["path"])
        if reads == "image":
            items.append(Item(called, path))
        else:
            onset, offset = _seconds(row.get("onset")), _seconds(row.get("offset"))
            items.append(Item(called, Clip(path=path, onset=onset, offset=offset)))
    return items


def _check_texts(spec: EmbedSpec, labels: set[str], name: str) -> None:
    for label in spec.texts:
        if label not in labels:
            near = difflib.get_close_matches(label, sorted(labels), 1)
            raise RecipeError(
                f"[embed.{name}.texts] names a label that no stimulus has",
                expected=", ".join(sorted(labels)[:20]),
                found=label,
                remedy=f"did you mean {near[0]!r}?" if near else None,
            )


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else "" if cell is None or cell != cell else str(cell)


def _seconds(cell: Any) -> float | None:
    if cell is None or cell == "" or np.isnan(float(cell)):
        return None
    return float(cell)
