"""Tiny transformers models, built from a configuration and saved to folders."""

from __future__ import annotations

import logging

import numpy as np
import pytest

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "a", "house", "##s", "in",
         "the"]  # fmt: skip
LAYERS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
          "intermediate_size": 24}  # fmt: skip
VISION = {**LAYERS, "image_size": 32, "patch_size": 8}
TEXT = {**LAYERS, "vocab_size": len(WORDS), "max_position_embeddings": 16}
CONVOLUTIONS = {"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 4),
                "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}  # fmt: skip


@pytest.fixture(scope="session")
def transformers():
    module = pytest.importorskip("transformers")
    module.logging.set_verbosity(logging.ERROR)
    module.logging.disable_progress_bar()
    return module


@pytest.fixture(scope="session")
def tiny(transformers, tmp_path_factory):
    """Folder of tiny models by name, each with random weights of a fixed seed."""
    torch = pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("models")
    vocabulary = root / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")

    def save(name, model, *processors):
        for part in (model, *processors):
            part.save_pretrained(root / name)

    torch.manual_seed(0)
    for name, model, *processors in (
        *_vision(transformers), *_joint(transformers, str(vocabulary)), *_speech(transformers),
        *_text(transformers, str(vocabulary)),
    ):  # fmt: skip
        save(name, model, *processors)
    return root


def _vision(t):
    square = t.ViTImageProcessorPil(size={"height": 32, "width": 32})
    shortest = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    yield "vit", t.ViTModel(t.ViTConfig(**VISION)), square
    yield "dinov2", t.Dinov2Model(t.Dinov2Config(**VISION)), t.BitImageProcessorPil(**shortest)
    registers = t.Dinov2WithRegistersConfig(**VISION, num_register_tokens=4)
    yield "dinov2-registers", t.Dinov2WithRegistersModel(registers), square
    yield "dinov3", t.DINOv3ViTModel(t.DINOv3ViTConfig(**VISION, num_register_tokens=2)), square
    resnet = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1],
                            layer_type="basic")  # fmt: skip
    yield "resnet", t.ResNetModel(resnet), t.ConvNextImageProcessorPil(size={"shortest_edge": 32})


def _joint(t, vocabulary):
    tokenizer = t.BertTokenizer(vocabulary, model_max_length=16)
    clip = t.CLIPConfig(
        text_config={**TEXT, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0},
        vision_config=VISION,
        projection_dim=12,
    )
    shape = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    yield "clip", t.CLIPModel(clip), tokenizer, t.CLIPImageProcessorPil(**shape)
    siglip = t.SiglipConfig(text_config=TEXT, vision_config=VISION)
    side = {"height": 32, "width": 32}
    yield "siglip", t.SiglipModel(siglip), tokenizer, t.SiglipImageProcessorPil(size=side)


def _speech(t):
    # "base" norms groups over time and knows no mask; "large" norms layers.
    base = t.Wav2Vec2Config(**LAYERS, **CONVOLUTIONS, feat_extract_norm="group")
    large = t.Wav2Vec2Config(**LAYERS, **CONVOLUTIONS, feat_extract_norm="layer",
                             do_stable_layer_norm=True)  # fmt: skip
    masked = t.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    yield "wav2vec2", t.Wav2Vec2Model(base), t.Wav2Vec2FeatureExtractor()
    yield "wav2vec2-large", t.Wav2Vec2Model(large), masked
    yield "hubert", t.HubertModel(t.HubertConfig(**LAYERS, **CONVOLUTIONS)), masked
    whisper = t.WhisperConfig(
        vocab_size=60, d_model=16, encoder_layers=3, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=8, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, num_mel_bins=20,
        max_source_positions=100,
    )  # fmt: skip
    heard = t.WhisperFeatureExtractor(feature_size=20, chunk_length=2)
    yield "whisper", t.WhisperModel(whisper), heard


def _text(t, vocabulary):
    tokenizer = t.BertTokenizer(vocabulary, model_max_length=16)
    yield "bert", t.BertModel(t.BertConfig(**TEXT)), tokenizer
    distil = t.DistilBertConfig(vocab_size=len(WORDS), dim=16, n_layers=3, n_heads=2,
                                hidden_dim=24, max_position_embeddings=16)  # fmt: skip
    yield "distilbert", t.DistilBertModel(distil), tokenizer
    gpt = t.GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=3, n_head=2, n_positions=16,
                       bos_token_id=2, eos_token_id=3)  # fmt: skip
    plain = t.PreTrainedTokenizerFast(
        tokenizer_object=_words(), pad_token="[PAD]", unk_token="[UNK]", eos_token="[SEP]",
        model_max_length=16, padding_side="left",
    )  # fmt: skip
    yield "gpt2", t.GPT2LMHeadModel(gpt), plain
    llama = t.LlamaConfig(**TEXT, num_key_value_heads=1, pad_token_id=0, bos_token_id=2,
                          eos_token_id=3)  # fmt: skip
    yield "llama", t.LlamaForCausalLM(llama), plain


def _words():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture(scope="session")
def pictures():
    from PIL import Image

    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(5)]


@pytest.fixture(scope="session")
def waves():
    rng = np.random.default_rng(0)
    return [rng.normal(size=n) for n in (2000, 2700, 2000, 3400, 2700)]
