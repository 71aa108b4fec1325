"""What a recipe says about one thing must agree with what it says about another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from braindecode_pipe.errors import RecipeError
from braindecode_pipe.recipe.lines import Location
from braindecode_pipe.recipe.models import Recipe
from braindecode_pipe.recipe.variants import pieces

Contradiction = tuple[Location, dict[str, str]]


def contradictions(recipe: Recipe) -> Iterator[Contradiction]:
    """Location of each contradiction and the fields of the error that describes it."""
    yield from _names(recipe)
    yield from _references(recipe)
    yield from _split(recipe)
    yield from _zero_shot(recipe)
    yield from _filters(recipe)
    yield from _windows(recipe)
    yield from _tokens(recipe)


def _problem(
    location: Location, message: str, expected: str, found: object, remedy: str | None = None
) -> Contradiction:
    details = {"message": message, "expected": expected, "found": str(found)}
    return location, details if remedy is None else {**details, "remedy": remedy}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none is defined"


def _names(recipe: Recipe) -> Iterator[Contradiction]:
    named = [(("study", "name"), recipe.study.name)]
    named += [(("plan", "stimuli", name), name) for name in recipe.plan.stimuli]
    named += [(("embed", name), name) for name in recipe.embed]
    for location, name in named:
        # They become names of folders and of columns.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            yield _problem(
                location,
                "a name that cannot be the name of a folder",
                "letters, digits, dot, dash and underscore",
                repr(name),
            )
    if "zero_shot" in recipe.embed:
        yield _problem(
            ("embed", "zero_shot"),
            "this name is taken by the zero-shot evaluation",
            "another name for the table",
            "zero_shot",
        )


def _targets(recipe: Recipe) -> list[str]:
    """Names in [plan.stimuli], and those of the files that pieces belong to."""
    stimuli = recipe.plan.stimuli
    return [*stimuli, *(f"{name}_file" for name in stimuli if stimuli[name].file_column)]


def _references(recipe: Recipe) -> Iterator[Contradiction]:
    targets, tables = _targets(recipe), list(recipe.embed)
    if not targets and recipe.split.by == "none":
        return
    if not targets:
        yield _problem(
            ("plan", "stimuli"),
            "no stimuli to decode",
            "at least one [plan.stimuli.<name>]",
            "none",
        )
    elif recipe.split_target() not in targets:
        yield _problem(
            ("split", "target"),
            "the split names a target that [plan.stimuli] lacks",
            _listed(targets),
            recipe.split.target,
        )
    for name in tables:
        if recipe.target_of(name) not in targets:
            yield _problem(
                ("embed", name, "target") if recipe.embed[name].target else ("embed", name),
                f"[embed.{name}] embeds a target that [plan.stimuli] lacks",
                _listed(targets),
                recipe.target_of(name),
                f"write target = ... in [embed.{name}], or add [plan.stimuli.<name>]",
            )
        counted = recipe.embed[name].onsets_of
        if counted and counted not in targets:
            yield _problem(
                ("embed", name, "onsets_of"),
                "onsets are counted of a target that [plan.stimuli] lacks",
                _listed(targets),
                counted,
            )
    for name in recipe.train.embeddings:
        if name not in tables:
            yield _problem(
                ("train", "embeddings"),
                "train.embeddings names a table that [embed] lacks",
                _listed(tables),
                name,
            )


def _split(recipe: Recipe) -> Iterator[Contradiction]:
    split, place = recipe.split, ("split",)
    spec = recipe.plan.stimuli.get(recipe.split_target()) if recipe.plan.stimuli else None
    if split.by == "category" and spec and spec.kind != "concept" and not spec.category_column:
        yield _problem(
            (*place, "by"),
            "a split by category of stimuli without categories",
            f"category_column in [plan.stimuli.{recipe.split_target()}]",
            "none",
        )
    if split.by == "column" and not split.column:
        yield _problem((*place, "by"), "a split by column does not name one", "column", "none")
    for name in ("column", "zero_shot"):
        if split.by != "column" and getattr(split, name) not in ("", "off"):
            yield _problem((*place, name), f"{name} needs given roles", 'by = "column"', split.by)
    if split.by == "column" and split.n_folds:
        yield _problem((*place, "n_folds"), "a column gives one fold", "n_folds = 0", split.n_folds)
    if split.by == "segment":
        if spec is None or not spec.file_column:
            yield _problem(
                (*place, "by"),
                "a split by segment of stimuli that are no pieces of something longer",
                f"file_column and onset_column in [plan.stimuli.{recipe.split_target()}]",
                "none",
            )
        if not split.segment_column and not split.segment_s:
            yield _problem(
                (*place, "by"),
                "a split by segment does not say what a segment is",
                "segment_column, or segment_s > 0, or both",
                "neither",
            )
        if not split.fractions and not split.n_folds:
            yield _problem(
                (*place, "by"),
                "every segment would be a fold of its own",
                "fractions or n_folds",
                "neither",
                "fractions = [0.7, 0.1, 0.2]",
            )
    elif split.segment_column or split.segment_s:
        name = "segment_column" if split.segment_column else "segment_s"
        yield _problem((*place, name), f"{name} needs segments", 'by = "segment"', split.by)
    if split.fractions:
        yield from _fractions(recipe)


def _fractions(recipe: Recipe) -> Iterator[Contradiction]:
    split, place = recipe.split, ("split", "fractions")
    shares = split.fractions
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-9 or not (shares[0] and shares[2]):
        yield _problem(
            place,
            "these are no shares of training, validation and test",
            "three numbers that add up to 1; only validation may be 0",
            shares,
            "fractions = [0.7, 0.1, 0.2]",
        )
    if split.by not in ("segment", "stimulus", "category"):
        yield _problem(
            place,
            "fractions are drawn by what a stimulus holds",
            'by = "segment", "stimulus" or "category"',
            split.by,
            f'n_folds and validation divide a split by = "{split.by}"',
        )
    for name in ("n_folds", "test_folds", "validation"):
        if getattr(split, name):
            yield _problem(
                ("split", name),
                f"{name} beside fractions, which make one fold with a validation part",
                "one of the two",
                getattr(split, name),
            )


def _zero_shot(recipe: Recipe) -> Iterator[Contradiction]:
    section, place = recipe.train.zero_shot, ("train", "zero_shot")
    if section is None:
        return
    if section.target not in recipe.plan.stimuli:
        yield _problem(
            (*place, "target"),
            "zero-shot decoding names a target that [plan.stimuli] lacks",
            _listed(list(recipe.plan.stimuli)),
            section.target,
        )
        return
    if not section.embeddings:
        yield _problem(
            (*place, "embeddings"), "zero-shot decoding without embedding", "at least one", "none"
        )
    for name in section.embeddings:
        if name not in recipe.embed:
            yield _problem(
                (*place, "embeddings"),
                "zero-shot decoding names a table that [embed] lacks",
                _listed(list(recipe.embed)),
                name,
            )
        elif recipe.target_of(name) != section.target:
            yield _problem(
                (*place, "embeddings"),
                f"[embed.{name}] embeds another target",
                section.target,
                recipe.target_of(name),
            )
    categories = section.categories
    if len(set(categories)) < len(categories) or len(categories) < 4:
        yield _problem(
            (*place, "categories"),
            "two categories are left out, so at least two others must remain to be fitted",
            "four or more different categories",
            categories,
        )
    spec = recipe.plan.stimuli[section.target]
    for name in categories:
        if name in spec.drop or (spec.only and name not in spec.only):
            yield _problem(
                (*place, "categories"),
                f"category {name} is excluded by [plan.stimuli.{section.target}]",
                "categories that the plan keeps",
                name,
            )


def _filters(recipe: Recipe) -> Iterator[Contradiction]:
    section, place = recipe.preprocess.emeg, ("preprocess", "emeg")
    for name in ("l_freq", "h_freq"):
        edge = getattr(section, name)
        if edge is not None and edge <= 0:
            yield _problem((*place, name), f"{name} is no frequency", "> 0 Hz, or none", edge)
    if section.maxwell is not None and (section.compensation is not None or section.hfc_order):
        yield _problem(
            (*place, "maxwell"),
            "SSS separates fields of its own accord: it takes the recording as it was measured",
            "maxwell without compensation and hfc_order",
            f"compensation = {section.compensation}, hfc_order = {section.hfc_order}",
        )
    lowest = section.l_freq or 0.0
    highest = math.inf if section.sfreq is None else section.sfreq / 2
    if section.h_freq is not None and section.h_freq <= lowest:
        yield _problem(
            (*place, "h_freq"),
            "the low-pass edge lies below the high-pass edge",
            f"h_freq > l_freq = {lowest:g} Hz",
            f"{section.h_freq:g} Hz",
        )
    if section.h_freq is not None and section.h_freq > highest:
        yield _problem(
            (*place, "h_freq"),
            "the low-pass edge lies above half of the output rate: what is above would fold",
            f"h_freq <= sfreq / 2 = {highest:g} Hz",
            f"{section.h_freq:g} Hz",
            "lower h_freq or raise sfreq",
        )
    for line in section.notch:
        if line <= 0:
            yield _problem((*place, "notch"), "notch holds no frequency", "> 0 Hz", line)


def _windows(recipe: Recipe) -> Iterator[Contradiction]:
    section, place = recipe.train.windows, ("train", "windows")
    if section.tmax is not None and section.tmax <= section.tmin:
        yield _problem(
            (*place, "tmax"),
            "the window ends before it begins",
            f"tmax > tmin = {section.tmin} s",
            f"{section.tmax} s",
        )
    if section.tmax is None and recipe.train.augment.shift_s:
        yield _problem(
            ("train", "augment", "shift_s"),
            "windows that end with their event are not moved in time",
            "[train.windows] tmax [s], so that the split can keep moved windows from tested ones",
            f"shift_s = {recipe.train.augment.shift_s:g} without tmax",
        )
    try:
        pieces(section)
    except RecipeError as error:
        yield _problem(
            (*place, "sliding_s"), error.message, error.expected or "", error.found, error.remedy
        )
    if section.baseline is not None:
        begin, end = section.baseline
        if begin is not None and end is not None and end < begin:
            yield _problem(
                (*place, "baseline"),
                "the baseline ends before it begins",
                "[begin, end] in s, or none for the window's edge",
                list(section.baseline),
            )


def _tokens(recipe: Recipe) -> Iterator[Contradiction]:
    section, train = recipe.tokenize, recipe.train
    if section is not None:
        yield from _token_windows(recipe)
    if train.inputs != "tokens":
        return
    place = ("train", "inputs")
    if section is None:
        yield _problem(
            place,
            "decoders are to read tokens and there are none",
            "a section [tokenize]",
            "none",
            'add [tokenize], or inputs = "signals"',
        )
    elif section.values == "codes":
        yield _problem(
            ("tokenize", "values"),
            "numbers of codes are names, not amounts",
            'values = "vectors" where train.inputs = "tokens"',
            section.values,
        )
    if train.windows.tmax is None:
        yield _problem(
            ("train", "windows"), "windows of tokens need an end", "train.windows.tmax [s]", "none"
        )
    if train.windows.delay == "estimate":
        yield _problem(
            ("train", "windows", "delay"),
            "tokens tell no response delay",
            "a number [s]",
            "estimate",
        )
    if train.zero_shot is not None:
        yield _problem(
            ("train", "zero_shot"),
            "zero-shot decoding reads no tokens",
            'train.inputs = "signals"',
            train.inputs,
        )


def _token_windows(recipe: Recipe) -> Iterator[Contradiction]:
    section, rate = recipe.tokenize, recipe.preprocess.emeg.sfreq
    if section is None:
        return
    exact = section.window_s * section.sfreq
    if abs(exact - section.window) > 1e-6 * exact:
        yield _problem(
            ("tokenize", "window_s"),
            "a window is no whole number of samples",
            f"a multiple of 1 / {section.sfreq:g} s",
            section.window_s,
        )
    if rate is not None and rate < section.sfreq:
        yield _problem(
            ("tokenize", "sfreq"),
            "no recording has this rate after preprocessing",
            f"at most preprocess.emeg.sfreq = {rate:g} Hz",
            f"{section.sfreq:g} Hz",
            f"set preprocess.emeg.sfreq = {section.sfreq:g}",
        )
