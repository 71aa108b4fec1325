"""Weights that are a pickle: refused, or read by torch's weights-only loader when pinned."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest

from braindecode_pipe.embed import embed, model_fingerprint
from braindecode_pipe.errors import ModelError
from braindecode_pipe.recipe import EmbedSpec

torch = pytest.importorskip("torch")

TEXTS = ["cat", "a dog"]


class _Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def pickled(tiny, tmp_path):
    """The tiny BERT with torch weights in place of safetensors, and their hash."""
    from safetensors.torch import load_file

    folder = tmp_path / "bert"
    shutil.copytree(tiny / "bert", folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()

    def write(content=None):
        torch.save(weights if content is None else content, folder / "pytorch_model.bin")
        return hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()

    return folder, write


def test_pinned_weights_give_what_safetensors_give(pickled, tiny):
    folder, write = pickled
    pin = {"pytorch_model.bin": write()}
    found = embed(TEXTS, str(folder), weights_sha256=pin)
    np.testing.assert_array_equal(found, embed(TEXTS, str(tiny / "bert")))
    files = model_fingerprint(EmbedSpec(model=str(folder), weights_sha256=pin))["files"]
    assert files["pytorch_model.bin"] == pin["pytorch_model.bin"]


def test_without_a_pin_or_with_another_they_are_refused(pickled):
    folder, write = pickled
    write()
    with pytest.raises(ModelError, match=r"no weights that are safe(.|\n)*weights_sha256"):
        embed(TEXTS, str(folder))
    with pytest.raises(ModelError, match=r"other weights than the pinned ones"):
        embed(TEXTS, str(folder), weights_sha256={"pytorch_model.bin": "0" * 64})
    with pytest.raises(ModelError, match=r"lacks a file that the recipe pins"):
        embed(TEXTS, str(folder), weights_sha256={"other.bin": "0" * 64})


def test_f26_code_in_pinned_weights_never_runs(pickled, tmp_path):
    folder, write = pickled
    canary = tmp_path / "ran"
    pin = {"pytorch_model.bin": write({"x": _Canary(canary)})}
    with pytest.raises(ModelError, match="weights-only loader refuses"):
        embed(TEXTS, str(folder), weights_sha256=pin)
    assert not canary.exists()


def test_revisions_are_what_the_recipe_asks_for(tiny, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(tiny / "bert", folder)
    with pytest.raises(ModelError, match=r"another revision(.|\n)*does not say its revision"):
        embed(TEXTS, str(folder), revision="abc")
    (folder / "model_source.json").write_text('{"id": "lab/bert", "revision": "abcdef"}')
    fingerprint = model_fingerprint(EmbedSpec(model=str(folder), revision="abc"))
    assert fingerprint["revision"] == "abcdef"
    assert "model_source.json" not in fingerprint["files"]


def test_every_setting_of_a_model_is_in_its_fingerprint(tiny):
    """What the keys of the stage are made of, beside the recipe itself."""
    base = {"model": str(tiny / "wav2vec2")}
    time = {"pooling": "time", "step_sfreq": 10.0, "step_tmax": 1.0}
    changes = [
        {"layer": 1}, {"dtype": "bfloat16"}, {"context": "file"}, {"window_s": 5.0},
        {"overlap_s": 1.0}, {"pooling": "mean"}, time, {**time, "step_sfreq": 20.0},
        {**time, "step_tmin": 0.5}, {**time, "step_tmax": 2.0}, {"model": str(tiny / "hubert")},
    ]  # fmt: skip
    found = [str(model_fingerprint(EmbedSpec(**{**base, **c}), "speech")) for c in [{}, *changes]]
    assert len(set(found)) == len(found)
