"""The stage tokenize in whole runs: EEG and MEG, folds, leaks, bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from braindecode_pipe import pipeline
from braindecode_pipe.audit import audit
from braindecode_pipe.cli import main
from braindecode_pipe.errors import LeakageError, RecipeError
from braindecode_pipe.pipeline.cache import FileHashes
from braindecode_pipe.pipeline.stages import Stages
from braindecode_pipe.pipeline.tokens import fit_unit, shared_folds
from braindecode_pipe.recipe import parse_recipe
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import (
    list_extra_files,
    list_groups,
    open_signal,
    open_store,
    store_attrs,
    store_hash,
    write_store,
)
from braindecode_pipe.tokenize.stage import fit
from braindecode_pipe.train.folds import check_fits

TOKENS = """
[tokenize]
sfreq = 100.0
window_s = 0.32
epochs = 2
batch_size = 16

[tokenize.network]
width = 16
n_sources = 3
n_heads = 2
n_filters = 4
ratios = [4, 2]
kernel = 3
n_levels = 2
codebook_size = 16
"""
READ = ("train.inputs=tokens", "train.windows.tmax=0.3", "train.windows.sfreq=none")
WORDS = ("cat", "dog", "car", "bus")


def write_meg(folder: Path, run: str, write_events, seed: int) -> None:
    """A run of six magnetometers around a head, 20 words a run, each with a pattern."""
    import mne

    rng = np.random.default_rng(seed)
    place = rng.normal(size=(6, 3))
    place *= 0.11 / np.linalg.norm(place, axis=1, keepdims=True)
    info = mne.create_info([f"MEG{i:04d}" for i in range(6)], 100.0, "mag", verbose="error")
    for channel, where in zip(info["chs"], place):
        channel["loc"][:12] = [*where, *np.eye(3).ravel()]
    data = rng.normal(0, 1e-13, (6, 2200))
    labels = rng.permutation(np.repeat(WORDS, 5))
    pattern = dict(zip(WORDS, np.random.default_rng(7).normal(0, 1e-13, (4, 6))))
    for number, word in enumerate(labels):
        data[:, number * 100 + 50 : number * 100 + 80] += pattern[word][:, None]
    stem = folder / "sub-03" / "meg" / f"sub-03_task-words_run-{run}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    raw = mne.io.RawArray(data, info, verbose="error")
    raw.save(f"{stem}_meg.fif", verbose="error", fmt="double")
    write_events(Path(f"{stem}_events.tsv"), np.arange(20) + 0.5, labels)


@pytest.fixture(scope="module")
def study(tmp_path_factory, make_study, make_recording):
    """One person in EEG, without positions, and one in MEG; nothing run yet."""
    folder = tmp_path_factory.mktemp("tokens")
    data = make_study(folder / "bids", subjects=("01",), runs="12")
    for run in "12":
        write_meg(data, run, make_recording[1], int(run))
    return folder


@pytest.fixture(scope="module")
def read(recipe_text):
    """The recipe of the words with tokens, and overrides."""
    return lambda *overrides: parse_recipe(recipe_text + TOKENS, "tokens.toml", overrides)


@pytest.fixture(scope="module")
def decoded(study, read):
    """A whole run whose decoders read tokens of both devices, pooled over people."""
    recipe = read(*READ, "split.n_folds=2", "split.within_subject=false",
                  'train.decoders=["ridge", "mlp", "conv"]', "train.epochs=1",
                  "train.network.conv.hidden=8", "train.network.conv.n_virtual=4",
                  "train.network.conv.depth=1", "train.network.conv.n_fourier=32",
                  "train.network.mlp.hidden=8", "evaluate.permutations=99")  # fmt: skip
    result = pipeline.run(recipe, study / "bids", study / "out", quiet=True, until="evaluate",
                          ledger=study / "ledger")  # fmt: skip
    assert [(row.unit, row.error) for row in result.failed] == []
    return recipe, result


def of_stage(result, stage="tokenize") -> dict[str, Path]:
    return {row.unit: row.path for row in result.rows if row.stage == stage}


def test_two_devices_become_tokens_that_one_decoder_reads(study, decoded):
    recipe, result = decoded
    units = of_stage(result)
    folds = sorted(name.removeprefix("fit_") for name in units if name.startswith("fit_"))
    assert len(folds) == 2 and len(units) == 2 + 2 * 4
    for fold in folds:
        attrs = store_attrs(units[f"fit_{fold}"])
        assert attrs["data_origin"] == "recorded" and attrs["n_windows"] > 50
        layouts = set()
        for run in "12":
            for unit in (f"sub-01_task-words_run-{run}_eeg", f"sub-03_task-words_run-{run}_meg"):
                signal = open_signal(units[f"{unit}_{fold}"])
                layouts.add(tuple(signal.sensors["sensor"]))
                assert signal.n_events == 20 and set(signal.sensors["kind"]) == {"latent"}
                assert signal.attrs["fit_scope"] == attrs["fit_scope"]
        assert len(layouts) == 1
    assert {name.split("_")[1] for name in of_stage(result, "train")} == {"ridge", "mlp", "conv"}
    assert set(of_stage(result, "evaluate")) == {"word"}
    assert audit(study / "out") == []
    again = pipeline.run(recipe, study / "bids", study / "out", quiet=True, until="evaluate",
                         ledger=study / "ledger")  # fmt: skip
    assert again.up_to_date


def test_every_fold_has_a_tokenizer_that_saw_none_of_its_test_recordings(decoded):
    _, result = decoded
    plan = StudyPlan.load(of_stage(result, "plan")["study"])
    for fold, label in enumerate(plan.folds["fold"]):
        config = json.loads(
            (of_stage(result)[f"fit_{label}"] / "model.json").read_text(encoding="utf-8")
        )
        tested = set(plan.events["recording"].iloc[plan.rows(fold, "test")])
        content = plan.recordings.set_index("recording")["content_hash"]
        assert set(config["seen"]) == {content[n] for n in content.index if n not in tested}


def test_a_tokenizer_that_saw_the_test_is_refused_and_found(study, decoded, read, tmp_path):
    _, result = decoded
    units, plan = of_stage(result), StudyPlan.load(of_stage(result, "plan")["study"])
    one, two = plan.folds["fold"]
    recording = str(plan.events["recording"].iloc[plan.rows(0, "test")[0]])
    # The tokens that the other fold reads come from a tokenizer that saw this one's test.
    wrong = {recording: open_signal(units[f"{recording}_{two}"])}
    window = read(*READ).train.windows
    with pytest.raises(LeakageError, match=f"the tokenizer of {recording} saw items of the test"):
        check_fits(plan, 0, wrong, window)
    check_fits(plan, 0, {recording: open_signal(units[f"{recording}_{one}"])}, window)
    folder = tmp_path / "tokenizer"
    shutil.copytree(units[f"fit_{two}"], folder)
    loaded = read(*READ, "split.n_folds=2", "split.within_subject=false",
                  f"tokenize.folder={folder}")  # fmt: skip
    done = pipeline.run(loaded, study / "bids", tmp_path / "out", quiet=True, until="train",
                        ledger=study / "ledger")  # fmt: skip
    assert not [name for name in of_stage(done) if name.startswith("fit")]
    failed = {row.unit: row.error for row in done.failed}
    # It saw what the first fold tests, and nothing of the second's test.
    assert (
        list(failed) == [f"word_ridge_{one}"]
        and "saw items of the test" in failed[f"word_ridge_{one}"]
    )
    found = [f for f in audit(tmp_path / "out") if f.check == "tokenizer"]
    assert found and {f.fold for f in found} == {one} and found[0].severity == "error"


def test_corrupting_all_that_filters_join_with_the_test_leaves_the_tokenizer_alone(
    make_recording, read, tmp_path
):
    write, write_events = make_recording
    name, sfreq = "sub-01_task-words_eeg", 100.0
    base = tmp_path / "bids" / "sub-01" / "eeg"
    write(base / f"{name}.vhdr", np.random.default_rng(0).normal(0, 10, (4, 9000)), sfreq)
    write_events(base / f"{name.replace('_eeg', '_events')}.tsv", 1 + 0.75 * np.arange(115),
                 ["cat", "dog", "car", "bus", "cow"] * 23)  # fmt: skip
    recipe = read(*READ, "split.by=time", "split.n_folds=4", "split.test_folds=1",
                  "tokenize.epochs=1")  # fmt: skip
    out = tmp_path / "out"
    pipeline.run(recipe, tmp_path / "bids", out, until="preprocess", quiet=True)
    stages = Stages(recipe, tmp_path / "bids", out, FileHashes(tmp_path / "hashes.json"))
    plan = StudyPlan.load(stages.plan().path)
    signals = stages.preprocess(plan)
    (own,) = shared_folds(stages, plan, signals)
    arguments = dict(fit_unit(stages, plan, signals, own).arguments)
    fit(**arguments, out=tmp_path / "before.zarr")

    def spoiled(reach_s: float) -> Path:
        dataset = open_store(signals[name].path).load()
        values = dataset["signal"].values
        for onset in plan.events["onset"].iloc[plan.rows(0, "test")]:
            first, last = round((onset - reach_s) * sfreq), round((onset + 0.32 + reach_s) * sfreq)
            values[:, max(0, first) : last] = 7e-3
        write_store(tmp_path / f"spoiled-{reach_s}.zarr", {"": dataset})
        return tmp_path / f"spoiled-{reach_s}.zarr"

    far = stages.reach(plan.recordings.iloc[0].to_dict())
    assert 1 < far < 3
    for reach_s, same in ((far - 0.01, True), (far + 0.5, False)):
        path = tmp_path / f"after-{same}.zarr"
        fit(**{**arguments, "signals": {name: spoiled(reach_s)}}, out=path)
        assert (store_hash(path) == store_hash(tmp_path / "before.zarr")) == same


def test_without_a_split_everything_is_seen_and_only_codes_are_written(study, read, tmp_path):
    recipe = read("split.by=none", "tokenize.values=codes", 'plan.runs=["1"]')
    result = pipeline.run(recipe, study / "bids", tmp_path / "out", quiet=True)
    assert not result.failed
    units = of_stage(result)
    assert len(units) == 1 + 2 and store_attrs(units["fit_all"])["n_windows"] > 100
    path = units["sub-03_task-words_run-1_meg"]
    assert set(list_groups(path)) == {"", "codes", "errors", "excerpt", "sources", "usage"}
    assert "qc/sub-03_task-words_run-1_meg.html" in list_extra_files(
        of_stage(result, "report")["study"]
    )
    pipeline.clean(tmp_path / "out")
    assert all(path.exists() for path in units.values())


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["tokenize.sfreq=250.0", "preprocess.emeg.sfreq=120.0"], "preprocess.emeg.sfreq = 250"),
        (["tokenize.window_s=0.333"], "whole number of samples"),
        (["train.inputs=tokens"], "tmax"),
        ([*READ, "tokenize.values=codes"], "names, not amounts"),
        ([*READ, "train.windows.delay=estimate"], "no response delay"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(read, overrides, text):
    with pytest.raises(RecipeError, match=text):
        read(*overrides)


def test_bad_input_is_one_error_and_no_traceback(study, recipe_text, tmp_path, capsys):
    recipe = tmp_path / "tokens.toml"
    recipe.write_text(recipe_text + TOKENS)
    given = [str(recipe), "--data", str(study / "bids"), "--out", str(tmp_path / "out"), "-q"]
    assert main(["tokenize", *given, "--set", "tokenize.folder=nowhere"]) == 2
    told = capsys.readouterr()
    assert "no tokenizer in this folder" in told.out + told.err
    assert main(["tokenize", *given, "--set", "tokenize.sfreq=50.0",
                 "--set", "tokenize.window_s=0.64"]) in (1, 2)  # fmt: skip
    told = capsys.readouterr()
    said = " ".join((told.out + told.err).split())
    assert "preprocess.emeg.sfreq = 50" in said and "Traceback" not in said
    recipe.write_text(recipe_text)
    assert main(["tokenize", *given]) == 2
    told = capsys.readouterr()
    assert "the recipe makes no tokens" in told.out + told.err


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_middle_of_a_fit_goes_on_to_the_same_bytes(
    study, recipe_text, tmp_path
):
    recipe = tmp_path / "tokens.toml"
    recipe.write_text(recipe_text + TOKENS.replace("epochs = 2", "epochs = 12"))
    given = [str(recipe), "--data", str(study / "bids"), "--quiet", "--set", "split.by=none",
             "--set", "tokenize.values=codes"]  # fmt: skip
    assert main(["tokenize", *given, "--out", str(tmp_path / "whole")]) == 0
    out, killed = tmp_path / "out", 0
    while killed < 3:
        process = subprocess.Popen(
            [sys.executable, "-m", "braindecode_pipe", "tokenize", *given, "--out", str(out)],
            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        before = {p.name for p in out.glob("tokenize/*/*.fit/*.safetensors")}
        while process.poll() is None and not (
            {p.name for p in out.glob("tokenize/*/*.fit/*.safetensors")} - before
        ):
            time.sleep(0.01)
        assert process.poll() is None, "the fit ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        killed += 1
    assert main(["tokenize", *given, "--out", str(out)]) == 0
    stores = [sorted((tmp_path / name).glob("tokenize/*/*.zarr")) for name in ("whole", "out")]
    assert len(stores[0]) == 1 + 4 and not list(out.glob("tokenize/*/*.fit"))
    for one, two in zip(*stores):
        assert one.relative_to(tmp_path / "whole") == two.relative_to(out)
        assert store_hash(one) == store_hash(two)
