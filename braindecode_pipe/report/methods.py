"""Sections 10 and 11: the methods paragraph with its references, and where everything is from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from braindecode_pipe.evaluate.protocols import protocol_of
from braindecode_pipe.recipe import Network, Recipe
from braindecode_pipe.recipe.text import toml_key, toml_value
from braindecode_pipe.report import wording
from braindecode_pipe.report.data import licence_texts
from braindecode_pipe.report.document import (
    Block,
    Code,
    Column,
    Heading,
    Items,
    Section,
    Table,
    Text,
    attempt,
)
from braindecode_pipe.report.gallery import Shelf
from braindecode_pipe.report.methods_steps import say_preprocess
from braindecode_pipe.report.references import REFERENCES, Cited
from braindecode_pipe.report.study import Study
from braindecode_pipe.store import store_hash

DECODERS = {
    "ridge": ("ridge regression", ("Dupré la Tour 2022",)),
    "logistic": ("multinomial logistic regression", ()),
    "mlp": ("a multilayer perceptron", ()),
    "mixer": ("a residual perceptron behind a linear layer for each person", ("Scotti 2024",)),
    "conv": (
        "a convolutional network with spatial attention over sensor positions",
        ("Défossez 2023",),
    ),
    "conv-image": (
        "a convolutional network with spatial attention and temporal aggregation",
        ("Benchetrit 2024", "Défossez 2023"),
    ),
    "nice": ("the temporal-spatial convolutions of NICE", ("Song 2024",)),
    "atm": ("the channel-wise transformer ATM", ("Li 2024",)),
    "eegnet": ("EEGNet", ("Lawhern 2018",)),
}
LOSSES = {
    "clip": ("a contrastive loss", ("Défossez 2023", "Radford 2021")),
    "clip-symmetric": ("a symmetric contrastive loss", ("Radford 2021",)),
    "siglip": ("a pairwise sigmoid loss", ("Zhai 2023",)),
    "mse": ("squared error", ()),
    "cosine": ("cosine distance", ()),
    "mse-cosine": ("squared error less a tenth of the cosine", ()),
    "clip+mse": ("a contrastive loss beside squared error", ("Benchetrit 2024", "Radford 2021")),
    "mixco+softclip": ("BiMixCo, then SoftCLIP", ("Scotti 2024",)),
}


def methods_section(study: Study) -> Section:
    """A paragraph that can go into a paper: what ran, by the stores and the resolved recipe."""
    return Section("methods", "Methods", tuple(attempt("methods", _methods, study)))


def _methods(study: Study) -> Iterator[Block]:
    cited = Cited()
    recipe = Recipe.model_validate(study.recipe)
    say_preprocess(cited, study)
    _say_embed(cited, recipe, study)
    _say_train(cited, recipe)
    _say_evaluate(cited, recipe)
    yield Text(" ".join(cited.sentences))
    citation = recipe.study.citation
    references = ([citation] if citation else []) + [REFERENCES[key] for key in sorted(cited.keys)]
    references += [str(r) for r in study.plan_attrs.get("dataset_references") or []]
    yield Heading("References")
    yield Items(tuple(references))


def _say_embed(cited: Cited, recipe: Recipe, study: Study) -> None:
    known = {
        "one-hot": ("indicator vectors of their labels", ()),
        "minilm": ("all-MiniLM-L6-v2 embeddings of their names", ("Reimers 2019", "Wang 2020")),
        "efficientnet-lite0": ("EfficientNet-Lite0 features", ("Tan 2019",)),
        "log-mel": ("log-mel spectrogram summaries", ()),
        "pixels": ("grey pixel values", ()),
    }
    for name in study.inputs.embeddings:
        spec = recipe.embed.get(name)
        if spec is None:
            continue
        what, keys = known.get(spec.model, (f"embeddings of the model {spec.model}", ()))
        target = spec.target or name
        cited.say(f"Stimuli of “{target}” were represented by {what} (“{name}”).", *keys)


def _say_train(cited: Cited, recipe: Recipe) -> None:
    train, split, window = recipe.train, recipe.split, recipe.train.windows
    if not train.decoders:
        return
    stop = "the end of the event" if window.tmax is None else f"{window.tmax:g} s"
    lag = ", after a response delay estimated on training runs from stimulus versus rest"
    if window.delay != "estimate":
        lag = f", after a response delay of {window.delay:g} s" if window.delay else ""
    mean = ", averaged over time" if window.reduce == "mean" else ""
    cited.say(f"Windows ran from {window.tmin:g} s to {stop} relative to event onset{lag}{mean}.")
    for decoder in train.decoders:
        what, keys = DECODERS[decoder]
        if decoder in get_args(Network):
            how, more = LOSSES[train.loss]
            what, keys = f"{what}, trained with {how}", tuple(dict.fromkeys((*keys, *more)))
        cited.say(f"Embeddings were predicted from the windows by {what}.", *keys)
    if window.repeats == "average":
        cited.say("Windows of one stimulus were averaged within each person, in training and test "
                  "apart.")  # fmt: skip
    placed = set(get_args(Network)) - {"mlp", "mixer"}
    if train.layout == "space" and placed & set(train.decoders):
        cited.say("Networks saw the positions of sensors in three dimensions.")
    if train.seeds > 1 and {*train.decoders} - {"ridge", "logistic"}:
        cited.say(f"Networks were trained with {train.seeds} seeds, each of which is reported.")
    if window.sliding_s:
        step = window.sliding_step_s or window.sliding_s
        text = (
            "For the course over time each decoder was also fitted to pieces of "
            f"{window.sliding_s:g} s, {step:g} s apart"
        )
        tested = recipe.evaluate.permutations > 0
        text += "; the best piece of each permutation was the null of the whole curve" * tested
        cited.say(f"{text}.", *(("Nichols 2002",) if tested else ()))
    if {"ridge", "logistic"} & set(train.decoders):
        cited.say("Weights of linear decoders are shown as the patterns they imply.", "Haufe 2014")
    folds = f"{split.n_folds}-fold" if split.n_folds else f"leave-one-{split.by}-out"
    if split.fractions:
        folds = "shares of training, validation and test " + ", ".join(
            f"{100 * share:g} %" for share in split.fractions
        )  # fmt: skip
    within = "within each person" if split.within_subject else "over all people"
    cited.say(
        f"Test data were held out by {split.by} ({folds}, {within}), fixed before anything was "
        "fitted; every fit saw training data only."
    )
    if train.select:
        cited.say("The decoder was chosen in every fold by cross-validation inside its training "
                  "data.")  # fmt: skip


def _say_evaluate(cited: Cited, recipe: Recipe) -> None:
    part = recipe.evaluate
    protocol = protocol_of(part)
    pool = {
        "test": "the stimuli of the test fold",
        "all": "all stimuli of the study",
        "prototypes": "classes, each the mean over its stimuli that were not tested,",
        "frequent": f"the {protocol.n_frequent} stimuli that the test fold shows most often",
    }[protocol.candidates]
    asked = {
        "none": "Predicted embeddings of single trials",
        "repetitions": "Predicted embeddings, averaged over the repetitions of a stimulus,",
        "subjects": "Predicted embeddings, averaged over repetitions and people,",
    }[protocol.aggregate]
    cited.say(
        f"{asked} were compared with those of {pool} by cosine similarity; candidates were free "
        "of duplicates and ties counted half."
    )
    if part.bootstrap:
        cited.say(
            f"Intervals of {100 * part.ci:g} % are percentiles of {part.bootstrap} bootstrap "
            f"samples over {wording.plural(part.bootstrap_unit)}."
        )
    if part.permutations:
        cited.say(
            f"p-values come from {part.permutations} permutations of the true stimuli of the test "
            "items with predictions held fixed.",
            "Ojala 2010",
        )


def provenance_section(study: Study, shelf: Shelf) -> Section:
    """Recipe, versions, hashes of all stores used, licences."""
    blocks: list[Block] = []
    blocks += attempt("licences", _licences, study, shelf)
    blocks += attempt("hashes", _hashes, study)
    versions = tuple((str(k), str(v)) for k, v in sorted(study.inputs.versions.items()))
    blocks.append(Table("Versions", (Column("Package"), Column("Version")), versions))
    blocks += attempt("recipe", lambda: Code("Resolved recipe", toml(study.recipe)))
    return Section("provenance", "Provenance", tuple(blocks))


def _licences(study: Study, shelf: Shelf) -> Iterator[Block]:
    yield Heading("Licences")
    recipe, attrs = study.section("study"), {}
    if study.inputs.plan.exists():
        attrs = study.plan_attrs
    found = []
    if attrs.get("dataset_license"):
        found.append(f"Data set {attrs.get('dataset_name', '')}: {attrs['dataset_license']}")
    if recipe.get("license"):
        found.append(f"Study: {recipe['license']}")
    found += [f"{file}: {text}" for file, text in licence_texts(study.inputs.data)]
    yield Items(tuple(found)) if found else Text("The data state no licence.", "warning")
    if shelf.pictures:
        n = wording.count(len(shelf.pictures), "picture")
        yield Text(f"{n} of the data set are shown above, reduced in size.", "note")
    if shelf.sounds:
        n = wording.count(len(shelf.sounds), "sound")
        yield Text(f"Of {n} of the data set a short piece plays above.", "note")


def _hashes(study: Study) -> Table:
    inputs = study.inputs
    stores = [("plan", inputs.plan)]
    stores += [(f"preprocess: {n}", p) for n, p in inputs.signals.items()]
    stores += [(f"embed: {n}", p) for n, p in inputs.embeddings.items()]
    stores += [(f"evaluate: {n}", p) for n, p in inputs.evaluations.items()]
    for name, paths in inputs.predictions.items():
        stores += [(f"train: {name} ({i + 1})", p) for i, p in enumerate(paths)]
    rows = tuple((name, Path(p).stem, store_hash(p)[:16]) for name, p in stores)
    columns = (Column("Store"), Column("Key"), Column("Content (SHA-256)"))
    caption = f"The {len(rows)} stores that this report was made from"
    return Table(caption, columns, rows, folded=True)


def toml(recipe: dict[str, Any]) -> str:
    """A resolved recipe as TOML without comments."""
    lines: list[str] = []

    def walk(part: dict[str, Any], path: tuple[str, ...]) -> None:
        plain = {k: v for k, v in part.items() if not isinstance(v, dict) and v is not None}
        if path and plain:
            lines.append(f"\n[{'.'.join(map(toml_key, path))}]")
        lines.extend(f"{toml_key(k)} = {toml_value(v)}" for k, v in plain.items())
        for name, value in part.items():
            if isinstance(value, dict):
                walk(value, (*path, name))

    walk(recipe, ())
    return "\n".join(lines).strip() + "\n"
