"""Sections 6 and 7: what the decoder retrieved, and zero-shot decoding."""

from __future__ import annotations

import hashlib
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
from braindecode_pipe.report.sounds import LONGEST_S, SUFFIXES, excerpt
from braindecode_pipe.report.study import Evaluation, Study, require
from braindecode_pipe.store import safe_join

THUMBNAIL = 184  # pixels; drawn at half of it
MAX_PIXELS = 50_000_000
SOUND_BYTES = 1_600_000
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
    """Stimuli as gallery items, each file read once.

    A page holds sounds up to ``SOUND_BYTES``; later ones are shown by their labels.
    """

    def __init__(self, study: Study) -> None:
        self._study, self._items = study, {}
        self._sound_left = SOUND_BYTES
        self.pictures: set[str] = set()
        self.sounds: set[str] = set()

    def __getitem__(self, stimulus: str) -> Item:
        if stimulus not in self._items:
            self._items[stimulus] = self._make(stimulus)
        item = self._items[stimulus]
        if item.wav is not None and len(item.wav) > self._sound_left:
            return self.silent(stimulus)
        self._sound_left -= len(item.wav or b"")
        return item

    def silent(self, stimulus: str) -> Item:
        """The item without its sound, which is not even read."""
        if Path(str(self._row(stimulus).get("path") or "")).suffix.lower() in SUFFIXES:
            return Item(self._study.label(stimulus))
        return self[stimulus]

    def _row(self, stimulus: str) -> dict:
        return self._study.stimuli.get(stimulus, {})

    def _make(self, stimulus: str) -> Item:
        row = self._row(stimulus)
        label, path = self._study.label(stimulus), str(row.get("path") or "")
        suffix = Path(path).suffix.lower()
        try:
            if suffix in PICTURES:
                jpeg = thumbnail(safe_join(self._study.inputs.data, path))
                self.pictures.add(path)
                return Item(label, jpeg)
            if suffix in SUFFIXES:
                piece = (wording.number(row.get(k)) for k in ("onset", "offset"))
                onset, offset = (t if np.isfinite(t) else None for t in piece)
                wav = excerpt(safe_join(self._study.inputs.data, path), onset, offset, label)
                self.sounds.add(path)
                return Item(label, wav=wav)
        except (OSError, ValueError, BraindecodePipeError) as error:
            return Item(label, problem=cause_of(error).splitlines()[0])
        return Item(label)


def gallery_section(study: Study, shelf: Shelf) -> Section:
    """True stimulus and the five first candidates, for the best, median and worst queries."""
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


def best_median_worst(items: pd.DataFrame, wanted: int) -> list[tuple[str, pd.DataFrame]]:
    """Up to ``wanted`` queries: a third from each end and a third around the median, by rank.

    Ranks are compared as shares of the candidates. Among equal ones a hash of the event decides:
    it knows neither person, time nor stimulus. No query is shown twice; where there are not more
    than wanted, all are shown.

    Returns
    -------
    list of (name, rows), the best first
    """
    share = (items["rank"].astype(float) - 1) / np.maximum(items["n_candidates"] - 1, 1)
    chance = [hashlib.sha256(str(event).encode()).hexdigest() for event in items["event"]]
    items = items.assign(_share=share, _chance=chance).sort_values(["_share", "_chance"])
    items = items.drop(columns=["_share", "_chance"])
    n = len(items)
    if n <= wanted:
        return [("All, the best first", items)]
    ends = wanted // 3 if wanted > 2 else wanted // 2
    middle = wanted - 2 * ends
    start = min(max((n - middle) // 2, ends), n - ends - middle)
    parts = [("Best", items.iloc[:ends]), ("Around the median", items.iloc[start : start + middle]),
             ("Worst", items.iloc[n - ends :])]  # fmt: skip
    return [(name, part) for name, part in parts if len(part)]


def gallery(study: Study, evaluation: Evaluation, shelf: Shelf, wanted: int) -> Iterator[Block]:
    """The gallery of one evaluation, for the decoder of its verdict."""
    items = evaluation.items
    items = items[items["decoder"] == evaluation.headline]
    require(len(items) or None, f"any query of decoder {evaluation.headline}", evaluation.path)
    fold = wording.distinct([str(f) for f in items["fold"]])
    parts = best_median_worst(items, wanted)
    shown = sum(len(part) for _, part in parts)
    yield Text(
        f"{shown} of {len(items)} queries, chosen by rank alone: the best, those around the "
        "median, and the worst; among queries of equal rank a hash of the event decides. Left: "
        "what was shown. Right: the five candidates that the decoder "
        f"({wording.decoder_name(evaluation.headline)}) put first, with their scores; a green "
        "frame marks the true one.",
        "note",
    )
    sounds = len(shelf.sounds)
    galleries = [
        Gallery(
            f"{name}: {_standing(part, items)}",
            tuple(_query(row, fold[str(row["fold"])], shelf) for row in part.to_dict("records")),
        )
        for name, part in parts
    ]
    if len(shelf.sounds) > sounds:
        yield Text(
            "The true sound and the one put first can be played: their first "
            f"{LONGEST_S:g} s, as a telephone would carry them.",
            "note",
        )
    yield from galleries


def _standing(part: pd.DataFrame, items: pd.DataFrame) -> str:
    """Which ranks a part shows, and how many of all queries have such a rank."""
    rank, every = part["rank"].astype(float), items["rank"].astype(float)
    low, high = rank.min(), rank.max()
    alike = float(((every >= low) & (every <= high)).mean())
    span = wording.plain(low) if low == high else f"{wording.plain(low)} to {wording.plain(high)}"
    return f"rank {span}, as {wording.share(alike, 0)} of all queries."


def _query(row: dict, fold: str, shelf: Shelf) -> Query:
    top = []
    for k in range(1, 6):
        stimulus = str(row.get(f"top{k}") or "")
        if stimulus:
            score = wording.similarity(row.get(f"score{k}"))
            item = shelf[stimulus] if k == 1 else shelf.silent(stimulus)
            top.append((item, score, stimulus == str(row["stimulus"])))
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
