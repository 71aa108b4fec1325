"""Tiny transformers models, built from a configuration and saved to folders."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(scope="session")
def transformers():
    module = pytest.importorskip("transformers")
    module.logging.set_verbosity(logging.ERROR)
    module.logging.disable_progress_bar()
    return module


@pytest.fixture(scope="session")
def tiny(transformers, tmp_path_factory):
    """Folder of a tiny model by name; every model has random weights of a fixed seed."""
    torch = pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("models")
    layers = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    layers["intermediate_size"] = 24
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "a", "house", "##s"]
    vision = {**layers, "image_size": 32, "patch_size": 8}

    def save(name, model, *processors):
        for part in (model, *processors):
            part.save_pretrained(root / name)

    def bert_tokenizer():
        vocabulary = root / "vocab.txt"
        vocabulary.write_text("\n".join(words) + "\n")
        return transformers.BertTokenizer(str(vocabulary), model_max_length=16)

    torch.manual_seed(0)
    save(
        "vit",
        transformers.ViTModel(transformers.ViTConfig(**vision)),
        transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}),
    )
    save(
        "resnet",
        transformers.ResNetModel(
            transformers.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
            )
        ),
        transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}),
    )
    text = {**layers, "vocab_size": len(words), "max_position_embeddings": 16}
    save("bert", transformers.BertModel(transformers.BertConfig(**text)), bert_tokenizer())
    joint = transformers.CLIPConfig(
        text_config={**text, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0},
        vision_config=vision,
        projection_dim=12,
    )
    save(
        "clip",
        transformers.CLIPModel(joint),
        bert_tokenizer(),
        transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
    )
    siglip = transformers.SiglipConfig(text_config=text, vision_config=vision)
    save("siglip", transformers.SiglipModel(siglip), bert_tokenizer())
    sound = transformers.Wav2Vec2Config(
        **layers,
        conv_dim=(8, 8),
        conv_kernel=(10, 4),
        conv_stride=(5, 4),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    save("wav2vec2", transformers.Wav2Vec2Model(sound), transformers.Wav2Vec2FeatureExtractor())
    return root
