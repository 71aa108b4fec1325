"""The models by name, and the public function that embeds a list of stimuli."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.embed.concept import MiniLMModel, OneHotModel
from braindecode_pipe.embed.image import EfficientNetLite0Model, PixelsModel
from braindecode_pipe.embed.interface import EmbeddingModel, Item
from braindecode_pipe.embed.pretrained import PretrainedModel
from braindecode_pipe.embed.speech import Clip, LogMelModel
from braindecode_pipe.embed.weights import file_sha256
from braindecode_pipe.errors import ModelError, StimulusError

if TYPE_CHECKING:
    from braindecode_pipe.recipe import EmbedSpec

BUILT_IN: dict[str, type[EmbeddingModel]] = {
    "one-hot": OneHotModel,
    "minilm": MiniLMModel,
    "efficientnet-lite0": EfficientNetLite0Model,
    "pixels": PixelsModel,
    "log-mel": LogMelModel,
}


def build_model(name: str, *, kind: str | None = None, **settings: Any) -> EmbeddingModel:
    """The model called ``name``, ready to encode; no weights are read yet.

    Parameters
    ----------
    name : str
        A name of :data:`BUILT_IN`, a folder of ``transformers``, or a hub id in the local cache.
    kind : "concept" | "image" | "speech", optional
        Only for models that read both pictures and texts.
    **settings
        ``layer``, ``pooling``, ``batch_size`` and what else the model's class takes.

    Raises
    ------
    ModelError
        No such model or setting, or weights that are missing or unsafe.
    """
    make: Any = BUILT_IN.get(name, PretrainedModel)
    known = [p for p in inspect.signature(make).parameters if p not in ("name", "kind")]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ModelError(
            f"{name} has no such setting", expected=", ".join(known), found=", ".join(unknown)
        )
    return make(**settings) if name in BUILT_IN else make(name, kind=kind, **settings)


def model_of(spec: EmbedSpec, kind: str | None = None) -> EmbeddingModel:
    """The model that a table of [embed] asks for."""
    return build_model(spec.model, kind=kind, layer=spec.layer, pooling=spec.pooling)


def model_fingerprint(spec: EmbedSpec, kind: str | None = None) -> dict[str, Any]:
    """What decides the embedding besides the stimuli: model, settings, SHA-256 of the weights.

    Nothing is computed but hashes of files, each once per process; for cache keys.

    Parameters
    ----------
    spec : EmbedSpec
    kind : "concept" | "image" | "speech", optional
        Kind of the stimuli; matters for models that read both pictures and texts.

    Raises
    ------
    ModelError
        The model is missing, is not the pinned one, or is unsafe to load.
    """
    return model_of(spec, kind).fingerprint()


def embed(
    items: Sequence[Any],
    model: str,
    *,
    kind: str | None = None,
    sfreq: float | None = None,
    **settings: Any,
) -> np.ndarray:
    """Embed texts, pictures or sounds.

    Parameters
    ----------
    items : sequence of length n_items
        Texts (str), pictures (paths or PIL images) or sounds (paths, arrays of samples, or
        :class:`~braindecode_pipe.embed.speech.Clip`), as the model reads them.
    model : str
        one-hot | minilm | efficientnet-lite0 | pixels | log-mel | folder or hub id of transformers
    kind : "concept" | "image" | "speech", optional
        Which branch of a model that reads both pictures and texts.
    sfreq : float, optional
        Rate of arrays of samples [Hz].
    **settings
        ``layer``, ``pooling``, ``batch_size``, and what else the model takes.

    Returns
    -------
    (n_items, n_features) float32; (n_items, n_steps, n_features) for ``log-mel`` with ``steps``.

    Raises
    ------
    ModelError
        No such model, setting or layer; weights that are missing or unsafe.
    StimulusError
        An item that is missing, empty or cannot be decoded.
    """
    network = build_model(model, kind=kind, **settings)
    named = [Item(f"item {number}", value) for number, value in enumerate(items)]
    if network.reads == "audio":
        named = [Item(item.name, as_clip(item.value, sfreq)) for item in named]
    return encode_unique(network, named)


def as_clip(value: Any, sfreq: float | None) -> Clip:
    """A path or an array of samples as a :class:`Clip`."""
    if isinstance(value, Clip):
        return value
    if isinstance(value, str | Path):
        return Clip(path=Path(value))
    return Clip(samples=np.asarray(value), sfreq=sfreq)


def encode_unique(model: EmbeddingModel, items: Sequence[Item]) -> np.ndarray:
    """Encode every different stimulus once and give each item its vector.

    Files are compared by content, not by name.

    Raises
    ------
    StimulusError
        No items, or one that is missing or cannot be decoded.
    ModelError
        The model returned NaN or infinity.
    """
    if not items:
        raise StimulusError("nothing to embed", expected="at least one stimulus", found="none")
    position: dict[Any, int] = {}
    unique: list[Item] = []
    rows = []
    for item in items:
        key = _identity(item, model.reads)
        if key not in position:
            position[key] = len(unique)
            unique.append(item)
        rows.append(position[key])
    vectors = np.asarray(model.encode(unique), np.float32)
    finite = np.isfinite(vectors).reshape(len(unique), -1).all(1)
    if not finite.all():
        bad = unique[int(np.argmin(finite))]
        raise ModelError(
            "the model returned NaN or infinity",
            expected="finite features",
            found=f"{int((~finite).sum())} of {len(unique)} stimuli, the first is {bad.name}",
        )
    return vectors[rows]


def _identity(item: Item, reads: str) -> Any:
    value = item.value
    if reads == "text":
        return value
    if isinstance(value, Clip):
        if value.samples is None:
            return _file_identity(item, value.path), value.onset, value.offset
        samples = np.ascontiguousarray(value.samples)
        digest = hashlib.sha256(samples.tobytes()).hexdigest()
        return digest, samples.shape, samples.dtype.str, value.sfreq
    if isinstance(value, str | Path):
        return _file_identity(item, Path(value))
    if hasattr(value, "tobytes") and hasattr(value, "getexif"):
        # The orientation is no part of the pixels.
        turned = value.getexif().get(0x0112)
        return hashlib.sha256(value.tobytes()).hexdigest(), value.mode, value.size, turned
    raise StimulusError(
        f"{item.name} is no {'picture' if reads == 'image' else 'sound'}",
        expected="a path or a PIL image" if reads == "image" else "a path or samples",
        found=type(value).__name__,
    )


def _file_identity(item: Item, path: Path) -> str:
    if not path.is_file():
        raise StimulusError(
            f"{item.name}: the file is missing", file=path, expected="a file", found="nothing"
        )
    return file_sha256(path)
