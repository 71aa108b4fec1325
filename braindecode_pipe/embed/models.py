"""The models by name, and the public function that embeds a list of stimuli."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.embed.acoustic import EnvelopeModel, LogMelModel, Onsets, OnsetsModel
from braindecode_pipe.embed.audio import Clip
from braindecode_pipe.embed.baselines import (
    ColourModel,
    GaborModel,
    HogModel,
    OneHotModel,
    PixelsModel,
)
from braindecode_pipe.embed.interface import EmbeddingModel, Item, Text, TimeAxis
from braindecode_pipe.embed.packaged import EfficientNetLite0Model, MiniLMModel
from braindecode_pipe.embed.pretrained import PretrainedModel
from braindecode_pipe.embed.provenance import verify_reference
from braindecode_pipe.embed.video import VideoModel
from braindecode_pipe.embed.weights import file_sha256
from braindecode_pipe.errors import ModelError, StimulusError

if TYPE_CHECKING:
    from braindecode_pipe.recipe import EmbedSpec

BUILT_IN: dict[str, type[EmbeddingModel]] = {
    "one-hot": OneHotModel,
    "minilm": MiniLMModel,
    "efficientnet-lite0": EfficientNetLite0Model,
    "pixels": PixelsModel,
    "hog": HogModel,
    "gabor": GaborModel,
    "colour": ColourModel,
    "log-mel": LogMelModel,
    "envelope": EnvelopeModel,
    "onsets": OnsetsModel,
}
# Settings of a table of [embed] that go to the model's class where they are not the default.
_SETTINGS = (
    "layer", "pooling", "revision", "weights_sha256", "dtype", "batch_size", "context", "window_s",
    "overlap_s",
)  # fmt: skip


def build_model(name: str, *, kind: str | None = None, **settings: Any) -> EmbeddingModel:
    """The model called ``name``, ready to encode; no weights are read yet.

    Parameters
    ----------
    name : str
        A name of :data:`BUILT_IN`, a folder of ``transformers``, or a hub id in the local cache.
    kind : "concept" | "text" | "image" | "video" | "speech", optional
        "video" passes frames through a model of pictures; else only for models that read both
        pictures and texts.
    **settings
        ``layer``, ``pooling``, ``batch_size``, ``time_axis`` and what else the model's class
        takes; of videos also ``n_frames`` and ``fps``.

    Raises
    ------
    ModelError
        No such model or setting, or weights that are missing or unsafe.
    """
    if kind == "video" and name not in ("one-hot", "minilm", "onsets"):
        own = {k: settings.pop(k) for k in ("n_frames", "fps", "time_axis") if k in settings}
        if settings.get("pooling") == "time":
            settings.pop("pooling")
        return VideoModel(build_model(name, kind="image", **settings), **own)
    make: Any = BUILT_IN.get(name, PretrainedModel)
    known = _parameters(make)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ModelError(
            f"{name} has no such setting", expected=", ".join(known), found=", ".join(unknown)
        )
    return make(**settings) if name in BUILT_IN else make(name, kind=kind, **settings)


def _parameters(make: type) -> list[str]:
    """Names of the settings of a class, its bases' among them where it passes them on."""
    names: dict[str, None] = {}
    for base in make.__mro__:
        own = inspect.signature(base.__init__).parameters if "__init__" in vars(base) else {}
        names |= dict.fromkeys(own)
        if own and not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return [name for name in names if name not in ("self", "name", "kind", "settings")]


def model_of(spec: EmbedSpec, kind: str | None = None) -> EmbeddingModel:
    """The model that a table of [embed] asks for.

    Raises
    ------
    ModelError
        See :func:`build_model`; a time axis, or words of context, that the model cannot use.
    """
    default = type(spec)()
    settings = {k: getattr(spec, k) for k in _SETTINGS if getattr(spec, k) != getattr(default, k)}
    if spec.pooling == "time" or spec.model == "onsets" or (kind == "video" and spec.step_sfreq):
        if spec.step_sfreq is not None and spec.step_tmax is not None:
            settings["time_axis"] = TimeAxis(spec.step_sfreq, spec.step_tmin, spec.step_tmax)
    elif spec.step_sfreq is not None:
        raise ModelError(
            f"the steps of {spec.model} are not asked for", expected='pooling = "time"',
            found=f"step_sfreq = {spec.step_sfreq} with pooling = {spec.pooling!r}",
        )  # fmt: skip
    if kind == "video":
        settings |= {"n_frames": spec.frames, "fps": spec.fps}
    model = build_model(spec.model, kind=kind, **settings)
    if spec.context_words and not (isinstance(model, PretrainedModel) and model.reads == "text"):
        raise ModelError(
            f"{spec.model} reads no words of context", expected="a text model of transformers",
            found=f"context_words = {spec.context_words}",
        )  # fmt: skip
    return model


def model_fingerprint(spec: EmbedSpec, kind: str | None = None) -> dict[str, Any]:
    """What decides the embedding besides the stimuli: model, settings, SHA-256 of the weights.

    Nothing is computed but hashes of files, each once per process; for cache keys.

    Parameters
    ----------
    spec : EmbedSpec
    kind : "concept" | "text" | "image" | "video" | "speech", optional
        Kind of the stimuli; matters for videos and models that read both pictures and texts.

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
    like: str | Path | None = None,
    **settings: Any,
) -> np.ndarray:
    """Embed texts, pictures, sounds or videos.

    Parameters
    ----------
    items : sequence of length n_items
        Texts (str), pictures (paths or PIL images), sounds (paths, arrays of samples, or
        :class:`~braindecode_pipe.embed.audio.Clip`) or videos (paths of animated pictures or
        folders of frames), as the model reads them.
    model : str
        A built-in name (:data:`BUILT_IN`), or a folder or hub id of transformers.
    kind : "concept" | "text" | "image" | "video" | "speech", optional
        Which branch of a model that reads both pictures and texts; "video" for frames.
    sfreq : float, optional
        Rate of arrays of samples [Hz].
    like : path, optional
        An embedding store: the model must still make what it made for it (see
        :func:`~braindecode_pipe.embed.provenance.verify_reference`).
    **settings
        ``layer``, ``pooling``, ``batch_size``, and what else the model takes.

    Returns
    -------
    (n_items, n_features) float32, or (n_items, n_steps, n_features) for patches and time axes.

    Raises
    ------
    ModelError
        No such model, setting or layer; weights that are missing or unsafe; other vectors than
        ``like`` has.
    StimulusError
        An item that is missing, empty or cannot be decoded.
    """
    network = build_model(model, kind=kind, **settings)
    if like is not None:
        verify_reference(like, network)
    named = [Item(f"item {number}", value) for number, value in enumerate(items)]
    if network.reads == "audio":
        named = [Item(item.name, as_clip(item.value, sfreq)) for item in named]
    if not named:
        raise StimulusError("nothing to embed", expected="at least one stimulus", found="none")
    unique, rows = distinct(named, network.reads)
    order = network.order(list(unique.values()))
    ordered = [list(unique.values())[k] for k in order]
    vectors = checked(network.encode(ordered), ordered)
    return vectors[np.argsort(order)][rows]


def as_clip(value: Any, sfreq: float | None) -> Clip:
    """A path or an array of samples as a :class:`Clip`."""
    if isinstance(value, Clip):
        return value
    if isinstance(value, str | Path):
        return Clip(path=Path(value))
    return Clip(samples=np.asarray(value), sfreq=sfreq)


def distinct(items: Sequence[Item], reads: str) -> tuple[dict[str, Item], list[int]]:
    """Different stimuli by the hash of their content, and the position of each item among them."""
    unique: dict[str, Item] = {}
    position: dict[str, int] = {}
    rows = []
    for item in items:
        name = identity(item, reads)
        if name not in position:
            position[name], unique[name] = len(position), item
        rows.append(position[name])
    return unique, rows


def checked(vectors: np.ndarray, items: Sequence[Item]) -> np.ndarray:
    """The vectors as float32; :class:`ModelError` for NaN or infinity, naming the first item."""
    vectors = np.asarray(vectors, np.float32)
    finite = np.isfinite(vectors).reshape(len(items), -1).all(1)
    if not finite.all():
        bad = items[int(np.argmin(finite))]
        raise ModelError(
            "the model returned NaN or infinity",
            expected="finite features",
            found=f"{int((~finite).sum())} of {len(items)} stimuli, the first is {bad.name}",
        )
    return vectors


def identity(item: Item, reads: str) -> str:
    """SHA-256 of what a stimulus holds, and of which piece of it is meant; never of its name.

    Raises
    ------
    StimulusError
        Missing, or no stimulus of this kind.
    """
    return hashlib.sha256(json.dumps(_content(item, reads)).encode()).hexdigest()[:32]


def _content(item: Item, reads: str) -> Any:
    value = item.value
    if reads == "text" or isinstance(value, Text):
        return [value.text, value.context] if isinstance(value, Text) else value
    if isinstance(value, Onsets):
        return asdict(value)
    if isinstance(value, Clip):
        piece = [value.onset, value.offset, value.start, value.stop]
        if value.samples is None:
            return [_file_identity(item, value.path), *piece]
        samples = np.ascontiguousarray(value.samples)
        digest = hashlib.sha256(samples.tobytes()).hexdigest()
        return [digest, samples.shape, samples.dtype.str, value.sfreq, *piece]
    if isinstance(value, str | Path):
        path = Path(value)
        if reads == "video" and path.is_dir():
            return [file_sha256(file) for file in sorted(path.iterdir()) if file.is_file()]
        return _file_identity(item, path)
    if isinstance(value, list) and reads == "video":
        return [_content(Item(item.name, frame), "image") for frame in value]
    if hasattr(value, "tobytes") and hasattr(value, "getexif"):
        # The orientation is no part of the pixels.
        turned = value.getexif().get(0x0112)
        return [hashlib.sha256(value.tobytes()).hexdigest(), value.mode, value.size, turned]
    kinds = {"image": "picture", "video": "video", "onsets": "onset in a file"}
    raise StimulusError(
        f"{item.name} is no {kinds.get(reads, 'sound')}",
        expected="a path or samples" if reads == "audio" else "a path or a PIL image",
        found=type(value).__name__,
    )


def _file_identity(item: Item, path: Path | None) -> str:
    if path is None or not path.is_file():
        raise StimulusError(
            f"{item.name}: the file is missing", file=path, expected="a file", found="nothing"
        )
    return file_sha256(path)
