"""Where the decoder puts stimuli: predictions and targets in the plane of the targets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from braindecode_pipe.evaluate.predictions import FoldPrediction, read_prediction
from braindecode_pipe.report import wording
from braindecode_pipe.report.document import Block, Figure, Heading, Section, Text, attempt
from braindecode_pipe.report.figures import COLOURS, MUTED, RULE, canvas, picture, short
from braindecode_pipe.report.study import Evaluation, Study, require
from braindecode_pipe.store import open_store

MOST = 1500  # stimuli; more would only hide each other
OTHERS = "others"


def map_section(study: Study) -> Section:
    """One map per embedding."""
    blocks: list[Block] = []
    for evaluation in study.evaluations:
        if len(study.evaluations) > 1:
            blocks.append(Heading(f"Embedding “{evaluation.name}”"))
        blocks += attempt(f"embedding map, {evaluation.name}", embedding_map, study, evaluation)
    return Section(
        "embedding-map", "Embedding map", tuple(blocks) or (Text("No embedding was evaluated."),)
    )


def embedding_map(study: Study, evaluation: Evaluation) -> Iterator[Block]:
    """Targets and mean predictions of the tested stimuli, for the decoder of the verdict."""
    ids, targets, predictions = mean_vectors(study, evaluation)
    if len(ids) < 3 or targets.shape[1] < 2:
        yield Text(
            f"With {wording.count(len(ids), 'tested stimulus', 'tested stimuli')} there is no map "
            "to draw: any two points lie on a line.",
            "note",
        )
        return
    axes, share = principal_axes(targets)
    placed = [
        rows @ axes for rows in (targets - targets.mean(0), predictions - predictions.mean(0))
    ]
    kept = share_of(predictions, axes)
    groups = colour_groups([study.category(s) or "" for s in ids])
    yield _figure(placed, groups, (share, kept), wording.decoder_name(evaluation.headline))


def mean_vectors(study: Study, evaluation: Evaluation) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Unit-length targets and unit-length predictions, each meaned per tested stimulus.

    Both are taken as the decoder is scored: in every fold the targets under that fold's own
    normaliser. Of more than ``MOST`` stimuli an evenly spaced part is kept.

    Returns
    -------
    ids : (n,) stimuli; targets, predictions : (n, f)
    """
    path = study.inputs.embeddings.get(evaluation.name)
    require(path, f"the embedding table {evaluation.name}")
    table = open_store(path)
    vectors = np.asarray(table["embedding"].values)
    row = {str(s): i for i, s in enumerate(table["stimulus"].values)}
    sums: dict[str, list] = defaultdict(lambda: [0.0, 0.0, 0])
    for part in _parts(study, evaluation):
        known = [i for i, s in enumerate(part.stimuli) if s in row]
        true = vectors[[row[part.stimuli[i]] for i in known]].astype(float)
        true = part.normalizer(true) if part.normalizer is not None else true
        for i, a, b in zip(known, unit(true), unit(part.values[known])):
            entry = sums[str(part.stimuli[i])]
            entry[0], entry[1], entry[2] = entry[0] + a, entry[1] + b, entry[2] + 1
    require(sums or None, f"any prediction of decoder {evaluation.headline}", evaluation.path)
    ids = sorted(sums)
    if len(ids) > MOST:
        ids = [ids[i] for i in np.linspace(0, len(ids) - 1, MOST).round().astype(int)]
    targets, predictions = (np.stack([sums[s][k] / sums[s][2] for s in ids]) for k in (0, 1))
    return ids, targets, predictions


def _parts(study: Study, evaluation: Evaluation) -> Iterator[FoldPrediction]:
    chosen = evaluation.attrs.get("selected") or {}
    for path, attrs in study.predictions(evaluation.name):
        if attrs.get("role") == "piece":
            continue
        fold = str(attrs.get("fold"))
        wanted = chosen.get(fold) if evaluation.headline == "selected" else evaluation.headline
        number = attrs.get("fold")
        if wanted is None and not isinstance(number, str):
            wanted = chosen.get(str(study.plan.folds["fold"].iloc[int(number)]))
        if str(attrs.get("decoder")) == wanted:
            yield read_prediction(Path(path), study.stored_plan)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; rows of zeros stay."""
    rows = np.asarray(rows, float).reshape(len(rows), -1)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)


def principal_axes(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """First two principal axes, and the share of the variance that lies in their plane.

    Eigenvectors of the covariance or of the Gram matrix, whichever is smaller; the largest loading
    of each axis is positive, so that equal data give equal maps.

    Returns
    -------
    axes : (f, 2) orthonormal; share : float
    """
    centred = rows - rows.mean(axis=0)
    if centred.shape[1] <= centred.shape[0]:
        axes = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    else:
        axes = centred.T @ np.linalg.eigh(centred @ centred.T)[1][:, :-3:-1]
        axes = np.linalg.qr(axes)[0]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, [0, 1]] < 0, -1.0, 1.0)
    return axes, share_of(rows, axes)


def share_of(rows: np.ndarray, axes: np.ndarray) -> float:
    """Share of the variance of ``rows`` that lies in the plane of ``axes``."""
    centred = rows - rows.mean(axis=0)
    total = float((centred**2).sum())
    return float(((centred @ axes) ** 2).sum()) / total if total > 0 else 0.0


def colour_groups(categories: list[str]) -> dict[str, np.ndarray]:
    """Rows of each category: the most frequent have a name, the rest are others."""
    found = np.array(categories, object)
    names, counts = np.unique([c for c in categories if c], return_counts=True)
    order = [str(names[i]) for i in np.argsort(-counts, kind="stable")]
    named = order if len(order) <= len(COLOURS) else order[: len(COLOURS) - 1]
    groups = {name: np.flatnonzero(found == name) for name in named}
    rest = np.flatnonzero(~np.isin(found, named))
    return {**groups, OTHERS: rest} if rest.size else groups


def _figure(placed: list, groups: dict, shares: tuple[float, float], decoder: str) -> Figure:
    titles = ("targets", "predictions")
    with canvas(8.2, 3.9, ncols=2) as (figure, axes):
        for ax, points, title, share in zip(axes, placed, titles, shares):
            for colour, (name, rows) in zip((*COLOURS, *COLOURS), groups.items()):
                plain = name == OTHERS
                ax.scatter(*points[rows].T, s=16 if len(points) < 400 else 6, lw=0, alpha=0.8,
                           color=MUTED if plain else colour, zorder=2 if plain else 3,
                           label=short(name, 18))  # fmt: skip
            ax.axhline(0, color=RULE, lw=0.8, zorder=0)
            ax.axvline(0, color=RULE, lw=0.8, zorder=0)
            ax.set_title(f"{title}: {wording.share(share, 0)} of their variance")
            ax.set_aspect("equal", adjustable="datalim")
            ax.tick_params(labelsize=7.5)
            ax.set_xlabel("first axis of the targets", fontsize=8)
        axes[0].set_ylabel("second axis of the targets", fontsize=8)
        if len(groups) > 1:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=5)
        n = len(placed[0])
        alt = (f"Two scatter plots of {n} stimuli; the plane holds {wording.share(shares[0], 0)} "
               f"of the variance of targets and {wording.share(shares[1], 0)} of that of "
               "predictions")  # fmt: skip
        caption = (
            f"{n} tested stimuli in the plane of the first two principal axes of their targets. "
            f"Left: the targets. Right: what the decoder ({decoder}) predicts, meaned over all "
            "events of a stimulus, on a scale of its own. All vectors have unit length, each cloud "
            "its own centre. Predictions that carry the colours of the left picture at the same "
            "side carry its categories; how sure that is, the scores tell and not the map."
        )
        return picture(figure, alt, caption, few_colours=True)
