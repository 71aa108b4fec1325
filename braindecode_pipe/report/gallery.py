"""Sections 6 and 7: what the decoder retrieved, and zero-shot decoding."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.errors import BraindecodePipeError
from braindecode_pipe.report import figures, wording
from braindecode_pipe.report.document import (
    Block,
    Column,
    Gallery,
    Heading,
    Item,
    Query,
    Section,
    Table,
    Text,
    attempt,
    cause_of,
)
from braindecode_pipe.report.results import verdict
from braindecode_pipe.report.study import Evaluation, Study, require
from braindecode_pipe.store import safe_join

THUMBNAIL = 184  # pixels; drawn at half of it
MAX_PIXELS = 50_000_000
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def thumbnail(path: Path) -> bytes:
    """A small JPEG of a picture, on white where it is transparent.

    Raises
    ------
    OSError
        When Pillow cannot read the file.
    ValueError
        When the picture has more than ``MAX_PIXELS`` pixels.
    """
    from PIL import Image

    with Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
        rgba = image.convert("RGBA")
    rgba.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    buffer = io.BytesIO()
    flat.save(buffer, format="JPEG", quality=82, optimize=True)
    return buffer.getvalue()


class Shelf:
    """Stimuli as gallery items, each picture read once."""

    def __init__(self, study: Study) -> None:
        self._study, self._items = study, {}
        self.pictures: set[str] = set()

    def __getitem__(self, stimulus: str) -> Item:
        if stimulus not in self._items:
            self._items[stimulus] = self._make(stimulus)
        return self._items[stimulus]

    def _make(self, stimulus: str) -> Item:
        row = self._study.stimuli.get(stimulus, {})
        label, path = self._study.label(stimulus), str(row.get("path") or "")
        if not path or Path(path).suffix.lower() not in PICTURES:
            return Item(label)
        try:
            jpeg = thumbnail(safe_join(self._study.inputs.data, path))
        except (OSError, ValueError, BraindecodePipeError) as error:
            return Item(label, problem=cause_of(error).splitlines()[0])
        self.pictures.add(path)
        return Item(label, jpeg)


def evenly(n: int, k: int) -> np.ndarray:
    """``k`` different positions among ``n``, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, k)).round().astype(int)) if n and k else []


def gallery_section(study: Study, shelf: Shelf) -> Section:
    """True stimulus and the five first candidates, for queries evenly spaced over the ranks."""
    wanted = int(study.section("report").get("gallery", 12))
    blocks: list[Block] = []
    if wanted == 0:
        blocks.append(Text("The recipe asks for no gallery."))
    for evaluation in study.evaluations if wanted else []:
        if len(study.evaluations) > 1:
            blocks.append(Heading(f"Embedding “{evaluation.name}”"))
        blocks += attempt(f"gallery, {evaluation.name}", gallery, study, evaluation, shelf, wanted)
    return Section(
        "gallery", "Retrieval gallery", tuple(blocks) or (Text("No embedding was evaluated."),)
    )


def gallery(study: Study, evaluation: Evaluation, shelf: Shelf, wanted: int) -> Gallery:
    """The gallery of one evaluation, for the decoder of its verdict."""
    items = evaluation.items
    items = items[items["decoder"] == evaluation.headline]
    require(len(items) or None, f"any query of decoder {evaluation.headline}", evaluation.path)
    items = items.assign(rank=items["rank"].astype(float)).sort_values(["rank", "event"])
    rows = items.iloc[evenly(len(items), wanted)].to_dict("records")
    caption = (
        f"{len(rows)} of {len(items)} queries, evenly spaced from the best to the worst rank and "
        "not chosen by hand. Left: what was shown. Right: the five candidates that the decoder "
        f"({wording.decoder_name(evaluation.headline)}) put first, with their scores."
    )
    fold = wording.distinct([str(f) for f in items["fold"]])
    return Gallery(caption, tuple(_query(row, fold[str(row["fold"])], shelf) for row in rows))


def _query(row: dict, fold: str, shelf: Shelf) -> Query:
    top = []
    for k in range(1, 6):
        stimulus = str(row.get(f"top{k}") or "")
        if stimulus:
            score = wording.similarity(row.get(f"score{k}"))
            top.append((shelf[stimulus], score, stimulus == str(row["stimulus"])))
    return Query(
        title=f"Rank {wording.plain(row['rank'])} of {wording.plain(row['n_candidates'])}",
        detail=f"person {row['subject']}, {fold if fold[:1].isalpha() else f'fold {fold}'}",
        truth=shelf[str(row["stimulus"])],
        truth_score=wording.similarity(row.get("score_true")),
        top=tuple(top),
    )


def zero_shot_section(study: Study) -> Section | None:
    """Pairs of categories that no training event showed; None where the recipe asks for none."""
    asked = study.section("train").get("zero_shot")
    if not asked and study.zero_shot is None:
        return None
    blocks = attempt("zero-shot decoding", _zero_shot, study)
    return Section("zero-shot", "Zero-shot decoding", tuple(blocks))


def _zero_shot(study: Study) -> Iterator[Block]:
    evaluation = study.zero_shot
    require(evaluation, "the evaluation of zero-shot decoding")
    yield Text(
        "Two categories at a time are left out of training. Their brain responses are then told "
        "apart by the embeddings of their names alone: a pair is right when the two responses fit "
        "their own names better than each other's."
    )
    yield from attempt("zero-shot verdict", verdict, evaluation)
    yield from attempt("zero-shot scores", _zero_shot_table, evaluation)
    yield from attempt("zero-shot pairs", _pair_figure, evaluation)
    yield from attempt("zero-shot null", _null_figure, evaluation)
    yield from attempt("zero-shot pair table", _pair_table, evaluation)


def _prompt_set(record: dict) -> str:
    return str(record.get("prompt_set") or record.get("embedding") or "")


def _zero_shot_table(evaluation: Evaluation) -> Table:
    records = evaluation.records
    require(records or None, "any record in metrics.json", evaluation.path)
    rows = tuple(
        (
            _prompt_set(r),
            wording.metric_name(str(r["metric"])),
            wording.score(r["metric"], r.get("value")),
            wording.interval(r["metric"], r.get("ci_low"), r.get("ci_high")),
            wording.score(r["metric"], r.get("chance")),
            wording.p_value(r.get("p_value")),
            wording.plain(r.get("n_queries")),
        )
        for r in records
    )
    numeric = ("Value", "Interval", "Chance", "p", "n")
    nulls = dict.fromkeys(f"p-value: {r['null']}." for r in records if r.get("null"))
    columns = (Column("Prompt set"), Column("Metric"), *(Column(n, True) for n in numeric))
    return Table("Zero-shot scores of every prompt set", columns, rows, tuple(nulls))


def _pair_figure(evaluation: Evaluation) -> Block:
    pairs = evaluation.pairs
    # Of one person a pair is right or wrong; the share of its single events says more.
    single = "event_accuracy" in pairs
    column = "event_accuracy" if single else "accuracy"
    labels = list(dict.fromkeys([*pairs["category_a"], *pairs["category_b"]]))
    number = {label: i for i, label in enumerate(labels)}
    matrices = {}
    for name, part in pairs.groupby("prompt_set", sort=False):
        matrix = np.full((len(labels), len(labels)), np.nan)
        for a, b, value in zip(part["category_a"], part["category_b"], part[column]):
            i, j = sorted((number[a], number[b]))
            matrix[i, j] = value
        matrices[str(name)] = matrix
    alt = f"Accuracy of every pair of {len(labels)} categories, one matrix per prompt set"
    what = "Share of single events" if single else "Share of left-out pairs"
    caption = f"{what} that are told apart, for every pair of categories [%]; 50 % is chance."
    return figures.pair_matrices(matrices, labels, alt, caption)


def _null_figure(evaluation: Evaluation) -> Block:
    observed = {
        _prompt_set(r): wording.number(r["value"])
        for r in evaluation.records
        if r["metric"] == "pair_accuracy"
    }
    nulls = evaluation.null["null"]
    dim = next(d for d in nulls.dims if d != "permutation")
    found = {
        str(name): np.asarray(nulls.isel({dim: i}).values, float).ravel()
        for i, name in enumerate(nulls[dim].values)
        if str(name) in observed
    }
    require(found or None, "the null of any prompt set", evaluation.path)
    n = max(v.size for v in found.values())
    values = "; ".join(f"{k} {wording.share(observed[k])}" for k in found)
    alt = f"Histogram of pair accuracy over {n} maps from category to name; observed {values}"
    caption = f"Pair accuracy under {n} maps from category to name, and the observed one."
    return figures.null_histograms(found, observed, alt, caption)


def _pair_table(evaluation: Evaluation) -> Table:
    pairs = evaluation.pairs
    sets = list(dict.fromkeys(pairs["prompt_set"].astype(str)))
    wide: dict[tuple[str, str], dict[str, pd.Series]] = {}
    for row in pairs.to_dict("records"):
        key = (str(row["category_a"]), str(row["category_b"]))
        wide.setdefault(key, {})[str(row["prompt_set"])] = row
    kinds = [k for k in ("accuracy", "event_accuracy") if k in pairs]
    rows = []
    for (a, b), by in wide.items():
        cells = [
            wording.share(by[s][k], 0) if s in by else wording.NOTHING for s in sets for k in kinds
        ]
        n = next(iter(by.values())).get("n")
        rows.append((f"{a} / {b}", *cells, wording.plain(n)))
    names = {"accuracy": "pair", "event_accuracy": "single events"}
    columns = [Column("Pair"), *(Column(f"{s}: {names[k]}", True) for s in sets for k in kinds)]
    columns.append(Column("Events", True))
    return Table(f"All {len(rows)} pairs", tuple(columns), tuple(rows), folded=True)
