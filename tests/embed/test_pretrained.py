"""Models of transformers from folders: values, layers, refusals; no network."""

from __future__ import annotations

import json
import shutil
import socket
import sys

import numpy as np
import pytest
from PIL import Image

from braindecode_pipe.embed import embed, model_fingerprint
from braindecode_pipe.errors import ModelError, StimulusError
from braindecode_pipe.recipe import EmbedSpec

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def copy_of(tiny, tmp_path):
    return lambda name: shutil.copytree(tiny / name, tmp_path / name)


def _pictures(n=5):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(n)]


def _waves(n=3):
    rng = np.random.default_rng(0)
    return [rng.normal(size=2000 + 700 * k) for k in range(n)]


TEXTS = ["cat", "a dog", "a house cats", "dogs dogs dogs dogs a cat"]


def test_vit_equals_the_model_itself(tiny, transformers):
    model = transformers.ViTModel.from_pretrained(tiny / "vit").eval()
    processor = transformers.ViTImageProcessorPil.from_pretrained(tiny / "vit")
    with torch.inference_mode():
        pixels = processor(images=_pictures(), return_tensors="pt")["pixel_values"]
        output = model(pixels, output_hidden_states=True)
    folder = str(tiny / "vit")
    close = {"rtol": 1e-5, "atol": 1e-5}
    last, hidden = output.last_hidden_state, output.hidden_states
    np.testing.assert_allclose(embed(_pictures(), folder), last[:, 0], **close)
    mean = embed(_pictures(), folder, pooling="mean")
    np.testing.assert_allclose(mean, last.mean(1), **close)
    second = embed(_pictures(), folder, layer=2)
    np.testing.assert_allclose(second, hidden[2][:, 0], **close)
    both = embed(_pictures(), folder, layer=[1, -1])
    np.testing.assert_allclose(both, (hidden[1][:, 0] + hidden[3][:, 0]) / 2, **close)
    fraction = embed(_pictures(), folder, layer=2 / 3)
    np.testing.assert_array_equal(fraction, second)


def test_convolutional_maps_are_averaged_over_space(tiny):
    folder = str(tiny / "resnet")
    assert embed(_pictures(), folder).shape == (5, 12)
    assert embed(_pictures(), folder, layer=0).shape == (5, 8)
    with pytest.raises(ModelError, match="has no class token"):
        embed(_pictures(), folder, pooling="cls")
    with pytest.raises(ModelError, match=r"cannot be averaged(.|\n)*layer 0: 8 features"):
        embed(_pictures(), folder, layer=[0, 2])


def test_bert_mean_leaves_padding_out(tiny, transformers):
    model = transformers.BertModel.from_pretrained(tiny / "bert").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "bert")
    own = embed(TEXTS, str(tiny / "bert"))
    first = embed(TEXTS, str(tiny / "bert"), pooling="cls", layer=1)
    for text, vector, token in zip(TEXTS, own, first):
        with torch.inference_mode():
            output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        np.testing.assert_allclose(vector, output.last_hidden_state[0].mean(0), atol=1e-5)
        np.testing.assert_allclose(token, output.hidden_states[1][0, 0], atol=1e-5)


def test_long_texts_are_cut(tiny):
    long = embed(["cat " * 100, "cat " * 200], str(tiny / "bert"))
    np.testing.assert_allclose(long[0], long[1], atol=1e-6)


def test_clip_reads_pictures_and_texts_into_one_space(tiny, transformers):
    folder = str(tiny / "clip")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    pixels = processor(images=_pictures(), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        image = model.visual_projection(model.vision_model(pixels).pooler_output)
        state = model.vision_model(pixels, output_hidden_states=True).hidden_states[1]
    own = embed(_pictures(), folder, kind="image")
    np.testing.assert_allclose(own, image, rtol=1e-5, atol=1e-5)
    text = embed(TEXTS, folder, kind="concept")
    assert own.shape[1] == text.shape[1] == 12
    tokens = embed(_pictures(), folder, kind="image", layer=1, pooling="mean")
    np.testing.assert_allclose(tokens, state.mean(1), rtol=1e-5, atol=1e-5)
    assert embed(TEXTS, folder, kind="concept", pooling="mean").shape == (4, 16)


def test_siglip_reads_texts_padded_to_full_length(tiny, transformers):
    model = transformers.SiglipModel.from_pretrained(tiny / "siglip").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "siglip")
    inputs = tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        expected = model.text_model(**inputs).pooler_output
    own = embed(TEXTS[:2], str(tiny / "siglip"), kind="concept")
    np.testing.assert_allclose(own, expected[:2], rtol=1e-5, atol=1e-5)


def test_wav2vec2_normalises_each_sound(tiny, transformers):
    folder = str(tiny / "wav2vec2")
    model = transformers.Wav2Vec2Model.from_pretrained(folder).eval()
    own = embed(_waves(), folder, sfreq=16000)
    for wave, vector in zip(_waves(), own):
        wave = torch.tensor((wave - wave.mean()) / wave.std(), dtype=torch.float32)
        with torch.inference_mode():
            expected = model(wave[None]).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, expected, atol=1e-4)
    louder = embed([7 * wave for wave in _waves()], folder, sfreq=16000)
    np.testing.assert_allclose(louder, own, atol=1e-4)


def test_sounds_shorter_than_a_frame_are_errors(tiny):
    with pytest.raises(StimulusError, match=r"item 1: the sound is too short"):
        embed([_waves()[0], np.ones(9)], str(tiny / "wav2vec2"), sfreq=16000)


@pytest.mark.parametrize("name", ["vit", "resnet", "bert", "clip", "wav2vec2"])
def test_batch_size_changes_nothing(tiny, name):
    items = {"bert": TEXTS, "wav2vec2": _waves()}.get(name, _pictures())
    options = {"kind": "image"} if name == "clip" else {"sfreq": 16000}
    whole = embed(items, str(tiny / name), batch_size=16, **options)
    single = embed(items, str(tiny / name), batch_size=1, **options)
    np.testing.assert_allclose(single, whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


def test_pickled_weights_are_refused(copy_of):
    folder = copy_of("bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no weights that are safe(.|\n)*pytorch_model.bin"):
        embed(TEXTS, str(folder))


def test_incomplete_weights_are_refused(copy_of):
    from safetensors.torch import load_file, save_file

    folder = copy_of("bert")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"incomplete(.|\n)*encoder.layer.1.output.dense.weight"):
        embed(TEXTS, str(folder))


def test_a_missing_pooler_is_no_fault(copy_of, tiny):
    from safetensors.torch import load_file, save_file

    folder = copy_of("vit")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    np.testing.assert_array_equal(
        embed(_pictures(), str(folder)), embed(_pictures(), str(tiny / "vit"))
    )


def test_corrupt_weights_are_refused(copy_of):
    folder = copy_of("bert")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cannot be loaded by AutoModel"):
        embed(TEXTS, str(folder))


def test_code_in_a_models_folder_never_runs(copy_of, tmp_path):
    folder = copy_of("bert")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(ModelError, match="cannot be loaded by AutoConfig"):
        embed(TEXTS, str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["nobody/nothing-here", "minilmm", "bad name!"])
def test_models_that_are_not_here_are_named_without_a_network(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"no model on this machine(.|\n)*fetch model:" + name):
        embed(TEXTS, name)


def test_missing_and_foreign_folders(tmp_path):
    with pytest.raises(ModelError, match="folder of the model is missing"):
        embed(TEXTS, str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"no model of transformers(.|\n)*config.json"):
        embed(TEXTS, str(tmp_path))


def test_settings_that_are_not_there(tiny):
    with pytest.raises(ModelError, match=r"no such setting(.|\n)*found: n_mels"):
        embed(TEXTS, str(tiny / "bert"), n_mels=3)
    with pytest.raises(ModelError, match=r"has no layer 9"):
        embed(TEXTS, str(tiny / "bert"), layer=9)
    with pytest.raises(ModelError, match="no pooling 'max'"):
        embed(TEXTS, str(tiny / "bert"), pooling="max")


def test_fingerprint_follows_content_and_not_the_place(tiny, copy_of):
    folder = copy_of("bert")
    here = model_fingerprint(EmbedSpec(model=str(tiny / "bert")))
    there = model_fingerprint(EmbedSpec(model=str(folder)))
    assert here == there
    assert str(folder) not in json.dumps(there)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert model_fingerprint(EmbedSpec(model=str(folder))) != here


def test_models_in_the_cache_are_found_with_their_revision(tiny, tmp_path, monkeypatch):
    revision = "0123456789abcdef0123456789abcdef01234567"
    root = tmp_path / "models--lab--tiny-bert"
    shutil.copytree(tiny / "bert", root / "snapshots" / revision)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    fingerprint = model_fingerprint(EmbedSpec(model="lab/tiny-bert"))
    assert (fingerprint["model"], fingerprint["revision"]) == ("lab/tiny-bert", revision)
    np.testing.assert_array_equal(embed(TEXTS, "lab/tiny-bert"), embed(TEXTS, str(tiny / "bert")))


def test_without_transformers_the_error_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r'pip install "braindecode-pipe\[transformers\]"'):
        embed(TEXTS, str(tiny / "bert"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"huggingface_hub is not installed"):
        embed(TEXTS, "lab/tiny-bert")


def test_features_that_are_not_finite_are_errors(copy_of):
    from safetensors.torch import load_file, save_file

    folder = copy_of("bert")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][6] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"NaN or infinity(.|\n)*1 of 2 stimuli, .* item 1"):
        embed(["cat", "dog"], str(folder))


def test_models_of_other_inputs_are_refused(transformers, tmp_path):
    config = transformers.ASTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_length=32, num_mel_bins=32,
    )  # fmt: skip
    transformers.ASTModel(config).save_pretrained(tmp_path / "spectrogram")
    with pytest.raises(ModelError, match=r"no model of pictures, texts or raw sound(.|\n)*audio"):
        embed([np.zeros(16000)], str(tmp_path / "spectrogram"), sfreq=16000)
