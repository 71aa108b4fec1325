"""Every family of models against a naive forward pass: layers, pooling, batches, reloading."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from braindecode_pipe.embed import build_model, embed
from braindecode_pipe.embed.interface import Item, Text
from braindecode_pipe.embed.models import as_clip
from braindecode_pipe.errors import ModelError

torch = pytest.importorskip("torch")

VISION = ["vit", "dinov2", "dinov2-registers", "dinov3", "clip", "siglip"]
SPEECH = ["wav2vec2", "wav2vec2-large", "hubert", "whisper"]
WRITTEN = ["bert", "distilbert", "gpt2", "llama", "clip", "siglip"]
TEXTS = ["cat", "a dog", "a house cats", "dogs in the house a cat", "the cat in a house"]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PREFIX = {"vit": 1, "dinov2": 1, "dinov2-registers": 5, "dinov3": 3, "clip": 1, "siglip": 0}


def _model(transformers, folder):
    return transformers.AutoModel.from_pretrained(folder).eval()


def _picture_states(transformers, folder, pictures):
    """Hidden states and last state, one picture at a time."""
    model = _model(transformers, folder)
    body = getattr(model, "vision_model", model)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    hidden, last = [], []
    for picture in pictures:
        with torch.inference_mode():
            pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
            output = body(pixels, output_hidden_states=True)
        hidden.append([state[0].numpy() for state in output.hidden_states])
        last.append(output.last_hidden_state[0].numpy())
    return hidden, last


@pytest.mark.parametrize("name", VISION)
def test_pictures_equal_a_naive_pass(name, tiny, transformers, pictures):
    folder, prefix = str(tiny / name), PREFIX[name]
    hidden, last = _picture_states(transformers, folder, pictures)
    own = {"kind": "image"}
    mean = embed(pictures, folder, pooling="mean", **own)
    np.testing.assert_allclose(mean, [state.mean(0) for state in last], **CLOSE)
    patches = embed(pictures, folder, pooling="patches", **own)
    np.testing.assert_allclose(patches, [state[prefix:] for state in last], **CLOSE)
    assert patches.shape == (5, 16, 16)
    several = embed(pictures, folder, layer=[1, 2], pooling="patch_mean", **own)
    expected = [(h[1][prefix:].mean(0) + h[2][prefix:].mean(0)) / 2 for h in hidden]
    np.testing.assert_allclose(several, expected, **CLOSE)
    for layer, number in ((0, 0), (-2, 2), (1 / 3, 1)):
        found = embed(pictures, folder, layer=layer, pooling="mean", **own)
        np.testing.assert_allclose(found, [h[number].mean(0) for h in hidden], **CLOSE)
    if prefix:
        cls = embed(pictures, folder, pooling="cls", **own)
        np.testing.assert_allclose(cls, [state[0] for state in last], **CLOSE)
    else:
        with pytest.raises(ModelError, match="has no class token"):
            embed(pictures, folder, pooling="cls", **own)


def _frames(transformers, folder, wave):
    """Hidden states of one sound, passed alone; Whisper's without the silence it adds."""
    model = _model(transformers, folder)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    given = extractor(wave.astype(np.float32), sampling_rate=16000, return_tensors="pt")
    given.pop("attention_mask", None)
    body = model.get_encoder() if model.config.model_type == "whisper" else model
    with torch.inference_mode():
        output = body(*given.values(), output_hidden_states=True)
    n = -(-len(wave) // 320) if model.config.model_type == "whisper" else None
    states = [state[0, :n].numpy() for state in output.hidden_states]
    return states, output.last_hidden_state[0, :n].numpy()


@pytest.mark.parametrize("name", SPEECH)
def test_sounds_equal_a_naive_pass(name, tiny, transformers, waves):
    folder = str(tiny / name)
    passed = [_frames(transformers, folder, wave) for wave in waves]
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    found = embed(waves, folder, sfreq=16000.0)
    np.testing.assert_allclose(found, [last.mean(0) for _, last in passed], **tolerance)
    several = embed(waves, folder, sfreq=16000.0, layer=[1, 2])
    expected = [(states[1] + states[2]).mean(0) / 2 for states, _ in passed]
    np.testing.assert_allclose(several, expected, **tolerance)


@pytest.mark.parametrize("name", WRITTEN)
def test_texts_equal_a_naive_pass(name, tiny, transformers):
    folder = str(tiny / name)
    model = _model(transformers, folder)
    body = getattr(model, "text_model", model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = {"padding": "max_length", "max_length": 16} if name == "siglip" else {}
    states, masks = [], []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt", **padding)
        given.pop("token_type_ids", None)
        with torch.inference_mode():
            output = body(**given, output_hidden_states=True)
        states.append([s[0].numpy() for s in (*output.hidden_states, output.last_hidden_state)])
        masks.append(given["attention_mask"][0].bool().numpy())
    for layer, number in ((0, 0), (1 / 3, 1), (None, -1)):
        found = embed(TEXTS, folder, layer=layer, pooling="mean")
        expected = [s[number][mask].mean(0) for s, mask in zip(states, masks)]
        np.testing.assert_allclose(found, expected, **CLOSE)
    last = embed(TEXTS, folder, pooling="last")
    if not hasattr(model, "get_text_features"):
        expected = [s[-1][mask][-1] for s, mask in zip(states, masks)]
        np.testing.assert_allclose(last, expected, **CLOSE)
    if name in ("gpt2", "llama"):
        np.testing.assert_array_equal(embed(TEXTS, folder), last)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_words_in_context_equal_a_naive_pass(name, tiny, transformers):
    """Only the word's own tokens are pooled, after everything before it was read."""
    folder = str(tiny / name)
    model = _model(transformers, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    items = [Text("cats", "a dog in the"), Text("house", "the"), Text("dog")]
    found = embed(items, folder, layer=2, pooling="mean")
    for item, vector in zip(items, found):
        given = tokenizer(f"{item.context} {item.text}".strip(), return_tensors="pt")
        pieces = len(tokenizer(item.text, add_special_tokens=False)["input_ids"])
        with torch.inference_mode():
            state = model(**given, output_hidden_states=True).hidden_states[2][0].numpy()
        end = -1 if name == "bert" else None
        own = state[:end][-pieces:]
        np.testing.assert_allclose(vector, own.mean(0), **CLOSE)
    alone = embed([Text("cats"), Text("house")], folder, layer=2, pooling="mean")
    assert np.abs(alone - found[:2]).max() > 1e-3


def test_too_much_context_is_cut_at_its_beginning(tiny):
    folder = str(tiny / "gpt2")
    long = embed([Text("cat", "dog " * 40 + "in the house")], folder)
    longer = embed([Text("cat", "a " * 60 + "dog " * 40 + "in the house")], folder)
    np.testing.assert_allclose(long, longer, **CLOSE)


@pytest.mark.parametrize("name", [*VISION, *SPEECH, "bert", "distilbert", "gpt2", "llama"])
def test_batches_and_padding_change_no_value(name, tiny, pictures, waves):
    texts = [*TEXTS, Text("cat", "a dog in the")]
    items = pictures if name in VISION else waves if name in SPEECH else texts
    model = build_model(str(tiny / name), kind="image")
    items = [Item("i", as_clip(v, 16000.0) if name in SPEECH else v) for v in items]
    together = model.encode(items)
    for size in (1, 2, 3):
        model.batch_size, model.heard = size, {}
        np.testing.assert_allclose(model.encode(items), together, **CLOSE)
    alone = np.concatenate([model.encode([item]) for item in items])
    np.testing.assert_allclose(alone, together, **CLOSE)


@pytest.mark.parametrize("name", [*VISION, *SPEECH, "bert", "distilbert", "gpt2", "llama"])
def test_reloaded_models_give_equal_embeddings(name, tiny, tmp_path, transformers, pictures, waves):
    """Loaded, saved again by the library and loaded from there."""
    folder = tmp_path / "again"
    shutil.copytree(tiny / name, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    transformers.AutoModel.from_pretrained(tiny / name).save_pretrained(folder)
    items = pictures if name in VISION else waves if name in SPEECH else TEXTS
    options = {"sfreq": 16000.0} if name in SPEECH else {"kind": "image"}
    first = embed(items, str(tiny / name), **options)
    np.testing.assert_array_equal(embed(items, str(folder), **options), first)


def test_half_precision_is_another_model_with_close_values(tiny, pictures):
    folder = str(tiny / "vit")
    exact = embed(pictures, folder)
    for dtype in ("bfloat16", "float16"):
        half = embed(pictures, folder, dtype=dtype)
        assert half.dtype == np.float32
        error = np.linalg.norm(half - exact) / np.linalg.norm(exact)
        assert 1e-5 < error < 3e-2


def test_unread_layers_are_left_out(tiny):
    from braindecode_pipe.embed import build_model

    whole = build_model(str(tiny / "vit"))
    first = build_model(str(tiny / "vit"), layer=1)
    size = [sum(p.numel() for p in model.network.parameters()) for model in (whole, first)]
    assert size[1] < size[0]


def test_sentence_encoders_pool_as_they_were_trained(tiny, tmp_path):
    import json

    folder = tmp_path / "sentences"
    shutil.copytree(tiny / "bert", folder)
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_N", "Normalize")]
    (folder / "modules.json").write_text(json.dumps(
        [{"idx": i, "name": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
         for i, path, kind in modules]))  # fmt: skip
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True,
               "pooling_mode_mean_tokens": False}  # fmt: skip
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    cls = embed(TEXTS, str(tiny / "bert"), pooling="cls")
    found = embed(TEXTS, str(folder))
    np.testing.assert_allclose(found, cls / np.linalg.norm(cls, axis=1, keepdims=True), **CLOSE)
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"a part that is not known here(.|\n)*Dense"):
        embed(TEXTS, str(folder))


def test_poolings_of_other_families_are_refused(tiny, pictures, waves):
    with pytest.raises(ModelError, match="no pooling 'last'"):
        embed(pictures, str(tiny / "vit"), pooling="last")
    with pytest.raises(ModelError, match="no pooling 'patches'"):
        embed(TEXTS, str(tiny / "bert"), pooling="patches")
    with pytest.raises(ModelError, match="no pooling 'cls'"):
        embed(waves, str(tiny / "wav2vec2"), pooling="cls", sfreq=16000.0)
    with pytest.raises(ModelError, match="needs a time axis"):
        embed(waves, str(tiny / "wav2vec2"), pooling="time", sfreq=16000.0)
