"""The section on reconstruction: pictures beside those of noise and of shuffled brains."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.report import wording
from braindecode_pipe.report.document import (
    Block,
    Column,
    Gallery,
    Heading,
    Item,
    Items,
    Query,
    Section,
    Table,
    Text,
    attempt,
)
from braindecode_pipe.report.gallery import THUMBNAIL, Shelf
from braindecode_pipe.report.study import Study, require
from braindecode_pipe.store import open_store, read_file, read_table, store_attrs

INPUTS = {"brain": "from the brain", "noise": "from noise", "shuffled": "shuffled brain"}


class Reconstruction:
    """The store of one table, each part read when it is first asked for."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    @cached_property
    def attrs(self) -> dict:
        """Root attributes: generators, samples, metrics, notes."""
        return store_attrs(self.path)

    @cached_property
    def records(self) -> list[dict]:
        """One record per metric."""
        return json.loads(read_file(self.path, "metrics.json"))

    @cached_property
    def items(self) -> pd.DataFrame:
        """fold, subject, stimulus, n_events, sample."""
        return read_table(self.path, "items")

    def score(self, kind: str, metric: str) -> np.ndarray:
        """Values of all items, (n_items,)."""
        scores = open_store(self.path, "scores")["scores"]
        return np.asarray(scores.sel(input=kind, metric=metric).values, float)

    def picture(self, kind: str, item: int) -> bytes:
        """One picture as a small JPEG; only its own part of the store is read."""
        from PIL import Image

        array = open_store(self.path, "pictures")["pictures"]
        image = Image.fromarray(np.asarray(array.sel(input=kind).isel(item=item).values))
        buffer = io.BytesIO()
        image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR).save(
            buffer, format="JPEG", quality=82, optimize=True
        )
        return buffer.getvalue()


def reconstruction_section(study: Study, shelf: Shelf) -> Section | None:
    """Scores and gallery of every table that was reconstructed; None where none was asked for."""
    asked = study.recipe.get("reconstruct") is not None
    if not asked and not study.inputs.reconstructions:
        return None
    blocks: list[Block] = []
    for name, path in study.inputs.reconstructions.items():
        found = Reconstruction(name, Path(path))
        if len(study.inputs.reconstructions) > 1:
            blocks.append(Heading(f"Embedding “{name}”"))
        blocks += attempt(f"reconstruction, {name}", _about, found)
        blocks += attempt(f"scores of reconstruction, {name}", _scores, found)
        wanted = int(study.section("report").get("gallery", 12))
        if wanted:
            blocks += attempt(f"reconstructions, {name}", _gallery, found, shelf, wanted)
    if not blocks:
        blocks.append(Text("Nothing was reconstructed.", "warning"))
    return Section("reconstruction", "Reconstruction", tuple(blocks))


def _about(found: Reconstruction) -> Iterator[Block]:
    attrs = found.attrs
    makers = attrs["generators"]
    require(makers or None, "what drew the pictures", found.path)
    first = makers[0]
    yield Text(
        f"Pictures are drawn by “{first['generator']}” ({first['description']}) from embeddings "
        f"that the decoder {wording.decoder_name(str(attrs['decoder']))} predicted. The same "
        "generator draws, with the same seeds, from noise and from the prediction for another item "
        "of the same fold and person (shuffled brain): what they show was not read from the "
        "brain's response to the picture."
    )
    shown = sorted({int(m["n_pictures"]) for m in makers})
    between = str(shown[0]) if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"
    samples = int(attrs["samples"])
    lines = [
        f"training pictures that a fold's generator or statistics may see: {between}; never one "
        "that the fold tests",
        f"input: {attrs['input']}; prior: {attrs['prior']}",
        f"samples per item: {samples}" + (
            "" if samples == 1 else f", kept by {attrs['chosen_by']}"
        ),
        f"after drawing: mixing with a blurred picture {attrs['mixing']}, contrast "
        f"{attrs['contrast']}, refiner {attrs['refiner']}",
        f"metrics: preset “{attrs['preset']}”",
    ]  # fmt: skip
    yield Items((*lines, *map(str, attrs.get("notes") or ())))


def _scores(found: Reconstruction) -> Table:
    records = found.records
    require(records or None, "any record in metrics.json", found.path)
    rows = []
    for r in records:
        better = "higher" if r["larger_is_better"] else "lower"
        stands = f" (stands in for {r['stand_in_for']})" if r["stand_in_for"] else ""
        limits = [wording.number(r[k]) for k in ("ci_low", "ci_high")]
        rows.append(
            (
                f"{r['metric']}{stands}",
                better,
                wording.plain(r["value"]),
                " – ".join(map(wording.plain, limits)),
                wording.p_value(r["p_value"]),
                *(
                    f"{wording.plain(r[k])} ({wording.p_value(r[f'p_{k}'])})"
                    for k in ("noise", "shuffled")
                ),
            )
        )
    columns = (
        Column("Metric"), Column("Better"), Column("Value", True), Column("Interval", True),
        Column("p", True), Column("Noise (p)", True), Column("Shuffled (p)", True),
    )  # fmt: skip
    notes = [
        "p: the targets of a fold and person exchanged among its reconstructions. Against noise "
        "and shuffled brains: the sign of each item's difference drawn at random, one-sided.",
    ]
    if any(r["stand_in_for"] for r in records):
        notes.append(
            "EfficientNet-Lite0 stands in for the networks of the field: these values cannot be "
            "put beside published ones. PixCorr and SSIM are computed as in the field."
        )
    n = records[0]["n_items"]
    return Table(f"Likeness of {n} reconstructions to their targets", columns, tuple(rows),
                 tuple(notes))  # fmt: skip


def _gallery(found: Reconstruction, shelf: Shelf, wanted: int) -> Gallery:
    metric, tie = _ordering(found.records)
    values, second = (found.score("brain", m["metric"]) for m in (metric, tie))
    sign = 1 if metric["larger_is_better"] else -1
    order = np.lexsort((-second, -sign * values))
    chosen = best_median_worst(len(order), wanted)
    queries = []
    for what, ranks in chosen.items():
        for rank in ranks:
            item = int(order[rank])
            row = found.items.iloc[item]
            score = {k: wording.plain(found.score(k, tie["metric"])[item]) for k in INPUTS}
            queries.append(
                Query(
                    title=f"{what}: {wording.plain(values[item])}",
                    detail=f"rank {rank + 1} of {len(order)}, person {row['subject']}, fold "
                    f"{row['fold']}, {wording.count(int(row['n_events']), 'trial')}",
                    truth=shelf[str(row["stimulus"])],
                    truth_score="shown",
                    top=tuple(
                        (Item(label, found.picture(k, item)), f"{tie['metric']} {score[k]}", False)
                        for k, label in INPUTS.items()
                    ),
                )
            )  # fmt: skip
    caption = (
        f"Best, median and worst of {len(order)} items by {metric['metric']}, ties by "
        f"{tie['metric']}; not chosen by hand. Left: what was shown. Right: drawn from the brain, "
        "from noise, and from a shuffled brain."
    )
    return Gallery(caption, tuple(queries), "drawn from the brain, noise and a shuffled brain")


def _ordering(records: list[dict]) -> tuple[dict, dict]:
    """The two-way metric that is Inception's or stands for it, and the correlation of pixels."""
    tie = next((r for r in records if r["kind"] == "correlation"), records[0])
    wanted = [r for r in records if "Inception" in (r["metric"], r["stand_in_for"])]
    return (wanted[0] if wanted else tie), tie


def best_median_worst(n: int, wanted: int) -> dict[str, list[int]]:
    """Ranks 0 .. n - 1 that a gallery of ``wanted`` rows shows, each once."""
    each = max(1, min(wanted, n) // 3)
    best = list(range(min(each, n)))
    worst = [k for k in range(max(0, n - each), n) if k not in best]
    start = max(0, n // 2 - each // 2)
    median = [k for k in range(start, min(n, start + each)) if k not in (*best, *worst)]
    return {"Best": best, "Median": median, "Worst": worst}
