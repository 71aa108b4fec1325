"""F-03: a changed setting changes the keys of exactly the stages that declare it."""

from __future__ import annotations

import os
import shutil
import types
import typing

import pytest
from pydantic import BaseModel

from braindecode_pipe.pipeline import cache
from braindecode_pipe.pipeline.cache import FileHashes
from braindecode_pipe.pipeline.stages import Stages
from braindecode_pipe.pipeline.tokens import encode_units, fit_unit, shared_folds
from braindecode_pipe.pipeline.units import STAGES, slug
from braindecode_pipe.plan import build
from braindecode_pipe.recipe import Recipe

BASE = {
    "embed": {"trial_type": {"model": "minilm"}},
    "train": {"decoders": ["ridge", "conv", "mlp"], "windows": {"tmax": 0.6}},
    # Sections that are off by default are there, so that their fields are tried as well.
    "preprocess": {"emeg": {"ica": {}, "maxwell": {}}},
    "tokenize": {},
    "reconstruct": {},
}
DOWNSTREAM = {
    "plan": set(),
    "preprocess": {"tokenize", "train", "evaluate"},
    "embed": {"train", "evaluate"},
    "tokenize": set(),
    "train": {"evaluate"},
    "evaluate": set(),
    "report": set(),
}
# Values that stay valid for the small data set, where a made-up one would not.
VALUES = {
    "plan.datatypes": ["eeg"], "plan.subjects": ["01"], "plan.tasks": ["words"],
    "plan.runs": ["1", "2"], "plan.files": ["sub-*/eeg/*.vhdr"], "plan.sessions": None,
    "plan.derivatives": None, "plan.columns": {"response": "button"},
    "plan.exclude": [{"recording": "sub-01_task-words_run-1_eeg", "reason": "x"}],
    "plan.event_codes": {"1": "cat"}, "plan.stim_channel": "STI 014",
    "plan.stimuli": {"trial_type": {"column": "trial_type", "drop": ["cat"]}},
    "split.fractions": [0.7, 0.1, 0.2], "split.target": None, "split.purge_s": 3.0,
    "preprocess.bold.t_r": 2.0, "reconstruct.embeddings": ["trial_type"],
    "train.embeddings": None,
    # What else decoders may read has a test of its own.
    "train.inputs": None, "tokenize.kind": None, "tokenize.folder": None,
    "tokenize.network": {"n_levels": 2}, "tokenize.validation": 0.2,
    "train.zero_shot": None, "train.decoders": ["ridge"],
    "train.decoders_of": {"trial_type": ["ridge"]}, "train.windows.tmax": 2.7,
    "train.seeds": 3, "train.windows.sliding_s": 0.2,
    "embed.trial_type.target": None, "embed.trial_type.model": "one-hot",
    # Settings of transformers models, of sounds and videos: tests/embed changes them.
    **{f"embed.trial_type.{name}": None for name in (
        "revision", "weights_sha256", "step_sfreq", "context", "window_s", "overlap_s",
        "context_words", "dtype", "onsets_of",
    )},
    "embed.trial_type.layer": 2, "embed.trial_type.texts": {"cat": "a cat"},
    "train.network": {"mlp": {"hidden": 7}}, "evaluate.ci": 0.9,
    "evaluate.controls": ["noise"], "split.column": None,
    "evaluate.top_k": [2], "evaluate.n_way": [2], "train.alphas": [3.0],
    "train.windows.baseline": [-0.1, 0.0],
    "preprocess.emeg.picks": ["eeg"], "preprocess.emeg.notch": [50.0],
    "preprocess.emeg.rename": {"Cz": "CZ"}, "preprocess.emeg.channel_types": {"Cz": "eog"},
    "preprocess.emeg.repairs": ["unique-names"], "preprocess.emeg.noisy": ["pyprep"],
    "preprocess.emeg.ssp": ["eog"], "preprocess.emeg.reference_channels": ["Cz"],
    "preprocess.emeg.bipolar_pairs": [["Cz", "Pz"]], "preprocess.emeg.ica.find": ["eog"],
    "preprocess.emeg.ica.labels": ["line noise"], "preprocess.emeg.ica.eog_channels": ["Fp1"],
    "preprocess.emeg.ica.threshold": 0.5, "preprocess.emeg.maxwell.st_correlation": 0.5,
    "preprocess.bold.confounds_strategy": ["motion"],
    "preprocess.bold.confounds_options": {"motion": "basic"},
    "preprocess.bold.glm.hrf": "spm", "preprocess.bold.glm.nuisance_events": ["button"],
    "preprocess.bold.glm.fractions": [1.0], "preprocess.emeg.maxwell.origin": [0.0, 0.0, 0.04],
    "preprocess.emeg.reject_amplitude": {"eeg": 1e-4}, "preprocess.bold.confounds": ["csf"],
}  # fmt: skip
# Fields that decide which units there are, or that another stage sees too.
SEES = {
    "plan.exclude": {"plan"},
    "plan.allow_truncated": {"plan", "preprocess"},
    "train.windows.tmin": {"plan", "tokenize", "train"},
    "train.windows.tmax": {"plan", "tokenize", "train"},
    "train.windows.baseline": {"plan", "tokenize", "train"},
    "train.windows.delay": {"plan", "tokenize", "train"},
    "train.augment.shift_s": {"plan", "tokenize", "train"},
    "split.by": {"plan", "evaluate"},
    "train.decoders": set(),
    "train.decoders_of": set(),
    "train.seeds": set(),
    "train.windows.sliding_s": set(),
    "train.windows.sliding_step_s": set(),
    "embed.trial_type.normalize": {"train"},
    "embed.trial_type.components": {"train"},
    "compute.threads": {"preprocess", "embed", "tokenize", "train", "evaluate", "plan"},
}
MORE = {
    "train.seeds": {"conv.s1", "conv.s2", "mlp.s1", "mlp.s2"},
    "train.windows.sliding_s": {
        f"{decoder}.t{piece}" for decoder in ("ridge", "conv", "mlp")
        for piece in ("0to0.2", "0.2to0.4", "0.4to0.6")
    },
}  # fmt: skip
OTHER_DATATYPE = ("preprocess.bold.", "reconstruct.")


def fields(model, prefix=""):
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        path = f"{prefix}{name}"
        if path == "embed":
            yield from fields(value["trial_type"], "embed.trial_type.")
        elif isinstance(value, BaseModel) and type(value).model_fields:
            yield from fields(value, f"{path}.")
        else:
            yield path, field, value


def other_value(path, field, value):
    if path in VALUES:
        return VALUES[path]
    kinds = typing.get_args(field.annotation) if isinstance(
        field.annotation, types.UnionType) else (field.annotation,)  # fmt: skip
    if isinstance(value, bool):
        return not value
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            return next(option for option in typing.get_args(kind) if option != value)
    if isinstance(value, (int, float)):
        return type(value)(value + 1) if not 0 <= value < 1 or isinstance(value, int) else 0.5
    if isinstance(value, str):
        return value + "x"
    return 1.0


ALL = list(fields(Recipe.model_validate(BASE)))


def with_value(path, value):
    content = Recipe.model_validate(BASE).model_dump(mode="json")
    where = content
    *parents, last = path.split(".")
    for parent in parents:
        where = where[parent]
    where[last] = value
    return Recipe.model_validate(content)


def token_units(stages, plan, signals):
    """All units, and those that each fold reads."""
    units, read = [], {}
    for own in shared_folds(stages, plan, signals):
        tokenizer = fit_unit(stages, plan, signals, own)
        encoded = encode_units(stages, plan, signals, own, (tokenizer.path, tokenizer.key))
        units += [tokenizer, *encoded.values()]
        read |= dict.fromkeys(own.folds, encoded)
    return units, read


def keys(recipe, plan, data, out):
    stages = Stages(recipe, data, out, FileHashes(out / "hashes.json"))
    signals = stages.preprocess(plan)
    embeddings = stages.embed(plan)
    tokens, read = {}, None
    if recipe.tokenize is not None:
        tokens, read = token_units(stages, plan, signals)
    read = read if recipe.train.inputs == "tokens" else None
    trained = stages.train(plan, signals, embeddings, read)
    evaluated = stages.evaluate(plan, trained, embeddings)
    return {
        "plan": {"study": stages.plan().key},
        "preprocess": {n: u.key for n, u in signals.items()},
        "embed": {n: u.key for n, u in embeddings.items()},
        "tokenize": {u.name: u.key for u in tokens},
        "train": {n: u.key for n, u in trained.items()},
        "evaluate": {n: u.key for n, u in evaluated.items()},
    }


@pytest.fixture
def base(bids, tmp_path):
    recipe = Recipe.model_validate(BASE)
    plan = build(recipe.plan, recipe.split, bids).plan
    return plan, bids, tmp_path / "out", keys(recipe, plan, bids, tmp_path / "out")


@pytest.mark.parametrize(("path", "field", "value"), ALL, ids=[path for path, _, _ in ALL])
def test_f03_every_field_alters_exactly_the_stages_that_declare_it(path, field, value, base):
    plan, data, out, before = base
    new = other_value(path, field, value)
    if new is None:
        pytest.skip("the small data set has nothing to change this to")
    after = keys(with_value(path, new), plan, data, out)
    section = path.split(".")[0]
    own = SEES.get(path, {section} & set(STAGES) - {"report"})
    if section == "split" and path not in SEES:
        own = {"plan"}
    if path.startswith(OTHER_DATATYPE):
        own = set()  # there is neither fMRI nor a picture here: their settings concern nobody
    expected = set(own).union(*(DOWNSTREAM[stage] for stage in own)) if own else set()
    if path in ("train.decoders", "train.decoders_of"):
        expected = {"evaluate"}  # no decoder's own key; the table of all of them
        assert after["train"].items() <= before["train"].items()
        del after["train"], before["train"]
    if path in ("train.seeds", "train.windows.sliding_s"):
        expected = {"evaluate"}  # more units; those that were there keep their keys
        new = {key[1] for key in after["train"].keys() - before["train"].keys()}
        assert new == MORE[path]
        assert before["train"].items() <= after["train"].items()
        own = list(after["train"].values())
        assert len(set(own)) == len(own)
        del after["train"], before["train"]
    changed = {stage for stage in after if after[stage] != before[stage]}
    assert changed == expected
    if path == "train.seed":
        same = {key for key in before["train"] if after["train"][key] == before["train"][key]}
        assert {key[1] for key in same} == {"ridge"}  # which draws nothing
    if path == "train.network":
        other = {key for key in before["train"] if after["train"][key] == before["train"][key]}
        assert {key[1] for key in other} == {"ridge", "conv"}


def test_a_step_alone_divides_nothing_and_another_one_keeps_common_pieces(base):
    plan, data, out, before = base
    assert keys(with_value("train.windows.sliding_step_s", 0.1), plan, data, out) == before
    content = Recipe.model_validate(BASE).model_dump(mode="json")
    content["train"]["windows"]["sliding_s"] = 0.2
    found = []
    for step in (0.2, 0.1):
        content["train"]["windows"]["sliding_step_s"] = step
        found.append(keys(Recipe.model_validate(content), plan, data, out)["train"])
    assert found[0].items() < found[1].items() and len(found[1]) - len(found[0]) == 2 * 3 * 6


def test_a_stage_that_is_not_asked_for_leaves_no_mark(base):
    plan, data, out, before = base
    without = Recipe.model_validate({k: v for k, v in BASE.items() if k != "reconstruct"})
    assert keys(without, plan, data, out) == before
    assert "reconstruct" not in without.model_dump(mode="json")


def test_f03_moving_and_touching_change_nothing(base, tmp_path):
    plan, data, out, before = base
    moved = tmp_path / "elsewhere"
    shutil.copytree(data, moved)
    for file in moved.rglob("*"):
        os.utime(file, (1, 1))
    assert keys(Recipe.model_validate(BASE), plan, moved, tmp_path / "other") == before


def test_f03_editing_code_or_a_library_changes_its_stages(base, monkeypatch, tmp_path):
    plan, data, out, before = base
    package = tmp_path / "package"
    shutil.copytree(cache.PACKAGE, package)
    monkeypatch.setattr(cache, "PACKAGE", package)
    cache.code_hash.cache_clear()
    recipe = Recipe.model_validate(BASE)
    assert keys(recipe, plan, data, out) == before
    source = package / "preprocess" / "emeg.py"
    source.write_text(source.read_text() + "\n")
    cache.code_hash.cache_clear()
    after = keys(recipe, plan, data, out)
    assert {s for s in after if after[s] != before[s]} == {
        "preprocess", "tokenize", "train", "evaluate",
    }  # fmt: skip
    monkeypatch.undo()
    cache.code_hash.cache_clear()
    monkeypatch.setattr(
        "braindecode_pipe.pipeline.stages.package_version", lambda name: f"{name} 0"
    )
    after = keys(recipe, plan, data, out)
    assert all(after[s] != before[s] for s in after)


def test_tokens_change_no_key_of_another_stage_until_decoders_read_them(base, tmp_path):
    plan, data, out, before = base
    without = keys(with_value("tokenize", None), plan, data, out)
    assert before.pop("tokenize") and without.pop("tokenize") == {}
    assert without == before
    reading = keys(with_value("train.inputs", "tokens"), plan, data, out)
    assert {s for s in before if reading[s] != before[s]} == {"plan", "train", "evaluate"}


def test_units_have_safe_folder_names():
    assert slug("sub-01_run-1") == "sub-01_run-1"
    nasty = slug("../a b/c")
    assert "/" not in nasty and ".." not in nasty and nasty != slug("..-a b-c")
