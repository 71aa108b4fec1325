"""One unit of the stage ``train``: one decoder, one embedding, one fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.fitting.inputs import InputScaling
from braindecode_pipe.recipe import TrainSection, variant
from braindecode_pipe.schema import (
    SCHEMA_VERSION,
    join_data_origin,
    prediction_dataset,
    table_to_dataset,
)
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import write_store
from braindecode_pipe.train.course import Course
from braindecode_pipe.train.decoder import BrainDecoder
from braindecode_pipe.train.folds import (
    Fold,
    Targets,
    check_seen,
    fit_normalizer,
    read_fold,
)
from braindecode_pipe.train.noise import noise_predictions
from braindecode_pipe.train.patterns import at_peak, haufe_patterns
from braindecode_pipe.train.people import check_one_layout, sensors_of
from braindecode_pipe.train.saved import decoder_files
from braindecode_pipe.train.selection import inner_score
from braindecode_pipe.train.settings import shared_settings

PATTERNS_MAX = 20
_NAMES = ("decoder", "embedding", "target", "fold", "subject", "data_origin", "checkpoint")


def run(
    section: TrainSection,
    name: str,
    decoder: str,
    fold: int,
    plan: StudyPlan,
    signals: Mapping[str, Path],
    embedding: Path,
    out: Path,
    *,
    target: str = "",
    normalize: str = "none",
    scaling: InputScaling | None = None,
    components: int = 0,
    threads: int = 1,
    seed: int | None = None,
    window: tuple[float, float] | None = None,
    folder: Path | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Fit one decoder on one fold and write its predictions of the test events.

    Of the processes that share a fit (``torchrun``) the first one writes.

    The store holds at its root the ``prediction`` dataset, in the space of the normalised
    embedding, and the groups ``noise`` (the same decoder's predictions where the windows of the
    test are noise, see :func:`~braindecode_pipe.train.noise.noise_predictions`), ``normalizer``
    (mean, scale, for PCA whitening also components, and the stimuli it was fitted on: candidates
    must go through it before they are compared), ``log`` (epochs of networks), ``penalties`` (loss
    of each penalty on the groups left out), ``delay`` (correlation per lag, where the delay was
    estimated), ``pattern`` (Haufe patterns of linear decoders, per training stimulus, or of the
    norm of the output where there are over 20 stimuli; at the time of the largest root mean square
    over sensors), and the checkpoint
    ``model.safetensors`` + ``model.json``.

    Parameters
    ----------
    section : TrainSection
    name : name of the table in ``[embed]``
    decoder : one of ``train.settings.DECODERS``
    fold : position in ``plan.folds``
    plan : StudyPlan
    signals : recording -> store
    embedding : store of the embedding
    out : store to write
    target : target of ``[plan.stimuli]``; default: what the embedding store says, else ``name``
    normalize : "none", "center", "zscore" or "whiten", fitted on the fold's training stimuli
    components : most components that "whiten" keeps; 0: all that carry variance
    scaling : scaler of the recordings that each fold fits on its training windows, if any
    threads : threads that sums may use; part of what makes equal bytes
    seed : of a network; default: the first of the section
    window : (begin, end) [s] of a piece of the window that is read alone; default: all of it
    folder : where networks keep checkpoints, to go on from after an interruption; deleted once
        the store is written
    tensorboard : folder that gets the curves of networks, for TensorBoard

    Raises
    ------
    LeakageError, SplitError, DataError, StimulusError, ModelError
        See :func:`~braindecode_pipe.train.folds.read_fold` and
        :class:`~braindecode_pipe.train.decoder.BrainDecoder`.
    """
    from threadpoolctl import threadpool_limits

    own = variant(section, decoder, seed, window)
    if own.seed is not None:
        import torch

        torch.set_num_threads(threads)
    with threadpool_limits(threads), Course(own, folder, tensorboard) as course:
        _run(section, name, course, fold, plan, signals, embedding, out, target, normalize,
             components, scaling)  # fmt: skip


def _run(
    section: TrainSection, name: str, course: Course, fold: int, plan: StudyPlan,
    signals: Mapping[str, Path], embedding: Path, out: Path, target: str, normalize: str,
    components: int, scaling: InputScaling | None,
) -> None:  # fmt: skip
    own = course.variant
    decoder = own.decoder
    targets = Targets.load(embedding)
    target = target or str(targets.attrs.get("target") or name)
    data = read_fold(plan, fold, target, section.windows, signals, scaling, own.window)
    model = make_decoder(section, decoder, targets.n_steps)
    if own.seed is not None:
        model.set_params(seed=own.seed)
    if model.one_layout:
        check_one_layout(sensors_of(data.windows), decoder)
    scope = check_seen(plan, fold, data.text("event", data.single(data.fit)))
    shown = np.array(sorted(set(data.stimuli)), object)
    normalizer = fit_normalizer(normalize, components, targets, data, decoder)
    Y = normalizer(targets.of(data.stimuli))
    moved = own.seed is not None and section.augment.shift_s > 0
    X, layout = data.read(data.fit, moved), data.layout(data.fit, section.layout)
    attrs: dict[str, Any] = {}
    if section.select and own.role == "decoder":
        attrs["inner_score"] = inner_score(
            model, X, Y, data.groups, data.stimuli, data.validation, keep=course.keep, **layout
        )
    where = f"{name} {own.label} {plan.folds['fold'].iloc[fold]}"
    model.fit(X, Y, data.groups, stimuli=data.stimuli, validation=data.validation, **layout,
              **course.arguments(where, section.epochs))  # fmt: skip
    if not course.writes:
        return
    test = data.read(data.test)
    predictions = model.predict(test, data.windows.subject_index(data.test))
    origin = join_data_origin(*data.data_origin, str(targets.attrs["data_origin"]))
    attrs |= {
        "decoder": own.label,
        "base_decoder": decoder,
        "role": own.role,
        "seed": own.seed,
        "window": [section.windows.tmin, section.windows.tmax]
        if own.window is None
        else list(own.window),
        "embedding": name,
        "target": target,
        "fold": str(plan.folds["fold"].iloc[fold]),
        "fold_index": fold,
        "subject": str(plan.folds["subject"].iloc[fold]),
        "hyper": model.hyper_,
        "delay_s": data.delay,
        "n_train": int((~data.validation).sum()),
        "n_validation": int(data.validation.sum()),
        "n_test": len(data.test),
        **_repeats(section.windows.repeats, data),
        "n_sensors": data.windows.n_sensors,
        "n_times": data.windows.n_times,
        "n_steps": targets.n_steps,
        "dropped": data.windows.dropped,
        "normalize": normalize,
        **({"head": "retrieval"} if model.two_heads else {}),
        "fit_scope": scope,
        "selection_scope": _selection_scope(plan, fold, data) if own.seed is not None else scope,
        **({} if data.inputs is None else {"input_scope": scope, "inputs": data.inputs.facts}),
        **course.attrs,
        "data_origin": origin,
        "checkpoint": "model.safetensors",
    }
    asked = [list(data.text(name, data.test)) for name in ("event", f"stimulus_{target}")]
    groups = {
        "": prediction_dataset(predictions, *asked, attrs),
        "normalizer": normalizer.to_dataset(),
        **_fit_tables(model, data),
    }
    if own.role == "decoder":
        noise = noise_predictions(model, data, section.seed)
        groups["noise"] = prediction_dataset(noise, *asked, {k: attrs[k] for k in _NAMES})
    if own.seed is None:
        groups["pattern"] = pattern_dataset(model, X, data, normalizer(targets.of(shown)), plan)
    write_store(out, groups, files=decoder_files(model, data.inputs, scope))


def make_decoder(section: TrainSection, decoder: str, n_steps: int) -> BrainDecoder:
    """The decoder that a recipe describes, not fitted."""
    network = section.network.get(decoder)
    return BrainDecoder(
        decoder,
        network=None if network is None else network.model_dump(),
        n_steps=n_steps,
        **shared_settings(section),
    )


def _selection_scope(plan: StudyPlan, fold: int, data: Fold) -> str:
    """Hash of what the epoch of a network was chosen on: validation, else what it was fitted on."""
    roles = ("validation",) if data.validation.any() else ("train", "validation")
    return plan.scope(fold, roles).hash()


def _repeats(kind: str, data: Fold) -> dict[str, Any]:
    """Whether queries are single windows, and how many each is made of where they are not."""
    return {"repeats": kind} | (
        {} if data.trials is None else {"trials_per_query": data.trials_per_query}
    )


def _dataset(variables: dict[str, Any], coords: dict[str, Any] | None = None) -> xr.Dataset:
    attrs = {"schema_version": SCHEMA_VERSION, "kind": "table"}
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def _fit_tables(model: BrainDecoder, data: Fold) -> dict[str, xr.Dataset]:
    """Tables about the fit: log, penalties, delay; those that there are."""
    tables = {}
    if model.log_:
        tables["log"] = table_to_dataset(pd.DataFrame(model.log_), "epoch_row")
    elif len(model.fit_.penalties) > 1:
        table = pd.DataFrame({"penalty": model.fit_.penalties, "loss": model.fit_.losses})
        tables["penalties"] = table_to_dataset(table, "row")
    if data.estimate is not None:
        table = pd.DataFrame(
            {"delay": data.estimate.lags, "correlation": data.estimate.correlation}
        )
        tables["delay"] = table_to_dataset(table, "lag")
    return tables


def pattern_dataset(
    model: BrainDecoder, X: Any, data: Fold, embeddings: np.ndarray, plan: StudyPlan
) -> xr.Dataset:
    """Patterns ``(component, sensor)`` of a linear decoder over its training windows.

    Outputs are the inner products of the prediction with the embedding of each training stimulus
    (its deviation from their mean), or the norm of the prediction with over 20 stimuli.
    """
    X = np.asarray(X)
    predictions = model.predict(X).astype(np.float64)
    if data.inputs is not None and data.inputs.whitener is not None:
        # Of sensors, not of the directions that whitening made of them.
        plain = data.windows.transformed(replace(data.inputs, whitener=None))
        X = np.asarray(replace(data, windows=plain).read(data.fit))
    if len(embeddings) <= PATTERNS_MAX:
        ids = sorted(set(data.stimuli))
        labels = dict(zip(plan.stimuli["stimulus"].astype(str), plan.stimuli["label"].astype(str)))
        components = [labels.get(i, i) for i in ids]
        scores = predictions @ (embeddings - embeddings.mean(0)).T
    else:
        components = ["norm"]
        centred = predictions - predictions.mean(0)
        scores = np.linalg.norm(centred, axis=1, keepdims=True)
    pattern, time = at_peak(haufe_patterns(X, scores), data.windows.times)
    sensors = next(iter(data.windows.sensors.values()))
    return _dataset(
        {
            "pattern": (("component", "sensor"), pattern.astype(np.float32)),
            "time": ("component", time),
        },
        {
            "component": ("component", np.asarray(components, object)),
            "sensor": ("sensor", sensors["sensor"].astype(str).to_numpy(object)),
            "position": (("sensor", "axis"), sensors[["x", "y", "z"]].to_numpy(float)),
        },
    )
