"""The stage ``embed``: the stimuli of one target to an embedding store."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.embed.acoustic import Onsets
from braindecode_pipe.embed.audio import Clip
from braindecode_pipe.embed.blocks import computed
from braindecode_pipe.embed.context import preceding_words, reaches_out
from braindecode_pipe.embed.duplicates import THRESHOLD, near_duplicates
from braindecode_pipe.embed.interface import EmbeddingModel, Item, Text
from braindecode_pipe.embed.models import distinct, model_of
from braindecode_pipe.embed.provenance import FIELDS
from braindecode_pipe.errors import RecipeError, StimulusError
from braindecode_pipe.schema import embedding_dataset, table_to_dataset
from braindecode_pipe.store import StoreWriter, safe_join

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
    onsets: pd.DataFrame | None = None,
) -> None:
    """Embed every stimulus of one target and write the store ``out``.

    Models of texts read the label of a stimulus, or the text that ``spec.texts`` gives for it;
    models of pictures, sounds and videos read its file. Every different stimulus is embedded once,
    in blocks that are kept as they finish (:mod:`braindecode_pipe.embed.cache`). ``spec.normalize``
    is not applied here: it is fitted on each fold's training stimuli.

    The store holds at its root the embedding, in the group ``reference`` what the model made of
    the built-in probes, and in ``near_duplicates`` the pairs of stimuli with a cosine over 0.98.

    Parameters
    ----------
    name : str
        Name of the table of [embed].
    spec : EmbedSpec
    stimuli : table with the columns stimulus, kind, label, path, onset, offset
        ``path`` is relative to ``data``; ``onset`` and ``offset`` [s] name a piece of a file and
        may be NaN; ``source`` is what the piece is a part of; ``start`` and ``stop`` [s] bound
        what may be heard or read around it (see
        :func:`~braindecode_pipe.embed.context.split_spans`). The store keeps the order of rows.
    data : path
        The study's data folder.
    out : path
        The store to write.
    data_origin : "recorded" | "simulated" | "mixed"
        Where the stimuli are from.
    onsets : table like ``stimuli``, optional
        What the model "onsets" counts; default: the stimuli themselves.

    Raises
    ------
    StimulusError
        No stimuli, ids that repeat, files that are missing or cannot be decoded, empty labels.
    RecipeError
        ``spec.texts`` names a label that no stimulus has.
    ModelError
        The model is missing, is not the pinned one, has no such layer or pooling, or no longer
        makes what it made of the probes when vectors in the cache were computed.
    UnsafePathError
        A path leaves the data folder.
    """
    kind = _check_table(name, spec, stimuli)
    model = model_of(spec, kind)
    items = stimulus_items(spec, stimuli, Path(data), model.reads, name, onsets=onsets)
    unique, rows = distinct(items, model.reads)
    done = computed(model, unique, name)
    attrs = {
        "name": name,
        "target": spec.target or name,
        "stimulus_kind": kind,
        **{field: done.provenance[field] for field in FIELDS},
        "texts": dict(spec.texts) if model.reads == "text" else {},
        "context_words": spec.context_words,
        "labels": [str(label) for label in stimuli["label"]],
        "n_distinct": len(unique),
        "data_origin": data_origin,
    }
    _write(out, model, done.read, [str(s) for s in stimuli["stimulus"]], list(unique), rows, attrs,
           done.probes, done.reference)  # fmt: skip


def _check_table(name: str, spec: EmbedSpec, stimuli: pd.DataFrame) -> str:
    """The kind of the stimuli of a table that can be embedded."""
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
    return kinds[0]


def _write(
    out: Path,
    model: EmbeddingModel,
    read: Callable[[Sequence[str]], np.ndarray],
    stimuli: list[str],
    unique: list[str],
    rows: list[int],
    attrs: Mapping[str, Any],
    probes: list[str],
    reference: np.ndarray,
) -> None:
    """Write the store chunk by chunk: never more than a chunk of vectors is in memory."""
    import pandas as pd

    shape = read([unique[rows[0]]]).shape[1:]
    times = model.step_times(shape[0]) if len(shape) == 2 else None
    template = embedding_dataset(
        np.broadcast_to(np.float32(0), (len(stimuli), *shape)), stimuli, attrs, times
    )
    groups = {"": template}
    if probes:
        groups["reference"] = embedding_dataset(
            reference, probes, {"data_origin": "simulated"},
            model.step_times(reference.shape[1]) if reference.ndim == 3 else None,
        )  # fmt: skip
    # Length of the table is known when its pairs are: they need one vector per stimulus.
    summary = np.empty((len(unique), shape[-1]), np.float32)
    for start in range(0, len(unique), 256):
        part = read(unique[start : start + 256])
        summary[start : start + 256] = part if part.ndim == 2 else part.mean(1)
    first = dict(zip(reversed(rows), reversed(stimuli)))
    pairs, total = near_duplicates(summary, [first[k] for k in range(len(unique))])
    groups["near_duplicates"] = table_to_dataset(
        pd.DataFrame(pairs), "pair", {"threshold": THRESHOLD, "n_pairs": total}
    )
    with StoreWriter(out, groups) as writer:
        step = writer.chunks("", "embedding")["stimulus"]
        for start in range(0, len(stimuli), step):
            stop = min(start + step, len(stimuli))
            block = read([unique[k] for k in rows[start:stop]])
            writer.write("", "embedding", {"stimulus": slice(start, stop)}, block)


def stimulus_items(
    spec: EmbedSpec,
    stimuli: pd.DataFrame,
    data: Path,
    reads: str,
    name: str,
    *,
    onsets: pd.DataFrame | None = None,
) -> list[Item]:
    """What the model is given for each row of ``stimuli``; see :func:`run`."""
    rows = stimuli.to_dict("records")
    names = [f"stimulus {row['stimulus']!r} (row {number})" for number, row in enumerate(rows, 1)]
    if reads == "text":
        return _text_items(spec, stimuli, names, name)
    if reads == "onsets":
        return _onset_items(rows, names, stimuli if onsets is None else onsets)
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
        if reads in ("image", "video"):
            items.append(Item(called, path))
            continue
        piece = {k: _seconds(row.get(k)) for k in ("onset", "offset")}
        if reaches_out(spec):
            piece |= {k: _seconds(row.get(k)) for k in ("start", "stop")}
        items.append(Item(called, Clip(path=path, **piece)))
    return items


def _text_items(spec: EmbedSpec, stimuli: pd.DataFrame, names: list[str], name: str) -> list[Item]:
    labels = [_text(label) for label in stimuli["label"]]
    _check_texts(spec, set(labels), name)
    texts = [spec.texts.get(label, label) for label in labels]
    if not spec.context_words:
        return [Item(called, text) for called, text in zip(names, texts)]
    before = preceding_words(stimuli, spec.context_words, spec.texts)
    return [Item(called, Text(*pair)) for called, pair in zip(names, zip(texts, before))]


def _onset_items(rows: list[dict[str, Any]], names: list[str], onsets: pd.DataFrame) -> list[Item]:
    """Onsets on the same side of each border of the same source."""
    if "source" not in onsets or any(not row.get("source") for row in rows):
        raise StimulusError(
            f"{names[0]} has no onset inside a file",
            expected="file_column and onset_column in [plan.stimuli.<target>]",
            found="a stimulus that is no piece of a file",
        )
    by_source = {
        str(source): np.sort(part["onset"].to_numpy(float))
        for source, part in onsets.groupby(onsets["source"].astype(str))
    }
    items = []
    for called, row in zip(names, rows):
        all_ = by_source.get(str(row["source"]), np.empty(0))
        start, stop = _seconds(row.get("start")), _seconds(row.get("stop"))
        own = all_[(all_ >= (-np.inf if start is None else start))
                   & (all_ < (np.inf if stop is None else stop))]  # fmt: skip
        items.append(Item(called, Onsets(float(row["onset"]), tuple(map(float, own)))))
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
