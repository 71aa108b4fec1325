"""Blocks that are kept: killed and resumed, shared by studies, checked, refused when damaged."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from braindecode_pipe.embed import blocks as blocks_module
from braindecode_pipe.embed import build_model, embed, run, verify_reference, vision
from braindecode_pipe.embed.cache import VectorCache, read_part, write_part
from braindecode_pipe.embed.provenance import check_reference, differences
from braindecode_pipe.errors import ModelError, StageError
from braindecode_pipe.recipe import EmbedSpec
from braindecode_pipe.store import open_store, read_table, store_attrs, store_hash

pytest.importorskip("torch")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINDECODE_PIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _make_pictures(folder, n, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for k in range(n):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03d}.png")
    return [f"{k:03d}.png" for k in range(n)]


def _table(paths, names=None):
    return pd.DataFrame(
        {"stimulus": names or paths, "kind": "image", "label": paths, "path": paths,
         "onset": np.nan, "offset": np.nan}
    )  # fmt: skip


def _run(folder, table, model, out, **spec):
    run("t", EmbedSpec(model=str(model), **spec), table, folder, out, data_origin="simulated")
    return open_store(out)


@pytest.fixture
def one_thread():
    """Bytes depend on the number of threads, which the stages fix."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def passed(monkeypatch):
    """Number of pictures that went through a network, probes among them."""
    count, original = [], vision._batch

    def counted(model, batch):
        count.append(len(batch))
        return original(model, batch)

    monkeypatch.setattr(vision, "_batch", counted)
    return count


def test_a_killed_run_goes_on_and_gives_equal_bytes(
    tiny, tmp_path, monkeypatch, passed, one_thread
):
    """Real SIGKILL in the middle of 100 pictures, against a run that was left alone."""
    folder = tmp_path / "p"
    names = _make_pictures(folder, 100)
    environment = {**os.environ, "BRAINDECODE_PIPE_CACHE": str(tmp_path / "killed")}
    script = Path(__file__).with_name("kill_embed.py")
    command = [sys.executable, str(script), str(folder), str(tiny / "vit"), "60"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    before = sum(int(n) for n in (folder / "passed.txt").read_text().split())
    assert before >= 60 and not (folder / "out.zarr").exists()
    hashes = []
    for cache in ("killed", "alone"):
        monkeypatch.setenv("BRAINDECODE_PIPE_CACHE", str(tmp_path / cache))
        passed.clear()
        _run(folder, _table(names), tiny / "vit", tmp_path / f"{cache}.zarr", batch_size=8)
        hashes.append(store_hash(tmp_path / f"{cache}.zarr"))
        if cache == "killed":
            # Three probes each time a model is loaded; at most one block of 32 was lost.
            assert 103 + 3 <= before + sum(passed) <= 103 + 3 + 32
            assert sum(passed) < 100
    assert sum(passed) == 103
    assert hashes[0] == hashes[1]
    assert not list((tmp_path / "killed").rglob("*.tmp*"))


def test_nothing_is_computed_twice_for_other_people_and_studies(cache, tiny, tmp_path, passed):
    first = _make_pictures(tmp_path / "one", 5)
    _run(tmp_path / "one", _table(first), tiny / "vit", tmp_path / "a.zarr")
    assert sum(passed) == 3 + 5
    # Another study: two of its three files hold what the first study showed.
    again = _make_pictures(tmp_path / "two", 2)
    other = _make_pictures(tmp_path / "two" / "new", 1, seed=9)
    table = _table([*again, f"new/{other[0]}", again[0]], ["x", "y", "z", "x again"])
    dataset = _run(tmp_path / "two", table, tiny / "vit", tmp_path / "b.zarr")
    assert sum(passed) == 3 + 5 + 3 + 1
    assert dataset.attrs["n_distinct"] == 3
    values = dataset["embedding"].values
    np.testing.assert_array_equal(values[0], values[3])
    np.testing.assert_array_equal(
        values[:2], open_store(tmp_path / "a.zarr")["embedding"].values[:2]
    )
    _run(tmp_path / "two", table, tiny / "vit", tmp_path / "c.zarr")
    assert sum(passed) == 3 + 5 + 3 + 1
    # Another layer is another model.
    _run(tmp_path / "two", table, tiny / "vit", tmp_path / "d.zarr", layer=1)
    assert sum(passed) == 12 + 3 + 3


def test_the_cache_can_be_off_or_elsewhere(tiny, tmp_path, monkeypatch, passed):
    names = _make_pictures(tmp_path / "p", 2)
    monkeypatch.setenv("BRAINDECODE_PIPE_CACHE", "off")
    for out in ("a.zarr", "b.zarr"):
        _run(tmp_path / "p", _table(names), tiny / "vit", tmp_path / out)
    assert sum(passed) == 10
    assert store_hash(tmp_path / "a.zarr") == store_hash(tmp_path / "b.zarr")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("BRAINDECODE_PIPE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(StageError, match=r"cache of embeddings cannot be written(.|\n)*=off"):
        _run(tmp_path / "p", _table(names), tiny / "vit", tmp_path / "c.zarr")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_damaged_files_are_computed_again(cache, tiny, tmp_path, passed, damage):
    names = _make_pictures(tmp_path / "p", 4)
    first = _run(tmp_path / "p", _table(names), tiny / "vit", tmp_path / "a.zarr")
    (file,) = cache.rglob("part-*.vec")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"flip": bytes(content), "cut": bytes(content[:-40]), "empty": b"",
                      "foreign": b"something else"}[damage])  # fmt: skip
    second = _run(tmp_path / "p", _table(names), tiny / "vit", tmp_path / "b.zarr")
    assert sum(passed) == 14
    np.testing.assert_array_equal(first["embedding"].values, second["embedding"].values)


def test_vectors_survive_the_file(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    for kind in (np.float32, np.float16):
        write_part(tmp_path / "a.vec", {"ids": ["a", "b", "c"]}, values.astype(kind))
        header, found = read_part(tmp_path / "a.vec")
        assert header["ids"] == ["a", "b", "c"] and found.dtype == kind
        np.testing.assert_array_equal(found, values.astype(kind))
    cache = VectorCache(tmp_path / "cache")
    cache.write(["p", "q", "r"], values)
    cache.write(["s"], values[:1])
    again = VectorCache(tmp_path / "cache")
    np.testing.assert_array_equal(again.read(["s", "q"]), values[[0, 1]])
    assert "q" in again and "z" not in again


def test_half_precision_is_kept_as_such(cache, tiny, tmp_path):
    names = _make_pictures(tmp_path / "p", 3)
    half = {"dtype": "float16"}
    dataset = _run(tmp_path / "p", _table(names), tiny / "vit", tmp_path / "a.zarr", **half)
    assert dataset.attrs["dtype"] == "float16"
    (file,) = cache.rglob("part-*.vec")
    assert read_part(file)[0]["dtype"] == "<f2"
    expected = embed([tmp_path / "p" / n for n in names], str(tiny / "vit"), dtype="float16")
    np.testing.assert_allclose(dataset["embedding"].values, expected, rtol=2e-3, atol=2e-3)


def test_tables_hold_what_made_them(cache, tiny, tmp_path):
    names = _make_pictures(tmp_path / "p", 3)
    _run(tmp_path / "p", _table(names), tiny / "vit", tmp_path / "a.zarr", layer=[1, 2])
    attrs = store_attrs(tmp_path / "a.zarr")
    assert (attrs["model"], attrs["layer"], attrs["dtype"]) == ("vit", [1, 2], "float32")
    assert {"model.safetensors", "config.json", "preprocessor_config.json"} <= set(attrs["files"])
    assert {"torch", "transformers", "pillow"} <= set(attrs["packages"])
    assert attrs["processor"]["do_normalize"] is True
    reference = open_store(tmp_path / "a.zarr", "reference")
    assert [str(s) for s in reference["stimulus"].values] == ["gradient", "checks", "rings"]
    model = build_model(str(tiny / "vit"), layer=[1, 2])
    expected = model.encode(model.probes())
    np.testing.assert_allclose(reference["embedding"].values, expected, atol=1e-6)
    assert str(tmp_path) not in str(attrs)


def test_the_model_is_checked_whenever_it_is_loaded_for_a_table(cache, tiny, tmp_path, monkeypatch):
    names = _make_pictures(tmp_path / "p", 3)
    _run(tmp_path / "p", _table(names[:2]), tiny / "vit", tmp_path / "a.zarr")
    model = build_model(str(tiny / "vit"))
    verify_reference(tmp_path / "a.zarr", model)
    same = embed([tmp_path / "p" / names[0]], str(tiny / "vit"), like=tmp_path / "a.zarr")
    stored = open_store(tmp_path / "a.zarr")["embedding"].values
    np.testing.assert_allclose(same, stored[:1], atol=1e-6)
    with pytest.raises(ModelError, match=r"no longer makes what it made(.|\n)*layer: None -> 1"):
        verify_reference(tmp_path / "a.zarr", build_model(str(tiny / "vit"), layer=1))
    with pytest.raises(ModelError, match=r"model: vit -> dinov2"):
        embed([tmp_path / "p" / names[0]], str(tiny / "dinov2"), like=tmp_path / "a.zarr")
    # A library that computes something else, as an update might: the next block would not fit.
    original = vision._pool
    monkeypatch.setattr(vision, "_pool", lambda *a: 1.001 * original(*a))
    versions = blocks_module.provenance
    monkeypatch.setattr(
        blocks_module, "provenance",
        lambda m: {**versions(m), "packages": {**versions(m)["packages"], "torch": "99.0"}},
    )  # fmt: skip
    for table in (_table(names), _table(names[:2])):
        with pytest.raises(ModelError, match=r"torch: \S+ -> 99.0(.|\n)*delete that folder"):
            _run(tmp_path / "p", table, tiny / "vit", tmp_path / "b.zarr")
    # An update that changes nothing is none to refuse.
    monkeypatch.setattr(vision, "_pool", original)
    kept = _run(tmp_path / "p", _table(names[:2]), tiny / "vit", tmp_path / "c.zarr")
    np.testing.assert_array_equal(kept["embedding"].values, stored)
    assert kept.attrs["packages"]["torch"] != "99.0"  # what made the vectors, not what is installed


def test_rounding_is_no_drift_and_anything_more_is():
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(3, 50))
    before = {"model": "m", "dtype": "float32"}
    for scale in (1e-13, 1.0, 1e6):
        close = scale * stored * (1 + 1e-6 * rng.normal(size=(3, 50)))
        options = {"where": "table", "remedy": "x"}
        check_reference(scale * stored, close, before, before, **options)
        with pytest.raises(ModelError, match=r"nothing that is recorded"):
            check_reference(scale * stored, scale * (stored + 1e-3), before, before, **options)
    half = {**before, "dtype": "float16"}
    check_reference(stored, stored * 1.01, half, half, **options)
    with pytest.raises(ModelError, match="features per probe"):
        check_reference(stored, stored[:, :3], before, before, **options)
    assert differences({"files": {"a": "1"}, "layer": 2}, {"files": {"a": "2"}, "layer": 2}) == [
        "files.a: 1 -> 2"
    ]


def test_progress_tells_rate_and_end(cache, tiny, tmp_path, caplog):
    names = _make_pictures(tmp_path / "p", 3)
    with caplog.at_level(logging.INFO, logger="braindecode_pipe.embed"):
        _run(tmp_path / "p", _table(names[:2]), tiny / "vit", tmp_path / "a.zarr")
        _run(tmp_path / "p", _table(names), tiny / "vit", tmp_path / "b.zarr")
    assert any("t: 2 of 2 stimuli, " in m and "per second, ends at " in m for m in caplog.messages)
    assert "t: 2 of 3 stimuli were embedded before" in caplog.messages
    assert any(m.startswith("t: 3 of 3 stimuli, ") for m in caplog.messages)


def test_near_duplicates_are_listed(cache, tiny, tmp_path):
    names = _make_pictures(tmp_path / "p", 4)
    with Image.open(tmp_path / "p" / names[0]) as picture:
        picture.save(tmp_path / "p" / "copy.jpg", quality=95, subsampling=0)
    table = _table([*names, "copy.jpg"])
    _run(tmp_path / "p", table, "pixels", tmp_path / "a.zarr")
    pairs = read_table(tmp_path / "a.zarr", "near_duplicates")
    assert pairs[["first", "second"]].to_numpy().tolist() == [["000.png", "copy.jpg"]]
    assert pairs["cosine"].iloc[0] > 0.99 and pairs["centred"].iloc[0] > 0.9
    from braindecode_pipe.embed.duplicates import near_duplicates

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 3))
    found, total = near_duplicates(vectors, [f"s{k}" for k in range(40)], 0.9)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    naive = {(f"s{i}", f"s{j}") for i in range(40) for j in range(i + 1, 40)
             if unit[i] @ unit[j] > 0.9}  # fmt: skip
    assert set(zip(found["first"], found["second"])) == naive and total == len(naive) > 5
    assert (np.diff(found["cosine"]) <= 0).all()


def test_many_vectors_without_a_cache_wait_on_disk(tmp_path, monkeypatch):
    names = _make_pictures(tmp_path / "p", 40)
    _run(tmp_path / "p", _table(names), "pixels", tmp_path / "a.zarr")
    monkeypatch.setattr(blocks_module, "IN_MEMORY_BYTES", 1000)
    made, original = [], blocks_module.tempfile.mkdtemp
    monkeypatch.setattr(
        blocks_module.tempfile, "mkdtemp", lambda **k: made.append(original(**k)) or made[-1]
    )
    _run(tmp_path / "p", _table(names), "pixels", tmp_path / "b.zarr")
    assert store_hash(tmp_path / "a.zarr") == store_hash(tmp_path / "b.zarr")
    assert len(made) == 1 and not Path(made[0]).exists()
