"""One unit of the stage ``reconstruct``: the pictures of one embedding table, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from braindecode_pipe.errors import DataError, ModelError, RecipeError, SplitError
from braindecode_pipe.evaluate.predictions import FoldPrediction, read_prediction
from braindecode_pipe.evaluate.reconstruction import Pool, measure, own
from braindecode_pipe.evaluate.records import metrics_json, plain
from braindecode_pipe.recipe import ReconstructSection
from braindecode_pipe.reconstruct.embedded import (
    EmbeddedGenerator,
    NearestPictures,
    TrainingPictures,
)
from braindecode_pipe.reconstruct.features import FeatureNetworks, score_pictures
from braindecode_pipe.reconstruct.interface import (
    Generator,
    check_embedding,
    generate_in_batches,
    row_seeds,
)
from braindecode_pipe.reconstruct.items import Table, tested_items, training_pictures
from braindecode_pipe.reconstruct.latents import (
    Statistics,
    derangement,
    noise_input,
    renormalise,
)
from braindecode_pipe.reconstruct.presets import Preset, preset_of
from braindecode_pipe.reconstruct.pretrained import DiffusersGenerator
from braindecode_pipe.reconstruct.priors import draw_embeddings, fit_prior
from braindecode_pipe.schema import SCHEMA_VERSION, join_data_origin, table_to_dataset
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import write_store

INPUTS = ("brain", "noise", "shuffled")
EMBEDDED = {"embedded", "nearest"}


@dataclass
class _Made:
    """What the folds gave, in order."""

    items: list[pd.DataFrame] = field(default_factory=list)
    pictures: dict[str, list[np.ndarray]] = field(default_factory=lambda: {k: [] for k in INPUTS})
    pools: list[Pool] = field(default_factory=list)
    generators: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run(
    section: ReconstructSection,
    name: str,
    plan: StudyPlan,
    predictions: Sequence[Path],
    embedding: Path,
    data: Path,
    out: Path,
    *,
    threads: int = 1,
) -> None:
    """Draw the pictures of one table of embeddings, score them, and write the store ``out``.

    Every item is drawn three times with the same seed: from its prediction (``brain``), from noise
    with the moments of the training embeddings (``noise``), and from the prediction of another
    item of the same fold and person (``shuffled``).

    Parameters
    ----------
    section : ReconstructSection
    name : of the table in ``[embed]``
    plan : StudyPlan
    predictions : prediction stores of one decoder, one per fold
    embedding : the embedding store
    data : the study's data folder
    out : store to write
    threads : threads that sums may use

    Notes
    -----
    The store holds ``pictures(input, item, y, x, channel)`` of 8 bits, the table ``items``,
    ``scores(input, metric, item)`` and ``metrics.json``. Attributes say which generator of which
    FitScope drew the pictures of each fold, how many samples there were and how one was chosen,
    all settings of the metrics, and that nothing was done to the pictures afterwards.

    Raises
    ------
    DataError, SplitError, ModelError, LeakageError
        No predictions, stimuli that are no pictures, no training pictures, a generator that is
        missing or reads embeddings of another width, embeddings that are not finite.
    """
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    preset = preset_of(section.metrics)
    networks = FeatureNetworks(section.networks or None, section.device)
    if section.samples > 1 and section.prior == "none":
        raise RecipeError(
            "there is nothing to draw several samples of", expected='samples = 1, or prior = '
            '"diffusion"', found=f"samples = {section.samples}",
        )  # fmt: skip
    parts = [read_prediction(path, plan) for path in predictions]
    if not parts:
        raise DataError("there are no predictions to reconstruct from", expected="one per fold",
                        found="none")  # fmt: skip
    table = Table.load(embedding, plan, parts[0].target, data)
    made = _Made()
    pretrained = None
    if section.generator not in EMBEDDED:
        pretrained = DiffusersGenerator(
            section.generator, device=section.device, steps=section.draws,
            guidance=section.guidance,
        )  # fmt: skip
    with threadpool_limits(threads):
        for part in parts:
            _fold(section, plan, part, table, pretrained, preset, networks, made)
        if not made.pools:
            raise SplitError(
                "nothing can be reconstructed", expected="a fold with two tested pictures of one "
                "person", found="none",
            )  # fmt: skip
        _write(section, name, parts, preset, made, out)


def _fold(
    section: ReconstructSection, plan: StudyPlan, part: FoldPrediction, table: Table,
    pretrained: Generator | None, preset: Preset, networks: FeatureNetworks, made: _Made,
) -> None:  # fmt: skip
    """Pictures and scores of one fold, added to ``made``."""
    items, embeddings = tested_items(plan, part, section.average, section.items)
    if not len(items):
        made.notes.append(f"fold {plan.folds['fold'].iloc[part.fold]}: nobody saw two pictures")
        return
    training = training_pictures(table, plan, part, section.side)
    generator = pretrained or _make(section, training)
    made.generators.append({"fold": items["fold"].iloc[0], **generator.facts, **training.facts})
    embeddings = check_embedding(embeddings, generator.width, str(generator.facts["generator"]))
    statistics = Statistics.fit(np.asarray(training.embeddings, np.float64))
    prior = None
    if section.prior == "diffusion":
        prior = fit_prior(
            training.embeddings, steps=section.prior_steps, seed=section.seed,
            device=section.device,
        )  # fmt: skip
    for number, (_, own_rows) in enumerate(items.groupby("subject", sort=True)):
        rows = own_rows.index.to_numpy()
        inputs = _inputs(section, embeddings[rows], statistics, [section.seed, part.fold, number])
        seeds = row_seeds(int(np.random.SeedSequence(
            [section.seed, part.fold, number]).generate_state(1)[0]), len(rows))  # fmt: skip
        drawn: dict[str, np.ndarray] = {}
        for kind, vectors in inputs.items():
            chosen = np.zeros(len(rows), int)
            if prior is not None:
                vectors, chosen = draw_embeddings(
                    prior, vectors, seeds, samples=section.samples, steps=section.draws,
                    guidance=section.prior_guidance,
                )  # fmt: skip
            images = generate_in_batches(
                generator, vectors, seed=seeds, batch=section.batch_size, say=made.notes.append
            )
            drawn[kind] = np.stack([np.asarray(image.convert("RGB")) for image in images])
            if kind == "brain":
                own_rows = own_rows.assign(sample=chosen)
        targets = table.pictures(list(own_rows["stimulus"]), preset.side)
        others = {kind: drawn[kind] for kind in INPUTS if kind != "brain"}
        made.items.append(own_rows)
        made.pools.append(score_pictures(preset, drawn["brain"], targets, networks, others))
        for kind in INPUTS:
            made.pictures[kind].append(drawn[kind])


def _make(section: ReconstructSection, training: TrainingPictures) -> Generator:
    if section.generator == "nearest":
        return NearestPictures(training)
    return EmbeddedGenerator(
        training, steps=section.steps, seed=section.seed, device=section.device
    )


def _inputs(
    section: ReconstructSection, predictions: np.ndarray, training: Statistics, seed: list[int]
) -> dict[str, np.ndarray]:
    """Embeddings of the three kinds of input, for the items of one person."""
    rng = np.random.default_rng(seed)
    brain = renormalise(predictions, training) if section.renormalise else predictions
    return {
        "brain": brain,
        "noise": noise_input(len(brain), training, rng),
        "shuffled": brain[derangement(len(brain), rng)],
    }


def _write(
    section: ReconstructSection, name: str, parts: Sequence[FoldPrediction], preset: Preset,
    made: _Made, out: Path,
) -> None:  # fmt: skip
    metrics = [c.metric for c in preset.comparisons]
    records = measure(
        metrics, made.pools, permutations=section.permutations, bootstrap=section.bootstrap,
        level=section.ci, seed=section.seed,
    )  # fmt: skip
    origin = join_data_origin(*(part.data_origin for part in parts))
    about = {"embedding": name, "decoder": parts[0].decoder, "target": parts[0].target,
             "preset": preset.name, "data_origin": origin}  # fmt: skip
    scores = np.stack(
        [
            [np.concatenate([_scores(pool, kind, m.name) for pool in made.pools])
             for m in metrics]
            for kind in INPUTS
        ]
    )  # fmt: skip
    pictures = np.stack([np.concatenate(made.pictures[kind]) for kind in INPUTS])
    attrs = {
        "kind": "table", "stage": "reconstruct", **about,
        "generators": made.generators,
        "input": "predictions with mean and deviation of the training stimuli"
        if section.renormalise else "predictions as they are",
        "prior": section.prior, "samples": section.samples,
        "chosen_by": "the only one" if section.samples == 1
        else "cosine with the prediction; targets are not looked at",
        # Other pipelines do these things to pictures before they score them.
        "mixing": "none", "contrast": "unchanged", "refiner": "none",
        "metrics": preset.record(),
        "notes": list(dict.fromkeys(made.notes)),
    }  # fmt: skip
    coords = {
        "input": ("input", np.array(INPUTS, object)),
        "metric": ("metric", np.array([m.name for m in metrics], object)),
    }
    table = {"schema_version": SCHEMA_VERSION, "kind": "table"}
    groups = {
        "items": table_to_dataset(pd.concat(made.items, ignore_index=True), "item"),
        "pictures": xr.Dataset(
            {"pictures": (("input", "item", "y", "x", "channel"), pictures)},
            {"input": coords["input"]}, table,
        ),
        "scores": xr.Dataset({"scores": (("input", "metric", "item"), scores)}, coords, table),
    }  # fmt: skip
    records = [{**about, "subject": "all", **record} for record in records]
    write_store(out, groups, attrs=plain(attrs), files={"metrics.json": metrics_json(records)})


def _scores(pool: Pool, kind: str, metric: str) -> np.ndarray:
    return own(pool.scores[metric]) if kind == "brain" else pool.controls[kind][metric]


def fingerprint(section: ReconstructSection) -> dict[str, str]:
    """What decides the result beside the settings: files of networks, versions of libraries."""
    from braindecode_pipe.embed.weights import file_sha256
    from braindecode_pipe.reconstruct.pretrained import find_generator

    parts: dict[str, str] = {}
    folders = {"networks": Path(section.networks)} if section.networks else {}
    if section.generator not in EMBEDDED:
        from importlib import metadata

        try:
            folders["generator"] = find_generator(section.generator)
        except ModelError:
            # The unit itself tells what is missing, and everything else goes on.
            parts["generator"] = "missing"
        for library in ("diffusers", "transformers"):
            try:
                parts[f"version of {library}"] = metadata.version(library)
            except metadata.PackageNotFoundError:
                parts[f"version of {library}"] = "absent"
    for what, folder in folders.items():
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix in (".json", ".safetensors", ".txt"):
                parts[f"{what} {file.relative_to(folder).as_posix()}"] = file_sha256(file)
    return parts
