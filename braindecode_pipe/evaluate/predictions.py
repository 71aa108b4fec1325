"""Prediction stores: read, checked against the plan, and which decoder a fold uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braindecode_pipe.errors import DataError, LeakageError, SchemaError
from braindecode_pipe.fitting.normalizer import Normalizer
from braindecode_pipe.schema import ROLES
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import list_groups, open_store


@dataclass(frozen=True)
class FoldPrediction:
    """One prediction store: what one decoder predicts for the test events of one fold.

    ``decoder`` is a label: of ``base`` with a ``seed`` on a ``window`` [s], see ``recipe.Variant``.
    ``noise`` is what it predicts from noise in their place, where the store holds that.
    """

    decoder: str
    fold: int
    events: np.ndarray
    stimuli: np.ndarray
    values: np.ndarray
    normalizer: Normalizer | None
    inner_score: float | None
    data_origin: str
    embedding: str
    target: str
    base: str = ""
    role: str = "decoder"
    seed: int | None = None
    window: tuple[float, float | None] | None = None
    noise: np.ndarray | None = None


def fold_number(name: str | int, plan: StudyPlan) -> int | None:
    """Position of a fold, given by name or number, in ``plan.folds``; None where it is not."""
    if isinstance(name, str):
        found = np.flatnonzero(plan.folds["fold"].astype(str) == name)
        return int(found[0]) if len(found) else None
    return int(name) if 0 <= int(name) < len(plan.folds) else None


def read_prediction(path: Path, plan: StudyPlan) -> FoldPrediction:
    """Read one prediction store.

    Raises
    ------
    SchemaError
        An attribute that evaluation needs is missing.
    DataError
        The plan has no such fold.
    LeakageError
        The decoder, or what scales its input, was fitted outside of the fold's training part.
        The normaliser of the embedding saw stimuli that training did not show.
    """
    dataset = open_store(path)
    attrs = dataset.attrs
    missing = [k for k in ("decoder", "fold", "embedding", "target") if k not in attrs]
    if missing or dataset.attrs.get("kind") != "prediction":
        raise SchemaError(
            "this store is no prediction that can be evaluated",
            file=path,
            expected='kind "prediction" with decoder, fold, embedding, target',
            found=f"kind {attrs.get('kind')!r}, without {', '.join(missing) or 'nothing'}",
        )
    fold = fold_number(attrs["fold"], plan)
    if fold is None:
        raise DataError(
            "a prediction is of a fold that the plan does not have",
            file=path,
            expected=", ".join(plan.folds["fold"].astype(str)),
            found=str(attrs["fold"]),
            remedy="run the stage train again",
        )
    _refuse_other_scope(attrs, plan, fold, path)
    normalizer = None
    if "normalizer" in list_groups(path):
        normalizer = Normalizer.from_dataset(open_store(path, "normalizer"))
        _check_normalizer(normalizer, plan, fold, str(attrs["target"]), path)
    inner = attrs.get("inner_score")
    return FoldPrediction(
        decoder=str(attrs["decoder"]),
        fold=fold,
        events=_texts(dataset["event"].values),
        stimuli=_texts(dataset["stimulus"].values),
        values=np.asarray(dataset["prediction"].values),
        normalizer=normalizer,
        inner_score=None if inner is None else float(inner),
        data_origin=str(attrs["data_origin"]),
        embedding=str(attrs["embedding"]),
        target=str(attrs["target"]),
        base=str(attrs.get("base_decoder", attrs["decoder"])),
        role=str(attrs.get("role", "decoder")),
        seed=attrs.get("seed"),
        window=tuple(attrs["window"]) if "window" in attrs else None,
        noise=np.asarray(open_store(path, "noise")["prediction"].values)
        if "noise" in list_groups(path) else None,
    )  # fmt: skip


def _refuse_other_scope(
    attrs: Mapping[str, object], plan: StudyPlan, fold: int, path: Path
) -> None:
    """What was fitted says on what; anything but the fold's own scope may hold test events."""
    expected = plan.scope(fold).hash()
    for name in ("fit_scope", "input_scope"):
        if attrs.get(name) not in (None, "", expected):
            raise LeakageError(
                "a decoder was fitted on something else than the training part of its fold",
                file=path,
                expected=f"{name} {expected[:16]}, the training events of fold "
                f"{plan.folds['fold'].iloc[fold]}",
                found=str(attrs[name])[:16],
                remedy="run the stage train again",
            )


def _check_normalizer(
    normalizer: Normalizer, plan: StudyPlan, fold: int, target: str, path: Path
) -> None:
    fitted = np.isin(plan.role[fold], [ROLES["train"], ROLES["validation"]])
    shown = set(plan.events[f"stimulus_{target}"].astype(str).to_numpy()[fitted])
    outside = sorted(set(normalizer.seen) - shown)
    if outside:
        raise LeakageError(
            "the normaliser of the embedding saw stimuli that training did not show",
            file=path,
            expected="stimuli of the fold's training events only",
            found=f"{len(outside)} others: {', '.join(outside[:5])}",
            remedy="run the stage train again",
        )


def choose_decoders(
    predictions: Mapping[tuple[str, int], FoldPrediction], decoders: Sequence[str]
) -> dict[int, str]:
    """Per fold the decoder with the best ``inner_score``; the first of equal ones.

    Empty where a fold lacks a decoder or a score: then nothing is selected.
    """
    chosen: dict[int, str] = {}
    for fold in sorted({fold for _, fold in predictions}):
        scores = []
        for decoder in decoders:
            found = predictions.get((decoder, fold))
            if found is None or found.inner_score is None or not np.isfinite(found.inner_score):
                return {}
            scores.append(found.inner_score)
        chosen[fold] = decoders[int(np.argmax(scores))]
    return chosen


def _texts(values: np.ndarray) -> np.ndarray:
    return np.array([str(v) for v in values], dtype=object)
