"""Pretrained networks of the ``transformers`` library: one interface for every family.

What a network reads decides how stimuli come in (:mod:`vision`, :mod:`language`, :mod:`sound`);
which layers are read and how tokens are pooled is the same for all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from braindecode_pipe.embed.acoustic import axis_settings, no_time_axis
from braindecode_pipe.embed.interface import EmbeddingModel, Item, TimeAxis, check_pooling
from braindecode_pipe.embed.layers import average_layers, resolve_layers
from braindecode_pipe.embed.loading import (
    content_hashes,
    find_model,
    load,
    load_network,
    sentence_settings,
    shorten,
)
from braindecode_pipe.errors import ModelError

_MODALITY = {
    "pixel_values": "image", "input_ids": "text", "input_values": "audio",
    "input_features": "audio",
}  # fmt: skip
_POOLING = {
    "image": ("", "cls", "mean", "patch_mean", "patches"),
    "text": ("", "cls", "mean", "last"),
    "audio": ("", "mean", "time"),
}
DTYPES = ("float32", "bfloat16", "float16")


class PretrainedModel(EmbeddingModel):
    """A pretrained vision, text or speech model.

    Parameters
    ----------
    name : str
        Folder written by ``save_pretrained``, or a hub id that is in the local cache.
    kind : "concept" | "text" | "image" | "video" | "speech" | None
        Chooses the branch of models that read both pictures and texts (CLIP): "image" and "video"
        read pictures, all else, None too, reads texts.
    layer : int, float, list of int or None
        Index into the model's hidden states (0 is the input embedding). None is the last hidden
        state after the final norm, or, for models with a joint space such as CLIP, the joint
        embedding (pooling must then be "").
    pooling : str
        Of pictures: "cls" is the first token, "mean" the mean of all tokens, "patch_mean" that of
        the patches alone (without class and register tokens), "patches" keeps each patch as a
        step; convolutional maps are averaged over space. Of texts: "cls", "mean" (without
        padding), "last" (the last token that is no padding). Of sounds: "mean" over time, "time"
        on ``time_axis``. "" is "cls" for pictures where the model has a class token; for texts
        what a sentence encoder was trained with, "last" for causal language models; else "mean".
    batch_size : int
        Stimuli at once; 0: as many as ``BATCH_BYTES`` of intermediate values allow. No value
        depends on it: sounds of different length are never padded.
    dtype : "float32" | "bfloat16" | "float16"
        Of weights and arithmetic. Half precision changes values by about 1 %, and is recorded.
    revision : str
        The revision that the model must be.
    weights_sha256 : mapping
        File of torch weights -> SHA-256, for models without safetensors.
    time_axis : TimeAxis, with pooling "time"
    context : "stimulus" | "file"
        What a speech model hears around a stimulus: nothing, or all of the file that the split
        leaves in one piece.
    window_s, overlap_s : float
        Sounds longer than ``window_s`` [s] are passed in windows that share ``overlap_s``.
    """

    packages: ClassVar[tuple[str, ...]] = (
        "numpy", "scipy", "torch", "transformers", "tokenizers", "safetensors", "pillow",
    )  # fmt: skip
    cached = True

    def __init__(
        self,
        name: str,
        *,
        kind: str | None = None,
        layer: Any = None,
        pooling: str = "",
        batch_size: int = 0,
        dtype: str = "float32",
        revision: str = "",
        weights_sha256: Mapping[str, str] | None = None,
        time_axis: TimeAxis | None = None,
        context: str = "stimulus",
        window_s: float = 20.0,
        overlap_s: float = 4.0,
    ) -> None:
        check_pooling(pooling, tuple(dict.fromkeys(sum(_POOLING.values(), ()))), name)
        if dtype not in DTYPES or context not in ("stimulus", "file"):
            raise ModelError(
                f"settings of {name}", expected=f"dtype {' | '.join(DTYPES)}; context stimulus | "
                "file", found=f"{dtype}; {context}",
            )  # fmt: skip
        if not 0 <= overlap_s < window_s:
            raise ModelError(
                f"windows of {name}", expected="0 <= overlap_s < window_s",
                found=f"overlap_s = {overlap_s}, window_s = {window_s}",
            )  # fmt: skip
        self.name, self.kind, self.batch_size, self.dtype = name, kind, batch_size, dtype
        self.layer, self.axis, self.context = layer, time_axis, context
        self.window_s, self.overlap_s = window_s, overlap_s
        self.pinned = dict(weights_sha256 or {})
        self.folder, self.revision = find_model(name, revision, self.pinned)
        self.pooling = pooling
        self.heard: dict[Any, Any] = {}

    def fingerprint(self) -> dict[str, Any]:
        check_pooling(self.pooling, _POOLING[self.reads], self.name)
        own: dict[str, Any] = {
            # A path would tell equal folders at two places apart, the hashes do not.
            "model": self.folder.name if Path(self.name).is_dir() else self.name,
            "revision": self.revision,
            "files": content_hashes(self.folder, self.pinned),
            "layer": self.layer,
            "pooling": self.pooling,
            "reads": self.reads,
            "dtype": self.dtype,
            "processor": self._processor_settings(),
        }
        if self.reads == "audio":
            own["processor"] |= {
                "context": self.context, "window_s": self.window_s, "overlap_s": self.overlap_s,
            }  # fmt: skip
        if self.pooling == "time":
            own["time_axis"] = axis_settings(self.axis)
        return own

    def _processor_settings(self) -> dict[str, Any]:
        file = self.folder / ("tokenizer_config.json" if self.reads == "text"
                              else "preprocessor_config.json")  # fmt: skip
        if not file.is_file():
            return {}
        found = json.loads(file.read_text(encoding="utf-8"))
        return {k: v for k, v in found.items() if isinstance(v, bool | int | float | str | list)}

    @cached_property
    def config(self) -> Any:
        """The model's configuration."""
        from transformers import AutoConfig

        return load(AutoConfig, self.folder, self.name)

    @cached_property
    def network_class(self) -> Any:
        """Class of the network, or None where AutoModel knows none for this configuration."""
        from transformers import MODEL_MAPPING

        known = MODEL_MAPPING.get(type(self.config), None)
        return known[0] if isinstance(known, tuple) else known

    @cached_property
    def is_joint(self) -> bool:
        """Whether the model embeds pictures and texts into one space."""
        methods = ("get_image_features", "get_text_features")
        return all(hasattr(self.network_class, method) for method in methods)

    @cached_property
    def is_causal(self) -> bool:
        """Whether the model predicts the next token and reads from left to right only."""
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

        kind = type(self.config)
        return kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING

    @cached_property
    def reads(self) -> str:
        """What the model is given: "text", "image" or "audio"."""
        if self.is_joint:
            return "image" if self.kind in ("image", "video") else "text"
        modality = _MODALITY.get(getattr(self.network_class, "main_input_name", ""))
        if modality is None or (modality == "audio" and not self._is_speech()):
            raise ModelError(
                f"{self.name} is no model of pictures, texts or raw sound",
                expected="a model that reads pixel_values | input_ids | input_values of raw sound "
                "| input_features of Whisper",
                found=f"model_type {self.config.model_type!r}",
            )
        return modality

    def _is_speech(self) -> bool:
        return hasattr(self.config, "conv_stride") or self.config.model_type == "whisper"

    @property
    def is_own_head(self) -> bool:
        """Whether the model's joint embedding is asked for."""
        return self.is_joint and self.layer is None and not self.pooling

    @cached_property
    def sentences(self) -> dict[str, Any]:
        """What a sentence encoder does with the last layer, unless the recipe says otherwise."""
        return {} if self.pooling or self.layer is not None else sentence_settings(self.folder)

    @cached_property
    def network(self) -> Any:
        """The network with its weights; layers that are never read are left out."""
        import torch

        model = load_network(self.folder, self.name, self.pinned)
        if self.layer is not None:
            body = self.body_of(model)
            depth = getattr(body.config, "num_hidden_layers", 0)
            if isinstance(depth, int) and depth > 0:
                shorten(body, max(resolve_layers(self.layer, depth, self.name)))
        return model.to(getattr(torch, self.dtype))

    def body_of(self, model: Any) -> Any:
        """The part of a network whose hidden states are read."""
        if self.is_joint and not self.is_own_head:
            return model.vision_model if self.reads == "image" else model.text_model
        return model.get_encoder() if getattr(self.config, "is_encoder_decoder", False) else model

    @cached_property
    def processor(self) -> Any:
        """Tokenizer, image processor or feature extractor of the model."""
        import transformers

        if self.reads == "text":
            tokenizer = load(transformers.AutoTokenizer, self.folder, self.name)
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
            # To the right, so that the position of a token is its number in every model.
            tokenizer.padding_side = "right"
            return tokenizer
        if self.reads == "audio":
            return load(transformers.AutoFeatureExtractor, self.folder, self.name)
        # The Pillow processors give the same values with and without torchvision.
        modern = int(transformers.__version__.split(".")[0]) >= 5
        backend = {"backend": "pil"} if modern else {"use_fast": False}
        return load(transformers.AutoImageProcessor, self.folder, self.name, **backend)

    def step_times(self, n_steps: int) -> np.ndarray:
        timed = self.pooling == "time" and self.axis is not None
        return self.axis.times if timed else super().step_times(n_steps)

    def order(self, items: Sequence[Item]) -> list[int]:
        from braindecode_pipe.embed import language, sound

        if self.reads == "image":
            return super().order(items)
        return (language if self.reads == "text" else sound).order(items)

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        import torch

        from braindecode_pipe.embed import language, sound, vision

        check_pooling(self.pooling, _POOLING[self.reads], self.name)
        if self.pooling == "time" and self.axis is None:
            raise no_time_axis(self.name)
        room = {"image": vision, "text": language, "audio": sound}[self.reads]
        with torch.inference_mode():
            return room.encode(self, items)

    def states(self, inputs: Mapping[str, Any]) -> dict[int, Any]:
        """Layer -> hidden state of one batch; key -1 is the last one after the final norm."""
        import torch

        dtype = getattr(torch, self.dtype)
        given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        body = self.body_of(self.network)
        if self.layer is None:
            return {-1: body(**given).last_hidden_state.float()}
        found = body(**given, output_hidden_states=True).hidden_states
        depth = getattr(body.config, "num_hidden_layers", None) or len(found) - 1
        if len(found) - 1 > depth or not isinstance(depth, int):
            depth = len(found) - 1
        return {k: found[k].float() for k in resolve_layers(self.layer, depth, self.name)}

    def average(self, pooled: Mapping[int, Any]) -> Any:
        """Mean of the layers that were read."""
        return average_layers(pooled, list(pooled), self.name)
