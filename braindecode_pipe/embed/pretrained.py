"""Models of the ``transformers`` library, from a folder or from its cache; never from the network.

Only safetensors are read, no code of a model's repository runs, and a model that is not on this
machine is an error that names the command that fetches it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from braindecode_pipe.embed.interface import (
    EmbeddingModel,
    Item,
    batches,
    check_pooling,
    text_of,
)
from braindecode_pipe.embed.layers import average_layers, resolve_layers
from braindecode_pipe.embed.weights import file_sha256
from braindecode_pipe.errors import ModelError, StimulusError

_MODALITY = {"pixel_values": "image", "input_ids": "text", "input_values": "audio"}
_BUILT_IN = "one-hot | minilm | efficientnet-lite0 | pixels | log-mel"
_CONTENT = (".json", ".txt", ".model", ".safetensors")
# Heads that embeddings never pass through, and a vector used in training only.
_UNUSED = ("pooler.", "masked_spec_embed")


class PretrainedModel(EmbeddingModel):
    """A pretrained vision, text or speech model.

    Parameters
    ----------
    name : str
        Folder written by ``save_pretrained``, or a hub id that is in the local cache.
    kind : "concept" | "image" | "speech" | None
        Chooses the branch of models that read both pictures and texts (CLIP): "image" reads
        pictures, all else, None too, reads texts.
    layer : int, float, list of int or None
        Index into the model's hidden states (0 is the input embedding). None is the last hidden
        state after the final norm, or, for models with a joint space such as CLIP, the joint
        embedding (pooling must then be "").
    pooling : "" | "cls" | "mean"
        "cls" is the first token, "mean" the mean of all tokens (of a text: without padding; of
        convolutional maps: over space). "" is "cls" for pictures where the model has a class
        token, else "mean".
    batch_size : int
        Pictures or texts at once. Sounds are always passed one by one: padding would change them.
    """

    packages: ClassVar[tuple[str, ...]] = ("numpy", "torch", "transformers", "safetensors")

    def __init__(
        self,
        name: str,
        *,
        kind: str | None = None,
        layer: Any = None,
        pooling: str = "",
        batch_size: int = 16,
    ) -> None:
        check_pooling(pooling, ("", "cls", "mean"), name)
        self.name, self.kind, self.batch_size = name, kind, batch_size
        self.layer, self.pooling = layer, pooling
        self.folder, self.revision = find_model(name)

    def fingerprint(self) -> dict[str, Any]:
        return {
            # A path would tell equal folders at two places apart, the hashes do not.
            "model": self.folder.name if Path(self.name).is_dir() else self.name,
            "revision": self.revision,
            "files": {
                file.name: file_sha256(file)
                for file in sorted(self.folder.iterdir())
                if file.suffix in _CONTENT
            },
            "layer": self.layer,
            "pooling": self.pooling,
            "reads": self.reads,
        }

    @cached_property
    def config(self) -> Any:
        from transformers import AutoConfig

        return self._load(AutoConfig)

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
    def reads(self) -> str:
        """What the model is given: "text", "image" or "audio"."""
        if self.is_joint:
            return "image" if self.kind == "image" else "text"
        modality = _MODALITY.get(getattr(self.network_class, "main_input_name", ""))
        if modality is None:
            raise ModelError(
                f"{self.name} is no model of pictures, texts or raw sound",
                expected="a model that reads " + " | ".join(_MODALITY),
                found=f"model_type {self.config.model_type!r}",
            )
        return modality

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        import torch

        model = self._model()
        one = {"image": self._images, "text": self._texts, "audio": self._sounds}[self.reads]
        size = 1 if self.reads == "audio" else self.batch_size
        processor = self._processor()
        with torch.inference_mode():
            vectors = [one(model, processor, batch).numpy() for batch in batches(items, size)]
        return np.concatenate(vectors)

    def _images(self, model: Any, processor: Any, batch: Sequence[Item]) -> Any:
        import torch

        from braindecode_pipe.embed.image import read_image

        tensors = [
            processor(images=read_image(item), return_tensors="pt")["pixel_values"]
            for item in batch
        ]
        # Processors that keep the aspect ratio give tensors that cannot be stacked.
        if len({tensor.shape for tensor in tensors}) == 1:
            tensors = [torch.cat(tensors)]
        return torch.cat([self._vectors(model, pixel_values=tensor) for tensor in tensors])

    def _texts(self, model: Any, processor: Any, batch: Sequence[Item]) -> Any:
        config = getattr(self.config, "text_config", self.config)
        longest = min(processor.model_max_length, getattr(config, "max_position_embeddings", 10**9))
        encoded = processor(
            [text_of(item) for item in batch],
            # SigLIP was trained on texts padded to full length, and reads the padding.
            padding="max_length" if self.config.model_type.startswith("siglip") else True,
            truncation=longest < 10**6,
            max_length=longest if longest < 10**6 else None,
            return_tensors="pt",
        )
        names = ("input_ids", "attention_mask", "token_type_ids")
        return self._vectors(model, **{k: v for k, v in encoded.items() if k in names})

    def _sounds(self, model: Any, processor: Any, batch: Sequence[Item]) -> Any:
        from braindecode_pipe.embed.speech import read_audio, resample

        (item,) = batch
        wave, sfreq = read_audio(item)
        wave = resample(wave, sfreq, processor.sampling_rate)
        frames = model._get_feat_extract_output_lengths(len(wave))
        if int(frames) < 1:
            raise StimulusError(
                f"{item.name}: the sound is too short for {self.name}",
                expected="at least one frame of the model",
                found=f"{len(wave) / processor.sampling_rate:.4f} s",
            )
        encoded = processor(
            wave.astype(np.float32), sampling_rate=processor.sampling_rate, return_tensors="pt"
        )
        return self._vectors(model, input_values=encoded["input_values"])

    def _vectors(self, model: Any, **inputs: Any) -> Any:
        """Embeddings (n, features) of one batch of tensors."""
        if self.is_joint and self.layer is None and not self.pooling:
            features = getattr(model, f"get_{self.reads}_features")(**inputs)
            # transformers 4 returns the tensor, transformers 5 an output that holds it.
            return getattr(features, "pooler_output", features)
        body = model
        if self.is_joint:
            body = model.vision_model if self.reads == "image" else model.text_model
            inputs.pop("token_type_ids", None)
        elif getattr(self.config, "is_encoder_decoder", False):
            body = model.get_encoder()
        output = body(**inputs, output_hidden_states=self.layer is not None)
        mask = inputs.get("attention_mask")
        if self.layer is None:
            return self._pool(model, output.last_hidden_state, mask)
        layers = resolve_layers(self.layer, len(output.hidden_states) - 1, self.name)
        pooled = {k: self._pool(model, output.hidden_states[k], mask) for k in layers}
        return average_layers(pooled, layers, self.name)

    def _pool(self, model: Any, state: Any, mask: Any) -> Any:
        from braindecode_pipe.embed.bert import masked_mean

        pooling = self.pooling or self._default_pooling(model)
        if state.ndim == 4:
            if pooling == "cls":
                raise ModelError(
                    f"{self.name} has no class token", expected="pooling = 'mean'", found="'cls'"
                )
            return state.mean((2, 3))
        if pooling == "cls":
            return state[:, 0]
        return state.mean(1) if mask is None else masked_mean(state, mask)

    def _default_pooling(self, model: Any) -> str:
        names = (name for name, _ in model.named_parameters())
        has_class = any(name.endswith(("cls_token", "class_embedding")) for name in names)
        return "cls" if self.reads == "image" and has_class else "mean"

    def _model(self) -> Any:
        from transformers import AutoModel

        model, report = self._load(AutoModel, use_safetensors=True, output_loading_info=True)
        missing = [
            key
            for key in sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
            if not any(part in key for part in _UNUSED)
        ]
        if missing:
            raise ModelError(
                f"the weights of {self.name} are incomplete: the rest would be random",
                file=self.folder,
                expected="every tensor of the model",
                found=f"{len(missing)} missing or of another shape: {', '.join(missing[:5])}",
            )
        return model.float().eval()

    def _processor(self) -> Any:
        import transformers

        if self.reads == "text":
            tokenizer = self._load(transformers.AutoTokenizer)
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            return tokenizer
        if self.reads == "audio":
            return self._load(transformers.AutoFeatureExtractor)
        # The Pillow processors give the same values with and without torchvision.
        modern = int(transformers.__version__.split(".")[0]) >= 5
        backend = {"backend": "pil"} if modern else {"use_fast": False}
        return self._load(transformers.AutoImageProcessor, **backend)

    def _load(self, auto: Any, **options: Any) -> Any:
        from safetensors import SafetensorError

        try:
            return auto.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False, **options
            )
        except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
            raise ModelError(
                f"{self.name} cannot be loaded by {auto.__name__}",
                file=self.folder,
                expected="a folder as written by save_pretrained, with safetensors",
                found=str(error).strip().split("\n")[0] or type(error).__name__,
            ) from error


def find_model(name: str) -> tuple[Path, str]:
    """Folder of a model and its revision ("" for a folder that was given).

    Raises
    ------
    ModelError
        No such folder, not in the cache, no ``transformers``, or weights that are a pickle.
    """
    folder, revision = Path(name).expanduser(), ""
    if not folder.is_dir():
        if name.startswith((".", "~", os.sep)) or name.count("/") > 1:
            raise ModelError(
                "the folder of the model is missing",
                file=name,
                expected="a folder",
                found="nothing",
            )
        folder = _find_in_cache(name)
        revision = folder.name
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise ModelError(
            f"{name} needs the library transformers",
            expected="transformers",
            found="not installed",
            remedy='pip install "braindecode-pipe[transformers]"',
        ) from None
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{name} is no model of transformers",
            file=folder,
            expected="config.json",
            found="no such file",
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for file in [*folder.glob("*.bin"), *folder.glob("*.pt*")])
        raise ModelError(
            f"{name} has no weights that are safe to load",
            file=folder,
            expected="*.safetensors",
            found=f"pickle: {', '.join(pickles)}" if pickles else "no weights",
            remedy="use a revision with safetensors, or convert it with save_pretrained",
        )
    return folder, revision


def _find_in_cache(name: str) -> Path:
    folder = "models/" + name.rsplit("/", 1)[-1]
    remedy = (
        f"braindecode-pipe fetch model:{name} {folder}, then model = {folder!r} in the recipe; "
        f"or a built-in model: {_BUILT_IN}"
    )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        found = "no folder of this name, and huggingface_hub is not installed"
        remedy = f'pip install "braindecode-pipe[transformers]", then {remedy}'
        raise ModelError(
            f"{name} is no model on this machine", found=found, remedy=remedy
        ) from None
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ModelError(
            f"{name} is no model on this machine",
            expected="a built-in model, a folder, or a hub id in the local cache",
            found="no folder and no cached model of this name",
            remedy=remedy,
        ) from error
